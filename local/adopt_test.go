package local

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/owner"
)

func (s *story) adopt(dir string, a Adoption) {
	s.t.Helper()
	if _, err := Adopt(dir, ref(s.options()), a); err != nil {
		s.t.Fatal(err)
	}
}

// An older state that was put back is adopted and goes on, as a line of history of its own; nothing of the newer one goes, so that can be adopted as well, after all.
func TestAdoptOlder(t *testing.T) {
	s := begin(t, warmConfig)
	s.goOn("/a")
	s.copy("/a", "/backup")
	s.goOn("/a")
	s.goOn("/a")
	s.move("/a", "/today")
	s.copy("/backup", "/a")
	s.refused("/a", "/a", owner.ErrNewer)
	s.keeps(false, func() {
		o := s.options()
		o.Adopt = true
		for epoch := range 2 { // the second time there is nothing to adopt
			w, err := s.open("/a", o)
			if err != nil {
				t.Fatal(err)
			}
			if st := w.status(); st.Epoch != 2 || epoch == 0 && st.Head != s.heads["/backup"] {
				t.Errorf("%+v", st)
			}
			s.live(w)
			s.close(w)
		}
		s.well("/a")
	})
	s.refused("/today", "/a", owner.ErrNewer)
	s.keeps(false, func() {
		s.adopt("/today", Adoption{})
		w := s.must("/today")
		if st := w.status(); st.Epoch != 3 || st.Head != s.heads["/today"] {
			t.Errorf("%+v", st)
		}
		verified(t, w.DB)
		s.live(w)
		s.close(w)
		s.well("/today")
	})
	s.refused("/a", "/today", owner.ErrNewer)
}

// A copy that leaves the directories to the original reads there, changes nothing, and has segments go warm in directories of its own.
func TestAdoptLeave(t *testing.T) {
	s := begin(t, warmConfig)
	s.goOn("/a")
	s.copy("/a", "/b")
	s.goOn("/a")
	s.keeps(true, func() {
		s.adopt("/b", Adoption{Leave: []string{"/warm", "/warmer/"}})
		b := s.must("/b")
		b.wantState("/warm", "warm", stateLeft)
		if st := b.status(); st.Epoch != 2 {
			t.Errorf("%+v", st)
		}
		b.check()
		b.write(30)
		s.old(b)
		dirError(t, b.refusedTrim(), "/warm", "")
		c := b.engine.config()
		for _, again := range []string{"/warm", "/warmer"} {
			c.Warm = []string{"/own"}
			if err := b.Configure(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			c.Warm = []string{again, "/own"}
			dirError(t, b.Configure(t.Context(), c), again, "")
		}
		if err := b.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.live(b)
		b.check()
		if len(files(t, s.fs, "/own")) < 3 {
			t.Error("nothing has gone to its own directory")
		}
		s.close(b)
		s.well("/b")
		b = s.must("/b")
		c.Warm, c.WarmTTL = []string{"/own"}, c.HotTTL // what is past its time is dropped, and stays where it is
		if err := b.Configure(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		s.live(b)
		if b.status().Oldest == 1 {
			t.Error("nothing was dropped")
		}
		s.close(b)
		s.well("/b")
	})
	s.goOn("/a")
	s.well("/a")
	s.well("/b")
}

// What becomes of directories that were left, and in which epoch, is none of the copy's business.
func TestAdoptLeaveForGood(t *testing.T) {
	s := begin(t, warmConfig)
	s.goOn("/a")
	s.copy("/a", "/b")
	s.copy("/a", "/c")
	s.adopt("/b", Adoption{Leave: []string{"/warm", "/warmer"}})
	for _, dir := range []string{"/c", "/a"} { // epochs 2 and 3
		s.adopt(dir, Adoption{})
		s.goOn(dir)
	}
	s.keeps(true, func() { s.well("/b") })
	s.well("/a")
}

// What a copy has left to the original it may take after all. What was dropped meanwhile stays there.
func TestAdoptLeaveAndTake(t *testing.T) {
	s := begin(t, warmConfig)
	s.goOn("/a")
	s.copy("/a", "/b")
	s.adopt("/b", Adoption{Leave: []string{"/warm", "/warmer"}})
	b := s.must("/b")
	c := b.engine.config()
	c.WarmTTL = 3 * c.HotTTL
	if err := b.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s.ahead.Add(int64(2 * c.HotTTL))
	b.write(30)
	s.old(b)
	dirError(t, b.refusedTrim(), "/warm", "")
	if b.status().Oldest == 1 {
		t.Error("nothing was dropped")
	}
	b.write(1)
	c.WarmTTL = 0
	if err := b.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s.close(b)
	s.keeps(false, func() {
		s.adopt("/b", Adoption{Take: []string{"/warm", "/warmer"}})
		s.well("/b")
		s.goOn("/b")
	})
	s.refused("/a", "/b", owner.ErrNewer)
	s.keeps(false, func() {
		s.adopt("/a", Adoption{})
		s.well("/a")
	})
}

// A crash while segments move leaves files that the table says are to be removed. When an older state with such a table is adopted the newer one has files of these names.
func TestAdoptInterruptedMove(t *testing.T) {
	s := begin(t, warmConfig)
	s.goOn("/a")
	w := s.must("/a")
	w.write(30)
	s.old(w)
	s.close(w)
	clones := s.clones(func(o Options) {
		w, err := s.open("/a", o)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Trim(t.Context()); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
	eachClone(t, 60, clones, func(s *story) {
		s.copy("/a", "/b") // as the crash has left it
		s.goOn("/a")
		s.refused("/b", "/a", owner.ErrNewer)
		s.keeps(false, func() {
			s.adopt("/b", Adoption{})
			s.goOn("/b")
			s.well("/b")
		})
		s.keeps(false, func() {
			s.adopt("/a", Adoption{})
			s.goOn("/a")
			s.well("/a")
		})
	})
}

// A copy whose directories were copied, too, is told where they are. From then on the two have nothing to do with one another.
func TestAdoptMoved(t *testing.T) {
	stories(t, func(s *story) {
		s.goOn("/a")
		moved := map[string]string{}
		for _, dir := range slices.Concat(s.config.Dirs, s.config.Warm) {
			moved[dir] = dir + "-copy"
			s.copy(dir, dir+"-copy")
		}
		s.copy("/a", "/b")
		s.goOn("/a")
		s.refused("/b", "/a", owner.ErrNewer)
		s.keeps(true, func() {
			s.adopt("/b", Adoption{Moved: moved})
			s.adopt("/b", Adoption{}) // there is nothing more to adopt
			s.well("/b")
			s.goOn("/b")
			b := s.must("/b")
			c := b.engine.config()
			if !slices.Equal(c.Warm, []string{"/warm-copy", "/warmer-copy"}) || b.status().Epoch != 2 {
				s.t.Errorf("%+v, %+v", c, b.status())
			}
			b.wantState("/warm-copy", "warm", owner.Ready)
			for _, d := range b.status().Logs[0].Dirs {
				if moved[d.Dir] != "" {
					s.t.Errorf("%+v", d)
				}
			}
			b.check()
			c.Warm = []string{"/warm"}
			if err := b.Configure(s.t.Context(), c); err == nil || !strings.Contains(err.Error(), "/warm-copy") {
				s.t.Errorf("the old name is given again: %v", err)
			}
			s.close(b)
		})
		s.goOn("/a")
		s.well("/a")
		s.well("/b")
		// Its disks are mounted elsewhere now.
		if err := disk.MakeDir(s.fs, "/elsewhere"); err != nil {
			s.t.Fatal(err)
		}
		for from, to := range moved {
			s.move(to, "/elsewhere"+from)
		}
		for from, to := range moved {
			s.adopt("/b", Adoption{Moved: map[string]string{to: "/elsewhere" + from}})
		}
		s.well("/b")
		s.goOn("/b")
		s.well("/b")
		s.well("/a")
	})
}

// What makes no sense, or would harm a database that is open, is refused, and nothing is done.
func TestAdoptRefused(t *testing.T) {
	s := begin(t, warmConfig)
	for s.goOn("/a"); !s.hasSegment("/warm"); s.goOn("/a") { // which of two directories takes a segment depends on how many are sealed by then
	}
	s.copy("/a", "/b")
	s.goOn("/a")
	if err := disk.MakeDir(s.fs, "/empty"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a    Adoption
		want string
	}{
		{Adoption{Take: []string{"/other"}}, "/other is none of the database"},
		{Adoption{Leave: []string{"/other"}}, "/other is none of the database"},
		{Adoption{Moved: map[string]string{"/other": "/warm"}}, "/other is none of the database"},
		{Adoption{Moved: map[string]string{"/warm": "/warmer"}}, "other segments there"},
		{Adoption{Moved: map[string]string{"/warm": "/nowhere"}}, "/nowhere"},
		{Adoption{Moved: map[string]string{"/warm": "/empty"}}, ".seg is not there"},
		{Adoption{Moved: map[string]string{"/warm": ""}}, "not said"},
		{Adoption{Take: []string{"/warm"}}, "/warmer"},  // and what of that?
		{Adoption{Leave: []string{"/warm"}}, "/warmer"}, // likewise
	} {
		s.keeps(true, func() {
			if _, err := Adopt("/b", ref(s.options()), c.a); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v, want %q", c.a, err, c.want)
			}
		})
		s.refused("/b", "/a", owner.ErrNewer)
	}
	a := s.must("/a")
	s.keeps(true, func() {
		var lock *batchlog.LockError
		if _, err := Adopt("/b", ref(s.options()), Adoption{}); !errors.As(err, &lock) || lock.Dir != "/a" {
			t.Errorf("the other one is open: %v", err)
		}
		if _, err := Adopt("/a", ref(s.options()), Adoption{}); !errors.As(err, &lock) || lock.Dir != "/a" {
			t.Errorf("it is open itself: %v", err)
		}
		if _, err := Adopt("/none", ref(s.options()), Adoption{}); !disk.NotExist(err) {
			t.Errorf("there is none: %v", err)
		}
	})
	s.close(a)
	s.well("/a")
	s.adopt("/b", Adoption{})
	s.well("/b")
	s.refused("/a", "/b", owner.ErrNewer)

	c := warmConfig
	c.Dirs, c.Warm = []string{"/hot"}, []string{"relative"}
	s = begin(t, c)
	s.goOn("/a")
	s.copy("/a", "/b")
	for _, x := range []struct {
		a    Adoption
		want string
	}{
		{Adoption{Leave: []string{"/hot"}}, "goes on in"},
		{Adoption{Take: []string{"relative"}}, "nobody else has it"},
	} {
		if _, err := Adopt("/b", ref(s.options()), x.a); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: %v, want %q", x.a, err, x.want)
		}
	}
	s.well("/a")
}

// clones are what a loss of power may leave at each operation that do does on the directories of segments, on settings and identities.
func (s *story) clones(do func(o Options)) (clones []*story) {
	s.t.Helper()
	o := s.options()
	o.FS = counting(s.fs, func() error {
		for _, kept := range []int{0, 100} {
			clone := &story{t: s.t, fs: afterCrash(s.fs, kept), config: s.config, heads: maps.Clone(s.heads)}
			clone.ahead.Store(s.ahead.Load())
			clones = append(clones, clone)
		}
		return nil
	})
	do(o)
	if len(clones) < 10 {
		s.t.Errorf("%d moments", len(clones))
	}
	return clones
}

// eachClone looks at clones: at no more than that many, and with -short at fewer.
func eachClone(t *testing.T, most int, clones []*story, look func(s *story)) {
	t.Helper()
	if testing.Short() {
		most = 8
	}
	stride := (len(clones) + most - 1) / most
	if stride > 1 && stride%2 == 0 {
		stride++ // so that it is those with all kept and those with nothing in turn
	}
	for i := 0; i < len(clones); i += stride {
		t.Run(fmt.Sprint("operation ", i/2, ", kept ", i%2*100, " %"), func(t *testing.T) {
			clones[i].t = t
			look(clones[i])
		})
	}
}

// Wherever the power fails while a database makes a directory its own, or the next incarnation of it, it opens afterwards, and has all.
func TestClaimCrash(t *testing.T) {
	c := warmConfig
	c.Dirs = []string{"/hot", "/hotter"}
	t.Run("made", func(t *testing.T) {
		s := begin(t, c)
		s.heads["/a"] = 0
		clones := s.clones(func(o Options) {
			w, err := s.open("/a", o)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		})
		eachClone(t, 400, clones, func(s *story) {
			s.well("/a")
			s.goOn("/a")
			s.well("/a")
		})
	})
	t.Run("opened and trimmed", func(t *testing.T) {
		s := begin(t, c)
		s.goOn("/a")
		w := s.must("/a")
		w.write(20)
		s.old(w)
		s.close(w)
		clones := s.clones(func(o Options) {
			w, err := s.open("/a", o)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Trim(t.Context()); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		})
		eachClone(t, 400, clones, func(s *story) {
			s.well("/a")
			s.goOn("/a")
			s.well("/a")
		})
	})
	t.Run("configured", func(t *testing.T) {
		s := begin(t, warmConfig)
		s.goOn("/a")
		next := warmConfig
		next.Warm, next.Dirs = []string{"/warmer", "/own"}, []string{"/hot"}
		clones := s.clones(func(o Options) {
			w, err := s.open("/a", o)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Configure(t.Context(), next); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		})
		eachClone(t, 400, clones, func(s *story) {
			s.well("/a")
			w := s.must("/a")
			if err := w.Configure(s.t.Context(), next); err != nil {
				s.t.Error(err)
			}
			s.live(w)
			s.close(w)
			s.well("/a")
		})
	})
}

// Wherever the power fails while a copy is adopted, adopting it again comes to its end, and nothing of the other database is gone. What the copy does not take leaves that
// one as it was.
func TestAdoptCrash(t *testing.T) {
	for name, c := range map[string]struct {
		a    Adoption
		take bool
	}{
		"take":  {Adoption{}, true},
		"leave": {Adoption{Leave: []string{"/warm", "/warmer"}}, false},
		"moved": {Adoption{Moved: map[string]string{"/warm": "/warm-copy", "/warmer": "/warmer-copy"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, warmConfig)
			s.goOn("/a")
			s.copy("/a", "/b")
			s.copy("/warm", "/warm-copy")
			s.copy("/warmer", "/warmer-copy")
			s.goOn("/a")
			clones := s.clones(func(o Options) {
				if _, err := Adopt("/b", &o, c.a); err != nil {
					t.Fatal(err)
				}
			})
			eachClone(t, 400, clones, func(s *story) {
				s.keeps(!c.take, func() {
					if !c.take {
						s.well("/a")
					}
					s.adopt("/b", c.a)
					s.well("/b")
				})
				if name != "leave" {
					s.goOn("/b")
				}
				if c.take {
					s.refused("/a", "/b", owner.ErrNewer)
					s.adopt("/a", Adoption{})
				} else {
					s.goOn("/a")
				}
				s.well("/a")
			})
		})
	}
}

// A disk that is away when a database of before there were marks is opened first is not taken for the empty directory that it is mounted on. When it is back, it is marked.
func TestVersion1Away(t *testing.T) {
	for _, away := range []string{"/warm", "/hotter"} {
		s := &story{t: t, fs: version1(t), config: oldConfig, heads: map[string]batchlog.ID{"/db": version1Commits}}
		o := &Options{FS: s.fs, Now: version1Now, ChainBytes: 16 << 10}
		if err := disk.MakeDir(s.fs, "/away"); err != nil {
			t.Fatal(err)
		}
		for _, within := range []bool{false, true} { // whether that directory has one by the database's UUID, as older programs made it
			s.unmount(away)
			uuid := "40a2f7e6-ba07-49b9-b1c8-731b3f0b0701"
			if within {
				if err := disk.MakeDir(s.fs, filepath.Join(away, uuid)); err != nil {
					t.Fatal(err)
				}
			}
			db, err := Open("/db", o)
			if err != nil {
				t.Fatal(err)
			}
			w := &warmDB{t: t, fs: s.fs, DB: db}
			if d := w.state(away); d.State != batchlog.DirMissing {
				t.Errorf("within %t: %+v", within, d)
			}
			for i := range 60 {
				if _, err := db.Root().Put(t.Context(), batchlog.K(i), make([]byte, 700)); err != nil {
					t.Fatal(err)
				}
			}
			s.heads["/db"] = w.status().Head
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if within {
				if err := s.fs.Remove(filepath.Join(away, uuid)); err != nil { // it is empty
					t.Fatal(err)
				}
			}
			s.mount(away)
		}
		db, err := Open("/db", o)
		if err != nil {
			t.Fatal(err)
		}
		w := &warmDB{t: t, fs: s.fs, DB: db}
		for _, d := range w.status().Logs[0].Dirs {
			if d.State != batchlog.DirReady {
				t.Errorf("%+v", d)
			}
		}
		if w.status().Head != s.heads["/db"] {
			t.Errorf("%+v", w.status())
		}
		verified(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Of two copies of a database of before there were marks the first that is opened has the directories.
func TestVersion1Copies(t *testing.T) {
	for _, first := range []string{"/db", "/copy"} {
		second := map[string]string{"/db": "/copy", "/copy": "/db"}[first]
		s := &story{t: t, fs: version1(t), config: oldConfig, heads: map[string]batchlog.ID{"/db": version1Commits}}
		s.copy("/db", "/copy")
		at := func(dir string, adopt bool) (*DB, error) {
			return Open(dir, &Options{FS: s.fs, Now: version1Now, ChainBytes: 16 << 10, Adopt: adopt})
		}
		s.keeps(false, func() {
			db, err := at(first, false)
			if err != nil {
				t.Fatal(err)
			}
			verified(t, db)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
		s.keeps(true, func() {
			var e *batchlog.OwnerError
			if _, err := at(second, false); !errors.As(err, &e) || e.Owner != first {
				t.Errorf("%s, after %s: %v", second, first, err)
			}
		})
		s.keeps(false, func() {
			db, err := at(second, true)
			if err != nil {
				t.Fatal(err)
			}
			verified(t, db)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
		if _, err := at(first, false); !errors.As(err, new(*batchlog.OwnerError)) {
			t.Errorf("%s, after %s was adopted: %v", first, second, err)
		}
	}
}

// hasSegment reports whether there is a segment in a warm directory.
func (s *story) hasSegment(dir string) bool {
	s.t.Helper()
	within, err := s.fs.List(dir)
	for _, name := range within {
		var names []string
		if names, err = s.fs.List(filepath.Join(dir, name)); err != nil {
			break
		}
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ".seg") }) {
			return true
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return false
}
