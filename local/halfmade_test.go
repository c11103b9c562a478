package local

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// What a process that was killed, or that failed, has left half made is made durable by the next one: all that either acknowledged is there after a loss of power.
func TestHalfMadeAndPowerLost(t *testing.T) {
	for _, kind := range []struct {
		name string
		on   bool // all operations after the first that fails do
		log  batchlog.LogConfig
	}{
		{"killed", true, batchlog.LogConfig{}},
		{"failed", false, batchlog.LogConfig{}},
		{"killed, other disks", true, batchlog.LogConfig{Dirs: []string{"/a/one", "/b/two"}}},
		{"failed, other disks", false, batchlog.LogConfig{Dirs: []string{"/a/one", "/b/two"}}},
		{"killed, warm", true, batchlog.LogConfig{Undo: true, HotTTL: time.Minute, Warm: []string{"/c/three", "/d/four"}}},
		{"failed, warm", false, batchlog.LogConfig{Undo: true, HotTTL: time.Minute, Warm: []string{"/c/three", "/d/four"}}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			for k := int64(1); halfMade(t, kind.log, k, kind.on); k++ {
				if k > 130 || testing.Short() { // what comes after the opening is much the same
					k += 5
				}
			}
		})
	}
}

// halfMade has the k-th operation of a process fail that makes a database and begins some segments. It reports whether there were so many.
func halfMade(t *testing.T, log batchlog.LogConfig, k int64, on bool) bool {
	t.Helper()
	mem := vfs.NewCrashableMem()
	log.SegmentBytes = batchlog.MinSegmentBytes
	var now atomic.Int64
	now.Store(1e9)
	o := Options{FS: mem, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Log: log, Now: func() time.Time { return time.Unix(now.Load(), 0) }}
	var n atomic.Int64
	var what atomic.Pointer[string]
	failing := o
	failing.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if at := n.Add(1); at == k || on && at > k {
			if at == k {
				text := fmt.Sprintf("operation %d (%d %s)", k, op.Kind, op.Path)
				what.Store(&text)
			}
			return syscall.EIO
		}
		return nil
	}))
	acknowledged := map[int]bool{}
	put := func(db *DB, first, count int) (failed error) {
		for i := first; i < first+count; i++ {
			if _, err := db.Root().Put(t.Context(), batchlog.K(i), make([]byte, 4000)); err == nil {
				acknowledged[i] = true
			} else {
				failed = err
			}
			if i%10 == 9 {
				now.Add(3600)
				_ = db.Trim(t.Context()) // moves to warm directories what there is
			}
		}
		return failed
	}
	const commits = 30
	if db, err := Open("/db", &failing); err == nil {
		_ = put(db, 0, commits)
		_ = db.Close()
	}
	if what.Load() == nil {
		return false
	}
	db := openAt(t, &o)
	if err := put(db, commits, int(k)%commits+1); err != nil {
		t.Fatalf("%s failed: %v", *what.Load(), err)
	}
	o.FS = mem.CrashClone(vfs.CrashCloneCfg{RNG: rand.New(rand.NewPCG(1, 2))})
	check(t, db.Close())
	db, err := Open("/db", &o)
	if err != nil {
		t.Errorf("%s failed, then power: %v", *what.Load(), err)
		return true
	}
	for i := range acknowledged {
		if v, err := db.Root().Get(t.Context(), batchlog.K(i)); err != nil || len(v) != 4000 {
			t.Errorf("%s failed, then power: key %d: %v", *what.Load(), i, err)
			break
		}
	}
	r, err := db.Verify(t.Context(), VerifyOptions{})
	if err != nil || len(r.Problems) > 0 {
		t.Errorf("%s failed, then power: %v, %v", *what.Load(), err, r.Problems)
	}
	check(t, db.Close())
	return true
}
