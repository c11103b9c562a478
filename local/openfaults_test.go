package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// An Open that fails, whatever operation of the disk it was that failed, leaves no goroutine and no files that heap up, and the next one finds everything.
func TestOpenFails(t *testing.T) {
	for _, kind := range []struct {
		name string
		err  error
		hits func(op errorfs.Op) bool
	}{
		{"full", syscall.ENOSPC, needsSpace},
		{"broken", syscall.EIO, func(errorfs.Op) bool { return true }},
		{"full for good", syscall.ENOSPC, needsSpace},
		{"broken for good", syscall.EIO, func(errorfs.Op) bool { return true }},
	} {
		if testing.Short() && strings.HasSuffix(kind.name, "good") {
			continue
		}
		for _, state := range []string{"closed", "killed", "new"} {
			t.Run(kind.name+", "+state, func(t *testing.T) {
				for k := int64(1); ; k++ {
					if !openFails(t, kind.err, kind.hits, k, strings.HasSuffix(kind.name, "good"), state) {
						t.Logf("%d operations", k-1)
						return
					}
				}
			})
		}
	}
}

func needsSpace(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpLink, errorfs.OpMkdirAll:
		return true
	}
	return false
}

// openFails opens a database while its k-th operation fails, and those after it if so from then on. It reports whether there were so many.
func openFails(t *testing.T, fault error, hits func(op errorfs.Op) bool, k int64, on bool, state string) bool {
	t.Helper()
	mem, fresh := vfs.NewCrashableMem(), state == "new"
	o := Options{FS: mem, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}}
	want := 0
	if !fresh {
		want = 30
		db := openAt(t, &o)
		for i := range want {
			if _, err := db.Root().Put(t.Context(), batchlog.K(i), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if state == "killed" {
			killed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
			check(t, db.Close())
			mem, o.FS = killed, killed
		} else {
			check(t, db.Close())
		}
	}
	before, files := runtime.NumGoroutine(), len(tree(t, mem, "/"))
	var n atomic.Int64
	hit, what := false, ""
	failing := o
	failing.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !hits(op) {
			return nil
		}
		if at := n.Add(1); at == k || on && at > k {
			hit = true
			if !on {
				what = fmt.Sprintf("%d %s", op.Kind, op.Path)
			}
			return fault
		}
		return nil
	}))
	const times = 3
	for range times {
		n.Store(0)
		db, err := Open("/db", &failing)
		if err == nil {
			_ = db.Close() // what it writes may fail
		} else if kind := (*batchlog.LockError)(nil); errors.As(err, &kind) {
			t.Fatalf("operation %d fails: %v", k, err)
		}
		if err != nil && errors.Is(fault, syscall.ENOSPC) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, batchlog.ErrNoSpace) {
			t.Errorf("operation %d fails for want of space: %v", k, err)
		}
	}
	failing.FS = nil
	for began := time.Now(); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			buf := make([]byte, 1<<20)
			t.Fatalf("operation %d (%s) failed: %d goroutines, %d before\n%s", k, what, runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
	if after := tree(t, mem, "/"); !fresh && len(after) > files+times+3 {
		t.Errorf("operation %d failed %d times: %d files, %d before: %q", k, times, len(after), files, after)
	}
	db := openAt(t, &o)
	for i := range want {
		if v, err := db.Root().Get(t.Context(), batchlog.K(i)); err != nil || len(v) != 1000 {
			t.Fatalf("operation %d failed: key %d: %v", k, i, err)
		}
	}
	if _, err := db.Root().Put(t.Context(), batchlog.K("more"), nil); err != nil {
		t.Errorf("operation %d failed: %v", k, err)
	}
	check(t, db.Close())
	if after := tree(t, mem, "/"); !fresh && len(after) > files+5 {
		t.Errorf("operation %d failed: %d files after a good open, %d before: %q", k, len(after), files, after)
	}
	return hit
}

func openAt(t *testing.T, o *Options) *DB {
	t.Helper()
	db, err := Open("/db", o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree is all files in a directory and those within.
func tree(t *testing.T, fs vfs.FS, dir string) (files []string) {
	t.Helper()
	names, err := fs.List(dir)
	check(t, err)
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := fs.Stat(path)
		check(t, err)
		if info.IsDir() {
			files = append(files, tree(t, fs, path)...)
		} else {
			files = append(files, path)
		}
	}
	return files
}

// A lock that can't be taken for another reason than that somebody has it is told as that.
func TestLockIsNoFile(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, lockName), 0o755))
	_, err := Open(dir, nil)
	if lock := (*batchlog.LockError)(nil); err == nil || errors.As(err, &lock) || !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a directory in the place of the lock: %v", err)
	}
	dir = t.TempDir()
	db, err := Open(dir, nil)
	check(t, err)
	_, err = Open(dir, nil)
	if lock := (*batchlog.LockError)(nil); !errors.As(err, &lock) {
		t.Errorf("opened twice: %v", err)
	}
	check(t, db.Close())
}
