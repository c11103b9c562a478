package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog/local"
)

func newClock(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clock",
		Short: "Say that the machine's clock is right",
		Long: `What is kept for a time is not dropped because a clock says so that may be wrong: when the machine's clock jumps, or when the
machine was off for more than 30 days, only the time counts that is known to have passed. Status says when that is so.`,
		Example: `  batchlog clock trust`,
		Args:    cobra.ArbitraryArgs,
		RunE:    group,
	}
	trust := &cobra.Command{
		Use:   "trust",
		Short: "Count the time that the clock is in doubt by",
		Long: `The machine's clock is right: what is past its time by it goes with the next trim, within a minute of the database being
open.`,
		Example: `  batchlog status
  batchlog clock trust`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error { return db.TrustClock(ctx) })
		}),
	}
	cmd.AddCommand(trust)
	return cmd
}
