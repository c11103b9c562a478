package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
	"github.com/bytespace/batchlog/local"
)

// maxParallel bounds write --parallel.
const maxParallel = 4096

func newWrite(a *app) *cobra.Command {
	var (
		parallel  int
		keepGoing bool
		quiet     bool
	)
	cmd := &cobra.Command{
		Use:   "write [FILE|-]",
		Short: "Write batches from lines of JSON",
		Long: `Each line of FILE, or of stdin, is a batch:

  {"ops":[{"put":{"space":"users","key":"alice","value":"…"}}, {"del":{"space":…,"key":…}},
          {"delRange":{"space":…,"low":…,"high":…}}], "token":"…", "labels":{"name":"value"}}

A value is a string, or {"$base64":"…"}; with "blob":{"sha256":"hex","size":N} in its place it is a blob, whose content must be stored already. The bounds of a range may be left out. Empty lines are passed over. Lines are read as they come and never all held in memory.

As soon as a batch is durable its line {"line":1,"id":7} is printed, in the order of the lines. A line that is refused
prints {"line":2,"error":"…"} and ends the run with exit code 1: the lines before it are committed, no line after it is written (with
--parallel: but for those that were under way already, whose lines are printed too). With --keep-going lines that are refused are passed
over; the exit code is 1 at the end. A full or failing disk ends the run in any case.

With --parallel N up to N batches are under way at once, which is faster as they share syncs; among those the order
of ids is not that of the lines.`,
		Example: `  echo '{"ops":[{"put":{"space":"users","key":"alice","value":"a"}},{"del":{"space":"users","key":"bob"}}]}' | batchlog write
  seq 1000 | sed 's/.*/{"ops":[{"put":{"space":"n","key":&,"value":"&"}}]}/' | batchlog write --parallel 64 -q
  echo '{"ops":[],"labels":{"why":"mark"}}' > batches.ndjson; batchlog write batches.ndjson --keep-going`,
		Args: takes(0, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if parallel < 1 || parallel > maxParallel {
				return usagef("--parallel %d: from 1 to %d", parallel, maxParallel)
			}
			return a.write(ctx, args, &bulk{parallel: parallel, keepGoing: keepGoing}, quiet)
		}),
	}
	cmd.Flags().IntVar(&parallel, "parallel", 1, "up to `N` batches under way at once")
	cmd.Flags().BoolVar(&keepGoing, "keep-going", false, "pass over lines that are refused")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print no lines")
	return cmd
}

func (a *app) write(ctx context.Context, args []string, w *bulk, quiet bool) error {
	in, size := a.in, int64(0)
	if len(args) == 1 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
		if stat, err := f.Stat(); err == nil && stat.Mode().IsRegular() {
			size = stat.Size()
		}
	}
	// Its lines and a meter in one terminal would write over each other.
	if a.errTerm && (quiet || !a.outTerm) {
		w.meter = newMeter(a.err, true, "write", "B", size)
	}
	w.report = func(o outcome) error {
		if quiet {
			return nil
		}
		_, err := a.out.Write(o.appendLine(nil))
		return err
	}
	w.flush = a.out.Flush
	return a.withDB(true, func(db *local.DB) error {
		err := w.run(ctx, db.DB, in)
		w.meter.end()
		return err
	})
}

// An outcome is what became of one line.
type outcome struct {
	line int64
	id   batchlog.ID
	err  error
}

// appendLine appends o as write prints it.
func (o outcome) appendLine(dst []byte) []byte {
	if o.err == nil {
		return fmt.Appendf(dst, "{\"line\":%d,\"id\":%d}\n", o.line, o.id)
	}
	dst = fmt.Appendf(dst, `{"line":%d,"error":`, o.line)
	dst = opjson.AppendString(dst, []byte(strings.ToValidUTF8(o.err.Error(), "\ufffd")))
	return append(dst, "}\n"...)
}
