package undo

import (
	"context"
	"iter"
	"time"

	"github.com/bytespace/batchlog"
)

// A Version is a value that a key had.
type Version struct {
	ID     batchlog.ID       // the commit that set it; 0: one from before the oldest commit in the log, so that there is no time and are no labels
	Time   time.Time         // of the commit
	Labels map[string]string // of the commit
	Value  Value             // not Present: the commit deleted the key
}

// History yields the values that k of s has had, the newest first.
func History(ctx context.Context, db *batchlog.DB, s *batchlog.Space, k batchlog.Key) iter.Seq2[*Version, error] {
	return func(yield func(*Version, error) bool) { yield(nil, batchlog.ErrUnsupported) }
}
