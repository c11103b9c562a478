package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

func newExplain(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "explain",
		Short:   "Say why something takes long",
		Long:    `See batchlog explain read --help.`,
		Example: `  batchlog explain read users`,
		Args:    cobra.ArbitraryArgs,
		RunE:    group,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "read SPACE",
		Short: "Say what a read of a space would wait for now",
		Long: `A read of a space that a task derives waits until the task has handled all that was written to its sources before. A line is a task that a read
in SPACE, or within it, would wait for, those that feed others first. With --json a line is an object.`,
		Example: `  batchlog explain read users
  batchlog explain read users/eu --json`,
		Args: takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			path, err := pathArg(args[0])
			if err != nil {
				return err
			}
			return a.withDB(false, func(db *local.DB) error {
				waits, err := task.Explain(ctx, db.DB, db.Space(path...))
				if err != nil {
					return interruption(ctx, err)
				}
				return printAll(a, waits, waitsText)
			})
		}),
	})
	return cmd
}

func waitsText(waits []task.Wait) string {
	if len(waits) == 0 {
		return "no task derives it: a read waits for nothing but the store\n"
	}
	text := ""
	for _, w := range waits {
		text += fmt.Sprintf("%s is derived by task %s, %s\n", w.Space, printable(w.Task), w.State)
		if w.Until == 0 {
			text += fmt.Sprintf("  no wait: the task has handled all that concerns it, up to commit %s\n", countText(int64(w.Cursor)))
			continue
		}
		text += fmt.Sprintf("  waits until the task, at commit %s, is at %s: %s to go", countText(int64(w.Cursor)), countText(int64(w.Until)), counted(int64(w.Behind), "commit"))
		if w.ETA > 0 {
			text += ", about " + durationText(seconds(w.ETA))
		}
		text += "\n"
		if w.Reason != "" {
			text += "  why: " + clipped(oneLine(w.Reason), 200, "…") + "\n"
		}
	}
	return text
}
