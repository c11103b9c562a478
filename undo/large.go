package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bytespace/batchlog"
)

// A commit that has changed too much for a transaction is taken back by a chain: its inverse is streamed into it. Which keys hold still what the commit left is
// told by the log: those that no later commit has written. The others, which must be few enough for memory, are compared.

const (
	// largeTries is how often a chain that loses to other commits is made.
	largeTries = 8
	// laterBytes bounds the keys that later commits have written, in memory.
	laterBytes = 64 << 20
)

// undoLarge takes the commit back by a chain.
func (t *taking) undoLarge(ctx context.Context, o Options, labels map[string]string) (batchlog.ID, error) {
	for try := 1; ; try++ {
		id, err := t.tryLarge(ctx, o, labels)
		if conflict := (*ConflictError)(nil); err == nil || !errors.Is(err, batchlog.ErrConflict) || errors.As(err, &conflict) {
			return id, err
		}
		if try == largeTries {
			return 0, fmt.Errorf("lost to other commits %d times: %w", try, err)
		}
	}
}

func (t *taking) tryLarge(ctx context.Context, o Options, labels map[string]string) (id batchlog.ID, err error) {
	view, err := t.db.Engine().View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	later, err := t.later(ctx, view.ID())
	if err != nil {
		return 0, err
	}
	c, err := t.db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token, c.Labels, c.Progress = o.Token, labels, o.Progress
	var conflicts []change
	var spans spans
	taken := false
	err = eachInverse(ctx, t.db, t.id, func(key, old []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ch := change{key: key, old: old}
		conflict, err := later.conflict(ctx, view, &ch)
		if err != nil {
			return err
		}
		if conflict {
			if len(conflicts) >= smallKeys {
				return &batchlog.LimitError{What: "keys that were changed since", Size: smallKeys + 1, Limit: smallKeys, Hint: "bring back an earlier state with To"}
			}
			conflicts = append(conflicts, ch)
			return nil
		}
		taken = true
		putBack(c, ch)
		return errors.Join(spans.add(key), c.Err())
	})
	if err != nil {
		return 0, err
	}
	if !taken || len(conflicts) > 0 && !o.Force {
		return 0, t.conflictError(ctx, view.ID(), conflicts)
	}
	c.Depends(&batchlog.Reads{Base: view.ID(), Ranges: spans})
	if id, err = c.Commit(ctx); err != nil || len(conflicts) == 0 || o.Left == nil {
		return id, err
	}
	return id, t.tellLeft(ctx, id, view.ID(), conflicts, o.Left)
}

// spans are ranges around keys that come in order: one a space, as long as these are few.
type spans []batchlog.KeyRange

func (s *spans) add(key []byte) error {
	path, _, err := batchlog.SplitKey(key)
	if err != nil {
		return err
	}
	high := append(bytes.Clone(key), 0)
	if n := len(*s); n > 0 && (bytes.HasPrefix((*s)[n-1].Low, path) || n == batchlog.ChainSpansMax) {
		(*s)[n-1].High = high
		return nil
	}
	*s = append(*s, batchlog.KeyRange{Low: bytes.Clone(key), High: high})
	return nil
}

// later is what commits after the one that is taken back have written within its spaces.
type later struct {
	keys   map[string]bool
	ranges []batchlog.KeyRange
	left   map[string][]byte // of these keys: what the commit has left there; none: nothing
}

// later looks through the log from behind the commit up to head.
func (t *taking) later(ctx context.Context, head batchlog.ID) (*later, error) {
	l := &later{keys: map[string]bool{}, left: map[string][]byte{}}
	if head <= t.id {
		return l, nil
	}
	within, err := around(t.commit)
	if err != nil {
		return nil, err
	}
	size := 0
	note := func(kind batchlog.OpKind, key, value []byte) error {
		high := value
		if kind != batchlog.OpDeleteRange {
			if l.keys[string(key)] {
				return nil
			}
			high = append(bytes.Clone(key), 0)
		}
		if !slices.ContainsFunc(within, func(r batchlog.KeyRange) bool {
			return bytes.Compare(r.Low, high) < 0 && bytes.Compare(key, r.High) < 0
		}) {
			return nil
		}
		if size += len(key) + len(high) + 64; size > laterBytes {
			return &batchlog.LimitError{What: "keys written since, in bytes", Size: int64(size), Limit: laterBytes, Hint: "bring back an earlier state with To"}
		}
		if kind != batchlog.OpDeleteRange {
			l.keys[string(key)] = true
			return nil
		}
		l.ranges = append(l.ranges, batchlog.KeyRange{Low: bytes.Clone(key), High: bytes.Clone(high)})
		return nil
	}
	for c, err := range t.db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(t.id), Until: head, Brief: true}) {
		if err == nil {
			err = c.EachStored(note)
		}
		if err != nil {
			return nil, err
		}
	}
	return l, l.findLeft(t.commit)
}

// around are ranges that hold the keys of a commit.
func around(c *batchlog.Commit) ([]batchlog.KeyRange, error) {
	if c.Chained() {
		return c.Spans(), nil
	}
	var all batchlog.KeyRange
	err := c.EachStored(func(kind batchlog.OpKind, key, value []byte) error {
		high := value
		if kind != batchlog.OpDeleteRange {
			high = append(bytes.Clone(key), 0)
		}
		if all.Low == nil || bytes.Compare(key, all.Low) < 0 {
			all.Low = bytes.Clone(key)
		}
		if bytes.Compare(high, all.High) > 0 {
			all.High = bytes.Clone(high)
		}
		return nil
	})
	return []batchlog.KeyRange{all}, err
}

// has reports whether a key was written.
func (l *later) has(key []byte) bool {
	return l.keys[string(key)] || slices.ContainsFunc(l.ranges, func(r batchlog.KeyRange) bool {
		return bytes.Compare(r.Low, key) <= 0 && bytes.Compare(key, r.High) < 0
	})
}

// findLeft finds what the commit has left under the keys.
func (l *later) findLeft(c *batchlog.Commit) error {
	if len(l.keys) == 0 && len(l.ranges) == 0 {
		return nil
	}
	size := 0
	return c.EachStored(func(kind batchlog.OpKind, key, value []byte) error {
		switch {
		case kind == batchlog.OpDeleteRange:
			for k := range l.left {
				if string(key) <= k && k < string(value) {
					delete(l.left, k)
				}
			}
		case !l.has(key):
		case kind == batchlog.OpDelete:
			delete(l.left, string(key))
		default:
			if size += len(key) + len(value); size > laterBytes {
				return &batchlog.LimitError{What: "values that may have been changed since, in bytes", Size: int64(size), Limit: laterBytes, Hint: "bring back an earlier state with To"}
			}
			l.left[string(key)] = present(value)
		}
		return nil
	})
}

// conflict reports whether a key does not hold any more what the commit has left there.
func (l *later) conflict(ctx context.Context, view batchlog.Snapshot, c *change) (bool, error) {
	if !l.has(c.key) {
		return false, nil
	}
	c.left = l.left[string(c.key)]
	now, err := view.Get(ctx, c.key)
	if errors.Is(err, batchlog.ErrNotFound) {
		return c.left != nil, nil
	}
	if err != nil {
		return false, err
	}
	return !same(present(now), c.left), nil
}
