package batchlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/bytespace/batchlog/internal/wire"
)

// Errors that callers branch on with errors.Is.
var (
	// ErrNotFound says that a key has no value.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that a commit could not be made because others came between; see [ConflictError].
	ErrConflict = errors.New("conflict")
	// ErrClosed says that the database, or the view, is closed.
	ErrClosed = errors.New("closed")
	// ErrReadOnly says that the database takes no writes until it is opened again. After a failed
	// sync every write says so; reads and followers go on.
	ErrReadOnly = errors.New("read-only")
	// ErrTooLarge says that a limit was passed; see [LimitError].
	ErrTooLarge = errors.New("too large")
	// ErrNoSpace says that the disk is full. The write has no id and is nowhere; writes are taken
	// again by themselves when there is space.
	ErrNoSpace = errors.New("no space left")
	// ErrGap says that commits which were asked for are no longer there; see [GapError].
	ErrGap = errors.New("gap in the log")
	// ErrCorrupt says that stored bytes are damaged; see [CorruptError].
	ErrCorrupt = wire.ErrCorrupt
	// ErrUncertain says that a write may or may not be in the log: the disk or the connection
	// failed under way. Write the same batch with its Token again.
	ErrUncertain = errors.New("outcome uncertain")
	// ErrUnsupported says that this engine, or this version, cannot do what was asked for.
	ErrUnsupported = errors.New("not supported")
	// ErrPermission says that the caller may not do what was asked for.
	ErrPermission = errors.New("permission denied")
)

// A CorruptError says where stored bytes stopped making sense. It is an [ErrCorrupt].
type CorruptError struct {
	File   string // file name
	Offset int64  // of the first byte of what is damaged, in bytes from the file's start
	ID     ID     // the first commit that is, or would be, there; 0 when unknown
	Err    error  // what is wrong with it
}

func (e *CorruptError) Error() string {
	s := "corrupt: " + e.File + " at byte " + strconv.FormatInt(e.Offset, 10)
	if e.ID != 0 {
		s += ", commit " + e.ID.String()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is [ErrCorrupt].
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns what is wrong with the bytes.
func (e *CorruptError) Unwrap() error { return e.Err }

// A BlobRefError says that a reference to a blob is put that refers to nothing: no content has that hash, or what has it is of another size. It is an
// [ErrNotFound].
type BlobRefError struct {
	Ref   BlobRef
	Space *Space
	Key   Key
	Size  int64 // of the content that has the hash; -1: none has, or the reference names a size that no content has
}

func (e *BlobRefError) Error() string {
	s := fmt.Sprintf("put of %s in space %s: blob %s of %d bytes", e.Key, e.Space, e.Ref, e.Ref.Size)
	switch {
	case e.Ref.Size < 0 || e.Ref.Size > MaxBlobBytes:
		return s + ": no blob has that size"
	case e.Size >= 0:
		return fmt.Sprintf("%s: the content with that hash has %d", s, e.Size)
	default:
		return s + ": not found; store its content first"
	}
}

// Is reports whether target is [ErrNotFound].
func (e *BlobRefError) Is(target error) bool { return target == ErrNotFound }

// Unwrap returns a *[LimitError] if the reference names a size that no blob has.
func (e *BlobRefError) Unwrap() error {
	if e.Ref.Size >= 0 && e.Ref.Size <= MaxBlobBytes {
		return nil
	}
	return limitBlob.over(e.Ref.Size)
}

// A GapError says which commits are missing. It is an [ErrGap].
type GapError struct {
	From   ID // the first commit that was asked for and is not there
	Oldest ID // the oldest commit that is there: follow from At(Oldest) to go on without the missing ones
}

func (e *GapError) Error() string {
	return fmt.Sprintf("gap in the log: commits %d to %d are no longer kept; the oldest is %d", e.From, e.Oldest-1, e.Oldest)
}

// Is reports whether target is [ErrGap].
func (e *GapError) Is(target error) bool { return target == ErrGap }

// A WaitError says what a read was waiting for when its time was up. It unwraps to the reason:
// context.DeadlineExceeded after [MaxWait] or the context's deadline, context.Canceled if it was cancelled.
type WaitError struct {
	For     ID            // the commit whose effects were waited for
	Applied ID            // the commit that the store had reached
	Waited  time.Duration // how long
	Err     error         // why the wait ended

	// Of a read in a derived space that waited for its task.
	Space  *Space // the derived space; nil: the read waited for the store alone
	Task   string
	State  string // of the task: "running", "paused", …
	Cursor ID     // the commit that it has handled
	Reason string // its last error, or why it stands still; "" if it has none
}

func (e *WaitError) Error() string {
	if e.Space != nil {
		s := fmt.Sprintf("read of %s held %s until task %s, which is %s at commit %d, has handled commit %d", e.Space, e.Waited.Round(time.Microsecond), e.Task, e.State, e.Cursor, e.For)
		if e.Reason != "" {
			s += " (" + e.Reason + ")"
		}
		return s + ": " + e.Err.Error()
	}
	return fmt.Sprintf("read held %s for commit %d, the store is at %d: %v", e.Waited.Round(time.Microsecond), e.For, e.Applied, e.Err)
}

// Unwrap returns why the wait ended.
func (e *WaitError) Unwrap() error { return e.Err }

// A LockError says who has the directory of a database open.
type LockError struct {
	Dir    string // the database's directory
	Holder string // who holds it, as far as it says of itself: process, host, since when
	Err    error
}

func (e *LockError) Error() string {
	return fmt.Sprintf("database %s is in use by %s; close it there, or use another directory", e.Dir, e.Holder)
}

// Unwrap returns the error of the lock itself.
func (e *LockError) Unwrap() error { return e.Err }

// An OwnerError says that a directory outside of a database's own belongs to another database: one that this is a copy of, a later state of it, or a
// stranger. It refuses to open the database, or to configure it so; nothing there is changed.
type OwnerError struct {
	Dir      string // the directory
	Database string // directory of the database that was to use it
	Owner    string // directory of the database that it belongs to
	Host     string // where that is
	Since    time.Time
	Err      error // what the two have to do with one another
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("directory %s is not that of the database in %s: %v, the one in %s on %s, since %s; batchlog adopt --db %s has this one take its place, or directories of its own",
		e.Dir, e.Database, e.Err, e.Owner, e.Host, e.Since.Format(time.RFC3339), e.Database)
}

// Unwrap returns what the two databases have to do with one another.
func (e *OwnerError) Unwrap() error { return e.Err }

// A DirError says that a directory of segments can't be used now, as a rule because its disk is not mounted. As soon as it is there again
// everything goes on.
type DirError struct {
	Dir   string // the directory
	File  string // the file there that was asked for; "": none
	State string // of the directory, as in [DirStatus]
	Err   error  // why it is in that state
}

func (e *DirError) Error() string {
	s := "directory " + e.Dir + " is " + e.State
	if e.File != "" {
		s += ", so " + e.File + " can't be read"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns why the directory is in that state.
func (e *DirError) Unwrap() error { return e.Err }

// A VersionError says that something was written by a newer version of batchlog than this one.
// It is an [ErrUnsupported].
type VersionError struct {
	What    string // what has that version: a file's name
	Version uint32 // the version it has
	Known   uint32 // the newest version that this program knows
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d, this program knows versions up to %d: use a newer batchlog", e.What, e.Version, e.Known)
}

// Is reports whether target is [ErrUnsupported].
func (e *VersionError) Is(target error) bool { return target == ErrUnsupported }

// cause returns why ctx ended.
func cause(ctx context.Context) error { return context.Cause(ctx) }
