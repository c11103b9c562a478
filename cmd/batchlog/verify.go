package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

func newVerify(a *app) *cobra.Command {
	var logOnly bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the log against itself and the store against the log",
		Long: `All bytes of the log are read and their sums checked; then all commits are applied once more and compared with what the
store holds, and, where undo is on, with what it says that they have overwritten. What is wrong is listed, with exit code 1. It changes nothing.`,
		Example: `  batchlog verify
  batchlog verify --log-only --json`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return group(cmd, args)
		}
		return of(cmd, a.verify(cmd.Context(), logOnly))
	}
	cmd.Flags().BoolVar(&logOnly, "log-only", false, "leave out the store")
	cmd.AddCommand(newVerifyGit(a))
	return cmd
}

// A problemJSON is one fault as verify --json prints it.
type problemJSON struct {
	What   string      `json:"what"`
	File   string      `json:"file,omitempty"`
	Offset int64       `json:"offset,omitempty"`
	ID     batchlog.ID `json:"id,omitempty"`
	Space  string      `json:"space,omitempty"`
	Key    string      `json:"key,omitempty"`
}

// A reportJSON is what verify --json prints.
type reportJSON struct {
	OK       bool          `json:"ok"`
	First    batchlog.ID   `json:"first"`
	Last     batchlog.ID   `json:"last"`
	Commits  int64         `json:"commits"`
	Ops      int64         `json:"ops"`
	Segments int64         `json:"segments"`
	Bytes    int64         `json:"bytes"`
	Keys     int64         `json:"keys"`
	Inverses int64         `json:"inverses"`
	Blobs    int64         `json:"blobs"`
	BlobSize int64         `json:"blobBytes"`
	Complete bool          `json:"complete"`
	LogOnly  bool          `json:"logOnly,omitempty"`
	Problems []problemJSON `json:"problems"`
}

func (a *app) verify(ctx context.Context, logOnly bool) error {
	var r local.Report
	err := a.withDB(false, func(db *local.DB) (err error) {
		r, err = verifyDB(ctx, db, logOnly, a.meters())
		return err
	})
	if errors.Is(err, batchlog.ErrCorrupt) { // so much that it can't be opened: that is what was looked for
		r.Problems = append(r.Problems, problemOf(err))
		err = nil
	}
	if err != nil {
		return interruption(ctx, err)
	}
	if a.json {
		err = a.printJSON(jsonOf(r, logOnly))
	} else {
		_, err = a.out.WriteString(reportText(r, logOnly))
	}
	if err == nil && len(r.Problems) > 0 {
		err = &differenceError{what: counted(len(r.Problems), "problem") + " found"}
	}
	return err
}

// verifyDB verifies db and shows how far it is on a meter for each stage.
func verifyDB(ctx context.Context, db *local.DB, logOnly bool, meters func(label, unit string, total int64) *meter) (local.Report, error) {
	var m *meter
	stage := ""
	defer func() { m.end() }()
	r, err := db.Verify(ctx, local.VerifyOptions{LogOnly: logOnly, Progress: func(p local.Progress) {
		if p.Stage != stage {
			m.end()
			unit := p.Unit
			if unit == "bytes" {
				unit = "B"
			}
			stage, m = p.Stage, meters("verify "+p.Stage, unit, p.Total)
		}
		bytes := int64(0)
		if p.Unit == "bytes" {
			bytes = p.Done
		}
		m.set(p.Done, bytes)
	}})
	if errors.Is(err, batchlog.ErrCorrupt) { // damage that keeps it from going on is what was looked for
		r.Problems = append(r.Problems, problemOf(err))
		err = nil
	}
	return r, err
}

// meters makes meters on stderr if that is a terminal, else none.
func (a *app) meters() func(label, unit string, total int64) *meter {
	return func(label, unit string, total int64) *meter {
		if !a.errTerm {
			return nil
		}
		return newMeter(a.err, true, label, unit, total)
	}
}

func problemOf(err error) local.Problem {
	p := local.Problem{What: err.Error()}
	var damage *batchlog.CorruptError
	if errors.As(err, &damage) {
		p.File, p.Offset, p.ID = damage.File, damage.Offset, damage.ID
	}
	return p
}

func jsonOf(r local.Report, logOnly bool) reportJSON {
	out := reportJSON{
		OK: len(r.Problems) == 0, First: r.First, Last: r.Last, Commits: r.Commits, Ops: r.Ops, Segments: r.Segments,
		Bytes: r.Bytes, Keys: r.Keys, Inverses: r.Inverses, Blobs: r.Blobs, BlobSize: r.BlobBytes, Complete: r.Complete, LogOnly: logOnly, Problems: []problemJSON{},
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, problemJSON{What: p.What, File: p.File, Offset: p.Offset, ID: p.ID, Space: p.Space, Key: p.Key})
	}
	return out
}

// reportText is r for people.
func reportText(r local.Report, logOnly bool) string {
	commits := "no commits"
	if r.Commits > 0 {
		commits = fmt.Sprintf("%s (%d to %d), %s, %s in %s", counted(r.Commits, "commit"), r.First, r.Last,
			counted(r.Ops, "op"), bytesText(r.Bytes), counted(r.Segments, "segment"))
	}
	text := "log    " + commits + "\n"
	switch {
	case logOnly:
		text += "store  not looked at (--log-only)\n"
	case r.Complete:
		text += fmt.Sprintf("store  %s, each compared with the log\n", counted(r.Keys, "key"))
	default:
		text += fmt.Sprintf("store  %s, compared as far as the log goes: it begins with commit %d, and keys that no commit since has touched could not be\n",
			counted(r.Keys, "key"), r.First)
	}
	if r.Inverses > 0 {
		text += fmt.Sprintf("undo   what %s overwrote, compared with the log\n", counted(r.Inverses, "commit"))
	}
	if r.Blobs > 0 {
		text += fmt.Sprintf("blobs  %s, %s, each read and compared with its hash\n", counted(r.Blobs, "blob"), bytesText(r.BlobBytes))
	}
	if len(r.Problems) == 0 {
		return text + "no problems found\n"
	}
	for _, p := range r.Problems {
		text += "problem: " + p.String()
		if p.File != "" {
			text += fmt.Sprintf(" [%s at byte %d]", p.File, p.Offset)
		}
		text += "\n"
	}
	return text
}
