package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

// A doneJSON is what commands that change a task print with --json.
type doneJSON struct {
	Task string `json:"task"`
	Done string `json:"done"`
	More any    `json:"more,omitempty"`
}

// done says that a task was changed.
func (a *app) done(name, what string, more any, text string) error {
	if a.json {
		return a.printJSON(doneJSON{name, what, more})
	}
	_, err := fmt.Fprintf(a.out, "task %s: %s\n", printable(name), text)
	return err
}

func newTaskPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "pause NAME",
		Short:   "Have a task commit no further window until it is resumed",
		Long:    `What it was computing is given up, and computed again after task resume. The log is kept for it meanwhile.`,
		Example: `  batchlog task pause audit`,
		Args:    takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				if err := task.Pause(ctx, db.DB, s.Name); err != nil {
					return err
				}
				return a.done(s.Name, "paused", nil, "paused")
			})
		}),
	}
}

func newTaskResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "resume NAME",
		Short:   "End the pause of a task",
		Long:    `It goes on where it was, when it has a worker: task run.`,
		Example: `  batchlog task resume audit`,
		Args:    takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				if err := task.Resume(ctx, db.DB, s.Name); err != nil {
					return err
				}
				return a.done(s.Name, "resumed", nil, "resumed")
			})
		}),
	}
}

func newTaskReset(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "reset NAME POSITION",
		Short: "Have a task go on from another place in the log",
		Long: `POSITION is the commit that is handled next: an ID, first (an error if it is no longer kept), oldest, now, a time or how long ago (90s, 2h,
7d). Commits are handled once more, or never; what the task has written stays, and so do windows that are parked. With --dry-run it says how many.`,
		Example: `  batchlog task reset audit first
  batchlog task reset audit 2 --json`,
		Args: takes(2, 2),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			pos, err := parsePosition("POSITION", args[1], time.Now())
			if err != nil {
				return err
			}
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				if dryRun {
					return a.planReset(ctx, db, s.Name, pos)
				}
				if err := task.Reset(ctx, db.DB, s.Name, pos); err != nil {
					return err
				}
				now, err := task.Get(ctx, db.DB, s.Name)
				if err != nil {
					return err
				}
				return a.done(s.Name, "reset", now, fmt.Sprintf("cursor moved from %s to %s", countText(int64(s.Cursor)), countText(int64(now.Cursor))))
			})
		}),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change, and change nothing")
	return cmd
}

func (a *app) planReset(ctx context.Context, db *local.DB, name string, pos batchlog.Position) error {
	p, err := task.PlanReset(ctx, db.DB, name, pos)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(p)
	}
	_, err = a.out.WriteString(resetText(name, p))
	return err
}

func resetText(name string, p task.ResetPlan) string {
	text := fmt.Sprintf("task %s: the cursor would move from %s to %s\n", printable(name), countText(int64(p.From)), countText(int64(p.To)))
	if p.Again > 0 {
		text += "  " + counted(int64(p.Again), "commit") + " handled once more\n"
	}
	if p.Skips > 0 {
		text += "  " + counted(int64(p.Skips), "commit") + " never handled\n"
	}
	if p.Parked > 0 {
		text += "  " + counted(p.Parked, "parked window") + " left as they are\n"
	}
	return text
}

func newTaskDrop(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop NAME --yes",
		Short: "Forget a task",
		Long: `Its cursor, its parked windows, and that the log is kept for it are gone; run again under its name it is new. What it has written
stays. --yes says that this is meant.`,
		Example: `  batchlog task drop audit --yes`,
		Args:    takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if !yes {
				return usagef("the task's cursor and its parked windows would be lost: --yes says that this is meant")
			}
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				if err := task.Drop(ctx, db.DB, s.Name); err != nil {
					return err
				}
				return a.done(s.Name, "dropped", nil, fmt.Sprintf("dropped at commit %s, with %s", countText(int64(s.Cursor)), counted(s.Parked, "parked window")))
			})
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, forget it")
	return cmd
}

func newTaskParked(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "parked NAME",
		Short: "List the windows that a task has set aside",
		Long:  `A line is a window that failed for good, with what its last attempt ended with. The log keeps its commits. With --json a line is an object.`,
		Example: `  batchlog task parked audit
  batchlog task parked audit --json`,
		Args: takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				all, err := task.Parked(ctx, db.DB, s.Name)
				if err != nil {
					return err
				}
				return printAll(a, all, parkedText)
			})
		}),
	}
}

func parkedText(all []task.ParkedWindow) string {
	if len(all) == 0 {
		return "no parked windows\n"
	}
	rows := [][]string{{"FIRST", "LAST", "ATTEMPTS", "LAST TRIED", "RETRY", "ERROR"}}
	for _, w := range all {
		retry := ""
		if w.Retry {
			retry = "asked for"
		}
		rows = append(rows, []string{
			countText(int64(w.First)), countText(int64(w.Last)), fmt.Sprint(w.Attempts), w.Time.Local().Format(time.DateTime), retry, clipped(oneLine(w.Error), 120, "…"),
		})
	}
	return aligned(rows, 0, 1, 2)
}

func newTaskRetry(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "retry NAME [FIRST]",
		Short: "Have parked windows tried again",
		Long: `FIRST is the commit that the window begins with; without it, all are tried. That is done when the task has a worker: task run. A window that
succeeds is off the list; one that fails stays on it. The task's cursor stays where it is.`,
		Example: `  batchlog task retry audit`,
		Args:    takes(1, 2),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			var first batchlog.ID
			if len(args) == 2 {
				var err error
				if first, err = parseID(args[1]); err != nil {
					return err
				}
			}
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				n, err := task.RetryParked(ctx, db.DB, s.Name, first)
				if err != nil {
					return err
				}
				return a.done(s.Name, "retry", n, counted(n, "parked window")+" to be tried again by the next worker")
			})
		}),
	}
}
