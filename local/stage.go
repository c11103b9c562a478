package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
	"github.com/bytespace/batchlog/internal/disk"
)

// inlineBytes is up to which size the ops of a chain are committed as those of a batch are.
const inlineBytes = 1 << 20

// A stage is a chain on its way: gathered in memory while it is small, then sorted in runs on disk, at last built (see built) and committed.
type stage struct {
	e     *engine
	name  [16]byte // the last byte is 0
	dir   string
	begun time.Time

	// What was added so far is in small, in order, or all in sorter.
	small      []byte
	smallCount int
	sorter     *chainsort.Sorter
	seq        uint64 // of what is added next; what copies bring has a seq of its own, so that it counts where the copy was asked for
	blobs      int    // references to blobs that were added
	copies     []*copying
	revert     *reverting // nil: there is none
	own        spans      // of what was added, but for copies
	built      *built
	builds     int
	// What comes to copies after the chain was built is in after, or, where ops are mixed, in sorter, and its keys in lateKeys.
	after    *chainsort.Sorter
	mixed    bool // other ops of the chain are on keys that are copied
	lateKeys []batchlog.KeyRange

	lost *batchlog.Reads // what the last try to commit it had read, with hooks, when it lost to others; nil: it has not

	closed bool
	done   bool // committed

	report     func(batchlog.ChainProgress)
	lastReport time.Time

	ops    atomic.Int64
	bytes  atomic.Int64
	onDisk atomic.Int64
	holds  atomic.Uint64 // the first commit that is needed from the log

	writer blobWriter // of its references to blobs
}

// Progress is as batchlog.Stage says.
func (g *stage) Progress(report func(batchlog.ChainProgress)) { g.report = report }

// reportEvery is how often progress is reported.
const reportEvery = 100 * time.Millisecond

func (g *stage) progress(what string, done, total int64) {
	if g.report == nil {
		return
	}
	if now := time.Now(); now.Sub(g.lastReport) >= reportEvery {
		g.lastReport = now
		g.report(batchlog.ChainProgress{Stage: what, Ops: done, Total: total, Bytes: g.bytes.Load()})
	}
}

func (g *stage) usable(ctx context.Context) error {
	if g.closed || g.done || g.e.closed.Load() {
		return batchlog.ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Add is as batchlog.Stage says.
func (g *stage) Add(ctx context.Context, ops []byte, count, blobs int) error {
	if err := g.usable(ctx); err != nil {
		return err
	}
	if err := g.e.roster.Permit(ctx, &batchlog.Proposal{Ops: ops, Count: count}); err != nil {
		return err
	}
	ops, more, err := g.e.convertValues(ctx, &g.writer, ops, count)
	if err != nil {
		return err
	}
	blobs += more
	if blobs > 0 {
		if err := g.e.keepBlobs(&g.writer, ops, count); err != nil {
			return err
		}
	}
	err = batchlog.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
		if kind == batchlog.OpDeleteRange {
			return g.own.touch(key, value)
		}
		return g.own.touch(key, nil)
	})
	if err != nil {
		return err
	}
	if err := g.add(g.seq, ops, count); err != nil {
		return err
	}
	g.blobs += blobs
	return nil
}

// add takes ops over.
func (g *stage) add(seq uint64, ops []byte, count int) error {
	g.dropBuilt()
	if g.sorter == nil && len(g.copies) == 0 && len(g.small)+len(ops) <= g.e.inlineBytes() {
		g.small = append(g.small, ops...)
		g.smallCount += count
		g.note(count, len(ops))
		return nil
	}
	if err := g.spill(); err != nil {
		return err
	}
	if err := g.sorter.Add(seq, ops, count); err != nil {
		return chainError(err)
	}
	g.note(count, len(ops))
	return nil
}

func (g *stage) note(count, bytes int) {
	g.ops.Add(int64(count))
	g.bytes.Add(int64(bytes))
}

// spill moves on from memory to disk.
func (g *stage) spill() error {
	if g.sorter == nil {
		runs := filepath.Join(g.dir, "runs")
		if err := disk.MakeDir(g.e.opts.FS, runs); err != nil {
			return chainError(err)
		}
		g.sorter = chainsort.New(chainsort.Options{FS: g.e.opts.FS, Dir: runs, MemoryBytes: int(g.e.opts.ChainBytes), Reserve: g.reserve})
	}
	if g.smallCount == 0 {
		return nil
	}
	err := g.sorter.Add(g.seq, g.small, g.smallCount)
	if err == nil {
		g.small, g.smallCount = nil, 0
	}
	return chainError(err)
}

func (g *stage) reserve(bytes int64) error {
	if err := g.e.reserve(bytes); err != nil {
		return err
	}
	g.onDisk.Add(bytes)
	return nil
}

// commitTries is how often a chain that loses to other commits, by what hooks or copies have read, is tried.
const commitTries = 16

// Commit is as batchlog.Stage says.
func (g *stage) Commit(ctx context.Context, p *batchlog.Proposal) (batchlog.ID, error) {
	if err := g.usable(ctx); err != nil {
		return 0, err
	}
	if p.Token != "" { // all the work would be for nothing, and hooks must not see their own first try
		if id, found, err := g.e.lines.Known(ctx, p.Token); err != nil || found {
			g.done = g.done || found
			return id, err
		}
	}
	if g.sorter == nil && len(g.copies) == 0 {
		return g.commitSmall(ctx, p, g.small, g.smallCount)
	}
	for try := 1; ; try++ {
		id, err := g.tryCommit(ctx, p)
		var refused *batchlog.HookError
		if !errors.Is(err, batchlog.ErrConflict) || errors.As(err, &refused) || p.Reads != nil { // what was read stays written
			return id, err
		}
		var conflict *batchlog.ConflictError
		if errors.As(err, &conflict) {
			g.lost = conflict.Reads
		}
		if try == commitTries {
			return 0, fmt.Errorf("chain lost to other commits %d times: %w", try, err)
		}
	}
}

// commitSmall commits a chain that fits into a batch as one.
func (g *stage) commitSmall(ctx context.Context, p *batchlog.Proposal, ops []byte, count int) (batchlog.ID, error) {
	whole := *p
	whole.Ops = append(ops[:len(ops):len(ops)], p.Ops...)
	whole.Count += count
	whole.Blobs += g.blobs
	id, err := g.e.Commit(ctx, &whole)
	g.done = err == nil || errors.Is(err, batchlog.ErrUncertain)
	return id, err
}

// tryCommit brings the chain up to the head of the log and commits it. An ErrConflict may be tried again.
func (g *stage) tryCommit(ctx context.Context, p *batchlog.Proposal) (batchlog.ID, error) {
	if g.revert != nil {
		return g.tryRevert(ctx, p)
	}
	if err := g.prepare(ctx); err != nil {
		return 0, err
	}
	if len(g.copies) == 0 {
		return g.propose(ctx, p)
	}
	// From here on nobody else writes to sources and targets, so that the copy ends where the source does. Should that take too long others are let
	// in, and the reads that go with the commit tell.
	ticket, release, err := g.e.Protect(ctx, 0, g.protects())
	if err != nil {
		return 0, err
	}
	defer release()
	if _, err := g.catchUp(ctx, ticket); err != nil {
		return 0, err
	}
	last := batchlog.Proposal{Token: p.Token, Meta: p.Meta, Ticket: ticket, Reads: &batchlog.Reads{Base: g.copies[0].base}}
	for _, c := range g.copies {
		last.Reads.Ranges = append(last.Reads.Ranges, batchlog.KeyRange{Low: c.Low, High: c.High})
		if c.restored {
			low, high := c.target()
			last.Reads.Ranges = append(last.Reads.Ranges, batchlog.KeyRange{Low: low, High: high})
		}
	}
	switch {
	case !g.mixed:
		err = g.last(ctx, &last)
	case len(g.lateKeys) > lateMax:
		err = fmt.Errorf("%w: much was written to the source of a copy while it was sorted", batchlog.ErrConflict)
	default:
		err = g.late(ctx, &last)
	}
	if err != nil {
		return 0, chainError(err)
	}
	last.Ops = append(last.Ops, p.Ops...)
	last.Count += p.Count
	last.Blobs += p.Blobs
	return g.propose(ctx, &last)
}

// protects is what others may not write while the copies catch up for the last time: sources and targets.
func (g *stage) protects() *batchlog.Reads {
	var reads batchlog.Reads
	for _, c := range g.copies {
		low, high := c.target()
		reads.Ranges = append(reads.Ranges, batchlog.KeyRange{Low: c.Low, High: c.High}, batchlog.KeyRange{Low: low, High: high})
	}
	return &reads
}

// prepare builds the chain and catches up as far as that goes while others commit.
func (g *stage) prepare(ctx context.Context) error {
	if _, err := g.catchUp(ctx, 0); err != nil {
		return err
	}
	if g.mixed && len(g.lateKeys) > 0 {
		g.dropBuilt() // what was late for it is in the sorter
	}
	if g.built == nil {
		g.mixed, g.lateKeys = g.mixes(), nil
		if err := g.build(ctx); err != nil {
			return err
		}
	}
	for round := 0; len(g.copies) > 0 && !g.mixed && round < catchUpRounds; round++ {
		found, err := g.catchUp(ctx, 0)
		if err != nil {
			return err
		}
		if found <= soonMax {
			break
		}
		if g.built.chain == nil {
			continue
		}
		if err := g.stretch(ctx, g.after, "catch up"); err != nil {
			g.dropBuilt()
			return err
		}
		if err := g.dropAfter(); err != nil {
			return err
		}
	}
	if g.built.chain == nil {
		return nil
	}
	g.progress("commit", 0, 0)
	// What the store has in memory is made little, so that the tables are soon where they belong.
	return g.e.flush(ctx, g.e.store.Applied())
}

// propose commits what is built, with the ops of prop behind it.
func (g *stage) propose(ctx context.Context, prop *batchlog.Proposal) (id batchlog.ID, err error) {
	b := g.built
	if b.chain == nil {
		return g.commitSmall(ctx, prop, b.small, b.smallCount)
	}
	whole := *prop
	prop = &whole
	prop.Chain = b.ref(g.e.log)
	prop.Blobs += g.blobs
	if g.e.hooks.TouchChain(prop) {
		if g.lost != nil {
			ticket, release, err := g.e.Protect(ctx, prop.Ticket, g.lost)
			if err != nil {
				return 0, err
			}
			defer release()
			prop.Ticket = ticket
		}
		view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true})
		if err != nil {
			return 0, err
		}
		defer view.Close()
		if prop, err = g.e.hooks.RunChain(ctx, prop, view); err != nil {
			return 0, err
		}
	}
	if err := g.e.permitChain(ctx, prop); err != nil {
		return 0, err // also of what hooks added
	}
	g.e.store.Stage(b.chain.File, b.tables)
	id, err = g.e.commitLast(ctx, prop)
	switch {
	case err == nil && g.e.log.HasChain(b.chain.File), errors.Is(err, batchlog.ErrUncertain):
		g.done = true
		g.built = nil // the log has the file, the store the tables
		_ = g.reserve(-b.bytes)
		if err != nil {
			g.e.store.Unstage(b.chain.File) // it is applied by the next open, if it is there
		}
		_ = b.chain.Keep() // it was synced
		return id, err
	case err == nil: // a commit with the same token was faster
		g.done = true
	}
	b.tables = g.e.store.Unstage(b.chain.File)
	return id, err
}

// Close is as batchlog.Stage says.
func (g *stage) Close() error {
	if g.closed {
		return nil
	}
	g.closed = true
	defer func() { g.e.recent.release(&g.writer, g.e.log.Head()) }()
	g.dropBuilt()
	errs := []error{g.dropAfter()}
	if g.revert != nil {
		errs = append(errs, g.revert.view.Close())
	}
	if g.sorter != nil {
		errs = append(errs, g.sorter.Close())
	}
	defer func() { // last: what is under way is not taken for left behind
		g.e.chains.mu.Lock()
		defer g.e.chains.mu.Unlock()
		delete(g.e.chains.stages, g)
	}()
	if g.sorter != nil {
		dirs := []string{g.dir}
		if g.done { // the tables are the store's by now
			dirs = []string{filepath.Join(g.dir, "runs"), filepath.Join(g.dir, "late")}
		}
		for _, dir := range dirs {
			if err := g.e.opts.FS.RemoveAll(dir); err != nil && !disk.NotExist(err) {
				errs = append(errs, fmt.Errorf("remove what is left of a chain; it will be swept: %w", err))
			}
		}
		_ = g.e.opts.FS.Remove(g.dir) // fails as long as the tables are there
	}
	g.small = nil
	return errors.Join(errs...)
}
