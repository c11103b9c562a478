package simtest

import (
	"context"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/enginetest"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestEngine runs the suite of all engines on local: on the disk, in short runs in memory.
func TestEngine(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, o enginetest.Options) enginetest.Subject {
		t.Helper()
		if o.Crash {
			return subject(t, o, crashfs.New(), "db")
		}
		if testing.Short() {
			return subject(t, o, vfs.NewMem(), "db")
		}
		return subject(t, o, vfs.Default, t.TempDir())
	})
}

// subject is a local database for the suite.
func subject(t *testing.T, o enginetest.Options, fs vfs.FS, dir string) enginetest.Subject {
	t.Helper()
	opts := &local.Options{FS: fs, Now: o.Now, Log: o.Log, CacheBytes: 1 << 20, MemTableBytes: 256 << 10, ChainBytes: 16 << 10, Logger: testLogger(t)}
	db, err := local.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	s := enginetest.Subject{
		DB:   db.DB,
		Hook: db.PreCommit,
		Verify: func(t *testing.T) (problems []string) {
			t.Helper()
			r, err := db.Verify(t.Context(), local.VerifyOptions{})
			if err != nil {
				t.Errorf("verify: %v", err)
			}
			for _, p := range r.Problems {
				problems = append(problems, p.String())
			}
			return problems
		},
		Trim: func(ctx context.Context) error { return db.Trim(ctx) },
		Reopen: func(t *testing.T) *batchlog.DB {
			t.Helper()
			if err := db.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if db, err = local.Open(dir, opts); err != nil {
				t.Fatal(err)
			}
			return db.DB
		},
	}
	if fs, ok := fs.(*crashfs.FS); ok {
		s.Crash = func(t *testing.T) *batchlog.DB {
			t.Helper()
			crashed := *opts
			crashed.FS = fs.CrashClone(vfs.CrashCloneCfg{})
			again, err := local.Open(dir, &crashed)
			if err != nil {
				t.Fatalf("open after a crash: %v", err)
			}
			t.Cleanup(func() {
				if err := again.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			return again.DB
		}
	}
	return s
}
