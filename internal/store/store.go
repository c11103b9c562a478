// Package store is what the log adds up to: keys and values in Pebble. It applies commits in the order of their ids, gives
// views, each at one id, and says how far it has come, in memory and for good.
//
// Pebble's own write-ahead log is off: the log is the only one. The id that the store has reached is written in the same
// Pebble batch as the changes, so after a crash the store is a prefix of the log, and is brought up by replay.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Defaults of Options.
const (
	DefaultCacheBytes    = 64 << 20
	DefaultMemTableBytes = 64 << 20
)

// Options are the parts and sizes of a store.
type Options struct {
	FS           vfs.FS
	Dir          string
	Staging      string // where the tables of chains are made again after a crash, in a directory each, and those of large inverses
	Logger       *slog.Logger
	CacheBytes   int64       // for blocks, beside the memtables; 0: DefaultCacheBytes. Blocks also have what memtables leave of theirs, see memory
	Base         batchlog.ID // an empty store stands at this commit
	InverseLimit int64       // of the size of the inverse of one commit; 0: DefaultInverseLimit
	// Beside is which commits are in the segment of the log that holds one, and the file for their inverses; "" while they are to be in the store. nil: there
	// are no files.
	Beside func(id batchlog.ID) (commits batchlog.IDRange, file string)
	// Rationed reports whether what space there is on the disk belongs to what makes room, so that compactions wait; nil: it never does.
	Rationed      func() bool
	MemTableBytes int64 // after which changes are written to disk; what replay after a crash costs is some of these; 0: DefaultMemTableBytes
}

// The store's own keys begin with zero; those of spaces begin with the tag of an array, a0.
//
//	00 'a'            the applied mark: id of the newest commit applied, 8 bytes
//	00 't' token      id of the commit with that token, 8 bytes
//	00 'i' id token   nothing; the tokens in the order of ids, to forget them with the log
//	00 'b', 00 'r'    blobs and what refers to them: see blobs.go
//	00 'U', 00 'u', 00 'w', 00 'x'  what commits have overwritten: see inverse.go
var appliedKey = []byte{0, 'a'}

const (
	tokenTag   = 't'
	tokenIDTag = 'i'
)

// A Store is open on a directory. Apply must be called by one goroutine at a time; all else is safe for concurrent use.
type Store struct {
	opts        Options
	fs          *patientFS
	summed      *summedFS
	quiet       *quietFS // what Pebble sees of it
	lock        *pebble.Lock
	db          *pebble.DB
	left        bool // Pebble's opening hangs, and is left behind
	compactions *compactions
	memory      *memory
	use         gate

	applied atomic.Uint64
	written atomic.Int64 // bytes of ops applied since it was opened
	// trouble is the last failure of background work. Pebble tries it again, for ever.
	trouble atomic.Pointer[error]
	failed  atomic.Pointer[error]

	said struct { // what Pebble says of itself
		sync.Mutex
		last *pebble.Metrics
		done chan struct{} // closed when what was asked for is there; nil: nothing was
	}
	staged struct { // tables that are ready for the chains that they are of
		sync.Mutex
		tables map[[16]byte]*Tables
	}
	chain chainGate
	undo  struct {
		wanted   atomic.Bool   // inverses are kept from the next commit on that is applied
		row      atomic.Uint64 // the first commit of the row of inverses that goes on; 0: none does
		inverter inverter
		sizes    inverseSizes
	}
	blobIndex sync.Mutex // held by who writes what the store knows of blobs
	open      struct {   // what must be closed before Pebble is
		sync.Mutex
		snapshots map[*Snapshot]struct{}
	}
}

// Open opens the store in o.Dir, or makes an empty one.
func Open(o Options) (*Store, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	if o.InverseLimit == 0 {
		o.InverseLimit = DefaultInverseLimit
	}
	s := &Store{opts: o, compactions: newCompactions()}
	s.undo.sizes = defaultInverseSizes
	s.summed = &summedFS{FS: o.FS}
	s.fs = newPatientFS(s.summed, func(err error) { s.fail(&fatalError{text: err.Error(), args: []any{err}}) })
	s.fs.rationed = o.Rationed
	s.quiet = newQuietFS(s.fs)
	s.open.snapshots = map[*Snapshot]struct{}{}
	s.staged.tables = map[[16]byte]*Tables{}
	if err := s.fs.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("store: %w", openError(err))
	}
	var err error
	if s.lock, err = pebble.LockDirectory(o.Dir, s.fs); err != nil {
		return nil, fmt.Errorf("lock store %s: %w", o.Dir, openError(err))
	}
	s.memory = newMemory(o.CacheBytes, o.MemTableBytes)
	if err = s.checkFiles(); err == nil {
		err = s.openPebble()
	}
	if err == nil {
		err = s.readMark()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", o.Dir, s.openFailed(err)), s.Close())
	}
	s.clearUndoDir()
	s.quiet.opened()
	s.fs.opened()
	s.compactions.begin()
	return s, nil
}

// openError is why a store can't be opened, in our words.
func openError(err error) error {
	if disk.Full(err) {
		return fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
	}
	return err
}

// openPebble opens Pebble in a goroutine of its own: where it can't go on it ends the goroutine that it
// runs in, by way of pebbleLogger.
func (s *Store) openPebble() error {
	var db *pebble.DB
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		o := s.pebbleOptions()
		if err = makeStore(s.opts.FS, s.opts.Dir, o); err == nil {
			db, err = pebble.Open(s.opts.Dir, o)
		}
	}()
	if !s.ends(done) {
		s.left = true
		s.compactions.Unregister()
		return s.Failed()
	}
	s.db = db
	if db == nil {
		s.compactions.Unregister()
	}
	if db == nil && err == nil {
		return s.Failed()
	}
	return err
}

// ends waits until done is closed. It reports false if it never will be: what Pebble waits for while it opens or closes may be
// a goroutine of its own that could not go on.
func (s *Store) ends(done <-chan struct{}) bool {
	for polls := 0; ; {
		select {
		case <-done:
			return true
		case <-time.After(endPoll):
			if s.Failed() != nil {
				polls++ // if the goroutine itself could not go on it is about to end
			}
			if polls > 10 {
				return false
			}
		}
	}
}

// endPoll is how often an opening or a closing that takes its time is asked whether it can still end.
const endPoll = 20 * time.Millisecond

func (s *Store) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          s.quiet,
		Lock:                        s.lock,
		Cache:                       s.memory.cache,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                uint64(s.opts.MemTableBytes),
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       4,
		LBaseMaxBytes:               512 << 20,
		L0StopWritesThreshold:       1000,
		MaxOpenFiles:                4096,
		Logger:                      pebbleLogger{s},
	}
	o.Experimental.CompactionScheduler = s.compactions
	o.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			err = readError(err)
			s.trouble.Store(&err)
			s.opts.Logger.Warn("store: background work failed and will be tried again", "err", err)
		},
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.opts.Logger.Error("store: damaged table", "file", i.Path, "err", i.Details)
		},
	}
	setTables(o)
	return o
}

// setTables says how tables are made.
func setTables(o *pebble.Options) {
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		// A value that makes a block too large begins the next one, however little is in this one. By default it joins one that is less than nine tenths full, and who gets a small
		// key of that reads 60 MB of a neighbour. (Pebble can write large values to files of their own, but ends the process when one of these is damaged.)
		o.Levels[i].BlockSizeThreshold = 1
	}
}

func (s *Store) readMark() error {
	value, err := s.Get(appliedKey)
	if errors.Is(err, batchlog.ErrNotFound) {
		s.applied.Store(uint64(s.opts.Base))
		return nil
	}
	if err != nil {
		return err
	}
	s.applied.Store(binary.BigEndian.Uint64(value))
	return s.readRow()
}

// Close lets go of the directory. What was applied but not flushed is lost, and is brought up from the log again. Snapshots
// that are open answer ErrClosed from now on. A second Close does nothing.
func (s *Store) Close() error {
	if !s.use.close() {
		return nil
	}
	full := s.NoSpace()
	s.fs.stop()
	began := time.Now()
	idle := s.use.empty(func() bool {
		return (full || s.Failed() != nil || s.Trouble() != nil) && time.Since(began) > closePatience
	})
	if !idle || s.db == nil {
		// Pebble waits for what can't come, a lock of its own or space on the disk. It is left behind, cut off from the disk.
		s.fs.cut()
		return s.unlock()
	}
	var dropped error
	s.open.Lock()
	for snap := range s.open.snapshots {
		dropped = errors.Join(dropped, snap.drop())
	}
	s.open.Unlock()
	dropped = errors.Join(dropped, s.abandonChain())
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				// Pebble panics over what it forgot to let go of itself when a damaged file could not be read. What is to be durable is by then.
				s.opts.Logger.Warn("store not closed in order", "err", r)
			}
		}()
		err = s.db.Close()
	}()
	if !s.ends(done) { // what it waits for could not go on just now
		s.fs.cut()
		return s.unlock()
	}
	s.memory.cache.Unref()
	s.fs.cut()
	return errors.Join(dropped, err, s.lock.Close())
}

// unlock gives up the directory's lock, with the reference that Pebble has.
func (s *Store) unlock() error {
	err := s.lock.Close()
	if s.db != nil || s.left { // an Open that did not come to its end has given its own up
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// closePatience is how long Close waits for what is under way on a disk that is full, or that fails.
const closePatience = 200 * time.Millisecond

// Trouble is the last failure of background work, such as a flush, or nil: another one each time that there is another failure.
func (s *Store) Trouble() *error { return s.trouble.Load() }

// Failed returns why the store can't take changes any more, or nil.
func (s *Store) Failed() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// NoSpace reports whether the store waits for space on the disk.
func (s *Store) NoSpace() bool { return s.fs.waiting.Load() > 0 }

// Applied is the newest commit that was applied.
func (s *Store) Applied() batchlog.ID { return batchlog.ID(s.applied.Load()) }

// Flushed is the newest commit whose changes a crash would not undo.
func (s *Store) Flushed() (batchlog.ID, error) {
	if !s.use.enter() {
		return 0, batchlog.ErrClosed
	}
	defer s.use.leave()
	it, err := s.db.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true, LowerBound: appliedKey, UpperBound: append(appliedKey[:2:2], 0)})
	if err != nil {
		return 0, err
	}
	id := batchlog.ID(0)
	if it.First() {
		value, err := it.ValueAndErr()
		if err != nil {
			return 0, errors.Join(err, readError(it.Close()))
		}
		id = batchlog.ID(binary.BigEndian.Uint64(value))
	}
	return id, errors.Join(readError(it.Error()), readError(it.Close()), s.Failed()) // a store that has failed may take for durable what is not
}

// Flush begins to write all that was applied to the disk; done is closed when that is over, well or not. See [Store.Flushed].
func (s *Store) Flush() (done <-chan struct{}, err error) {
	if !s.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.use.leave()
	if err := s.Failed(); err != nil {
		return nil, err
	}
	return s.db.AsyncFlush()
}

// Get returns the value of a stored key, or ErrNotFound. The value is the caller's.
func (s *Store) Get(key []byte) ([]byte, error) {
	if !s.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.use.leave()
	for {
		value, ok, err := s.get(key)
		if ok {
			return value, err
		}
	}
}

// get is one try of Get. ok is false if a chain was taken in meanwhile, so that another one is needed.
func (s *Store) get(key []byte) (kept []byte, ok bool, err error) {
	turn, before := s.chain.enter()
	var from pebble.Reader = s.db
	if before != nil {
		defer func() { _ = before.release() }() // should that fail the store has failed, and says so
		from = before.snap
	}
	value, closer, err := from.Get(key)
	if before == nil && !s.chain.still(turn) {
		if err == nil {
			err = closer.Close()
		}
		return nil, false, err
	}
	if err != nil {
		return nil, true, readError(err)
	}
	kept = make([]byte, len(value))
	copy(kept, value)
	return kept, true, closer.Close()
}

// Status is how the store is, while the disk is full how it was; zero when it is closed or has failed.
func (s *Store) Status() batchlog.StoreStatus {
	if !s.use.enter() {
		return batchlog.StoreStatus{}
	}
	defer s.use.leave()
	m := s.metrics()
	if m == nil {
		return batchlog.StoreStatus{}
	}
	st := batchlog.StoreStatus{
		Bytes:       int64(m.DiskSpaceUsage()),
		MemoryBytes: int64(m.MemTable.Size),
		CacheBytes:  m.BlockCache.Size,
		Compactions: m.Compact.Count,
		ReadAmp:     m.ReadAmp(),
	}
	if applied := s.written.Load(); applied > 0 {
		total := m.Total()
		st.WriteAmp = float64(total.TableBytesFlushed+total.TableBytesCompacted) / float64(applied)
	}
	return st
}

// metrics is what Pebble says of itself, or said last while it can't: it takes the lock of its manifest for that, which who writes the manifest
// holds, as long as the disk is full, or for ever when the store has failed. nil: it has said nothing yet, or has failed.
func (s *Store) metrics() *pebble.Metrics {
	if s.Failed() != nil {
		return nil
	}
	s.said.Lock()
	done := s.said.done
	if done == nil && s.use.enter() {
		answered := make(chan struct{})
		s.said.done, done = answered, answered
		go func() {
			defer s.use.leave()
			m := s.db.Metrics()
			s.said.Lock()
			defer s.said.Unlock()
			s.said.last, s.said.done = m, nil
			close(answered)
		}()
	}
	s.said.Unlock()
	for done != nil {
		select {
		case <-done:
			done = nil
		case <-time.After(endPoll):
			if s.Failed() != nil {
				return nil
			}
			if s.NoSpace() {
				done = nil
			}
		}
	}
	s.said.Lock()
	defer s.said.Unlock()
	return s.said.last
}
