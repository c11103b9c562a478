package store

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A patientFS takes a full disk for a slow one. What needs space waits until there is some, so Pebble's flushes and compactions pause
// and go on by themselves; Pebble is never told, as it could not go on if the write of its manifest failed. Whoever
// feeds the store sees [Store.NoSpace] and stops. Syncs are not tried again: a failed sync is final.
//
// Where Pebble would not survive an error, and nobody is to wait any more, the disk is lost to it: from then on it is told that changes succeed, and none is
// made; those that reads could meet only when the store is closed, until then they wait. To the disk that is as if the process had been killed there; Pebble ends in order, and leaves neither goroutines nor memory behind.
type patientFS struct {
	vfs.FS
	waiting atomic.Int64 // operations that wait for space
	stopped chan struct{}
	once    sync.Once
	dead    atomic.Bool
	lost    atomic.Bool
	patient atomic.Bool     // from when the store is open: until then somebody waits for that
	fatal   func(err error) // is told why the store has failed
	// rationed reports whether what space there is belongs to what makes room; nil: it never does.
	rationed func() bool
	opening  openingFS // what is known of the disk until the store is open
}

// spaceRetry is how often a waiting operation looks whether there is space.
const spaceRetry = 50 * time.Millisecond

func newPatientFS(fs vfs.FS, fatal func(err error)) *patientFS {
	return &patientFS{FS: fs, stopped: make(chan struct{}), fatal: fatal}
}

// stop ends waits: what waits loses the disk.
func (p *patientFS) stop() { p.once.Do(func() { close(p.stopped) }) }

// cut fails every change from now on, so that what is left behind of a Pebble can't harm the next one.
func (p *patientFS) cut() {
	p.stop()
	p.dead.Store(true)
}

// try runs op until it doesn't fail for want of space.
func (p *patientFS) try(w worth, op func() error) error {
	if p.dead.Load() {
		time.Sleep(deadRetry)
		return batchlog.ErrClosed
	}
	if p.lost.Load() {
		return p.pretend(w)
	}
	later := w == canWait && p.rationed != nil
	var err error
	if !later || !p.rationed() {
		if err = op(); !disk.Full(err) || !p.patient.Load() {
			return p.settle(w, err)
		}
	}
	// What waits only for its turn is not waited for: who feeds the store goes on.
	counted := false
	defer func() {
		if counted {
			p.waiting.Add(-1)
		}
	}()
	for {
		if full := disk.Full(err); full != counted {
			counted = full
			if full {
				p.waiting.Add(1)
			} else {
				p.waiting.Add(-1)
			}
		}
		select {
		case <-p.stopped:
			p.lost.Store(true)
			return nil
		case <-time.After(spaceRetry):
		}
		if p.lost.Load() {
			return p.pretend(w)
		}
		if later && p.rationed() {
			continue
		}
		if err = op(); !disk.Full(err) {
			return p.settle(w, err)
		}
	}
}

// pretend tells Pebble that a change succeeded that was not made, as the disk is lost. While the store is read from, that is so only for the vital ones, which
// nobody reads before the next opening: a table that is not there would be looked for. What else is to be changed waits until the store is closed.
func (p *patientFS) pretend(w worth) error {
	if w != vital {
		<-p.stopped
	}
	return nil
}

// settle is what Pebble is told of an operation that did not fail for want of space. Without the vital ones it can't go on: the disk is lost to it,
// and the store has failed.
func (p *patientFS) settle(w worth, err error) error {
	if err != nil && w == vital && p.patient.Load() {
		p.fatal(err)
		p.lost.Store(true)
		return nil
	}
	p.calm(err)
	return err
}

// A worth is what an operation is worth on a full disk.
type worth uint8

const (
	usual   worth = iota
	vital         // without it Pebble can't go on
	canWait       // it frees space in the end, but what makes room comes first
)

// worthOf is that of what is done to the file of that name.
func (p *patientFS) worthOf(name string, c vfs.DiskWriteCategory) worth {
	base := p.FS.PathBase(name)
	switch {
	case strings.HasPrefix(base, "MANIFEST-"), strings.HasPrefix(base, markerPrefix):
		return vital
	case c == compactionCategory:
		return canWait
	}
	return usual
}

const (
	markerPrefix       = "marker."
	compactionCategory = "pebble-compaction" // as Pebble names it
)

// calm waits a moment after a failure: Pebble tries what failed in the background again at once, and for ever.
func (p *patientFS) calm(err error) {
	if err == nil {
		return
	}
	select {
	case <-p.stopped:
		time.Sleep(time.Millisecond) // it is about to be cut off, and tries on until then
	case <-time.After(failRetry):
	}
}

// deadRetry is how long a change takes to fail when the disk is cut off: what is left behind tries for ever, and must not keep a processor busy.
const deadRetry = 20 * time.Millisecond

// failRetry is how long calm waits.
const failRetry = 20 * time.Millisecond

func (p *patientFS) file(w worth, open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := p.try(w, func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	if f == nil {
		return &noFile{}, nil
	}
	return &patientFile{File: f, fs: p, worth: w}, nil
}

func (p *patientFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(p.FS.PathBase(name), markerPrefix) {
		// The name of the manifest that the new marker names is durable before the marker can be.
		if err := p.try(vital, func() error { return disk.SyncDir(p.FS, p.FS.PathDir(name)) }); err != nil {
			return nil, err
		}
	}
	return p.file(p.worthOf(name, c), func() (vfs.File, error) { return p.FS.Create(name, c) })
}

func (p *patientFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.file(p.worthOf(name, c), func() (vfs.File, error) { return p.FS.OpenReadWrite(name, c, opts...) })
}

func (p *patientFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.file(p.worthOf(newname, c), func() (vfs.File, error) { return p.FS.ReuseForWrite(oldname, newname, c) })
}

func (p *patientFS) OpenDir(name string) (vfs.File, error) {
	f, err := p.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &patientDir{File: f, fs: p}, nil
}

func (p *patientFS) Link(oldname, newname string) error {
	return p.try(usual, func() error { return p.FS.Link(oldname, newname) })
}

func (p *patientFS) Rename(oldname, newname string) error {
	return p.try(p.worthOf(newname, ""), func() error { return p.FS.Rename(oldname, newname) })
}

func (p *patientFS) MkdirAll(dir string, perm os.FileMode) error {
	return p.try(usual, func() error { return p.FS.MkdirAll(dir, perm) })
}

func (p *patientFS) Remove(name string) error {
	if p.dead.Load() {
		return batchlog.ErrClosed
	}
	if p.lost.Load() {
		return nil
	}
	return p.FS.Remove(name)
}

func (p *patientFS) RemoveAll(name string) error {
	if p.dead.Load() {
		return batchlog.ErrClosed
	}
	if p.lost.Load() {
		return nil
	}
	return p.FS.RemoveAll(name)
}

func (p *patientFS) Unwrap() vfs.FS { return p.FS }

type patientFile struct {
	vfs.File
	fs    *patientFS
	worth worth
}

func (f *patientFile) Write(b []byte) (n int, err error) {
	err = f.fs.try(f.worth, func() error {
		m, err := f.File.Write(b[n:])
		n += m
		return err
	})
	if err == nil {
		n = len(b)
	}
	return n, err
}

func (f *patientFile) WriteAt(b []byte, offset int64) (n int, err error) {
	err = f.fs.try(f.worth, func() (err error) {
		n, err = f.File.WriteAt(b, offset)
		return err
	})
	if err == nil {
		n = len(b)
	}
	return n, err
}

// Preallocate is a wish: what it could not reserve is written all the same.
func (f *patientFile) Preallocate(offset, length int64) error {
	if err := f.File.Preallocate(offset, length); err != nil && !disk.Full(err) {
		return err
	}
	return nil
}

// Close tells nothing of a file that is vital: what was written to it was synced, or the store has failed.
func (f *patientFile) Close() error {
	if err := f.File.Close(); f.worth != vital {
		return err
	}
	return nil
}

func (f *patientFile) Sync() error     { return f.alive(f.File.Sync) }
func (f *patientFile) SyncData() error { return f.alive(f.File.SyncData) }

func (f *patientFile) SyncTo(length int64) (fullSync bool, err error) {
	if f.fs.dead.Load() {
		return false, batchlog.ErrClosed
	}
	if f.fs.lost.Load() {
		return false, nil
	}
	return f.File.SyncTo(length)
}

// A patientDir is a directory, opened to be synced. Pebble panics where that fails, in goroutines of its own.
type patientDir struct {
	vfs.File
	fs *patientFS
}

func (d *patientDir) Sync() error {
	if d.fs.dead.Load() || d.fs.lost.Load() {
		return nil
	}
	if err := d.File.Sync(); err != nil {
		d.fs.fatal(fmt.Errorf("sync directory: %w", err))
		d.fs.lost.Store(true)
	}
	return nil
}

func (f *patientFile) alive(sync func() error) error {
	if f.fs.dead.Load() {
		return batchlog.ErrClosed
	}
	if f.fs.lost.Load() {
		return nil
	}
	return f.fs.settle(f.worth, sync())
}
