package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
)

const (
	// largeTries bounds how often a chain is built, where others keep writing between its keys.
	largeTries = 8
	// rangesMax bounds the ranges that a chain depends on.
	rangesMax = 256
	// leftBytesMax bounds the keys that Force leaves, in memory until the commit is there.
	leftBytesMax = 64 << 20
	// groupBytes is how much of the changes is compared at once with what is there.
	groupKeys, groupBytes = 1024, 1 << 20
)

// large takes the changes of a commit back by a chain.
func (u *undoing) large(ctx context.Context, t *target) (batchlog.ID, error) {
	for try := 1; ; try++ {
		id, err := u.tryLarge(ctx, t)
		var conflict *ConflictError
		var refused *batchlog.HookError
		if !errors.Is(err, batchlog.ErrConflict) || errors.As(err, &conflict) || errors.As(err, &refused) || errors.Is(err, errMoved) {
			return id, err
		}
		if try == largeTries {
			return 0, fmt.Errorf("undo of commit %d, after %d tries, as others write between its keys all the time: %w; try again when less is written there", u.id, try, err)
		}
	}
}

func (u *undoing) tryLarge(ctx context.Context, t *target) (_ batchlog.ID, err error) {
	snap, err := u.db.Engine().View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	if err := u.begin(ctx, snap.ID()); err != nil {
		return 0, err
	}
	chain, err := u.db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	chain.Token, chain.Labels, chain.Progress = u.o.Token, u.labels, u.o.Progress

	var w comparison
	reads := &batchlog.Reads{Base: snap.ID()}
	err = t.compare(ctx, snap, func(c *change, same bool) error {
		reads.Ranges = widen(reads.Ranges, c.key)
		if !same {
			return w.leave(c.key, u.o.Force)
		}
		if len(w.left) > 0 && !u.o.Force {
			return nil // the rest is looked through to count the conflicts
		}
		write(chain, c.key, c.old)
		return chain.Err()
	})
	if err != nil {
		return 0, err
	}
	if len(w.left) > 0 && !u.o.Force {
		return 0, u.conflict(ctx, w.left, w.more, snap.ID())
	}
	var id batchlog.ID
	if chain.Len() == 0 {
		id, err = u.empty(ctx)
	} else {
		chain.Depends(reads)
		id, err = chain.Commit(ctx)
	}
	if err == nil {
		u.tell(ctx, w.left, snap.ID())
	}
	return id, err
}

// A comparison collects the keys that don't hold what a commit has left.
type comparison struct {
	left  [][]byte
	more  int // beyond, where only MaxConflicts are named
	bytes int
}

// leave adds a key; all says that all of them are needed.
func (w *comparison) leave(key []byte, all bool) error {
	if !all && len(w.left) == MaxConflicts {
		w.more++
		return nil
	}
	w.left = append(w.left, bytes.Clone(key))
	if w.bytes += len(key) + 24; w.bytes > leftBytesMax {
		return &batchlog.LimitError{What: "keys that Force leaves", Size: int64(w.bytes), Limit: leftBytesMax, Hint: "go back to the commit before with To, and bring back what came since"}
	}
	return nil
}

// widen adds a key, which comes after all before, to ranges: one a space, as others may write between as well, and a chain can't depend on any number of keys.
func widen(ranges []batchlog.KeyRange, key []byte) []batchlog.KeyRange {
	high := append(bytes.Clone(key), 0)
	if n := len(ranges); n > 0 {
		last := &ranges[n-1]
		path, _, err := batchlog.SplitKey(last.Low)
		if n == rangesMax || err == nil && bytes.HasPrefix(key, path) {
			last.High = high
			return ranges
		}
	}
	return append(ranges, batchlog.KeyRange{Low: high[:len(key):len(key)], High: high})
}

// compare visits all changes of the commit, sorted by key, with whether snap still holds what the commit has left. What it is given is valid during the call.
func (t *target) compare(ctx context.Context, snap batchlog.Snapshot, visit func(c *change, same bool) error) (err error) {
	in, err := t.changes(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	var group []change
	for {
		group = group[:0]
		size := 0
		for len(group) < groupKeys && size < groupBytes {
			c, err := in.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			group = append(group, c)
			size += c.size()
		}
		if len(group) == 0 {
			return nil
		}
		if err := compareGroup(ctx, snap, group, visit); err != nil {
			return err
		}
	}
}

// compareGroup is compare for some changes. Mostly the keys of a large commit lie beside one another: then a scan is several times as fast as reading each, and elsewhere it
// asks once. Where there are many others between them it gives up.
func compareGroup(ctx context.Context, snap batchlog.Snapshot, group []change, visit func(c *change, same bool) error) (err error) {
	cursor, err := snap.Scan(ctx, group[0].key, append(bytes.Clone(group[len(group)-1].key), 0), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cursor.Close()) }()
	key, value, err := cursor.Next()
	for others, i := 0, 0; i < len(group); {
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		c := &group[i]
		var has stored
		switch {
		case err == nil && string(key) < string(c.key):
			if others++; others < 2*len(group)+64 {
				key, value, err = cursor.Next()
				continue
			}
			var getErr error
			if has, getErr = heldAt(ctx, snap, c.key); getErr != nil {
				return getErr
			}
		case err == nil && string(key) == string(c.key):
			has = stored{value, true}
		}
		if err := visit(c, has.equal(c.now)); err != nil {
			return err
		}
		i++
	}
	return nil
}

// heldAt is what a key holds in a snapshot.
func heldAt(ctx context.Context, snap batchlog.Snapshot, key []byte) (stored, error) {
	value, err := snap.Get(ctx, key)
	if errors.Is(err, batchlog.ErrNotFound) {
		return stored{}, nil
	}
	return stored{value, true}, err
}
