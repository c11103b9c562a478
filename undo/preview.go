package undo

import (
	"context"
	"errors"
	"slices"

	"github.com/bytespace/batchlog"
)

// A Preview is what an undo would do.
type Preview struct {
	Commits   []batchlog.ID // that would be taken back, newest first
	Keys      int           // that would get back what they had
	Conflicts []Conflict    // keys that were changed since; without Force any of them has the undo refused. In the order of keys
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
	view, err := db.Engine().View(ctx, batchlog.ReadOptions{Plain: true})
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
	conflicts, keys, err := t.preview(ctx, view)
	if err != nil {
		return nil, err
	}
	p.Keys = keys - len(conflicts)
	p.Conflicts, err = t.conflicts(ctx, view.ID(), conflicts)
	return p, err
}

// preview finds the keys that were changed since, and how many there are in all.
func (t *taking) preview(ctx context.Context, view batchlog.Snapshot) (conflicts []change, keys int, err error) {
	if !t.large {
		conflicts, err = t.compare(func(key []byte) ([]byte, error) { return view.Get(ctx, key) })
		return conflicts, len(t.changes), err
	}
	later, err := t.later(ctx, view.ID())
	if err != nil {
		return nil, 0, err
	}
	err = eachInverse(ctx, t.db, t.id, func(key, old []byte) error {
		keys++
		ch := change{key: slices.Clone(key), old: old}
		conflict, err := later.conflict(ctx, view, &ch)
		if conflict {
			conflicts = append(conflicts, ch)
		}
		if len(conflicts) > smallKeys {
			return &batchlog.LimitError{What: "keys that were changed since", Size: smallKeys + 1, Limit: smallKeys, Hint: "bring back an earlier state with To"}
		}
		return err
	})
	return conflicts, keys, err
}
