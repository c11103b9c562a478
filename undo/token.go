package undo

import (
	"context"
	"errors"
	"io"

	"github.com/bytespace/batchlog"
)

// retried is what the call that ended with err should return, where an earlier one with the same token was carried out and its answer got lost: then the keys hold what that one has
// left, which is a conflict, or the undo that was to be taken back no longer is in effect. The engine, which knows tokens, is not asked in these cases.
func retried(ctx context.Context, db *batchlog.DB, id batchlog.ID, token string, err error) (batchlog.ID, error) {
	conflict := (*ConflictError)(nil)
	if token == "" || !errors.As(err, &conflict) && !errors.Is(err, ErrNotUndone) {
		return 0, err
	}
	if made, ferr := findToken(ctx, db, id, token); ferr != nil || made != 0 {
		return made, ferr
	}
	return 0, err
}

// findToken is the commit after id that has the token, or 0.
func findToken(ctx context.Context, db *batchlog.DB, id batchlog.ID, token string) (batchlog.ID, error) {
	head, err := db.Head(ctx)
	if err != nil || id >= head {
		return 0, err
	}
	r, err := db.Inside().Engine().Log(ctx, batchlog.LogOptions{From: batchlog.After(id), Until: head, Brief: true})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for {
		records, _, err := r.Next(ctx)
		for i := range records {
			if records[i].Token() == token {
				return records[i].ID, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// ended is why ctx has ended, or nil.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}
