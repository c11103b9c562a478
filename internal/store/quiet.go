package store

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A quietFS keeps off the disk what Pebble writes whenever it opens and nobody reads: its own write-ahead log, which is never written to, and a copy of
// its options. So a store that exists is opened without a single write. Nothing can fail then for want of space, nor halfway: a Pebble whose opening
// fails after it has begun to write leaves goroutines and files behind. A store that is new is made in memory and copied; see [makeStore].
type quietFS struct {
	vfs.FS

	mu struct {
		sync.Mutex
		opening bool
		names   map[string][]string // in each directory, when it was listed while Pebble was opening
	}
}

func newQuietFS(fs vfs.FS) *quietFS {
	q := &quietFS{FS: fs}
	q.mu.opening, q.mu.names = true, map[string][]string{}
	return q
}

// opened says that Pebble is open.
func (q *quietFS) opened() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.opening, q.mu.names = false, nil
}

const (
	walSuffix     = ".log"
	tempSuffix    = ".dbtmp"
	optionsPrefix = "OPTIONS-"
)

// needless reports whether a file of that name is one that nobody reads.
func (q *quietFS) needless(name string) bool {
	base := q.PathBase(name)
	return strings.HasSuffix(base, walSuffix) || strings.HasSuffix(base, tempSuffix) || strings.HasPrefix(base, optionsPrefix)
}

func (q *quietFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if q.needless(name) {
		return &noFile{name: q.PathBase(name)}, nil
	}
	return q.FS.Create(name, c)
}

func (q *quietFS) Rename(oldname, newname string) error {
	if q.needless(newname) {
		return nil
	}
	return q.FS.Rename(oldname, newname)
}

// Remove removes what older versions have written, too.
func (q *quietFS) Remove(name string) error {
	err := q.FS.Remove(name)
	if q.needless(name) && disk.NotExist(err) {
		return nil
	}
	return err
}

// List is what is in a directory. Pebble looks a second time while it opens, for files that it could remove, and must not fail then.
func (q *quietFS) List(dir string) ([]string, error) {
	names, err := q.FS.List(dir)
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.mu.opening {
		return names, err
	}
	if before, ok := q.mu.names[dir]; ok && err != nil {
		return before, nil
	}
	if err == nil {
		q.mu.names[dir] = names
	}
	return names, err
}

// OpenDir opens a directory. While Pebble opens nothing has been written that a sync of it could make durable.
func (q *quietFS) OpenDir(name string) (vfs.File, error) {
	f, err := q.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &quietDir{File: f, fs: q}, nil
}

func (q *quietFS) Unwrap() vfs.FS { return q.FS }

type quietDir struct {
	vfs.File
	fs *quietFS
}

func (d *quietDir) Sync() error {
	d.fs.mu.Lock()
	opening := d.fs.mu.opening
	d.fs.mu.Unlock()
	if opening {
		return nil
	}
	return d.File.Sync()
}

// A noFile is a file that nobody reads.
type noFile struct {
	vfs.File // nil: what else is called has no place here
	name     string
}

func (*noFile) Write(b []byte) (int, error)             { return len(b), nil }
func (*noFile) WriteAt(b []byte, _ int64) (int, error)  { return len(b), nil }
func (*noFile) Read([]byte) (int, error)                { return 0, io.EOF }
func (*noFile) ReadAt([]byte, int64) (int, error)       { return 0, io.EOF }
func (*noFile) Preallocate(int64, int64) error          { return nil }
func (*noFile) Prefetch(int64, int64) error             { return nil }
func (*noFile) Sync() error                             { return nil }
func (*noFile) SyncData() error                         { return nil }
func (*noFile) SyncTo(int64) (fullSync bool, err error) { return false, nil }
func (*noFile) Fd() uintptr                             { return vfs.InvalidFd }
func (*noFile) Close() error                            { return nil }
func (f *noFile) Stat() (vfs.FileInfo, error) {
	return nil, &os.PathError{Op: "stat", Path: f.name, Err: os.ErrNotExist}
}

// makeStore makes an empty store in a directory that has none. Its files are those that Pebble makes in memory. The marker that names the manifest comes
// last: until it is durable there is no store, and the next opening makes another one.
func makeStore(fs vfs.FS, dir string, o *pebble.Options) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, manifestMarker) {
			return nil
		}
	}
	const made = "store"
	mem := newQuietFS(vfs.NewMem())
	db, err := pebble.Open(made, &pebble.Options{FS: mem, DisableWAL: true, FormatMajorVersion: o.FormatMajorVersion, MemTableSize: 64 << 10, Logger: o.Logger})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if names, err = mem.List(made); err != nil {
		return err
	}
	var last []string
	for _, name := range names {
		switch {
		case name == "LOCK":
		case strings.HasPrefix(name, manifestMarker):
			last = append(last, name)
		default:
			err = errors.Join(err, copyFile(fs, path.Join(dir, name), mem, path.Join(made, name)))
		}
	}
	if err == nil {
		err = disk.SyncDir(fs, dir)
	}
	for _, name := range last {
		if err == nil {
			err = errors.Join(copyFile(fs, path.Join(dir, name), mem, path.Join(made, name)), disk.SyncDir(fs, dir))
		}
	}
	return err
}

// manifestMarker begins the name of the file that says which manifest of Pebble is the one.
const manifestMarker = "marker.manifest."

func copyFile(to vfs.FS, toName string, from vfs.FS, fromName string) error {
	content, err := disk.ReadFile(from, fromName)
	if err != nil {
		return err
	}
	return disk.WriteFile(to, toName, content)
}
