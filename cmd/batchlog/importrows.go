package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

const (
	// loadBatchBytes is the size at which a batch of rows is closed before it has all the rows it may have.
	loadBatchBytes = 16 << 20
	// loadAhead is how many batches may be ready while one is written.
	loadAhead = 2
	// badShown bounds the bad lines that are printed.
	badShown = 20
)

// A row is a line, or some, of an input, as a key and its value.
type row struct {
	first, last int64 // lines
	offset      int64 // of the first one's first byte
	key         batchlog.Key
	value       []byte // valid until the next row
	err         error  // what is wrong with it; nil: nothing
	torn        bool   // it is so wrong that nobody can tell where the next row begins
}

// A badRowError is a row that can't be loaded.
type badRowError struct {
	line, offset int64
	err          error
}

func (e *badRowError) Error() string {
	text := e.err.Error()
	if n := len(text); n > 1000 { // it may have the row in it
		text = strings.ToValidUTF8(text[:400]+"…"+text[n-400:], "")
	}
	return fmt.Sprintf("line %d, byte %d: %s", e.line, e.offset, clipped(text, 200, "…"))
}

func (e *badRowError) Unwrap() error { return e.err }

// loadFlags are the flags of commands that load rows.
type loadFlags struct {
	writeFlags
	space   string
	keys    []string
	value   string
	atomic  bool
	batch   int64
	skipBad bool
	from    int64
	given   func(flag string) bool
}

// loadHelp is what --help says of loading rows.
const loadHelp = `Without --atomic the rows become batches of 1000 (--batch), one after the other, so of two rows with the same key the last one wins. With --atomic the
file is one commit of any size: all of it shows at once, or nothing if it fails. FILE - is stdin; what is named .gz is decompressed.

A row that can't be read ends the import with its line and byte offset and exit code 1. The rows before it are in, and it says which --from-line goes
on behind them; with --atomic nothing is written. With --skip-bad such rows are passed over, the first 20 are printed on stderr, the end says how many
they were, and the exit code is 0.

With --token T it is safe to run again what was interrupted: each batch has the token T/FIRST-LAST, its lines, and those that are in already are
not written again. With --atomic the token is T.`

func (f *loadFlags) add(cmd *cobra.Command, field string) {
	flags := cmd.Flags()
	flags.StringVar(&f.space, "space", "", "the `SPACE` that the rows go to")
	flags.StringArrayVar(&f.keys, "key", nil, fmt.Sprintf("the `%s` whose value is the key; several, with commas or by giving it again, make the array of them", field))
	flags.StringVar(&f.value, "value", "", fmt.Sprintf("only this `%s` is the value; without it the whole row is", field))
	flags.BoolVar(&f.atomic, "atomic", false, "load all as one commit")
	flags.Int64Var(&f.batch, "batch", 1000, "`N` rows in a batch")
	flags.BoolVar(&f.skipBad, "skip-bad", false, "pass over rows that can't be read")
	flags.Int64Var(&f.from, "from-line", 1, "begin with the row in line `N`")
	flags.StringVar(&f.token, "token", "", "`T` names this import, so that it can be run again")
	flags.StringArrayVar(&f.labels, "label", nil, "`NAME=VALUE` kept with each commit; may be given several times")
	f.given = flags.Changed
}

// check reports what is wrong with the flags.
func (f *loadFlags) check() error {
	switch {
	case f.space == "":
		return usagef("--space is missing: where are the rows to go?")
	case len(f.keys) == 0:
		return usagef("--key is missing: what is the key of a row?")
	case f.given("value") && f.value == "":
		return usagef("--value is empty")
	case f.batch < 1:
		return usagef("--batch %d is less than 1", f.batch)
	case f.from < 1:
		return usagef("--from-line %d is less than 1", f.from)
	case f.atomic && f.given("batch"):
		return usagef("--atomic and --batch exclude each other")
	}
	return nil
}

// A loadResult is what an import of rows prints.
type loadResult struct {
	File    string      `json:"file"`
	Space   string      `json:"space"`
	Rows    int64       `json:"rows"`              // loaded
	Already int64       `json:"already,omitempty"` // of these, those that an import with the same token had loaded before
	Bad     int64       `json:"bad"`               // passed over
	Commits int64       `json:"commits"`
	First   batchlog.ID `json:"first"` // 0: nothing was loaded
	Last    batchlog.ID `json:"last"`
	Bytes   int64       `json:"bytes"` // of the ops
	Seconds float64     `json:"seconds"`

	firstLine, lastLine int64 // that are in
}

// A loader loads rows into a space.
type loader struct {
	loadFlags
	a      *app
	db     *batchlog.DB
	space  *batchlog.Space
	labels map[string]string
	in     *input
	lead   int // bytes that the path of the space takes of a key
	meter  *meter
	stages *stageMeter
	known  batchlog.ID // head before the import

	result loadResult
}

// loadRows loads what rows makes of the lines of a file.
func (a *app) loadRows(ctx context.Context, file string, flags loadFlags, rows func(lines *lineReader) iter.Seq2[row, error]) (err error) {
	if err := flags.check(); err != nil {
		return err
	}
	path, err := pathArg(flags.space)
	if err != nil {
		return err
	}
	labels, err := parseLabels(flags.labels)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx) // ends what reads ahead
	defer cancel()
	in, err := a.openInput(ctx, file, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	return a.withDB(true, func(db *local.DB) error {
		l := &loader{
			loadFlags: flags, a: a, db: db.DB, space: db.Space(path...), labels: labels, in: in,
			meter: newMeter(a.err, a.errTerm, "import", "B", in.size), stages: a.importStages(),
		}
		l.lead = len(l.space.Stored())
		l.result.File, l.result.Space = in.name, l.space.String()
		var err error
		if l.known, err = db.Head(ctx); err != nil {
			return err
		}
		start := time.Now()
		good := l.good(rows(readLines(ctx, in, batchlog.MaxValueBytes)))
		if flags.atomic {
			err = l.loadChain(ctx, good)
		} else {
			err = l.loadBatches(ctx, good)
		}
		l.meter.end()
		l.stages.end()
		if err != nil {
			return l.stopped(interruption(ctx, err))
		}
		l.result.Seconds = time.Since(start).Seconds()
		if a.json {
			return a.printJSON(l.result)
		}
		_, err = a.out.WriteString(l.result.text())
		return err
	})
}

// good is the rows that are to be loaded. One that can't be is a *badRowError, or is passed over.
func (l *loader) good(rows iter.Seq2[row, error]) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for r, err := range rows {
			if err != nil {
				yield(r, err)
				return
			}
			n := l.in.read.n.Load()
			l.meter.set(n, n)
			if r.first < l.from && !r.torn {
				continue
			}
			if r.err == nil {
				r.err = l.fits(r)
			}
			if r.err != nil {
				bad := &badRowError{r.first, r.offset, r.err}
				if !l.skipBad || r.torn {
					yield(r, bad)
					return
				}
				l.passOver(bad)
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// fits reports why a row can't be an op.
func (l *loader) fits(r row) error {
	if err := batchlog.LimitKey.Check(l.lead + len(r.key)); err != nil {
		return err
	}
	return batchlog.LimitValue.Check(len(r.value))
}

func (l *loader) passOver(bad *badRowError) {
	l.result.Bad++
	if l.result.Bad > badShown {
		return
	}
	l.meter.end()
	fmt.Fprintf(l.a.err, "batchlog: %s; passed over\n", printable(bad.Error()))
	if l.result.Bad == badShown {
		fmt.Fprintln(l.a.err, "batchlog: more of them are only counted")
	}
}

// took counts what was committed.
func (l *loader) took(id batchlog.ID, firstLine, lastLine, rows, bytes int64) {
	r := &l.result
	if r.Commits == 0 {
		r.First, r.firstLine = id, firstLine
	}
	if id <= l.known {
		r.Already += rows
	}
	r.First, r.Last, r.lastLine = min(r.First, id), max(r.Last, id), lastLine
	r.Commits++
	r.Rows += rows
	r.Bytes += bytes
}

// loadChain loads rows as one commit.
func (l *loader) loadChain(ctx context.Context, rows iter.Seq2[row, error]) (err error) {
	c, err := l.db.Chain(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token, c.Labels = l.token, l.labels
	c.Progress = func(p batchlog.ChainProgress) {
		if p.Stage != "fill" { // l.meter shows that
			l.stages.chain(p)
		}
	}
	first, last := int64(0), int64(0)
	for r, err := range rows {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if first == 0 {
			first = r.first
		}
		last = r.last
		if r.err != nil {
			continue
		}
		c.Put(l.space, r.key, r.value)
		if err := c.Err(); err != nil {
			return err
		}
	}
	l.meter.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	n, bytes := c.Len(), c.Size()
	if n == 0 {
		return nil
	}
	id, err := c.Commit(ctx)
	if err == nil {
		l.took(id, first, last, n, bytes)
	}
	return err
}

// A rowBatch is some rows as a batch.
type rowBatch struct {
	batchlog.Batch
	first, last int64 // lines
}

// loadBatches loads rows as batches, one after the other, while the next ones are made.
func (l *loader) loadBatches(ctx context.Context, rows iter.Seq2[row, error]) error {
	making, stop := context.WithCancel(ctx)
	ready := make(chan *rowBatch, loadAhead)
	done := make(chan *rowBatch, loadAhead+2) // to be used again
	var wg sync.WaitGroup
	var failed error // of making batches; written before ready is closed
	wg.Go(func() {
		defer close(ready)
		failed = l.makeBatches(making, rows, ready, done)
	})
	err := l.writeBatches(ctx, ready, done)
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	return failed
}

// makeBatches makes batches of rows until they or ctx end. The rows before an error are in the last batch.
func (l *loader) makeBatches(ctx context.Context, rows iter.Seq2[row, error], ready chan<- *rowBatch, done <-chan *rowBatch) (failed error) {
	var b *rowBatch
	n := int64(0) // rows that b stands for, bad ones included
	send := func() bool {
		if b == nil {
			return true
		}
		b.Labels = l.labels
		if l.token != "" {
			b.Token = fmt.Sprintf("%s/%d-%d", l.token, b.first, b.last)
		}
		select {
		case ready <- b:
			b, n = nil, 0
			return true
		case <-ctx.Done():
			return false
		}
	}
	for r, err := range rows {
		if err != nil {
			failed = err
			break
		}
		if b != nil && (n == l.batch || b.Size()+len(r.value) > loadBatchBytes) && !send() {
			return context.Cause(ctx)
		}
		if b == nil {
			select {
			case b = <-done:
				b.Reset()
			default:
				b = &rowBatch{}
			}
			b.first = r.first
		}
		b.last = r.last
		n++
		if r.err == nil {
			b.Put(l.space, r.key, r.value)
		}
	}
	if ctx.Err() == nil {
		send()
	}
	if failed == nil && ctx.Err() != nil {
		failed = context.Cause(ctx)
	}
	return failed
}

// writeBatches writes what comes.
func (l *loader) writeBatches(ctx context.Context, ready <-chan *rowBatch, done chan<- *rowBatch) error {
	for b := range ready {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if b.Len() > 0 { // else all its rows are bad
			// What is under way runs to its end, so that its outcome is known.
			id, err := l.db.Write(context.WithoutCancel(ctx), &b.Batch)
			if err != nil {
				return err
			}
			l.took(id, b.first, b.last, int64(b.Len()), int64(b.Size()))
		}
		select {
		case done <- b:
		default:
		}
	}
	return nil
}

// stopped is err with what is in, and how to go on.
func (l *loader) stopped(err error) error {
	r := &l.result
	var bad *badRowError
	isBad := errors.As(err, &bad)
	switch {
	case l.atomic && errors.Is(err, batchlog.ErrUncertain):
		return err
	case l.atomic:
		err = fmt.Errorf("%w; nothing was written", err)
	case r.Commits == 0:
		err = fmt.Errorf("%w; no line is in", err)
	default:
		err = fmt.Errorf("%w; lines %d to %d are in (%s); go on with --from-line %d", err, r.firstLine, r.lastLine, idsText(r.First, r.Last), r.lastLine+1)
	}
	if isBad {
		return &hintedError{err: err, hint: "mend the line, or pass over those that can't be read: --skip-bad"}
	}
	return err
}

// text is r for people.
func (r *loadResult) text() string {
	text := fmt.Sprintf("%s has no rows to import\n", r.File)
	if r.Commits > 0 {
		text = fmt.Sprintf("imported %s of %s into %s in %.1f s: %s, %s; %s rows/s\n", counted(r.Rows, "row"), r.File, r.Space, r.Seconds, idsText(r.First, r.Last), bytesText(r.Bytes),
			rateText(float64(r.Rows)/max(r.Seconds, 1e-6)))
	}
	if r.Already > 0 {
		text += fmt.Sprintf("%s of them were in already, from an import with the same token\n", countText(r.Already))
	}
	if r.Bad > 0 {
		text += fmt.Sprintf("passed over %s that can't be read\n", counted(r.Bad, "row"))
	}
	return text
}

// fieldNames splits the values of a flag that names fields: at commas, but for a value that is a JSON array.
func fieldNames(flags []string) []string {
	var names []string
	for _, text := range flags {
		if strings.HasPrefix(text, "[") {
			names = append(names, text)
			continue
		}
		names = append(names, strings.Split(text, ",")...)
	}
	return names
}

// fieldPath is the names that lead to a field: words between dots, or a JSON array of strings.
func fieldPath(text string) ([]string, error) {
	if !strings.HasPrefix(text, "[") {
		path := strings.Split(text, ".")
		for _, name := range path {
			if name == "" {
				return nil, usagef(`field %q has an empty part; write names that are empty or have dots or commas as a JSON array: ["a.b"]`, text)
			}
		}
		return path, nil
	}
	parts, err := batchlog.ParsePathJSON([]byte(text))
	if err != nil {
		return nil, usagef("field %s: %w", text, err)
	}
	var path []string
	for _, p := range parts {
		name, ok := p.(string)
		if !ok {
			return nil, usagef("field %s: %v is no name", text, p)
		}
		path = append(path, name)
	}
	if len(path) == 0 {
		return nil, usagef("field %s names nothing", text)
	}
	return path, nil
}
