package local

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/commit"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A ballast is space on the disk that is kept for when there is no other: to make room takes room, for the table of segments that says what was
// dropped, for settings that say what may be dropped, and for the store to be made durable before the log can go that it would be made of again. It is a file
// without content, for which the file system has reserved space. On a full disk it is given up, whole; when there is space again it is made again, and
// until then the log takes no new segment. So what was given up goes to what makes room, and not to the next commits.
//
// Its size follows the need: as much as the store could have to write, which is what the log has and the store not yet durably, and some for the rest.
type ballast struct {
	fs   vfs.FS
	name string

	mu struct {
		sync.Mutex
		there bool  // the file is
		given bool  // what space there is belongs to what makes room: it was given up, or this opening has not made it yet
		lent  bool  // it was given up for the store's own tidying
		size  int64 // that was reserved, as far as this opening knows
	}
}

const (
	ballastName = "ballast"
	// ballastLeast is for files of settings, the table of segments, and names in directories.
	ballastLeast = 1 << 20
)

func openBallast(fs vfs.FS, dir string) *ballast {
	b := &ballast{fs: fs, name: filepath.Join(dir, ballastName)}
	_, err := fs.Stat(b.name)
	b.mu.there, b.mu.given = err == nil, true
	return b
}

// grow has the ballast be of that size at least. An error leaves it as it was.
func (b *ballast) grow(size int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.size >= size {
		return nil
	}
	there := b.mu.there
	f, err := b.fs.OpenReadWrite(b.name, vfs.WriteCategoryUnspecified)
	if err == nil {
		b.mu.there = true
		err = errors.Join(f.Preallocate(0, size), f.Close())
	}
	if err != nil && !disk.Full(err) {
		b.mu.given = false // this file system can't, or is ill; there is no use in waiting for it
		if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
			b.mu.size, err = size, nil
		}
	}
	if err != nil {
		if !there {
			b.removeLocked()
		}
		return fmt.Errorf("ballast of %d bytes: %w", size, err)
	}
	b.mu.size, b.mu.given, b.mu.lent = size, false, false
	return nil
}

// release gives the ballast up, and reports whether there was any.
func (b *ballast) release() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.removeLocked() {
		return false
	}
	b.mu.given = true
	return true
}

// lend gives the ballast up for the store to tidy itself, which frees space in the end.
func (b *ballast) lend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.removeLocked() {
		b.mu.given, b.mu.lent = false, true
	}
}

// isLent reports whether it was given up for that.
func (b *ballast) isLent() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.lent
}

func (b *ballast) removeLocked() bool {
	if !b.mu.there || disk.Remove(b.fs, b.name) != nil {
		return false
	}
	b.mu.there, b.mu.size = false, 0
	return true
}

// rationed reports whether what space there is belongs to what makes room.
func (b *ballast) rationed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.given
}

// missing reports whether the ballast was given up, or never made.
func (b *ballast) missing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.size == 0
}

// reserveLog makes sure, before the log takes so many bytes more, that the store could be made durable on a disk that is full by then.
func (e *engine) reserveLog(bytes int64) error {
	err := e.ballast.grow(e.ballastFor(bytes))
	if full(err) {
		if e.log != nil && !e.store.NoSpace() { // what is durable in the store needs no ballast
			if _, err := e.store.Flush(); err != nil {
				e.opts.Logger.Warn("store not flushed on a disk that is nearly full", "err", err)
			}
		}
		err = fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
	}
	return err
}

// ballastFor is how large the ballast must be if the log grows by so many bytes.
func (e *engine) ballastFor(bytes int64) int64 {
	if e.log != nil {
		flushed, err := e.store.Flushed()
		if err != nil {
			flushed = 0
		}
		bytes += e.log.BytesAfter(flushed)
	}
	if e.store.Undo() {
		bytes *= 2 // with what is overwritten
	}
	memory := e.opts.MemTableBytes
	if memory == 0 {
		memory = store.DefaultMemTableBytes
	}
	// More than that is never waiting for the store: two memtables, one of which is being written, and the backlog of the pipeline.
	return ballastLeast + min(bytes, 2*memory+commit.BacklogBytes)*9/8
}

// restoreBallast makes the ballast again that was given up, as far as there is space.
func (e *engine) restoreBallast() {
	if !e.ballast.missing() || e.ballast.isLent() && e.store.NoSpace() {
		return
	}
	for size := e.ballastFor(0); ; size /= 2 {
		size = max(size, ballastLeast)
		err := e.ballast.grow(size)
		if err == nil {
			return
		}
		if !full(err) {
			e.opts.Logger.Warn("ballast not made", "err", err)
			return
		}
		if size == ballastLeast {
			return // there is no space yet
		}
	}
}

// essential does what must be done on a full disk as well, with the ballast given up for it if there is no other way.
func (e *engine) essential(op func() error) error {
	err := op()
	if !full(err) || !e.ballast.release() {
		return err
	}
	e.opts.Logger.Info("the disk is full; the ballast was given up to make room")
	for range essentialTries {
		if err = op(); !full(err) {
			break
		}
		time.Sleep(essentialPause) // what else waits for space may have got some, and frees it again
	}
	e.restoreBallast()
	return err
}

const (
	essentialTries = 5
	essentialPause = 20 * time.Millisecond
)

// full reports whether err says that the disk is full.
func full(err error) bool { return disk.Full(err) || errors.Is(err, batchlog.ErrNoSpace) }
