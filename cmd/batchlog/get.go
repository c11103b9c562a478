package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// readFlags are the flags that say what state a read is content with.
type readFlags struct {
	stale   bool
	atLeast uint64
	maxWait duration
}

// defaultMaxWait is short: while the command has the database open no other process writes, and none works on its tasks, so what is not
// there soon will not come.
const defaultMaxWait = duration(200 * time.Millisecond)

func (f *readFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.stale, "stale", false, "show what the store has now, without waiting for the newest commit")
	cmd.Flags().Uint64Var(&f.atLeast, "at-least", 0, "wait for the commit with this `ID`, and for no later one")
	f.maxWait = defaultMaxWait
	cmd.Flags().Var(&f.maxWait, "max-wait", "wait no longer than this, for a commit or for the task that derives the space; 0: for ever")
}

func (f *readFlags) options() ([]batchlog.ReadOption, error) {
	if f.stale && f.atLeast > 0 {
		return nil, usagef("--stale and --at-least exclude each other")
	}
	var opts []batchlog.ReadOption
	if f.stale {
		opts = append(opts, batchlog.Stale())
	}
	if f.atLeast > 0 {
		opts = append(opts, batchlog.AtLeast(batchlog.ID(f.atLeast)))
	}
	if f.maxWait > 0 {
		opts = append(opts, batchlog.MaxWait(time.Duration(f.maxWait)))
	}
	return opts, nil
}

func newGet(a *app) *cobra.Command {
	var flags readFlags
	cmd := &cobra.Command{
		Use:   "get SPACE KEY",
		Short: "Write the value of a key to stdout",
		Long: `The bytes of the value are written as they are: no newline is added, and --json changes nothing. A key that is not there
is exit code 3.`,
		Example: `  batchlog get users alice
  batchlog get users/eu '["bob",7]' > bob.txt`,
		Args: takes(2, 2),
		RunE: a.runs(func(ctx context.Context, args []string) error { return a.get(ctx, args, flags) }),
	}
	flags.add(cmd)
	return cmd
}

func (a *app) get(ctx context.Context, args []string, flags readFlags) error {
	opts, err := flags.options()
	if err != nil {
		return err
	}
	path, err := pathArg(args[0])
	if err != nil {
		return err
	}
	key, err := parseKey(args[1])
	if err != nil {
		return err
	}
	return a.withDB(false, func(db *local.DB) error {
		s := db.Space(path...)
		value, err := s.Get(ctx, key, opts...)
		if errors.Is(err, batchlog.ErrNotFound) {
			return &notFoundError{what: fmt.Sprintf("no key %s in space %s", key, s)}
		}
		if err != nil {
			return interruption(ctx, err)
		}
		_, err = a.out.Write(value)
		return err
	})
}
