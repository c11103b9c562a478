package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

type copyOptions struct {
	keys    uint64
	writers int
	rounds  int
}

// copyMode measures copies and moves within the engine, beside the same chain filled by hand.
func copyMode(fs *flag.FlagSet) runner {
	o := &copyOptions{}
	fs.Uint64Var(&o.keys, "keys", 1_000_000, "keys that are copied")
	fs.IntVar(&o.writers, "writers", 4, "writers to the source, in the last way")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds, in which the ways take turns")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A copyResult is in seconds, until a held read shows the copy, over rounds.
type copyResult struct {
	Copy   spread `json:"copy"`
	Hand   spread `json:"hand"`
	Move   spread `json:"move"`
	Busy   spread `json:"busy"`
	Ratio  spread `json:"ratio"`  // speed of the copy to that by hand
	Writes spread `json:"writes"` // commits of the writers during the copy in Busy
	Late   spread `json:"late"`   // ops that it had to catch up with, as far as its progress has told
}

func (o *copyOptions) run(ctx context.Context, e *env) (_ *report, err error) {
	db, err := local.Open(filepath.Join(e.dir, "copy"), nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	source := benchSpace(db)
	e.tell("copy: fill %d keys", o.keys)
	if err := o.fill(ctx, db, source); err != nil {
		return nil, err
	}
	var copies, hands, moves, busies, ratios, writes, lates []float64
	for round := range o.rounds {
		space := func(way string) *batchlog.Space { return db.Space(way, round) }
		copied, err := o.time(ctx, db, space("copy"), func(to *batchlog.Space) error {
			_, err := db.CopyRange(ctx, to, source, batchlog.Range{})
			return err
		})
		if err != nil {
			return nil, err
		}
		hand, err := o.time(ctx, db, space("hand"), func(to *batchlog.Space) error { return copyByHand(ctx, db, to, source) })
		if err != nil {
			return nil, err
		}
		move, err := o.time(ctx, db, space("move"), func(to *batchlog.Space) error {
			_, err := db.MoveRange(ctx, to, space("copy"), batchlog.Range{})
			return err
		})
		if err != nil {
			return nil, err
		}
		var written, late uint64
		busy, err := o.time(ctx, db, space("busy"), func(to *batchlog.Space) (err error) {
			written, late, err = o.copyBusy(ctx, db, to, space("move"))
			return err
		})
		if err != nil {
			return nil, err
		}
		e.tell("copy: round %d: copy %s, by hand %s, move %s, copy of a busy source %s", round+1, seconds(copied), seconds(hand), seconds(move), seconds(busy))
		copies, hands, moves, busies = append(copies, copied.Seconds()), append(hands, hand.Seconds()), append(moves, move.Seconds()), append(busies, busy.Seconds())
		ratios, writes, lates = append(ratios, hand.Seconds()/copied.Seconds()), append(writes, float64(written)), append(lates, float64(late))
	}
	result := copyResult{
		Copy: spreadOf(copies), Hand: spreadOf(hands), Move: spreadOf(moves), Busy: spreadOf(busies), Ratio: spreadOf(ratios), Writes: spreadOf(writes), Late: spreadOf(lates),
	}
	rate := func(times []float64) string {
		return spreadOf(each(times, func(t float64) float64 { return float64(o.keys) / t })).String()
	}
	t := table{
		title: fmt.Sprintf("Copies of %s keys, until a held read shows them (median [min-max] of %d rounds)", figure(float64(o.keys)), o.rounds),
		head:  []string{"way", "seconds", "keys/s", ""},
		note: fmt.Sprintf("While the busy source was copied %s commits of one op were written to it; the copy told of %s ops that it caught up with before its turn came.",
			result.Writes, result.Late),
	}
	t.add("CopyRange", result.Copy.String(), rate(copies), result.Ratio.String()+" × by hand")
	t.add("by hand: Scan of a View, Chain.Put, Commit", result.Hand.String(), rate(hands), "")
	t.add("MoveRange", result.Move.String(), rate(moves), "")
	t.add(fmt.Sprintf("CopyRange, %s to the source", countOf(o.writers, "writer")), result.Busy.String(), rate(busies), "")
	return &report{Results: result, tables: []table{t}, Checks: []check{
		atLeast("CopyRange, to the same chain filled by hand", result.Ratio.Median, copyFloor, "×"),
	}}, nil
}

// fill puts the keys, in random order, and writes the store out.
func (o *copyOptions) fill(ctx context.Context, db *local.DB, s *batchlog.Space) (err error) {
	c, err := db.Chain(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	pairs := newPairs(o.keys)
	key, value := make([]byte, keyBytes), make([]byte, valueBytes)
	for i := range pairs.n {
		pairs.fill(pairs.shuffled(i), key, value)
		c.Put(s, key, value)
	}
	if _, err := c.Commit(ctx); err != nil {
		return err
	}
	return db.Flush(ctx)
}

// time is how long a way takes to copy the keys to a space. Whether all are there is looked at afterwards.
func (o *copyOptions) time(ctx context.Context, db *local.DB, to *batchlog.Space, way func(to *batchlog.Space) error) (time.Duration, error) {
	if err := db.Flush(ctx); err != nil {
		return 0, err
	}
	settle(ctx, 100*time.Millisecond)
	pairs := newPairs(o.keys)
	start := time.Now()
	if err := way(to); err != nil {
		return 0, err
	}
	key := make([]byte, keyBytes)
	pairs.fill(pairs.n-1, key, make([]byte, valueBytes))
	if _, err := to.Get(ctx, key); err != nil {
		return 0, err
	}
	took := time.Since(start)
	n := uint64(0)
	for _, err := range to.Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return 0, err
		}
		n++
	}
	if n != o.keys {
		return 0, fmt.Errorf("%d keys were copied of %d", n, o.keys)
	}
	return took, nil
}

func copyByHand(ctx context.Context, db *local.DB, to, from *batchlog.Space) (err error) {
	v, err := db.View(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	c, err := db.Chain(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for entry, err := range v.Scan(from, batchlog.Range{}) {
		if err != nil {
			return err
		}
		c.Put(to, entry.Key, entry.Value)
	}
	_, err = c.Commit(ctx)
	return err
}

// copyBusy copies a space while others put keys that are in it, and returns how many commits they made, and how many ops the copy has told to have
// caught up with.
func (o *copyOptions) copyBusy(ctx context.Context, db *local.DB, to, from *batchlog.Space) (written, late uint64, err error) {
	writing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var done atomic.Bool
	var count atomic.Uint64
	var wg sync.WaitGroup
	pairs := newPairs(o.keys)
	for i := range o.writers {
		wg.Go(func() {
			key, value := make([]byte, keyBytes), make([]byte, valueBytes)
			for n := uint64(i); !done.Load(); n += uint64(o.writers) {
				pairs.fill(pairs.shuffled(n%pairs.n), key, value)
				if _, err := from.Put(writing, key, value); err != nil {
					stop(err)
					return
				}
				count.Add(1)
			}
		})
	}
	defer func() {
		done.Store(true)
		wg.Wait()
		err = errors.Join(err, context.Cause(writing))
	}()
	c, err := db.Chain(writing)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Progress = func(p batchlog.ChainProgress) {
		if p.Stage == "catch up" {
			late = max(late, uint64(p.Ops))
		}
	}
	if err := c.CopyRange(to, from, batchlog.Range{}); err != nil {
		return 0, 0, err
	}
	_, err = c.Commit(writing)
	return count.Load(), late, err
}
