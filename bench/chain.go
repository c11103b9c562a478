package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

const (
	childChain       = "chain"
	childChainPebble = "chain-pebble"
)

type chainOptions struct {
	gigabytes float64
	rounds    int
	idle      time.Duration
	beside    bool
	cached    bool
}

// chainMode measures a chain that is far larger than its memory, beside Pebble taking in tables of the same pairs, and what it does to others' commits.
func chainMode(fs *flag.FlagSet) runner {
	o := &chainOptions{}
	fs.Float64Var(&o.gigabytes, "gb", 4, "size of the chain in GB: keys and values")
	fs.IntVar(&o.rounds, "rounds", 1, "rounds")
	fs.DurationVar(&o.idle, "idle", 5*time.Second, "how long the writer beside the chain writes before the chain is begun")
	fs.BoolVar(&o.beside, "beside", true, "also fill and commit one beside a writer")
	fs.BoolVar(&o.cached, "full-cache", true, "have the page cache full before each run, of a file without blocks")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A chainSpec says what a child does.
type chainSpec struct {
	Dir     string        `json:"dir"` // does not exist yet
	Pairs   uint64        `json:"pairs"`
	Beside  bool          `json:"beside"` // a writer commits all the while
	Idle    time.Duration `json:"idle"`   // it has the database for itself before
	Sort    bool          `json:"sort"`   // Pebble: the pairs come in random order and have to be sorted; else sorted
	Profile string        `json:"profile"`
}

// A chainMade is what a chain took.
type chainMade struct {
	Fill    time.Duration `json:"fill"`
	Commit  time.Duration `json:"commit"`
	Visible time.Duration `json:"visible"` // from the return of Commit until a held read has returned
	CPU     time.Duration `json:"cpu"`     // of the process, from the call of Commit until all is visible
	PeakRSS int64         `json:"peakRSS"` // bytes, of the process

	// Commits of the writer beside it.
	Idle       latency `json:"idle"`
	WhileFill  latency `json:"whileFill"`
	WhileApply latency `json:"whileApply"` // from the call of Commit until all is visible
}

func (m chainMade) apply() time.Duration { return m.Commit + m.Visible }
func (m chainMade) whole() time.Duration { return m.Fill + m.apply() }

// A tablesMade is what Pebble took for the same pairs.
type tablesMade struct {
	Sort    time.Duration `json:"sort"`   // runs on disk; 0 if the pairs came sorted
	Tables  time.Duration `json:"tables"` // the merge of the runs included
	Ingest  time.Duration `json:"ingest"`
	CPU     time.Duration `json:"cpu"` // of the process, for tables and ingest
	PeakRSS int64         `json:"peakRSS"`
}

func (m tablesMade) apply() time.Duration { return m.Tables + m.Ingest }
func (m tablesMade) whole() time.Duration { return m.Sort + m.apply() }

// A latency sums up how long commits took.
type latency struct {
	Count uint64        `json:"count"`
	P50   time.Duration `json:"p50"`
	P99   time.Duration `json:"p99"`
	Max   time.Duration `json:"max"`
}

// A chainRound is the runs of one round.
type chainRound struct {
	Alone    chainMade  `json:"alone"`
	Beside   chainMade  `json:"beside"`
	Sorted   tablesMade `json:"sorted"`
	Shuffled tablesMade `json:"shuffled"`
}

func (o *chainOptions) run(ctx context.Context, e *env) (*report, error) {
	pairs := uint64(o.gigabytes * 1e9 / pairBytes)
	if pairs < 2 || o.rounds < 1 {
		return nil, errors.New("a chain of at least two pairs, and one round")
	}
	var rounds []chainRound
	for n := range o.rounds {
		var r chainRound
		var err error
		if r.Alone, err = runChain[chainMade](ctx, e, o, childChain, "alone", chainSpec{Pairs: pairs}); err != nil {
			return nil, err
		}
		e.tell("chain: round %d: fill %s, commit %s, visible %s, %s MB", n+1, seconds(r.Alone.Fill), seconds(r.Alone.Commit), seconds(r.Alone.Visible), megabytes(r.Alone.PeakRSS))
		if r.Sorted, err = runChain[tablesMade](ctx, e, o, childChainPebble, "sorted", chainSpec{Pairs: pairs}); err != nil {
			return nil, err
		}
		e.tell("chain: round %d: Pebble, pairs sorted: tables %s, ingest %s", n+1, seconds(r.Sorted.Tables), seconds(r.Sorted.Ingest))
		if r.Shuffled, err = runChain[tablesMade](ctx, e, o, childChainPebble, "shuffled", chainSpec{Pairs: pairs, Sort: true}); err != nil {
			return nil, err
		}
		e.tell("chain: round %d: Pebble, pairs to sort: sort %s, tables %s, ingest %s", n+1, seconds(r.Shuffled.Sort), seconds(r.Shuffled.Tables), seconds(r.Shuffled.Ingest))
		if o.beside {
			if r.Beside, err = runChain[chainMade](ctx, e, o, childChain, "beside", chainSpec{Pairs: pairs, Beside: true, Idle: o.idle}); err != nil {
				return nil, err
			}
			e.tell("chain: round %d: beside a writer: fill %s, commit %s", n+1, seconds(r.Beside.Fill), seconds(r.Beside.Commit))
		}
		rounds = append(rounds, r)
	}
	return o.report(pairs, rounds), nil
}

// runChain runs a child in a directory of its own, with the disk at rest before.
func runChain[A any](ctx context.Context, e *env, o *chainOptions, child, name string, spec chainSpec) (_ A, err error) {
	spec.Dir = filepath.Join(e.dir, name)
	if e.profile != "" {
		spec.Profile = e.profile + "." + name
	}
	defer func() { err = errors.Join(err, os.RemoveAll(spec.Dir)) }()
	settle(ctx, time.Second)
	if o.cached {
		if err := fillPageCache(filepath.Join(e.dir, "cached")); err != nil {
			return *new(A), err
		}
	}
	return runChild[A](ctx, child, spec)
}

// fillPageCache leaves no memory free: all is page cache, of a file that is one hole, and clean. So it is on a machine that has run for a while, and
// memory costs whoever runs next the same: a guest whose memory is free may have given it back to its host, and asking for it again costs more than writing a file.
func fillPageCache(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	err = f.Truncate(memoryBytes())
	if err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	}
	return errors.Join(err, f.Close())
}

func (o *chainOptions) report(pairs uint64, rounds []chainRound) *report {
	column := func(f func(chainRound) float64) spread { return spreadOf(each(rounds, f)) }
	took := func(f func(chainRound) time.Duration) spread {
		return column(func(r chainRound) float64 { return f(r).Seconds() })
	}
	rate := func(f func(chainRound) time.Duration) string {
		return column(func(r chainRound) float64 { return float64(pairs) / f(r).Seconds() }).String()
	}
	rss := func(f func(chainRound) int64) spread {
		return column(func(r chainRound) float64 { return float64(f(r)) / 1e6 })
	}
	apply := column(func(r chainRound) float64 { return r.Sorted.apply().Seconds() / r.Alone.apply().Seconds() })
	whole := column(func(r chainRound) float64 { return r.Shuffled.whole().Seconds() / r.Alone.whole().Seconds() })
	peak := rss(func(r chainRound) int64 { return r.Alone.PeakRSS })
	t := table{
		title: fmt.Sprintf("A chain of %s pairs, %s GB (median [min-max] of rounds, seconds)", figure(float64(pairs)), figure(float64(pairs*pairBytes)/1e9)),
		head:  []string{"", "fill or sort", "commit or tables", "visible or ingest", "apply", "CPU of that", "all", "ops/s", "peak MB"},
		note: fmt.Sprintf("Apply: from the call of Commit until a held read has returned; with Pebble: tables and Ingest. batchlog to Pebble, speeds: apply, Pebble's pairs sorted for it, %s ×; all, "+
			"both with the sort, %s ×.", apply, whole),
	}
	alone := func(f func(chainMade) time.Duration) string {
		return took(func(r chainRound) time.Duration { return f(r.Alone) }).String()
	}
	t.add("batchlog, Chain", alone(func(m chainMade) time.Duration { return m.Fill }), alone(func(m chainMade) time.Duration { return m.Commit }),
		alone(func(m chainMade) time.Duration { return m.Visible }), alone(chainMade.apply),
		alone(func(m chainMade) time.Duration { return m.CPU }), alone(chainMade.whole),
		rate(func(r chainRound) time.Duration { return r.Alone.whole() }), peak.String())
	for _, p := range []struct {
		name string
		of   func(chainRound) tablesMade
	}{
		{"pebble, pairs sorted for it", func(r chainRound) tablesMade { return r.Sorted }},
		{"pebble, with an external sort", func(r chainRound) tablesMade { return r.Shuffled }},
	} {
		of := func(f func(tablesMade) time.Duration) string {
			return took(func(r chainRound) time.Duration { return f(p.of(r)) }).String()
		}
		t.add(p.name, of(func(m tablesMade) time.Duration { return m.Sort }), of(func(m tablesMade) time.Duration { return m.Tables }),
			of(func(m tablesMade) time.Duration { return m.Ingest }), of(tablesMade.apply), of(func(m tablesMade) time.Duration { return m.CPU }), of(tablesMade.whole),
			rate(func(r chainRound) time.Duration { return p.of(r).whole() }), rss(func(r chainRound) int64 { return p.of(r).PeakRSS }).String())
	}
	report := &report{Results: rounds, tables: []table{t}, Checks: []check{
		atLeast("chain, commit until visible, to Pebble making and taking in tables of sorted pairs", apply.Median, chainApplyFloor, "×"),
		atMost("chain, peak memory of the process", peak.Median, chainPeakFloor/1e6, "MB"),
	}}
	if o.beside {
		o.reportBeside(report, rounds)
	}
	return report
}

// reportBeside adds what the writer beside the chain has seen.
func (o *chainOptions) reportBeside(report *report, rounds []chainRound) {
	t := table{
		title: "Commits of one op by one writer beside such a chain, µs (median [min-max] of rounds)",
		head:  []string{"", "commits", "p50", "p99", "longest", "p99 to idle"},
	}
	for i, of := range []struct {
		name string
		of   func(chainMade) latency
	}{
		{"idle, before", func(m chainMade) latency { return m.Idle }},
		{"while it is filled", func(m chainMade) latency { return m.WhileFill }},
		{"from Commit until it is visible", func(m chainMade) latency { return m.WhileApply }},
	} {
		column := func(f func(latency) float64) spread {
			return spreadOf(each(rounds, func(r chainRound) float64 { return f(of.of(r.Beside)) }))
		}
		ratio := spreadOf(each(rounds, func(r chainRound) float64 {
			return float64(of.of(r.Beside).P99) / float64(max(1, r.Beside.Idle.P99))
		}))
		t.add(of.name, column(func(l latency) float64 { return float64(l.Count) }).String(), column(func(l latency) float64 { return micros(l.P50) }).String(),
			column(func(l latency) float64 { return micros(l.P99) }).String(), column(func(l latency) float64 { return micros(l.Max) }).String(), ratio.String()+" ×")
		if i > 0 {
			report.Checks = append(report.Checks, atMost("a writer beside a chain, "+of.name+": p99 to that before", ratio.Median, chainBesideFloor, "×"))
		}
	}
	fill := spreadOf(each(rounds, func(r chainRound) float64 { return r.Beside.Fill.Seconds() }))
	apply := spreadOf(each(rounds, func(r chainRound) float64 { return r.Beside.apply().Seconds() }))
	t.note = fmt.Sprintf("With that writer, the chain took %s s to fill and %s s from Commit until it was visible.", fill, apply)
	report.tables = append(report.tables, t)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// makeChain is a child: it fills a chain in random order and commits it.
func makeChain(ctx context.Context, spec chainSpec) (made chainMade, err error) {
	db, err := local.Open(spec.Dir, nil)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var w *besideWriter
	if spec.Beside {
		if w, err = startBeside(ctx, db, spec.Idle); err != nil {
			return made, err
		}
		defer w.stop()
	}
	stop, err := startProfile(spec.Profile)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	s, pairs := benchSpace(db), newPairs(spec.Pairs)
	key, value := make([]byte, keyBytes), make([]byte, valueBytes)
	w.enter(besideFill)
	start := time.Now()
	c, err := db.Chain(ctx)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for i := range spec.Pairs {
		pairs.fill(pairs.shuffled(i), key, value)
		c.Put(s, key, value)
		if i%4096 == 0 && c.Err() != nil {
			return made, c.Err()
		}
	}
	made.Fill = time.Since(start)
	w.enter(besideApply)
	cpu := cpuTime()
	start = time.Now()
	if _, err := c.Commit(ctx); err != nil {
		return made, err
	}
	made.Commit = time.Since(start)
	start = time.Now()
	if err := checkPairs(ctx, s, pairs, 1); err != nil {
		return made, err
	}
	made.Visible, made.CPU = time.Since(start), cpuTime()-cpu
	if w != nil {
		if err := w.stop(); err != nil {
			return made, err
		}
		made.Idle, made.WhileFill, made.WhileApply = w.seen[besideIdle].sum(), w.seen[besideFill].sum(), w.seen[besideApply].sum()
	}
	made.PeakRSS = peakRSS()
	return made, checkPairs(ctx, s, pairs, 1000)
}

// checkPairs reads some of the pairs, held as reads are by default, and compares.
func checkPairs(ctx context.Context, s *batchlog.Space, pairs pairSet, count uint64) error {
	key, value := make([]byte, keyBytes), make([]byte, valueBytes)
	for i := range min(count, pairs.n) {
		pairs.fill(pairs.shuffled(pairs.n-1-i), key, value)
		got, err := s.Get(ctx, key)
		if err == nil && !bytes.Equal(got, value) {
			err = errWrongValue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// What the chain is at, as the writer beside it counts.
const (
	besideIdle = iota
	besideFill
	besideApply
	besideEnd
)

// A besideWriter writes commits of one op, one after the other.
type besideWriter struct {
	at    atomic.Int32
	ended chan error
	err   error
	done  bool
	seen  [besideEnd]besideSeen
}

type besideSeen struct {
	hist histogram
	max  time.Duration
}

func (s *besideSeen) sum() latency {
	return latency{Count: s.hist.n, P50: s.hist.percentile(0.5), P99: s.hist.percentile(0.99), Max: s.max}
}

// startBeside starts a writer and returns when it has been idle, but for a second in which nothing is counted, for so long.
func startBeside(ctx context.Context, db *local.DB, idle time.Duration) (*besideWriter, error) {
	w := &besideWriter{ended: make(chan error, 1)}
	go func() { w.ended <- w.writeLoop(ctx, db.Space("beside"), min(idle, time.Second)) }()
	sleep(ctx, min(idle, time.Second)+idle)
	return w, ctx.Err()
}

func (w *besideWriter) writeLoop(ctx context.Context, s *batchlog.Space, warmup time.Duration) error {
	g := newGenerator(1, 1)
	began := time.Now()
	for {
		at := w.at.Load()
		if at == besideEnd {
			return nil
		}
		op := g.next()[0]
		start := time.Now()
		if _, err := s.Put(ctx, op.key, op.value); err != nil {
			return err
		}
		if took := time.Since(start); start.Sub(began) >= warmup {
			seen := &w.seen[at]
			seen.hist.add(took)
			seen.max = max(seen.max, took)
		}
	}
}

// enter tells the writer what the chain is at; nil: there is none.
func (w *besideWriter) enter(at int32) {
	if w != nil {
		w.at.Store(at)
	}
}

// stop ends the writer.
func (w *besideWriter) stop() error {
	if !w.done {
		w.done = true
		w.at.Store(besideEnd)
		w.err = <-w.ended
	}
	return w.err
}
