package store

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A fault is operations that fail while it is on.
type fault struct {
	on   atomic.Bool
	hits atomic.Int64
	kind func(k errorfs.OpKind) bool
	path string // part of the names whose operations fail
	err  error
}

// MaybeError is as errorfs.Injector says.
func (f *fault) MaybeError(op errorfs.Op) error {
	if !f.on.Load() || !f.kind(op.Kind) || !strings.Contains(op.Path, f.path) {
		return nil
	}
	f.hits.Add(1)
	return f.err
}

func (f *fault) String() string { return "fault" }

func writes(k errorfs.OpKind) bool { return k == errorfs.OpFileWrite || k == errorfs.OpFileWriteAt }

func syncs(k errorfs.OpKind) bool {
	return k == errorfs.OpFileSync || k == errorfs.OpFileSyncData || k == errorfs.OpFileSyncTo
}

// space is what needs space.
func space(k errorfs.OpKind) bool {
	return writes(k) || k == errorfs.OpCreate || k == errorfs.OpLink || k == errorfs.OpMkdirAll || k == errorfs.OpFilePreallocate
}

// A full disk is waited for; the store goes on by itself when there is space.
func TestFullDisk(t *testing.T) {
	for _, path := range []string{"", ".sst", "MANIFEST"} {
		f := &fault{kind: space, path: path, err: syscall.ENOSPC}
		s := open(t, errorfs.Wrap(vfs.NewMem(), f), 0)
		records := newMaker(4).records(600, 500)
		applyAfter(t, s, records[:40], 10)
		flush(t, s) // with four full memtables the next Flush would wait for space
		applyAfter(t, s, records[:50], 10)
		f.on.Store(true)
		done, err := s.Flush()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "no space", s.NoSpace)
		mustBe(t, s, 50, fold(t, records, 50)) // reads go on
		within(t, 20*time.Second, "Status", func() { _, _ = s.Status(), s.Status() })
		time.Sleep(2 * spaceRetry)
		select {
		case <-done:
			t.Error("flushed to a full disk")
		default:
		}
		f.on.Store(false)
		<-done
		eventually(t, "space", func() bool { return !s.NoSpace() })
		applyAfter(t, s, records, 10)
		flush(t, s)
		if id, err := s.Flushed(); id != 600 || err != nil || s.Failed() != nil || s.Trouble() != nil {
			t.Error(id, err, s.Failed(), s.Trouble())
		}
		mustBe(t, s, 600, fold(t, records, 600))
	}
}

// Apply waits while its memtables are full and the disk is; Close does not.
func TestCloseOnFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	f := &fault{kind: space, err: syscall.ENOSPC}
	s := open(t, errorfs.Wrap(mem, f), 0)
	records := newMaker(4).records(3000, 500)
	f.on.Store(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, r := range records {
			if s.Apply([]wire.Record{r}) != nil {
				return
			}
		}
	}()
	eventually(t, "no space", s.NoSpace)
	last := batchlog.ID(0)
	eventually(t, "Apply waits", func() bool {
		before := last
		time.Sleep(50 * time.Millisecond)
		last = s.Applied()
		return before == last
	})
	if last == 3000 {
		t.Fatal("memory without bound")
	}
	if !within(t, 20*time.Second, "Close", func() { _ = s.Close() }) {
		return
	}
	f.on.Store(false)
	again := open(t, mem, 0)
	mustBe(t, again, again.Applied(), fold(t, records, again.Applied()))
	applyAfter(t, again, records, 30)
	mustBe(t, again, 3000, fold(t, records, 3000))
	time.Sleep(2 * spaceRetry) // what was left behind has no hand in it
	flush(t, again)
	mustBe(t, again, 3000, fold(t, records, 3000))
}

// stop ends the waits of operations: to who waits, and to all after that, the disk is lost, as if it were a process that has ended. Nothing that it does comes to the disk.
func TestPatientStops(t *testing.T) {
	f := &fault{kind: space, err: syscall.ENOSPC}
	mem := vfs.NewMem()
	if _, err := mem.Create("here", vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	fs := newPatientFS(errorfs.Wrap(mem, f), func(error) {})
	f.on.Store(true)
	_, err := fs.Create("early", vfs.WriteCategoryUnspecified)
	wantErr(t, "while it is opened", err, syscall.ENOSPC)
	fs.patient.Store(true)
	ended := make(chan error, 1)
	go func() {
		_, err := fs.Create("a", vfs.WriteCategoryUnspecified)
		ended <- err
	}()
	eventually(t, "waiting", func() bool { return fs.waiting.Load() == 1 })
	fs.stop()
	if err := <-ended; err != nil {
		t.Error("stopped", err)
	}
	f.on.Store(false)
	file, err := fs.Create("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Close(), fs.Rename("here", "there"), fs.Remove("here")); err != nil {
		t.Error(err)
	}
	if names, err := mem.List(""); len(names) != 1 || names[0] != "here" {
		t.Errorf("%q, %v", names, err)
	}
	other := newPatientFS(mem, func(error) {})
	if file, err = other.OpenReadWrite("here", vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	fs = other
	fs.cut()
	_, err = file.Write([]byte("x"))
	wantErr(t, "write", err, batchlog.ErrClosed)
	_, err = file.WriteAt([]byte("x"), 0)
	wantErr(t, "write at", err, batchlog.ErrClosed)
	_, err = file.SyncTo(1)
	for what, err := range map[string]error{
		"sync": file.Sync(), "sync data": file.SyncData(), "sync to": err, "remove": fs.Remove("a"), "remove all": fs.RemoveAll("a"),
		"rename": fs.Rename("a", "b"), "link": fs.Link("a", "b"), "mkdir": fs.MkdirAll("d", 0o755),
	} {
		wantErr(t, what, err, batchlog.ErrClosed)
	}
	if fs.waiting.Load() != 0 {
		t.Error(fs.waiting.Load())
	}
}

// A write that was done in part is gone on with where it stopped.
func TestPartialWrite(t *testing.T) {
	mem := vfs.NewMem()
	fs := newPatientFS(mem, func(error) {})
	fs.patient.Store(true)
	file, err := mem.Create("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	f := &patientFile{File: &stingy{File: file}, fs: fs}
	if n, err := f.Write([]byte("abcdefg")); n != 7 || err != nil {
		t.Fatal(n, err)
	}
	b := make([]byte, 10)
	if n, _ := file.ReadAt(b, 0); string(b[:n]) != "abcdefg" {
		t.Errorf("%q", b[:n])
	}
}

// A stingy file takes three bytes of each write.
type stingy struct{ vfs.File }

func (f *stingy) Write(b []byte) (int, error) {
	if len(b) <= 3 {
		return f.File.Write(b)
	}
	n, err := f.File.Write(b[:3])
	return n, errors.Join(err, syscall.ENOSPC)
}

// When the manifest can't be written, or a directory synced, the store has failed: it says so and takes nothing more,
// Close ends, and the same directory opens again in the same process and is right.
func TestFailedForGood(t *testing.T) {
	for _, test := range []struct {
		name, path string
		kind       func(k errorfs.OpKind) bool
	}{
		{"write of the manifest", "MANIFEST", writes},
		{"sync of the manifest", "MANIFEST", syncs},
		{"sync of the directory", "store", func(k errorfs.OpKind) bool { return k == errorfs.OpFileSync }},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem := vfs.NewMem()
			broken := fmt.Errorf("broken: %w", syscall.EIO)
			f := &fault{kind: test.kind, path: test.path, err: broken}
			s := open(t, errorfs.Wrap(mem, f), 0)
			records := newMaker(8).records(2000, 500)
			applyAfter(t, s, records[:300], 20)
			flush(t, s) // with four full memtables the next Flush would wait, for ever once the store has failed
			applyAfter(t, s, records[:310], 20)
			snap, err := s.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			f.on.Store(true)
			if _, err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			// Who asks how it is has an answer, before, while and after it fails.
			within(t, 20*time.Second, "Status", func() {
				for s.Failed() == nil {
					_ = s.Status()
				}
				_ = s.Status()
			})
			eventually(t, "failed", func() bool { return s.Failed() != nil })
			if err := s.Apply(records[310:311]); err == nil {
				t.Error("applied after it failed")
			}
			if err := s.Failed(); !strings.Contains(err.Error(), "broken") {
				t.Error(err)
			}
			if !within(t, 20*time.Second, "Close", func() { _ = s.Close(); _ = snap.Close() }) {
				return
			}
			f.on.Store(false)
			again := open(t, mem, 0)
			mustBe(t, again, again.Applied(), fold(t, records, again.Applied()))
			applyAfter(t, again, records, 30)
			flush(t, again)
			mustBe(t, again, 2000, fold(t, records, 2000))
		})
	}
}

// When the store fails while an Apply waits for memory, that Apply may never end: what it waits for has ended. All else is an
// answer or an error, and Close ends.
func TestFailsWhileApplying(t *testing.T) {
	f := &fault{kind: writes, path: "MANIFEST", err: syscall.EIO}
	s := open(t, errorfs.Wrap(vfs.NewMem(), f), 0)
	records := newMaker(8).records(5000, 500)
	f.on.Store(true)
	var applied atomic.Bool
	go func() {
		for _, r := range records {
			if s.Apply([]wire.Record{r}) != nil {
				return
			}
		}
		applied.Store(true)
	}()
	eventually(t, "failed", func() bool { return s.Failed() != nil })
	time.Sleep(50 * time.Millisecond)
	if applied.Load() {
		t.Error("memory without bound")
	}
	within(t, time.Second, "Get", func() { _, _ = s.Get([]byte(counterKey)) })
	within(t, time.Second, "Snapshot", func() { _, _ = s.Snapshot() })
	within(t, time.Second, "Status", func() { s.Status() })
	within(t, time.Second, "Flushed", func() { _, _ = s.Flushed() })
	within(t, 3*time.Second, "Close", func() { _ = s.Close() })
}

// Where Pebble can't go on in the midst of a call of ours, as with a batch that has other ops than it says, the call is an error, and so is each later one: neither ends
// the goroutine of its caller, nor keeps it waiting.
func TestFailsInCall(t *testing.T) {
	rs := newMaker(8).records(20, 500)
	rs[3] = withToken(rs[3], "token")
	forget := map[string]func(s *Store) error{
		"ForgetTokens":   func(s *Store) error { return s.ForgetTokens(10) },
		"ForgetInverses": func(s *Store) error { return s.ForgetInverses(10) },
		"ForgetBlob":     func(s *Store) error { return s.ForgetBlob([32]byte{1}) },
		"Load":           func(s *Store) error { return s.Load(rs[0].Ops, rs[0].Count) },
		"MoveInverses":   func(s *Store) error { return s.MoveInverses(t.Context(), batchlog.IDRange{First: 1, Last: 5}, "file") },
		"ApplyBounded":   func(s *Store) error { return s.ApplyBounded(t.Context(), rs[10:12]) },
		"Close":          func(s *Store) error { _ = s.Close(); return errors.New("closed") },
	}
	for name, call := range forget {
		s := open(t, vfs.NewMem(), 0)
		apply(t, s, rs[:10]...)
		ended := make(chan error, 2)
		go func() { // not of the test: else that would end as if all were well
			err := errors.New("the caller's goroutine was ended")
			defer func() { ended <- err }()
			if err = s.Load(rs[0].Ops, rs[0].Count+1); err == nil {
				err = errors.New("a batch with a wrong count was taken")
				return
			}
			if s.Failed() == nil || !errors.Is(err, s.Failed()) {
				return
			}
			err = nil
		}()
		within(t, 20*time.Second, "Load", func() {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		within(t, 20*time.Second, name, func() {
			if err := call(s); err == nil {
				t.Errorf("%s: no error of a store that has failed", name)
			}
		})
	}
}

// Background work that fails otherwise is tried again, and the failure is told.
func TestTrouble(t *testing.T) {
	f := &fault{kind: writes, path: ".sst", err: syscall.EIO}
	s := open(t, errorfs.Wrap(vfs.NewMem(), f), 0)
	records := newMaker(8).records(100, 500)
	applyAfter(t, s, records[:90], 20)
	flush(t, s) // with four full memtables the next Flush would wait for the one that fails
	applyAfter(t, s, records, 20)
	f.on.Store(true)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "trouble", func() bool { return s.Trouble() != nil })
	f.on.Store(false)
	eventually(t, "flushed", func() bool { id, err := s.Flushed(); return id == 100 && err == nil })
	if s.Failed() != nil {
		t.Error(s.Failed())
	}
	mustBe(t, s, 100, fold(t, records, 100))
}

// Opening fails as well as it can, and leaves the directory free; a store that is there is opened without a write.
func TestOpenFails(t *testing.T) {
	for _, test := range []struct {
		name, path string
		kind       func(k errorfs.OpKind) bool
		err        error
		want       error
	}{
		{"full", "", space, syscall.ENOSPC, batchlog.ErrNoSpace},
		{"full, manifest", "MANIFEST", space, syscall.ENOSPC, batchlog.ErrNoSpace},
		{"lock", "LOCK", func(k errorfs.OpKind) bool { return k == errorfs.OpLock }, syscall.EIO, syscall.EIO},
		{"manifest", "MANIFEST", writes, syscall.EIO, syscall.EIO},
		{"sync of the manifest", "MANIFEST", syncs, syscall.EIO, syscall.EIO},
		{"sync of the directory", "store", func(k errorfs.OpKind) bool { return k == errorfs.OpFileSync }, syscall.EIO, syscall.EIO},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem := vfs.NewMem()
			records := newMaker(1).records(300, 500)
			f := &fault{kind: test.kind, path: test.path, err: test.err}
			try := func(want error) {
				t.Helper()
				f.on.Store(true)
				defer f.on.Store(false)
				within(t, 20*time.Second, "Open", func() {
					s, err := Open(testOptions(errorfs.Wrap(mem, f), 0))
					if err == nil {
						err = s.Close()
					}
					if want == nil && err != nil {
						t.Error(err)
					} else if want != nil {
						wantErr(t, "Open", err, want)
					}
				})
			}
			try(test.want)
			s := open(t, mem, 0)
			applyAfter(t, s, records[:200], 10)
			flush(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if test.path == "LOCK" || test.path == "" {
				try(test.want)
			} else {
				try(nil)
			}
			s = open(t, mem, 0)
			mustBe(t, s, 200, fold(t, records, 200))
			applyAfter(t, s, records, 10)
			mustBe(t, s, 300, fold(t, records, 300))
		})
	}
}
