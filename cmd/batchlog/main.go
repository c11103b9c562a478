// Command batchlog reads, writes and follows a batchlog database in a directory, and loads lines of JSON, CSV and git histories into one.
//
//	batchlog put users alice '{"age":42}'
//	batchlog scan users
//	batchlog tail --until head
//	batchlog demo
//
// Exit codes are 0 for done, 1 for an error, 2 for a wrong call, 3 for a key that is not there, 4 for a conflict,
// and 130 after Ctrl-C, on which all long work stops cleanly.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := interruptible(context.Background())
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// interruptible is a context that ends, with an [interruptError] as its cause, on Ctrl-C or SIGTERM. A second
// signal ends the process as if nobody listened.
func interruptible(parent context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(&interruptError{signal: s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// An app is one run of the command: its streams and the flags that all commands have.
type app struct {
	in      io.Reader
	out     *bufio.Writer // flushed when the command ends, and wherever somebody may be waiting for it
	err     io.Writer
	outTerm bool // out ends in a terminal
	errTerm bool

	dir  string // --db
	json bool   // --json
}

// run runs the command with these arguments and returns its exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: bufio.NewWriterSize(out, 64<<10), err: errOut, outTerm: isTerminal(out), errTerm: isTerminal(errOut)}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(a.out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if flushErr := a.out.Flush(); flushErr != nil && err == nil {
		err = fmt.Errorf("write output: %w", flushErr)
	}
	if err != nil {
		a.complain(err)
	}
	return exitCode(err)
}

// runs makes fn the work of a cobra command.
func (a *app) runs(fn func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return of(cmd, fn(cmd.Context(), args)) }
}

// isTerminal reports whether w is a terminal, or another character device that is not the null device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	stat, err := f.Stat()
	if err != nil || stat.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(stat, null)
}
