package roster

import (
	"context"
	"fmt"

	"github.com/bytespace/batchlog"
)

// Permit returns an ErrPermission if p has ops in a space that another task derives. A write that is under way while a task is
// registered may still come through, as one from before.
func (r *Roster) Permit(ctx context.Context, p *batchlog.Proposal) error {
	if p.Task == nil && p.Ticket == 0 { // a task, or who has a ticket, may be what the change waits for
		if err := r.upToDate(ctx); err != nil {
			return err
		}
	}
	if r.derived.Load() == nil {
		return nil
	}
	ops := p.Ops
	for range p.Count {
		kind, key, _, rest, err := batchlog.NextOp(ops)
		if err != nil {
			return err
		}
		ops = rest
		if err := r.permit(p.Task, kind, key); err != nil {
			return err
		}
	}
	return nil
}

// permit is Permit for one op.
func (r *Roster) permit(task *batchlog.TaskMove, kind batchlog.OpKind, key []byte) error {
	e := r.owner(key)
	if e == nil || task != nil && task.Task == e.name && !task.Admin {
		return nil
	}
	path, own, err := batchlog.SplitKey(key)
	if err != nil {
		return err
	}
	s, err := r.db.SpaceAt(path)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s of %s in space %s, which task %s derives; it alone writes there: %w", kind, batchlog.Key(own), s, e.name, batchlog.ErrPermission)
}

// PermitChain is Permit for the ops in the file of a chain.
func (r *Roster) PermitChain(c *batchlog.ChainRef) error {
	if r.derived.Load() == nil {
		return nil
	}
	check := func(kind batchlog.OpKind, key, _ []byte) error {
		return r.permit(nil, kind, key)
	}
	if c.Coarse {
		ops := batchlog.Record{Chain: c, Count: c.Count}
		return ops.EachOp(check)
	}
	for _, span := range c.Spans { // each begins with an op
		if err := check(batchlog.OpPut, span.Low, nil); err != nil {
			return err
		}
	}
	return nil
}
