package seglog

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
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

// What was written is there, in the order and with the ids that it was written with, after any number of closes and opens.
func TestWriteReopen(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	r := rand.New(rand.NewPCG(1, 1))
	if w.log.Head() != 0 || w.log.Oldest() != 1 || w.log.LastTime() != 0 || w.log.Failed() != nil || w.log.NoSpace() {
		t.Fatalf("a new log: %+v", w.log.Status())
	}
	for range 20 {
		for range r.IntN(12) {
			group := make([]wire.Record, 1+r.IntN(5))
			for i := range group {
				group[i] = put(r.IntN(3000), "a", r.IntN(3))
				if r.IntN(3) == 0 {
					group[i].Meta = []byte("\x01\x03tok")
				}
			}
			w.write(group...)
		}
		if r.IntN(2) == 0 {
			w.sealed()
		}
		w.reopen()
		if w.log.Head() != batchlog.ID(len(w.all)) || len(w.all) > 0 && w.log.LastTime() != w.all[len(w.all)-1].Time {
			t.Fatalf("head %d at %d, want %d", w.log.Head(), w.log.LastTime(), len(w.all))
		}
		w.wantRead(batchlog.First(), w.all)
	}
	w.sealed()
	w.verify()
	if st := w.log.Status(); st.Segments < 10 || st.First != 1 || st.Last != w.log.Head() || !st.Oldest.Equal(time.UnixMicro(w.all[0].Time)) || len(st.Damaged) > 0 {
		t.Errorf("status %+v", st)
	}
}

// A small log has small files: each is up to four times as large as the one before.
func TestSegmentSizes(t *testing.T) {
	const limit = 6 << 20
	w := begin(t, options(vfs.NewMem(), limit))
	var sizes []int64 // of the active segment, before it is sealed
	for n := 1; n <= 5; n++ {
		w.fill(n, 700<<10)
		sizes = append(sizes, w.log.table.Load().active().size)
	}
	if want := []int64{1 << 20, 4 << 20, limit, limit, limit}; !slices.Equal(sizes, want) {
		t.Errorf("sizes %d, want %d", sizes, want)
	}
	w.sealed()
	for _, s := range w.segs()[:4] {
		info, err := w.opts.FS.Stat(w.path(s))
		if err != nil || info.Size() < s.size || endOf(s) > s.size-segment.FooterSize {
			t.Errorf("sealed segment of %d bytes, %d in the table, groups up to %d: %v", info.Size(), s.size, endOf(s), err)
		}
	}
	// Larger segments from now on, and smaller ones.
	for _, size := range []int64{8 << 20, 64 << 10} {
		w.log.Use(Settings{SegmentBytes: size})
		w.fill(w.log.Status().Segments+2, 300<<10)
		segs := w.segs()
		if got := segs[len(segs)-1].size; got > max(size, 400<<10) || size == 8<<20 && got != size {
			t.Errorf("segment of %d bytes, configured are %d", got, size)
		}
	}
	w.wantRead(batchlog.First(), w.all)
}

// A commit that is larger than a segment makes one of its size; if the active segment is empty it takes its place.
func TestLargeRecord(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.write(put(100<<10, "a"))
	segs := w.segs()
	if len(segs) != 1 || segs[0].size < 100<<10 || segs[0].first != 1 {
		t.Fatalf("segments %+v", segs)
	}
	w.swept()
	if files := slices.DeleteFunc(w.files(), func(name string) bool { return strings.HasPrefix(name, preparedPrefix) }); len(files) != 3 {
		t.Errorf("files %q", files)
	}
	w.write(put(1, "b"), put(200<<10, "c"), put(2, "d"), put(300<<10, "e"))
	w.write(put(5<<20, "e"), put(1, "f"))
	w.sealed()
	w.verify()
	w.wantRead(batchlog.First(), w.all)
	w.reopen()
	w.verify()
	w.wantRead(batchlog.First(), w.all)
	for i, s := range w.segs() {
		if i > 0 && s.first != w.segs()[i-1].last+1 {
			t.Errorf("segment %d begins with %d", i, s.first)
		}
	}
}

// A group takes what fits into it and the segment, in whatever sizes commits come.
func TestGroups(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), 1<<20))
	r := rand.New(rand.NewPCG(2, 2))
	for range 20 {
		group := make([]wire.Record, 1+r.IntN(40))
		for i := range group {
			group[i] = put([]int{0, r.IntN(100), r.IntN(60 << 10), r.IntN(1 << 20)}[r.IntN(4)/(1+r.IntN(2))], "a")
		}
		w.write(group...)
	}
	w.wantRead(batchlog.First(), w.all)
	w.sealed()
	w.verify()
	w.reopen()
	w.wantRead(batchlog.First(), w.all)
	if err := w.log.Sync(); err != nil {
		t.Errorf("sync without a group: %v", err)
	}
}

// A commit out of its turn is our bug.
func TestAddOrder(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), 1<<20))
	w.write(put(1, "a"))
	for name, r := range map[string]wire.Record{
		"the same id":  {ID: 1, Time: w.time},
		"a hole":       {ID: 3, Time: w.time},
		"an older one": {ID: 2, Time: w.time - 1},
	} {
		func() {
			defer func() {
				if r, ok := recover().(string); !ok || !strings.HasPrefix(r, "batchlog: bug: ") {
					t.Errorf("%s: panic %v", name, r)
				}
			}()
			_, _, _ = w.log.Add(r)
			t.Errorf("%s was taken", name)
		}()
		w.log.tail.count = 0
	}
}

// With the disk full when a segment is begun the commit has no id and is nowhere; followers go on, and so do writers, with the
// same id, when there is space.
func TestNoSpaceForSegment(t *testing.T) {
	for _, part := range []string{preparedPrefix, tablePrefix} {
		fs := &watch{FS: vfs.NewMem()}
		w := begin(t, options(fs, batchlog.MinSegmentBytes))
		w.write(put(100, "a"))
		fs.on(failOn("write", part, syscall.ENOSPC))
		var err error
		for err == nil {
			err = w.tryWrite(put(1000, "a"))
		}
		if !errors.Is(err, batchlog.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%s: %v", part, err)
		}
		if part == preparedPrefix && !w.log.NoSpace() {
			t.Errorf("%s: the log doesn't say that the disk is full", part)
		}
		before, states := len(w.all), len(w.states())
		for range 3 { // at once, and when it has looked again
			if err := w.tryWrite(put(1000, "a")); !errors.Is(err, batchlog.ErrNoSpace) {
				t.Fatalf("%s: %v", part, err)
			}
			time.Sleep(noSpaceRetry / 2)
		}
		if w.log.Failed() != nil || w.log.Head() != batchlog.ID(before) || len(w.states()) != states {
			t.Errorf("%s: head %d, want %d; %v", part, w.log.Head(), before, w.log.Failed())
		}
		w.wantRead(batchlog.First(), w.all)
		fs.on(nil)
		eventually(t, "writes are taken again", func() bool { return w.tryWrite(put(1000, "a")) == nil })
		if w.log.NoSpace() || w.log.Head() != batchlog.ID(before+1) {
			t.Errorf("%s: head %d, want %d", part, w.log.Head(), before+1)
		}
		w.fill(5, 1000)
		w.sealed()
		w.verify()
		w.wantRead(batchlog.First(), w.all)
		w.reopen()
		w.verify()
		w.wantRead(batchlog.First(), w.all)
		for _, name := range w.files() {
			if strings.HasPrefix(name, preparedPrefix) || name == manifestName+disk.TempSuffix {
				t.Errorf("%s: %s is left behind", part, name)
			}
		}
	}
}

// With little space left there is a smaller segment.
func TestLittleSpace(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, 64<<20))
	fs.on(func(op, name string, offset int64) error {
		if op == "write" && offset >= 2<<20 {
			return syscall.ENOSPC
		}
		return nil
	})
	w.fill(3, 400<<10)
	w.sealed()
	for _, s := range w.segs()[1:] {
		if s.size > 1<<20 {
			t.Errorf("segment of %d bytes", s.size)
		}
	}
	if err := w.tryWrite(put(3<<20, "a")); !errors.Is(err, batchlog.ErrNoSpace) {
		t.Errorf("a commit that has no room: %v", err)
	}
	eventually(t, "a smaller one is taken", func() bool { return w.tryWrite(put(1<<20, "a")) == nil })
	w.wantRead(batchlog.First(), w.all)
}

// With the disk full under a group, as may be where files are copied on write, its commits are nowhere and the next ones
// have their ids.
func TestNoSpaceForGroup(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, torn{syscall.ENOSPC}, syscall.EDQUOT} {
		fs := &watch{FS: vfs.NewMem()}
		w := begin(t, options(fs, 64<<10))
		w.write(put(10, "a"))
		for range 3 {
			fs.on(failOn("write", segmentSuffix, fault))
			if err := w.tryWrite(put(3000, "lost"), put(2000, "lost")); !errors.Is(err, batchlog.ErrNoSpace) {
				t.Fatal(err)
			}
			fs.on(nil)
			w.wantRead(batchlog.First(), w.all)
			w.write(put(500, "kept"))
			w.wantRead(batchlog.First(), w.all)
		}
		if len(w.all) != 4 || w.log.Failed() != nil {
			t.Errorf("%d commits, %v", len(w.all), w.log.Failed())
		}
		// The rest of a longer group that was abandoned does not become part of the log.
		fs.on(failOn("write", segmentSuffix, fault))
		if err := w.tryWrite(put(3000, "lost"), put(2000, "lost")); !errors.Is(err, batchlog.ErrNoSpace) {
			t.Fatal(err)
		}
		fs.on(nil)
		w.reopen()
		w.wantRead(batchlog.First(), w.all)
		w.fill(3, 1000)
		w.sealed()
		w.verify()
	}
}

// What whoever holds a commit of an abandoned group sees is not written over.
func TestAbandonedMemory(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, 1<<20))
	stored, _, err := w.log.Add(wire.Record{ID: 1, Time: 1, Meta: []byte("meta"), Ops: []byte("ops!")})
	if err != nil {
		t.Fatal(err)
	}
	fs.on(failOn("write", segmentSuffix, syscall.ENOSPC))
	if err := w.log.Sync(); !errors.Is(err, batchlog.ErrNoSpace) {
		t.Fatal(err)
	}
	fs.on(nil)
	for range 10 {
		w.write(put(100, "other"))
	}
	if string(stored.Meta) != "meta" || string(stored.Ops) != "ops!" {
		t.Errorf("it has become %q, %q", stored.Meta, stored.Ops)
	}
}

// After a failed write or sync nothing is known of the disk: the group's commits are uncertain, and nothing is appended any
// more, also when the disk works again. What is durable is served. Opened again the group is there whole or not at all.
func TestFailedSync(t *testing.T) {
	for _, c := range []struct {
		op    string
		fault error
		there bool // after it is opened again
	}{
		{"sync", errDisk, true},
		{"sync", syscall.ENOSPC, true}, // a sync is not a write: it can't be tried again
		{"write", errDisk, false},
		{"write", torn{errDisk}, false},
	} {
		fs := &watch{FS: vfs.NewMem()}
		w := begin(t, options(fs, 64<<10))
		w.write(put(100, "a"))
		failed := false
		fs.on(func(op, name string, _ int64) error {
			if failed || op != c.op || !strings.HasSuffix(name, segmentSuffix) {
				return nil
			}
			failed = true // once: a second try would succeed, and say nothing about the first
			return c.fault
		})
		lost := []wire.Record{put(1000, "b"), put(1000, "b")}
		err := w.tryWrite(lost...)
		if !errors.Is(err, batchlog.ErrUncertain) || errors.Is(err, batchlog.ErrNoSpace) {
			t.Fatalf("%s: %v", c.op, err)
		}
		fs.on(nil)
		for range 3 {
			if err := w.tryWrite(put(1, "c")); !errors.Is(err, batchlog.ErrReadOnly) || errors.Is(err, batchlog.ErrUncertain) {
				t.Errorf("%s: then %v", c.op, err)
			}
		}
		if w.log.Failed() == nil || w.log.Head() != 1 {
			t.Errorf("%s: head %d, %v", c.op, w.log.Head(), w.log.Failed())
		}
		w.wantRead(batchlog.First(), w.all)
		fs.done()
		if err := w.log.Close(); err != nil {
			t.Error(err)
		}
		if ops := slices.DeleteFunc(fs.done(), func(op string) bool { return strings.Contains(op, preparedPrefix) }); len(ops) > 0 {
			t.Errorf("%s: closing the failed log does %q", c.op, ops)
		}
		if c.there {
			for i := range lost {
				lost[i].ID, lost[i].Time = batchlog.ID(2+i), w.time-3000
			}
			w.all = append(w.all, lost...)
		}
		w.open()
		w.wantRead(batchlog.First(), w.all)
		w.write(put(1, "d"))
		w.wantRead(batchlog.First(), w.all)
	}
}

// A table whose file can't be relied on any more goes on in another one. If that can't be, it is not known which table a crash would find, and nothing may be
// appended. The commit that needed it is nowhere.
func TestFailedTable(t *testing.T) {
	next := tableName(2)
	for _, first := range []string{"write", "sync"} {
		for _, c := range []struct{ op, name string }{
			{"", ""}, {"open", next}, {"write", next}, {"sync", next}, {"sync", dir}, {"create", manifestName + disk.TempSuffix}, {"write", manifestName + disk.TempSuffix},
			{"sync", manifestName + disk.TempSuffix}, {"rename", manifestName},
		} {
			fs := &watch{FS: vfs.NewMem()}
			w := begin(t, options(fs, batchlog.MinSegmentBytes))
			w.write(put(10_000, "a"))
			ready(t, w.log) // the next file: the first sync of the directory is that of the table
			broken := false
			fs.on(func(op, name string, _ int64) error {
				if op == first && name == tableName(1) {
					broken = true
					return errDisk
				}
				if broken && op == c.op && name == c.name {
					return errDisk
				}
				return nil
			})
			err := w.tryWrite(put(10_000, "b"))
			fs.on(nil)
			switch {
			case c.op == "":
				if err != nil || w.log.Failed() != nil {
					t.Fatalf("%s: %v", first, err)
				}
			case !errors.Is(err, batchlog.ErrReadOnly) || errors.Is(err, batchlog.ErrUncertain) || !errors.Is(err, errDisk):
				t.Fatalf("%s, %s %s: %v", first, c.op, c.name, err)
			default:
				if err := w.tryWrite(put(1, "b")); !errors.Is(err, batchlog.ErrReadOnly) {
					t.Fatalf("%s, %s %s: then %v", first, c.op, c.name, err)
				}
			}
			w.wantRead(batchlog.First(), w.all)
			w.reopen()
			w.wantRead(batchlog.First(), w.all)
			w.fill(4, 1000)
			w.sealed()
			w.verify()
			w.reopen()
			w.wantRead(batchlog.First(), w.all)
		}
	}
}

// ready waits until the next file is made.
func ready(t *testing.T, l *Log) {
	t.Helper()
	eventually(t, "the next file is ready", func() bool {
		l.next.mu.Lock()
		defer l.next.mu.Unlock()
		return l.next.mu.ready != nil
	})
}

// While a segment is about to be begun, and then is not, the one before stays the active one: it is not sealed under the appender.
func TestFailedRollWhileSealing(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, batchlog.MinSegmentBytes))
	w.write(put(10_000, "a"))
	ready(t, w.log)
	fs.on(func(op, name string, _ int64) error {
		if op != "write" || name != tableName(1) {
			return nil
		}
		poke(w.log.sealWanted) // the sealer comes by, for whatever reason
		time.Sleep(50 * time.Millisecond)
		return syscall.ENOSPC
	})
	if err := w.tryWrite(put(10_000, "b")); !errors.Is(err, batchlog.ErrNoSpace) {
		t.Fatal(err)
	}
	fs.on(nil)
	if states := w.states(); !slices.Equal(states, []state{active}) {
		t.Fatalf("states %v", states)
	}
	w.write(put(10, "small: it has room in the segment"))
	w.write(put(10_000, "b"))
	w.wantRead(batchlog.First(), w.all)
	w.sealed()
	w.verify()
}

// Open rejects a log that ends before what the store has for good.
func TestOpenTooShort(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), 1<<20))
	w.write(put(1, "a"), put(1, "b"))
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.log.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	_, err := Open(w.opts, 3)
	if d := damage(t, err, manifestName); d.ID != 3 {
		t.Errorf("%+v", d)
	}
	l, err := Open(w.opts, 2)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// Segments are striped over the configured directories; one that fails is passed over.
func TestDirs(t *testing.T) {
	fs := &watch{FS: crashfs.New()}
	o := options(fs, batchlog.MinSegmentBytes)
	o.Settings.Dirs = []string{"one", "/abs/two"}
	w := begin(t, o)
	w.fill(6, 2000)
	used := map[string]int{}
	for _, s := range w.segs() {
		used[s.dir]++
	}
	if used["one"] < 2 || used["/abs/two"] < 2 || len(used) != 2 {
		t.Errorf("segments in %v", used)
	}
	if _, err := fs.Stat(w.path(w.segs()[0])); err != nil && w.segs()[0].dir == "one" {
		t.Error(err)
	}
	w.wantRead(batchlog.First(), w.all)
	w.use("three", "four/deep")
	broken := ""
	fs.on(func(op, name string, _ int64) error {
		if op == "write" && strings.HasPrefix(name, preparedPrefix) {
			if broken == "" {
				broken = name
			}
			if name == broken {
				return errDisk
			}
		}
		return nil
	})
	w.fill(9, 2000)
	w.sealed()
	fs.on(nil)
	w.wantRead(batchlog.First(), w.all)
	w.reopen()
	w.verify()
	w.wantRead(batchlog.First(), w.all)
}

// What is in a directory of segments outlasts a power cut.
func TestDirsDurable(t *testing.T) {
	crash := crashfs.New()
	o := options(crash, batchlog.MinSegmentBytes)
	o.Settings.Dirs = []string{"made/for/it"}
	if err := crash.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := disk.SyncDir(crash, "/"); err != nil {
		t.Fatal(err)
	}
	w := begin(t, o)
	w.fill(3, 3000)
	w.use("and/this")
	w.fill(6, 3000)
	crashed := crash.CrashClone(vfs.CrashCloneCfg{})
	o.FS = crashed
	again := &world{t: t, opts: o, all: w.all}
	again.open()
	again.wantRead(batchlog.First(), w.all)
	again.verify()
}
