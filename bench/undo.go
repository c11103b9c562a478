package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

const childUndo = "undo"

type undoOptions struct {
	writers          string
	keys             uint64
	rounds           int
	warmup, duration time.Duration
	settle           time.Duration
	revertKeys       uint64
	revertRounds     int
	undos            int
}

// undoMode measures what it costs to keep what commits overwrite, and how fast that brings an earlier state back.
func undoMode(fs *flag.FlagSet) runner {
	o := &undoOptions{}
	fs.StringVar(&o.writers, "writers", "1,16,64", "numbers of writers")
	fs.Uint64Var(&o.keys, "keys", 100_000, "keys that are overwritten")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds, in which on and off take turns")
	fs.DurationVar(&o.warmup, "warmup", time.Second, "before the measured time")
	fs.DurationVar(&o.duration, "duration", 4*time.Second, "measured time")
	fs.DurationVar(&o.settle, "settle", 300*time.Millisecond, "pause between cells, after a sync of all file systems")
	fs.Uint64Var(&o.revertKeys, "revert-keys", 1_000_000, "keys that a revert brings back")
	fs.IntVar(&o.revertRounds, "revert-rounds", 3, "reverts of each kind")
	fs.IntVar(&o.undos, "undos", 5000, "commits that are taken back, one after the other")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// An undoSpec says what a child does: overwrites of keys that are there.
type undoSpec struct {
	Undo bool     `json:"undo"`
	Cell cellSpec `json:"cell"`
}

// An undoCombo is one number of writers, measured with and without.
type undoCombo struct {
	Writers int    `json:"writers"`
	On      []cell `json:"on"` // one a round
	Off     []cell `json:"off"`
	Acked   spread `json:"acked"` // on to off, of the same round
	Applied spread `json:"applied"`
	P50     spread `json:"p50"`
}

type undoResult struct {
	Writes  []undoCombo `json:"writes"`
	Reverts reverts     `json:"reverts"`
	Undos   undos       `json:"undos"`
}

func (o *undoOptions) run(ctx context.Context, e *env) (*report, error) {
	writers, err := numbers(o.writers)
	if err != nil {
		return nil, err
	}
	if o.keys == 0 || o.revertKeys == 0 || o.rounds < 1 || o.revertRounds < 1 || o.undos < 1 {
		return nil, errors.New("keys, rounds and undos are at least one")
	}
	steps := e.steps(len(writers) * o.rounds * 2)
	var result undoResult
	for _, w := range writers {
		c, err := o.measure(ctx, e, steps, w)
		if err != nil {
			return nil, err
		}
		result.Writes = append(result.Writes, c)
	}
	if result.Reverts, err = o.measureReverts(ctx, e); err != nil {
		return nil, err
	}
	if result.Undos, err = o.measureUndos(ctx, e); err != nil {
		return nil, err
	}
	r := &report{Results: result, tables: append(undoTables(result.Writes), result.Reverts.table(o), result.Undos.table())}
	for _, c := range result.Writes {
		with := fmt.Sprintf("1 op, %s, Undo on to off: ", countOf(c.Writers, "writer"))
		r.Checks = append(r.Checks, atLeast(with+"acknowledged", c.Acked.Median, undoAckedFloor, "×"), atLeast(with+"applied", c.Applied.Median, undoAppliedFloor, "×"))
		if c.Writers <= 16 { // with more, the time of a write is that of a batch before it
			r.Checks = append(r.Checks, atMost(with+"p50 of a write", c.P50.Median, undoP50Floor, "×"))
		}
	}
	r.Checks = append(r.Checks,
		atLeast("revert of what a chain has changed, until visible", result.Reverts.Chain.Median, revertFloor, "keys/s"),
		atLeast("revert of what commits have changed, until visible", result.Reverts.Commits.Median, revertFloor, "keys/s"),
		atMost("undo of a commit of 1 op, to a 1-op Update: p50", result.Undos.Ratio, undoOneFloor, "×"))
	return r, nil
}

// measure runs cells with Undo on and off, each in a process of its own, in turn. Every other round goes backwards.
func (o *undoOptions) measure(ctx context.Context, e *env, steps *steps, writers int) (undoCombo, error) {
	c := undoCombo{Writers: writers}
	for round := range o.rounds {
		order := []bool{false, true}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, on := range order {
			spec := undoSpec{Undo: on, Cell: cellSpec{
				Peer: ours, Writers: writers, Ops: 1, Keys: o.keys, Warmup: o.warmup, Duration: o.duration, Seed: uint64(round), Dir: filepath.Join(e.dir, "cell"),
			}}
			name, list := "off", &c.Off
			if on {
				name, list = "on", &c.On
			}
			if e.profile != "" {
				spec.Cell.Profile = fmt.Sprintf("%s.%s-%d-%d", e.profile, name, writers, round+1)
			}
			settle(ctx, o.settle)
			measured, err := runChild[cell](ctx, childUndo, spec)
			if err != nil {
				return c, errors.Join(fmt.Errorf("undo %s, %s: %w", name, countOf(writers, "writer"), err), os.RemoveAll(spec.Cell.Dir))
			}
			*list = append(*list, measured)
			steps.done("%s, round %d, undo %s: %s acknowledged/s, %s applied/s", countOf(writers, "writer"), round+1, name, figure(measured.Acked), figure(measured.Applied))
		}
	}
	ratio := func(f func(cell) float64) spread {
		var all []float64
		for i := range c.On {
			if off := f(c.Off[i]); off > 0 {
				all = append(all, f(c.On[i])/off)
			}
		}
		return spreadOf(all)
	}
	c.Acked = ratio(func(c cell) float64 { return c.Acked })
	c.Applied = ratio(func(c cell) float64 { return c.Applied })
	c.P50 = ratio(func(c cell) float64 { return micros(c.P50) })
	return c, nil
}

func undoTables(combos []undoCombo) []table {
	var tables []table
	for _, c := range combos {
		t := table{
			title: fmt.Sprintf("Durable overwrites, 1 op a batch, %s (median [min-max] of rounds)", countOf(c.Writers, "writer")),
			head:  []string{"undo", "acknowledged/s", "applied/s", "p50 µs", "p99 µs", "CPU µs", "lag", "drain s", "peak MB"},
			note:  fmt.Sprintf("On to off: acknowledged %s ×, applied %s ×, p50 %s ×.", c.Acked, c.Applied, c.P50),
		}
		for _, row := range []struct {
			name  string
			cells []cell
		}{{"off", c.Off}, {"on", c.On}} {
			column := func(f func(cell) float64) spread { return spreadOf(each(row.cells, f)) }
			t.add(row.name, column(func(c cell) float64 { return c.Acked }).String(), column(func(c cell) float64 { return c.Applied }).String(),
				figure(column(func(c cell) float64 { return micros(c.P50) }).Median), figure(column(func(c cell) float64 { return micros(c.P99) }).Median),
				figure(column(func(c cell) float64 { return micros(c.CPU) }).Median),
				figure(column(func(c cell) float64 { return float64(c.Lag) }).Median), figure(column(func(c cell) float64 { return c.Drain.Seconds() }).Median),
				figure(column(func(c cell) float64 { return float64(c.PeakRSS) / 1e6 }).Median))
		}
		tables = append(tables, t)
	}
	return tables
}

// runUndo is a child: it fills a database with the keys and measures overwrites.
func runUndo(ctx context.Context, spec undoSpec) (_ cell, err error) {
	db, err := local.Open(spec.Cell.Dir, &local.Options{Log: batchlog.LogConfig{Undo: spec.Undo}})
	if err != nil {
		return cell{}, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(spec.Cell.Dir)) }()
	if err := putKeys(ctx, db, spec.Cell.Keys); err != nil {
		return cell{}, err
	}
	head, err := db.Head(ctx)
	if err != nil {
		return cell{}, err
	}
	stop, err := startProfile(spec.Cell.Profile)
	if err != nil {
		return cell{}, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	r := &run{spec: spec.Cell}
	c, err := r.measure(ctx, &overwritten{batchlogTarget{db}, uint64(head)})
	if err == nil && spec.Undo {
		err = hasInverses(ctx, db)
	}
	return c, err
}

// putKeys puts the keys that generators overwrite.
func putKeys(ctx context.Context, db *local.DB, keys uint64) error {
	const some = 1000
	s, key := benchSpace(db), make([]byte, keyBytes)
	var b batchlog.Batch
	for n := uint64(0); n < keys; {
		b.Reset()
		for ; n < keys && b.Len() < some; n++ {
			putKey(key, n)
			b.Put(s, key, bytes.Repeat(key[:1], valueBytes))
		}
		if _, err := db.Write(ctx, &b); err != nil {
			return err
		}
	}
	return db.Flush(ctx)
}

// hasInverses looks whether every commit can be taken back.
func hasInverses(ctx context.Context, db *local.DB) error {
	st, err := db.Status(ctx)
	if err == nil && (len(st.Undo.Have) != 1 || st.Undo.Have[0] != batchlog.IDRange{First: 1, Last: st.Head}) {
		err = fmt.Errorf("inverses are there of %v, of %d commits", st.Undo.Have, st.Head)
	}
	return err
}

// overwritten is a target that had commits before it was measured.
type overwritten struct {
	batchlogTarget
	before uint64
}

func (t *overwritten) applied(ctx context.Context) (uint64, error) {
	id, err := t.batchlogTarget.applied(ctx)
	return id - t.before, err
}

func (t *overwritten) drain(ctx context.Context) (uint64, error) {
	id, err := t.batchlogTarget.drain(ctx)
	return id - t.before, err
}
