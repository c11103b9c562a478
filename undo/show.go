package undo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/bytespace/batchlog"
)

// Show yields what commit id has changed, sorted by space and key: each key whose value is another since, once, with the old value and the new. Keys of the system are not among them.
//
// Where the inverse of the commit is not there it yields what the commit wrote: whether that changed anything is open then. Old is Unknown, and of a range delete only the range is
// told, before the keys in it. Memory is bounded whatever the size of the commit; what is yielded stays valid. Errors: [batchlog.ErrNotFound] if
// there is no such commit, [*batchlog.GapError] if the log no longer has it.
func Show(ctx context.Context, db *batchlog.DB, id batchlog.ID) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		t, err := load(ctx, db, id)
		if err == nil {
			err = t.show(ctx, yield)
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(nil, err)
		}
	}
}

func (t *target) show(ctx context.Context, yield func(*Change, error) bool) (err error) {
	in, err := t.changes(ctx)
	if errors.Is(err, batchlog.ErrNoInverse) {
		return t.showWritten(ctx, yield)
	}
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
		out, err := changeOf(t.db, t.record.ID, c)
		if err != nil {
			return err
		}
		if !yield(out, nil) {
			return errEnough
		}
	}
}

// changeOf is c for those who use the package.
func changeOf(db *batchlog.DB, id batchlog.ID, c change) (_ *Change, err error) {
	out := &Change{ID: id}
	if out.Space, out.Key, err = db.SplitStored(c.key); err == nil {
		out.Old, err = c.old.decode()
	}
	if err == nil {
		out.New, err = c.now.decode()
	}
	if err != nil {
		return nil, fmt.Errorf("commit %d: %w", id, err)
	}
	return out, nil
}

// showWritten is show without an inverse.
func (t *target) showWritten(ctx context.Context, yield func(*Change, error) bool) (err error) {
	o, err := openOps(ctx, &t.record)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	root := t.db.Root().Stored()[0]
	for {
		kind, key, high, err := o.next()
		if err != nil {
			return err
		}
		if key == nil {
			return nil
		}
		if key[0] != root {
			continue
		}
		c := change{key: key}
		if kind == batchlog.OpPut {
			c.now = stored{high, true}
		}
		out, err := changeOf(t.db, t.record.ID, c)
		if err != nil {
			return err
		}
		out.Old.Unknown = true
		if kind == batchlog.OpDeleteRange {
			out.Range = true
			if path := out.Space.Stored(); len(high) >= len(path) && string(high[:len(path)]) == string(path) {
				out.High = high[len(path):]
			}
		}
		if !yield(out, nil) {
			return errEnough
		}
	}
}

// next is the net effect of the ops, one by one, sorted by key, ranges before the keys in them; key is nil at the end. It is used instead of at.
func (o *ops) next() (kind batchlog.OpKind, key, value []byte, err error) {
	first := -1
	for i, s := range o.sources {
		k, at, v, err := s.peek()
		if err != nil {
			return 0, nil, nil, err
		}
		if at == nil {
			continue
		}
		ranged := k == batchlog.OpDeleteRange && kind != batchlog.OpDeleteRange
		if first < 0 || string(at) < string(key) || string(at) == string(key) && ranged {
			first, kind, key, value = i, k, at, v
		}
	}
	if first < 0 {
		return 0, nil, nil, nil
	}
	if kind == batchlog.OpDeleteRange {
		return kind, key, value, o.sources[first].skip()
	}
	var net stored
	for _, s := range o.sources { // all of them go on behind key, and the last one that says something about it wins
		v, ok, err := s.at(key)
		if err != nil {
			return 0, nil, nil, err
		}
		if ok {
			net = v
		}
	}
	if net.has {
		return batchlog.OpPut, key, net.value, nil
	}
	return batchlog.OpDelete, key, nil, nil
}
