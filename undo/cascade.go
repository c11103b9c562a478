package undo

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/bytespace/batchlog"
)

// A cascade is a commit that is taken back with the later ones that have changed the same keys, and with those that have changed theirs. Whatever it takes back is
// in it as a whole, and nobody else has changed any of its keys since: so there are no conflicts, and each key gets the value that it had before the first
// of these commits that changed it.
type cascade struct {
	db      *batchlog.DB
	commits []batchlog.ID // oldest first
	at      batchlog.ID   // the commit up to which the log was looked through
	olds    map[string][]byte
	size    int
	sorted  [][]byte // the keys in order; nil: to be made again
}

func newCascade(t *taking) (*cascade, error) {
	if t.large {
		return nil, errCascadeLarge
	}
	c := &cascade{db: t.db, commits: []batchlog.ID{t.id}, at: t.id, olds: map[string][]byte{}}
	for _, change := range t.changes {
		if err := c.add(change.key, change.old); err != nil {
			return nil, err
		}
	}
	return c, nil
}

var errCascadeLarge = &batchlog.LimitError{What: "undo with all that follows from it, in keys", Size: int64(smallKeys) + 1, Limit: int64(smallKeys), Hint: "bring back an earlier state with To"}

// add adds a key that a commit of the cascade has changed; the first one counts.
func (c *cascade) add(key, old []byte) error {
	if _, ok := c.olds[string(key)]; ok {
		return nil
	}
	c.olds[string(key)], c.sorted = old, nil
	if c.size += len(key) + len(old); c.size > smallBytes || len(c.olds) > smallKeys {
		return errCascadeLarge
	}
	return nil
}

// follow adds the commits up to head that belong to the cascade.
func (c *cascade) follow(ctx context.Context, head batchlog.ID) error {
	if c.at >= head {
		return nil
	}
	for commit, err := range c.db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(c.at), Until: head, Brief: true}) {
		if err != nil {
			return err
		}
		touches, err := c.touched(commit)
		if err == nil && touches {
			err = c.join(ctx, commit.ID)
		}
		if err != nil {
			return err
		}
		c.at = commit.ID
	}
	c.at = head
	return nil
}

// touched reports whether a commit has an op on one of the keys.
func (c *cascade) touched(commit *batchlog.Commit) (bool, error) {
	err := commit.Inside().EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		if kind != batchlog.OpDeleteRange {
			if _, ok := c.olds[string(key)]; ok {
				return errEnough
			}
			return nil
		}
		keys := c.keys()
		i, _ := slices.BinarySearchFunc(keys, key, bytes.Compare)
		if i < len(keys) && bytes.Compare(keys[i], value) < 0 {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

// keys are those that are put back, in order.
func (c *cascade) keys() [][]byte {
	if c.sorted == nil {
		for key := range c.olds {
			c.sorted = append(c.sorted, []byte(key))
		}
		slices.SortFunc(c.sorted, bytes.Compare)
	}
	return c.sorted
}

// join adds a commit with an op on one of the keys, if it has changed one.
func (c *cascade) join(ctx context.Context, id batchlog.ID) error {
	var changes []change
	changed, size := false, 0
	err := eachInverse(ctx, c.db, id, func(key, old []byte) error {
		if _, ok := c.olds[string(key)]; ok {
			changed = true
		}
		if size += len(key) + len(old); size > smallBytes || len(changes) > smallKeys {
			return errCascadeLarge
		}
		changes = append(changes, change{key: key, old: old})
		return nil
	})
	if err != nil || !changed {
		return err
	}
	c.commits = append(c.commits, id)
	for _, change := range changes {
		if err := c.add(change.key, change.old); err != nil {
			return err
		}
	}
	return nil
}

// newestFirst are the commits that are taken back.
func (c *cascade) newestFirst() []batchlog.ID {
	ids := slices.Clone(c.commits)
	slices.Reverse(ids)
	return ids
}

// cascade takes the commit back with all that follows from it.
func (t *taking) cascade(ctx context.Context, o Options) (batchlog.ID, error) {
	c, err := newCascade(t)
	if err != nil {
		return 0, err
	}
	if len(c.olds) == 0 {
		return t.db.Write(ctx, &batchlog.Batch{Token: o.Token, Labels: o.labels(LabelUndo, t.id.String())})
	}
	return t.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := c.follow(ctx, tx.Base()); err != nil {
			return err
		}
		for _, key := range c.keys() {
			if _, err := tx.Inside().Get(key); err != nil && !errors.Is(err, batchlog.ErrNotFound) { // nobody has written it since
				return err
			}
			putBack(tx.Inside(), change{key: key, old: c.olds[string(key)]})
		}
		setLabels(tx, o.Token, o.labels(LabelUndo, idsText(c.newestFirst())))
		return nil
	})
}
