package local

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A backfill that is broken off anywhere by a loss of power is gone on with by one that has another limit, in a database with other options. What was not
// wanted the first time, and is the second time, is made of a store that does not have the commit yet.
func TestBackfillOtherOptions(t *testing.T) {
	fs := crashfs.New()
	limited := batchlog.LogConfig{Undo: true}
	o := Options{FS: fs, MemTableBytes: 64 << 10, ChainBytes: 16 << 10, InverseBytes: 4 << 10}
	db := mustOpen(t, o)
	put := func(from, to int, size int) {
		t.Helper()
		c, err := db.Chain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := from; i < to; i++ {
			c.Put(db.Space("a"), batchlog.K(i), fmt.Appendf(nil, "%d %0*d", i, size, from))
		}
		if _, err := c.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1000, 40)
	if _, err := db.Space("a").Put(t.Context(), batchlog.K(5), []byte("five")); err != nil {
		t.Fatal(err)
	}
	if err := db.Flush(t.Context()); err != nil { // else undo may be on before they are applied
		t.Fatal(err)
	}
	if err := db.Configure(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	put(3, 900, 50) // its inverse is too large
	if err := db.Configure(t.Context(), batchlog.LogConfig{}); err != nil {
		t.Fatal(err)
	}
	put(10, 1100, 30)
	put(0, 20, 3)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	all := states(t, reopened(t, fs, o))

	for n := int64(1); ; n++ {
		at, crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}), (*crashfs.FS)(nil)
		var ops atomic.Int64
		first := o
		first.FS = errorfs.Wrap(at, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if strings.Contains(op.Path, "undo/") && op.Kind != errorfs.OpFileRead && op.Kind != errorfs.OpFileReadAt && ops.Add(1) == 3*n {
				crashed = at.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
			}
			return nil
		}))
		if err := mustOpen(t, first).Backfill(t.Context(), batchlog.BackfillOptions{Limit: 2 << 10}); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			t.Logf("%d crashes", n-1)
			return
		}
		t.Logf("crash at operation %d", n)
		other := o
		other.MemTableBytes, other.InverseBytes = 64<<10<<(n%11), 0
		again := reopened(t, crashed, other)
		if err := again.Backfill(t.Context(), batchlog.BackfillOptions{Limit: math.MaxInt64}); err != nil {
			t.Fatal(err)
		}
		for id := batchlog.ID(1); int(id) < len(all); id++ {
			mustInvert(t, again, id, all[id-1], all[id])
		}
	}
}

func reopened(t *testing.T, fs vfs.FS, o Options) *DB {
	t.Helper()
	o.FS = fs
	return mustOpen(t, o)
}

// mustOpen opens the database "db", which is closed when the test ends.
func mustOpen(t *testing.T, o Options) *DB {
	t.Helper()
	db, err := Open("db", &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the test has looked at what matters
	return db
}
