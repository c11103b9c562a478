package undo

import (
	"context"
	"errors"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
)

// A Preview is what an undo would do.
type Preview struct {
	Commits   []batchlog.ID // that would be taken back, newest first
	Keys      int           // that would get back what they had
	Conflicts []Conflict    // keys that were changed since; without Force any of them has the undo refused. In the order of keys, of a large commit 1,000 at most
	More      int           // that are not in Conflicts
	At        batchlog.ID   // the commit as of which this is
}

// PreviewUndo says what Undo with these options would do now, and writes nothing.
func PreviewUndo(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (_ *Preview, err error) {
	defer func() {
		if err != nil {
			err = undoError(id, err)
		}
	}()
	if err := o.check(); err != nil {
		return nil, err
	}
	t, err := load(ctx, db, id)
	if err != nil {
		return nil, err
	}
	view, err := db.Inside().Engine().View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	p := &Preview{Commits: []batchlog.ID{id}, At: view.ID()}
	if o.Cascade {
		c, err := newCascade(t)
		if err == nil {
			err = c.follow(ctx, view.ID())
		}
		if err != nil {
			return nil, err
		}
		p.Commits, p.Keys = c.newestFirst(), len(c.olds)
		return p, nil
	}
	left, keys, err := t.preview(ctx, view)
	if err != nil {
		return nil, err
	}
	p.Keys, p.More = keys-len(left.conflicts)-left.more, left.more
	p.Conflicts, err = t.conflicts(ctx, view.ID(), left.conflicts)
	return p, err
}

// PreviewRedo is [PreviewUndo] of [Redo].
func PreviewRedo(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (*Preview, error) {
	id, err := undoOf(ctx, db, id)
	if err != nil {
		return nil, err
	}
	return PreviewUndo(ctx, db, id, o)
}

// preview finds the keys that were changed since, and how many there are in all.
func (t *taking) preview(ctx context.Context, view waist.Snapshot) (left tally, keys int, err error) {
	if !t.large {
		left.conflicts, err = t.compare(func(key []byte) ([]byte, error) { return view.Get(ctx, key) })
		return left, len(t.changes), err
	}
	err = t.eachCompared(ctx, view, func(c *change, same bool) error {
		if keys++; same {
			return nil
		}
		return left.add(c, false)
	})
	return left, keys, err
}
