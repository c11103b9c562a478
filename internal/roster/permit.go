package roster

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// Permit returns an ErrPermission if p has ops in a space that another task derives. A write that is under way while a task is
// registered may still come through, as one from before.
func (r *Roster) Permit(ctx context.Context, p *waist.Proposal) error {
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
		kind, key, _, rest, err := wire.NextOp(ops)
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
func (r *Roster) permit(task *wire.TaskMove, kind batchlog.OpKind, key []byte) error {
	e := r.owner(key)
	if e == nil || task != nil && task.Task == e.name && !task.Admin {
		return nil
	}
	path, own, err := wire.SplitKey(key)
	if err != nil {
		return err
	}
	s, err := r.db.Inside().SpaceAt(path)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s of %s in space %s, which task %s derives; it alone writes there: %w", kind, batchlog.Key(own), s, e.name, batchlog.ErrPermission)
}

// PermitChain is Permit for the ops in the file of a chain.
func (r *Roster) PermitChain(ctx context.Context, c *wire.ChainRef) error {
	for {
		at := r.derived.Load()
		if at == nil || !at.mayBeIn(c) {
			return nil
		}
		if !c.Coarse {
			for _, span := range c.Spans { // each begins with an op
				if err := r.permit(nil, batchlog.OpPut, span.Low); err != nil {
					return err
				}
			}
			return nil
		}
		ops := wire.Record{Chain: c, Count: c.Count}
		n := 0
		err := ops.EachOp(func(kind batchlog.OpKind, key, _ []byte) error {
			if n++; n%4096 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return r.permit(nil, kind, key)
		})
		if now := r.derived.Load(); err != nil || now == at || now != nil && now.derivesAs(at) {
			return err
		}
		// It took its time, and what is derived has changed meanwhile.
	}
}

// mayBeIn reports whether an op of the chain may be in a derived space.
func (s *shape) mayBeIn(c *wire.ChainRef) bool {
	for open := range s.paths.All() {
		if c.MayTouch(open, append(bytes.Clone(open), 0xff)) {
			return true
		}
	}
	return false
}

// derivesAs reports whether the same tasks derive the same spaces.
func (s *shape) derivesAs(other *shape) bool {
	if s.paths.Len() != other.paths.Len() {
		return false
	}
	next, stop := iter.Pull2(other.paths.All())
	defer stop()
	for open, task := range s.paths.All() {
		if path, of, _ := next(); of != task || !bytes.Equal(open, path) {
			return false
		}
	}
	return true
}
