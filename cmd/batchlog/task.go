package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

func newTask(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "task",
		Short: "Run tasks, which follow the log, and look after them",
		Long: `A task handles the commits of some spaces, a window at a time, and keeps in the database how far it has come: what a window
writes and the new cursor are one commit. Its state, NAME and all, is made when it first runs.`,
		Example: `  batchlog task run audit --source users --exec 'sh audit.sh' --until-head
  batchlog task ls`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(newTaskLs(a), newTaskShow(a), newTaskRun(a), newTaskPause(a), newTaskResume(a), newTaskReset(a), newTaskDrop(a),
		newTaskParked(a), newTaskRetry(a), newTaskHolds(a), newTaskRelease(a))
	return cmd
}

func newTaskLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List all tasks",
		Long: `A line is a task: its state, the newest commit that it has handled, how many commits it is behind, how many a second it passes, and
how many windows it has set aside and workers it has. With --json a line is a task's whole status.`,
		Example: `  batchlog task ls
  batchlog task ls --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error {
				all, err := task.List(ctx, db.DB)
				if err != nil {
					return interruption(ctx, err)
				}
				return printAll(a, all, tasksText)
			})
		}),
	}
}

// printAll prints all as a line of JSON each, or as text says.
func printAll[T any](a *app, all []T, text func([]T) string) error {
	if !a.json {
		_, err := a.out.WriteString(text(all))
		return err
	}
	for _, v := range all {
		if err := a.printJSON(v); err != nil {
			return err
		}
	}
	return nil
}

func tasksText(all []task.Status) string {
	if len(all) == 0 {
		return "no tasks\n"
	}
	rows := [][]string{{"TASK", "STATE", "CURSOR", "LAG", "RATE", "PARKED", "WORKERS"}}
	for _, s := range all {
		rows = append(rows, []string{
			printable(s.Name), s.State, countText(int64(s.Cursor)), countText(int64(s.Lag.Commits)), rateText(s.Rate) + "/s", fmt.Sprint(s.Parked), fmt.Sprint(alive(s.Workers)),
		})
	}
	return aligned(rows, 2, 3, 4, 5, 6)
}

func alive(workers []task.Worker) int {
	n := 0
	for _, w := range workers {
		if w.Alive {
			n++
		}
	}
	return n
}

func newTaskShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show how a task is",
		Long:  `All that is known of it: what it reads and writes, how far it is, its workers, what of the log is kept for it, and what its last error was.`,
		Example: `  batchlog task show audit
  batchlog task show audit --json`,
		Args: takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				if a.json {
					return a.printJSON(s)
				}
				_, err := a.out.WriteString(taskText(s, time.Now()))
				return err
			})
		}),
	}
}

// onTask calls fn with a task that there is.
func (a *app) onTask(ctx context.Context, name string, fn func(db *local.DB, s task.Status) error) error {
	return a.withDB(false, func(db *local.DB) error {
		s, err := task.Get(ctx, db.DB, name)
		if err == nil {
			err = fn(db, s)
		}
		if errors.Is(err, task.ErrUnknown) {
			err = &hintedError{err: &notFoundError{what: fmt.Sprintf("no task %q", name)}, hint: "list those that there are: batchlog task ls" + a.dbFlag()}
		}
		return interruption(ctx, err)
	})
}

// taskText is all of s for people.
func taskText(s task.Status, now time.Time) string {
	state := s.State
	if s.Reason != "" {
		state += ": " + s.Reason
	}
	source := "all spaces"
	if len(s.Source) > 0 {
		source = strings.Join(s.Source, ", ")
	}
	rows := [][]string{{"task", printable(s.Name)}, {"state", state}, {"source", source}}
	if len(s.Derives) > 0 {
		rows = append(rows, []string{"derives", strings.Join(s.Derives, ", ")})
	}
	cursor := fmt.Sprintf("%s of %s", countText(int64(s.Cursor)), countText(int64(s.Head)))
	if !s.Moved.IsZero() {
		cursor += ", moved " + agoText(now.Sub(s.Moved))
	}
	rows = append(rows, []string{"cursor", cursor}, []string{"lag", lagText(s)}, []string{"parked", counted(s.Parked, "window")})
	for _, w := range s.Workers {
		rows = append(rows, []string{"worker", workerText(w, now)})
	}
	hold := "nothing: it was let go; task reset takes hold again"
	if s.Hold > 0 {
		hold = fmt.Sprintf("commits from %s on", countText(int64(s.Hold)))
	}
	rows = append(rows, []string{"holds", hold})
	if s.Error != "" {
		failed := fmt.Sprintf("commits %s to %s, after %s", countText(int64(s.First)), countText(int64(s.Last)), counted(s.Attempts, "attempt"))
		if !s.Next.IsZero() {
			failed += ", again " + untilText(s.Next.Sub(now))
		}
		rows = append(rows, []string{"failed", failed})
		for i, line := range strings.Split(strings.TrimRight(s.Error, "\n"), "\n") {
			name := "error"
			if i > 0 {
				name = ""
			}
			rows = append(rows, []string{name, printable(line)})
		}
	}
	return aligned(rows)
}

func lagText(s task.Status) string {
	if s.Lag.Commits == 0 {
		return "none"
	}
	text := fmt.Sprintf("%s, %s, the first %s old", counted(int64(s.Lag.Commits), "commit"), bytesText(s.Lag.Bytes), durationText(seconds(s.Lag.Seconds)))
	if s.Lag.InDoubt {
		text += " (the clock is in doubt)"
	}
	if s.Rate > 0 {
		text += "; " + rateText(s.Rate) + " commits/s"
	}
	if s.ETA > 0 {
		text += ", at head in " + durationText(seconds(s.ETA))
	}
	return text
}

func workerText(w task.Worker, now time.Time) string {
	text := fmt.Sprintf("%d  %s, since %s", w.Fence, printable(w.Name), w.Since.Local().Format(time.DateTime))
	if !w.Alive {
		text += ", last seen " + agoText(now.Sub(w.Seen))
	}
	if w.First > 0 {
		text += fmt.Sprintf(", at commits %s to %s", countText(int64(w.First)), countText(int64(w.Last)))
	}
	return text
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func agoText(d time.Duration) string { return durationText(max(d, 0)) + " ago" }

func untilText(d time.Duration) string {
	if d <= 0 {
		return "now"
	}
	return "in " + durationText(d)
}

// errIfPaused refuses to run a task that would only wait.
func (a *app) errIfPaused(ctx context.Context, db *batchlog.DB, name string) error {
	s, err := task.Get(ctx, db, name)
	if errors.Is(err, task.ErrUnknown) {
		return nil
	}
	if err == nil && s.State == "paused" {
		return &hintedError{err: fmt.Errorf("task %s is paused", name), hint: fmt.Sprintf("end that: batchlog task resume %s%s", shellWord(name), a.dbFlag())}
	}
	return err
}
