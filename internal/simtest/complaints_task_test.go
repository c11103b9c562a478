package simtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// work runs a task until the returned function is called, or the test ends.
func (s *stage) work(k task.Task) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- task.Run(ctx, s.DB.DB, k) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			s.t.Errorf("task %s: %v", k.Name, err)
		}
	}
	s.t.Cleanup(stop)
	return stop
}

// until waits for the state of a task to be as ok wants it.
func (s *stage) until(name, what string, ok func(task.Status) bool) task.Status {
	s.t.Helper()
	ctx, cancel := bounded(patience)
	defer cancel()
	for {
		st, err := task.Get(ctx, s.DB.DB, name)
		if err == nil && ok(st) {
			return st
		}
		if ctx.Err() != nil || err != nil && !errors.Is(err, task.ErrUnknown) {
			s.t.Fatalf("not yet: %s: %+v, %v", what, st, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *stage) untilHandled(name string, id batchlog.ID) {
	s.t.Helper()
	s.until(name, fmt.Sprint("at ", id), func(st task.Status) bool { return st.Cursor >= id })
}

// A task whose handler hangs says that it is stalled, who is at what, and since when; when it goes on that is over.
func TestComplaint03Stalled(t *testing.T) {
	s := onStage(t, vfs.NewMem())
	hang := make(chan struct{})
	s.work(task.Task{
		Name: "t", Source: []*batchlog.Space{s.Space("s")}, Stall: 10 * time.Millisecond,
		Handle: func(context.Context, *task.Window) error {
			<-hang
			return nil
		},
	})
	last := s.fill(3)
	st := s.until("t", "stalled", func(st task.Status) bool { return st.State == "stalled" })
	if !strings.Contains(st.Reason, "since") || st.Lag.Commits == 0 {
		t.Errorf("%+v", st)
	}
	close(hang)
	s.untilHandled("t", last)
	s.until("t", "idle", func(st task.Status) bool { return st.State == "idle" && st.Reason == "" })
}

// However many windows are set aside, none is forgotten, also over a restart; retried, each is handled once.
func TestComplaint06ManyParked(t *testing.T) {
	s := onStage(t, vfs.NewMem())
	const n = 300
	var healed atomic.Bool
	k := task.Task{
		Name: "t", Poison: task.Park, Retry: task.Retry{Attempts: 1}, Window: task.Limit{Commits: 1}, Concurrency: 4,
		Handle: func(_ context.Context, w *task.Window) error {
			if !healed.Load() {
				return errors.New("no good")
			}
			for c, err := range w.Commits() {
				if err != nil {
					return err
				}
				key := batchlog.K(uint64(c.ID))
				times, err := w.Get(s.Space("out"), key)
				if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
					return err
				}
				w.Put(s.Space("out"), key, append(times, 'x'))
			}
			return nil
		},
	}
	k.Source = []*batchlog.Space{s.Space("s")}
	stop := s.work(k)
	for i := range n {
		if _, err := s.Space("s").Put(t.Context(), batchlog.K(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	s.until("t", "all parked", func(st task.Status) bool { return st.Parked == n })
	stop()
	s.close()
	s.open()
	k.Source = []*batchlog.Space{s.Space("s")}
	if got, err := task.RetryParked(t.Context(), s.DB.DB, "t", 0); got != n || err != nil {
		t.Fatal(got, err)
	}
	healed.Store(true)
	s.work(k)
	s.until("t", "all retried", func(st task.Status) bool { return st.Parked == 0 })
	keys := 0
	for e, err := range s.Space("out").Scan(t.Context(), batchlog.Range{}) {
		if err != nil || string(e.Value) != "x" {
			t.Fatal(e, err)
		}
		keys++
	}
	if keys != n {
		t.Errorf("%d of %d handled", keys, n)
	}
}

// After a crash a task goes on behind its cursor: of what was handled nothing is handled again, however long the log is.
func TestComplaint12NothingAgain(t *testing.T) {
	fs := crashfs.New()
	s := onStage(t, fs)
	var first atomic.Uint64
	var calls atomic.Int64
	k := task.Task{
		Name: "t", Window: task.Limit{Commits: 10},
		Handle: func(_ context.Context, w *task.Window) error {
			if calls.Add(1) == 1 {
				first.Store(uint64(w.First))
			}
			w.Put(s.Space("out"), batchlog.K(uint64(w.First)), nil)
			return nil
		},
	}
	k.Source = []*batchlog.Space{s.Space("s")}
	stop := s.work(k)
	last := s.fill(200)
	s.untilHandled("t", last)
	s.opts.FS = fs.CrashClone(vfs.CrashCloneCfg{})
	stop()
	s.close()
	s.open()
	k.Source = []*batchlog.Space{s.Space("s")}
	calls.Store(0)
	s.work(k)
	s.untilHandled("t", s.fill(1))
	if calls.Load() != 1 || first.Load() <= uint64(last) {
		t.Errorf("%d windows after the crash, the first begins with %d; %d had been handled", calls.Load(), first.Load(), last)
	}
}

// The commits of a window that was set aside are kept however old they get, and go when it was retried.
func TestComplaint14ParkedIsKept(t *testing.T) {
	s := onStage(t, vfs.NewMem())
	var healed atomic.Bool
	var got atomic.Int64
	s.work(task.Task{
		Name: "t", Source: []*batchlog.Space{s.Space("s")}, Poison: task.Park, Retry: task.Retry{Attempts: 1}, Window: task.Limit{Commits: 1},
		Handle: func(_ context.Context, w *task.Window) error {
			for c, err := range w.Commits() {
				if err != nil {
					return err
				}
				for op, err := range c.Ops() {
					switch {
					case err != nil:
						return err
					case op.Value[0] == 7 && !healed.Load():
						return errors.New("no good")
					case healed.Load() && op.Value[0] == 7:
						got.Add(1)
					}
				}
			}
			return nil
		},
	})
	s.untilHandled("t", s.fill(100)) // the eighth of them is no good
	parked, err := task.Parked(t.Context(), s.DB.DB, "t")
	if err != nil || len(parked) != 1 {
		t.Fatal(parked, err)
	}
	s.clock.Add(7200)
	s.trim()
	if oldest := s.status().Oldest; oldest > parked[0].First {
		t.Errorf("the log begins with %d, the parked window with %d", oldest, parked[0].First)
	}
	healed.Store(true)
	if n, err := task.RetryParked(t.Context(), s.DB.DB, "t", parked[0].First); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	s.until("t", "retried", func(st task.Status) bool { return st.Parked == 0 })
	if got.Load() != 1 {
		t.Errorf("retried %d times", got.Load())
	}
	s.clock.Add(7200)
	s.trim()
	if oldest := s.status().Oldest; oldest <= parked[0].Last {
		t.Errorf("retried, and the log still begins with %d", oldest)
	}
}

// A disk that is full for a while ends no worker, not even one of several who share windows: with space again they go on, by themselves.
func TestComplaint30TasksOnFullDisk(t *testing.T) {
	d := newDisk(nil, 1)
	s := onStage(t, d)
	entered, gate := make(chan struct{}, 1), make(chan struct{})
	k := task.Task{
		Name: "t", Source: []*batchlog.Space{s.Space("s")}, Window: task.Limit{Commits: 2}, Lease: 100 * time.Millisecond, Concurrency: 2,
		Handle: func(_ context.Context, w *task.Window) error {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-gate
			w.Put(s.Space("out"), batchlog.K(uint64(w.First)), make([]byte, 20<<10))
			return nil
		},
	}
	for range 3 {
		s.work(k)
	}
	s.until("t", "all at work", func(st task.Status) bool { return len(st.Workers) == 3 })
	last := s.fill(100)
	<-entered
	d.setFull(true)
	close(gate)
	ctx := soon(t)
	for s.status().State != "no space" {
		if ctx.Err() != nil {
			t.Fatal("the disk is not full")
		}
		_, _ = s.Space("other").Put(ctx, batchlog.K(1), make([]byte, 60<<10)) // refused, in the end
		time.Sleep(time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond) // so that everything that workers do meets it, too
	handled := 0
	for _, err := range s.Space("out").Scan(ctx, batchlog.Range{}, batchlog.Stale()) { // a held read may have to wait for space
		if err != nil {
			t.Fatal(err)
		}
		handled++
	}
	if handled == 100/2 {
		t.Skip("all was handled before the disk was full")
	}
	d.setFull(false)
	s.untilHandled("t", last)
}
