package main

import (
	"context"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// batchlogPeer writes with [batchlog.DB.Write], which returns when the batch is synced in the log. There is no option for
// anything else.
func batchlogPeer() peer {
	return peer{name: ours, durable: "Write: fdatasync of the log before it returns", open: openBatchlog}
}

func openBatchlog(dir string, _ int) (target, error) {
	db, err := local.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	return &batchlogTarget{db: db}, nil
}

type batchlogTarget struct{ db *local.DB }

// benchSpace has a path of one letter: with a key of 16 bytes and a value of 100 a commit takes 150 bytes, see [commitBytes].
func benchSpace(db *local.DB) *batchlog.Space { return db.Space("a") }

func (t *batchlogTarget) writer(int) writer {
	s := benchSpace(t.db)
	var b batchlog.Batch
	return func(ctx context.Context, ops []op) error {
		b.Reset()
		for _, o := range ops {
			b.Put(s, o.key, o.value)
		}
		_, err := t.db.Write(ctx, &b)
		return err
	}
}

// applied is the id that the store has reached: ids are dense and every batch is one.
func (t *batchlogTarget) applied(ctx context.Context) (uint64, error) {
	return viewID(ctx, t.db, batchlog.Stale())
}

func (t *batchlogTarget) drain(ctx context.Context) (uint64, error) {
	id, err := viewID(ctx, t.db)
	if err != nil {
		return 0, err
	}
	st, err := t.db.Status(ctx)
	if err == nil && (st.Applied < st.Head || uint64(st.Head) != id) {
		err = fmt.Errorf("a held view is at %d when the store is at %d and head at %d", id, st.Applied, st.Head)
	}
	return id, err
}

// viewID is the id of a view: by default held until the store has reached head.
func viewID(ctx context.Context, db *local.DB, opts ...batchlog.ReadOption) (uint64, error) {
	v, err := db.View(ctx, opts...)
	if err != nil {
		return 0, err
	}
	return uint64(v.ID()), v.Close()
}

func (t *batchlogTarget) close() error { return t.db.Close() }
