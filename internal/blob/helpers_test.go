package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const dir = "db/blobs"

func open(t testing.TB, fs vfs.FS, dir string) *Store {
	t.Helper()
	s, err := Open(Options{FS: fs, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// random is n bytes that differ by seed.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func put(t testing.TB, s *Store, content []byte) Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), bytes.NewReader(content), nil)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// wantBlob fails t unless the content of ref can be read, in each way there is.
func wantBlob(t testing.TB, s *Store, ref Ref, content []byte) {
	t.Helper()
	if err := s.Verify(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Size() != int64(len(content)) {
		t.Fatalf("size %d, want %d", f.Size(), len(content))
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("read %d bytes, %v, want the %d that were put", len(got), err, len(content))
	}
	var w bytes.Buffer
	if n, err := f.CopyTo(t.Context(), &w, 0, f.Size()); err != nil || n != f.Size() || !bytes.Equal(w.Bytes(), content) {
		t.Fatalf("copied %d bytes, %v, want the %d that were put", n, err, len(content))
	}
}

// blobs is what is in the store.
func blobs(t testing.TB, s *Store) (all []Info) {
	t.Helper()
	for b, err := range s.All() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// parts is the temporary files in the store.
func parts(t testing.TB, s *Store) []string {
	t.Helper()
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, tempSuffix) })
}

// wantEmpty fails t if there is a blob or a temporary file.
func wantEmpty(t testing.TB, s *Store) {
	t.Helper()
	if all, temp := blobs(t, s), parts(t, s); len(all)+len(temp) > 0 {
		t.Fatalf("left behind: %v %v", all, temp)
	}
}

func readFile(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, fs vfs.FS, name string, content []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(bytes.Clone(content)) // a write may change what it is given
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// damage is err as the damage that it must be.
func damage(t testing.TB, err error) *DamageError {
	t.Helper()
	var d *DamageError
	if !errors.As(err, &d) {
		t.Fatalf("error %v, want damage", err)
	}
	return d
}

// later is a time that all temporary files were begun before.
func later() time.Time { return time.Now().Add(time.Hour) }

// A watch is a file system that a test listens to, and may have fail.
type watch struct {
	vfs.FS
	mu sync.Mutex
	n  int                          // operations so far
	on func(n int, op string) error // before the nth operation, "sync x", "write x"…; nil: never
}

func (w *watch) op(op, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	if w.on == nil {
		return nil
	}
	return w.on(w.n, op+" "+filepath.Base(name))
}

// listen has on called from now on, and counts anew.
func (w *watch) listen(on func(n int, op string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n, w.on = 0, on
}

// count is the number of operations since listen was called.
func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// errDisk is what operations fail with.
var errDisk = errors.New("input/output error")

// failAt fails the nth operation, and all others with that text in them; 0, "": none.
func failAt(at int, text string, err error) func(int, string) error {
	return func(n int, op string) error {
		if n == at || text != "" && strings.Contains(op, text) {
			return fmt.Errorf("%s: %w", op, err)
		}
		return nil
	}
}

func (w *watch) wrap(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchFile{f, w, name}, nil
}

func (w *watch) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := w.op("create", name); err != nil {
		return nil, err
	}
	f, err := w.FS.Create(name, c)
	return w.wrap(f, err, name)
}

func (w *watch) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := w.op("open", name); err != nil {
		return nil, err
	}
	f, err := w.FS.Open(name, opts...)
	return w.wrap(f, err, name)
}

func (w *watch) OpenDir(name string) (vfs.File, error) {
	if err := w.op("open", name+"/"); err != nil {
		return nil, err
	}
	f, err := w.FS.OpenDir(name)
	return w.wrap(f, err, name)
}

func (w *watch) Rename(oldname, newname string) error {
	if err := w.op("rename", newname); err != nil {
		return err
	}
	return w.FS.Rename(oldname, newname)
}

func (w *watch) Remove(name string) error {
	if err := w.op("remove", name); err != nil {
		return err
	}
	return w.FS.Remove(name)
}

func (w *watch) MkdirAll(name string, perm os.FileMode) error {
	if err := w.op("mkdir", name); err != nil {
		return err
	}
	return w.FS.MkdirAll(name, perm)
}

func (w *watch) List(name string) ([]string, error) {
	if err := w.op("list", name); err != nil {
		return nil, err
	}
	return w.FS.List(name)
}

func (w *watch) Stat(name string) (vfs.FileInfo, error) {
	if err := w.op("stat", name); err != nil {
		return nil, err
	}
	return w.FS.Stat(name)
}

type watchFile struct {
	vfs.File
	w    *watch
	name string
}

func (f *watchFile) ReadAt(b []byte, offset int64) (int, error) {
	if err := f.w.op("read", f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, offset)
}

// Write writes half of what it is given when it fails, and spoils what it was given, as a vfs.File may.
func (f *watchFile) Write(b []byte) (int, error) {
	if err := f.w.op("write", f.name); err != nil {
		n, writeErr := f.File.Write(b[:len(b)/2])
		return n, errors.Join(err, writeErr)
	}
	n, err := f.File.Write(b)
	clear(b)
	return n, err
}

func (f *watchFile) Stat() (vfs.FileInfo, error) {
	if err := f.w.op("stat", f.name); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *watchFile) Sync() error {
	if err := f.w.op("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *watchFile) SyncData() error {
	if err := f.w.op("sync", f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

// Close closes the file also when it fails, as closing does.
func (f *watchFile) Close() error {
	return errors.Join(f.w.op("close", f.name), f.File.Close())
}
