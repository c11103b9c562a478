package seglog

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Segments are filled with zeros before they are used. A sync is cheapest where it changes nothing about
// the file but its bytes: on this side of a file's end, in blocks that have been written before.
const (
	firstSegmentBytes = 1 << 20   // size of a log's first segment; each one after is up to four times as large
	zeroBytes         = 256 << 10 // written at once
	zeroSyncBytes     = 1 << 20   // synced at once: a large sync would make those of commits wait
	noSpaceRetry      = 50 * time.Millisecond
)

// prepared is a file of zeros with a name of its own.
type prepared struct {
	name string
	dir  string // as configured
	uuid segment.UUID
	size int64
	file vfs.File
}

// A preparer has the next segment ready before it is needed.
type preparer struct {
	log *Log

	mu struct {
		sync.Mutex
		done    *sync.Cond // a file became ready, or could not be made
		size    int64      // asked for and not yet made; 0: nothing is asked for
		need    int64      // the least that will do
		ready   *prepared
		err     error // of the last try
		full    bool  // there was no space when one was last made
		stuck   bool  // there was no space when one was last taken into use
		tried   time.Time
		stopped bool
	}
	wanted chan struct{}
}

func (p *preparer) init(l *Log) {
	p.log = l
	p.mu.done = sync.NewCond(&p.mu.Mutex)
	p.wanted = make(chan struct{}, 1)
}

// want asks for a file of that size, if none is ready or asked for.
func (p *preparer) want(size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.ready == nil && p.mu.size == 0 && time.Since(p.mu.tried) > noSpaceRetry {
		p.askLocked(size, 0)
	}
}

func (p *preparer) askLocked(size, need int64) {
	p.mu.size, p.mu.need = max(size, need), need
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// take returns a file of at least need bytes, of size if it must still be made, and of no more if that is enough.
func (p *preparer) take(size, need int64) (*prepared, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if f := p.mu.ready; f != nil {
			p.mu.ready = nil
			if f.size >= need && f.size <= max(size, need) {
				return f, nil
			}
			f.remove(p.log)
			continue
		}
		if p.mu.stopped {
			return nil, batchlog.ErrClosed
		}
		if p.mu.size == 0 {
			if p.mu.err != nil && time.Since(p.mu.tried) < noSpaceRetry {
				return nil, p.mu.err
			}
			p.mu.err = nil
			p.askLocked(size, need)
		}
		p.mu.done.Wait()
		if p.mu.err != nil && p.mu.ready == nil && p.mu.size == 0 {
			return nil, p.mu.err
		}
	}
}

// used notes how it went to take a file into use.
func (p *preparer) used(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.stuck = noSpace(err)
}

// drop removes the file that is ready.
func (p *preparer) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.ready != nil {
		p.mu.ready.remove(p.log)
		p.mu.ready = nil
	}
}

// prepareLoop makes files that are asked for.
func (l *Log) prepareLoop() {
	p := &l.next
	defer func() {
		p.mu.Lock()
		p.mu.stopped, p.mu.size = true, 0
		p.mu.done.Broadcast()
		p.mu.Unlock()
	}()
	for {
		select {
		case <-l.done:
			return
		case <-p.wanted:
		}
		p.mu.Lock()
		size, need := p.mu.size, p.mu.need
		p.mu.Unlock()
		f, err := l.prepare(size, need)
		p.mu.Lock()
		p.mu.ready, p.mu.err, p.mu.size, p.mu.tried = f, err, 0, time.Now()
		p.mu.full = noSpace(err)
		p.mu.done.Broadcast()
		p.mu.Unlock()
	}
}

// prepare makes a file of size bytes. On a full disk it tries smaller ones down to need, and the next directory if
// one fails.
func (l *Log) prepare(size, need int64) (*prepared, error) {
	dirs := l.settings().Dirs
	if len(dirs) == 0 {
		dirs = []string{""}
	}
	turn := 0
	if t := l.table.Load(); t != nil {
		turn = t.segs.len()
	}
	var errs []error
	for ; ; size /= 4 {
		size = max(size, need)
		errs = errs[:0]
		if l.opts.Reserve != nil {
			if err := l.opts.Reserve(size); err != nil {
				errs = append(errs, err)
			}
		}
		for i := 0; i < len(dirs) && len(errs) == i; i++ {
			f, err := l.prepareIn(dirs[(turn+i)%len(dirs)], size)
			if err == nil {
				return f, nil
			}
			errs = append(errs, err)
		}
		err := fmt.Errorf("make a segment of %d bytes: %w", size, errors.Join(errs...))
		if !noSpace(err) {
			return nil, err
		}
		if size <= max(need, min(firstSegmentBytes, l.settings().segmentBytes())) {
			return nil, fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
		}
	}
}

func (l *Log) prepareIn(dir string, size int64) (*prepared, error) {
	p := &prepared{dir: dir, uuid: l.opts.NewUUID(), size: size}
	p.name = preparedName(tagOf(p.uuid))
	err := l.mayChange(dir)
	if err != nil {
		return nil, err
	}
	if p.file, err = l.opts.FS.OpenReadWrite(l.path(dir, p.name), vfs.WriteCategoryUnspecified); err != nil {
		return nil, err
	}
	err = l.zero(p)
	if err == nil {
		err = disk.SyncDir(l.opts.FS, l.path(dir, "")) // before the table names it; see [Log.finishName]
	}
	if err != nil {
		p.remove(l)
		return nil, err
	}
	return p, nil
}

func (l *Log) zero(p *prepared) error {
	zeros := make([]byte, min(zeroBytes, p.size))
	unsynced := 0
	for at := int64(0); at < p.size; at += int64(len(zeros)) {
		if l.done != nil {
			select {
			case <-l.done:
				return batchlog.ErrClosed
			default:
			}
		}
		n, err := p.file.WriteAt(zeros[:min(int64(len(zeros)), p.size-at)], at)
		if err != nil {
			return err
		}
		if unsynced += n; unsynced >= zeroSyncBytes {
			if err := p.file.SyncData(); err != nil {
				return err
			}
			unsynced = 0
		}
	}
	return p.file.Sync()
}

// remove closes and removes the file.
func (p *prepared) remove(l *Log) {
	err := p.file.Close()
	if removeErr := l.opts.FS.Remove(l.path(p.dir, p.name)); err == nil {
		err = removeErr
	}
	if err != nil {
		l.opts.Logger.Warn("prepared segment cannot be removed; it will be when the database is opened", "file", p.name, "err", err)
	}
}
