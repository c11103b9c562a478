package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
)

const (
	// maxLineBytes bounds a line of write: the largest batch there is, its values in base64, fits in.
	maxLineBytes = 128 << 20
	// bulkBytes bounds the batches that are under way at once, in encoded bytes; one that is larger goes alone.
	bulkBytes = 256 << 20
)

// A bulk writes lines as batches, some at once, and reports what became of them in the order of the lines.
type bulk struct {
	parallel  int
	keepGoing bool                  // pass over lines that are refused
	report    func(o outcome) error // called by one goroutine
	flush     func() error          // called when nothing is there to report for the moment
	meter     *meter                // counts bytes read
}

// An attempt is one line on its way.
type attempt struct {
	outcome
	size int
	done chan struct{} // closed when outcome is final
}

// run writes the lines of in. What is under way when it has to stop runs to its end and is reported. An error is
// a *bulkError, or that of report or flush.
func (w *bulk) run(ctx context.Context, db *batchlog.DB, in io.Reader) error {
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pending := make(chan *attempt, w.parallel)
	var wg sync.WaitGroup
	var end error // why reading ended, when it did early; written before pending is closed
	wg.Go(func() {
		defer close(pending)
		end = w.dispatch(stop, cancel, db, in, pending)
	})
	sum := &bulkError{keepGoing: w.keepGoing}
	failed := w.reportAll(pending, sum, cancel)
	wg.Wait()
	if failed != nil {
		return failed
	}
	if sum.stop.line == 0 { // else dispatch ended for that
		sum.end = end
	}
	if sum.end == nil && sum.stop.line == 0 && sum.skipped == 0 {
		return nil
	}
	return sum
}

// errStopped is why dispatch ends after a line that was refused.
var errStopped = errors.New("stopped")

// dispatch reads lines and starts an attempt for each, until the input or ctx ends. stop ends it for an attempt that failed.
func (w *bulk) dispatch(ctx context.Context, stop context.CancelCauseFunc, db *batchlog.DB, in io.Reader, pending chan<- *attempt) error {
	lines := readLines(ctx, in, maxLineBytes)
	parser := opjson.NewParser(db)
	turns := make(chan struct{}, w.parallel) // one in it for each batch that is under way
	room := newGate(bulkBytes)
	read := int64(0)
	for l := range lines.all() {
		read += int64(len(l.text)) + 1
		w.meter.set(read, read)
		if l.err != nil && !errors.Is(l.err, errLongLine) {
			return l.err
		}
		if len(bytes.Trim(l.text, " \t\r\n")) == 0 && l.err == nil {
			continue
		}
		at := &attempt{outcome: outcome{line: l.number, err: l.err}, done: make(chan struct{})}
		b := &batchlog.Batch{}
		if at.err == nil {
			at.err = parser.Batch(l.text, b)
		}
		if at.err != nil {
			close(at.done)
			pending <- at
			if w.keepGoing {
				continue
			}
			return errStopped
		}
		at.size = b.Size()
		turns <- struct{}{}
		// With one batch at a time the one before has its outcome now: if it failed this one must not go.
		if room.acquire(ctx, int64(at.size)) != nil || ctx.Err() != nil {
			return interruption(ctx, errStopped)
		}
		pending <- at
		go func() {
			// What is under way runs to its end, so that its outcome is known.
			at.id, at.err = db.Write(context.WithoutCancel(ctx), b)
			if at.err != nil && (!w.keepGoing || fatal(at.err)) {
				stop(errStopped)
			}
			close(at.done)
			room.release(int64(at.size))
			<-turns
		}()
	}
	return interruption(ctx, ctx.Err())
}

// reportAll reports what comes out of pending and sums it up. When reporting fails it calls stop and only waits for the rest.
func (w *bulk) reportAll(pending <-chan *attempt, sum *bulkError, stop context.CancelCauseFunc) error {
	var failed error
	fail := func(err error) {
		if err != nil && failed == nil {
			failed = fmt.Errorf("write output: %w", err)
			stop(errStopped)
		}
	}
	for {
		var at *attempt
		var ok bool
		select {
		case at, ok = <-pending:
		default: // nothing to report for the moment: somebody may be waiting for what was
			fail(w.flush())
			at, ok = <-pending
		}
		if !ok {
			fail(w.flush())
			return failed
		}
		select {
		case <-at.done:
		default:
			fail(w.flush())
			<-at.done
		}
		sum.add(at.outcome)
		if failed == nil {
			fail(w.report(at.outcome))
		}
	}
}

// A bulkError says how a run that did not go through ended, and what became of all the lines.
type bulkError struct {
	keepGoing bool
	before    span    // what was committed, up to the line that stopped the run
	skipped   int64   // lines that were refused and passed over
	first     outcome // the first of them
	stop      outcome // the line that stopped the run; line 0: none
	after     span    // what was committed of lines after that one, as they were under way
	end       error   // what else ended the run
}

func (e *bulkError) add(o outcome) {
	switch {
	case o.err == nil && e.stop.line == 0:
		e.before.add(o)
	case o.err == nil:
		e.after.add(o)
	case e.stop.line == 0 && (!e.keepGoing || fatal(o.err)):
		e.stop = o
	case e.stop.line == 0:
		if e.skipped == 0 {
			e.first = o
		}
		e.skipped++
	}
}

func (e *bulkError) Error() string {
	text := ""
	if e.end != nil {
		text = e.end.Error() + "; "
	}
	text += e.before.String()
	if e.skipped > 0 {
		text += fmt.Sprintf("; refused: %s, the first is line %d: %v", counted(e.skipped, "line"), e.first.line, e.first.err)
	}
	if e.stop.line > 0 {
		text += fmt.Sprintf("; line %d was refused: %v", e.stop.line, e.stop.err)
	}
	switch {
	case e.after.count > 0:
		text += "; of those after it, which were under way, " + e.after.String() + "; nothing else was written"
	case e.stop.line > 0 || e.end != nil:
		text += "; nothing after it was written"
	}
	return text
}

func (e *bulkError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.end, e.stop.err, e.first.err} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// A span is some lines that were committed, and their ids.
type span struct {
	count       int64
	first, last int64 // lines
	low, high   batchlog.ID
}

func (s *span) add(o outcome) {
	if s.count == 0 {
		s.first, s.low, s.high = o.line, o.id, o.id
	}
	s.count++
	s.last = o.line
	s.low, s.high = min(s.low, o.id), max(s.high, o.id)
}

// String is s for people.
func (s *span) String() string {
	ids := idsText(s.low, s.high)
	switch s.count {
	case 0:
		return "no line was committed"
	case 1:
		return fmt.Sprintf("line %d was committed (%s)", s.last, ids)
	case s.last - s.first + 1:
		return fmt.Sprintf("lines %d to %d were committed (%s)", s.first, s.last, ids)
	}
	return fmt.Sprintf("%s from line %d to %d were committed (%s)", counted(s.count, "batch"), s.first, s.last, ids)
}

// fatal reports whether err is not about a batch but about the database: the next one would fare no better.
func fatal(err error) bool {
	for _, target := range []error{
		batchlog.ErrNoSpace, batchlog.ErrReadOnly, batchlog.ErrClosed, batchlog.ErrUncertain,
		batchlog.ErrCorrupt, batchlog.ErrUnsupported, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

var errLongLine = fmt.Errorf("line longer than %s", limitText(maxLineBytes))

// A line is one line of input, without its end.
type line struct {
	number int64
	offset int64  // of its first byte in the input
	text   []byte // valid until the next line is asked for
	err    error  // errLongLine, or why there are no more lines
}

// A lineReader hands out lines that a goroutine reads ahead, so that it can be left while a read hangs.
type lineReader struct {
	ctx   context.Context
	limit int // of a line, in bytes
	lines chan line
	free  chan []byte
}

func readLines(ctx context.Context, in io.Reader, limitBytes int) *lineReader {
	r := &lineReader{ctx: ctx, limit: limitBytes, lines: make(chan line), free: make(chan []byte, 2)}
	r.free <- nil
	r.free <- nil
	go r.readLoop(bufio.NewReaderSize(in, 256<<10))
	return r
}

func (r *lineReader) readLoop(in *bufio.Reader) {
	defer close(r.lines)
	offset := int64(0)
	for number := int64(1); ; number++ {
		var buf []byte
		select {
		case buf = <-r.free:
		case <-r.ctx.Done():
			return
		}
		l := line{number: number, offset: offset}
		var err error
		var read int64
		l.text, read, err = readLine(in, buf[:0], r.limit)
		offset += read
		switch {
		case errors.Is(err, io.EOF) && len(l.text) == 0:
			return
		case errors.Is(err, errLongLine):
			l.err = err
		case err != nil && !errors.Is(err, io.EOF):
			l.err = fmt.Errorf("read line %d: %w", number, err)
		}
		select {
		case r.lines <- l:
		case <-r.ctx.Done():
			return
		}
		if err != nil && !errors.Is(err, errLongLine) {
			return
		}
	}
}

// readLine appends the next line to buf, and says how many bytes it has read. Of a line that is too long it reads all and keeps nothing.
func readLine(in *bufio.Reader, buf []byte, limit int) (_ []byte, read int64, _ error) {
	long := false
	for {
		part, err := in.ReadSlice('\n')
		read += int64(len(part))
		if long = long || len(buf)+len(bytes.TrimSuffix(part, []byte("\n"))) > limit; long {
			buf = nil
		} else {
			buf = append(buf, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if long && (err == nil || errors.Is(err, io.EOF)) {
			err = errLongLine
		}
		return bytes.TrimSuffix(buf, []byte("\n")), read, err
	}
}

// all yields the lines until they, or the context, end.
func (r *lineReader) all() func(yield func(line) bool) {
	return func(yield func(line) bool) {
		for {
			select {
			case l, ok := <-r.lines:
				if !ok || !yield(l) {
					return
				}
				if cap(l.text) > 1<<20 {
					l.text = nil // a large line is rare: don't keep its memory
				}
				r.free <- l.text
			case <-r.ctx.Done():
				return
			}
		}
	}
}
