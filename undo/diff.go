package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/bytespace/batchlog"
)

// diffBytes bounds the changes that a Diff has in memory. It is a variable for tests.
var diffBytes = 64 << 20

// Diff yields what is different in the state at commit to from that at commit from, in the given spaces and all within them, or everywhere: each key once, with both values and the
// newest commit that changed it, sorted by space and key. What was changed and changed back is not different. to may come before from; 0 is the state before the first commit.
//
// It reads the commits between and their inverses: one that is missing is an [*batchlog.InverseError], or a [*batchlog.GapError]. Beyond 64 MiB of changes it is a
// [*batchlog.LimitError], before anything was yielded: ask for fewer spaces, or fewer commits at a time. What is yielded stays valid.
func Diff(ctx context.Context, db *batchlog.DB, from, to batchlog.ID, spaces ...*batchlog.Space) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		d := diff{db: db, changes: map[string]diffChange{}}
		err := d.read(ctx, min(from, to), max(from, to), spaces)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, key := range slices.Sorted(maps.Keys(d.changes)) {
			c := d.changes[key]
			if from > to {
				c.old, c.now = c.now, c.old
			}
			out, err := changeOf(db, c.id, change{[]byte(key), c.old, c.now})
			if !yield(out, err) || err != nil {
				return
			}
		}
	}
}

// A diff collects what some commits change together.
type diff struct {
	db      *batchlog.DB
	changes map[string]diffChange // those whose old value is not the new one
	opens   [][]byte              // open paths of spaces; none: all
	bytes   int
}

type diffChange struct {
	id       batchlog.ID
	old, now stored
}

func (c *diffChange) size(key []byte) int {
	return 2*len(key) + len(c.old.value) + len(c.now.value) + 160
}

// read collects what the commits above low up to high change.
func (d *diff) read(ctx context.Context, low, high batchlog.ID, spaces []*batchlog.Space) error {
	for _, s := range spaces {
		if err := d.db.Owns(s); err != nil {
			return err
		}
		d.opens = append(d.opens, s.Stored()[:len(s.Stored())-1])
	}
	head, err := d.db.Head(ctx)
	if err != nil {
		return err
	}
	if high > head {
		return fmt.Errorf("commit %d of 0 to %d: %w", high, head, batchlog.ErrNotFound)
	}
	if low == high {
		return nil
	}
	r, err := d.db.Engine().Log(ctx, batchlog.LogOptions{From: batchlog.After(low), Until: high, Within: d.opens})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		for i := range records {
			if err := d.add(ctx, &target{db: d.db, record: records[i]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *diff) add(ctx context.Context, t *target) (err error) {
	in, err := t.changes(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	for {
		c, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(d.opens) > 0 && !batchlog.HasAnyPrefix(c.key, d.opens) {
			continue
		}
		old := c.old
		if before, known := d.changes[string(c.key)]; known {
			old = before.old
			d.bytes -= before.size(c.key)
		}
		if old.equal(c.now) {
			delete(d.changes, string(c.key)) // should it change again, that commit has overwritten the same old value
			continue
		}
		next := diffChange{t.record.ID, old.clone(), c.now.clone()}
		d.changes[string(c.key)] = next
		if d.bytes += next.size(c.key); d.bytes > diffBytes {
			return &batchlog.LimitError{What: "difference", Size: int64(d.bytes), Limit: int64(diffBytes), Hint: "ask for fewer spaces, or fewer commits at a time"}
		}
	}
}

// clone is s in memory of its own: inverses and commits are in that of whole blocks.
func (s stored) clone() stored { return stored{bytes.Clone(s.value), s.has} }
