package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/bytespace/batchlog"
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

// showBytes bounds the changes of a commit that are in memory at once. For each piece of that size the ops of the commit are read again.
const showBytes = 64 << 20

func show(ctx context.Context, db *batchlog.DB, c *batchlog.Commit, yield func(Change) bool) error {
	var piece []change
	size := 0
	flush := func() error {
		if err := findLeft(ctx, c, piece); err != nil {
			return err
		}
		for _, ch := range piece {
			change, err := newChange(db, ch.key, ch.old, ch.left)
			if err != nil {
				return err
			}
			if !yield(change) {
				return errEnough
			}
		}
		piece, size = piece[:0], 0
		return nil
	}
	err := eachInverse(ctx, db, c.ID, func(key, old []byte) error {
		piece = append(piece, change{key: key, old: old})
		if size += len(key) + len(old) + 128; size < showBytes {
			return nil
		}
		return flush()
	})
	if errors.Is(err, batchlog.ErrNoInverse) {
		return showOps(c, yield)
	}
	if err != nil {
		return err
	}
	return flush()
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

// diffBytes bounds what Diff has in memory.
const diffBytes = 64 << 20

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
		if err := db.Owns(s); err != nil {
			return nil, err
		}
		path := s.Stored()
		opens = append(opens, path[:len(path)-1])
	}
	d := &diff{db: db, opens: batchlog.SortedPrefixes(opens), changes: map[string]*change{}}
	if err := d.run(ctx, low, high, spaces); err != nil {
		return nil, fmt.Errorf("changes from commit %d to %d: %w", low, high, err)
	}
	var all []Change
	for _, key := range d.keys() {
		c := d.changes[key]
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
		return &batchlog.LimitError{What: "changes between two commits, in bytes", Size: int64(d.size), Limit: diffBytes, Hint: "name spaces, or ids that are closer to each other"}
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
		var changes []change
		err := eachInverse(ctx, d.db, c.ID, func(key, old []byte) error {
			if len(d.opens) > 0 && !batchlog.HasSortedPrefix(key, d.opens) {
				return nil
			}
			changes = append(changes, change{key: key, old: old})
			if len(changes)%1024 == 0 && len(changes)*64+d.size > diffBytes {
				return d.grow(len(changes) * 64)
			}
			return nil
		})
		if err == nil {
			err = findLeft(ctx, c, changes)
		}
		if err != nil {
			return err
		}
		for _, ch := range changes {
			if err := d.note(ch); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *diff) note(ch change) error {
	ch.left = cloneValue(ch.left)
	if c := d.changes[string(ch.key)]; c != nil {
		grow := len(ch.left) - len(c.left)
		c.left = ch.left
		return d.grow(grow)
	}
	ch.key, ch.old = bytes.Clone(ch.key), cloneValue(ch.old)
	d.changes[string(ch.key)] = &ch
	return d.grow(len(ch.key) + len(ch.old) + len(ch.left) + 128)
}

func cloneValue(v []byte) []byte {
	if v == nil {
		return nil
	}
	return present(bytes.Clone(v))
}
