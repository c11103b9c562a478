package main

import (
	"context"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// bboltUpdatePeer writes with DB.Update, one writer at a time, two fdatasyncs each. Options.NoSync, which would leave them out,
// is off by default.
func bboltUpdatePeer() peer {
	return peer{name: "bbolt-update", durable: "Update, Options.NoSync off", slow: true, open: func(dir string, _ int) (target, error) {
		return openBolt(dir, (*bbolt.DB).Update)
	}}
}

// bboltBatchPeer writes with DB.Batch, which waits up to 10 ms for other writers to share the syncs with.
func bboltBatchPeer() peer {
	return peer{name: "bbolt-batch", durable: "Batch, Options.NoSync off", slow: true, open: func(dir string, _ int) (target, error) {
		return openBolt(dir, (*bbolt.DB).Batch)
	}}
}

type boltTarget struct {
	db     *bbolt.DB
	update func(*bbolt.DB, func(*bbolt.Tx) error) error
}

var boltBucket = []byte("a")

func openBolt(dir string, update func(*bbolt.DB, func(*bbolt.Tx) error) error) (target, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt.db"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return &boltTarget{db: db, update: update}, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(boltBucket)
		return err
	})
}

func (t *boltTarget) writer(int) writer {
	return func(_ context.Context, ops []op) error {
		return t.update(t.db, func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(boltBucket)
			for _, o := range ops {
				// The page keeps the value until the transaction ends, which is before Update returns; the key it copies.
				if err := bucket.Put(o.key, o.value); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (t *boltTarget) close() error { return t.db.Close() }
