package seglog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const dir = "log"

// A world is a log with what was written to it.
type world struct {
	t    *testing.T
	opts Options
	log  *Log
	all  []wire.Record // durable commits, in order; commit 1 first
	time int64
	// step is how much later the next group is; 0: at the same time
	step int64
}

// options are those of a log on fs with segments of that size.
func options(fs vfs.FS, segmentBytes int64) Options {
	var mu sync.Mutex
	made := uint64(0)
	return Options{
		FS: fs, Dir: dir, Database: segment.UUID{7}, Epoch: 1, Logger: slog.New(slog.DiscardHandler),
		NewUUID: func() (u segment.UUID) {
			mu.Lock()
			defer mu.Unlock()
			made++
			binary.BigEndian.PutUint32(u[:], uint32(made))
			binary.BigEndian.PutUint64(u[8:], made)
			return u
		},
		Settings: Settings{SegmentBytes: segmentBytes},
	}
}

// begin opens a new log.
func begin(t *testing.T, o Options) *world {
	t.Helper()
	w := &world{t: t, opts: o, time: 1_000_000, step: 1000}
	w.makeDir("")
	for _, dir := range slices.Concat(o.Settings.Dirs, o.Settings.Warm) {
		w.makeDir(dir)
	}
	w.open()
	return w
}

// use has the next segments be in these directories.
func (w *world) use(dirs ...string) {
	w.t.Helper()
	for _, dir := range dirs {
		w.makeDir(dir)
	}
	w.opts.Settings.Dirs = dirs
	w.log.Use(w.opts.Settings)
}

func (w *world) makeDir(name string) {
	w.t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	if err := disk.MakeDir(w.opts.FS, name); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open() {
	w.t.Helper()
	l, err := Open(w.opts, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = l
	w.t.Cleanup(func() { _ = l.Close() })
}

// reopen closes the log and opens it again.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.log.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// put is a commit that puts a value of that size into a space.
func put(size int, path ...any) wire.Record {
	key, err := bytewise.Encode(path)
	if err != nil {
		panic(err)
	}
	return wire.Record{Count: 1, Ops: wire.AppendOp(nil, batchlog.OpPut, key, make([]byte, size))}
}

// tryWrite writes records as one group, or as some if they don't fit. What is durable is in w.all.
func (w *world) tryWrite(records ...wire.Record) error {
	w.time += w.step
	var group []wire.Record
	sync := func() error {
		if err := w.log.Sync(); err != nil {
			return err
		}
		w.all = append(w.all, group...)
		group = nil
		return nil
	}
	for _, r := range records {
		r.Time = w.time
		for {
			r.ID = batchlog.ID(len(w.all) + len(group) + 1)
			stored, added, err := w.log.Add(r)
			if err != nil {
				return errors.Join(err, sync())
			}
			if added {
				if !same(&stored, &r) {
					w.t.Fatalf("%+v is stored as %+v", r, stored)
				}
				group = append(group, r)
				break
			}
			if err := sync(); err != nil {
				return err
			}
		}
	}
	return sync()
}

func (w *world) write(records ...wire.Record) {
	w.t.Helper()
	if err := w.tryWrite(records...); err != nil {
		w.t.Fatal(err)
	}
}

// fill writes groups of some commits of those sizes until the log has that many segments.
func (w *world) fill(segments int, sizes ...int) {
	w.t.Helper()
	for w.log.Status().Segments < segments {
		var group []wire.Record
		for _, n := range sizes {
			group = append(group, put(n, "fill"))
		}
		w.write(group...)
	}
}

// sealed waits until all segments but the active one are sealed.
func (w *world) sealed() {
	w.t.Helper()
	eventually(w.t, "all segments are sealed", func() bool {
		for _, s := range w.states() {
			if s == full {
				return false
			}
		}
		return true
	})
}

func (w *world) states() []state {
	var all []state
	for _, s := range w.segs() {
		all = append(all, s.state)
	}
	return all
}

// segs is the table of segments.
func (w *world) segs() []*seg { return slices.Collect(w.log.table.Load().segs.all()) }

// seg is the segment that begins with that commit, as it is now.
func (w *world) seg(first batchlog.ID) *seg {
	s, _ := w.log.table.Load().segs.get(uint64(first))
	return s
}

// endOf is where the groups of s end.
func endOf(s *seg) int64 {
	if s.live != nil {
		return s.live.end.Load()
	}
	return s.end
}

// sweep has the log remove what it has let go of, as far as it can.
func (w *world) sweep() {
	w.t.Helper()
	if err := w.log.Swept(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// swept waits until what the log has let go of is removed.
func (w *world) swept() {
	w.t.Helper()
	eventually(w.t, "files that the log needs no more are removed", func() bool {
		poke(w.log.sweepWanted)
		return w.log.table.Load().limbo.len() == 0
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

func same(a, b *wire.Record) bool {
	return a.ID == b.ID && a.Time == b.Time && a.Count == b.Count && bytes.Equal(a.Meta, b.Meta) && bytes.Equal(a.Ops, b.Ops)
}

// read returns the commits that o asks for, up to its end or an error.
func read(t *testing.T, l *Log, o batchlog.LogOptions) (all []wire.Record, err error) {
	t.Helper()
	r, err := l.Reader(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	last := batchlog.ID(0)
	for {
		records, scanned, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if scanned <= last || len(records) > 0 && (records[len(records)-1].ID > scanned || records[0].ID <= last) {
			t.Fatalf("a stretch up to %d behind one up to %d", scanned, last)
		}
		last = scanned
		all = append(all, records...)
	}
}

// wantRead fails t unless the log holds what was written, from any of its commits on.
func (w *world) wantRead(from batchlog.Position, want []wire.Record) {
	w.t.Helper()
	if w.log.Head() == 0 {
		return
	}
	got, err := read(w.t, w.log, batchlog.LogOptions{From: from, Until: w.log.Head()})
	if err != nil {
		w.t.Fatal(err)
	}
	wantRecords(w.t, got, want)
}

func wantRecords(t *testing.T, got, want []wire.Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d commits, want %d", len(got), len(want))
	}
	for i := range got {
		if !same(&got[i], &want[i]) {
			t.Fatalf("commit %d of %d bytes, want commit %d of %d bytes", got[i].ID, got[i].Size(), want[i].ID, want[i].Size())
		}
	}
}

// verify fails t unless the log is found to be well.
func (w *world) verify() {
	w.t.Helper()
	if err := w.log.Verify(w.t.Context(), nil, func(err error) { w.t.Error(err) }); err != nil {
		w.t.Error(err)
	}
}

// files are the names in the log's directory, sorted.
func (w *world) files() []string {
	w.t.Helper()
	names, err := w.opts.FS.List(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func (w *world) path(s *seg) string { return w.log.path(s.dir, s.name()) }

// cut has the files of sealed segments end where what is in them does, as they do on a disk that can cut them.
func (w *world) cut() {
	w.t.Helper()
	for _, s := range w.segs() {
		if s.state == sealed {
			rewrite(w.t, w.opts.FS, w.path(s), func(b []byte) []byte { return b[:s.size] })
		}
	}
}

// rewrite changes the bytes of a file.
func rewrite(t *testing.T, fs vfs.FS, name string, change func(b []byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteFile(fs, name, bytes.Clone(change(b))); err != nil { // a write may change what it is given
		t.Fatal(err)
	}
}

// copyFS copies the files below dir to a file system of its own.
func copyFS(t *testing.T, from vfs.FS) vfs.FS {
	t.Helper()
	to := vfs.NewMem()
	if ok, err := vfs.Clone(from, to, dir, dir); err != nil || !ok {
		t.Fatal(ok, err)
	}
	return to
}

// damage is err as the damage that it must be, in a file whose name contains that.
func damage(t *testing.T, err error, file string) *batchlog.CorruptError {
	t.Helper()
	var d *batchlog.CorruptError
	if !errors.As(err, &d) || !strings.Contains(d.File, file) {
		t.Fatalf("error %v, want damage of %s", err, file)
	}
	return d
}

// A watch is a file system that a test listens to, and may have fail.
type watch struct {
	vfs.FS
	mu    sync.Mutex
	files map[*watchFile]struct{}                   // open ones: their names follow renames
	fail  func(op, name string, offset int64) error // before the operation; nil: never
	read  int64                                     // bytes read from segments
	ops   []string                                  // "sync x", "write x", "rename x": all that changes something
}

func (w *watch) on(fail func(op, name string, offset int64) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = fail
}

func (w *watch) op(op, name string, offset int64) error {
	w.mu.Lock()
	fail := w.fail
	if op != "read" {
		w.ops = append(w.ops, op+" "+filepath.Base(name))
	}
	w.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(op, filepath.Base(name), offset)
}

// bytesRead is what was read since it was asked last.
func (w *watch) bytesRead() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.read
	w.read = 0
	return n
}

// done is what was done since it was asked last.
func (w *watch) done() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ops := w.ops
	w.ops = nil
	return ops
}

func (w *watch) wrap(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	file := &watchFile{File: f, w: w, name: name}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files == nil {
		w.files = map[*watchFile]struct{}{}
	}
	w.files[file] = struct{}{}
	return file, nil
}

func (w *watch) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := w.op("create", name, 0); err != nil {
		return nil, err
	}
	f, err := w.FS.Create(name, c)
	return w.wrap(f, err, name)
}

func (w *watch) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := w.op("open", name, 0); err != nil {
		return nil, err
	}
	f, err := w.FS.Open(name, opts...)
	return w.wrap(f, err, name)
}

func (w *watch) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := w.op("open", name, 0); err != nil {
		return nil, err
	}
	f, err := w.FS.OpenReadWrite(name, c, opts...)
	return w.wrap(f, err, name)
}

func (w *watch) OpenDir(name string) (vfs.File, error) {
	f, err := w.FS.OpenDir(name)
	return w.wrap(f, err, name+"/")
}

func (w *watch) Rename(oldname, newname string) error {
	if err := w.op("rename", newname, 0); err != nil {
		return err
	}
	if err := w.FS.Rename(oldname, newname); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for f := range w.files {
		if f.name == oldname {
			f.name = newname
		}
	}
	return nil
}

func (w *watch) Remove(name string) error {
	if err := w.op("remove", name, 0); err != nil {
		return err
	}
	return w.FS.Remove(name)
}

type watchFile struct {
	vfs.File
	w    *watch
	name string // guarded by w.mu
}

func (f *watchFile) op(op string, offset int64) error {
	f.w.mu.Lock()
	name := f.name
	f.w.mu.Unlock()
	return f.w.op(op, name, offset)
}

func (f *watchFile) Close() error {
	f.w.mu.Lock()
	delete(f.w.files, f)
	f.w.mu.Unlock()
	return f.File.Close()
}

func (f *watchFile) ReadAt(b []byte, offset int64) (int, error) {
	if err := f.op("read", offset); err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(b, offset)
	f.w.mu.Lock()
	f.w.read += int64(n)
	f.w.mu.Unlock()
	return n, err
}

func (f *watchFile) Write(b []byte) (int, error) {
	if err := f.op("write", 0); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

// A torn is the error of a write that has written its first half.
type torn struct{ error }

func (e torn) Unwrap() error { return e.error }

func (f *watchFile) WriteAt(b []byte, offset int64) (int, error) {
	err := f.op("write", offset)
	var half torn
	switch {
	case errors.As(err, &half):
		n, writeErr := f.File.WriteAt(b[:len(b)/2], offset)
		return n, errors.Join(half.error, writeErr)
	case err != nil:
		return 0, err
	}
	return f.File.WriteAt(b, offset)
}

func (f *watchFile) Sync() error {
	if err := f.op("sync", 0); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *watchFile) SyncData() error {
	if err := f.op("sync", 0); err != nil {
		return err
	}
	return f.File.SyncData()
}

var errDisk = errors.New("input/output error")

// failOn fails one kind of operation on files whose names contain part.
func failOn(op, part string, err error) func(string, string, int64) error {
	return func(o, name string, _ int64) error {
		if o == op && strings.Contains(name, part) {
			return fmt.Errorf("%s %s: %w", op, name, err)
		}
		return nil
	}
}
