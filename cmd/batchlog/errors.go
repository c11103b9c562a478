package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
)

// The exit codes.
const (
	exitDone        = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitInterrupted = 128 // and the signal's number: 130 after Ctrl-C
)

// A usageError is a call that makes no sense.
type usageError struct {
	cmd *cobra.Command // whose usage to show; nil: not known yet
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// of is err with cmd as the command whose usage to show, if it is about usage.
func of(cmd *cobra.Command, err error) error {
	var usage *usageError
	if errors.As(err, &usage) && usage.cmd == nil {
		return &usageError{cmd: cmd, err: err}
	}
	return err
}

// An interruptError says that a signal ended the work.
type interruptError struct{ signal os.Signal }

func (e *interruptError) Error() string { return "interrupted" }

// Is makes an interruption a cancelled context.
func (e *interruptError) Is(target error) bool { return target == context.Canceled }

// A missingError says that there is no database where one was to be read.
type missingError struct {
	dir string
	err error
}

func (e *missingError) Error() string { return "no database in " + e.dir }
func (e *missingError) Unwrap() error { return e.err }

// A notFoundError says what is not there. It is batchlog.ErrNotFound.
type notFoundError struct{ what string }

func (e *notFoundError) Error() string        { return e.what }
func (e *notFoundError) Is(target error) bool { return target == batchlog.ErrNotFound }

// A hintedError is an error of which the command knows what to do next.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// A differenceError says that a check has found something. What, has been printed.
type differenceError struct{ what string }

func (e *differenceError) Error() string { return e.what }

// exitCode is the exit code that err ends the process with.
func exitCode(err error) int {
	var usage *usageError
	var interrupt *interruptError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &interrupt):
		if s, ok := interrupt.signal.(syscall.Signal); ok {
			return exitInterrupted + int(s)
		}
		return exitInterrupted + int(syscall.SIGINT)
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, batchlog.ErrNotFound):
		return exitNotFound
	case errors.Is(err, batchlog.ErrConflict):
		return exitConflict
	}
	return exitError
}

// complain writes err to stderr, and what to do next where that is known.
func (a *app) complain(err error) {
	text := err.Error()
	var usage *usageError
	if errors.As(err, &usage) && usage.cmd != nil {
		path := strings.TrimPrefix(usage.cmd.CommandPath()+": ", "batchlog: ")
		path = strings.TrimPrefix(path, "batchlog ")
		fmt.Fprintf(a.err, "batchlog: %s%s\n  usage: %s\n  more:  %s --help\n", path, text, usage.cmd.UseLine(), usage.cmd.CommandPath())
		return
	}
	fmt.Fprintf(a.err, "batchlog: %s\n", text)
	if h := a.hint(err); h != "" {
		fmt.Fprintf(a.err, "  %s\n", strings.ReplaceAll(h, "\n", "\n  "))
	}
}

// hint says what to do about err, or nothing where its text already does.
func (a *app) hint(err error) string {
	var (
		hinted  *hintedError
		missing *missingError
		lock    *batchlog.LockError
		wait    *batchlog.WaitError
		tooNew  *batchlog.VersionError
		owner   *batchlog.OwnerError
		away    *batchlog.DirError
		db      = a.dbFlag()
	)
	switch {
	case errors.As(err, &hinted):
		return hinted.hint
	case errors.As(err, &missing):
		return fmt.Sprintf("make one: batchlog put / hello world%s\nor name another: --db DIR or $BATCHLOG_DB", db)
	case errors.As(err, &lock):
		return "one process at a time has a database open"
	case errors.As(err, &owner):
		dir := shellWord(filepath.Dir(owner.Dir))
		return fmt.Sprintf("to go on in its place:      batchlog adopt%s\nif you copied it, too:      batchlog adopt%s --moved %s=COPY\nto leave it to the other:   batchlog adopt%s --leave %s", db, db, dir, db, dir)
	case errors.As(err, &away):
		return fmt.Sprintf("mount its disk; batchlog status%s says how the directories are", db)
	case errors.Is(err, batchlog.ErrNoSpace):
		return fmt.Sprintf("make room on the disk of %s and run the command again; what was refused is nowhere in the database", a.dir)
	case errors.Is(err, batchlog.ErrReadOnly):
		return "the disk failed under a write: look at it (dmesg), then run the command again, which opens the database anew"
	case errors.Is(err, batchlog.ErrGap):
		return "--from oldest begins with the oldest commit that is kept"
	case errors.As(err, &tooNew):
		return "batchlog version tells which one this is"
	case errors.Is(err, batchlog.ErrCorrupt):
		return fmt.Sprintf("list all damage: batchlog verify%s", db)
	case errors.As(err, &wait) && wait.Space != nil:
		return fmt.Sprintf("the task has to run: batchlog task show %s%s says how it is; --stale shows what is there now", shellWord(wait.Task), db)
	case errors.As(err, &wait):
		return "--stale shows what is there now, --max-wait waits longer"
	case errors.Is(err, batchlog.ErrUncertain):
		return "write the same batch with the same token again: it is kept once"
	}
	return ""
}

// dbFlag is the flag to add to a command for it to mean the same database.
func (a *app) dbFlag() string {
	if a.dir == defaultDir {
		return ""
	}
	return " --db " + shellWord(a.dir)
}

// shellWord is s so that a shell reads it as one word.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// interruption is err, or why ctx was interrupted if it was: then what failed, failed for that.
func interruption(ctx context.Context, err error) error {
	var interrupt *interruptError
	if errors.As(context.Cause(ctx), &interrupt) {
		return interrupt
	}
	return err
}
