package undo

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bytespace/batchlog"
)

// Redo takes an undo back, so that what was taken back is there again: it is the undo of an undo, with the same conflicts, options and errors as [Undo]. id is
// a commit that was taken back; then it is its newest undo that is meant, of those that stand. Or id is that of the undo itself, or of what [To] made. If the undo
// took several commits back at once, all of them are brought back.
//
// Where id is both, an undo that was taken back itself, it is brought back. If id is neither, the error is [ErrNotUndone]. To find that out, the log from id on is looked through.
func Redo(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (batchlog.ID, error) {
	if err := o.check(true); err != nil {
		return 0, err
	}
	undo, err := undoOf(ctx, db, id)
	if err != nil {
		return 0, err
	}
	u := &undoing{db: db, id: undo, o: o, labels: o.labels(LabelRedo, undo.String())}
	return u.run(ctx)
}

// undoOf is the undo that a redo of commit id takes back.
func undoOf(ctx context.Context, db *batchlog.DB, id batchlog.ID) (batchlog.ID, error) {
	t, err := load(ctx, db, id)
	if err != nil {
		return 0, err
	}
	meta, err := batchlog.DecodeMeta(t.record.Meta)
	if err != nil {
		return 0, fmt.Errorf("commit %d: %w", id, err)
	}
	head, err := db.Head(ctx)
	if err != nil {
		return 0, err
	}
	var newest batchlog.ID
	var standing []batchlog.ID // undos of id that were not taken back, ascending
	in := []batchlog.ID{id}    // what brought id about: itself, and what has taken back an undo of it
	if id < head {
		for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(id), Until: head, Brief: true}) {
			if err != nil {
				return 0, err
			}
			if len(c.Labels) == 0 {
				continue
			}
			undone := parseIDs(c.Labels[LabelUndo])
			again := parseIDs(c.Labels[LabelRedo])
			if n := len(standing); n > 0 {
				standing = slices.DeleteFunc(standing, func(u batchlog.ID) bool { return slices.Contains(undone, u) || slices.Contains(again, u) })
				if len(standing) < n {
					in = append(in[:1], c.ID)
				}
			}
			if slices.ContainsFunc(undone, func(u batchlog.ID) bool { return slices.Contains(in, u) }) {
				newest = c.ID
				standing = append(standing, c.ID)
			}
		}
	}
	switch n := len(standing); {
	case n > 0:
		return standing[n-1], nil
	case meta.Labels[LabelUndo] != "" || meta.Labels[LabelTo] != "":
		return id, nil
	case newest > 0:
		return newest, nil // a conflict, in all likelihood, which says what came after
	}
	return 0, fmt.Errorf("redo of commit %d: it is no undo, and no commit from %d to %d takes it back: %w", id, id+1, head, ErrNotUndone)
}

// parseIDs are the ids that a label names. What is no id is left out: anybody can set labels.
func parseIDs(label string) []batchlog.ID {
	if label == "" {
		return nil
	}
	var ids []batchlog.ID
	for part := range strings.SplitSeq(label, ",") {
		if id, err := strconv.ParseUint(part, 10, 64); err == nil && id > 0 {
			ids = append(ids, batchlog.ID(id))
		}
	}
	return ids
}
