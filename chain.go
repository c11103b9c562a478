package batchlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A Chainer is an engine that takes chains.
type Chainer interface {
	// Chain begins a chain. ctx bounds all that comes before its commit.
	Chain(ctx context.Context) (Stage, error)
	// Chains are the chains that are not committed: those under way, and those that a crash has left behind.
	Chains(ctx context.Context) ([]ChainStatus, error)
	// SweepChains removes what was left behind, if it is at least that old, and says how many chains and bytes that were.
	SweepChains(ctx context.Context, age time.Duration) (chains int, bytes int64, err error)
}

// A Stage is where the ops of a chain wait for their commit. It is not safe for concurrent use.
type Stage interface {
	// Add adds count ops, of which blobs are puts of references to blobs. It doesn't keep ops.
	Add(ctx context.Context, ops []byte, count, blobs int) error
	// Copy adds a copy. When it is committed it is that of the state at the id before the commit's own.
	Copy(ctx context.Context, c waist.RangeCopy) error
	// Revert adds a revert. There is nothing else in the chain then.
	Revert(ctx context.Context, r waist.Revert) error
	// Commit commits what was added, with the token, the meta and the ops of p, which are none or come last. As long as it returns no id and no
	// ErrUncertain it may be called again.
	Commit(ctx context.Context, p *waist.Proposal) (ID, error)
	// Progress has report be told how far the work is from now on; it must be quick.
	Progress(report func(ChainProgress))
	// Close drops what is not committed. A second Close does nothing.
	Close() error
}

// ChainProgress is how far a chain has come.
type ChainProgress struct {
	// Stage is what is being done: "fill" (Put and the like), "copy", "revert", "catch up" (with what was written to the source of a copy), "sort",
	// "commit".
	Stage string
	Ops   int64 // done in this stage
	Total int64 // 0: not known
	Bytes int64 // of the chain so far, encoded
}

// A ChainStatus is a chain that is not committed.
type ChainStatus struct {
	Name  string    `json:"name"`
	Begun time.Time `json:"begun"`
	Bytes int64     `json:"bytes"` // on disk
	Ops   int64     `json:"ops"`   // 0 of one that was left behind
	Open  bool      `json:"open"`  // it is under way; else it was left behind by a crash, and will be swept
}

// A Chain is a batch that may be larger than memory. What it collects is staged on disk, beside the log, and invisible, until [Chain.Commit] moves
// it into the log as one commit: durable before it is acknowledged, visible at once or not at all. Ops count in order: the last one on a key
// wins, a range delete covers what came before it. A follower of the log is handed their net effect, sorted by key (in several stretches,
// where a copy had to catch up).
//
// A small chain, of up to 1 MiB and without copies, becomes a commit like that of a [Batch], with all ops in the order in which they were added. Memory is bounded whatever the size, to some 32 MiB with the
// local engine (local.Options.ChainBytes), for each chain; what it takes on disk until it is applied is up to four times its size.
//
// A mistake is remembered and returned by Commit, which then writes nothing. A Chain is not safe for concurrent use; any number of
// chains may be filled side by side. Close it.
type Chain struct {
	Token  string            // as in [Batch]
	Labels map[string]string // as in [Batch]
	// Progress is told how far the work is, some times a second; nil: nobody. It must be quick.
	Progress func(ChainProgress)

	ctx   context.Context //nolint:containedctx // Put has none of its own
	stage Stage
	batch Batch // ops that are yet to be staged
	ops   int64
	size  int64
	err   error
	done  bool
	blobs bool // references were put
	// reverts says that there is a revert, and nothing else.
	reverts bool
	reads   *waist.Reads // that the commit depends on; nil: none
	// stalled is why what is in batch could not be staged just now.
	stalled error
}

const (
	// chainPiece is how many bytes of ops are handed to the stage at once.
	chainPiece = 256 << 10
	// chainPieceMax bounds the ops that wait for space on the disk.
	chainPieceMax = 4 << 20
)

// Chain begins a chain. ctx is that of everything before its commit; when it ends, so does the chain.
func (db *DB) Chain(ctx context.Context) (*Chain, error) {
	e, ok := db.engine.(Chainer)
	if !ok {
		return nil, fmt.Errorf("chains on this engine: %w", ErrUnsupported)
	}
	stage, err := e.Chain(ctx)
	if err != nil {
		return nil, err
	}
	c := &Chain{ctx: ctx, stage: stage}
	c.batch.db = db
	return c, nil
}

// Chains are the chains that are not committed: those under way, and those that a crash has left behind, which are swept after an hour.
func (db *DB) Chains(ctx context.Context) ([]ChainStatus, error) {
	e, ok := db.engine.(Chainer)
	if !ok {
		return nil, nil
	}
	return e.Chains(ctx)
}

// SweepChains removes the chains that a crash has left behind at least that long ago, and says how many they were, and how many bytes on disk.
func (db *DB) SweepChains(ctx context.Context, age time.Duration) (chains int, bytes int64, err error) {
	e, ok := db.engine.(Chainer)
	if !ok {
		return 0, 0, nil
	}
	return e.SweepChains(ctx, age)
}

// Put adds: set the value of k in s.
func (c *Chain) Put(s *Space, k Key, value []byte) {
	c.room(len(value))
	c.batch.Put(s, k, value)
	c.stageSome()
}

// PutRef adds: set the value of k in s to the blob that ref refers to. See [Batch.PutRef].
func (c *Chain) PutRef(s *Space, k Key, ref BlobRef) {
	c.batch.PutRef(s, k, ref)
	if c.blobs {
		c.stageSome()
		return
	}
	c.blobs = true
	c.flush() // from now on the engine knows that blobs may be needed
}

// Delete adds: remove k from s.
func (c *Chain) Delete(s *Space, k Key) {
	c.batch.Delete(s, k)
	c.stageSome()
}

// DeleteRange adds: remove the keys of s that are in r when the chain is committed, and those that were put there earlier in the chain.
func (c *Chain) DeleteRange(s *Space, r Range) {
	c.batch.DeleteRange(s, r)
	c.stageSome()
}

// Len is the number of ops that were added; those that copies bring are counted when they are committed.
func (c *Chain) Len() int64 { return c.ops + int64(c.batch.Len()) }

// Size is the number of bytes that the ops take, encoded; as for Len.
func (c *Chain) Size() int64 { return c.size + int64(c.batch.Size()) }

// Err is the first mistake or failure so far, or nil: what Commit would return.
func (c *Chain) Err() error { return errors.Join(c.err, c.batch.err, c.stalled) }

// room stages what was collected before a large value: together they could be more than a batch takes.
func (c *Chain) room(size int) {
	if size < chainPiece || c.batch.Len() == 0 {
		return
	}
	c.flush()
	if c.err == nil && c.stalled != nil && c.batch.Size()+size > MaxValueBytes {
		c.err = c.stalled // what waits for space is as much as may wait
	}
}

func (c *Chain) stageSome() {
	if c.batch.Size() >= chainPiece {
		c.flush()
	}
}

// flush stages what was collected.
func (c *Chain) flush() {
	p := &c.batch.proposal
	if c.err == nil {
		c.err = c.batch.err
	}
	if c.err == nil && c.done {
		c.err = errChainDone
	}
	if c.err == nil && c.reverts && p.Count > 0 {
		c.err = errRevertAlone
	}
	if c.err == nil && p.Count > 0 {
		err := c.stage.Add(c.ctx, p.Ops, p.Count, p.Blobs)
		if err != nil && errors.Is(err, ErrNoSpace) && len(p.Ops) < chainPieceMax {
			c.stalled = err // and tried again with the next op, or by Commit
			return
		}
		if c.err, c.stalled = err, nil; err == nil {
			c.ops += int64(p.Count)
			c.size += int64(len(p.Ops))
			c.report(ChainProgress{Stage: "fill", Ops: c.ops, Bytes: c.size})
		}
	}
	p.Ops, p.Count, p.Blobs = p.Ops[:0], 0, 0
}

var errChainDone = fmt.Errorf("chain that is committed or closed: %w", ErrClosed)

func (c *Chain) report(p ChainProgress) {
	if c.Progress != nil {
		c.Progress(p)
	}
}

// CopyRange adds: put the keys of src that are in r, with their values, into dst. Spaces within src are not copied, and keys that dst
// has besides stay. What is copied is the state of the database, without what the chain itself has added, at the id before that
// of the chain's commit: what others write to src meanwhile is caught up with. A derived space is copied as it is, without a wait for its task.
// Later ops of the chain win over the copy, it wins over earlier ones. An error is remembered and returned by Commit, too.
func (c *Chain) CopyRange(dst, src *Space, r Range) error { return c.copyRange(dst, src, r, false) }

// MoveRange is CopyRange that deletes the keys in src as well: nothing is lost and nothing doubled, whatever others write meanwhile. Where
// dst overlaps src, what was copied stays.
func (c *Chain) MoveRange(dst, src *Space, r Range) error { return c.copyRange(dst, src, r, true) }

// CopyTree is CopyRange of the whole subtree of src: its own keys, and all spaces within it, to the same places within dst.
func (c *Chain) CopyTree(dst, src *Space) error { return c.copyTree(dst, src, false) }

// MoveTree is CopyTree that deletes the subtree of src as well, as MoveRange does. A subtree may be moved into itself, or out of itself.
// Each space in it is emptied that others have put a key into, also of what the chain has put there before; one that only the chain has put keys
// into keeps them.
func (c *Chain) MoveTree(dst, src *Space) error { return c.copyTree(dst, src, true) }

func (c *Chain) copyRange(dst, src *Space, r Range, move bool) error {
	if !c.copies(dst, src) {
		return c.err
	}
	low, high, empty := src.storedRange(r)
	if empty {
		return nil
	}
	return c.copy(waist.RangeCopy{Low: low, High: high, From: src.prefix, To: dst.prefix, Move: move})
}

func (c *Chain) copyTree(dst, src *Space, move bool) error {
	if !c.copies(dst, src) {
		return c.err
	}
	low := wire.Open(src.prefix)
	// What follows an open path is the end, 00, or the tag of another part: none is ff.
	high := append(append(make([]byte, 0, len(low)+1), low...), 0xff)
	return c.copy(waist.RangeCopy{Low: low, High: high, From: low, To: wire.Open(dst.prefix), Tree: true, Move: move})
}

// copies reports whether dst and src may be copied between.
func (c *Chain) copies(dst, src *Space) bool {
	if c.batch.accepts(dst) && c.batch.accepts(src) {
		c.flush()
	}
	if c.err == nil && c.reverts {
		c.err = errRevertAlone
	}
	if c.err == nil {
		c.err = c.Err() // a copy that is not added must not be missing from what is committed
	}
	return c.err == nil
}

func (c *Chain) copy(rc waist.RangeCopy) error {
	if string(rc.From) == string(rc.To) {
		return nil // onto itself: it is there already
	}
	c.stage.Progress(c.Progress)
	if err := c.stage.Copy(c.ctx, rc); err != nil {
		c.err = fmt.Errorf("copy: %w", err)
	}
	return c.err
}

// Commit moves the chain into the log as one commit and returns its id. If the error is nil all of it is durable, and every read that starts from now on
// sees it. If not, none of it is there or will be, but for ErrUncertain, as with [DB.Write]. Where the error may pass (ErrNoSpace, ErrConflict, the end of ctx) what was staged
// stays, and Commit may be called again.
//
// Sorting what is left to sort comes first and takes time with the size of the chain; other commits go on meanwhile. ctx bounds it.
//
// Pre-commit hooks see the chain as they see a batch, if their ops are together not larger than [MaxHookedChainBytes]; above, hooks that need all ops at once
// refuse it with a *[LimitError], others are called with some at a time.
func (c *Chain) Commit(ctx context.Context) (ID, error) {
	c.flush()
	if err := c.Err(); err != nil {
		return 0, err
	}
	c.batch.Token, c.batch.Labels = c.Token, c.Labels
	p, err := c.batch.seal(c.batch.db)
	if err != nil {
		return 0, err
	}
	p.Reads = c.reads
	c.stage.Progress(c.Progress)
	id, err := c.stage.Commit(ctx, p)
	if err == nil || errors.Is(err, ErrUncertain) {
		c.done = true
		_ = c.stage.Close() // what it can't remove is swept: it is no reason to say that the commit has failed
	}
	return id, err
}

// Close drops the chain unless it was committed, and gives its disk space back. It is safe to call it twice.
func (c *Chain) Close() error {
	c.done = true
	return c.stage.Close()
}

// CopyRange copies the keys of src that are in r into dst, as one commit, within the engine. What is in dst then equals what was in src at the id before the commit's own,
// however busy src is; other keys of dst stay. See [Chain.CopyRange], with [Chain.CopyTree] for whole subtrees and for progress.
func (db *DB) CopyRange(ctx context.Context, dst, src *Space, r Range) (ID, error) {
	return db.oneChain(ctx, func(c *Chain) error { return c.CopyRange(dst, src, r) })
}

// MoveRange moves the keys of src that are in r to dst, as one commit, within the engine. See [Chain.MoveRange].
func (db *DB) MoveRange(ctx context.Context, dst, src *Space, r Range) (ID, error) {
	return db.oneChain(ctx, func(c *Chain) error { return c.MoveRange(dst, src, r) })
}

// CopyTree copies the subtree of src into dst, as one commit, within the engine. See [Chain.CopyTree].
func (db *DB) CopyTree(ctx context.Context, dst, src *Space) (ID, error) {
	return db.oneChain(ctx, func(c *Chain) error { return c.CopyTree(dst, src) })
}

// MoveTree moves the subtree of src to dst, as one commit, within the engine. See [Chain.MoveTree].
func (db *DB) MoveTree(ctx context.Context, dst, src *Space) (ID, error) {
	return db.oneChain(ctx, func(c *Chain) error { return c.MoveTree(dst, src) })
}

func (db *DB) oneChain(ctx context.Context, fill func(c *Chain) error) (_ ID, err error) {
	c, err := db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := fill(c); err != nil {
		return 0, err
	}
	return c.Commit(ctx)
}
