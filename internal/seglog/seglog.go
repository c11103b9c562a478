// Package seglog is a log: segments in order, of which the last one grows a group at a time. It appends and syncs, keeps
// the newest groups in memory for followers at the tail, seals segments that are full, and drops old ones.
//
// One goroutine appends ([Log.Add], [Log.Sync]); everything else may be called at any time.
//
// A directory holds the manifest, which is the table of segments and the truth about them, and the segments. A segment that
// the manifest doesn't name is not part of the log; one that it names and that isn't there is damage.
package seglog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
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
}

// A Log is a log in a directory. It owns two goroutines, prepareLoop and sealLoop; Open starts them, Close ends them.
type Log struct {
	opts Options
	stop context.CancelFunc
	done <-chan struct{}
	wg   sync.WaitGroup

	tail       appender // the goroutine that appends owns it
	ring       ring
	next       preparer
	sealWanted chan struct{}

	head      atomic.Uint64 // newest durable commit; followers see no later one
	followers atomic.Int64
	syncs     atomic.Int64
	rollSoon  atomic.Bool // begin a new segment with the next group, although there is room

	// mu is taken for moments only; the manifest is written under manifestMu, which comes first.
	mu struct {
		sync.Mutex
		segments []*seg // in order of ids, without holes; the last one is active
		limbo    []*seg // dropped, but no manifest that says so is known to be durable: a crash may bring them back
		settings Settings
		trimmed  int64 // time of the newest commit that was dropped, in microseconds since 1970; 0: none was
		failed   error // the first failed write or sync; nothing is appended any more
		closed   bool
		open     map[[16]byte]struct{} // chains that are being filled
	}
	manifestMu sync.Mutex
}

// A seg is one segment of the table. Fields that change are guarded by Log.mu, but for end.
type seg struct {
	name   string
	dir    string // as configured; "" is the log's own. Of a sealed one it changes when that goes warm
	warm   bool   // it is in a warm directory, with what belongs to it
	header segment.Header
	state  state
	first  batchlog.ID
	last   batchlog.ID // of a segment that is not active
	end    atomic.Int64
	size   int64          // of the file, in bytes
	marks  []segment.Mark // of a segment that isn't sealed
	oldest int64          // time of the first commit, in microseconds since 1970; 0: no commit
	newest int64          // time of the last commit
	begun  int64          // by Options.Passed: when the first commit came; 0: none has
	ended  int64          // by Options.Passed: when the last commit came, or later where that is not known
	hash   [32]byte       // of a sealed one
	broken string         // why it could not be sealed
	chains []segChain     // whose records are in it
	file   vfs.File       // for writing, until it is sealed
}

// A state is how far a segment has come.
type state uint8

const (
	active state = iota // groups are appended
	full                // all groups are there, the index is not
	sealed              // immutable
)

// Open opens the log in o.Dir, or begins one whose first commit will be 1. durable is the newest commit that must be there
// because the store has it for good.
func Open(o Options, durable batchlog.ID) (*Log, error) {
	l := &Log{opts: o, sealWanted: make(chan struct{}, 1)}
	l.ring.limit = ringBytes
	l.mu.settings = o.Settings
	m, err := l.readManifest()
	switch {
	case disk.NotExist(err):
		err = l.create()
	case err == nil:
		err = l.load(m)
	}
	if err == nil && batchlog.ID(l.head.Load()) < durable {
		err = &batchlog.CorruptError{File: filepath.Join(o.Dir, manifestName), ID: batchlog.ID(l.head.Load()) + 1,
			Err: fmt.Errorf("the log ends at commit %d, the store is at %d: files of the log are missing or from an older copy; restore them", l.head.Load(), durable)}
	}
	if err != nil {
		l.closeFiles()
		return nil, err
	}
	l.dateSegments()
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.done = stop, ctx.Done()
	l.next.init(l)
	l.wg.Go(l.sealLoop)
	l.wg.Go(l.prepareLoop)
	l.wantSeal()
	return l, nil
}

// Close ends followers with ErrClosed, waits for the log's goroutines and notes in the manifest how far the log is
// durable. Nothing may be appended any more. A second Close does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	closed, failed := l.mu.closed, l.mu.failed
	l.mu.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	l.stop()
	l.ring.wake()
	l.wg.Wait()
	l.next.drop()
	var err error
	if failed == nil {
		if err = l.writeManifest(); err != nil && disk.Full(err) {
			// Nothing is lost by it: the next opening reads a little more of the active segment.
			l.opts.Logger.Warn("how far the log is durable is not noted, as the disk is full", "err", err)
			err = nil
		}
	}
	l.closeFiles()
	return err
}

func (l *Log) closeFiles() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.mu.segments {
		if s.file != nil {
			// What was acknowledged is synced; an error here says nothing about it.
			_ = s.file.Close()
			s.file = nil
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
func (l *Log) Oldest() batchlog.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.segments[0].first
}

// Kept is the oldest commit that the log has, or that a crash may bring back.
func (l *Log) Kept() batchlog.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.limbo) > 0 {
		return l.mu.limbo[0].first
	}
	return l.mu.segments[0].first
}

// makeDirs makes directories of segments and their parents, and the names of what it made durable.
func (l *Log) makeDirs(dirs []string) error {
	for _, dir := range dirs {
		dir = l.path(dir, "")
		var parents []string // of what is not there yet
		for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
			if _, err := l.opts.FS.Stat(d); !disk.NotExist(err) {
				break
			}
			parents = append(parents, filepath.Dir(d))
		}
		if err := l.opts.FS.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("directory of segments: %w", err)
		}
		for _, parent := range parents {
			if err := disk.SyncDir(l.opts.FS, parent); err != nil {
				return err
			}
		}
	}
	return nil
}

// Status is how the log is, without its name and its settings.
func (l *Log) Status() batchlog.LogStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := batchlog.LogStatus{
		First:    l.mu.segments[0].first,
		Last:     l.Head(),
		Segments: len(l.mu.segments),
		Syncs:    l.syncs.Load(),
	}
	if oldest := l.mu.segments[0].oldest; oldest != 0 {
		st.Oldest = time.UnixMicro(oldest)
	}
	for _, s := range l.mu.segments {
		if s.state == sealed {
			st.Bytes += s.size
		} else {
			st.Bytes += s.end.Load()
		}
		st.Bytes += s.chainBytes()
		if s.warm {
			st.Warm++
			st.WarmBytes += s.size + s.chainBytes()
		}
		if s.broken != "" {
			st.Damaged = append(st.Damaged, s.name+": "+s.broken)
		}
	}
	return st
}

// Followers is the number of readers that are open.
func (l *Log) Followers() int { return int(l.followers.Load()) }

// path is where the file of that name is in a configured directory.
func (l *Log) path(dir, name string) string {
	switch {
	case dir == "":
		return filepath.Join(l.opts.Dir, name)
	case filepath.IsAbs(dir):
		return filepath.Join(dir, name)
	default:
		return filepath.Join(l.opts.Dir, dir, name)
	}
}

func (l *Log) active() *seg { return l.mu.segments[len(l.mu.segments)-1] }

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
