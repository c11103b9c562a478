package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// How often a running task is looked at, and how often a line says how far it is where there is no terminal.
const (
	reportOften = 50 * time.Millisecond
	reportLines = 5 * time.Second
)

// A taskReport shows how a task goes while it runs: on a terminal as one line that changes, elsewhere as lines when something has changed,
// with --json as a line of JSON on stdout for each change. It is also the stream that the log goes to, so that both can share a terminal.
type taskReport struct {
	a    *app
	name string

	mu struct {
		sync.Mutex
		meter *meter // nil: no terminal
		shown task.Status
		at    time.Time
	}
}

func newTaskReport(a *app, t task.Task) *taskReport {
	r := &taskReport{a: a, name: t.Name}
	r.mu.meter = a.meters()("task "+printable(t.Name), "commits", 0)
	return r
}

// Write writes a line of the log.
func (r *taskReport) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.meter.end()
	return r.a.err.Write(line)
}

// watch looks at the task again and again, until ctx ends or check returns an error, and returns why.
func (r *taskReport) watch(ctx context.Context, db *batchlog.DB, check func(s task.Status) error) error {
	for {
		s, err := task.Get(ctx, db, r.name)
		switch {
		case errors.Is(err, task.ErrUnknown): // not begun yet
		case err != nil:
			return err
		default:
			if err := r.show(s, false); err != nil {
				return err
			}
			if err := check(s); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(reportOften):
		}
	}
}

// last shows how the task is at the end.
func (r *taskReport) last(ctx context.Context, db *batchlog.DB) error {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.mu.meter.end()
	}()
	s, err := task.Get(context.WithoutCancel(ctx), db, r.name)
	if errors.Is(err, task.ErrUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.show(s, true)
}

// show shows s if it is not as it was shown last.
func (r *taskReport) show(s task.Status, final bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	turned := s.State != r.mu.shown.State || s.Error != r.mu.shown.Error || s.Attempts != r.mu.shown.Attempts || s.Parked != r.mu.shown.Parked
	moved := s.Cursor != r.mu.shown.Cursor
	switch {
	case r.a.json:
		if !turned && !moved {
			return nil
		}
		if err := r.a.printJSON(s); err != nil {
			return err
		}
		if err := r.a.out.Flush(); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	case r.mu.meter != nil && !final:
		m := r.mu.meter
		m.label, m.total = progressLabel(s), int64(s.Head)
		m.set(int64(s.Cursor), 0)
		return nil
	case !final && (!turned && !moved || time.Since(r.mu.at) < reportLines):
		return nil
	default:
		r.mu.meter.end()
		fmt.Fprintln(r.a.err, progressText(s, final))
	}
	r.mu.shown, r.mu.at = s, time.Now()
	return nil
}

// progressLabel is what the line on a terminal begins with.
func progressLabel(s task.Status) string {
	text := fmt.Sprintf("task %s  %s", printable(s.Name), s.State)
	if s.Lag.Commits > 0 {
		text += fmt.Sprintf("  lag %s", countText(int64(s.Lag.Commits)))
	}
	if s.Parked > 0 {
		text += fmt.Sprintf("  parked %d", s.Parked)
	}
	return text
}

// progressText is a line for where no terminal is, and at the end.
func progressText(s task.Status, final bool) string {
	state := s.State
	if final {
		state = "ended"
	}
	text := fmt.Sprintf("task %s: %s at commit %s", printable(s.Name), state, countText(int64(s.Cursor)))
	if s.Lag.Commits > 0 {
		text += fmt.Sprintf(", %s behind, %s/s", counted(int64(s.Lag.Commits), "commit"), rateText(s.Rate))
	} else {
		text += ", nothing left to handle"
	}
	if s.Parked > 0 {
		text += ", " + counted(s.Parked, "window") + " parked"
	}
	if s.Error != "" {
		text += fmt.Sprintf("; commits %s to %s failed after %s: %s", countText(int64(s.First)), countText(int64(s.Last)), counted(s.Attempts, "attempt"), clipped(oneLine(s.Error), 160, "…"))
	}
	return text
}
