package local

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/owner"
)

// unmount has the disk of a directory be away: what is there is the empty directory that it is mounted on.
func (s *story) unmount(dir string) {
	s.t.Helper()
	s.move(dir, "/away"+dir)
	if err := disk.MakeDir(s.fs, dir); err != nil {
		s.t.Fatal(err)
	}
}

// mount has it be there again. Nothing may have been put in its place.
func (s *story) mount(dir string) {
	s.t.Helper()
	if found := files(s.t, s.fs, dir); len(found) > 0 {
		s.t.Errorf("%d files where the disk is mounted", len(found))
	}
	if names, err := s.fs.List(dir); err != nil || len(names) > 0 {
		s.t.Errorf("%q, %v where the disk is mounted", names, err)
	}
	s.remove(dir)
	s.move("/away"+dir, dir)
}

// state is how a directory is, as the status says.
func (w *warmDB) state(dir string) batchlog.DirStatus {
	w.t.Helper()
	all := w.status().Logs[0].Dirs
	i := slices.IndexFunc(all, func(d batchlog.DirStatus) bool { return d.Dir == dir })
	if i < 0 {
		w.t.Fatalf("%s is none of %+v", dir, all)
	}
	return all[i]
}

func (w *warmDB) wantState(dir, kind string, state owner.State) {
	w.t.Helper()
	if d := w.state(dir); d.Kind != kind || d.State != string(state) || (d.Reason == "") != (state == owner.Ready) {
		w.t.Errorf("%+v, want %s, %s", d, kind, state)
	}
}

// dirError fails the test unless err says that a directory is not as it should be, and names a file there that ends so.
func dirError(t *testing.T, err error, dir, suffix string) {
	t.Helper()
	var found func(err error) bool
	found = func(err error) bool {
		at, ok := err.(*batchlog.DirError) //nolint:errorlint // each of those that are joined
		if ok && filepath.Dir(at.Dir) == dir && strings.HasSuffix(at.File, suffix) && (at.File == "") == (suffix == "") && strings.Contains(at.Error(), dir) {
			return true
		}
		switch e := err.(type) { //nolint:errorlint // as above
		case interface{ Unwrap() error }:
			return found(e.Unwrap())
		case interface{ Unwrap() []error }:
			return slices.ContainsFunc(e.Unwrap(), found)
		}
		return false
	}
	if !found(err) {
		t.Errorf("error %v, want that %s is not as it should be, for a file *%s", err, dir, suffix)
	}
}

// refusedTrim trims until that is refused: as long as a segment is not sealed there is nothing to move.
func (w *warmDB) refusedTrim() error {
	w.t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Millisecond) {
		if err := w.Trim(w.t.Context()); err != nil {
			return err
		}
	}
	w.t.Fatal("trims do not fail")
	return nil
}

// read reads the whole log, and all inverses.
func (w *warmDB) read() (last batchlog.ID, err error) {
	for c, err := range w.Tail(w.t.Context(), batchlog.TailOptions{Until: w.status().Head}) {
		if err != nil {
			return last, err
		}
		if err := c.Inside().EachOp(func(batchlog.OpKind, []byte, []byte) error { return nil }); err != nil {
			return last, err
		}
		last = c.ID
	}
	return last, nil
}

// A database whose warm disks are not there opens, and writes, and says what it lacks; nothing is put where they are to be mounted. When they come back it
// goes on by itself.
func TestMountWarm(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(map[bool]string{false: "away before it is opened", true: "away while it is open"}[open], func(t *testing.T) {
			s := begin(t, warmConfig)
			if err := disk.MakeDir(s.fs, "/away"); err != nil {
				t.Fatal(err)
			}
			s.goOn("/a")
			first := "/warmer" // has the first segment
			for name := range files(t, s.fs, "/warm") {
				if strings.HasPrefix(filepath.Base(name), "00000000000000000001-") {
					first = "/warm"
				}
			}
			var w *warmDB
			if open {
				w = s.must("/a")
			}
			s.unmount("/warm")
			if !open {
				w = s.must("/a")
				w.wantState("/warm", "warm", owner.Missing)
			}
			w.write(30)
			w.gone(s.old(w)) // to the other one
			w.wantState("/warm", "warm", owner.Missing)
			w.wantState("/warmer", "warm", owner.Ready)
			s.unmount("/warmer")
			w.write(30)
			old := s.old(w)
			dirError(t, w.refusedTrim(), "/warm", "")
			dirError(t, w.refusedTrim(), "/warmer", "")
			w.wantState("/warmer", "warm", owner.Missing)
			last, err := w.read()
			dirError(t, err, first, ".seg")
			if last != 0 {
				t.Errorf("read up to commit %d", last)
			}
			_, err = w.Inverse(t.Context(), 1)
			dirError(t, err, first, ".inverses")
			r, err := w.Verify(t.Context(), VerifyOptions{})
			if err != nil || len(r.Problems) == 0 {
				t.Errorf("verify: %v, %v", r.Problems, err)
			}
			w.write(10)
			s.mount("/warmer")
			w.gone(old)
			s.mount("/warm")
			if err := w.Trim(t.Context()); err != nil {
				t.Error(err)
			}
			w.wantState("/warm", "warm", owner.Ready)
			w.wantState("/warmer", "warm", owner.Ready)
			w.check()
			s.close(w)
			s.well("/a")
		})
	}
}

// Settings that have nothing to do with a directory that is missing are set, and it is not made again; one that is named anew is.
func TestMountConfigure(t *testing.T) {
	s := begin(t, warmConfig)
	s.goOn("/a")
	w := s.must("/a")
	if err := disk.MakeDir(s.fs, "/away"); err != nil {
		t.Fatal(err)
	}
	s.unmount("/warm")
	c := w.engine.config()
	c.HotTTL *= 2
	if err := w.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if names, err := s.fs.List("/warm"); err != nil || len(names) > 0 {
		t.Fatalf("%q, %v", names, err)
	}
	// The disk is lost, and another one takes its place.
	c.Warm = []string{"/warmer"}
	if err := w.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.wantState("/warm", "former", owner.Missing)
	c.Warm = []string{"/warmer", "/warm"}
	if err := w.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.wantState("/warm", "warm", owner.Ready)
	w.write(30)
	w.gone(s.old(w))
	if len(files(t, s.fs, "/warm")) < 2 {
		t.Error("nothing goes there")
	}
	if _, err := w.read(); !errors.Is(err, batchlog.ErrCorrupt) { // the directory is well, the segment is lost
		t.Error(err)
	}
	s.close(w)
	// But it comes back, after all.
	s.move("/warm", "/another")
	s.move("/away/warm", "/warm")
	w = s.must("/a")
	w.wantState("/warm", "warm", owner.Ready)
	s.close(w)
}

// New segments go past a directory that is not there; a database whose log goes on in one is refused with the name of that.
func TestMountHot(t *testing.T) {
	c := warmConfig
	c.Dirs, c.HotTTL, c.Warm = []string{"/hot", "/hotter"}, 0, nil
	s := begin(t, c)
	if err := disk.MakeDir(s.fs, "/away"); err != nil {
		t.Fatal(err)
	}
	w := s.must("/a")
	w.write(60)
	there, away := s.activeIn()
	s.unmount(away)
	w.write(60)
	s.close(w)
	if len(files(t, s.fs, away)) > 0 {
		t.Error("segments are made where a disk is to be mounted")
	}
	w = s.must("/a")
	w.wantState(away, "hot", owner.Missing)
	w.wantState(there, "hot", owner.Ready)
	w.write(60)
	s.mount(away)
	w.write(60)
	if err := w.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantState(away, "hot", owner.Ready)
	s.close(w)
	s.well("/a")
	there, _ = s.activeIn()
	s.unmount(there)
	_, err := s.open("/a", s.options())
	dirError(t, err, there, ".seg")
	s.mount(there)
	s.well("/a")
}

// activeIn is which of the directories has the newest segment, and which has not.
func (s *story) activeIn() (there, other string) {
	s.t.Helper()
	newest := ""
	for _, dirs := range [][2]string{{"/hot", "/hotter"}, {"/hotter", "/hot"}} {
		for name := range files(s.t, s.fs, dirs[0]) {
			if base := filepath.Base(name); strings.HasSuffix(base, ".seg") && base > newest {
				newest, there, other = base, dirs[0], dirs[1]
			}
		}
	}
	return there, other
}

// A directory that says nothing of its owner, or nothing that can be read, is passed over until somebody says that it is the database's.
func TestUnmarked(t *testing.T) {
	for name, harm := range map[string]func(s *story, name string) error{
		"gone":    func(s *story, name string) error { return s.fs.Remove(name) },
		"damaged": func(s *story, name string) error { return disk.WriteFile(s.fs, name, []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, warmConfig)
			s.goOn("/a")
			w := s.must("/a")
			mark := filepath.Join("/warm", w.status().UUID, owner.Name)
			for _, heal := range []func(){
				func() {
					if _, err := Adopt("/a", ref(s.options()), Adoption{}); err != nil {
						t.Error(err)
					}
				},
				func() {
					w := s.must("/a")
					for _, c := range []batchlog.LogConfig{{SegmentBytes: batchlog.MinSegmentBytes}, warmConfig} {
						if err := w.Configure(t.Context(), c); err != nil {
							t.Error(err)
						}
					}
					s.close(w)
				},
			} {
				s.close(w)
				if err := harm(s, mark); err != nil {
					t.Fatal(err)
				}
				w = s.must("/a")
				w.wantState("/warm", "warm", owner.Unmarked)
				s.keeps(false, func() { s.live(w) })
				if _, err := w.read(); err != nil { // what is there can be read
					t.Error(err)
				}
				w.wantState("/warm", "warm", owner.Unmarked)
				s.close(w)
				heal()
				w = s.must("/a")
				w.wantState("/warm", "warm", owner.Ready)
				s.live(w)
				w.check()
			}
			s.close(w)
			s.well("/a")
		})
	}
}

func ref(o Options) *Options { return &o }

// A database whose directory was given to another one while it is open, by another machine say, touches nothing there any more, and says so.
func TestTakenWhileOpen(t *testing.T) {
	stories(t, func(s *story) {
		w := s.must("/a")
		s.live(w)
		w.write(30)
		s.old(w)
		for _, dir := range outside {
			dir = filepath.Join(dir, w.status().UUID)
			if _, err := s.fs.Stat(dir); err != nil {
				continue
			}
			other := owner.Self{FS: s.fs, Database: w.status().UUID, Dir: "/elsewhere", Host: "there"}
			if _, err := other.Mark(dir, "another", time.Now()); err != nil {
				t := s.t
				t.Fatal(err)
			}
		}
		s.keeps(true, func() {
			dirError(s.t, w.refusedTrim(), "/warm", "")
			w.wantState("/warm", "warm", owner.Taken)
			c := w.engine.config()
			c.WarmTTL = c.HotTTL // so that it would remove what is old
			if err := w.Configure(s.t.Context(), c); err != nil {
				s.t.Fatal(err)
			}
			if err := w.Trim(s.t.Context()); err != nil || w.status().Oldest == 1 {
				s.t.Errorf("oldest is %d: %v", w.status().Oldest, err)
			}
			if err := w.engine.log.Swept(s.t.Context()); err != nil {
				s.t.Error(err)
			}
			if err := w.Close(); err != nil {
				s.t.Error(err)
			}
		})
		if said := s.said.String(); !strings.Contains(said, "level=ERROR") || !strings.Contains(said, "/elsewhere") {
			s.t.Errorf("said: %s", said)
		}
		s.refused("/a", "/elsewhere", owner.ErrNewer)
	})
}
