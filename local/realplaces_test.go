package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/owner"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// realDB opens a database on the disk.
func realDB(t *testing.T, dir string, c batchlog.LogConfig) (*DB, error) {
	t.Helper()
	c.SegmentBytes = batchlog.MinSegmentBytes
	return Open(dir, &Options{Log: c, ChainBytes: 16 << 10})
}

func mustReal(t *testing.T, dir string, c batchlog.LogConfig) {
	t.Helper()
	db, err := realDB(t, dir, c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 { // some segments
		if _, err := db.Root().Put(t.Context(), batchlog.K(i), make([]byte, 700)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func refusedReal(t *testing.T, dir string, c batchlog.LogConfig, why error) {
	t.Helper()
	db, err := realDB(t, dir, c)
	if err == nil {
		_ = db.Close()
	}
	var e *batchlog.OwnerError
	if !errors.As(err, &e) || !errors.Is(err, why) {
		t.Fatalf("opened: %v, want %v", err, why)
	}
}

// A database that is opened under another name of its directory is the same, and not a copy.
func TestOtherName(t *testing.T) {
	at := t.TempDir()
	dir, link := filepath.Join(at, "db"), filepath.Join(at, "link")
	c := batchlog.LogConfig{Dirs: []string{filepath.Join(at, "hot")}}
	mustReal(t, dir, c)
	if err := os.Symlink(dir, link); err != nil {
		t.Skip(err)
	}
	mustReal(t, link, c)
	mustReal(t, dir, c)
	if err := os.CopyFS(filepath.Join(at, "copy"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	refusedReal(t, filepath.Join(at, "copy"), c, owner.ErrCopy)
	if err := os.Rename(dir, filepath.Join(at, "moved")); err != nil { // the link leads nowhere
		t.Fatal(err)
	}
	mustReal(t, filepath.Join(at, "moved"), c)
	refusedReal(t, filepath.Join(at, "copy"), c, owner.ErrNewer)
}

// A directory within the database's own that a symbolic link leads out of is one outside.
func TestLinkedDir(t *testing.T) {
	at := t.TempDir()
	dir, out := filepath.Join(at, "db"), filepath.Join(at, "out")
	main := filepath.Join(dir, "log", "main")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	mustReal(t, dir, batchlog.LogConfig{})
	if err := os.Symlink(out, filepath.Join(main, "linked")); err != nil {
		t.Skip(err)
	}
	configure := func(dir string, dirs ...string) {
		t.Helper()
		db, err := realDB(t, dir, batchlog.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Configure(t.Context(), batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, Dirs: dirs}), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	configure(dir, "linked", "within")
	mustReal(t, dir, batchlog.LogConfig{})
	copied := filepath.Join(at, "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(copied, "log", "main", "linked")
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		if err := errors.Join(os.RemoveAll(link), os.Symlink(out, link)); err != nil {
			t.Fatal(err)
		}
	}
	refusedReal(t, copied, batchlog.LogConfig{}, owner.ErrCopy)
	mustReal(t, dir, batchlog.LogConfig{})

	configure(dir, "within") // is copied along, and is nobody else's
	plain := filepath.Join(at, "plain")
	mustReal(t, plain, batchlog.LogConfig{Dirs: []string{"within"}})
	if err := os.CopyFS(plain+"-copy", os.DirFS(plain)); err != nil {
		t.Fatal(err)
	}
	mustReal(t, plain+"-copy", batchlog.LogConfig{})
	mustReal(t, plain, batchlog.LogConfig{})
}

// What is said to be a copy of a directory, and is that under another name, is not taken from its owner.
func TestAdoptSame(t *testing.T) {
	at := t.TempDir()
	dir, hot, link, copied := filepath.Join(at, "db"), filepath.Join(at, "hot"), filepath.Join(at, "link"), filepath.Join(at, "copy")
	c := batchlog.LogConfig{Dirs: []string{hot}}
	mustReal(t, dir, c)
	if err := os.Symlink(hot, link); err != nil {
		t.Skip(err)
	}
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	mustReal(t, dir, c)
	if _, err := Adopt(copied, nil, Adoption{Moved: map[string]string{hot: link}}); err == nil || !strings.Contains(err.Error(), "are the same") {
		t.Errorf("adopted: %v", err)
	}
	mustReal(t, dir, c)
	// But a database may say so of its own.
	if _, err := Adopt(dir, nil, Adoption{Moved: map[string]string{hot: link}}); err != nil {
		t.Error(err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if _, err := realDB(t, dir, c); !errors.As(err, new(*batchlog.DirError)) {
		t.Errorf("its disk is not there: %v", err)
	}
	if err := os.Symlink(hot, link); err != nil {
		t.Fatal(err)
	}
	mustReal(t, dir, c)
	if names, err := os.ReadDir(at); err != nil {
		t.Error(err)
	} else {
		for _, name := range names {
			if strings.HasPrefix(name.Name(), "probe") {
				t.Errorf("%s is left", name.Name())
			}
		}
	}
}

// A directory that is named twice, under different names, is one: the database is not its own enemy.
func TestNamedTwice(t *testing.T) {
	at := t.TempDir()
	dir, hot, link := filepath.Join(at, "db"), filepath.Join(at, "hot"), filepath.Join(at, "link")
	if err := errors.Join(os.Mkdir(hot, 0o755), os.Symlink(hot, link)); err != nil {
		t.Skip(err)
	}
	once, twice := batchlog.LogConfig{Dirs: []string{hot}}, batchlog.LogConfig{Dirs: []string{hot, link}}
	for range 3 {
		mustReal(t, dir, twice)
	}
	db, err := realDB(t, dir, twice)
	if err != nil {
		t.Fatal(err)
	}
	st, err := db.Status(t.Context())
	if err != nil || len(st.Logs[0].Dirs) != 2 || st.Logs[0].Dirs[0].State != batchlog.DirReady || st.Logs[0].Dirs[1].State != batchlog.DirUnreadable || !strings.Contains(st.Logs[0].Dirs[1].Reason, hot) {
		t.Errorf("%+v, %v", st.Logs[0].Dirs, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(at, "another")
	mustReal(t, dir, once)
	if db, err = realDB(t, dir, once); err != nil {
		t.Fatal(err)
	}
	if err := db.Configure(t.Context(), twice); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("configured: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	mustReal(t, dir, once)
}

// A mark names a directory as it is seen from wherever the program is started, also through a file system that somebody has put in front of the disk.
func TestWrappedDisk(t *testing.T) {
	at := t.TempDir()
	o := &Options{FS: errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(errorfs.Op) error { return nil })), Log: batchlog.LogConfig{Dirs: []string{filepath.Join(at, "hot")}}}
	for _, dir := range []string{"here", "there"} {
		if err := os.Mkdir(filepath.Join(at, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	open := func() error {
		db, err := Open("db", o)
		if err != nil {
			return err
		}
		return db.Close()
	}
	t.Chdir(filepath.Join(at, "here"))
	if err := errors.Join(open(), open(), os.CopyFS(filepath.Join(at, "there", "db"), os.DirFS("db"))); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(at, "there"))
	if err := open(); !errors.Is(err, owner.ErrCopy) {
		t.Errorf("a copy opened: %v", err)
	}
}

// Settings that are lost are made anew by whoever adopts the database, and what is outside stays its own.
func TestAdoptLostSettings(t *testing.T) {
	s := begin(t, warmConfig)
	s.goOn("/a")
	if err := s.fs.Remove("/a/settings"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open("/a", s.options()); !errors.Is(err, batchlog.ErrCorrupt) || !strings.Contains(err.Error(), "batchlog adopt") {
		t.Errorf("opened: %v", err)
	}
	s.keeps(false, func() {
		s.adopt("/a", Adoption{})
		s.well("/a")
		s.goOn("/a")
		s.well("/a")
	})
}
