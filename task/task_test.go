package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func open(t *testing.T, fs vfs.FS, o local.Options) *local.DB {
	t.Helper()
	o.FS = fs
	db, err := local.Open("db", &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func mem(t *testing.T) *local.DB { return open(t, vfs.NewMem(), local.Options{}) }

// run runs a task until the returned function is called, which returns what Run did.
func run(t *testing.T, db *local.DB, k task.Task) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- task.Run(ctx, db.DB, k) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(30 * time.Second):
				err = errors.New("Run did not end")
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, batchlog.ErrClosed) && !t.Failed() {
			t.Logf("task %s ended with: %v", k.Name, err)
		}
	})
	return stop
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not yet: " + what)
		}
	}
}

func untilCursor(t *testing.T, db *local.DB, name string, id batchlog.ID) {
	t.Helper()
	until(t, fmt.Sprintf("task %s at %d", name, id), func() bool {
		s, err := task.Get(t.Context(), db.DB, name)
		return err == nil && s.Cursor >= id
	})
}

func put(t *testing.T, s *batchlog.Space, key any, value string) batchlog.ID {
	t.Helper()
	id, err := s.Put(t.Context(), batchlog.K(key), []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// dump is all keys of a space with their values.
func dump(t *testing.T, s *batchlog.Space) string {
	t.Helper()
	var b strings.Builder
	for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s=%s ", e.Key, e.Value)
	}
	return b.String()
}

// trace is a handler whose outcome tells everything: per window it appends each id and value to a chain in which every link depends on the
// one before, so a window that is left out, doubled, out of order or computed from a stale state shows.
func trace(out *batchlog.Space) func(ctx context.Context, w *task.Window) error {
	return func(_ context.Context, w *task.Window) error {
		last, err := w.Get(out, batchlog.K("chain"))
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			return err
		}
		chain := string(last)
		for c, err := range w.Commits() {
			if err != nil {
				return err
			}
			for op, err := range c.Ops() {
				if err != nil {
					return err
				}
				chain = link(chain, c.ID, op.Value)
			}
		}
		w.Put(out, batchlog.K("chain"), []byte(chain))
		return nil
	}
}

// link is a rolling hash.
func link(chain string, id batchlog.ID, value []byte) string {
	h := uint64(14695981039346656037)
	for _, c := range []byte(chain + "|" + id.String() + "|" + string(value)) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return strconv.FormatUint(h, 16)
}

// expected is what trace must come to: a plain fold of the log.
func expected(t *testing.T, db *local.DB, source *batchlog.Space, last batchlog.ID) string {
	t.Helper()
	chain := ""
	for c, err := range source.Tail(t.Context(), batchlog.TailOptions{Until: last}) {
		if err != nil {
			t.Fatal(err)
		}
		for op, err := range c.Ops() {
			if err != nil {
				t.Fatal(err)
			}
			chain = link(chain, c.ID, op.Value)
		}
	}
	return `"chain"=` + chain + " "
}

// Whatever the concurrency and the size of windows, also while it is written to: the outcome is that of a sequential fold.
func TestConcurrencyIsOnlySpeed(t *testing.T) {
	db := mem(t)
	source := db.Space("source")
	var last batchlog.ID
	write := func(n int) {
		for i := range n {
			last = put(t, source, i%37, fmt.Sprint(i))
			if i%7 == 0 {
				put(t, db.Space("other"), i, "")
			}
		}
	}
	write(300)
	for _, n := range []int{1, 2, 5} {
		for _, size := range []int{1, 3, 100} {
			name := fmt.Sprintf("trace %d %d", n, size)
			run(t, db, task.Task{
				Name: name, Source: []*batchlog.Space{source}, Concurrency: n, Window: task.Limit{Commits: size}, Handle: trace(db.Space(name)),
			})
		}
	}
	write(200)
	for _, n := range []int{1, 2, 5} {
		for _, size := range []int{1, 3, 100} {
			name := fmt.Sprintf("trace %d %d", n, size)
			untilCursor(t, db, name, last)
			if got, want := dump(t, db.Space(name)), expected(t, db, source, last); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	}
}

// Stopped at any moment, by its context or by a crash that loses what was not synced, and run again with another concurrency: every commit is
// handled once.
func TestStopsAndCrashes(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		fs := crashfs.New()
		var last batchlog.ID
		for round := 0; ; round++ {
			db := open(t, fs, local.Options{Log: batchlog.LogConfig{SegmentBytes: 32 << 10}, MemTableBytes: 128 << 10})
			source, out := db.Space("source"), db.Space("out")
			stop := run(t, db, task.Task{
				Name: "trace", Source: []*batchlog.Space{source}, Concurrency: 1 + r.IntN(4), Window: task.Limit{Commits: 1 + r.IntN(20)}, Handle: trace(out),
			})
			for i := range 20 + r.IntN(100) {
				last = put(t, source, i, fmt.Sprint(round, i))
			}
			if round < 4 {
				if r.IntN(2) == 0 { // a power cut in the middle of it
					fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
				} else if err := stop(); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				_ = stop() // what it says is that it was stopped, or crashed
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			untilCursor(t, db, "trace", last)
			if got, want := dump(t, out), expected(t, db, source, last); got != want {
				t.Errorf("seed %d: %s, want %s", seed, got, want)
			}
			break
		}
	}
}

// Of two workers one works; when the task is taken from it, what it has computed cannot be committed any more.
func TestTakeover(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	put(t, source, 1, "a")
	entered, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	first := task.Task{Name: "trace", Source: []*batchlog.Space{source}, Handle: func(_ context.Context, w *task.Window) error {
		if calls.Add(1) == 1 {
			close(entered)
			<-release // it hangs, and wakes up when another one has the task
		}
		w.Put(out, batchlog.K("from"), []byte("the dead"))
		return nil
	}}
	stop := run(t, db, first)
	<-entered
	second := first
	second.Handle = func(_ context.Context, w *task.Window) error {
		w.Put(out, batchlog.K("from"), []byte("the living"))
		return nil
	}
	run(t, db, second)
	untilCursor(t, db, "trace", 1)
	close(release)
	time.Sleep(50 * time.Millisecond) // for what must not happen
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := dump(t, out); got != `"from"=the living ` {
		t.Error(got)
	}
}

// A window that fails is tried again; for good, by the policy: the task stops and says where, or the window is parked or skipped.
func TestPoison(t *testing.T) {
	fail := errors.New("no good")
	for _, poison := range []task.Poison{task.Stop, task.Park, task.Skip} {
		db := mem(t)
		source, out := db.Space("source"), db.Space("out")
		for i := 1; i <= 5; i++ {
			put(t, source, i, fmt.Sprint(i))
		}
		var healed atomic.Bool
		var attempts atomic.Int64
		k := task.Task{
			Name: "t", Source: []*batchlog.Space{source}, Window: task.Limit{Commits: 1}, Concurrency: 2, Poison: poison,
			Retry: task.Retry{Attempts: 3, First: time.Millisecond, Max: 4 * time.Millisecond},
			Handle: func(_ context.Context, w *task.Window) error {
				if w.First == 3 && !healed.Load() {
					if attempts.Add(1)%2 == 0 {
						panic("no good, either")
					}
					return fail
				}
				w.Put(out, batchlog.K(uint64(w.First)), nil)
				return nil
			},
		}
		stop := run(t, db, k)
		switch poison {
		case task.Stop:
			until(t, "stopped", func() bool {
				s, err := task.Get(t.Context(), db.DB, "t")
				return err == nil && s.State == "stopped" && s.First == 3 && s.Attempts == 3 && s.Error == "no good"
			})
			var p *task.PoisonError
			if err := stop(); !errors.As(err, &p) || p.First != 3 || p.Last != 3 || !errors.Is(err, fail) {
				t.Fatal(err)
			}
			if got := dump(t, out); got != "1= 2= " {
				t.Error(got)
			}
			healed.Store(true)
			run(t, db, k)
			untilCursor(t, db, "t", 5)
		case task.Park:
			untilCursor(t, db, "t", 5)
			if got := dump(t, out); got != "1= 2= 4= 5= " {
				t.Error(got)
			}
			parked, err := task.Parked(t.Context(), db.DB, "t")
			if err != nil || len(parked) != 1 || parked[0].First != 3 || parked[0].Attempts != 3 || parked[0].Error != "no good" {
				t.Fatal(parked, err)
			}
			if _, err := task.RetryParked(t.Context(), db.DB, "t", 4); !errors.Is(err, batchlog.ErrNotFound) {
				t.Error(err)
			}
			before, err := task.Get(t.Context(), db.DB, "t")
			if err != nil {
				t.Fatal(err)
			}
			healed.Store(true)
			if n, err := task.RetryParked(t.Context(), db.DB, "t", 0); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			until(t, "retried", func() bool {
				parked, err := task.Parked(t.Context(), db.DB, "t")
				return err == nil && len(parked) == 0
			})
			if after, err := task.Get(t.Context(), db.DB, "t"); err != nil || after.Cursor != before.Cursor {
				t.Error("the cursor moved", before, after, err)
			}
		case task.Skip:
			untilCursor(t, db, "t", 5)
		}
		want := "1= 2= 3= 4= 5= "
		if poison == task.Skip {
			want = "1= 2= 4= 5= "
		}
		if got := dump(t, out); got != want {
			t.Errorf("policy %d: %s", poison, got)
		}
		if attempts.Load() != 3 {
			t.Errorf("policy %d: %d attempts", poison, attempts.Load())
		}
	}
}

// Paused it commits nothing; resumed it goes on; reset it handles again; dropped it is gone and its worker ends.
func TestManage(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	var calls atomic.Int64
	stop := run(t, db, task.Task{Name: "t", Source: []*batchlog.Space{source}, Handle: func(_ context.Context, w *task.Window) error {
		calls.Add(1)
		w.Put(out, batchlog.K(uint64(w.First)), nil)
		return nil
	}})
	untilCursor(t, db, "t", put(t, source, 1, ""))
	if err := task.Pause(t.Context(), db.DB, "t"); err != nil {
		t.Fatal(err)
	}
	id := put(t, source, 2, "")
	time.Sleep(50 * time.Millisecond)
	if s, err := task.Get(t.Context(), db.DB, "t"); err != nil || s.State != "paused" || s.Cursor >= id {
		t.Fatal(s, err)
	}
	if err := task.Resume(t.Context(), db.DB, "t"); err != nil {
		t.Fatal(err)
	}
	untilCursor(t, db, "t", id)
	n := calls.Load()
	if err := task.Reset(t.Context(), db.DB, "t", batchlog.First()); err != nil {
		t.Fatal(err)
	}
	until(t, "handled again", func() bool { return calls.Load() > n })
	untilCursor(t, db, "t", id)
	if all, err := task.List(t.Context(), db.DB); err != nil || len(all) != 1 || all[0].Name != "t" || all[0].State != "idle" || fmt.Sprint(all[0].Source) != "[source]" {
		t.Error(all, err)
	}
	if err := task.Drop(t.Context(), db.DB, "t"); err != nil {
		t.Fatal(err)
	}
	until(t, "worker gone", func() bool {
		all, err := task.List(t.Context(), db.DB)
		return err == nil && len(all) == 0
	})
	put(t, source, 3, "")
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	if err := <-ended; !errors.Is(err, task.ErrUnknown) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for name, f := range map[string]func() error{
		"pause":  func() error { return task.Pause(t.Context(), db.DB, "none") },
		"reset":  func() error { return task.Reset(t.Context(), db.DB, "none", batchlog.First()) },
		"drop":   func() error { return task.Drop(t.Context(), db.DB, "none") },
		"status": func() error { _, err := task.Get(t.Context(), db.DB, "none"); return err },
	} {
		if err := f(); !errors.Is(err, task.ErrUnknown) {
			t.Errorf("%s of no task: %v", name, err)
		}
	}
}

// A task that follows everything, what it writes included, comes to an end: it does not handle its own commits.
func TestFollowsEverything(t *testing.T) {
	db := mem(t)
	var calls, commits atomic.Int64
	run(t, db, task.Task{Name: "t", Handle: func(_ context.Context, w *task.Window) error {
		calls.Add(1)
		commits.Add(int64(w.Len()))
		w.Put(db.Space("out"), batchlog.K(uint64(w.First)), nil)
		return nil
	}})
	for i := range 20 {
		put(t, db.Space("source", i), i, "")
	}
	until(t, "idle", func() bool {
		s, err := task.Get(t.Context(), db.DB, "t")
		return err == nil && s.State == "idle" && s.Lag.Commits == 0
	})
	n := calls.Load()
	time.Sleep(50 * time.Millisecond) // for what must not happen
	if calls.Load() != n || commits.Load() != 20 {
		t.Errorf("%d calls, then %d; %d commits", n, calls.Load(), commits.Load())
	}
}

// A filter that matches nothing moves the cursor all the same, and an idle task writes nothing.
func TestFilterThatMatchesNothing(t *testing.T) {
	db := mem(t)
	run(t, db, task.Task{Name: "t", Source: []*batchlog.Space{db.Space("nothing")}, Handle: func(context.Context, *task.Window) error {
		t.Error("called")
		return nil
	}})
	var last batchlog.ID
	for range 3000 {
		last = put(t, db.Space("other"), 1, "")
	}
	untilCursor(t, db, "t", last-1000)
	head, err := db.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // a heartbeat of the lease at most
	if now, err := db.Head(t.Context()); err != nil || now > head+2 {
		t.Errorf("idle, head went from %d to %d: %v", head, now, err)
	}
}

// The log is kept for a task that is behind, and for its parked windows; a task whose commits were let go nevertheless stops with a gap.
func TestHoldsTheLog(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().Unix())
	db := open(t, vfs.NewMem(), local.Options{
		Log: batchlog.LogConfig{SegmentBytes: 16 << 10, HotTTL: time.Hour},
		Now: func() time.Time { return time.Unix(now.Load(), 0) },
	})
	source := db.Space("source")
	k := task.Task{Name: "t", Source: []*batchlog.Space{source}, Handle: func(context.Context, *task.Window) error { return nil }}
	stop := run(t, db, k)
	untilCursor(t, db, "t", put(t, source, 1, ""))
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	var last batchlog.ID
	for i := range 500 {
		last = put(t, source, i, strings.Repeat("x", 200))
	}
	now.Add(7200)
	put(t, source, 1, "")
	trim := func() batchlog.ID {
		if err := db.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err := db.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Oldest
	}
	if oldest := trim(); oldest > 2 {
		t.Fatalf("trimmed to %d under a task that has handled 1", oldest)
	}
	stop = run(t, db, k)
	untilCursor(t, db, "t", last)
	until(t, "trimmed", func() bool { return trim() > 100 })
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	late := k
	late.Name = "late"
	if err := task.Run(t.Context(), db.DB, late); !errors.Is(err, batchlog.ErrGap) {
		t.Errorf("a task that begins with what is gone: %v", err)
	}
}

// A task that is not one is refused.
func TestRefuses(t *testing.T) {
	db := mem(t)
	handle := func(context.Context, *task.Window) error { return nil }
	for name, k := range map[string]task.Task{
		"no name":         {Handle: handle},
		"no handler":      {Name: "t"},
		"negative":        {Name: "t", Handle: handle, Concurrency: -1},
		"unknown policy":  {Name: "t", Handle: handle, Poison: 3},
		"negative window": {Name: "t", Handle: handle, Window: task.Limit{Commits: -1}},
	} {
		if err := task.Run(t.Context(), db.DB, k); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
