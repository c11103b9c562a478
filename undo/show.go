package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// Commit returns commit id as the log has it. Its changes are those of [Show].
func Commit(ctx context.Context, db *batchlog.DB, id batchlog.ID) (*batchlog.Commit, error) {
	return commitAt(ctx, db, id)
}

// Show yields what a commit has changed, in the order of keys: what was there before and what after. Memory is bounded whatever its size. Where what it has
// overwritten is not known it yields its ops instead, in the order in which they are in the log, with old values that are not known, and range deletes as such.
func Show(ctx context.Context, db *batchlog.DB, id batchlog.ID) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		c, err := commitAt(ctx, db, id)
		if err == nil {
			err = show(ctx, db, c, func(c Change) bool { return yield(c, nil) })
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(Change{}, fmt.Errorf("show commit %d: %w", id, err))
		}
	}
}

func show(ctx context.Context, db *batchlog.DB, c *batchlog.Commit, yield func(Change) bool) error {
	err := eachChange(ctx, db, c, nil, func(ch *change) error {
		change, err := newChange(db, ch.key, ch.old, ch.left)
		if err == nil && !yield(change) {
			err = errEnough
		}
		return err
	})
	if errors.Is(err, batchlog.ErrNoInverse) {
		return showOps(c, yield)
	}
	return err
}

// showOps yields the ops of a commit whose inverse is not there.
func showOps(c *batchlog.Commit, yield func(Change) bool) error {
	for op, err := range c.Ops() {
		if err != nil {
			return err
		}
		ch := Change{Space: op.Space, Key: op.Key, New: Value{Known: true}}
		switch op.Kind {
		case batchlog.OpPut:
			ch.New.Exists, ch.New.Bytes, ch.New.Blob = true, op.Value, op.Blob
		case batchlog.OpDeleteRange:
			ch.Range, ch.High = true, op.High
		case batchlog.OpDelete:
		}
		if !yield(ch) {
			return errEnough
		}
	}
	return nil
}

// diffBytes bounds what Diff has in memory. Tests have less.
var diffBytes = 64 << 20

// Diff returns what has changed between two commits, in the order of keys: the values at the one and those at the other, of keys for which they differ, in some spaces and those
// within them; none: in all. The first may be the later one. It looks through all commits between them, and keeps the keys that these have changed, and their values, in memory: above 64 MiB it is
// a *batchlog.LimitError. What a commit between has overwritten and is not known is a *batchlog.InverseError.
func Diff(ctx context.Context, db *batchlog.DB, from, to batchlog.ID, spaces ...*batchlog.Space) ([]Change, error) {
	low, high := min(from, to), max(from, to)
	head, err := db.Head(ctx)
	if err != nil {
		return nil, err
	}
	if high > head {
		return nil, fmt.Errorf("commit %d of 0 to %d: %w", high, head, batchlog.ErrNotFound)
	}
	var opens [][]byte
	for _, s := range spaces {
		if err := db.Inside().Owns(s); err != nil {
			return nil, err
		}
		path := s.Stored()
		opens = append(opens, path[:len(path)-1])
	}
	d := &diff{db: db, opens: wire.SortedPrefixes(opens), changes: map[string]*change{}}
	if err := d.run(ctx, low, high, spaces); err != nil {
		return nil, fmt.Errorf("changes from commit %d to %d: %w", low, high, err)
	}
	var all []Change
	for _, key := range d.keys() {
		c := d.changes[key]
		delete(d.changes, key) // its values are copied
		if same(c.old, c.left) {
			continue
		}
		if from > to {
			c.old, c.left = c.left, c.old
		}
		change, err := newChange(db, c.key, c.old, c.left)
		if err != nil {
			return nil, err
		}
		all = append(all, change)
	}
	return all, nil
}

type diff struct {
	db      *batchlog.DB
	opens   [][]byte
	changes map[string]*change
	size    int
}

func (d *diff) keys() []string {
	keys := make([]string, 0, len(d.changes))
	for key := range d.changes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (d *diff) grow(n int) error {
	if d.size += n; d.size > diffBytes {
		return &batchlog.LimitError{What: "changes between two commits, in bytes", Size: int64(d.size), Limit: int64(diffBytes), Hint: "name spaces, or ids that are closer to each other"}
	}
	return nil
}

// run goes through the commits behind low up to high.
func (d *diff) run(ctx context.Context, low, high batchlog.ID, spaces []*batchlog.Space) error {
	if low == high {
		return nil
	}
	for c, err := range d.db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(low), Until: high, Spaces: spaces}) {
		if err != nil {
			return err
		}
		if err := eachChange(ctx, d.db, c, d.wants(), d.note); err != nil {
			return err
		}
	}
	return nil
}

// wants is which keys are compared; nil: all.
func (d *diff) wants() func(key []byte) bool {
	if len(d.opens) == 0 {
		return nil
	}
	return func(key []byte) bool { return wire.HasSortedPrefix(key, d.opens) }
}

// changeBytes is what a change takes beside its key and its values, here and in what is returned.
const changeBytes = 400

func (d *diff) note(ch *change) error {
	left := cloneValue(ch.left)
	if c := d.changes[string(ch.key)]; c != nil {
		grow := len(left) - len(c.left)
		c.left = left
		return d.grow(grow)
	}
	c := &change{bytes.Clone(ch.key), cloneValue(ch.old), left}
	d.changes[string(c.key)] = c
	return d.grow(2*len(c.key) + len(c.old) + len(c.left) + changeBytes)
}

func cloneValue(v []byte) []byte {
	if v == nil {
		return nil
	}
	return present(bytes.Clone(v))
}
