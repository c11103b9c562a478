package task

import (
	"iter"
	"slices"

	"github.com/bytespace/batchlog"
)

// A Window is some commits that are handled together, and the transaction that its outputs go to. It is valid while the handler
// that was given it runs.
type Window struct {
	*batchlog.Tx
	First, Last batchlog.ID // the part of the log that it stands for, also where nothing in it matched
	Attempt     int         // 1, 2, …

	commits []*batchlog.Commit
}

// Commits yields the commits of the window that touch the task's sources, in order, with the ops there.
func (w *Window) Commits() iter.Seq2[*batchlog.Commit, error] {
	return func(yield func(*batchlog.Commit, error) bool) {
		for _, c := range w.commits {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// Len is the number of commits in the window.
func (w *Window) Len() int { return len(w.commits) }

// A window on its way through a worker.
type window struct {
	first, last batchlog.ID
	commits     []*batchlog.Commit
	bytes       int
	before      <-chan struct{} // closed when the window before is committed
	done        chan struct{}   // closed when this one is
}

func (w *window) add(c *batchlog.Commit) {
	w.commits = append(w.commits, c)
	w.bytes += c.Size()
	w.last = c.ID
}

func (w *window) full(l Limit) bool { return len(w.commits) >= l.Commits || w.bytes >= l.Bytes }

// bare is a window without its outcome, to be handled once more.
func (w *window) handed(tx *batchlog.Tx, attempt int) *Window {
	return &Window{Tx: tx, First: w.first, Last: w.last, Attempt: attempt, commits: slices.Clip(w.commits)}
}
