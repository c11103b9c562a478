package batchlog

import (
	"bytes"
	"context"
	"slices"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// hookPieceBytes is how many bytes of the ops of a large chain a streamed hook is given at once.
const hookPieceBytes = 4 << 20

// TouchChain reports whether an op of a chain, or one behind it, may be in a space with a hook.
func (h *Hooks) TouchChain(p *waist.Proposal) bool {
	x := h.index()
	if x == nil {
		return false
	}
	if p.Chain.Coarse {
		return true
	}
	for _, span := range p.Chain.Spans {
		if x.find(span.Low) != nil {
			return true
		}
	}
	return h.Touch(p)
}

// RunChain is Run for a proposal of a chain: hooks are given its ops, and those behind it, which are in their spaces. All at once, if they are not more
// than [MaxHookedChainBytes]; above, streamed hooks are called with some at a time, and any other refuses the chain with a *[LimitError].
// What hooks add, and the values that they replace, come behind the ops that there are; the ops of a chain can't be dropped.
func (h *Hooks) RunChain(ctx context.Context, p *waist.Proposal, snap waist.Snapshot) (*waist.Proposal, error) {
	c := hookedChain{ctx: ctx, hooks: h, index: h.index(), snap: snap, room: MaxHookAddedBytes}
	c.out = *p
	c.out.Ops = slices.Clip(p.Ops)
	c.reads.Base = snap.ID()
	if p.Reads != nil {
		c.reads = waist.Reads{Base: min(p.Reads.Base, snap.ID()), Keys: slices.Clip(p.Reads.Keys), Ranges: slices.Clip(p.Reads.Ranges)}
	}
	record := wire.Record{Chain: p.Chain, Ops: p.Ops, Count: p.Chain.Count + p.Count}
	if err := record.EachOp(c.take); err != nil {
		return nil, err
	}
	if err := c.run(); err != nil {
		return nil, err
	}
	c.out.Reads = &c.reads
	c.out.Meta = appendHooks(p.Meta, c.passed)
	return &c.out, limitChainAdded.Check(len(c.out.Meta) + len(c.out.Ops))
}

// A hookedChain is a chain on its way through the hooks.
type hookedChain struct {
	ctx   context.Context //nolint:containedctx // of one call
	hooks *Hooks
	index *hookIndex
	snap  waist.Snapshot
	out   waist.Proposal
	reads waist.Reads
	// piece is what is yet to be given to hooks.
	piece  []byte
	count  int
	large  bool    // the chain is given in pieces
	added  overlay // what hooks have added
	room   int     // for more of that
	passed []*Space
}

// take adds an op of the chain to the piece, if it is about a hook.
func (c *hookedChain) take(kind OpKind, key, value []byte) error {
	place := c.index.find(key)
	if place == nil {
		return nil
	}
	if b := place.whole(); c.large && b != nil {
		return c.tooLarge(b)
	}
	c.piece = wire.AppendOp(c.piece, kind, key, value)
	c.count++
	if c.large && len(c.piece) >= hookPieceBytes {
		return c.run()
	}
	if !c.large && len(c.piece) > MaxHookedChainBytes {
		c.large = true
		if err := wire.EachOp(c.piece, c.count, func(_ OpKind, key, _ []byte) error {
			if b := c.index.find(key).whole(); b != nil {
				return c.tooLarge(b)
			}
			return nil
		}); err != nil {
			return err
		}
		return c.run()
	}
	return nil
}

func (c *hookedChain) tooLarge(b *boundHook) error {
	return &HookError{
		Space: b.space, Reason: "the chain is too large for a hook that needs all of its ops at once", Err: limitChainHooked.over(max(int64(len(c.piece)), MaxHookedChainBytes+1)),
	}
}

// run gives the piece to the hooks.
func (c *hookedChain) run() error {
	if c.count == 0 {
		return nil
	}
	if c.ctx.Err() != nil {
		return cause(c.ctx)
	}
	tx := &Tx{ctx: c.ctx, db: c.hooks.db, snap: c.snap, reads: c.reads}
	run := &hookRun{tx: tx, index: c.index, chained: c.count, before: c.added.fork(), room: c.room}
	tx.hooks = run
	tx.batch.proposal = waist.Proposal{Ops: slices.Clip(c.piece), Count: c.count}
	if err := run.take(nil); err != nil {
		return err
	}
	if err := run.rounds(); err != nil {
		return err
	}
	c.reads = tx.reads
	c.passed = append(c.passed, run.passed...)
	start := len(c.out.Ops)
	for i := range run.ops {
		o := &run.ops[i]
		if o.dropped || i < run.chained && !o.replaced {
			continue
		}
		c.out.Ops = wire.AppendOp(c.out.Ops, o.kind, o.key, o.value)
		c.out.Count++
	}
	c.out.Blobs += tx.batch.proposal.Blobs
	c.room -= run.added()
	c.added.applyAll(bytes.Clone(c.out.Ops[start:])) // where they are, they move
	c.piece, c.count = nil, 0                        // hooks may keep what they were given
	return limitChainAdded.Check(len(c.out.Ops))
}
