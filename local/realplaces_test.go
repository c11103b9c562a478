package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/owner"
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
