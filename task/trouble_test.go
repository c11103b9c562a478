package task_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// The number of a worker is never given out again, not even to a task that comes after one that was dropped: who slept through that is nobody.
func TestFencesAscend(t *testing.T) {
	db := mem(t)
	k := task.Task{Name: "t", Handle: func(context.Context, *task.Window) error { return nil }}
	last := uint64(0)
	for range 3 {
		stop := run(t, db, k)
		var fence uint64
		until(t, "at work", func() bool {
			s, err := task.Get(t.Context(), db.DB, "t")
			if err == nil && len(s.Workers) == 1 {
				fence = s.Workers[0].Fence
			}
			return fence != 0
		})
		if fence <= last {
			t.Errorf("worker %d after worker %d", fence, last)
		}
		last = fence
		if err := task.Drop(t.Context(), db.DB, "t"); err != nil {
			t.Fatal(err)
		}
		_ = stop() // with an error of its own, or that it was stopped
	}
}

// A window that failed with one worker and is handled by the next one is no trouble any more.
func TestTroubleEnds(t *testing.T) {
	db := mem(t)
	var healed atomic.Bool
	k := task.Task{Name: "t", Source: []*batchlog.Space{db.Space("source")}, Retry: task.Retry{First: time.Hour, Max: time.Hour}}
	k.Handle = func(context.Context, *task.Window) error {
		if healed.Load() {
			return nil
		}
		return errors.New("no good")
	}
	id := put(t, db.Space("source"), 1, "")
	stop := run(t, db, k)
	until(t, "failing", func() bool {
		s, err := task.Get(t.Context(), db.DB, "t")
		return err == nil && s.State == "failing"
	})
	_ = stop()
	healed.Store(true)
	run(t, db, k)
	untilCursor(t, db, "t", id)
	if s, err := task.Get(t.Context(), db.DB, "t"); err != nil || s.State != "idle" || s.Error != "" || s.Attempts != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A view that needs the task in the middle of a window has it set aside in two parts.
func TestViewCutsPoison(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	k := derive("t", source, out)
	k.Window = task.Limit{Commits: 2, Wait: time.Hour}
	k.Poison, k.Retry = task.Park, task.Retry{Attempts: 1}
	k.Handle = func(context.Context, *task.Window) error { return errors.New("no good") }
	stop := run(t, db, k)
	registered(t, db, "t")
	first := put(t, source, 1, "")
	v, err := db.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	last := put(t, source, 2, "")
	untilCursor(t, db, "t", last)
	if _, err := v.Get(out, batchlog.K(1)); !errors.Is(err, batchlog.ErrNotFound) {
		t.Error(err)
	}
	parked, err := task.Parked(t.Context(), db.DB, "t")
	if err != nil || len(parked) != 2 || parked[0].First > first || parked[0].Last != v.ID() || parked[1].First != v.ID()+1 || parked[1].Last != last {
		t.Errorf("view at %d, parked %+v, %v", v.ID(), parked, err)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What a handler writes when a parked window is retried may be refused: the window stays where it is, and the task goes on.
func TestRetryRefused(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	k := task.Task{Name: "t", Source: []*batchlog.Space{source}, Poison: task.Park, Retry: task.Retry{Attempts: 1}}
	k.Handle = func(_ context.Context, w *task.Window) error {
		w.Put(out, batchlog.K("x"), nil)
		return nil
	}
	remove := db.PreCommit(out, func(_ *batchlog.Tx, ops []batchlog.Op) error { return batchlog.Refuse(ops[0], "not here") })
	stop := run(t, db, k)
	untilCursor(t, db, "t", put(t, source, 1, ""))
	if n, err := task.RetryParked(t.Context(), db.DB, "t", 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	until(t, "retried", func() bool {
		parked, err := task.Parked(t.Context(), db.DB, "t")
		return err == nil && len(parked) == 1 && parked[0].Attempts == 2 && !parked[0].Retry && strings.Contains(parked[0].Error, "not here")
	})
	remove()
	if n, err := task.RetryParked(t.Context(), db.DB, "t", 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	until(t, "retried", func() bool {
		parked, err := task.Parked(t.Context(), db.DB, "t")
		return err == nil && len(parked) == 0
	})
	if got := dump(t, out); got != `"x"= ` {
		t.Error(got)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A paused task sets nothing aside either.
func TestPausedKeepsPoison(t *testing.T) {
	db := mem(t)
	source := db.Space("source")
	k := task.Task{Name: "t", Source: []*batchlog.Space{source}, Poison: task.Park, Retry: task.Retry{Attempts: 1}}
	failed := make(chan struct{}, 1)
	k.Handle = func(ctx context.Context, _ *task.Window) error {
		if err := task.Pause(ctx, db.DB, "t"); err != nil {
			t.Error(err)
		}
		failed <- struct{}{}
		return errors.New("no good")
	}
	run(t, db, k)
	registered(t, db, "t")
	id := put(t, source, 1, "")
	<-failed
	time.Sleep(50 * time.Millisecond) // for what must not happen
	if s, err := task.Get(t.Context(), db.DB, "t"); err != nil || s.Cursor >= id || s.Parked != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := task.Resume(t.Context(), db.DB, "t"); err != nil {
		t.Fatal(err)
	}
	untilCursor(t, db, "t", id)
	if s, err := task.Get(t.Context(), db.DB, "t"); err != nil || s.Parked != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
