package undo

import (
	"context"
	"errors"

	"github.com/bytespace/batchlog"
)

// An Outcome is what [Undo] would do.
type Outcome struct {
	Commits   []batchlog.ID // that would be taken back, the newest first
	Keys      int           // that would be written
	Conflicts []Conflict    // keys that have changed since, in their order, the first MaxConflicts; with Force they would be left, without nothing is written
	More      int           // how many there are beyond
	As        batchlog.ID   // the commit that all of this is as of
}

// Preview says what [Undo] would do with the same arguments, and changes nothing. What others commit meanwhile may change the outcome. Errors are those of Undo, but for
// conflicts, which it returns.
func Preview(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (_ *Outcome, err error) {
	if err := o.check(true); err != nil {
		return nil, err
	}
	t, err := load(ctx, db, id)
	if err != nil {
		return nil, err
	}
	snap, err := db.Engine().View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	out := &Outcome{As: snap.ID()}
	if o.Cascade {
		c, err := newCascade(ctx, db, id)
		if err != nil {
			return nil, err
		}
		if err := c.extend(ctx, snap.ID()); err != nil {
			return nil, err
		}
		out.Commits = c.newest()
		for _, k := range c.keys() {
			has, err := heldAt(ctx, snap, []byte(k))
			if err != nil {
				return nil, err
			}
			if !has.equal(c.old[k]) {
				out.Keys++
			}
		}
		return out, nil
	}
	out.Commits = []batchlog.ID{id}
	var w comparison
	err = t.compare(ctx, snap, func(c *change, same bool) error {
		if same {
			out.Keys++
			return nil
		}
		return w.leave(c.key, false)
	})
	if err != nil {
		return nil, err
	}
	out.More = w.more
	out.Conflicts, err = conflictsOf(ctx, db, w.left, id+1, snap.ID())
	return out, err
}
