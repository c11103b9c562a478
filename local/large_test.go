package local

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A countingFS counts what is read of files, by what they are.
type countingFS struct {
	vfs.FS
	mu   sync.Mutex
	read map[string]int64
}

func (fs *countingFS) count(name string, n int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	dir := "rest"
	for _, d := range []string{"store", "log", "blobs", "chains"} {
		if strings.Contains(name, "/"+d+"/") {
			dir = d
		}
	}
	fs.read[dir] += int64(n)
}

// since is what was read since it was asked last.
func (fs *countingFS) since() map[string]int64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	read := fs.read
	fs.read = map[string]int64{}
	return read
}

func (fs *countingFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return &countingFile{File: f, fs: fs, name: name}, nil
}

func (fs *countingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return &countingFile{File: f, fs: fs, name: name}, nil
}

type countingFile struct {
	vfs.File
	fs   *countingFS
	name string
}

func (f *countingFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	f.fs.count(f.name, n)
	return n, err
}

func (f *countingFile) ReadAt(b []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(b, at)
	f.fs.count(f.name, n)
	return n, err
}

// A large value costs who does not read it nothing: to open a database and to get its small keys reads no more of the store with one than without.
func TestLargeValue(t *testing.T) {
	without, with := storeReads(t, 10), storeReads(t, 8<<20)
	if with > without+without/2 {
		t.Errorf("%d bytes of the store are read beside a large value, without one %d", with, without)
	}
}

// storeReads is the bytes that a session which gets all keys beside a value of that size reads of the store.
func storeReads(t *testing.T, size int) (read int64) {
	fs := &countingFS{FS: vfs.NewMem(), read: map[string]int64{}}
	session := func(do func(s *batchlog.Space)) {
		t.Helper()
		db, err := Open("db", &Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		do(db.Space("a"))
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		read = fs.since()["store"]
	}
	key := func(c rune, i, n int) batchlog.Key { return batchlog.K(fmt.Sprintf("%c%d%d", c, i, n)) }
	session(func(s *batchlog.Space) {
		if _, err := s.Put(t.Context(), batchlog.K("m"), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	})
	const sessions, keys = 4, 10
	for i := range sessions {
		session(func(s *batchlog.Space) {
			for n := range keys {
				for _, c := range "ln" {
					if _, err := s.Put(t.Context(), key(c, i, n), make([]byte, 20)); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
	for range 2 { // the first one may end a compaction
		session(func(s *batchlog.Space) {
			for i := range sessions {
				for n := range keys {
					for _, c := range "ln" {
						if _, err := s.Get(t.Context(), key(c, i, n)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		})
	}
	return read
}
