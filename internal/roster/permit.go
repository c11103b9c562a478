package roster

import (
	"context"
	"fmt"

	"github.com/bytespace/batchlog"
)

// Permit returns an ErrPermission if p has ops in a space that another task derives. A write that is under way while a task is
// registered may still come through, as one from before.
func (r *Roster) Permit(ctx context.Context, p *batchlog.Proposal) error {
	if p.Task == nil && p.Turn == 0 { // a task, or who runs alone, may be what the change waits for
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
		e := r.owner(key)
		if e == nil || p.Task != nil && p.Task.Task == e.name && !p.Task.Admin {
			continue
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
	return nil
}
