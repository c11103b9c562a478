package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

func newTaskHolds(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "holds",
		Short: "List what of the log is kept for tasks",
		Long: `The log keeps, whatever its time to live, what a task has yet to handle or has parked. A line is a task, the first commit that is kept for
it, how much there is from there on, and how old that commit is; the task that holds most comes first.`,
		Example: `  batchlog task holds
  batchlog task holds --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error {
				all, err := task.Holds(ctx, db.DB)
				if err != nil {
					return interruption(ctx, err)
				}
				return printAll(a, all, holdsText)
			})
		}),
	}
}

func holdsText(all []task.Hold) string {
	if len(all) == 0 {
		return "nothing is kept for a task\n"
	}
	rows := [][]string{{"TASK", "FIRST", "SIZE", "SINCE"}}
	for _, h := range all {
		rows = append(rows, []string{printable(h.Task), countText(int64(h.First)), bytesText(h.Bytes), sinceText(h)})
	}
	return aligned(rows, 1, 2)
}

func sinceText(h task.Hold) string {
	if h.Since.IsZero() {
		return "its writing"
	}
	return h.Since.Local().Format(time.DateTime)
}

func newTaskRelease(a *app) *cobra.Command {
	var (
		reason string
		yes    bool
	)
	cmd := &cobra.Command{
		Use:   "release NAME --reason TEXT --yes",
		Short: "Let go of the log that is kept for a task",
		Long: `The log may then drop commits that the task has yet to handle or has parked, and the task ends with an error when it comes to where they
were. That is for a disk that fills under a task which nobody mends. The commit that says so has the reason as a label. task reset takes hold again.`,
		Example: `  batchlog task release audit --reason 'the disk is full' --yes`,
		Args:    takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			switch {
			case reason == "":
				return usagef("--reason is missing: it is kept in the log")
			case !yes:
				return usagef("commits that the task has not handled may be lost to it: --yes says that this is meant")
			}
			return a.onTask(ctx, args[0], func(db *local.DB, s task.Status) error {
				if err := task.LetGo(ctx, db.DB, s.Name, reason); err != nil {
					return err
				}
				return a.done(s.Name, "released", nil, "the log is no longer kept for it")
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why: a `TEXT` that is kept in the log")
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, let go")
	return cmd
}
