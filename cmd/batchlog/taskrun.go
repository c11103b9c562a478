package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/bytespace/batchlog/task/subprocess"
)

type taskRunFlags struct {
	exec            string
	source, derives []string
	start           string
	window          task.Limit
	windowBytes     byteSize
	windowWait      duration
	concurrency     int
	attempts        int
	poison          string
	timeout         duration
	untilHead       bool
}

func newTaskRun(a *app) *cobra.Command {
	flags := taskRunFlags{start: "first", poison: "stop", concurrency: 1}
	cmd := &cobra.Command{
		Use:   "run NAME --exec CMD",
		Short: "Run a task whose worker is a command, in any language",
		Long: `CMD is a line for the shell. It is started when there is something to handle and handed windows of commits as lines of JSON on its
stdin; it answers each with a line of ops on its stdout, which are committed together with the task's cursor. docs/workers.md
has the protocol. What it writes to stderr is shown. A worker that fails, ends, hangs or talks nonsense is replaced, and the window tried again.

A task whose --source covers what it writes feeds on itself, for ever.

It runs until Ctrl-C, which ends it with exit code 0, or with --until-head until it has handled all that was in the log when it began; interrupted
before that, the exit code is 130. It holds the database open meanwhile: no other command can use it. Run again it goes on where it was.

With --json each change of the task is a line, as task show --json prints it.`,
		Example: `  batchlog task run audit --source users --exec 'sh audit.sh' --until-head
  batchlog task run audit2 --source users --start 2 --concurrency 4 --exec 'sh audit.sh' --until-head --json
  batchlog task run fails --source users --exec 'exit 1' --attempts 2 --poison park --until-head`,
		Args: takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error { return a.taskRun(ctx, args[0], flags) }),
	}
	f := cmd.Flags()
	f.StringVar(&flags.exec, "exec", "", "`CMD` for /bin/sh that is the worker")
	f.StringArrayVar(&flags.source, "source", nil, "`SPACE` whose commits are handled, those within included; may be given several times; none: all")
	f.StringArrayVar(&flags.derives, "derives", nil, "`SPACE` that this task alone writes; may be given several times")
	f.StringVar(&flags.start, "start", flags.start, "where a new task begins: an `ID`, first (an error if it is no longer kept), oldest, now, a time or how long ago (90s, 2h, 7d)")
	f.IntVar(&flags.window.Commits, "window-commits", 0, "at most `N` commits are handled together; 0: 1000")
	f.Var(&flags.windowBytes, "window-bytes", "and no further one after so many bytes of ops, as 1MiB; 0: 4MiB")
	f.Var(&flags.windowWait, "window-wait", "how long a window that has commits waits for more")
	f.IntVar(&flags.concurrency, "concurrency", flags.concurrency, "`N` windows are computed at once, by as many processes; the outcome is the same with any")
	f.IntVar(&flags.attempts, "attempts", 0, "a window is tried `N` times in all; 0: 10")
	f.StringVar(&flags.poison, "poison", flags.poison, "`POLICY` for a window that failed so often: stop, park or skip")
	f.Var(&flags.timeout, "timeout", "how long the worker may take for a window; 0s: 1m")
	f.BoolVar(&flags.untilHead, "until-head", false, "end when all that is in the log now is handled")
	return cmd
}

// spec is the task that the flags say, on db. It has no handler yet.
func (f taskRunFlags) spec(db *batchlog.DB, name string) (task.Task, error) {
	poison, ok := map[string]task.Poison{"stop": task.Stop, "park": task.Park, "skip": task.Skip}[f.poison]
	switch {
	case name == "":
		return task.Task{}, usagef("a task has a name")
	case f.exec == "":
		return task.Task{}, usagef("--exec CMD is missing: the command that handles windows")
	case !ok:
		return task.Task{}, usagef("--poison %q: stop, park or skip", f.poison)
	case f.window.Commits < 0 || f.concurrency < 1 || f.attempts < 0:
		return task.Task{}, usagef("--window-commits and --attempts are at least 0, --concurrency at least 1")
	}
	start, err := parsePosition("--start", f.start, time.Now())
	if err != nil {
		return task.Task{}, err
	}
	t := task.Task{Name: name, Start: start, Window: f.window, Concurrency: f.concurrency, Retry: task.Retry{Attempts: f.attempts}, Poison: poison}
	t.Window.Bytes, t.Window.Wait = int(f.windowBytes), time.Duration(f.windowWait)
	for texts, spaces := range map[*[]string]*[]*batchlog.Space{&f.source: &t.Source, &f.derives: &t.Derives} {
		for _, text := range *texts {
			path, err := pathArg(text)
			if err != nil {
				return task.Task{}, err
			}
			*spaces = append(*spaces, db.Space(path...))
		}
	}
	return t, nil
}

func (a *app) taskRun(ctx context.Context, name string, flags taskRunFlags) error {
	// Before a database is opened: a wrong call is told as such even where there is none.
	if _, err := flags.spec(batchlog.New(nil), name); err != nil {
		return err
	}
	return a.withDB(false, func(db *local.DB) (err error) {
		t, err := flags.spec(db.DB, name)
		if err != nil {
			return err
		}
		if err := a.errIfPaused(ctx, db.DB, name); err != nil {
			return err
		}
		show := newTaskReport(a, t)
		t.Logger = slog.New(slog.NewTextHandler(show, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
		workers, err := subprocess.New(db.DB, subprocess.Options{Task: name, Shell: flags.exec, Timeout: time.Duration(flags.timeout), Logger: t.Logger})
		if err != nil {
			return err
		}
		defer func() {
			if closeErr := workers.Close(); closeErr != nil {
				fmt.Fprintf(a.err, "batchlog: %v\n", closeErr) // that ended nothing which was wanted
			}
		}()
		t.Handle = workers.Handle
		return a.runTask(ctx, db.DB, t, show, flags.untilHead)
	})
}

// withoutTime leaves out what a person who looks on knows.
func withoutTime(_ []string, attr slog.Attr) slog.Attr {
	if attr.Key == slog.TimeKey || attr.Key == "task" {
		return slog.Attr{}
	}
	return attr
}

var errAtHead = errors.New("at head")

// runTask runs t and shows how it goes, until ctx ends or, if untilHead is set, t has handled what is in the log now.
func (a *app) runTask(ctx context.Context, db *batchlog.DB, t task.Task, show *taskReport, untilHead bool) error {
	head, err := db.Head(ctx)
	if err != nil {
		return err
	}
	running, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		stop(show.watch(running, db, func(s task.Status) error {
			if !untilHead {
				return nil
			}
			ok, err := handled(running, db, t, s, head)
			if err == nil && ok {
				err = errAtHead
			}
			return err
		}))
	}()
	stop(task.Run(running, db, t))
	<-watched
	err = context.Cause(running) // whatever came first
	if showErr := show.last(ctx, db); showErr != nil && errors.Is(err, errAtHead) {
		err = showErr
	}
	var interrupt *interruptError
	switch {
	case errors.Is(err, errAtHead):
		return nil
	case errors.As(interruption(ctx, err), &interrupt):
		if untilHead {
			return interrupt
		}
		return nil // the way to end it
	}
	return a.taskEnded(t.Name, err)
}

// handled reports whether a task has handled all that concerns it up to head, and every parked window that is to be tried again.
func handled(ctx context.Context, db *batchlog.DB, t task.Task, s task.Status, head batchlog.ID) (bool, error) {
	parked, err := task.Parked(ctx, db, t.Name)
	if err != nil {
		return false, err
	}
	for _, w := range parked {
		if w.Retry {
			return false, nil
		}
	}
	if s.Cursor >= head {
		return true, nil
	}
	// A cursor may stay behind commits that do not concern the task.
	source := t.Source
	if len(source) == 0 {
		source = []*batchlog.Space{db.Root()}
	}
	for _, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(s.Cursor), Until: head, Spaces: source}) {
		return false, err
	}
	return true, nil
}

// taskEnded is why a task ended that should not have, with what to do next.
func (a *app) taskEnded(name string, err error) error {
	var (
		poison *task.PoisonError
		word   = shellWord(name)
	)
	switch {
	case errors.As(err, &poison):
		return &hintedError{err: poison, hint: fmt.Sprintf("mend the worker and run the task again, which tries that window anew\n"+
			"or set it aside: --poison park; or leave it out: batchlog task reset %s %d%s", word, poison.Last+1, a.dbFlag())}
	case errors.Is(err, batchlog.ErrGap):
		return &hintedError{err: err, hint: fmt.Sprintf("go on with the oldest commit that is kept: batchlog task reset %s oldest%s; or begin there: --start oldest", word, a.dbFlag())}
	case errors.Is(err, task.ErrUnknown):
		return &hintedError{err: err, hint: "it was dropped while it ran; run it again and it is new"}
	}
	return err
}
