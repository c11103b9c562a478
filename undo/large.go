package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A commit that has changed too much for a transaction is taken back by a chain, into which its inverse is streamed. Three sorted streams are gone through side by side: what the
// commit has overwritten, what it has left, and what is there now. So memory is bounded, whatever was written since, and wherever.

const (
	// largeTries is how often a chain that loses to other commits is made.
	largeTries = 8
	// leftMax bounds the keys that Force leaves, which are in memory until the commit is made.
	leftMax = 100_000
	// groupKeys and groupBytes are up to how much is compared at once with what is there.
	groupKeys, groupBytes = 1024, 1 << 20
)

// undoLarge takes the commit back by a chain.
func (t *taking) undoLarge(ctx context.Context, o Options, labels map[string]string) (batchlog.ID, error) {
	for try := 1; ; try++ {
		id, err := t.tryLarge(ctx, o, labels)
		conflict, refused := (*ConflictError)(nil), (*batchlog.HookError)(nil)
		if err == nil || !errors.Is(err, batchlog.ErrConflict) || errors.As(err, &conflict) || errors.As(err, &refused) {
			return id, err
		}
		if try == largeTries {
			return 0, fmt.Errorf("lost to other commits %d times: %w", try, err)
		}
	}
}

func (t *taking) tryLarge(ctx context.Context, o Options, labels map[string]string) (id batchlog.ID, err error) {
	view, err := t.db.Inside().Engine().View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	if err := t.check(ctx, view.ID()); err != nil {
		return 0, err
	}
	c, err := t.db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token, c.Labels, c.Progress = o.Token, labels, o.Progress
	var left tally
	var reads reads
	taken := false
	err = t.eachCompared(ctx, view, func(ch *change, same bool) error {
		if err := reads.add(ch.key); err != nil {
			return err
		}
		if !same {
			return left.add(ch, o.Force)
		}
		if taken = true; len(left.conflicts) > 0 && !o.Force {
			return nil // it will be refused: the rest is gone through for the conflicts
		}
		putBack(c.Inside(), *ch)
		return c.Err()
	})
	if err != nil {
		return 0, err
	}
	if !taken || len(left.conflicts) > 0 && !o.Force {
		return 0, t.conflictError(ctx, view.ID(), left.conflicts, left.more)
	}
	c.Inside().Depends(reads.since(view.ID()))
	if id, err = c.Commit(ctx); err != nil || len(left.conflicts) == 0 || o.Left == nil {
		return id, err
	}
	return id, t.tellLeft(ctx, id, view.ID(), left.conflicts, o.Left)
}

// A tally is of conflicts.
type tally struct {
	conflicts []change // only the keys are set
	more      int      // that are not among them
}

// add adds a conflict; all says that it must be among those that are named.
func (l *tally) add(c *change, all bool) error {
	switch n := len(l.conflicts); {
	case n >= leftMax && all:
		return &batchlog.LimitError{What: "keys that Force leaves", Size: leftMax + 1, Limit: leftMax, Hint: "bring back an earlier state with To"}
	case n >= conflictsMax && !all:
		l.more++
	default:
		l.conflicts = append(l.conflicts, change{key: bytes.Clone(c.key)})
	}
	return nil
}

// reads is what a chain depends on: its keys, which come in order. If these are too many it is ranges around them, one a space as long as spaces are few: then it loses
// also to those who write between the keys.
type reads struct {
	keys  [][]byte // nil and many: not kept
	bytes int
	many  bool
	spans []wire.KeyRange
}

// readsBytes and readsKeys are up to how many keys a chain depends on these alone. Whoever validates them holds them in memory, too.
const readsBytes, readsKeys = 32 << 20, 500_000

func (r *reads) add(key []byte) error {
	path, _, err := wire.SplitKey(key)
	if err != nil {
		return err
	}
	high := append(bytes.Clone(key), 0)
	if r.bytes += len(high); r.bytes > readsBytes || len(r.keys) >= readsKeys {
		r.keys, r.many = nil, true
	}
	if !r.many {
		r.keys = append(r.keys, high[:len(key):len(key)])
	}
	if n := len(r.spans); n > 0 && (bytes.HasPrefix(r.spans[n-1].Low, path) || n == wire.ChainSpansMax) {
		r.spans[n-1].High = high
		return nil
	}
	r.spans = append(r.spans, wire.KeyRange{Low: high[:len(key):len(key)], High: high})
	return nil
}

// since is what was read in the view of commit base.
func (r *reads) since(base batchlog.ID) *waist.Reads {
	if r.many {
		return &waist.Reads{Base: base, Ranges: r.spans}
	}
	return &waist.Reads{Base: base, Keys: r.keys}
}

// eachCompared visits all that the commit has changed, in the order of keys, with whether view still holds what it has left.
func (t *taking) eachCompared(ctx context.Context, view waist.Snapshot, visit func(c *change, same bool) error) (err error) {
	record, err := recordAt(ctx, t.db, t.id)
	if err != nil {
		return err
	}
	ops, err := openOps(ctx, record)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ops.Close()) }()
	var group []change
	size := 0
	err = eachInverse(ctx, t.db, t.id, func(key, old []byte) error {
		left, _, err := ops.at(key)
		if err != nil {
			return err
		}
		group = append(group, change{key, old, left})
		if size += len(key) + len(old) + len(left); len(group) < groupKeys && size < groupBytes {
			return nil
		}
		err = compareGroup(ctx, view, group, visit)
		group, size = group[:0], 0
		return err
	})
	if err == nil && len(group) > 0 {
		err = compareGroup(ctx, view, group, visit)
	}
	return err
}

// compareGroup is eachCompared for some changes. Mostly the keys of a large commit lie beside one another: then a scan is several times as fast as reading each, and
// asks an engine elsewhere but once. Where there are many others between them it gives up.
func compareGroup(ctx context.Context, view waist.Snapshot, group []change, visit func(c *change, same bool) error) (err error) {
	if err := ended(ctx); err != nil {
		return err
	}
	cursor, err := view.Scan(ctx, group[0].key, append(bytes.Clone(group[len(group)-1].key), 0), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cursor.Close()) }()
	key, value, err := cursor.Next()
	others := 0
	for i := range group {
		c := &group[i]
		for err == nil && bytes.Compare(key, c.key) < 0 && others < 2*len(group)+64 {
			key, value, err = cursor.Next()
			others++
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		var now []byte
		if err == nil && bytes.Equal(key, c.key) {
			now = present(value)
		} else if err == nil && bytes.Compare(key, c.key) < 0 {
			var gerr error
			if now, gerr = view.Get(ctx, c.key); gerr == nil {
				now = present(now)
			} else if !errors.Is(gerr, batchlog.ErrNotFound) {
				return gerr
			}
		}
		if err := visit(c, same(now, c.left)); err != nil {
			return err
		}
	}
	return nil
}

// recordAt is a commit that is in the log, as the engine has it.
func recordAt(ctx context.Context, db *batchlog.DB, id batchlog.ID) (*wire.Record, error) {
	r, err := db.Inside().Engine().Log(ctx, batchlog.LogOptions{From: batchlog.At(id), Until: id})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		if len(records) > 0 {
			return &slices.Clone(records)[0], nil
		}
		if err != nil {
			return nil, err
		}
	}
}
