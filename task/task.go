// Package task runs durable followers of the log. A task has a name, handles the commits of some spaces a window at a time, and
// keeps how far it has come in the database, so that it goes on there after a crash, a restart, or months.
//
//	err := task.Run(ctx, db, task.Task{
//		Name:   "by city",
//		Source: []*batchlog.Space{users},
//		Handle: func(ctx context.Context, w *task.Window) error { … w.Put(byCity, key, value) … },
//	})
//
// What a window writes and the task's new cursor are one commit, so every window is handled as if exactly once and in order, whatever the
// concurrency, crash or restart; only effects outside of the database may repeat.
//
// It stands on a [batchlog.DB] alone and keeps its state in the database's system space. The engine sees to it that a window is committed
// only by a live worker of the task, and only where the task stands.
package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// A Task is what is to be done with the commits of some spaces.
type Task struct {
	// Name is the task, for ever: its cursor is kept under it. UTF-8, at most 1 KiB.
	Name string
	// Source is the spaces whose commits are handled, with the spaces within; none: all. What the task has written itself it does not handle.
	Source []*batchlog.Space
	// Derives is the spaces, with those within, that this task alone writes: to others they are read-only, and reads there are held until the
	// task has handled every commit of its sources that was there when they arrived. A space has at most one task that derives it, and what a
	// task derives may not lead, over other tasks, back to its sources.
	Derives []*batchlog.Space
	// Start is where a task that is new begins; afterwards its cursor says where it is.
	Start batchlog.Position
	// Window says how many commits are handled together.
	Window Limit
	// Concurrency is how many windows are computed side by side; 0: 1. The outcome is the same with any: windows are committed in order,
	// and one whose reads were changed by an earlier one is computed again.
	Concurrency int
	// Retry says how a window that failed is tried again.
	Retry Retry
	// Poison is what becomes of a window that failed for good.
	Poison Poison
	// Handle handles a window. What it writes to w is committed with the cursor; an error makes it be tried again. It may be called several
	// times for one window, and for several windows at once if Concurrency is more than 1.
	Handle func(ctx context.Context, w *Window) error
	// Lease is how long a worker that holds windows may give no sign of life before the others take them over; 0: 5 seconds. It must be longer than
	// the longest pause of a process, or of the way to the database, that is not to be taken for its end. All workers of a task should have the same.
	Lease time.Duration
	// Stall is how long a task that has commits to handle may make no progress before its state is "stalled"; 0: 1 minute.
	Stall time.Duration
	// Logger is told of retries, parked windows and changes of the worker; nil: nobody.
	Logger *slog.Logger
}

// A Limit says when a window is full: at the first bound that is reached. Zero bounds are the defaults.
type Limit struct {
	Commits int           // 0: 1000
	Bytes   int           // of ops, encoded; 0: 4 MiB
	Wait    time.Duration // how long a window that has commits waits for more; 0: not at all
}

// Retry says how a window that failed is tried again: after First, then twice as long each time up to Max, each with jitter.
type Retry struct {
	Attempts int           // in all; 0: 10
	First    time.Duration // 0: 100 ms
	Max      time.Duration // 0: 1 minute
}

// Poison is what becomes of a window that failed Retry.Attempts times.
type Poison uint8

// The policies.
const (
	Stop Poison = iota // the task stops: Run returns a *PoisonError
	Park               // the window is set aside, and its commits are kept, to be tried again by RetryParked; the task goes on
	Skip               // the window is left out; the task goes on
)

// A PoisonError says which window made a task stop.
type PoisonError struct {
	Task        string
	First, Last batchlog.ID
	Attempts    int
	Err         error // of the last attempt
}

func (e *PoisonError) Error() string {
	return fmt.Sprintf("task %s stopped at commits %d to %d after %d attempts: %v", e.Task, e.First, e.Last, e.Attempts, e.Err)
}

// Unwrap returns the error of the last attempt.
func (e *PoisonError) Unwrap() error { return e.Err }

// ErrUnknown says that there is no task of that name. It is a [batchlog.ErrNotFound].
var ErrUnknown = fmt.Errorf("no such task: %w", batchlog.ErrNotFound)

// What ends the work of a worker that goes on afterwards.
var (
	errLost  = errors.New("the worker was thought dead, or the task was reset") // it joins again, as a new one
	errMoved = errors.New("another worker was faster")                          // it looks again where the task is
)

func (t Task) withDefaults() (Task, error) {
	switch {
	case t.Name == "":
		return t, errors.New("task without a name")
	case len(t.Name) > taskstate.MaxNameBytes:
		return t, &batchlog.LimitError{What: "name of a task", Size: int64(len(t.Name)), Limit: taskstate.MaxNameBytes}
	case !taskstate.ValidName(t.Name):
		return t, fmt.Errorf("name of task %s is not UTF-8", quoted(t.Name))
	case t.Handle == nil:
		return t, fmt.Errorf("task %s without a handler", t.Name)
	case t.Concurrency < 0 || t.Window.Commits < 0 || t.Window.Bytes < 0 || t.Window.Wait < 0 || t.Retry.Attempts < 0 || t.Retry.First < 0 || t.Retry.Max < 0 || t.Stall < 0 || t.Lease < 0:
		return t, fmt.Errorf("task %s with a negative bound", t.Name)
	case t.Poison > Skip:
		return t, fmt.Errorf("task %s with an unknown policy for poison", t.Name)
	}
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&t.Concurrency, 1)
	set(&t.Window.Commits, 1000)
	set(&t.Window.Bytes, 4<<20)
	set(&t.Retry.Attempts, 10)
	if t.Retry.First == 0 {
		t.Retry.First = 100 * time.Millisecond
	}
	if t.Retry.Max == 0 {
		t.Retry.Max = time.Minute
	}
	if t.Stall == 0 {
		t.Stall = time.Minute
	}
	if t.Lease == 0 {
		t.Lease = 5 * time.Second
	}
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	return t, nil
}
