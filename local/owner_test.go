package local

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/owner"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A story is about databases on one file system, and directories outside of theirs that they share, as they are copies of one another, or are configured so.
type story struct {
	t      *testing.T
	fs     *crashfs.FS
	config batchlog.LogConfig
	ahead  atomic.Int64 // of the clock
	said   bytes.Buffer // by databases that are open, to their logger
	heads  map[string]batchlog.ID
}

// outside are the directories that databases share.
var outside = []string{"/hot", "/hotter", "/warm", "/warmer"}

func begin(t *testing.T, c batchlog.LogConfig) *story {
	return &story{t: t, fs: crashfs.New(), config: c, heads: map[string]batchlog.ID{}}
}

func (s *story) options() Options {
	return Options{
		FS: s.fs, Log: s.config, Now: func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }, ChainBytes: 16 << 10,
		Logger: slog.New(slog.NewTextHandler(&s.said, nil)),
	}
}

func (s *story) open(dir string, o Options) (*warmDB, error) {
	db, err := Open(dir, &o)
	if err != nil {
		return nil, err
	}
	w := &warmDB{t: s.t, fs: s.fs, DB: db, options: o}
	w.writer = &undoWriter{s.t, db, rand.New(rand.NewPCG(3, 1))}
	s.t.Cleanup(func() { _ = db.Close() })
	return w, nil
}

func (s *story) must(dir string) *warmDB {
	s.t.Helper()
	w, err := s.open(dir, s.options())
	if err != nil {
		s.t.Fatal(err)
	}
	return w
}

func (s *story) close(w *warmDB) {
	s.t.Helper()
	s.heads[w.engine.dir] = w.status().Head
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// live has a database written to, and what is old of it go warm.
func (s *story) live(w *warmDB) {
	s.t.Helper()
	w.write(30)
	w.gone(s.old(w))
	w.write(10)
}

// old makes what was written to a database old, in segments of its own, and returns the last commit of it.
func (s *story) old(w *warmDB) batchlog.ID {
	s.t.Helper()
	defer s.ahead.Add(int64(2 * time.Minute))
	return w.old()
}

// goOn opens a database, has it live, and closes it.
func (s *story) goOn(dir string) {
	s.t.Helper()
	w := s.must(dir)
	s.live(w)
	s.close(w)
}

func (s *story) copy(from, to string) {
	s.t.Helper()
	if ok, err := vfs.Clone(s.fs, s.fs, from, to, vfs.CloneSync); err != nil || !ok {
		s.t.Fatal(ok, err)
	}
	if err := disk.SyncDir(s.fs, "/"); err != nil {
		s.t.Fatal(err)
	}
	s.heads[to] = s.heads[from]
}

func (s *story) move(from, to string) {
	s.t.Helper()
	if err := s.fs.Rename(from, to); err != nil {
		s.t.Fatal(err)
	}
	if err := disk.SyncDir(s.fs, "/"); err != nil {
		s.t.Fatal(err)
	}
	s.heads[to] = s.heads[from]
}

func (s *story) remove(dir string) {
	s.t.Helper()
	if err := s.fs.RemoveAll(dir); err != nil {
		s.t.Fatal(err)
	}
}

// files are those in a directory and in all within it.
func files(t *testing.T, fs vfs.FS, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	names, err := fs.List(dir)
	if disk.NotExist(err) {
		return all
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		name = filepath.Join(dir, name)
		info, err := fs.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			maps.Copy(all, files(t, fs, name))
			continue
		}
		if all[name], err = disk.ReadFile(fs, name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// outside is all files in the directories that databases share.
func (s *story) outside() map[string][]byte {
	s.t.Helper()
	found := map[string][]byte{}
	for _, dir := range outside {
		maps.Copy(found, files(s.t, s.fs, dir))
	}
	return found
}

// keeps fails the test if what is done changes or removes a file of a log that is outside, of whomever. With all, nothing there may change, and nothing new be made.
func (s *story) keeps(all bool, do func()) {
	s.t.Helper()
	before := s.outside()
	do()
	after := s.outside()
	if all && len(after) != len(before) {
		s.t.Errorf("%d files outside, before it were %d", len(after), len(before))
	}
	count := 0
	for name, was := range before {
		now, there := after[name]
		if strings.HasPrefix(filepath.Base(name), owner.Name) && !all {
			continue
		}
		count++
		if !there {
			s.t.Errorf("%s is gone", name)
		} else if !bytes.Equal(was, now) {
			s.t.Errorf("%s has changed", name)
		}
	}
	if count == 0 {
		s.t.Error("nothing is outside: the story shows nothing")
	}
}

// refused is the error that a database is refused with, as one that has no right to what is outside. Nothing is changed there.
func (s *story) refused(dir, by string, why error) {
	s.t.Helper()
	s.keeps(true, func() {
		w, err := s.open(dir, s.options())
		if err == nil {
			s.close(w)
		}
		var e *batchlog.OwnerError
		if !errors.As(err, &e) || e.Database != dir || e.Owner != by || !errors.Is(err, why) || !strings.HasPrefix(e.Dir, "/") || !strings.Contains(err.Error(), "batchlog adopt --db "+dir) {
			s.t.Fatalf("%s: opened with %v, want that it is of %s: %v", dir, err, by, why)
		}
	})
}

// well fails the test unless a database can be opened and has all that it had.
func (s *story) well(dir string) {
	s.t.Helper()
	w := s.must(dir)
	if got := w.status().Head; got != s.heads[dir] {
		s.t.Errorf("%s is at commit %d, was at %d", dir, got, s.heads[dir])
	}
	verified(s.t, w.DB)
	s.close(w)
}

// stories runs a story with directories for warm segments alone, and with such for all.
func stories(t *testing.T, tell func(s *story)) {
	t.Helper()
	c := warmConfig
	t.Run("warm", func(t *testing.T) { tell(begin(t, c)) })
	c.Dirs = []string{"/hot", "/hotter"}
	t.Run("hot and warm", func(t *testing.T) { tell(begin(t, c)) })
}

func TestOwnerCopy(t *testing.T) {
	t.Run("the original first", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			s.copy("/a", "/b")
			s.goOn("/a")
			s.refused("/b", "/a", owner.ErrNewer)
			s.well("/a")
			s.goOn("/a")
			s.refused("/b", "/a", owner.ErrNewer)
			s.well("/a")
		})
	})
	t.Run("the copy first", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			s.copy("/a", "/b")
			s.refused("/b", "/a", owner.ErrCopy)
			s.goOn("/a")
			s.well("/a")
		})
	})
	t.Run("the original is open", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			s.copy("/a", "/b")
			a := s.must("/a")
			before := s.outside()
			if _, err := s.open("/b", s.options()); !errors.As(err, new(*batchlog.OwnerError)) {
				t.Error(err)
			}
			for name := range before { // the original may be sealing what is in one
				if _, err := s.fs.Stat(name); err != nil {
					t.Error(err)
				}
			}
			s.live(a)
			s.refused("/b", "/a", owner.ErrNewer)
			s.close(a)
			s.well("/a")
		})
	})
	t.Run("of a copy", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			s.copy("/a", "/b")
			s.copy("/b", "/c")
			s.remove("/b")
			s.refused("/c", "/a", owner.ErrCopy)
			s.well("/a")
		})
	})
}

func TestOwnerOlder(t *testing.T) {
	stories(t, func(s *story) {
		s.goOn("/a")
		s.copy("/a", "/backup")
		if s.config.Dirs == nil {
			s.well("/a") // is only read: what is outside is as before
			s.remove("/a")
			s.copy("/backup", "/a")
		}
		s.goOn("/a")
		s.move("/a", "/today")
		s.copy("/backup", "/a")
		s.refused("/a", "/a", owner.ErrNewer)
		s.remove("/a")
		s.move("/today", "/a")
		s.well("/a")
		s.goOn("/a")
		s.well("/a")
	})
}

func TestOwnerMoved(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			for _, to := range []string{"/c", "/d", "/a"} {
				from := map[string]string{"/c": "/a", "/d": "/c", "/a": "/d"}[to]
				s.move(from, to)
				s.well(to)
				s.goOn(to)
			}
			s.well("/a")
		})
	})
	t.Run("and copied before", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			s.copy("/a", "/b")
			s.move("/a", "/c")
			s.well("/c")
			s.refused("/b", "/c", owner.ErrNewer)
			s.goOn("/c")
			s.refused("/b", "/c", owner.ErrNewer)
			s.well("/c")
		})
	})
	t.Run("and a copy was quicker", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			s.copy("/a", "/b")
			s.move("/a", "/c")
			s.keeps(false, func() { s.well("/b") }) // nothing tells it from one that was moved
			s.refused("/c", "/b", owner.ErrNewer)
			s.well("/b")
		})
	})
	t.Run("to where the original was", func(t *testing.T) {
		stories(t, func(s *story) {
			s.goOn("/a")
			s.copy("/a", "/b")
			s.goOn("/a")
			s.move("/a", "/c")
			s.move("/b", "/a")
			s.refused("/a", "/a", owner.ErrNewer)
			s.well("/c")
			s.refused("/a", "/c", owner.ErrNewer)
		})
	})
}

// Databases that have nothing to do with one another may share directories.
func TestOwnerShared(t *testing.T) {
	stories(t, func(s *story) {
		a, b := s.must("/a"), s.must("/b")
		for range 2 {
			s.live(a)
			s.live(b)
		}
		s.close(b)
		s.keeps(false, func() { s.well("/b") })
		s.live(a)
		s.close(a)
		s.keeps(false, func() { s.well("/b") })
		s.keeps(false, func() { s.well("/a") })
		s.goOn("/b")
		s.well("/a")
		s.well("/b")
	})
}
