package undo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// heapGrowth is by how much the heap grows at most while f runs, in bytes.
func heapGrowth(f func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, most := heap(), int64(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				most = max(most, heap()-before)
			}
		}
	})
	f()
	close(stop)
	wg.Wait()
	return most
}

// onDisk is a database with undo whose files are not in memory.
func onDisk(t *testing.T) *local.DB {
	t.Helper()
	db, err := local.Open(t.TempDir(), &local.Options{FS: vfs.Default, CacheBytes: 1 << 20, MemTableBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Configure(t.Context(), batchlog.LogConfig{Undo: true}); err != nil {
		t.Fatal(err)
	}
	return db
}

// fill writes that many keys as one chain.
func fill(t *testing.T, db *local.DB, s *batchlog.Space, keys, size int) batchlog.ID {
	t.Helper()
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rng := rand.NewChaCha8([32]byte{})
	value := make([]byte, size)
	for i := range keys {
		_, _ = rng.Read(value)
		c.Put(s, batchlog.K(i), value)
	}
	id, err := c.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Diff refuses what goes beyond its bound before it holds much more than that.
func TestDiffMemory(t *testing.T) {
	undo.SetDiffBytes(t, 4<<20)
	db := onDisk(t)
	s := db.Space("s")
	first := fill(t, db, s, 20_000, 4<<10)
	var b batchlog.Batch
	b.DeleteRange(s, batchlog.Range{})
	second, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	growth := heapGrowth(func() {
		for _, ids := range [][2]batchlog.ID{{0, first}, {first, second}, {second, first}} {
			_, err := undo.Diff(t.Context(), db.DB, ids[0], ids[1])
			var limit *batchlog.LimitError
			if !errors.As(err, &limit) {
				t.Errorf("from %d to %d: %v", ids[0], ids[1], err)
			}
		}
	})
	if growth > 24<<20 {
		t.Errorf("the heap grew by %d MiB with a bound of 4", growth>>20)
	}
	// What the bound is for is found, and what is left out of the spaces costs nothing.
	if changes, err := undo.Diff(t.Context(), db.DB, first, second, db.Space("other")); err != nil || len(changes) != 0 {
		t.Errorf("%d changes in another space: %v", len(changes), err)
	}
}

// What Show holds does not grow with what the commit has changed, whether it was written as a batch or as a chain.
func TestShowMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	db := onDisk(t)
	s := db.Space("s")
	const keys = 250_000
	show := func(id batchlog.ID) {
		t.Helper()
		if _, err := s.Get(t.Context(), batchlog.K(0)); err != nil && !errors.Is(err, batchlog.ErrNotFound) { // the commit is applied now
			t.Fatal(err)
		}
		n := 0
		growth := heapGrowth(func() {
			for c, err := range undo.Show(t.Context(), db.DB, id) {
				if err != nil {
					t.Fatal(err)
				}
				if !c.Old.Known || c.Old.Exists == c.New.Exists {
					t.Fatalf("%+v", c)
				}
				n++
			}
		})
		if n != keys {
			t.Errorf("%d changes", n)
		}
		if growth > 24<<20 {
			t.Errorf("commit %d: the heap grew by %d MiB", id, growth>>20)
		}
	}
	show(fill(t, db, s, keys, 10))
	var b batchlog.Batch
	b.DeleteRange(s, batchlog.Range{})
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	show(id)
	b.Reset()
	for i := range keys {
		b.Put(s, batchlog.K(fmt.Sprintf("%07d", (i*7919)%keys)), []byte("value"))
	}
	if id, err = db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	show(id)
}

// A chain with more sorted stretches than can be open at once is shown and compared as well.
func TestShowUnsorted(t *testing.T) {
	db := openUndo(t)
	s := db.Space("s")
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const keys = 5000
	for i := range keys {
		c.Put(s, batchlog.K((i*7919)%keys), []byte(fmt.Sprint((i*7919)%keys)))
	}
	id, err := c.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	check := func(c undo.Change) {
		if c.Key.String() != fmt.Sprint(n) || c.Old.Exists || string(c.New.Bytes) != fmt.Sprint(n) {
			t.Fatalf("change %d: %+v", n, c)
		}
		n++
	}
	for c, err := range undo.Show(t.Context(), db.DB, id) {
		if err != nil {
			t.Fatal(err)
		}
		check(c)
	}
	if n != keys {
		t.Errorf("%d changes", n)
	}
	n = 0
	changes, err := undo.Diff(t.Context(), db.DB, 0, id)
	if err != nil || len(changes) != keys {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	for _, c := range changes {
		check(c)
	}
}
