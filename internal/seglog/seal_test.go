package seglog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A sealed segment has an index that says what is in it, and the hash of the one before.
func TestSeal(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(5, 900, 100)
	w.sealed()
	var prev [32]byte
	for _, s := range w.segs()[:4] {
		x := w.index(s)
		if x.First != s.first || x.Last != s.last || x.Hash != s.hash || x.Prev != prev || x.FirstTime != s.oldest || x.LastTime != s.newest || x.End != endOf(s) {
			t.Errorf("segment %+v has the index %+v", s, x)
		}
		if s.live != nil {
			t.Error("sealed segment keeps its file and marks")
		}
		prev = x.Hash
	}
}

// index reads the index of a sealed segment.
func (w *world) index(s *seg) *segment.Index {
	w.t.Helper()
	f, err := w.opts.FS.Open(w.path(s))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	h, err := readHeader(f, s.name())
	if err != nil {
		w.t.Fatal(err)
	}
	x, err := segment.ReadIndex(f, s.size, s.name(), h.Salt())
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

// A segment whose index can't be written or synced is served as it is. It is sealed with the next one or when the log is opened
// again; nothing is appended less for it.
func TestSealFails(t *testing.T) {
	for _, c := range []struct {
		op    string
		fault error
	}{{"write", syscall.ENOSPC}, {"write", errDisk}, {"write", torn{errDisk}}, {"sync", errDisk}, {"read", errDisk}} {
		fs := &watch{FS: vfs.NewMem()}
		w := begin(t, options(fs, batchlog.MinSegmentBytes))
		first := w.segs()[0]
		tried := make(chan struct{}, 100)
		fs.on(func(op, name string, offset int64) error {
			// The index, and whatever the sealer reads for it: the appender writes groups, and is done with this file.
			if op != c.op || name != first.name() || w.log.Head() < 5 || op == "write" && offset < endOf(first) {
				return nil
			}
			if w.seg(1).state == active {
				return nil
			}
			tried <- struct{}{}
			return c.fault
		})
		w.fill(2, 900)
		<-tried
		w.wantRead(batchlog.First(), w.all)
		w.fill(3, 900)
		if c.op != "sync" {
			<-tried // with the next one
		}
		if err := w.log.Failed(); err != nil {
			t.Errorf("%s: appending has failed: %v", c.op, err)
		}
		fs.on(nil)
		w.wantRead(batchlog.First(), w.all)
		w.reopen()
		w.sealed()
		w.fill(5, 900)
		w.sealed()
		if st := w.log.Status(); len(st.Damaged) > 0 {
			t.Errorf("%s: damaged %q", c.op, st.Damaged)
		}
		w.verify()
		w.wantRead(batchlog.First(), w.all)
		if n, err := w.log.Trim(w.log.Head()); err != nil || n != 4 {
			t.Errorf("%s: trimmed %d, %v", c.op, n, err)
		}
	}
}

// A segment that is damaged before it is sealed stays as it is, is reported, and the others are sealed.
func TestSealDamaged(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, batchlog.MinSegmentBytes))
	first := w.segs()[0]
	fs.on(func(op, name string, _ int64) error {
		if op == "read" && name == first.name() {
			return syscall.EIO // the sealer waits until it is there
		}
		return nil
	})
	w.fill(3, 900)
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	fs.on(nil)
	rewrite(t, fs, w.path(first), func(b []byte) []byte {
		for i := range b[(segment.HeaderSize+endOf(first))/2:][:10] { // not all of them between two groups
			b[(segment.HeaderSize+endOf(first))/2+int64(i)] ^= 0xff
		}
		return b
	})
	for range 2 {
		w.open()
		eventually(t, "the damage is found", func() bool { return len(w.log.Status().Damaged) > 0 })
		eventually(t, "the next one is sealed", func() bool { return w.states()[1] == sealed })
		if st := w.log.Status(); len(st.Damaged) != 1 || !strings.Contains(st.Damaged[0], first.name()) || w.states()[0] != full {
			t.Errorf("%+v, states %v", st, w.states())
		}
		got, err := read(t, w.log, batchlog.LogOptions{Until: w.log.Head()})
		if d := damage(t, err, first.name()); d.ID != batchlog.ID(len(got)+1) && len(got) < 3 {
			t.Errorf("%v after %d commits", err, len(got))
		}
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	if n, err := w.log.Trim(w.log.Head()); n != 2 || err != nil { // age and position decide, not whether it could be sealed
		t.Errorf("trimmed %d, %v", n, err)
	}
	w.swept()
	if st := w.log.Status(); len(st.Damaged) != 0 {
		t.Errorf("%+v", st)
	}
	if _, err := fs.Stat(w.path(first)); !disk.NotExist(err) {
		t.Errorf("its file: %v", err)
	}
}

// Segments past their time are counted from the oldest on, and only sealed ones; one that nothing fills ends when it is asked to.
func TestExpired(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	at := func(micros int64) time.Time { return time.UnixMicro(micros) }
	if n, size, last := w.log.Expired(at(1<<50), time.Second); n != 0 || size != 0 || last != 0 {
		t.Errorf("an empty log: %d, %d, %d", n, size, last)
	}
	w.log.RollIfOlder(at(1<<50), time.Second) // has no commit
	w.step = 1_000_000
	w.fill(5, 3000)
	w.sealed()
	segs := w.segs()
	for i, s := range segs {
		for _, c := range []struct {
			now  int64
			want int
		}{{s.newest + 60e6, i}, {s.newest + 60e6 + 1, i + 1}} {
			want := min(c.want, len(segs)-1)
			if i == len(segs)-1 {
				break
			}
			size := int64(0)
			for _, s := range segs[:want] {
				size += s.size
			}
			n, bytes, last := w.log.Expired(at(c.now), time.Minute)
			if n != want || bytes != size || want > 0 && last != segs[want-1].last {
				t.Errorf("at %d: %d segments of %d bytes up to %d, want %d of %d", c.now, n, bytes, last, want, size)
			}
		}
	}
	if n, _, _ := w.log.Expired(at(1<<50), time.Minute); n != len(segs)-1 {
		t.Errorf("%d are past their time, the active one included", n)
	}
	if n, _, _ := w.log.Expired(at(1<<50), 0); n != 0 {
		t.Errorf("%d are past no time", n)
	}
	w.log.RollIfOlder(at(segs[4].firstTime()+60e6), time.Minute)
	w.log.RollIfOlder(at(1<<50), 0)
	w.write(put(1, "a"))
	if n := w.log.Status().Segments; n != len(segs) {
		t.Errorf("%d segments: the active one ended too early", n)
	}
	w.log.RollIfOlder(at(segs[4].firstTime()+60e6+1), time.Minute)
	w.write(put(1, "a"))
	if n := w.log.Status().Segments; n != len(segs)+1 {
		t.Errorf("%d segments: the active one did not end", n)
	}
	w.sealed()
	w.verify()
	w.wantRead(batchlog.First(), w.all)
}

// A segment that is to end for its age, and can't because the disk is full, takes what it has room for.
func TestRollIfOlderWithoutSpace(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, 64<<10))
	w.write(put(100, "a"))
	fs.on(failOn("write", preparedPrefix, syscall.ENOSPC))
	w.log.RollIfOlder(time.UnixMicro(1<<50), time.Second)
	w.write(put(100, "b"))
	if n := w.log.Status().Segments; n != 1 {
		t.Errorf("%d segments", n)
	}
	fs.on(nil)
	eventually(t, "the segment ends", func() bool {
		w.write(put(10, "c"))
		return w.log.Status().Segments == 2
	})
	w.sealed()
	w.verify()
	w.wantRead(batchlog.First(), w.all)
}

// Dropped segments are gone from the table before their files go; a table that can't be written leaves the log as it was.
func TestTrimFails(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, batchlog.MinSegmentBytes))
	w.fill(5, 900)
	w.sealed()
	files := w.files()
	fs.on(failOn("write", tablePrefix, syscall.ENOSPC))
	for range 3 {
		if n, err := w.log.Trim(w.segs()[0].last); !errors.Is(err, batchlog.ErrNoSpace) {
			t.Errorf("trimmed %d without a table: %v", n, err)
		}
	}
	fs.on(nil)
	w.wantRead(batchlog.First(), w.all)
	fs.done()
	if n, err := w.log.Trim(w.log.Head()); err != nil || n != 4 {
		t.Fatal(n, err)
	}
	w.swept()
	ops := fs.done()
	removed := slices.IndexFunc(ops, func(op string) bool { return strings.HasPrefix(op, "remove ") && strings.HasSuffix(op, segmentSuffix) })
	if synced := slices.Index(ops, "sync "+tableName(1)); removed < 0 || synced < 0 || removed < synced {
		t.Errorf("operations %q", ops)
	}
	if left := len(files) - len(w.files()); left != 4 {
		t.Errorf("files were %q, are %q", files, w.files())
	}
	w.reopen()
	w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
	// What can't be removed is removed later.
	w.fill(4, 900)
	w.sealed()
	fs.on(failOn("remove", segmentSuffix, errDisk))
	if n, err := w.log.Trim(w.log.Head()); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	w.sweep()
	if n := w.log.table.Load().limbo.len(); n != 3 {
		t.Errorf("%d files in limbo", n)
	}
	w.reopen()
	w.sweep()
	if n := w.log.table.Load().limbo.len(); n != 3 {
		t.Errorf("%d files in limbo", n)
	}
	fs.on(nil)
	w.reopen()
	w.swept()
	for _, name := range w.files() {
		if first, _, ok := parseSegmentName(name); ok && first < w.log.Oldest() {
			t.Errorf("%s is left", name)
		}
	}
}

// Verify finds each fault, says where it is, and goes on with the other segments.
func TestVerify(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(5, 900, 200)
	w.write(put(100, "a"))
	w.sealed()
	var steps []int64
	total := int64(0)
	if err := w.log.Verify(t.Context(), func(done, of int64) { steps, total = append(steps, done), of }, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	if len(steps) != 5 || !slices.IsSorted(steps) || steps[4] != total || total == 0 {
		t.Errorf("progress %d of %d", steps, total)
	}
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(errDisk)
	if err := w.log.Verify(canceled, nil, func(error) {}); !errors.Is(err, errDisk) {
		t.Errorf("canceled: %v", err)
	}
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	w.cut()
	segs := w.segs()
	s := segs[2]
	// resealed is the file of s with other groups, or another index, whose sums hold.
	resealed := func(b []byte, change func(x *segment.Index)) []byte {
		x, err := segment.Build(bytes.NewReader(b), w.headerOf(s), s.name(), endOf(s), segs[1].hash)
		if err != nil {
			t.Fatal(err)
		}
		change(x)
		offset, tail := segment.Seal(x, w.headerOf(s).Salt())
		index := len(tail) - segment.FooterSize // it may be smaller than it was
		gap := max(0, int(s.size-offset)-len(tail))
		return slices.Concat(b[:offset], tail[:index], make([]byte, gap), tail[index:])
	}
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte // nil: the file is missing
		says   string
	}{
		{"missing", nil, "missing"},
		{"flip in the page of the header", func(b []byte) []byte { b[2000] ^= 1; return b }, "index does not match"},
		{"flip in the header", func(b []byte) []byte { b[40] ^= 1; return b }, "header"},
		{"flip in the body", func(b []byte) []byte { b[segment.HeaderSize+500] ^= 1; return b }, "sum"},
		{"flip in the index", func(b []byte) []byte { b[endOf(s)+20] ^= 1; return b }, "sum"},
		{"flip in the footer", func(b []byte) []byte { b[len(b)-10] ^= 1; return b }, "footer"},
		{"truncated", func(b []byte) []byte { return b[:len(b)/2] }, ""},
		{"an index that says something else", func(b []byte) []byte { return resealed(b, func(x *segment.Index) { x.Ops++ }) }, "index does not match"},
		{"an index with another time", func(b []byte) []byte { return resealed(b, func(x *segment.Index) { x.Blocks[1].Time++ }) }, "index does not match"},
		{"an index without a space", func(b []byte) []byte { return resealed(b, func(x *segment.Index) { x.Blocks[1].Spaces = []uint32{} }) }, "index does not match"},
		{"an index with another hash", func(b []byte) []byte { return resealed(b, func(x *segment.Index) { x.Hash[3]++ }) }, "index does not match"},
		{"the hash of another segment before it", func(b []byte) []byte { return resealed(b, func(x *segment.Index) { x.Prev[3]++ }) }, "does not follow"},
	} {
		damaged := &world{t: t, opts: w.opts, all: w.all}
		damaged.opts.FS = copyFS(t, w.opts.FS)
		if c.change == nil {
			remove(t, damaged.opts.FS, w.path(s))
		} else {
			rewrite(t, damaged.opts.FS, w.path(s), c.change)
		}
		damaged.open()
		var found []error
		if err := damaged.log.Verify(t.Context(), nil, func(err error) { found = append(found, err) }); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(found) != 1 || !strings.Contains(found[0].Error(), c.says) {
			t.Errorf("%s: found %v", c.name, found)
			continue
		}
		_ = damage(t, found[0], s.name())
		damaged.log.Close()
	}
	// Another good segment in its place: one of an older copy of the database, say.
	o := options(vfs.NewMem(), batchlog.MinSegmentBytes)
	o.Epoch++
	other := begin(t, o)
	other.fill(5, 900, 200)
	other.sealed()
	swapped := &world{t: t, opts: w.opts, all: w.all}
	swapped.opts.FS = copyFS(t, w.opts.FS)
	rewrite(t, swapped.opts.FS, w.path(s), func([]byte) []byte { return contentOf(t, other.opts.FS, other.path(other.segs()[2])) })
	swapped.open()
	var found []error
	err := swapped.log.Verify(t.Context(), nil, func(err error) { found = append(found, err) })
	if err != nil || len(found) == 0 || !strings.Contains(found[0].Error(), "not the one that the table names") {
		t.Errorf("a swapped segment: %v, %v", found, err)
	}
}

func (w *world) headerOf(s *seg) segment.Header {
	h, err := readHeader(bytes.NewReader(contentOf(w.t, w.opts.FS, w.path(s))), s.name())
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func contentOf(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// While it verifies the log may grow, seal, and drop segments: that is no fault.
func TestVerifyUnderway(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(4, 900)
	w.write(put(100, "a"))
	w.sealed()
	n := 0
	if err := w.log.Verify(t.Context(), func(int64, int64) {
		if n++; n != 1 {
			return
		}
		w.fill(7, 900) // what was active when it began is sealed when it comes there
		w.sealed()
		if _, err := w.log.Trim(w.segs()[1].last); err != nil {
			t.Error(err)
		}
	}, func(err error) { t.Error(err) }); err != nil {
		t.Error(err)
	}
}
