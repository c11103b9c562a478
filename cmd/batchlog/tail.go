package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
	"github.com/bytespace/batchlog/local"
)

func newTail(a *app) *cobra.Command {
	var from, until string
	cmd := &cobra.Command{
		Use:   "tail [SPACE…]",
		Short: "Print commits as lines of JSON, and follow the log",
		Long: `A line is a commit:

  {"id":7,"time":"RFC 3339","labels":{…},"ops":[{"put":{"space":…,"key":…,"value":…}},…]}

with ops as write takes them; a value that is a blob is {"put":{"space":…,"key":…,"blob":{"sha256":"hex","size":N}}}. A chain is one line as any commit, as
long as it is: nothing holds it in memory here. With SPACEs only commits with an op in one of them, spaces within included, and only those ops. Commits come in the order of their
ids, each once, none left out; where that can't be kept it ends with an error that says which are missing.

It begins with the oldest commit that the log has and goes on for ever with those that are yet to come, unless --until says
where to stop. Ctrl-C ends it with exit code 0, unless it is in the middle of a line.`,
		Example: `  batchlog tail --until head
  batchlog tail users --from now
  batchlog tail users/eu '["users",7]' --from 2 --until 3
  batchlog tail --from 1h --until head`,
		Args: takes(0, -1),
		RunE: a.runs(func(ctx context.Context, args []string) error { return a.tail(ctx, args, from, until) }),
	}
	cmd.Flags().StringVar(&from, "from", "oldest", "first commit to print: an `ID`, first (an error if it is no longer kept), oldest, now, a time or how long ago (90s, 2h, 7d)")
	cmd.Flags().StringVar(&until, "until", "", "last commit to print: an `ID`, or head for the one that is newest now; without it, follow")
	return cmd
}

func (a *app) tail(ctx context.Context, args []string, from, until string) error {
	var o batchlog.TailOptions
	var err error
	if o.From, err = parsePosition("--from", from, time.Now()); err != nil {
		return err
	}
	toHead := until == "head"
	if until != "" && !toHead {
		if o.Until, err = parseID(until); err != nil {
			return fmt.Errorf("--until: %w", err)
		}
		if o.Until == 0 {
			return nil // all commits up to the one before the first
		}
	}
	var paths [][]any
	for _, arg := range args {
		path, err := pathArg(arg)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	return a.withDB(false, func(db *local.DB) error {
		for _, path := range paths {
			o.Spaces = append(o.Spaces, db.Space(path...))
		}
		if toHead {
			if o.Until, err = db.Head(ctx); err != nil || o.Until == 0 {
				return err
			}
		}
		err := a.printCommits(ctx, db, o)
		var interrupt *interruptError
		var torn *tornError
		if errors.As(interruption(ctx, err), &interrupt) && !errors.As(err, &torn) {
			return nil // the way to end it; what was printed is flushed
		}
		return err
	})
}

// A tornError says that the last line which was printed has no end.
type tornError struct {
	id  batchlog.ID
	err error
}

func (e *tornError) Error() string { return fmt.Sprintf("in the middle of commit %d: %v", e.id, e.err) }
func (e *tornError) Unwrap() error { return e.err }

// printCommits prints the commits of a tail. Lines are flushed when there is nothing more to print for now.
func (a *app) printCommits(ctx context.Context, db *local.DB, o batchlog.TailOptions) error {
	out := &checkedWriter{ctx, a.out}
	head := batchlog.ID(0) // as it was when last asked
	o.Bookmarks = true     // they say that nothing more comes for now: time to flush
	for c, err := range db.Tail(ctx, o) {
		if err != nil {
			return err
		}
		if !c.Bookmark() {
			written := false
			err := opjson.WriteCommit(writerFunc(func(p []byte) (int, error) {
				n, err := out.Write(p)
				written = written || n > 0
				return n, err
			}), c)
			if err == nil {
				_, err = a.out.WriteString("\n")
			}
			if err != nil && written {
				err = &tornError{id: c.ID, err: err}
			}
			if err != nil {
				return err
			}
		}
		if c.ID >= head {
			if head, err = db.Head(ctx); err != nil {
				return err
			}
		}
		if c.ID >= head {
			if err := a.out.Flush(); err != nil {
				return fmt.Errorf("write output: %w", err)
			}
		}
	}
	return nil
}
