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
	piece []byte
	count int
	large bool    // the chain is given in pieces
	added overlay // what hooks have added
	// replaced is the keys whose last op behind the chain is one of its own: with another value, or, where the chain has said more of the key since, that again.
	replaced  ordered
	order     wire.Stretches
	stretches int
	room      int // for more of that
	passed    []*Space
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
	if c.order.Begin(kind, key) {
		c.stretches++
	}
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
	if err := c.restate(); err != nil {
		return err
	}
	run := &hookRun{tx: tx, index: c.index, chained: c.count, before: c.added.fork(), room: c.room}
	tx.hooks = run
	tx.batch.proposal = waist.Proposal{Ops: slices.Clip(c.piece), Count: c.count}
	if err := run.take(nil); err != nil {
		return err
	}
	if c.stretches > 1 { // else the chain says one thing of each key
		run.outdone = outdone(run.ops)
	}
	if err := run.rounds(); err != nil {
		return err
	}
	c.reads = tx.reads
	c.passed = append(c.passed, run.passed...)
	start := len(c.out.Ops)
	for i := range run.ops {
		o := &run.ops[i]
		if o.dropped || i < run.chained && !run.stands(i) {
			continue
		}
		c.append(o.kind, o.key, o.value)
		c.note(o, i < run.chained)
	}
	c.out.Blobs += tx.batch.proposal.Blobs
	c.room -= run.added()
	c.added.applyAll(bytes.Clone(c.out.Ops[start:])) // where they are, they move
	c.piece, c.count = nil, 0                        // hooks may keep what they were given
	return limitChainAdded.Check(len(c.out.Ops))
}

func (c *hookedChain) append(kind OpKind, key, value []byte) {
	c.out.Ops = wire.AppendOp(c.out.Ops, kind, key, value)
	c.out.Count++
}

// note notes whose the last op on a key behind the chain is.
func (c *hookedChain) note(o *hookOp, own bool) {
	switch {
	case own:
		c.replaced.set(o.key, nil, false)
	case o.kind == OpDeleteRange:
		c.replaced.cut(o.key, o.value)
	default:
		c.replaced.cut(o.key, append(bytes.Clone(o.key), 0))
	}
}

// restate appends what the chain says, in this call, of keys whose values were replaced in calls before: what was replaced comes behind the chain, and would
// win over it.
func (c *hookedChain) restate() error {
	if c.replaced.root == nil {
		return nil
	}
	again := func(kind OpKind, key, value []byte) {
		c.append(kind, key, value)
		c.added.apply(kind, key, value)
	}
	return wire.EachOp(c.piece, c.count, func(kind OpKind, key, value []byte) error {
		n := c.replaced.ceiling(key, true)
		if kind != OpDeleteRange {
			if n != nil && bytes.Equal(n.key, key) {
				again(kind, key, value)
			}
			return nil
		}
		for ; n != nil && bytes.Compare(n.key, value) < 0; n = c.replaced.ceiling(n.key, false) {
			again(OpDelete, n.key, nil)
		}
		return nil
	})
}

// outdone is of which ops a later one is about the same key.
func outdone(ops []hookOp) []bool {
	of := make([]bool, len(ops))
	var later overlay
	for i := len(ops) - 1; i >= 0; i-- {
		_, _, of[i] = later.get(ops[i].key)
		later.apply(ops[i].kind, ops[i].key, ops[i].value)
	}
	return of
}
