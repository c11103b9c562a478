package batchlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// An Undoer is an engine that keeps what commits overwrite, their inverses, where [LogConfig.Undo] asks for it. Package undo stands on it.
type Undoer interface {
	// Inverse returns a reader of what commit id has overwritten: for each stored key that it changed, once, in the order of keys, a put of the
	// value that the key had before, or a delete where it had none. Keys that the commit left as they were are not among them. It waits until
	// the commit is applied. Where the inverse is not there the error is an *InverseError.
	Inverse(ctx context.Context, id ID) (wire.OpReader, error)
	// Backfill makes the inverses of commits that are in the log and have none, in the background of everything else. What was made stays when ctx ends, and the
	// next Backfill goes on from there.
	Backfill(ctx context.Context, o BackfillOptions) error
}

// BackfillOptions say how the inverses of older commits are made.
type BackfillOptions struct {
	// Limit is the size of the largest inverse that is kept, in bytes; 0: none is too large.
	Limit int64
	// Progress is told how far it is, some times a second; nil: nobody. It must be quick.
	Progress func(BackfillProgress)
}

// BackfillProgress is how far a backfill has come.
type BackfillProgress struct {
	Replayed ID // the commit that the scratch store has reached
	Until    ID // the last commit to reach
	Made     ID // inverses made so far
}

// ErrNoInverse says that what a commit has overwritten is not known, so that it can't be taken back; see [InverseError].
var ErrNoInverse = errors.New("no inverse")

// An InverseError says why what a commit has overwritten is not known. It is an [ErrNoInverse].
type InverseError struct {
	ID    ID
	Bytes int64 // if it was too large: its size, at least
	Limit int64 // and the limit; 0: it was not too large
	Gone  bool  // the commit, or what came before it, is no longer in the log
}

func (e *InverseError) Error() string {
	switch {
	case e.Gone:
		return fmt.Sprintf("no inverse of commit %d: the log no longer has it, or what came before it", e.ID)
	case e.Limit > 0:
		return fmt.Sprintf("no inverse of commit %d: it overwrote more than the %d bytes that are kept of one commit; a backfill with a higher limit makes it", e.ID, e.Limit)
	default:
		return fmt.Sprintf("no inverse of commit %d: undo was off then; turn it on, and make the inverses of older commits by a backfill", e.ID)
	}
}

// Is reports whether target is [ErrNoInverse].
func (e *InverseError) Is(target error) bool { return target == ErrNoInverse }

// Revert adds: bring s and all spaces within it back to the state at commit id, as it is right before the chain's own commit, however busy s is. Spaces that tasks derive are left to
// their tasks. It needs the inverses of all commits since, see [LogConfig.Undo]; one that is missing is an *[InverseError]. In a chain with a
// revert there is nothing else.
func (c *Chain) Revert(s *Space, id ID) error {
	if !c.batch.accepts(s) {
		return c.Err()
	}
	if c.Len() > 0 || c.reverts {
		c.err = errRevertAlone
	}
	c.reverts = true
	if c.err != nil {
		return c.err
	}
	low := wire.Open(s.prefix)
	high := append(append(make([]byte, 0, len(low)+1), low...), 0xff)
	c.stage.Progress(c.Progress)
	if err := c.stage.Revert(c.ctx, waist.Revert{To: id, Low: low, High: high}); err != nil {
		c.err = fmt.Errorf("revert to commit %d: %w", id, err)
	}
	return c.err
}

var errRevertAlone = fmt.Errorf("revert beside other ops in a chain: %w", ErrUnsupported)

// Inverse yields what commit id has overwritten; see [Undoer].
func (db *DB) Inverse(ctx context.Context, id ID) (wire.OpReader, error) {
	u, err := db.undoer()
	if err != nil {
		return nil, err
	}
	return u.Inverse(ctx, id)
}

// Backfill makes the inverses of commits that were made while [LogConfig.Undo] was off, as far as the log goes back: it must go back to commit 1. It
// replays the log into a scratch store beside; writers and readers go on. It can be interrupted, and goes on where it was. While it is under way nothing of the log is
// dropped: if others wait for space on the disk it ends with ErrNoSpace.
func (db *DB) Backfill(ctx context.Context, o BackfillOptions) error {
	u, err := db.undoer()
	if err != nil {
		return err
	}
	return u.Backfill(ctx, o)
}

func (db *DB) undoer() (Undoer, error) {
	u, ok := db.engine.(Undoer)
	if !ok {
		return nil, fmt.Errorf("undo on this engine: %w", ErrUnsupported)
	}
	return u, nil
}

// UndoStatus is which commits can be taken back.
type UndoStatus struct {
	On    bool      `json:"on"`
	Ready ID        `json:"ready"` // the newest commit whose inverse is there; 0: none is
	Have  []IDRange `json:"have"`  // commits whose inverses are there, ascending
}

// An IDRange is the commits from First to Last, both included.
type IDRange struct {
	First ID `json:"first"`
	Last  ID `json:"last"`
}
