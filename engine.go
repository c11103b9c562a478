package batchlog

import (
	"context"
	"time"

	"github.com/bytespace/batchlog/internal/waist"
)

// An Engine is what a [DB] stands on: the waist between the front and whatever keeps log and
// store, here or far away. Keys and ranges are stored ones, the path of the space included, as [Batch]
// encodes them. All methods may be called at once; after Close they return ErrClosed. What an engine
// can do beyond this are interfaces of their own: [Getter], [Queuer], [Chainer], [Blobber], [Configurer], [Statuser].
//
// Package enginetest has the suite that every engine passes.
type Engine interface {
	// Commit puts p into the log and returns its id when it is durable there. If p.Token is in the log
	// already it returns that commit's id and writes nothing. If p has reads and a commit after p.Base
	// wrote what they read, it returns a *ConflictError. ctx bounds the wait for a turn; what has its id runs to the
	// end. It neither changes p nor keeps it, also when it returns because ctx has ended.
	Commit(ctx context.Context, p *waist.Proposal) (ID, error)
	// View returns the store at one id, once it has reached what o asks for. A wait that ends early is a *WaitError.
	View(ctx context.Context, o ReadOptions) (waist.Snapshot, error)
	// Log returns a reader of the commits from o.From on. A position that is no longer there is a *GapError.
	Log(ctx context.Context, o LogOptions) (waist.LogReader, error)
	// Head returns the id of the newest durable commit.
	Head(ctx context.Context) (ID, error)
	// Close ends everything that waits with ErrClosed and lets go of the data. A second Close does nothing.
	Close() error
}

// LogOptions say what a reader of the log is to return.
type LogOptions struct {
	From   Position
	Until  ID       // the last commit to return; 0: no end
	Within [][]byte // open paths of spaces: only commits with an op in one of them; none: all
	Brief  bool     // what Next returns is valid only until the next call, what the records hold too
}

// A Getter is an engine that reads single keys without a snapshot.
type Getter interface {
	// Get returns the value of the stored key, or ErrNotFound, once the store has reached what o asks for. It doesn't keep key.
	Get(ctx context.Context, key []byte, o ReadOptions) ([]byte, error)
}

// A Queuer is an engine that can protect what a transaction has read, so that one that keeps losing gets through. [Persist] is how it is used.
type Queuer interface {
	// Protect returns when all commits that touch what reads names are in views taken from then on, or wait. They wait until release is called, or a
	// bound of some seconds is over, and then go first. Commits that touch nothing of it do not wait. Those with the ticket that it returns wait only
	// for what was protected before, so that no two transactions wait for each other.
	//
	// With the ticket of a protection that has not ended, which may be 0 for none, it adds to that one; its bound goes on as it was. reads is kept, and its Base
	// not looked at.
	Protect(ctx context.Context, ticket uint64, reads *waist.Reads) (now uint64, release func(), err error)
}

// A Configurer is an engine whose logs have settings.
type Configurer interface {
	// Configure sets the log that the spaces with these closed paths belong to. With
	// dryRun it only says what would change and what that would cost.
	Configure(ctx context.Context, c LogConfig, paths [][]byte, dryRun bool) (Plan, error)
}

// A Statuser is an engine that tells how it is.
type Statuser interface {
	Status(ctx context.Context) (Status, error)
}

// ReadOptions say what state a read is content with. The zero value asks for head at its arrival.
type ReadOptions struct {
	Stale   bool          // any state
	AtLeast ID            // the state at this id or later, instead of head
	MaxWait time.Duration // 0: as long as the context lets it
	Only    string        // of a view: nothing but the own keys of the space with this stored path is going to be read; "": anything
	Plain   bool          // derived spaces are read as they are, without a wait for their tasks: what transactions do
	Reverse bool          // scans descend

	BlobRefs bool // scans don't load blobs
}

// A ReadOption says how a read is done.
type ReadOption func(*ReadOptions)

// Stale lets a read show what the store has now, without a wait. It may be behind what was acknowledged.
func Stale() ReadOption { return func(o *ReadOptions) { o.Stale = true } }

// AtLeast holds a read until the store has reached commit id, and no longer: later commits, even acknowledged ones,
// need not show. An id after head is waited for.
func AtLeast(id ID) ReadOption { return func(o *ReadOptions) { o.AtLeast = id } }

// MaxWait bounds how long a read is held; then it is a *[WaitError]. Without it the context alone bounds it.
func MaxWait(d time.Duration) ReadOption { return func(o *ReadOptions) { o.MaxWait = d } }

// ScanReverse makes a scan descend, from the highest key to the lowest.
func ScanReverse() ReadOption { return func(o *ReadOptions) { o.Reverse = true } }

// BlobRefs has a scan not load blobs: their entries have the reference alone.
func BlobRefs() ReadOption { return func(o *ReadOptions) { o.BlobRefs = true } }

func readOptions(opts []ReadOption) ReadOptions {
	if len(opts) == 0 {
		return ReadOptions{} // without the allocation that pointers to it bring
	}
	return applyOptions(opts)
}

func applyOptions(opts []ReadOption) ReadOptions {
	var o ReadOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
