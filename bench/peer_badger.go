package main

import (
	"context"

	"github.com/dgraph-io/badger/v4"
)

// badgerPeer writes with Options.SyncWrites, which is off by default: a transaction's Commit returns after the log of the
// memtable was synced (msync).
func badgerPeer() peer {
	return peer{name: "badger", durable: "Update with Options.SyncWrites", slow: true, open: func(dir string, _ int) (target, error) {
		db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithLogger(nil))
		if err != nil {
			return nil, err
		}
		return &badgerTarget{db: db}, nil
	}}
}

type badgerTarget struct{ db *badger.DB }

func (t *badgerTarget) writer(int) writer {
	return func(_ context.Context, ops []op) error {
		return t.db.Update(func(tx *badger.Txn) error {
			for _, o := range ops {
				if err := tx.Set(o.key, o.value); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (t *badgerTarget) close() error { return t.db.Close() }
