package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// copyFlags are the flags of copy and move.
type copyFlags struct {
	writeFlags
	rangeFlags
	tree bool
	move bool // it is move
}

func newCopy(a *app) *cobra.Command {
	return newTransfer(a, copyFlags{}, &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy keys from one space into another, as one commit",
		Long: `DST then has what SRC had right before the commit, whatever others write meanwhile; keys that DST has besides stay. Spaces within SRC
are not copied; with --tree they are, to the same places within DST. Nothing is read into this process, and any number of keys is one commit:
all of it shows at once or not at all. It prints the commit's id and how many keys were copied.`,
		Example: `  batchlog copy users backup
  batchlog copy users backup --prefix al --label why=backup
  batchlog copy users archive/users --tree --json`,
	})
}

func newMove(a *app) *cobra.Command {
	return newTransfer(a, copyFlags{move: true}, &cobra.Command{
		Use:   "move SRC DST",
		Short: "Move keys from one space into another, as one commit",
		Long: `As copy, and the keys are deleted in SRC by the same commit: nothing is lost and nothing is in both at any moment. A key that DST has is
overwritten. With --tree the spaces within SRC move, too.`,
		Example: `  batchlog move users people --from alice --to bob
  batchlog move users/eu users/us
  batchlog move users people --tree`,
	})
}

func newTransfer(a *app, flags copyFlags, cmd *cobra.Command) *cobra.Command {
	cmd.Args = takes(2, 2)
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error { return a.copy(ctx, args[0], args[1], flags) })
	flags.rangeFlags.add(cmd)
	cmd.Flags().BoolVar(&flags.tree, "tree", false, "all spaces within SRC as well")
	flags.writeFlags.add(cmd)
	return cmd
}

// A copied is what copy --json prints.
type copied struct {
	ID   batchlog.ID `json:"id"`
	Ops  int64       `json:"ops"`  // of the commit: with move also those that delete
	Keys int64       `json:"keys"` // that were copied or moved
}

func (a *app) copy(ctx context.Context, from, to string, flags copyFlags) error {
	srcPath, err := pathArg(from)
	if err != nil {
		return err
	}
	dstPath, err := pathArg(to)
	if err != nil {
		return err
	}
	r, err := flags.keys()
	if err != nil {
		return err
	}
	if flags.tree && (flags.given("prefix") || flags.given("from") || flags.given("to")) {
		return usagef("--tree takes all that is within SRC: --prefix, --from and --to don't go with it")
	}
	labels, err := parseLabels(flags.labels)
	if err != nil {
		return err
	}
	return a.withDB(false, func(db *local.DB) (err error) {
		src, dst := db.Space(srcPath...), db.Space(dstPath...)
		if src.Equal(dst) {
			return usagef("SRC and DST are the same space, %s", src)
		}
		stages := &stageMeter{meters: a.meters()}
		defer stages.end()
		c, err := db.Chain(ctx)
		if err != nil {
			return interruption(ctx, err)
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		c.Token, c.Labels, c.Progress = flags.token, labels, stages.chain
		if err := flags.fill(c, dst, src, r); err != nil {
			return interruption(ctx, err)
		}
		id, err := c.Commit(ctx)
		if err != nil {
			return interruption(ctx, err)
		}
		stages.end()
		return a.printCopied(ctx, db.DB, id)
	})
}

// fill adds what is to be copied or moved to c.
func (f *copyFlags) fill(c *batchlog.Chain, dst, src *batchlog.Space, r batchlog.Range) error {
	switch {
	case f.tree && f.move:
		return c.MoveTree(dst, src)
	case f.tree:
		return c.CopyTree(dst, src)
	case f.move:
		return c.MoveRange(dst, src, r)
	}
	return c.CopyRange(dst, src, r)
}

func (a *app) printCopied(ctx context.Context, db *batchlog.DB, id batchlog.ID) error {
	done, err := readCopied(ctx, db, id)
	switch {
	case err != nil:
		return fmt.Errorf("it is commit %d, and durable; count its keys: %w", id, interruption(ctx, err))
	case a.json:
		return a.printJSON(done)
	}
	_, err = fmt.Fprintf(a.out, "commit %d: %s\n", id, counted(done.Keys, "key"))
	return err
}

// readCopied reads what a commit has done.
func readCopied(ctx context.Context, db *batchlog.DB, id batchlog.ID) (copied, error) {
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(id), Until: id}) {
		if err != nil {
			return copied{}, err
		}
		done := copied{ID: id, Ops: int64(c.Len())}
		for op, err := range c.Ops() {
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return copied{}, err
			}
			if op.Kind == batchlog.OpPut {
				done.Keys++
			}
		}
		return done, nil
	}
	return copied{}, fmt.Errorf("no commit %d in the log", id)
}
