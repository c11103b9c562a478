package owner_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/owner"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

const dir = "/outside/uuid"

var (
	now   = time.Date(2026, 11, 22, 18, 45, 53, 7, time.UTC)
	since = now.Truncate(time.Second)
)

func self(fs vfs.FS, db string) *owner.Self {
	return &owner.Self{FS: fs, Database: "uuid", Epoch: 3, Dir: db, Host: "here", Elsewhere: func(string, string) (bool, error) { return false, nil }}
}

func begin(t *testing.T) *crashfs.FS {
	t.Helper()
	fs := crashfs.New()
	if err := disk.MakeDir(fs, dir); err != nil {
		t.Fatal(err)
	}
	return fs
}

// What a directory is to a database follows from its mark, from what the database accepts, and from what is where the mark says that the database is.
func TestLook(t *testing.T) {
	mark := owner.Mark{Database: "uuid", Epoch: 3, Incarnation: "x", Dir: "/a", Host: "here", Since: since}
	other := mark
	other.Database = "another"
	lost := errors.New("cannot be told")
	for _, c := range []struct {
		name      string
		mark      owner.Mark
		accepts   []string
		self      string
		elsewhere bool
		elseErr   error
		state     owner.State
		moved     bool
		err       error
	}{
		{name: "its own", mark: mark, accepts: []string{"y", "x"}, self: "/a", state: owner.Ready},
		{name: "its own, whatever may be elsewhere", mark: mark, accepts: []string{"x"}, self: "/a", elsewhere: true, elseErr: lost, state: owner.Ready},
		{name: "moved", mark: mark, accepts: []string{"x"}, self: "/b", state: owner.Ready, moved: true},
		{name: "copied", mark: mark, accepts: []string{"x"}, self: "/b", elsewhere: true, state: owner.Taken, err: owner.ErrCopy},
		{name: "copied or moved", mark: mark, accepts: []string{"x"}, self: "/b", elseErr: lost, state: owner.Unreadable, err: lost},
		{name: "older", mark: mark, accepts: []string{"w"}, self: "/a", state: owner.Taken, err: owner.ErrNewer},
		{name: "older, before it had a mark", mark: mark, accepts: []string{owner.None}, self: "/a", state: owner.Taken, err: owner.ErrNewer},
		{name: "accepts nothing", mark: mark, self: "/a", state: owner.Taken, err: owner.ErrNewer},
		{name: "another database", mark: other, accepts: []string{"x"}, self: "/a", state: owner.Taken, err: owner.ErrOther},
		{name: "no mark yet", accepts: []string{owner.None, "x"}, self: "/a", state: owner.Ready},
		{name: "no mark any more", accepts: []string{"x"}, self: "/a", state: owner.Unmarked},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := begin(t)
			if c.mark.Dir != "" {
				s := self(fs, c.mark.Dir)
				s.Database = c.mark.Database
				if _, err := s.Mark(dir, c.mark.Incarnation, now); err != nil {
					t.Fatal(err)
				}
			}
			s := self(fs, c.self)
			s.Elsewhere = func(dir, incarnation string) (bool, error) {
				if dir != "/a" || incarnation != "x" {
					t.Errorf("asked for %s, %s", dir, incarnation)
				}
				return c.elsewhere, c.elseErr
			}
			f := s.Look(dir, c.accepts)
			if f.State != c.state || f.Moved != c.moved || c.err != nil && !errors.Is(f.Err, c.err) || (f.Err == nil) != (f.State == owner.Ready) || f.Mark != c.mark {
				t.Errorf("%+v", f)
			}
		})
	}
}

// A directory that is not there, and a mark that can't be read, are told as that.
func TestLookBad(t *testing.T) {
	fs := begin(t)
	all := []string{owner.None, "x"}
	if f := self(fs, "/a").Look("/elsewhere", all); f.State != owner.Missing || !strings.Contains(f.Err.Error(), "mounted") {
		t.Errorf("%+v", f)
	}
	if _, err := self(fs, "/a").Mark("/elsewhere", "x", now); err == nil {
		t.Error("a directory was made")
	}
	if _, err := self(fs, "/a").Mark(dir, "x", now); err != nil {
		t.Fatal(err)
	}
	good, err := disk.ReadFile(fs, dir+"/OWNER")
	if err != nil || !strings.HasPrefix(string(good), "batchlog owner 1 ") {
		t.Fatalf("%q, %v", good, err)
	}
	want := self(fs, "/a").Look(dir, all)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if err := disk.WriteFile(fs, dir+"/OWNER", bad); err != nil {
			t.Fatal(err)
		}
		if f := self(fs, "/a").Look(dir, all); f.State != owner.Unmarked && !reflect.DeepEqual(f, want) {
			t.Errorf("byte %d: %+v", i, f)
		}
	}
	for text, state := range map[string]owner.State{
		"": owner.Unmarked,
		string(disk.AppendDocument(nil, "owner", 1, []byte("{}"))): owner.Unmarked,
		string(disk.AppendDocument(nil, "owner", 1, []byte("{"))):  owner.Unmarked,
		string(disk.AppendDocument(nil, "owner", 2, []byte("{}"))): owner.Unreadable,
	} {
		if err := disk.WriteFile(fs, dir+"/OWNER", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if f := self(fs, "/a").Look(dir, all); f.State != state || f.Err == nil {
			t.Errorf("%q: %+v", text, f)
		}
	}
	broken := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileRead {
			return syscall.ESTALE
		}
		return nil
	}))
	if f := self(broken, "/a").Look(dir, all); f.State != owner.Unreadable || !errors.Is(f.Err, syscall.ESTALE) {
		t.Errorf("%+v", f)
	}
}

// A ledger is which incarnations a database accepts, in a file.
type ledger struct {
	fs vfs.FS
	t  *testing.T
}

func (l *ledger) keep(accepts []string) error {
	_, err := disk.ReplaceFile(l.fs, "/db/accepts", []byte(strings.Join(accepts, ",")))
	return err
}

func (l *ledger) accepts() []string {
	text, err := disk.ReadFile(l.fs, "/db/accepts")
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Split(string(text), ",")
}

// Wherever a claim fails or the power does, the database accepts what is in the directory, and can claim it again. Once it is claimed, what the database accepted
// before, in an older state of it, is not enough.
func TestClaim(t *testing.T) {
	for _, first := range []bool{true, false} {
		for _, lasting := range []bool{false, true} {
			t.Run(fmt.Sprint("first ", first, ", lasting ", lasting), func(t *testing.T) {
				for at := 1; claimFailing(t, at, first, lasting); at++ {
				}
			})
		}
	}
}

// claimFailing claims a directory on a disk that fails from its at-th operation on, or with that alone. It reports whether there were as many.
func claimFailing(t *testing.T, at int, first, lasting bool) (failed bool) {
	t.Helper()
	fs := begin(t)
	if err := disk.MakeDir(fs, "/db"); err != nil {
		t.Fatal(err)
	}
	claim := func(fs vfs.FS, accepts []string, next string) ([]string, error) {
		s := self(fs, "/db")
		f := s.Look(dir, accepts)
		if f.State != owner.Ready {
			t.Fatalf("operation %d: of %q %+v", at, accepts, f)
		}
		return s.Claim(dir, owner.Claim{Found: f, Accepts: accepts, Next: next, Now: now, Keep: (&ledger{fs, t}).keep})
	}
	old := []string{owner.None}
	if err := (&ledger{fs, t}).keep(old); err != nil {
		t.Fatal(err)
	}
	if !first {
		var err error
		if old, err = claim(fs, old, "before"); err != nil || !slices.Equal(old, []string{"before"}) {
			t.Fatalf("%q, %v", old, err)
		}
	}
	n := 0
	var clones []*crashfs.FS
	crash := func() {
		for _, kept := range []int{0, 100} {
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rand.New(rand.NewPCG(1, 2))}))
		}
	}
	bad := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead && op.Kind != errorfs.OpOpenDir {
			return nil
		}
		crash()
		if n++; n == at || lasting && n > at {
			failed = true
			return syscall.EIO
		}
		return nil
	}))
	accepts, err := claim(bad, old, "next")
	crash()
	if f := self(fs, "/db").Look(dir, accepts); f.State != owner.Ready || err == nil && f.Mark.Incarnation != "next" {
		t.Fatalf("operation %d (%v): with %q %+v", at, err, accepts, f)
	}
	if f := self(fs, "/db").Look(dir, old); err == nil && f.State != owner.Taken {
		t.Fatalf("operation %d: an older state finds %+v", at, f)
	}
	for _, fs := range append(clones, fs) {
		again, err := claim(fs, (&ledger{fs, t}).accepts(), "again")
		if kept := (&ledger{fs, t}).accepts(); err != nil || !slices.Equal(again, []string{"again"}) && !first || !slices.Equal(again, kept) {
			t.Fatalf("operation %d: then %q, %q, %v", at, again, kept, err)
		}
		if f := self(fs, "/db").Look(dir, []string{"next", "before", owner.None}); f.State != owner.Taken {
			t.Fatalf("operation %d: an older state finds %+v", at, f)
		}
	}
	return failed
}

// A directory that is given its first mark where another one was, as its disk is not there, is accepted with either: the disk may come back.
func TestClaimInPlaceOfAnother(t *testing.T) {
	fs := begin(t)
	s := self(fs, "/a")
	accepts, err := s.Claim(dir, owner.Claim{Found: s.Look(dir, []string{"lost"}), Accepts: []string{"lost"}, Next: "next", Now: now, Keep: func([]string) error { return nil }})
	if err != nil || !slices.Equal(accepts, []string{"lost", "next"}) {
		t.Errorf("%q, %v", accepts, err)
	}
}
