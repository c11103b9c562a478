package seglog

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The last group may have been read from memory that no disk has: it is written and synced once more before the log goes on.
func TestConfirm(t *testing.T) {
	mem := crashfs.New()
	if err := mem.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := disk.SyncDir(mem, "/"); err != nil {
		t.Fatal(err)
	}
	fs := &watch{FS: mem}
	w := begin(t, options(fs, 64<<10))
	w.write(put(10, "a"))
	fs.on(failOn("sync", segmentSuffix, errDisk))
	if err := w.tryWrite(put(3000, "in memory only")); !errors.Is(err, batchlog.ErrUncertain) {
		t.Fatal(err)
	}
	fs.on(nil)
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	if w.log.Head() != 2 {
		t.Fatalf("head %d", w.log.Head())
	}
	o := w.opts
	o.FS = mem.CrashClone(vfs.CrashCloneCfg{})
	l, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Head() != 2 {
		t.Errorf("followers saw commit 2, and after a power cut the log ends with %d", l.Head())
	}
	// A failure of that is the end of it.
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"write", "sync"} {
		fs.on(failOn(op, segmentSuffix, errDisk))
		if _, err := Open(w.opts, 0); !errors.Is(err, errDisk) {
			t.Errorf("failed %s of the last group: %v", op, err)
		}
		fs.on(nil)
	}
}

// A segment of the table that isn't there, or isn't the one, is damage; nothing is made in its place.
func TestOpenDamaged(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(3, 3000)
	w.write(put(10, "a"))
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	segs := w.segs()
	last := segs[2]
	for _, c := range []struct {
		name   string
		change func(fs vfs.FS)
		is     error
	}{
		{"missing", func(fs vfs.FS) { remove(t, fs, w.path(last)) }, batchlog.ErrCorrupt},
		{"empty", func(fs vfs.FS) { rewrite(t, fs, w.path(last), func([]byte) []byte { return nil }) }, batchlog.ErrCorrupt},
		{"another one", func(fs vfs.FS) { copyFile(t, fs, w.path(segs[1]), w.path(last)) }, batchlog.ErrCorrupt},
		{"of another database", func(fs vfs.FS) {
			rewrite(t, fs, w.path(last), func(b []byte) []byte {
				h := w.headerOf(last)
				h.Database[3]++
				return append(segment.AppendHeader(nil, h), b[segment.HeaderSize:]...)
			})
		}, batchlog.ErrCorrupt},
		{"of a newer version", func(fs vfs.FS) {
			rewrite(t, fs, w.path(last), func(b []byte) []byte {
				h := w.headerOf(last)
				h.Version++
				return append(segment.AppendHeader(nil, h), b[segment.HeaderSize:]...)
			})
		}, batchlog.ErrUnsupported},
		{"with a damaged group that was durable", func(fs vfs.FS) {
			rewrite(t, fs, w.path(last), func(b []byte) []byte {
				b[segment.HeaderSize+segment.GroupHead+5]++
				return b
			})
		}, batchlog.ErrCorrupt},
	} {
		o := w.opts
		o.FS = copyFS(t, w.opts.FS)
		c.change(o.FS)
		before, err := o.FS.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := Open(o, 0)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), last.name()) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		after, err := o.FS.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(before)
		slices.Sort(after)
		if !slices.Equal(before, after) {
			t.Errorf("%s: files were %q, are %q", c.name, before, after)
		}
	}
}

// Without its manifest a log that has commits is damaged, not new.
func TestOpenWithoutManifest(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, w.opts.FS, manifestPath)
	w.open() // there was nothing in it
	w.write(put(10, "a"))
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if l, err := Open(func() Options {
			o := w.opts
			o.FS = copyFS(t, w.opts.FS)
			remove(t, o.FS, manifestPath)
			return o
		}(), 0); err == nil {
			t.Errorf("a log with a commit is opened as new, its head is %d", l.Head())
			l.Close()
		} else {
			_ = damage(t, err, manifestName)
		}
	}
}

func remove(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	if err := fs.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, fs vfs.FS, from, to string) {
	t.Helper()
	f, err := fs.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close(), disk.WriteFile(fs, to, b)); err != nil {
		t.Fatal(err)
	}
}

// killed is what a disk holds when the process is killed now, which has told it all.
func (w *world) killed() vfs.FS {
	w.t.Helper()
	return copyFS(w.t, w.opts.FS)
}

// marked waits until the table's file says how far the log is durable.
func (w *world) marked() {
	w.t.Helper()
	eventually(w.t, "the end of the log is noted", func() bool {
		w.log.keep.Lock()
		defer w.log.keep.Unlock()
		return w.log.keep.marked == w.log.durableEnd(w.log.table.Load())
	})
}

// Zeros over what was durable at the end of a log whose process was killed are noticed, also when no later group, no Close and no store says that it was: the table does.
func TestZeroedEnd(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), 1<<20))
	for range 30 {
		w.write(put(100, "a"))
	}
	w.marked()
	fs := w.killed()
	a := w.log.table.Load().active()
	end := endOf(a)
	o := w.opts
	o.FS = fs
	l, err := Open(o, 0) // untouched, it opens
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, from := range []int64{end - 150, end - 4096, segment.HeaderSize} {
		o.FS = w.killed()
		rewrite(t, o.FS, w.path(a), func(b []byte) []byte {
			clear(b[max(from, segment.HeaderSize):])
			return b
		})
		for range 2 {
			_, err := Open(o, 0)
			_ = damage(t, err, a.name())
		}
	}
	// A mark is written now and then, and not where nothing was written.
	w.log.keep.Lock()
	at := w.log.keep.file.at
	w.log.keep.Unlock()
	for range 1000 {
		w.write(put(10, "a"))
	}
	w.marked()
	w.log.keep.Lock()
	defer w.log.keep.Unlock()
	if w.log.keep.file.at != at {
		t.Errorf("marks have taken %d bytes", w.log.keep.file.at-at)
	}
}

// Segments with commits that the table does not name refuse the opening, wherever they are: the table is from an older copy, and would have ids given again.
func TestUnnamedSegments(t *testing.T) {
	o := options(vfs.NewMem(), batchlog.MinSegmentBytes)
	o.Settings.Dirs = []string{"", "/two"}
	w := begin(t, o)
	w.fill(3, 3000)
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	older := map[string][]byte{}
	for _, name := range w.files() {
		if _, ok := tableNumber(name); ok || name == manifestName {
			older[name] = contentOf(t, o.FS, filepath.Join(dir, name))
		}
	}
	w.open()
	w.fill(6, 3000)
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	segs := w.segs()
	refused := func(what, file string, harm func(fs vfs.FS)) {
		t.Helper()
		o := w.opts
		o.FS = w.killed()
		for _, dir := range []string{"/two"} {
			if _, err := vfs.Clone(w.opts.FS, o.FS, dir, dir); err != nil {
				t.Fatal(err)
			}
		}
		harm(o.FS)
		before := w.listing(o.FS)
		for range 2 {
			_, err := Open(o, 0)
			if d := damage(t, err, file); d.Err == nil || !strings.Contains(strings.ToLower(err.Error()), "restore") {
				t.Errorf("%s: %v", what, err)
			}
			if after := w.listing(o.FS); !slices.Equal(before, after) {
				t.Errorf("%s: files were %q, are %q", what, before, after)
			}
		}
	}
	refused("an older table", segmentSuffix, func(fs vfs.FS) {
		for name, content := range older {
			rewrite(t, fs, filepath.Join(dir, name), func([]byte) []byte { return content })
		}
	})
	refused("no manifest", manifestName, func(fs vfs.FS) { remove(t, fs, manifestPath) })
	refused("no manifest, and all that is left is in another directory", manifestName, func(fs vfs.FS) {
		for _, name := range w.files() {
			remove(t, fs, filepath.Join(dir, name))
		}
	})
	for _, at := range []string{dir, "/two"} {
		refused("a segment in "+at, "00000000000000001000-", func(fs vfs.FS) {
			h := w.headerOf(segs[1])
			h.First = 1000
			copyFile(t, fs, w.path(segs[1]), filepath.Join(at, segmentName(1000, tagOf(h.Segment))))
			rewrite(t, fs, filepath.Join(at, segmentName(1000, tagOf(h.Segment))), func(b []byte) []byte {
				// Its groups name the header as the one before them, so that only damaged ones are left: they may have been commits, all the same.
				return append(segment.AppendHeader(nil, h), b[segment.HeaderSize:]...)
			})
		})
	}
	o.Begun, o.FS = true, vfs.NewMem()
	if err := o.FS.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		begun   bool
		durable batchlog.ID
	}{{true, 0}, {false, 7}} {
		o.Begun = c.begun
		_, err := Open(o, c.durable)
		_ = damage(t, err, manifestName)
		if names := w.listing(o.FS); len(names) != 0 {
			t.Errorf("%+v: %q is there", c, names)
		}
	}
}

// listing is the files in all directories of the log on fs.
func (w *world) listing(fs vfs.FS) (all []string) {
	w.t.Helper()
	for _, at := range []string{dir, "/two"} {
		names, err := fs.List(at)
		if err != nil && !disk.NotExist(err) {
			w.t.Fatal(err)
		}
		for _, name := range names {
			all = append(all, filepath.Join(at, name))
		}
	}
	slices.Sort(all)
	return all
}

// What a crash left is removed, what may be somebody's is not: the look of a name says nothing.
func TestLeftovers(t *testing.T) {
	o := options(vfs.NewMem(), batchlog.MinSegmentBytes)
	o.Settings.Dirs = []string{"", "/two"}
	o.Settings.Warm = []string{"/warm"}
	w := begin(t, o)
	w.makeDir("/warm")
	w.fill(6, 3000)
	w.sealed()
	if n, err := w.log.Warm(t.Context(), w.segs()[1].last); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := w.log.Trim(w.segs()[0].last); err != nil {
		t.Fatal(err)
	}
	w.swept()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	segs := w.segs()
	header := func(change func(h *segment.Header)) []byte {
		h := segment.Header{Version: segment.Version, Database: o.Database, Segment: segment.UUID{1, 2, 3, 4}, Epoch: 1, First: 1 << 40}
		change(&h)
		return append(segment.AppendHeader(nil, h), make([]byte, 20_000)...)
	}
	mine := header(func(*segment.Header) {})
	others := header(func(h *segment.Header) { h.Database[0]++ })
	table, _ := tableNumber(tableName(w.log.keep.file.head.number))
	warm := "/warm"
	gone := map[string][]byte{
		dir + "/prepared-00000001":     make([]byte, 10_000),
		dir + "/prepared-00000002":     nil,
		"/two/prepared-01020304":       mine,
		dir + "/" + tableName(table+1): tableHead{database: o.Database, number: table + 1}.append(nil),
		dir + "/" + tableName(table+7): make([]byte, 100),
		manifestPath + disk.TempSuffix: []byte("anything"),
	}
	kept := map[string][]byte{
		dir + "/notes.txt":                               []byte("x"),
		dir + "/prepared-":                               []byte("x"),
		dir + "/prepared-00000003":                       []byte("somebody's"),
		dir + "/prepared-00000004":                       others,
		"/two/prepared-00000005":                         contentOf(t, o.FS, w.path(segs[2])), // has commits
		dir + "/" + tableName(table+2):                   tableHead{database: segment.UUID{99}, number: table + 2}.append(nil),
		dir + "/" + tableName(table+3):                   []byte("somebody's"),
		"/two/" + segmentName(1<<40, segTag{1, 2, 3, 4}): others,
		"/two/" + segmentName(1<<41, segTag{1, 2, 3, 4}): []byte("x"),
		dir + "/" + segmentName(1, segTag{9}):            []byte("x"), // dropped, but not this one
		warm + "/" + segs[3].name():                      []byte("x"), // a copy that no move has made
		warm + "/" + segs[3].name() + copySuffix:         []byte("x"),
		warm + "/" + chainName([16]byte{1}):              []byte("x"),
		warm + "/prepared-00000001":                      make([]byte, 100),
		"/two/" + segs[2].name() + ".bak":                []byte("x"),
	}
	for _, files := range []map[string][]byte{gone, kept} {
		for name, content := range files {
			if err := disk.WriteFile(o.FS, name, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.open()
	w.sweep()
	for name := range gone {
		if _, err := o.FS.Stat(name); !disk.NotExist(err) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	for name, content := range kept {
		if got, err := disk.ReadFile(o.FS, name); err != nil || string(got) != string(content) {
			t.Errorf("%s is gone, or changed: %v", name, err)
		}
	}
	w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
	w.verify()
}

// What a move has left that a crash has ended goes when the log is opened, also if nothing is moved there any more.
func TestUnfinishedMove(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	o := options(fs, batchlog.MinSegmentBytes)
	o.Settings.Warm = []string{"/warm"}
	w := begin(t, o)
	w.makeDir("/warm")
	w.fill(4, 3000)
	w.sealed()
	var killed vfs.FS
	fs.on(func(op, name string, _ int64) error {
		if op == "rename" && strings.HasSuffix(name, segmentSuffix) && killed == nil {
			killed = copyFS(t, fs.FS)
			if _, err := vfs.Clone(fs.FS, killed, "/warm", "/warm"); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if n, err := w.log.Warm(t.Context(), w.segs()[0].last); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	o.FS, o.Settings.Warm = killed, nil
	again := &world{t: t, opts: o, all: w.all}
	again.open()
	again.swept()
	if names, err := killed.List("/warm"); err != nil || len(names) != 0 {
		t.Errorf("%q is left, %v", names, err)
	}
	again.verify()
	again.wantRead(batchlog.First(), w.all)
}

// The last edit may have been read from memory that no disk has: it is written and synced once more before anything is done that follows from it.
func TestConfirmEdit(t *testing.T) {
	mem := crashfs.New()
	if err := errors.Join(mem.MkdirAll(dir, 0o755), disk.SyncDir(mem, "/")); err != nil {
		t.Fatal(err)
	}
	fs := &watch{FS: mem}
	w := begin(t, options(fs, batchlog.MinSegmentBytes))
	w.fill(4, 3000)
	w.sealed()
	fs.on(func(op, name string, _ int64) error {
		if op == "sync" && name == tableName(1) || op == "open" && name == tableName(2) {
			return errDisk
		}
		return nil
	})
	if _, err := w.log.Trim(w.segs()[1].last); !errors.Is(err, batchlog.ErrReadOnly) {
		t.Fatal(err)
	}
	fs.on(nil)
	w.reopen()
	oldest := w.log.Oldest()
	if oldest == 1 {
		t.Fatal("the edit is not in memory either")
	}
	w.swept()
	o := w.opts
	o.FS = mem.CrashClone(vfs.CrashCloneCfg{})
	again := &world{t: t, opts: o, all: w.all}
	again.open()
	if again.log.Oldest() != oldest {
		t.Errorf("the log begins with %d, and what is before %d was removed", again.log.Oldest(), oldest)
	}
	again.verify()
	if err := w.log.Close(); err != nil {
		t.Error(err)
	}
	fs.on(failOn("sync", tablePrefix, errDisk))
	if _, err := Open(w.opts, 0); !errors.Is(err, errDisk) {
		t.Errorf("opened although the last edit could not be confirmed: %v", err)
	}
}

// A chain whose file is still to be removed is none that was abandoned, also when the log was opened again.
func TestChainInLimbo(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	s := newStory(t, fs)
	s.open()
	if err := errors.Join(s.chain(), s.chain()); err != nil {
		t.Fatal(err)
	}
	s.fill(4, 3000)
	s.sealed()
	fs.on(failOn("remove", chainSuffix, errDisk))
	for range 2 {
		if _, err := s.log.Trim(s.segs()[0].last); err != nil {
			t.Fatal(err)
		}
		s.sweep()
		if left, err := s.log.Chains(); err != nil || len(left) != 0 || !s.log.HasChain([16]byte{7: 1}) {
			t.Errorf("abandoned: %+v, %v", left, err)
		}
		s.reopen()
	}
	fs.on(nil)
	s.swept()
	if s.log.HasChain([16]byte{7: 1}) {
		t.Error("its file is gone, and the log has it")
	}
}
