package task

import (
	"iter"
	"slices"
	"sort"

	"github.com/bytespace/batchlog"
)

// A Window is some commits that are handled together, and the transaction that its outputs go to. It is valid while the handler
// that was given it runs.
type Window struct {
	*batchlog.Tx
	Task        string      // its name
	Fence       uint64      // of the worker: of two that handle one window, the later one has the higher number
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
	claim       batchlog.ID // under which it is claimed; 0: it isn't
	endOf       *window     // nil, or the window whose last part it is, and whose claim is its own
}

func (w *window) add(c *batchlog.Commit) {
	w.commits = append(w.commits, c)
	w.bytes += c.Size()
	w.last = c.ID
}

func (w *window) full(l Limit) bool { return len(w.commits) >= l.Commits || w.bytes >= l.Bytes }

// after is the part of w behind commit id, upTo the part before.
func (w *window) after(id batchlog.ID) *window {
	if id < w.first {
		return w
	}
	return &window{first: id + 1, last: w.last, commits: w.commits[w.count(id):]}
}

func (w *window) upTo(id batchlog.ID) *window {
	return &window{first: w.first, last: id, commits: w.commits[:w.count(id)]}
}

// count is the number of commits up to id.
func (w *window) count(id batchlog.ID) int {
	return sort.Search(len(w.commits), func(i int) bool { return w.commits[i].ID > id })
}

// handed is w for a handler.
func (r *runner) handed(w *window, tx *batchlog.Tx, attempt int) *Window {
	return &Window{Tx: tx, Task: r.t.Name, Fence: r.fence, First: w.first, Last: w.last, Attempt: attempt, commits: slices.Clip(w.commits)}
}
