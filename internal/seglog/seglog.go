// Package seglog is a log: segments in order, of which the last one grows a group at a time. It appends and syncs, keeps
// the newest groups in memory for followers at the tail, seals segments that are full, and drops old ones.
//
// One goroutine appends ([Log.Add], [Log.Sync]); everything else may be called at any time.
//
// A directory holds the manifest, which names the table of segments, and that is the truth about them: a segment that it doesn't name is not part of
// the log, and one that it names and that isn't there is damage. Whatever becomes of segments is an edit of the table first, and done then: so a crash
// finds what is to be done, or to be undone, in the table, never in the look of names.
package seglog

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options are the parts and the identity of a log.
type Options struct {
	FS       vfs.FS
	Dir      string // of the manifest; must exist
	Database segment.UUID
	Epoch    batchlog.Epoch
	Logger   *slog.Logger
	// NewUUID makes the names of segments.
	NewUUID  func() segment.UUID
	Settings Settings
	// Reserve is asked before the log takes so many bytes more of its disk; an ErrNoSpace is as if the disk was full. nil: it may.
	Reserve func(bytes int64) error
	// Passed is a clock that nobody sets: the age of segments is told by it, in microseconds. nil: by the times of commits. Started is called before
	// it, when the log is opened, with the latest time of it that a segment has, 0 without one, and with the time of the newest commit.
	Passed  func() int64
	Started func(known, newest int64)
	// Places are the directories beside Dir that segments may be in; nil: relative ones are within Dir, and nobody else has any.
	Places Places
	// Begun says that there is a log, although its files may be gone: none is begun then.
	Begun bool
}

// A Log is a log in a directory. It owns the goroutines prepareLoop, sealLoop, sweepLoop, tableLoop and markLoop; Open starts them, Close ends them.
type Log struct {
	opts Options
	life context.Context //nolint:containedctx // ends with Close
	stop context.CancelFunc
	done <-chan struct{} // of life
	wg   sync.WaitGroup

	tail appender // the goroutine that appends owns it
	ring ring
	next preparer

	// Each has its loop come by.
	sealWanted, sweepWanted, tableWanted, markWanted chan struct{}

	sweepAsked chan chan struct{} // as sweepWanted, by who waits until sweepLoop has been there: it closes what it is sent

	table     atomic.Pointer[table] // as it is durable; it changes under the locks of keep and mu
	head      atomic.Uint64         // newest durable commit; followers see no later one
	followers atomic.Int64
	syncs     atomic.Int64
	rollSoon  atomic.Bool // begin a new segment with the next group, although there is room

	moving sync.Mutex // held by who moves segments to warm directories; comes before the lock of keep
	keep   struct {
		sync.Mutex
		keeper
	}
	// mu is taken for moments only.
	mu struct {
		sync.Mutex
		settings Settings
		failed   error // the first failed write or sync; nothing is appended any more
		closed   bool
		open     map[[16]byte]struct{}    // chains that are being filled
		chains   map[[16]byte]batchlog.ID // committed chains whose files are there, and their commits; 0: of a commit that was dropped
		notes    map[batchlog.ID]note     // what was found wrong with segments since the log was opened, by their first commits
	}
}

// A note is what is wrong with a segment.
type note struct {
	why   string
	again bool // it may be well the next time
}

// Open opens the log in o.Dir, or begins one whose first commit will be 1. durable is the newest commit that must be there
// because the store has it for good.
func Open(o Options, durable batchlog.ID) (*Log, error) {
	l := newLog(o)
	m, err := l.readManifest()
	switch {
	case disk.NotExist(err):
		err = l.create(durable)
	case err == nil:
		err = l.load(m, durable)
	}
	if err != nil {
		l.closeFiles()
		if f := l.keep.file; f != nil {
			_ = f.file.Close() // the error says more
		}
		return nil, err
	}
	l.life, l.stop = context.WithCancel(context.Background())
	l.done = l.life.Done()
	l.next.init(l)
	for _, loop := range []func(){l.sealLoop, l.prepareLoop, l.sweepLoop, l.tableLoop, l.markLoop} {
		l.wg.Go(loop)
	}
	for _, wanted := range []chan struct{}{l.sealWanted, l.sweepWanted, l.tableWanted} {
		poke(wanted)
	}
	return l, nil
}

// newLog is a log that is not open.
func newLog(o Options) *Log {
	l := &Log{opts: o}
	for _, c := range []*chan struct{}{&l.sealWanted, &l.sweepWanted, &l.tableWanted, &l.markWanted} {
		*c = make(chan struct{}, 1)
	}
	l.sweepAsked = make(chan chan struct{})
	l.ring.limit = ringBytes
	l.mu.settings = o.Settings
	l.mu.open, l.mu.chains, l.mu.notes = map[[16]byte]struct{}{}, map[[16]byte]batchlog.ID{}, map[batchlog.ID]note{}
	return l
}

// Close ends followers with ErrClosed, waits for the log's goroutines and for an edit of its table that is under way, and notes how far the log is
// durable. Nothing may be appended any more, and nothing is written. A second Close does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.mu.closed
	l.mu.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	l.stop()
	l.ring.wake()
	l.wg.Wait()
	l.next.drop()
	err := l.closeTable()
	l.closeFiles()
	return err
}

func (l *Log) closeFiles() {
	t := l.table.Load()
	if t == nil {
		return
	}
	for s := range t.segs.backward() {
		if f := s.live.takeFile(); f != nil {
			// What was acknowledged is synced; an error here says nothing about it.
			_ = f.Close()
		}
	}
}

// Head is the newest durable commit.
func (l *Log) Head() batchlog.ID { return batchlog.ID(l.head.Load()) }

// LastTime is the time of the newest commit when the log was opened, or appended since by the caller; 0 without one.
func (l *Log) LastTime() int64 { return l.tail.lastTime }

// Failed returns the error that ended appending, or nil.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.failed
}

// NoSpace reports whether the disk was full when room was last made.
func (l *Log) NoSpace() bool {
	l.next.mu.Lock()
	defer l.next.mu.Unlock()
	return l.next.mu.full || l.next.mu.stuck
}

// Oldest is the oldest commit in the log, head+1 if it has none.
func (l *Log) Oldest() batchlog.ID { return l.table.Load().oldest() }

// Kept is the oldest commit that the log has, or that a crash may bring back: the table that readers see is never newer than the one on the disk.
func (l *Log) Kept() batchlog.ID { return l.Oldest() }

// Status is how the log is, without its name and its settings.
func (l *Log) Status() batchlog.LogStatus {
	t := l.table.Load()
	first, _ := t.segs.first()
	st := batchlog.LogStatus{
		First:     first.first,
		Last:      l.Head(),
		Segments:  t.segs.len(),
		Bytes:     t.bytes,
		Warm:      t.warm,
		WarmBytes: t.warmBytes,
		Syncs:     l.syncs.Load(),
		Damaged:   l.damaged(t),
	}
	if oldest := first.firstTime(); oldest != 0 {
		st.Oldest = time.UnixMicro(oldest)
	}
	if a := t.active(); a.live != nil {
		_, chains := a.live.groups()
		st.Bytes += a.live.end.Load() + chainBytes(chains)
	}
	return st
}

// damaged is what is noted of segments, in their order.
func (l *Log) damaged(t *table) (damaged []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, first := range slices.Sorted(maps.Keys(l.mu.notes)) {
		if s, ok := t.segs.get(uint64(first)); ok {
			damaged = append(damaged, s.name()+": "+l.mu.notes[first].why)
		}
	}
	return damaged
}

// noted is what is noted of the segment that begins with that commit.
func (l *Log) noted(first batchlog.ID) (note, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.mu.notes[first]
	return n, ok
}

// note notes what is wrong with s, for as long as the log is open; see [Log.Verify]. That is no edit: what is found is on the disk already, and may be mended there.
func (l *Log) note(s *seg, n note) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first, ok := l.table.Load().segs.get(s.key()); ok && first.tag == s.tag {
		l.mu.notes[s.first] = n
	}
}

// wellAgain takes back what was noted of s, and reports whether there was anything.
func (l *Log) wellAgain(s *seg) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.mu.notes[s.first]
	delete(l.mu.notes, s.first)
	return ok
}

// Followers is the number of readers that are open.
func (l *Log) Followers() int { return int(l.followers.Load()) }

// path is where the file of that name is in a directory of the table.
func (l *Log) path(dir, name string) string {
	switch {
	case dir == "":
		return filepath.Join(l.opts.Dir, name)
	case l.opts.Places != nil:
		return filepath.Join(l.opts.Places.Path(dir), name)
	case filepath.IsAbs(dir):
		return filepath.Join(dir, name)
	default:
		return filepath.Join(l.opts.Dir, dir, name)
	}
}

// fail ends appending with err, the first time it is called.
func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.failed == nil {
		l.mu.failed = err
	}
}

// noSpace reports whether the disk was full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, batchlog.ErrNoSpace)
}
