package task_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func status(t *testing.T, db *local.DB, name string) task.Status {
	t.Helper()
	s, err := task.Get(t.Context(), db.DB, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The lag counts from the first commit that concerns the task; what doesn't is no lag.
func TestLag(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().Add(-time.Hour).Unix())
	db := open(t, vfs.NewMem(), local.Options{Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	source, other := db.Space("source"), db.Space("other")
	entered, release := make(chan struct{}, 10), make(chan struct{})
	k := task.Task{Name: "t", Source: []*batchlog.Space{source}, Handle: func(ctx context.Context, _ *task.Window) error {
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	if err := task.Register(t.Context(), db.DB, k); err != nil {
		t.Fatal(err)
	}
	if s := status(t, db, "t"); s.Lag != (task.Lag{}) || s.State != "waiting for a worker" || s.Hold != 1 {
		t.Errorf("new: %+v", s)
	}
	put(t, other, 1, "")
	if s := status(t, db, "t"); s.Lag != (task.Lag{}) {
		t.Errorf("what doesn't concern it: %+v", s.Lag)
	}
	first := put(t, source, 1, strings.Repeat("x", 1000))
	put(t, other, 2, "")
	head := put(t, source, 2, "")
	s := status(t, db, "t")
	if s.Lag.Commits != uint64(head-first+1) || s.Lag.Bytes < 100 || s.Lag.Seconds < 3500 || s.Lag.Seconds > 3700 || s.Head < head {
		t.Errorf("%+v", s)
	}
	stop := run(t, db, k)
	<-entered
	if s := status(t, db, "t"); s.State != "running" || len(s.Workers) != 1 || !s.Workers[0].Alive || s.Workers[0].Fence == 0 || s.Workers[0].Name == "" {
		t.Errorf("%+v", s)
	}
	close(release)
	untilCursor(t, db, "t", head)
	if s := status(t, db, "t"); s.State != "idle" || s.Lag != (task.Lag{}) || s.Rate <= 0 || s.ETA != 0 || s.Moved.IsZero() {
		t.Errorf("%+v", s)
	}
	_ = stop()
	if s := status(t, db, "t"); s.State != "waiting for a worker" || len(s.Workers) != 0 {
		t.Errorf("%+v", s)
	}
}

// A task that has something to handle and makes no progress is stalled, and says at what.
func TestStalled(t *testing.T) {
	db := mem(t)
	source := db.Space("source")
	k := task.Task{Name: "t", Source: []*batchlog.Space{source}, Stall: 20 * time.Millisecond, Lease: 30 * time.Millisecond, Handle: func(ctx context.Context, _ *task.Window) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	stop := run(t, db, k)
	registered(t, db, "t")
	time.Sleep(50 * time.Millisecond)
	if s := status(t, db, "t"); s.State != "idle" {
		t.Errorf("nothing to do, and %+v", s)
	}
	put(t, source, 1, "")
	until(t, "stalled at its window", func() bool {
		s := status(t, db, "t")
		return s.State == "stalled" && strings.Contains(s.Reason, "has been at commits")
	})
	_ = stop()
	until(t, "stalled without a worker", func() bool {
		s := status(t, db, "t")
		return s.State == "stalled" && s.Reason == "nobody works on it"
	})
}

// What Reset would do is what it does.
func TestPlanReset(t *testing.T) {
	db := mem(t)
	source := db.Space("source")
	var handled atomic.Int64
	k := task.Task{Name: "t", Source: []*batchlog.Space{source}, Window: task.Limit{Commits: 2}, Handle: func(_ context.Context, w *task.Window) error {
		handled.Add(int64(w.Len()))
		return nil
	}}
	stop := run(t, db, k)
	var ids []batchlog.ID
	for i := range 10 {
		ids = append(ids, put(t, source, i, ""))
		put(t, db.Space("other"), i, "")
	}
	untilCursor(t, db, "t", ids[9])
	_ = stop()
	at := status(t, db, "t").Cursor
	p, err := task.PlanReset(t.Context(), db.DB, "t", batchlog.At(ids[4]))
	if err != nil || p.From != at || p.To != ids[4]-1 || p.Again != 6 || p.Skips != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if s := status(t, db, "t"); s.Cursor != at {
		t.Fatal("a plan has moved the cursor")
	}
	if err := task.Reset(t.Context(), db.DB, "t", batchlog.At(ids[4])); err != nil {
		t.Fatal(err)
	}
	put(t, source, "more", "")
	last := put(t, source, "still more", "")
	if p, err = task.PlanReset(t.Context(), db.DB, "t", batchlog.Now()); err != nil || p.Again != 0 || p.Skips != 8 {
		t.Fatalf("%+v, %v", p, err)
	}
	handled.Store(0)
	run(t, db, k)
	untilCursor(t, db, "t", last)
	if handled.Load() != 8 {
		t.Errorf("%d commits handled after the reset, want 8", handled.Load())
	}
	if _, err := task.PlanReset(t.Context(), db.DB, "none", batchlog.First()); !errors.Is(err, task.ErrUnknown) {
		t.Error(err)
	}
}

// Holds says what is kept for whom. Let go of, the log is trimmed, the task ends with the gap, and the log says who wanted it so; a
// reset to what is there has it held again.
func TestLetGo(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().Unix())
	db := open(t, vfs.NewMem(), local.Options{
		Log: batchlog.LogConfig{SegmentBytes: 16 << 10, HotTTL: time.Hour},
		Now: func() time.Time { return time.Unix(now.Load(), 0) },
	})
	source := db.Space("source")
	k := task.Task{Name: "slow", Source: []*batchlog.Space{source}, Handle: func(context.Context, *task.Window) error { return nil }}
	if err := task.Register(t.Context(), db.DB, k); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		put(t, source, i, strings.Repeat("x", 200))
	}
	holds, err := task.Holds(t.Context(), db.DB)
	if err != nil || len(holds) != 1 || holds[0].Task != "slow" || holds[0].First != 1 || holds[0].Bytes < 100_000 || holds[0].Since.Unix() != now.Load() {
		t.Fatalf("%+v, %v", holds, err)
	}
	now.Add(7200)
	put(t, source, 1, "")
	oldest := func() batchlog.ID {
		if err := db.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err := db.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Oldest
	}
	if id := oldest(); id != 1 {
		t.Fatalf("trimmed to %d under a hold", id)
	}
	if err := task.LetGo(t.Context(), db.DB, "slow", ""); err == nil {
		t.Error("without a reason")
	}
	if err := task.LetGo(t.Context(), db.DB, "slow", "the disk fills up"); err != nil {
		t.Fatal(err)
	}
	said := false
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(501), Until: 510, Spaces: []*batchlog.Space{db.Inside().System()}}) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Labels["reason"] == "the disk fills up" && c.Labels["let go of the log for task"] == "slow" {
			said = true
			break
		}
	}
	if !said {
		t.Error("the log doesn't say who let go of it")
	}
	if holds, err = task.Holds(t.Context(), db.DB); err != nil || len(holds) != 0 {
		t.Errorf("%+v, %v", holds, err)
	}
	until(t, "trimmed", func() bool { return oldest() >= 100 }) // segments are sealed in the background
	var gap *batchlog.GapError
	if err := task.Run(t.Context(), db.DB, k); !errors.As(err, &gap) || gap.From != 1 {
		t.Fatal(err)
	}
	if err := task.Reset(t.Context(), db.DB, "slow", batchlog.Oldest()); err != nil {
		t.Fatal(err)
	}
	if holds, err = task.Holds(t.Context(), db.DB); err != nil || len(holds) != 1 || holds[0].First != oldest() {
		t.Errorf("%+v, %v", holds, err)
	}
	run(t, db, k)
	untilCursor(t, db, "slow", 501)
}
