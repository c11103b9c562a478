package store

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// The cache of blocks is as large as it was asked for beside all memtables that there may be, and not much larger while little is written.
func TestCacheBytes(t *testing.T) {
	const cacheBytes, memTableBytes = 8 << 20, 2 << 20
	mem := vfs.NewMem()
	full := &fault{kind: space, err: syscall.ENOSPC}
	o := testOptions(errorfs.Wrap(mem, full), 0)
	o.CacheBytes, o.MemTableBytes = cacheBytes, memTableBytes
	opened := func() *Store {
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	const count, size = 24, 1 << 20
	pass := func(s *Store) int64 {
		for i := range count * 16 {
			if v, err := s.Get(fmt.Appendf(nil, "%sk%04d", keyPrefix, i)); err != nil || len(v) != size/16 {
				t.Fatal(len(v), err)
			}
		}
		return s.Status().CacheBytes
	}
	read := func(s *Store) (most int64) { // a compaction may take out at any moment what it has replaced
		for range 4 {
			most = max(most, pass(s))
		}
		return most
	}
	s := opened()
	for i := range batchlog.ID(count) {
		r := wire.Record{ID: i + 1, Count: 16}
		for n := range 16 {
			r.Ops = wire.AppendOp(r.Ops, batchlog.OpPut, fmt.Appendf(nil, "%sk%04d", keyPrefix, int(i)*16+n), make([]byte, size/16))
		}
		apply(t, s, r)
	}
	flush(t, s)
	if got := read(s); got < cacheBytes*3/4 {
		t.Errorf("%d bytes of cache after writing, want %d", got, cacheBytes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = opened()
	if got := read(s); got > cacheBytes+firstMemTables || got < cacheBytes*3/4 {
		t.Errorf("%d bytes of cache without a write, want %d", got, cacheBytes)
	}
	full.on.Store(true)
	go func() { // it waits when all memtables are full
		for id := s.Applied() + 1; ; id++ {
			r := wire.Record{ID: id, Count: 1, Ops: wire.AppendOp(nil, batchlog.OpPut, []byte(counterKey), make([]byte, 10_000))}
			if s.Apply([]wire.Record{r}) != nil {
				return
			}
		}
	}()
	last := batchlog.ID(0)
	eventually(t, "all memtables are full", func() bool {
		before := last
		time.Sleep(50 * time.Millisecond)
		last = s.Applied()
		return before == last && s.NoSpace()
	})
	for i := range count * 16 { // the status is not renewed while the disk is full
		if _, err := s.Get(fmt.Appendf(nil, "%sk%04d", keyPrefix, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.memory.cache.Size(); got < cacheBytes*3/4 {
		t.Errorf("%d bytes of cache beside full memtables, want %d", got, cacheBytes)
	}
	full.on.Store(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
