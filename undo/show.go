package undo

import (
	"context"
	"iter"

	"github.com/bytespace/batchlog"
)

// Show yields what commit id changed, sorted by key.
func Show(ctx context.Context, db *batchlog.DB, id batchlog.ID) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) { yield(nil, batchlog.ErrUnsupported) }
}

// Diff yields what is different.
func Diff(ctx context.Context, db *batchlog.DB, from, to batchlog.ID, spaces ...*batchlog.Space) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) { yield(nil, batchlog.ErrUnsupported) }
}
