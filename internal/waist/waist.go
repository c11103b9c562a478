// Package waist is what passes between the front, package batchlog, and whatever keeps log and store, its engine: proposals on
// the way down, snapshots and records on the way up. Keys and ranges are stored ones here, the path of the space included.
//
// The methods that an engine has are batchlog.Engine and the interfaces beside it.
package waist

import (
	"context"

	"github.com/bytespace/batchlog/internal/wire"
)

// A Proposal is what an engine is asked to commit.
type Proposal struct {
	Token string // as in batchlog.Batch
	Meta  []byte // token and labels, encoded
	Ops   []byte // Count ops, encoded
	Count int
	Blobs int // references to blobs among the ops
	// Chain is where more ops are, which come before those in Ops; nil: there are none. Only a batchlog.Stage sets it.
	Chain *wire.ChainRef

	Reads  *Reads // what the ops depend on; nil: nothing, the write is blind
	Ticket uint64 // from batchlog.Queuer; 0: none

	// Task is set on what a task commits. Its ops may be in spaces that this task derives; those of others may not.
	Task *wire.TaskMove
}

// Reads is what a transaction has read, to be validated when it gets its id.
type Reads struct {
	Base   wire.ID         // the view that was read
	Keys   [][]byte        // stored keys, found or not
	Ranges []wire.KeyRange // what was scanned, as far as it was
}

// A Snapshot is the store at one id. It is safe for concurrent use.
type Snapshot interface {
	ID() wire.ID
	// Get returns the value of the stored key, or batchlog.ErrNotFound. The value is the caller's.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// Scan returns a cursor over the stored keys from low on and below high.
	Scan(ctx context.Context, low, high []byte, reverse bool) (Cursor, error)
	// Close lets go of the snapshot; cursors must be closed before.
	Close() error
}

// A Cursor walks over stored keys. It is not safe for concurrent use.
type Cursor interface {
	// Next returns the next key and its value, valid until the next call, or io.EOF.
	Next() (key, value []byte, err error)
	Close() error
}

// A LogReader returns commits in the order of their ids, without holes but for those that its options
// leave out. It is not safe for concurrent use.
type LogReader interface {
	// Next returns the next stretch of the log: some commits, and the id up to which the log has been
	// looked at, which is that of the last commit or higher. It waits at the head for more, and returns io.EOF
	// behind the last commit asked for. The slice is valid until the next call, what it holds for ever unless the options say otherwise.
	Next(ctx context.Context) (commits []wire.Record, scanned wire.ID, err error)
	Close() error
}

// A RangeCopy is what to copy: the stored keys from Low on and below High. All begin with From, in whose place To stands in the copy.
type RangeCopy struct {
	Low, High []byte
	From, To  []byte // closed paths of spaces; open ones if a whole subtree is copied
	Tree      bool   // a whole subtree is
	Move      bool   // delete them where they are
}

// A Revert is what of the store to bring back to the state at an earlier commit: the stored keys from Low on and below High, but for the system's, and
// those in spaces that tasks derive.
type Revert struct {
	To        wire.ID
	Low, High []byte
}
