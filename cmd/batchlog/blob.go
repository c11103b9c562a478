package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog/local"
)

func newBlob(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "blob",
		Short: "Remove blobs that nothing refers to",
		Long: `A blob is a value that is kept outside of log and store, in a file that is named by the hash of its content: put --file makes one, and space
configure --blob-bytes has all large values be some. It goes when no key and no commit in the log refers to it any more, at times by itself, or by blob sweep.`,
		Example: `  batchlog blob sweep`,
		Args:    cobra.ArbitraryArgs,
		RunE:    group,
	}
	cmd.AddCommand(newBlobSweep(a))
	return cmd
}

// A sweptBlobs is what blob sweep --json prints.
type sweptBlobs struct {
	Blobs   int64 `json:"blobs"` // that are left
	Bytes   int64 `json:"bytes"` // of these
	Removed int64 `json:"removed"`
	Freed   int64 `json:"freed"` // bytes
}

func newBlobSweep(a *app) *cobra.Command {
	age := duration(time.Hour)
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Remove blobs that nothing refers to",
		Long: `Neither a key nor a commit that the log still has. What was stored but never committed, as by a put --file that was interrupted, goes when it is
old enough. It prints what was removed, and what is left.`,
		Example: `  batchlog blob sweep
  batchlog blob sweep --older-than 0s --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error {
				s, err := db.SweepBlobs(ctx, time.Duration(age))
				if err != nil {
					return interruption(ctx, err)
				}
				if a.json {
					return a.printJSON(sweptBlobs(s))
				}
				_, err = fmt.Fprintf(a.out, "removed %s, %s; %s left, %s\n", counted(s.Removed, "blob"), bytesText(s.Freed), countText(s.Blobs), bytesText(s.Bytes))
				return err
			})
		}),
	}
	cmd.Flags().Var(&age, "older-than", "only those that were stored that long ago, as 1h or 2d; 0s: all")
	return cmd
}
