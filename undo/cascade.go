package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
)

// Bounds of a cascade, which is held in memory and committed as one batch. They are variables for tests.
var (
	cascadeCommits = 2000 // their ids stand in a label
	cascadeKeys    = 500_000
	cascadeBytes   = 32 << 20
)

const hintCascade = "go back to the commit before with To"

// A cascade is a commit with the later ones that changed the same keys, each of which brings all keys that it changed, so that none of them is left in part. A commit is in it if,
// when it was made, one of the keys of the cascade so far was changed by it: one pass over the log, upwards, finds them all. Nobody else has changed these keys since, so
// there are no conflicts. What a key gets back is what the first of them that changed it has overwritten.
type cascade struct {
	db     *batchlog.DB
	ids    []batchlog.ID     // ascending
	old    map[string]stored // of each key
	sorted []string          // the keys, for range deletes; nil: to be made
	seen   batchlog.ID       // the commit up to which the log was looked through
	bytes  int
}

func newCascade(ctx context.Context, db *batchlog.DB, id batchlog.ID) (*cascade, error) {
	c := &cascade{db: db, old: map[string]stored{}, seen: id}
	return c, c.join(ctx, id, false)
}

// join adds a commit; related says that it does so only if the commit has changed a key of the cascade, which not every op on one does.
func (c *cascade) join(ctx context.Context, id batchlog.ID, related bool) (err error) {
	in, err := c.db.Inverse(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r := inverse{ctx: ctx, in: in}
	joined := !related
	var waiting []change // until one of the keys is known to be in the cascade
	for {
		key, old, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		_, known := c.old[string(key)]
		joined = joined || known
		if waiting = append(waiting, change{key: key, old: old}); len(waiting) > cascadeKeys {
			return c.tooLarge("keys of a cascade", len(waiting), cascadeKeys)
		}
		if joined {
			if err := c.add(waiting); err != nil {
				return err
			}
			waiting = waiting[:0]
		}
	}
	if joined {
		c.ids, c.sorted = append(c.ids, id), nil
		if len(c.ids) > cascadeCommits {
			return c.tooLarge("commits of a cascade", len(c.ids), cascadeCommits)
		}
	}
	return nil
}

func (c *cascade) add(overwritten []change) error {
	for _, o := range overwritten {
		if _, known := c.old[string(o.key)]; known {
			continue // an earlier commit has overwritten what it gets back
		}
		// The memory of an inverse is that of whole blocks.
		c.old[string(o.key)] = stored{bytes.Clone(o.old.value), o.old.has}
		if c.bytes += o.size(); c.bytes > cascadeBytes {
			return c.tooLarge("bytes of a cascade", c.bytes, cascadeBytes)
		}
	}
	if len(c.old) > cascadeKeys {
		return c.tooLarge("keys of a cascade", len(c.old), cascadeKeys)
	}
	return nil
}

func (c *cascade) tooLarge(what string, size, limit int) error {
	return &batchlog.LimitError{What: what, Size: int64(size), Limit: int64(limit), Hint: hintCascade}
}

// extend looks through the log up to commit until.
func (c *cascade) extend(ctx context.Context, until batchlog.ID) error {
	if c.seen >= until {
		return nil
	}
	for commit, err := range c.db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(c.seen), Until: until, Brief: true}) {
		if err != nil {
			return err
		}
		touched, err := c.touches(ctx, commit)
		if err == nil && touched {
			err = c.join(ctx, commit.ID, true)
		}
		if err != nil {
			return fmt.Errorf("commit %d: %w", commit.ID, err)
		}
	}
	c.seen = until
	return nil
}

var errEnough = errors.New("enough")

// touches reports whether an op of the commit is on a key of the cascade.
func (c *cascade) touches(ctx context.Context, commit *batchlog.Commit) (bool, error) {
	if commit.Chained() && !slices.ContainsFunc(commit.Spans(), func(r batchlog.KeyRange) bool { return c.anyIn(r.Low, r.High) }) {
		return false, nil // without reading it
	}
	err := commit.EachStored(func(kind batchlog.OpKind, key, value []byte) error {
		touched := false
		if kind == batchlog.OpDeleteRange {
			touched = c.anyIn(key, value)
		} else {
			_, touched = c.old[string(key)]
		}
		if touched {
			return errEnough
		}
		return ended(ctx)
	})
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

// anyIn reports whether a key of the cascade is from low on and below high.
func (c *cascade) anyIn(low, high []byte) bool {
	if c.sorted == nil {
		c.sorted = c.keys()
	}
	i, _ := slices.BinarySearch(c.sorted, string(low))
	return i < len(c.sorted) && c.sorted[i] < string(high)
}

func (c *cascade) keys() []string { return slices.Sorted(maps.Keys(c.old)) }

// newest are the ids, the newest first.
func (c *cascade) newest() []batchlog.ID {
	ids := slices.Clone(c.ids)
	slices.Reverse(ids)
	return ids
}

// cascade takes the commit back with all that changed its keys since.
func (u *undoing) cascade(ctx context.Context) (batchlog.ID, error) {
	c, err := newCascade(ctx, u.db, u.id)
	if err != nil {
		return 0, err
	}
	id, err := u.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := u.begin(ctx, tx.Base()); err != nil {
			return err
		}
		if err := c.extend(ctx, tx.Base()); err != nil {
			return err
		}
		// Where others commit meanwhile it is tried again, and goes on in the log where it was.
		for _, k := range c.keys() {
			key := []byte(k)
			has, err := heldIn(tx, key)
			if err != nil {
				return err
			}
			if !has.equal(c.old[k]) {
				write(tx, key, c.old[k])
			}
		}
		u.name(c.newest())
		u.sign(tx)
		return nil
	})
	if err == nil && id == 0 {
		id, err = u.empty(ctx)
	}
	return id, err
}

// name has the labels say which commits are taken back; of a redo, which besides.
func (u *undoing) name(ids []batchlog.ID) {
	if _, redo := u.labels[LabelRedo]; redo {
		ids = ids[:len(ids)-1]
		if len(ids) == 0 {
			delete(u.labels, LabelUndo)
			return
		}
	}
	u.labels[LabelUndo] = joinIDs(ids)
}

func joinIDs(ids []batchlog.ID) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(id.String())
	}
	return b.String()
}
