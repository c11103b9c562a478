package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// inlineBytes is up to which size the ops of a chain are committed as those of a batch are.
const inlineBytes = 1 << 20

// A stageState is where a chain is on its way.
type stageState uint8

const (
	gathers   stageState = iota // all that was added is in memory, in order, in small
	sorts                       // all is in the sorter, which takes more
	unfilled                    // what is in the sorter is a part of what the filler brings: it is to be filled from the start
	isBuilt                     // the net effect is in built
	torn                        // a part of what was to be added is in the sorter; the same added again mends it. why says what has failed
	spoiled                     // the same, for good
	committed                   // or may be, or another with its token is
	isClosed
)

// stageMoves is from where to where a chain goes. Only what is whole can be built, and only what is built, or still in memory, be committed; that a chain is
// committed without is by a token that the log has already.
var stageMoves = map[stageState][]stageState{
	gathers:   {sorts, unfilled, torn, spoiled, committed, isClosed},
	sorts:     {sorts, isBuilt, torn, spoiled, unfilled, committed, isClosed},
	unfilled:  {unfilled, sorts, committed, isClosed},
	isBuilt:   {sorts, torn, spoiled, unfilled, committed, isClosed},
	torn:      {sorts, torn, spoiled, isClosed},
	spoiled:   {spoiled, isClosed},
	committed: {isClosed},
}

// A stage is a chain on its way: gathered in memory while it is small, then sorted in runs on disk, at last built (see built) and committed.
type stage struct {
	e     *engine
	name  [16]byte // the last byte is 0
	dir   string
	begun time.Time

	state stageState
	why   error // of a stage that is torn or spoiled

	small      []byte
	smallCount int
	hasDir     bool              // there is something in dir, or was to be
	sorter     *chainsort.Sorter // made when ops leave memory
	seq        uint64            // of what is added next; what copies bring has a seq of its own, so that it counts where the copy was asked for
	blobs      int               // references to blobs that were added
	own        spans             // of what was added, but for what a filler brings
	filler     filler
	built      *built // of a stage that is built
	builds     int
	lost       *waist.Reads // what the last try to commit it had read, with hooks, when it lost to others; nil: it has not

	report     func(batchlog.ChainProgress)
	lastReport time.Time

	ops    atomic.Int64
	bytes  atomic.Int64
	onDisk atomic.Int64
	holds  atomic.Uint64 // the first commit that is needed from the log

	writer blobWriter // of its references to blobs
}

// to moves the stage on. What was built goes with it, as it is not all any more.
func (g *stage) to(next stageState) {
	if !slices.Contains(stageMoves[g.state], next) {
		panic(fmt.Sprintf("batchlog: bug: a chain goes from state %d to %d", g.state, next))
	}
	b := g.built
	g.built, g.state, g.why = nil, next, nil
	if b != nil {
		b.drop()
	}
}

// fail is to for the states in which a part of something is in the sorter.
func (g *stage) fail(next stageState, why error) error {
	g.to(next)
	g.why = why
	return why
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
	switch {
	case g.state == committed || g.state == isClosed || g.e.closed.Load():
		return batchlog.ErrClosed
	case g.state == spoiled:
		return g.why
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

// Add is as batchlog.Stage says.
func (g *stage) Add(ctx context.Context, ops []byte, count, blobs int) error {
	if err := g.usable(ctx); err != nil {
		return err
	}
	if !g.filler.mixes() {
		return errFilledAlone
	}
	if err := g.e.roster.Permit(ctx, &waist.Proposal{Ops: ops, Count: count}); err != nil {
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
	err = wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
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
	if g.state == gathers && len(g.small)+len(ops) <= g.e.inlineBytes() {
		g.small = append(g.small, ops...)
		g.smallCount += count
		g.note(count, len(ops))
		return nil
	}
	if err := g.spill(); err != nil {
		return err
	}
	if err := g.sorter.Add(seq, ops, count); err != nil {
		return g.fail(torn, chainError(err))
	}
	g.to(sorts)
	g.note(count, len(ops))
	return nil
}

func (g *stage) note(count, bytes int) {
	g.ops.Add(int64(count))
	g.bytes.Add(int64(bytes))
}

// spill moves on from memory to disk. Until all is there it is in memory still.
func (g *stage) spill() error {
	if err := g.makeSorter(); err != nil || g.state != gathers {
		return err
	}
	if err := g.sorter.Add(g.seq, g.small, g.smallCount); err != nil { // again adds the same
		return chainError(err)
	}
	g.small, g.smallCount = nil, 0
	g.to(sorts)
	return nil
}

func (g *stage) makeSorter() error {
	if g.sorter != nil {
		return nil
	}
	runs := filepath.Join(g.dir, "runs")
	g.hasDir = true
	if err := disk.MakeDir(g.e.opts.FS, runs); err != nil {
		return chainError(err)
	}
	g.sorter = chainsort.New(chainsort.Options{FS: g.e.opts.FS, Dir: runs, MemoryBytes: int(g.e.opts.ChainBytes), Reserve: g.reserve})
	return nil
}

// Copy is as batchlog.Stage says.
func (g *stage) Copy(ctx context.Context, rc waist.RangeCopy) error {
	if err := g.usable(ctx); err != nil {
		return err
	}
	if g.state == torn {
		return g.why
	}
	var all *copies
	switch f := g.filler.(type) {
	case plain:
		all = &copies{stage: g}
	case *copies:
		all = f
	default:
		return errFilledAlone
	}
	if err := g.spill(); err != nil {
		return err
	}
	g.to(sorts)
	g.filler = all
	if err := all.begin(ctx, rc); err != nil {
		return g.fail(spoiled, err) // range deletes can't be taken back
	}
	return nil
}

// Revert is as batchlog.Stage says.
func (g *stage) Revert(ctx context.Context, r waist.Revert) error {
	if err := g.usable(ctx); err != nil {
		return err
	}
	if _, ok := g.filler.(plain); !ok || g.state != gathers || g.smallCount > 0 {
		return errFilledAlone
	}
	f := &reverting{Revert: r, stage: g}
	if err := f.known(); err != nil {
		return err
	}
	g.filler = f
	g.to(unfilled)
	return g.fill(ctx)
}

var errFilledAlone = fmt.Errorf("revert beside other ops in a chain: %w", batchlog.ErrUnsupported)

// fill has the filler bring what it is about, from the start.
func (g *stage) fill(ctx context.Context) error {
	if err := g.filler.fill(ctx); err != nil {
		return err // the next commit begins again
	}
	g.to(sorts)
	return nil
}

func (g *stage) reserve(bytes int64) error {
	if err := g.e.reserve(bytes); err != nil {
		return err
	}
	g.onDisk.Add(bytes)
	return nil
}

// Close is as batchlog.Stage says.
func (g *stage) Close() error {
	if g.state == isClosed {
		return nil
	}
	defer func() { g.e.recent.release(&g.writer, g.e.log.Head()) }()
	kept := g.state == committed // the tables are the store's by now
	g.to(isClosed)
	errs := []error{g.filler.close()}
	defer func() { // last: what is under way is not taken for left behind
		g.e.chains.mu.Lock()
		defer g.e.chains.mu.Unlock()
		delete(g.e.chains.stages, g)
	}()
	if g.sorter != nil {
		errs = append(errs, g.sorter.Close())
	}
	if g.hasDir {
		dirs := []string{g.dir}
		if kept {
			dirs = []string{filepath.Join(g.dir, "runs"), filepath.Join(g.dir, "late")}
		}
		for _, dir := range dirs {
			if err := g.e.opts.FS.RemoveAll(dir); err != nil && !disk.NotExist(err) {
				errs = append(errs, fmt.Errorf("remove what is left of a chain; it will be swept: %w", err))
			}
		}
		_ = g.e.opts.FS.Remove(g.dir) // fails as long as the tables are there
	}
	_ = g.reserve(-g.onDisk.Load()) // also for what could not be removed: it is no chain under way
	g.small = nil
	return errors.Join(errs...)
}
