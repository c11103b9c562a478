package local

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A sweepRun is a random program of what refers to blobs and what lets go of them.
type sweepRun struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	fs   *crashfs.FS
	now  time.Time
	db   *DB
	s    *batchlog.Space

	keys    map[int]int // what each key has: the number of a content
	views   []heldView
	chain   *batchlog.Chain
	staged  map[int]int
	removed int64
}

type heldView struct {
	view *batchlog.View
	keys map[int]int
}

// content is a value that is large enough to be a blob.
func content(n int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%06d ", n)), 400) }

func (r *sweepRun) open() {
	r.t.Helper()
	db, err := Open("db", &Options{
		FS: r.fs, Now: func() time.Time { return r.now }, MemTableBytes: 64 << 10, CacheBytes: 1 << 20, ChainBytes: 64 << 10,
		Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, BlobBytes: 1024, Undo: r.seed%2 == 0},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.db, r.s = db, db.Space("s")
}

func (r *sweepRun) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("seed %d: %v", r.seed, err)
	}
}

// write writes. A store that is being compacted without its ballast may refuse for a moment.
func (r *sweepRun) write(f func() error) {
	r.t.Helper()
	for began := time.Now(); ; {
		err := f()
		if !errors.Is(err, batchlog.ErrNoSpace) || time.Since(began) > 10*time.Second {
			r.must(err)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *sweepRun) key() int { return r.rng.IntN(12) }

func (r *sweepRun) step(i int) {
	r.t.Helper()
	ctx := r.t.Context()
	switch n := r.rng.IntN(30); {
	case n < 6: // a value that becomes a blob; the contents are few, so that they die and come back
		k, v := r.key(), r.rng.IntN(8)
		r.write(func() error { _, err := r.s.Put(ctx, batchlog.K(k), content(v)); return err })
		r.keys[k] = v
	case n < 8:
		k, v := r.key(), r.rng.IntN(8)
		r.write(func() error { _, err := r.s.PutBlob(ctx, batchlog.K(k), bytes.NewReader(content(v))); return err })
		r.keys[k] = v
	case n < 11:
		k := r.key()
		r.write(func() error { _, err := r.s.Delete(ctx, batchlog.K(k)); return err })
		delete(r.keys, k)
	case n < 13: // a reference, as it is found
		from, to := r.key(), r.key()
		b, err := r.s.Blob(ctx, batchlog.K(from))
		if errors.Is(err, batchlog.ErrNotFound) {
			return
		}
		r.must(err)
		ref, ok := b.Ref()
		r.must(b.Close())
		if ok {
			var batch batchlog.Batch
			batch.PutRef(r.s, batchlog.K(to), ref)
			r.write(func() error { _, err := r.db.Write(ctx, &batch); return err })
			r.keys[to] = r.keys[from]
		}
	case n < 15: // fills segments, so that they can be dropped
		r.write(func() error { _, err := r.db.Space("other").Put(ctx, batchlog.K(i), make([]byte, 900)); return err })
	case n < 17:
		if len(r.views) < 3 {
			v, err := r.db.View(ctx)
			r.must(err)
			keys := map[int]int{}
			for k, c := range r.keys {
				keys[k] = c
			}
			r.views = append(r.views, heldView{v, keys})
		}
	case n < 18:
		if len(r.views) > 0 {
			r.must(r.views[0].view.Close())
			r.views = r.views[1:]
		}
	case n < 19: // a chain takes its time
		if r.chain == nil {
			c, err := r.db.Chain(ctx)
			r.must(err)
			r.chain, r.staged = c, map[int]int{}
		}
		k, v := r.key(), 8+r.rng.IntN(4)
		r.chain.Put(r.s, batchlog.K(k), content(v))
		r.staged[k] = v
	case n < 20:
		if r.chain != nil {
			if r.rng.IntN(3) > 0 {
				r.write(func() error { _, err := r.chain.Commit(ctx); return err })
				for k, v := range r.staged {
					r.keys[k] = v
				}
			}
			r.must(r.chain.Close())
			r.chain = nil
		}
	case n < 22:
		r.now = r.now.Add(time.Duration(r.rng.IntN(80)) * time.Second)
	case n < 24:
		r.must(r.db.Trim(ctx))
	case n < 28:
		r.sweep()
	case n < 29:
		r.check()
	default: // kill -9
		r.letGo()
		fs := r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
		_ = r.db.Close() // of the process that is no more
		r.fs = fs
		r.open()
		r.check()
	}
}

func (r *sweepRun) letGo() {
	for _, v := range r.views {
		r.must(v.view.Close())
	}
	if r.chain != nil {
		r.must(r.chain.Close())
	}
	r.views, r.chain = nil, nil
}

func (r *sweepRun) sweep() {
	r.t.Helper()
	swept, err := r.db.SweepBlobs(r.t.Context(), 0)
	r.must(err)
	r.removed += swept.Removed
	r.check()
}

// check reads all that is there: in the store, in views, and in the log.
func (r *sweepRun) check() {
	r.t.Helper()
	look := func(what string, keys map[int]int, get func(k batchlog.Key) ([]byte, error)) {
		for k := range 12 {
			got, err := get(batchlog.K(k))
			v, has := keys[k]
			if has && (err != nil || !bytes.Equal(got, content(v))) || !has && !errors.Is(err, batchlog.ErrNotFound) {
				r.t.Fatalf("seed %d: %s: key %d: %.20q, %v; want content %d (%t)", r.seed, what, k, got, err, v, has)
			}
		}
	}
	look("store", r.keys, func(k batchlog.Key) ([]byte, error) { return r.s.Get(r.t.Context(), k) })
	for _, v := range r.views {
		look("view", v.keys, func(k batchlog.Key) ([]byte, error) { return v.view.Get(r.s, k) })
	}
	head, err := r.db.Head(r.t.Context())
	r.must(err)
	if head == 0 {
		return
	}
	for c, err := range r.db.Tail(r.t.Context(), batchlog.TailOptions{From: batchlog.Oldest(), Until: head}) {
		r.must(err)
		for op, err := range c.Ops() {
			r.must(err)
			_, err := op.Load(r.t.Context())
			r.must(err)
		}
	}
}

// Whatever writes, reads, waits, is trimmed and killed, no blob goes that a key, a view, a chain under way or the log refers to; and when nothing
// does any more it goes.
func TestSweepBlobsRandom(t *testing.T) {
	seeds := uint64(24)
	if testing.Short() {
		seeds = 6
	}
	removed := int64(0)
	for seed := range seeds {
		r := &sweepRun{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 31)), fs: crashfs.New(), now: time.Unix(1e9, 0), keys: map[int]int{}}
		r.open()
		for i := range 250 {
			r.step(i)
		}
		r.letGo()
		// All that is still referred to are the keys, once the log is dropped: but for its active segment, which is filled with other things.
		last, err := r.db.Head(t.Context())
		r.must(err)
		for i := range 60 {
			r.write(func() error {
				_, err := r.db.Space("other").Put(t.Context(), batchlog.K(i), make([]byte, 900))
				return err
			})
		}
		r.now = r.now.Add(time.Hour)
		trimPast(t, r.db, last)
		r.sweep()
		r.sweep() // what was found dead while a view was open
		used := map[int]bool{}
		for _, v := range r.keys {
			used[v] = true
		}
		files := 0
		for _, err := range r.db.engine.blobs.All() {
			r.must(err)
			files++
		}
		if files > len(used)+1 || files < len(used) { // the active segment may have one
			t.Errorf("seed %d: %d blobs are there, %d are referred to", seed, files, len(used))
		}
		verified(t, r.db)
		removed += r.removed
		r.must(r.db.Close())
	}
	if removed < int64(seeds)*4 {
		t.Errorf("%d blobs were removed: too few", removed)
	}
}

// trimPast trims until commit id is dropped: segments are sealed in the background.
func trimPast(t *testing.T, db *DB, id batchlog.ID) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if err := db.Trim(t.Context()); err != nil && !errors.Is(err, batchlog.ErrNoSpace) {
			t.Fatal(err)
		}
		if db.engine.log.Kept() > id {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the log has commit %d still", id)
		}
	}
}

// writeBlobs writes values that are blobs until stop is closed. They are few, so that they are removed and come back.
func writeBlobs(t *testing.T, s *batchlog.Space, w int, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		var err error
		key, want := batchlog.K("live", w), content(1_000_000*(w+1)+i%5)
		if i%3 == 1 {
			_, err = s.Delete(t.Context(), key)
		} else {
			_, err = s.Put(t.Context(), key, want)
		}
		if err == nil && i%3 == 2 {
			var got []byte
			if got, err = s.Get(t.Context(), key); err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("%.20q", got)
			}
		}
		if err != nil {
			t.Errorf("writer %d, step %d: %v", w, i, err)
			return
		}
	}
}

// A sweep removes what is dead also while others write blobs without a pause, and never what they write.
func TestSweepBlobsUnderLoad(t *testing.T) {
	now := time.Unix(1e9, 0)
	var mu sync.Mutex
	db, err := Open("db", &Options{FS: vfs.NewMem(), Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }, Log: batchlog.LogConfig{
		SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, BlobBytes: 1024,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	s := db.Space("s")
	const dead = 100
	for i := range dead {
		if _, err := s.Put(t.Context(), batchlog.K("dead", i), content(i)); err != nil {
			t.Fatal(err)
		}
	}
	var b batchlog.Batch
	b.DeleteRange(s, batchlog.Range{})
	first, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if _, err := db.Space("other").Put(t.Context(), batchlog.K(i), make([]byte, 900)); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	trimPast(t, db, first)
	c, err := db.Chain(t.Context()) // under way all the time, with a blob that nothing else refers to
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ref, err := db.StoreBlob(t.Context(), bytes.NewReader(content(dead)))
	if err != nil {
		t.Fatal(err)
	}
	c.PutRef(s, batchlog.K("chain"), ref)
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() { writeBlobs(t, s, w, stop) })
	}
	removed := int64(0)
	for sweeps := 0; sweeps < 20 && removed < dead; sweeps++ {
		swept, err := db.SweepBlobs(t.Context(), 0)
		if err != nil {
			t.Error(err)
		}
		removed += swept.Removed
	}
	close(stop)
	wg.Wait()
	if removed < dead {
		t.Errorf("%d of %d dead blobs were removed", removed, dead)
	}
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), batchlog.K("chain")); err != nil || !bytes.Equal(got, content(dead)) {
		t.Errorf("what the chain has put: %.20q, %v", got, err)
	}
	verified(t, db)
}

// A sweep in the background looks at some of the blobs, and goes on where the one before it ended; what was found dead is looked at each time.
func TestSweepBlobsSome(t *testing.T) {
	now := time.Unix(1e9, 0)
	var mu sync.Mutex
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	db, err := Open("db", &Options{FS: vfs.NewMem(), Now: clock, Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, BlobBytes: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	const live, some = 35, 10
	s := db.Space("s")
	for i := range live {
		if _, err := s.Put(t.Context(), batchlog.K(i), content(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(t.Context(), batchlog.K(live-1)); err != nil { // all are applied
		t.Fatal(err)
	}
	e := db.engine
	e.sweeping.Lock()
	e.sweeps.some = some
	e.sweeping.Unlock()
	sweep := func() BlobSweep {
		t.Helper()
		found, err := e.sweepBlobs(t.Context(), 0, false)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for i, want := range []int64{10, 10, 10, 5, 10} {
		if found := sweep(); found.Blobs != want || found.Removed != 0 {
			t.Errorf("sweep %d: %+v, want %d", i, found, want)
		}
	}
	v, err := db.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b batchlog.Batch
	b.DeleteRange(s, batchlog.Range{})
	first, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if _, err := db.Space("other").Put(t.Context(), batchlog.K(i), make([]byte, 900)); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	trimPast(t, db, first)
	for range 5 {
		if found := sweep(); found.Removed != 0 {
			t.Errorf("%+v with a view open", found)
		}
	}
	for i := range live {
		if got, err := v.Get(s, batchlog.K(i)); err != nil || !bytes.Equal(got, content(i)) {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if found := sweep(); found.Removed != live {
		t.Errorf("all are known to be dead: %+v", found)
	}
}
