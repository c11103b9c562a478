package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
)

func newDel(a *app) *cobra.Command {
	var flags writeFlags
	cmd := &cobra.Command{
		Use:   "del SPACE KEY",
		Short: "Delete a key",
		Long:  `It prints the id of the commit when that is durable. To delete a key that is not there is a commit as well, and no error.`,
		Example: `  batchlog del users alice
  batchlog del users/eu '["bob",7]' --label actor=me`,
		Args: takes(2, 2),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			key, err := parseKey(args[1])
			if err != nil {
				return err
			}
			return a.writeOne(ctx, args[0], flags, false, func(s *batchlog.Space, b *batchlog.Batch) error {
				b.Delete(s, key)
				return nil
			})
		}),
	}
	flags.add(cmd)
	return cmd
}
