package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/store"
	"github.com/bytespace/batchlog/internal/wire"
)

// A backfill makes inverses of commits that have none: it replays the log, from commit 1 on, into a scratch store, which keeps inverses of just
// these, and takes them over. Scratch store and database each say durably how far they are, so it goes on after a crash where it was:
//
//	undo/store      the scratch store; it is removed when nothing is missing any more
//	undo/chains     tables that it makes of chains
//	undo/plan       what it keeps, see backfillPlan
type backfilling struct {
	sync.Mutex               // held while one is under way
	taken      bool          // what was taken over may not be durable yet
	hold       atomic.Uint64 // the first commit that is needed from the log
	inverses   sync.Mutex    // held while inverses come into the store without their commits, or leave it
}

const (
	// scratchBytes is the memory that the scratch store gathers changes in, and that it caches blocks in, but for databases with less.
	scratchBytes = 16 << 20
	// scratchPoll is how often a backfill that is to end looks whether its scratch store waits for space.
	scratchPoll = 50 * time.Millisecond
	// backfillPatience is how long a backfill goes on while others wait for space.
	backfillPatience = 2 * time.Second
)

// Backfill is as batchlog.Undoer says.
func (e *engine) Backfill(ctx context.Context, o batchlog.BackfillOptions) (err error) {
	if !e.backfill.TryLock() {
		return fmt.Errorf("backfill of inverses: another one is under way: %w", batchlog.ErrConflict)
	}
	defer e.backfill.Unlock()
	if e.closed.Load() {
		return batchlog.ErrClosed
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(e.ctx, func() { stop(batchlog.ErrClosed) })()
	e.backfill.hold.Store(1)
	defer e.backfill.hold.Store(math.MaxUint64)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if e.starved(over) {
			stop(batchlog.ErrNoSpace)
		}
	})
	defer wg.Wait()
	defer close(over)
	if o.Limit == 0 {
		o.Limit = math.MaxInt64
	}
	b := &backfill{e: e, o: o, dir: filepath.Join(e.dir, undoName)}
	if err := b.run(ctx); err != nil {
		return fmt.Errorf("backfill of inverses: %w", e.inverseError(chainError(err)))
	}
	return nil
}

// starved waits until others wait for space on the disk, and have for a while: a backfill must not keep the log from being dropped then, and what it has made
// stays. It reports false when over is closed.
func (e *engine) starved(over <-chan struct{}) bool {
	for waited := time.Duration(0); waited < backfillPatience; waited += scratchPoll {
		select {
		case <-over:
			return false
		case <-time.After(scratchPoll):
		}
		if !e.noSpace() {
			waited = 0
		}
	}
	return true
}

type backfill struct {
	e       *engine
	o       batchlog.BackfillOptions
	dir     string
	scratch *store.Store
	gaps    []batchlog.IDRange // without inverses, ascending
	made    batchlog.ID
	told    time.Time
}

func (b *backfill) run(ctx context.Context) (err error) {
	if err := b.e.hold(ctx, batchlog.ReadOptions{}); err != nil {
		return err
	}
	if err := b.find(); err != nil {
		return err
	}
	if len(b.gaps) == 0 {
		return b.finish(ctx)
	}
	if b.e.log.Oldest() > 1 {
		// What an earlier one has left can't be gone on with any more.
		return errors.Join(&batchlog.InverseError{ID: b.gaps[0].First, Gone: true}, b.remove())
	}
	defer func() {
		if b.scratch != nil {
			err = errors.Join(err, b.scratch.Close())
		}
	}()
	if err := b.begin(ctx); err != nil {
		return err
	}
	if err := b.replay(ctx); err != nil {
		b.keep()
		return err
	}
	err = b.scratch.Close()
	b.scratch = nil
	if err != nil {
		return err
	}
	return b.finish(ctx)
}

// begin opens the scratch store: that of an earlier backfill, of which it takes over what the database does not have yet, if it can be gone on with, else a new one.
func (b *backfill) begin(ctx context.Context) error {
	plan, ok, err := b.readPlan()
	if err != nil {
		return err
	}
	if !ok {
		err = b.remove()
	}
	if err = errors.Join(err, b.open()); err != nil {
		return err
	}
	if err := b.takeOver(ctx); err != nil {
		return err
	}
	if err := b.find(); err != nil {
		return err
	}
	if len(b.gaps) == 0 {
		return nil
	}
	if b.gaps[0].First <= b.scratch.Applied() || ok && !plan.covers(b.gaps, b.o.Limit) { // it is too far, or has not kept what is wanted
		if err := errors.Join(b.scratch.Close(), b.remove()); err != nil {
			return err
		}
		if err := b.open(); err != nil {
			return err
		}
	}
	return b.notePlan(ctx)
}

// finish makes what was taken over durable, and then removes the scratch store: until then nothing else has it.
func (b *backfill) finish(ctx context.Context) error {
	if err := b.e.keepTaken(ctx); err != nil {
		return err
	}
	return b.remove()
}

// keepTaken makes durable what was taken over from the scratch store. It comes without a commit: all commits may be flushed, and it not.
func (e *engine) keepTaken(ctx context.Context) error {
	if !e.backfill.taken {
		return nil
	}
	if err := e.flush(ctx, math.MaxUint64); err != nil {
		return err
	}
	e.backfill.taken = false
	return nil
}

// find finds the gaps up to what is applied.
func (b *backfill) find() error {
	rows, err := b.e.store.Inverses()
	if err != nil {
		return err
	}
	b.gaps = nil
	next := b.e.log.Oldest()
	gap := func(last batchlog.ID) {
		if next <= last {
			b.gaps = append(b.gaps, batchlog.IDRange{First: next, Last: last})
		}
	}
	for _, r := range rows {
		gap(r.First - 1)
		next = max(next, r.Last+1)
	}
	gap(b.e.store.Applied())
	large, err := b.e.store.TooLarge()
	if err != nil {
		return err
	}
	for _, id := range large {
		var missing *batchlog.InverseError
		if _, err := b.e.store.Inverse(id); errors.As(err, &missing) && missing.Bytes > 0 && missing.Bytes <= b.o.Limit {
			b.gaps = append(b.gaps, batchlog.IDRange{First: id, Last: id})
		}
	}
	slices.SortFunc(b.gaps, func(x, y batchlog.IDRange) int { return int(x.First) - int(y.First) })
	return nil
}

func (b *backfill) open() (err error) {
	if err := disk.MakeDir(b.e.opts.FS, b.dir); err != nil {
		return err
	}
	b.scratch, err = store.Open(store.Options{
		FS: b.e.opts.FS, Dir: filepath.Join(b.dir, storeName), Staging: filepath.Join(b.dir, chainsName), Logger: b.e.opts.Logger,
		CacheBytes: scratchBytes, MemTableBytes: b.memory(), InverseLimit: b.o.Limit,
	})
	return err
}

// memory is that of the scratch store.
func (b *backfill) memory() int64 {
	if own := b.e.opts.MemTableBytes; own > 0 {
		return min(own, scratchBytes)
	}
	return scratchBytes
}

// replay brings the scratch store up to the end of the last gap and takes over what it keeps.
func (b *backfill) replay(ctx context.Context) (err error) {
	if len(b.gaps) == 0 {
		return nil
	}
	until := b.gaps[len(b.gaps)-1].Last
	reader, err := b.e.log.Reader(batchlog.LogOptions{From: batchlog.After(b.scratch.Applied()), Until: until, Brief: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	bytes := int64(0)
	for {
		records, _, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return b.takeOver(ctx)
		}
		if err != nil {
			return err
		}
		for len(records) > 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := b.together(records)
			for _, r := range records[:n] {
				bytes += int64(r.Size())
			}
			if err := b.scratch.ApplyBounded(ctx, records[:n]); err != nil {
				return errors.Join(err, b.scratch.Close()) // it may be at it yet, with memory of the reader's; what it lacks is made again
			}
			records = records[n:]
			b.tell(until)
		}
		if bytes >= b.memory()/2 {
			if err := b.takeOver(ctx); err != nil {
				return err
			}
			bytes = 0
		}
	}
}

// together is how many of the records are in the same gap, or in none; the scratch store keeps inverses just of those in gaps.
func (b *backfill) together(records []wire.Record) int {
	in := func(id batchlog.ID) int {
		return slices.IndexFunc(b.gaps, func(g batchlog.IDRange) bool { return g.First <= id && id <= g.Last })
	}
	gap := in(records[0].ID)
	b.scratch.SetUndo(gap >= 0)
	if n := slices.IndexFunc(records, func(r wire.Record) bool { return in(r.ID) != gap }); n > 0 {
		return n
	}
	return len(records)
}

// takeOver copies the inverses of commits in gaps that the scratch store has.
func (b *backfill) takeOver(ctx context.Context) error {
	rows, err := b.scratch.Inverses()
	if err != nil {
		return err
	}
	var left []batchlog.IDRange
	for _, g := range b.gaps {
		for _, r := range rows {
			if r.First > g.First || r.Last < g.First {
				continue
			}
			take := batchlog.IDRange{First: g.First, Last: min(g.Last, r.Last)}
			b.e.backfill.taken = true
			if err := b.copyInverses(ctx, take); err != nil {
				return err
			}
			b.made += take.Last - take.First + 1
			g.First = take.Last + 1
		}
		if g.First <= g.Last {
			left = append(left, g)
		}
	}
	b.gaps = left
	return nil
}

func (b *backfill) copyInverses(ctx context.Context, take batchlog.IDRange) error {
	b.e.backfill.inverses.Lock()
	defer b.e.backfill.inverses.Unlock()
	return b.e.store.CopyInverses(ctx, b.scratch, take)
}

// keep makes durable how far the scratch store is, unless the disk is full or fails: what it lacks is made again.
func (b *backfill) keep() {
	if b.scratch.Failed() != nil || b.scratch.NoSpace() {
		return
	}
	scratch, trouble, over := b.scratch, b.scratch.Trouble(), make(chan struct{})
	go func() { // when the store fails under it this may never return
		defer close(over)
		if done, err := scratch.Flush(); err == nil {
			<-done
		}
	}()
	for {
		select {
		case <-over:
			return
		case <-time.After(scratchPoll):
			if scratch.Failed() != nil || scratch.NoSpace() || scratch.Trouble() != trouble {
				return
			}
		}
	}
}

func (b *backfill) remove() error {
	if err := b.removePlan(); err != nil {
		return err
	}
	if err := b.e.opts.FS.RemoveAll(b.dir); err != nil && !disk.NotExist(err) {
		return fmt.Errorf("remove the scratch store: %w", err)
	}
	return nil
}

func (b *backfill) tell(until batchlog.ID) {
	if b.o.Progress == nil {
		return
	}
	if now := time.Now(); now.Sub(b.told) >= reportEvery {
		b.told = now
		b.o.Progress(batchlog.BackfillProgress{Replayed: b.scratch.Applied(), Until: until, Made: b.made})
	}
}
