package local_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A waist is an engine that counts what passes it, as an engine elsewhere would have to send it: keys, values, ops, meta, and the ranges of copies.
type waist struct {
	batchlog.Engine
	batchlog.Chainer
	bytes *int
	calls *int
}

func (w waist) pass(parts ...[]byte) {
	*w.calls++
	for _, p := range parts {
		*w.bytes += len(p)
	}
}

func (w waist) Commit(ctx context.Context, p *batchlog.Proposal) (batchlog.ID, error) {
	w.pass(p.Meta, p.Ops)
	return w.Engine.Commit(ctx, p)
}

func (w waist) View(ctx context.Context, o batchlog.ReadOptions) (batchlog.Snapshot, error) {
	return nil, fmt.Errorf("a copy read: %w", batchlog.ErrUnsupported)
}

func (w waist) Log(ctx context.Context, o batchlog.LogOptions) (batchlog.LogReader, error) {
	return nil, fmt.Errorf("a copy followed: %w", batchlog.ErrUnsupported)
}

func (w waist) Chain(ctx context.Context) (batchlog.Stage, error) {
	s, err := w.Chainer.Chain(ctx)
	return waistStage{s, w}, err
}

type waistStage struct {
	batchlog.Stage
	waist
}

func (s waistStage) Add(ctx context.Context, ops []byte, count, blobs int) error {
	s.pass(ops)
	return s.Stage.Add(ctx, ops, count, blobs)
}

func (s waistStage) Copy(ctx context.Context, c batchlog.RangeCopy) error {
	s.pass(c.Low, c.High, c.From, c.To)
	return s.Stage.Copy(ctx, c)
}

func (s waistStage) Revert(ctx context.Context, r batchlog.Revert) error {
	s.pass(r.Low, r.High)
	return s.Stage.Revert(ctx, r)
}

func (s waistStage) Commit(ctx context.Context, p *batchlog.Proposal) (batchlog.ID, error) {
	s.pass(p.Meta, p.Ops)
	return s.Stage.Commit(ctx, p)
}

func (s waistStage) Close() error { return s.Stage.Close() }

func (s waistStage) Progress(report func(batchlog.ChainProgress)) { s.Stage.Progress(report) }

// What passes between front and engine for a copy, a move or a revert is the same whatever the number of keys: an engine elsewhere sends no keys and
// no values.
func TestWaistOfCopies(t *testing.T) {
	passed := func(keys int, work func(db *batchlog.DB, dst, src *batchlog.Space) error) (bytes, calls int) {
		t.Helper()
		db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Log: batchlog.LogConfig{Undo: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var b batchlog.Batch
		for i := range keys {
			b.Put(db.Space("src"), batchlog.K(i), make([]byte, 100))
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		front := batchlog.New(waist{db.Engine(), db.Engine().(batchlog.Chainer), &bytes, &calls})
		if err := work(front, front.Space("dst"), front.Space("src")); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range db.Space("dst").Scan(t.Context(), batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		for _, err := range db.Space("src").Scan(t.Context(), batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != keys && n != 2*keys && n != 0 { // moved, copied, reverted
			t.Errorf("%d keys of %d", n, keys)
		}
		return bytes, calls
	}
	for name, work := range map[string]func(db *batchlog.DB, dst, src *batchlog.Space) error{
		"copy": func(db *batchlog.DB, dst, src *batchlog.Space) error {
			_, err := db.CopyRange(t.Context(), dst, src, batchlog.Range{})
			return err
		},
		"move": func(db *batchlog.DB, dst, src *batchlog.Space) error {
			_, err := db.MoveRange(t.Context(), dst, src, batchlog.Range{})
			return err
		},
		"tree": func(db *batchlog.DB, dst, src *batchlog.Space) error {
			_, err := db.CopyTree(t.Context(), dst, src)
			return err
		},
		"revert": func(db *batchlog.DB, dst, src *batchlog.Space) error {
			c, err := db.Chain(t.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Revert(db.Root(), 0); err != nil {
				return err
			}
			_, err = c.Commit(t.Context())
			return err
		},
	} {
		fewBytes, fewCalls := passed(10, work)
		manyBytes, manyCalls := passed(20_000, work)
		if fewBytes != manyBytes || fewCalls != manyCalls || fewBytes == 0 {
			t.Errorf("%s: %d bytes in %d calls for few keys, %d in %d for many", name, fewBytes, fewCalls, manyBytes, manyCalls)
		}
	}
}
