package local_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A chain that loses all the time by what its hooks read is tried as often as a batch is, and no more.
func TestChainHookLosesAlways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), ChainBytes: 16 << 10, MemTableBytes: 64 << 10, CacheBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s, hot := db.Space("s"), db.Space("hot")
		tries := 0
		db.PreCommit(s, func(tx *batchlog.Tx, _ []batchlog.Op) error {
			tries++
			if _, err := tx.Get(hot, batchlog.K("k")); err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			_, err := hot.Put(context.WithoutCancel(t.Context()), batchlog.K("k"), nil) // waits for itself, and comes before itself
			return err
		})
		c, err := db.Chain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 2000 {
			c.Put(s, batchlog.K(i), make([]byte, 20))
		}
		_, err = c.Commit(t.Context())
		var lost *batchlog.ConflictError
		if !errors.As(err, &lost) || lost.Tries != tries || tries > batchlog.MaxTries {
			t.Errorf("%d tries: %v", tries, err)
		}
	})
}
