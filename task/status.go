package task

import (
	"context"
	"errors"
	"time"

	"github.com/bytespace/batchlog"
)

// Status is how a task is.
type Status struct {
	Name string `json:"name"`
	// State is "running", "idle" (nothing to handle), "paused", "failing" (a window is tried again), "stopped" (a window failed for good),
	// "waiting for a worker", or "stalled": there is something to handle, and no progress for long.
	State   string      `json:"state"`
	Reason  string      `json:"reason,omitempty"` // why it is stalled
	Source  []string    `json:"source,omitempty"`
	Derives []string    `json:"derives,omitempty"`
	Cursor  batchlog.ID `json:"cursor"`         // the newest commit that was handled
	Moved   time.Time   `json:"moved,omitzero"` // when it last moved
	Head    batchlog.ID `json:"head"`
	Lag     Lag         `json:"lag"`
	Rate    float64     `json:"rate"`          // commits of the log a second that it passes while it works, lately
	ETA     float64     `json:"eta,omitempty"` // seconds until it is at head at this rate; 0: it is, or that can't be said
	Parked  int         `json:"parked"`
	Workers []Worker    `json:"workers,omitempty"`
	Hold    batchlog.ID `json:"hold,omitempty"` // the first commit that the log is kept for it; 0: none, it was let go

	// Of the window that fails, if one does.
	First    batchlog.ID `json:"first,omitempty"`
	Last     batchlog.ID `json:"last,omitempty"`
	Attempts int         `json:"attempts,omitempty"`
	Error    string      `json:"error,omitempty"`
	Next     time.Time   `json:"next,omitzero"` // when it is tried again
}

// Lag is how far a task is behind head, from the first commit on that it has to handle; zero when there is none.
type Lag struct {
	Commits uint64  `json:"commits"` // of the log, those that do not concern the task included
	Bytes   int64   `json:"bytes"`   // of the log, about
	Seconds float64 `json:"seconds"` // age of the first commit that it has to handle
}

// A Worker is a Run of a task.
type Worker struct {
	Fence uint64      `json:"fence"` // its number; what it commits carries it
	Name  string      `json:"name"`  // host and process
	Since time.Time   `json:"since"`
	Seen  time.Time   `json:"seen"` // last sign of life
	Alive bool        `json:"alive"`
	First batchlog.ID `json:"first,omitempty"` // the windows that it holds
	Last  batchlog.ID `json:"last,omitempty"`
}

// A Hold is a part of the log that is kept for a task.
type Hold struct {
	Task  string      `json:"task"`
	First batchlog.ID `json:"first"` // and all after it
	Bytes int64       `json:"bytes"` // from there to head, about
	Since time.Time   `json:"since"` // time of that commit; zero if there is none yet
}

// Holds returns which task holds what of the log, the oldest first.
func Holds(ctx context.Context, db *batchlog.DB) ([]Hold, error) { return nil, errors.ErrUnsupported }

// LetGo makes the log no longer be kept for a task, which then ends with a *batchlog.GapError if commits that it has yet to handle, or that are parked,
// are dropped. It is logged in the database: the commit carries the reason as a label. Reset takes hold again.
func LetGo(ctx context.Context, db *batchlog.DB, name, reason string) error {
	return errors.ErrUnsupported
}

// A ResetPlan is what Reset would do.
type ResetPlan struct {
	From   batchlog.ID `json:"from"`   // the cursor as it is
	To     batchlog.ID `json:"to"`     // and as it would be
	Again  uint64      `json:"again"`  // commits of its sources that would be handled once more
	Skips  uint64      `json:"skips"`  // commits of its sources that would never be handled
	Parked int         `json:"parked"` // parked windows, which stay
}

// PlanReset says what Reset would do, and does nothing.
func PlanReset(ctx context.Context, db *batchlog.DB, name string, pos batchlog.Position) (ResetPlan, error) {
	return ResetPlan{}, errors.ErrUnsupported
}

// A Wait is what a read of a derived space waits for.
type Wait struct {
	Space  string      `json:"space"` // the derived space
	Task   string      `json:"task"`  // that derives it
	State  string      `json:"state"`
	Cursor batchlog.ID `json:"cursor"`
	Until  batchlog.ID `json:"until"`           // the cursor that is waited for: the newest commit that concerns the task; not after Cursor: no wait
	Behind uint64      `json:"behind"`          // commits that concern the task and are not handled
	ETA    float64     `json:"eta,omitempty"`   // seconds
	Error  string      `json:"error,omitempty"` // its last one
}

// Explain says what a read in s, or in the spaces within, would wait for now: the tasks that derive what is there, and those that feed them, the
// first to be waited for first. None: nothing but the store.
func Explain(ctx context.Context, db *batchlog.DB, s *batchlog.Space) ([]Wait, error) {
	return nil, errors.ErrUnsupported
}
