package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

func newShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show what a commit has changed",
		Long: `Its id, time and labels, then a line a key: + was added, - was deleted, ~ was changed, old → new. Where undo was off (space configure / --undo) the old values are not
known: then they are missing, and a range delete is a line of its own.

With --json the first line is the commit, each further one {"space":…,"key":…,"old":VALUE,"new":VALUE}: null is no value, a blob is {"$blob":{…}}, what is not known is left out.`,
		Example: `  batchlog show 17
  batchlog show 17 --json`,
		Args: takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			return a.withDB(false, func(db *local.DB) error { return a.show(ctx, db, id) })
		}),
	}
}

// A commitJSON is the first line of show --json.
type commitJSON struct {
	ID     batchlog.ID       `json:"id"`
	Time   time.Time         `json:"time"`
	Labels map[string]string `json:"labels"`
	Ops    int               `json:"ops"`
}

func (a *app) show(ctx context.Context, db *local.DB, id batchlog.ID) error {
	c, err := undo.Commit(ctx, db.DB, id)
	if err != nil {
		return interruption(ctx, err)
	}
	if a.json {
		labels := c.Labels
		if labels == nil {
			labels = map[string]string{}
		}
		err = a.printJSON(commitJSON{c.ID, c.Time.UTC(), labels, c.Len()})
	} else {
		_, err = fmt.Fprintf(a.out, "commit %d  %s%s\n", c.ID, c.Time.Local().Format(time.DateTime), labelsText(c.Labels))
	}
	if err != nil {
		return err
	}
	for change, err := range undo.Show(ctx, db.DB, id) {
		if err == nil {
			err = a.printChange(change)
		}
		if err != nil {
			return interruption(ctx, err)
		}
	}
	return nil
}

// labelsText is labels for people, each after two spaces.
func labelsText(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString("  " + printable(name) + "=" + printable(labels[name]))
	}
	return b.String()
}

func newDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff ID ID [SPACE…]",
		Short: "Show what changed between two commits",
		Long: `A line for each key whose value at the second commit is another one than at the first, in all spaces or in some and those within them: + was added,
- was deleted, ~ was changed, old → new. The first may be the later one. 0 is the state before commit 1. It needs undo to have been on in between. --json is as for show.`,
		Example: `  batchlog diff 12 17
  batchlog diff 12 17 users --json`,
		Args: takes(2, -1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			from, err := parseID(args[0])
			if err != nil {
				return err
			}
			to, err := parseID(args[1])
			if err != nil {
				return err
			}
			var paths [][]any
			for _, arg := range args[2:] {
				path, err := pathArg(arg)
				if err != nil {
					return err
				}
				paths = append(paths, path)
			}
			return a.withDB(false, func(db *local.DB) error {
				var spaces []*batchlog.Space
				for _, path := range paths {
					spaces = append(spaces, db.Space(path...))
				}
				changes, err := undo.Diff(ctx, db.DB, from, to, spaces...)
				if err != nil {
					return a.undoError(ctx, err)
				}
				for _, c := range changes {
					if err := a.printChange(c); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
}

func (a *app) printChange(c undo.Change) error {
	var line []byte
	if a.json {
		var err error
		if line, err = appendChangeJSON(nil, c); err != nil {
			return err
		}
	} else {
		line = appendChange(nil, c)
	}
	_, err := a.out.Write(append(line, '\n'))
	return err
}

// appendChange appends a change for people.
func appendChange(dst []byte, c undo.Change) []byte {
	sign := "~"
	switch {
	case c.Range, c.Old.Exists && !c.New.Exists, !c.Old.Known && !c.New.Exists:
		sign = "-"
	case c.Old.Known && !c.Old.Exists:
		sign = "+"
	}
	dst = fmt.Appendf(dst, "%s %s\t%s", sign, printable(c.Space.String()), c.Key)
	switch {
	case c.Range && c.High == nil:
		return append(dst, " and all behind it"...)
	case c.Range:
		return fmt.Appendf(dst, " up to, without it, %s", c.High)
	case c.Old.Exists && c.New.Exists:
		return appendVersion(append(appendVersion(append(dst, '\t'), c.Old), " → "...), c.New)
	case c.Old.Exists:
		return appendVersion(append(dst, '\t'), c.Old)
	case c.New.Exists:
		return appendVersion(append(dst, '\t'), c.New)
	}
	return dst
}

// valueWidth is how much of a value is shown, in characters.
const valueWidth = 100

func appendVersion(dst []byte, v undo.Value) []byte {
	if v.Blob != nil {
		return fmt.Appendf(dst, "<blob %s sha256:%s>", bytesText(v.Blob.Size), v.Blob)
	}
	return append(dst, clipped(string(appendReadable(nil, v.Bytes)), valueWidth, " … ")...)
}

// appendChangeJSON appends a change for programs.
func appendChangeJSON(dst []byte, c undo.Change) ([]byte, error) {
	dst = opjson.AppendSpace(append(dst, `{"space":`...), c.Space)
	name := `,"key":`
	if c.Range {
		name = `,"low":`
	}
	dst, err := opjson.AppendKey(append(dst, name...), c.Key)
	if err == nil && c.High != nil {
		dst, err = opjson.AppendKey(append(dst, `,"high":`...), c.High)
	}
	if c.Old.Known {
		dst = appendValueJSON(append(dst, `,"old":`...), c.Old)
	}
	return append(appendValueJSON(append(dst, `,"new":`...), c.New), '}'), err
}

func appendValueJSON(dst []byte, v undo.Value) []byte {
	switch {
	case !v.Exists:
		return append(dst, "null"...)
	case v.Blob != nil:
		return append(opjson.AppendBlob(append(dst, `{"$blob":`...), *v.Blob), '}')
	}
	return opjson.AppendValue(dst, v.Bytes)
}
