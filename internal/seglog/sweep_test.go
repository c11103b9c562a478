package seglog

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A story is a log in which all that edits its table happens, while a disk fails or the power does. What it is told of is what must be there.
type story struct {
	*world
	chains uint64

	mu    sync.Mutex
	acked []wire.Record
	maybe []wire.Record
}

func storyOptions(fs vfs.FS) Options {
	o := options(fs, batchlog.MinSegmentBytes)
	o.Settings.Dirs = []string{"", "/two"}
	o.Settings.Warm = []string{"/warm"}
	return o
}

func newStory(t *testing.T, fs *watch) *story {
	s := &story{world: &world{t: t, opts: storyOptions(fs), time: 1_000_000, step: 1000}}
	for _, dir := range []string{"", "/two", "/warm"} {
		s.makeDir(dir)
	}
	return s
}

// write writes a group. What of it is durable is known before it returns.
func (s *story) write(records ...wire.Record) error {
	if err := s.log.Failed(); err != nil {
		return err
	}
	before := len(s.all)
	s.tell(records)
	err := s.tryWrite(records...)
	if errors.Is(err, batchlog.ErrUncertain) {
		s.tell(records[len(s.all)-before:])
	} else {
		s.tell(nil)
	}
	return err
}

// tell says what has been acknowledged so far, and what may become durable next.
func (s *story) tell(maybe []wire.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked, s.maybe = slices.Clone(s.all), maybe
}

// known is what must be there, and what may be there behind it.
func (s *story) known() (acked, maybe []wire.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked, s.maybe
}

// chain commits a chain.
func (s *story) chain() error {
	s.chains++
	var file [16]byte
	binary.BigEndian.PutUint64(file[:], s.chains)
	c, err := s.log.BeginChain(file)
	if err != nil {
		return err
	}
	op := put(100, "chain")
	if err := errors.Join(c.Add(op.Ops, 1), c.Sync()); err != nil {
		return errors.Join(err, c.Drop())
	}
	m := c.ChainWriter.Mark()
	ref := &wire.ChainRef{File: file, Sum: m.Sum, Count: 1, Bytes: m.Bytes, End: m.End, Coarse: true, Spans: []wire.KeyRange{{}}}
	return errors.Join(s.write(wire.Record{Count: 1, Chain: ref}), c.Keep())
}

// run is the story, as far as it goes. Errors of the disk are no part of it.
func (s *story) run() (err error) {
	l, err := Open(s.opts, 0)
	if err != nil {
		return err
	}
	s.log = l
	defer func() { err = errors.Join(err, l.Close()) }()
	var errs []error
	try := func(err error) {
		errs = append(errs, err)
	}
	fill := func(groups int) {
		for range groups {
			try(s.write(put(1500, "fill"), put(200, "fill")))
		}
	}
	try(s.write(put(10, "a")))
	try(s.write(put(30_000, "large"))) // begins one of its size
	try(s.chain())
	fill(12)
	s.settle()
	_, err = l.Warm(s.t.Context(), l.Oldest()+batchlog.ID(len(s.all)/2))
	try(err)
	try(s.chain())
	fill(6)
	s.settle()
	l.keep.Lock()
	if l.keep.file != nil {
		l.keep.file.snapshot = -1 << 30 // worn
	}
	l.keep.Unlock()
	try(l.tidyTable())
	first, _ := l.table.Load().segs.first()
	_, err = l.Trim(first.last)
	try(err)
	_, err = l.Warm(s.t.Context(), l.Head())
	try(err)
	l.RollIfOlder(time.UnixMicro(1<<50), time.Second)
	fill(2)
	s.settle()
	_, err = l.Trim(l.Head())
	try(err)
	fill(3)
	return errors.Join(errs...)
}

// settle gives what is done in the background its time: it is part of the story at what operations it does its work, not that it does.
func (s *story) settle() {
	for range 200 {
		if s.log.Failed() != nil || !slices.Contains(s.states(), full) {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	_ = s.log.Swept(ctx) // as far as it can be
}

// check opens what the disk holds then, and fails t unless all that must be there is, the log goes on, and no file is left that nobody knows.
func (s *story) check(what string, fs vfs.FS, acked, maybe []wire.Record) {
	t := s.t
	t.Helper()
	for _, dir := range []string{dir, "/two", "/warm"} {
		if err := disk.MakeDir(fs, dir); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, opts: storyOptions(fs), time: s.time, step: 1000}
	made := uint64(1 << 30)
	var mu sync.Mutex
	w.opts.NewUUID = func() (u segment.UUID) { // names of their own
		mu.Lock()
		defer mu.Unlock()
		made++
		binary.BigEndian.PutUint32(u[:], uint32(made))
		binary.BigEndian.PutUint64(u[8:], made)
		return u
	}
	l, err := Open(w.opts, 0)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer l.Close()
	w.log = l
	head := int(l.Head())
	if head < len(acked) || head > len(acked)+len(maybe) {
		t.Fatalf("%s: head %d, acknowledged %d, %d under way", what, head, len(acked), len(maybe))
	}
	w.all = slices.Clone(acked)
	for i, r := range maybe[:head-len(acked)] {
		r.ID = batchlog.ID(len(acked) + i + 1)
		w.all = append(w.all, r)
	}
	w.wantAll(what)
	w.fill(l.Status().Segments+2, 2000)
	w.sealed()
	if _, err := l.Warm(t.Context(), l.Head()); err != nil {
		t.Fatalf("%s: then %v", what, err)
	}
	if st := l.Status(); st.Warm != st.Segments-1 || len(st.Damaged) > 0 {
		t.Fatalf("%s: %+v", what, st)
	}
	w.wantAll(what)
	if _, err := l.Trim(l.Oldest() + 1); err != nil {
		t.Fatalf("%s: then %v", what, err)
	}
	w.swept()
	w.verify()
	if err := l.Close(); err != nil {
		t.Fatalf("%s: close: %v", what, err)
	}
	w.wantFiles(what)
	w.open()
	w.wantAll(what)
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantAll fails t unless the log has w.all, but for what it has dropped, chains included.
func (w *world) wantAll(what string) {
	w.t.Helper()
	if w.log.Head() == 0 {
		return
	}
	got, err := read(w.t, w.log, batchlog.LogOptions{From: batchlog.Oldest(), Until: w.log.Head()})
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	want := w.all[len(w.all)-len(got):]
	if len(got) > 0 && got[0].ID != w.log.Oldest() {
		w.t.Fatalf("%s: from %d, oldest %d", what, got[0].ID, w.log.Oldest())
	}
	for i := range got {
		r := want[i]
		r.Time = got[i].Time
		if !same(&got[i], &r) {
			w.t.Fatalf("%s: commit %d is another one", what, got[i].ID)
		}
		if c := got[i].Chain; c != nil {
			if err := got[i].EachOp(func(batchlog.OpKind, []byte, []byte) error { return nil }); err != nil {
				w.t.Fatalf("%s: chain of commit %d: %v", what, got[i].ID, err)
			}
		}
	}
}

// wantFiles fails t if there is a file that the log, which is closed, does not know, or if one lacks.
func (w *world) wantFiles(what string) {
	w.t.Helper()
	tab := w.log.table.Load()
	known := map[string]bool{filepath.Join(dir, manifestName): true, filepath.Join(dir, tableName(w.log.keep.number)): true}
	known[filepath.Join(dir, tableName(w.log.keep.file.head.number))] = true
	for s := range tab.segs.all() {
		for _, f := range s.files() {
			known[w.log.path(f.dir, f.name)] = true
		}
		if s.live != nil {
			for _, c := range s.live.mu.chains {
				known[w.log.path("", chainName(c.file))] = true
			}
		}
	}
	for at, warm := range w.log.directories(tab) {
		names, err := w.opts.FS.List(w.log.path(at, ""))
		if err != nil {
			if disk.NotExist(err) && warm {
				continue
			}
			w.t.Fatal(err)
		}
		for _, name := range names {
			if file := w.log.path(at, name); !known[file] && !(at == "" && w.abandoned(name)) {
				w.t.Errorf("%s: %s is left", what, file)
			}
			delete(known, w.log.path(at, name))
		}
	}
	delete(known, filepath.Join(dir, tableName(w.log.keep.number)))
	for file := range known {
		w.t.Errorf("%s: %s is missing", what, file)
	}
}

// abandoned reports whether a file is that of a chain which was never committed, which is not for the log to sweep by itself.
func (w *world) abandoned(name string) bool {
	file, ok := chainFile(name)
	return ok && !w.log.HasChain(file)
}

// legacyStory is a disk with a log of version 1 as a crash might have left it: a move half done, a dropped segment that is still there, and an
// empty one that no manifest named.
func legacyStory(t *testing.T) (*crashfs.FS, []wire.Record) {
	t.Helper()
	fs := crashfs.New()
	s := newStory(t, &watch{FS: fs})
	s.opts.FS = fs
	s.open()
	if err := errors.Join(s.chain(), s.write(put(9000, "a")), s.write(put(9000, "a")), s.write(put(9000, "b"))); err != nil {
		t.Fatal(err)
	}
	s.sealed()
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	warm := "/warm"
	if err := disk.MakeDir(fs, warm); err != nil {
		t.Fatal(err)
	}
	first := s.segs()[0]
	second := s.segs()[1]
	copyFile(t, fs, s.log.path(first.dir, first.name()), filepath.Join(warm, first.name()))
	copyFile(t, fs, s.log.path(first.dir, first.name()), filepath.Join(warm, second.name()+copySuffix))
	empty := segment.AppendHeader(nil, segment.Header{Version: segment.Version, Database: s.opts.Database, Segment: segment.UUID{9}, Epoch: 1, First: s.log.Head() + 1})
	if err := errors.Join(
		disk.WriteFile(fs, filepath.Join("/two", segmentName(s.log.Head()+1, segTag{9})), append(empty, make([]byte, 8192)...)),
		disk.SyncDir(fs, "/two"), disk.SyncDir(fs, warm),
	); err != nil {
		t.Fatal(err)
	}
	s.makeLegacy(nil)
	return fs, s.all
}

var everyOperation = flag.Bool("seglog.all", false, "tell the story at every operation, not at some")

// begins are how the story may begin: with nothing, or with a log of version 1.
var begins = map[string]func(t *testing.T) (*crashfs.FS, []wire.Record){
	"new":       func(*testing.T) (*crashfs.FS, []wire.Record) { return crashfs.New(), nil },
	"version 1": legacyStory,
}

// sweepStory tells the story again and again. Each time something happens at the next of the operations that change a disk, or make that durable, until
// it has come to its end: at is called for that one and all after it. step is how many operations are passed over, from a random one on.
func sweepStory(t *testing.T, name string, step int, at func(s *story, mem *crashfs.FS, first bool) error, after func(s *story, mem *crashfs.FS, what string)) {
	switch {
	case *everyOperation:
		step = 1
	case testing.Short():
		step *= 5
	}
	for n := 1 + rand.IntN(step); !t.Failed(); n += step {
		mem, all := begins[name](t)
		fs := &watch{FS: mem}
		s := newStory(t, fs)
		s.all, s.time, s.chains = all, 2_000_000, uint64(len(all))
		s.tell(nil)
		count, what := 0, ""
		var mu sync.Mutex
		fs.on(func(op, name string, _ int64) error {
			if op == "read" || op == "open" && !strings.HasPrefix(name, preparedPrefix) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if count++; count < n {
				return nil
			}
			if count == n {
				what = fmt.Sprintf("operation %d, %s %s", n, op, name)
			}
			return at(s, mem, count == n)
		})
		err := s.run()
		fs.on(nil)
		if what == "" {
			if err != nil {
				t.Fatalf("undisturbed: %v", err)
			}
			t.Logf("%d operations", count)
			after(s, mem, "undisturbed")
			return
		}
		after(s, mem, what)
	}
}

// Wherever the power fails, and whatever of the writes that were not synced comes to the disk: what was acknowledged is there, the rest whole or not at all, the log goes
// on, and nothing is left that it does not know.
func TestPowerLossSweep(t *testing.T) {
	type crash struct {
		fs           *crashfs.FS
		acked, maybe []wire.Record
	}
	for name := range begins {
		t.Run(name, func(t *testing.T) {
			var crashes []crash
			sweepStory(t, name, 5, func(s *story, mem *crashfs.FS, first bool) error {
				if first {
					acked, maybe := s.known()
					for _, percent := range []int{0, 50, 100} {
						crashes = append(crashes, crash{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(len(acked)), uint64(percent)))}), acked, maybe})
					}
				}
				return errDisk
			}, func(s *story, _ *crashfs.FS, what string) {
				for i, c := range crashes {
					s.check(fmt.Sprintf("%s, %d %% kept", what, i*50), c.fs, c.acked, c.maybe)
				}
				crashes = nil
			})
		})
	}
}

// Whatever operation fails, once or from then on, and although the disk is full: nothing that was acknowledged is lost, the log goes on or says why it does not, and opened
// again it is well.
func TestErrorSweep(t *testing.T) {
	for name := range begins {
		for _, fault := range []error{errDisk, syscall.ENOSPC} {
			for _, lasting := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %v, lasting %t", name, fault, lasting), func(t *testing.T) {
					sweepStory(t, name, 15, func(_ *story, _ *crashfs.FS, first bool) error {
						if first || lasting {
							return fault
						}
						return nil
					}, func(s *story, mem *crashfs.FS, what string) {
						acked, maybe := s.known()
						s.check(what, mem, acked, maybe)
					})
				})
			}
		}
	}
}
