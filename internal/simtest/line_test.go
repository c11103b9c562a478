package simtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// lineSizes are how many ops a chain has: one that is committed as a batch, and one that is staged.
var lineSizes = []int{3, 2000}

func lineOpen(t *testing.T, fs vfs.FS, c batchlog.LogConfig) *local.DB {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: fs, ChainBytes: 16 << 10, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Log: c, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func deriveSpace(t *testing.T, db *local.DB, s *batchlog.Space) {
	t.Helper()
	if err := task.Register(t.Context(), db.DB, task.Task{Name: "deriving", Source: []*batchlog.Space{db.Space("source")}, Derives: []*batchlog.Space{s}, Handle: func(context.Context, *task.Window) error { return nil }}); err != nil {
		t.Error(err)
	}
}

// lineWrites are the ways to write value into keys of the spaces.
func lineWrites(db *local.DB, value []byte, spaces ...*batchlog.Space) map[string]func(t *testing.T, token string) (batchlog.ID, error) {
	ways := map[string]func(t *testing.T, token string) (batchlog.ID, error){
		"batch": func(t *testing.T, token string) (batchlog.ID, error) {
			b := batchlog.Batch{Token: token}
			for _, s := range spaces {
				b.Put(s, batchlog.K("k"), value)
			}
			return db.Write(t.Context(), &b)
		},
		"update": func(t *testing.T, token string) (batchlog.ID, error) {
			return db.Update(t.Context(), func(tx *batchlog.Tx) error {
				tx.SetToken(token)
				for _, s := range spaces {
					if _, err := tx.Get(s, batchlog.K("other")); !errors.Is(err, batchlog.ErrNotFound) {
						return fmt.Errorf("other: %w", err)
					}
					tx.Put(s, batchlog.K("k"), value)
				}
				return nil
			})
		},
	}
	for _, n := range lineSizes {
		ways[fmt.Sprint("chain of ", n)] = func(t *testing.T, token string) (batchlog.ID, error) {
			c, err := db.Chain(t.Context())
			if err != nil {
				return 0, err
			}
			defer c.Close()
			c.Token = token
			for _, s := range spaces {
				for i := range n {
					c.Put(s, batchlog.K("fill", i), make([]byte, 100))
				}
				c.Put(s, batchlog.K("k"), value)
			}
			return c.Commit(t.Context())
		}
	}
	return ways
}

// A space that a task begins to derive while a write is in a slow station, user's hooks or the making of blobs, is not written by it: who may write where is
// looked at last.
func TestPermitComesLast(t *testing.T) {
	for _, station := range []string{"hook", "blob"} {
		for way := range lineWrites(nil, nil) {
			t.Run(station+" of "+way, func(t *testing.T) {
				var slow func()
				fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
					if slow != nil && station == "blob" && op.Kind == errorfs.OpFileSync && strings.Contains(op.Path, "/blobs/") {
						slow()
					}
					return nil
				}))
				db := lineOpen(t, fs, batchlog.LogConfig{BlobBytes: 2000})
				s, d := db.Space("s"), db.Space("d")
				slow = sync.OnceFunc(func() { deriveSpace(t, db, d) })
				if station == "hook" {
					db.PreCommit(s, func(*batchlog.Tx, []batchlog.Op) error {
						slow()
						return nil
					})
				}
				id, err := lineWrites(db, make([]byte, 5000), d, s)[way](t, "")
				if !errors.Is(err, batchlog.ErrPermission) {
					t.Errorf("commit %d, %v; want ErrPermission", id, err)
				}
				for _, s := range []*batchlog.Space{s, d} {
					if _, err := s.Get(t.Context(), batchlog.K("k"), batchlog.Stale()); !errors.Is(err, batchlog.ErrNotFound) {
						t.Errorf("%s is written: %v", s, err)
					}
				}
			})
		}
	}
}

// What was committed with a token is that commit when it is tried again, though a task alone writes there by now. A chain is told so before, when its ops are
// added, which have no token yet.
func TestTokenAnswersRefusals(t *testing.T) {
	for _, way := range []string{"batch", "update"} {
		t.Run(way, func(t *testing.T) {
			db := lineOpen(t, vfs.NewMem(), batchlog.LogConfig{})
			d := db.Space("d")
			write := lineWrites(db, []byte("v"), d)[way]
			first, err := write(t, "token")
			if err != nil {
				t.Fatal(err)
			}
			deriveSpace(t, db, d)
			if id, err := write(t, "token"); err != nil || id != first {
				t.Errorf("tried again: commit %d, %v; want %d", id, err, first)
			}
			if _, err := write(t, "another"); !errors.Is(err, batchlog.ErrPermission) {
				t.Errorf("another: %v", err)
			}
		})
	}
}
