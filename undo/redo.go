package undo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bytespace/batchlog"
)

// ErrNotUndone says that a commit is no undo, and was not taken back by one either, or came back since, so that there is nothing to redo.
var ErrNotUndone = errors.New("not undone")

// Redo takes back an undo: id is that of the undo, or of the commit that it has taken back. It is in all else as [Undo]. What Redo has done is taken back by an Undo
// of the commit whose id it returns.
//
// An undo that was taken back itself, by a redo or by another undo, is no longer in effect: then it is that one which is taken back. Which commits take back which is told by their
// labels; all of the log since id is looked through for them.
func Redo(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (batchlog.ID, error) {
	if err := o.check(); err != nil {
		return 0, err
	}
	taken, err := undoOf(ctx, db, id)
	var done batchlog.ID
	if err == nil {
		done, err = undo(ctx, db, taken, o, how{redo: true})
	}
	if err != nil {
		return retried(ctx, db, id, o.Token, err)
	}
	return done, nil
}

// undoOf is the undo that id means.
func undoOf(ctx context.Context, db *batchlog.DB, id batchlog.ID) (batchlog.ID, error) {
	c, err := commitAt(ctx, db, id)
	if err != nil {
		return 0, fmt.Errorf("redo commit %d: %w", id, err)
	}
	takers, err := takersSince(ctx, db, id)
	if err != nil {
		return 0, fmt.Errorf("redo commit %d: %w", id, err)
	}
	if taker, ok := takers[id]; ok && takers.inEffect(taker) {
		return taker, nil
	}
	if _, ok := c.Labels[LabelUndo]; ok {
		return id, nil
	}
	return 0, fmt.Errorf("redo commit %d: %w: it is no undo, and none that is in effect has taken it back", id, ErrNotUndone)
}

// takers are the newest commits that have taken back each of some.
type takers map[batchlog.ID]batchlog.ID

// takersSince finds who has taken back what, as far as that is commit id or came after it.
func takersSince(ctx context.Context, db *batchlog.DB, id batchlog.ID) (takers, error) {
	head, err := db.Head(ctx)
	if err != nil || head <= id {
		return nil, err
	}
	all := takers{}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(id), Until: head, Brief: true}) {
		if err != nil {
			return nil, err
		}
		for _, taken := range takenBack(c.Labels) {
			if taken < c.ID { // anybody may write labels
				all[taken] = c.ID
			}
		}
	}
	return all, nil
}

// inEffect reports whether a commit has not been taken back, or came back.
func (t takers) inEffect(id batchlog.ID) bool {
	effect := true
	for taker, ok := t[id]; ok; taker, ok = t[taker] { // each is newer than the one before
		effect = !effect
	}
	return effect
}

// takenBack are the commits that one with these labels takes back.
func takenBack(labels map[string]string) (ids []batchlog.ID) {
	for _, name := range []string{LabelUndo, LabelRedo} {
		if text, ok := labels[name]; ok {
			ids = append(ids, parseIDs(text)...)
		}
	}
	return ids
}

// parseIDs reads what idsText has written.
func parseIDs(text string) (ids []batchlog.ID) {
	for _, part := range strings.Split(text, ",") {
		if id, err := strconv.ParseUint(part, 10, 64); err == nil {
			ids = append(ids, batchlog.ID(id))
		}
	}
	return ids
}
