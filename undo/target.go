package undo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
)

// Up to these a commit is taken back in memory, as a transaction; above, as a chain. They are variables for tests.
var (
	smallKeys  = 100_000
	smallBytes = 16 << 20
)

// A target is a commit of the log that is looked at or taken back.
type target struct {
	db     *batchlog.DB
	record batchlog.Record
}

// load finds commit id in the log.
func load(ctx context.Context, db *batchlog.DB, id batchlog.ID) (*target, error) {
	head, err := db.Head(ctx)
	if err != nil {
		return nil, err
	}
	if id == 0 || id > head {
		return nil, fmt.Errorf("commit %d of 1 to %d: %w", id, head, batchlog.ErrNotFound)
	}
	r, err := db.Engine().Log(ctx, batchlog.LogOptions{From: batchlog.At(id), Until: id})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		if len(records) > 0 {
			return &target{db: db, record: records[0]}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("commit %d: %w", id, err)
		}
	}
}

// bytes is the size of the ops, encoded.
func (t *target) bytes() int64 {
	n := int64(len(t.record.Ops))
	if t.record.Chain != nil {
		n += t.record.Chain.Bytes
	}
	return n
}

// A change is what a commit did to a key.
type change struct {
	key      []byte
	old, now stored // before the commit, and after
}

func (c *change) size() int { return len(c.key) + len(c.old.value) + len(c.now.value) }

// collect is all changes, sorted by key, if they fit into memory.
func (t *target) collect(ctx context.Context) (_ []change, fits bool, err error) {
	if t.record.Count > smallKeys || t.bytes() > int64(smallBytes) {
		return nil, false, nil
	}
	changes, err := t.changes(ctx)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, changes.Close()) }()
	var list []change
	size := 0
	for {
		c, err := changes.next()
		if errors.Is(err, io.EOF) {
			return list, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		list = append(list, c)
		if size += c.size(); len(list) > smallKeys || size > smallBytes {
			return nil, false, nil
		}
	}
}

// changes are those of a commit, sorted by key: what its inverse and its ops say, side by side.
type changes struct {
	inverse inverse
	ops     *ops
}

// changes begins to read what the commit changed. Close it.
func (t *target) changes(ctx context.Context) (*changes, error) {
	in, err := t.db.Inverse(ctx, t.record.ID)
	if err != nil {
		return nil, err
	}
	o, err := openOps(ctx, &t.record)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return &changes{inverse: inverse{ctx: ctx, in: in}, ops: o}, nil
}

// next is the next change, or io.EOF. It stays valid.
func (c *changes) next() (change, error) {
	key, old, err := c.inverse.next()
	if err != nil {
		return change{}, err
	}
	now, _, err := c.ops.at(key)
	return change{key, old, now}, err
}

func (c *changes) Close() error { return errors.Join(c.inverse.in.Close(), c.ops.Close()) }

// An inverse is read key by key.
type inverse struct {
	ctx  context.Context //nolint:containedctx // of one call
	in   batchlog.OpReader
	rest []byte
	left int
}

func (r *inverse) next() (key []byte, old stored, err error) {
	for r.left == 0 {
		if err := ended(r.ctx); err != nil {
			return nil, stored{}, err
		}
		if r.rest, r.left, err = r.in.Next(); err != nil {
			return nil, stored{}, err
		}
	}
	kind, key, value, rest, err := batchlog.NextOp(r.rest)
	r.rest, r.left = rest, r.left-1
	return key, stored{value, kind == batchlog.OpPut}, err
}

// findToken is the commit with that token from id on, or 0.
func findToken(ctx context.Context, db *batchlog.DB, id batchlog.ID, token string) (batchlog.ID, error) {
	head, err := db.Head(ctx)
	if err != nil || id > head {
		return 0, err
	}
	r, err := db.Engine().Log(ctx, batchlog.LogOptions{From: batchlog.At(id), Until: head, Brief: true})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		for i := range records {
			if records[i].Token() == token {
				return records[i].ID, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
