package local

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// A backfill that waits for space on a full disk ends when others wait as well: it holds the log, which must go to make room. What it has made stays.
func TestBackfillOnFullDisk(t *testing.T) {
	disk := newSmallDisk(64 << 20)
	var now atomic.Int64
	now.Store(1e9)
	c := batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour}
	o := Options{FS: disk, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Log: c, Now: func() time.Time { return time.Unix(now.Load(), 0) }}
	db := openAt(t, &o)
	defer func() { _ = db.Close() }()
	rng := rand.NewChaCha8([32]byte{1})
	put := func() error {
		value := make([]byte, 4000)
		_, _ = rng.Read(value)
		_, err := db.Root().Put(t.Context(), batchlog.K(int(value[0])%4), value)
		return err
	}
	for range 1500 {
		check(t, put())
	}
	c.Undo = true
	check(t, db.Configure(t.Context(), c))
	disk.mu.Lock()
	disk.total = disk.used + 2<<20
	disk.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	filled := make(chan error, 1)
	go func() { filled <- db.Backfill(ctx, batchlog.BackfillOptions{}) }()
	for began := time.Now(); db.engine.backfill.hold.Load() != 1 || disk.free() > 64<<10; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("the disk did not get full: %d bytes are free", disk.free())
		}
	}
	now.Add(7200)
	good := 0
	for began := time.Now(); good < 100; {
		err := put()
		switch {
		case err == nil:
			good++
		case !errors.Is(err, batchlog.ErrNoSpace):
			t.Fatal(err)
		case time.Since(began) > 20*time.Second:
			t.Fatalf("after %d commits: %v; the backfill holds the log up to %d, oldest %d", good, err, db.engine.backfill.hold.Load(), db.engine.log.Oldest())
		default:
			time.Sleep(time.Millisecond)
		}
	}
	if err := <-filled; !errors.Is(err, batchlog.ErrNoSpace) {
		t.Errorf("the backfill: %v", err)
	}
}
