package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog/local"
)

func newChain(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chain",
		Short: "List and remove chains that are not committed",
		Long: `A chain is a commit of any size: import --atomic, copy and move make one. What it collects waits on disk, beside the log, until it is committed;
what a crash leaves of one is invisible and is removed after an hour, or by chain sweep.`,
		Example: `  batchlog chain ls
  batchlog chain sweep --older-than 1h`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(newChainLs(a), newChainSweep(a))
	return cmd
}

func newChainLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List chains that are not committed",
		Long:  `Those under way, and those that a crash has left behind, of which the number of ops is not known.`,
		Example: `  batchlog chain ls
  batchlog chain ls --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error { return a.chainLs(ctx, db) })
		}),
	}
}

func (a *app) chainLs(ctx context.Context, db *local.DB) error {
	chains, err := db.Chains(ctx)
	if err != nil {
		return interruption(ctx, err)
	}
	rows := [][]string{{"CHAIN", "STATE", "BEGUN", "OPS", "SIZE"}}
	for _, c := range chains {
		if a.json {
			if err := a.printJSON(c); err != nil {
				return err
			}
			continue
		}
		state, ops := "left behind", "-"
		if c.Open {
			state, ops = "open", countText(c.Ops)
		}
		rows = append(rows, []string{printable(c.Name), state, c.Begun.Local().Format(time.DateTime), ops, bytesText(c.Bytes)})
	}
	switch {
	case a.json:
		return nil
	case len(chains) == 0:
		_, err = a.out.WriteString("no chains\n")
	default:
		_, err = a.out.WriteString(aligned(rows, 3, 4))
	}
	return err
}

func newChainSweep(a *app) *cobra.Command {
	age := duration(time.Hour)
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Remove chains that a crash has left behind",
		Long:  `It prints how many they were, and how many bytes of disk are free now. Chains that are under way stay.`,
		Example: `  batchlog chain sweep
  batchlog chain sweep --older-than 0s --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error {
				chains, bytes, err := db.SweepChains(ctx, time.Duration(age))
				if err != nil {
					return interruption(ctx, err)
				}
				if a.json {
					return a.printJSON(swept{chains, bytes})
				}
				_, err = fmt.Fprintf(a.out, "removed %s, %s\n", counted(chains, "chain"), bytesText(bytes))
				return err
			})
		}),
	}
	cmd.Flags().Var(&age, "older-than", "only those that were begun that long ago, as 1h or 2d; 0s: all")
	return cmd
}

// A swept is what chain sweep --json prints.
type swept struct {
	Chains int   `json:"chains"`
	Bytes  int64 `json:"bytes"`
}
