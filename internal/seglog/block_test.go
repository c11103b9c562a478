package seglog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A gate holds up operations on a file system until it is opened.
type gate struct {
	reached chan struct{}
	pass    chan struct{}
	once    sync.Once
}

func newGate() *gate { return &gate{reached: make(chan struct{}), pass: make(chan struct{})} }

func (g *gate) wait() {
	g.once.Do(func() { close(g.reached) })
	<-g.pass
}

// While files that were dropped are removed, which may take any time, commits go on, also those that begin segments, and so does all else that edits the table.
func TestSlowRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &watch{FS: vfs.NewMem()}
		w := begin(t, options(fs, batchlog.MinSegmentBytes))
		w.fill(20, 3000)
		synctest.Wait()
		g := newGate()
		fs.on(func(op, name string, _ int64) error {
			if op == "remove" && strings.HasSuffix(name, segmentSuffix) {
				g.wait()
			}
			return nil
		})
		if n, err := w.log.Trim(w.segs()[9].last); err != nil || n != 10 {
			t.Fatal(n, err)
		}
		<-g.reached
		w.fill(w.log.Status().Segments+20, 3000) // it would never end, if a segment could not be begun
		if n, err := w.log.Trim(w.segs()[4].last); err != nil || n != 5 {
			t.Fatal(n, err)
		}
		w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
		if n := w.log.table.Load().limbo.len(); n != 15 {
			t.Errorf("%d files in limbo", n)
		}
		fs.on(nil)
		close(g.pass)
		w.sweep()
		if n := w.log.table.Load().limbo.len(); n != 0 {
			t.Errorf("%d files in limbo", n)
		}
		w.reopen()
		w.verify()
	})
}

// After Close nothing is written, whatever hangs in a slow operation then: a move, a trim, a seal that goes on when the log has been opened again writes no table.
func TestSlowEditAndClose(t *testing.T) {
	warm := func(ctx context.Context, l *Log) error { _, err := l.Warm(ctx, l.Head()); return err }
	for _, c := range []struct {
		name, op, file string
		do             func(ctx context.Context, l *Log) error
	}{
		{"warm, directory", "sync", "warm/", warm},
		{"warm, copy", "create", copySuffix, warm},
		{"warm, name", "rename", segmentSuffix, warm},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				fs := &watch{FS: mem}
				o := options(fs, batchlog.MinSegmentBytes)
				o.Settings.Warm = []string{"/warm"}
				w := begin(t, o)
				w.makeDir("/warm")
				w.fill(5, 3000)
				synctest.Wait()
				time.Sleep(time.Second)
				old := w.log
				g := newGate()
				fs.on(func(op, name string, _ int64) error {
					if op == c.op && strings.Contains(name, strings.TrimSuffix(c.file, "/")) {
						g.wait()
					}
					return nil
				})
				done := make(chan error)
				go func() { done <- c.do(t.Context(), old) }()
				select {
				case <-g.reached:
				case err := <-done:
					t.Fatalf("it did not come by: %v", err)
				}
				// Nothing of the table is under way: what hangs goes on later, and finds it closed.
				if err := old.Close(); err != nil {
					t.Fatal(err)
				}
				again := &world{t: t, opts: o, all: w.all, time: w.time, step: w.step}
				again.opts.FS = mem
				again.open()
				again.fill(again.log.Status().Segments+3, 3000)
				if _, err := again.log.Trim(again.log.Oldest()); err != nil {
					t.Fatal(err)
				}
				fs.done()
				fs.on(nil)
				close(g.pass)
				if err := <-done; !errors.Is(err, batchlog.ErrClosed) {
					t.Errorf("it ended with %v", err)
				}
				for _, op := range fs.done() {
					if strings.Contains(op, tablePrefix) || strings.Contains(op, manifestName) {
						t.Errorf("after Close: %s", op)
					}
				}
				if _, err := old.Trim(old.Head()); !errors.Is(err, batchlog.ErrClosed) {
					t.Errorf("an edit after Close: %v", err)
				}
				head := again.log.Head()
				again.reopen()
				if again.log.Head() != head {
					t.Errorf("head %d, was %d", again.log.Head(), head)
				}
				again.wantRead(batchlog.Oldest(), again.all[again.log.Oldest()-1:])
				again.verify()
			})
		})
	}
}

// Close waits for an edit that is being written: it is there when the log is opened again, and nothing is written behind that.
func TestCloseWaitsForEdit(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, batchlog.MinSegmentBytes))
	w.fill(5, 3000)
	w.sealed()
	g := newGate()
	fs.on(func(op, name string, _ int64) error {
		if op == "sync" && strings.HasPrefix(name, tablePrefix) {
			g.wait()
		}
		return nil
	})
	trimmed, closed := make(chan error, 1), make(chan error, 1)
	go func() { _, err := w.log.Trim(w.log.Head()); trimmed <- err }()
	<-g.reached
	go func() { closed <- w.log.Close() }()
	eventually(t, "the log is being closed", func() bool {
		w.log.mu.Lock()
		defer w.log.mu.Unlock()
		return w.log.mu.closed
	})
	select {
	case err := <-closed:
		t.Errorf("closed while an edit is written: %v", err)
	case <-time.After(20 * time.Millisecond): // if it did not wait it would mostly be through
	}
	close(g.pass)
	if err := errors.Join(<-trimmed, <-closed); err != nil {
		t.Error(err)
	}
	fs.on(nil)
	fs.done()
	w.open()
	if first := w.segs()[0].first; w.log.Oldest() != first || len(w.segs()) != 1 {
		t.Errorf("%d segments", len(w.segs()))
	}
}

// One segment that is damaged, missing or can't be read refuses nothing: the log opens, commits go on, those around it are sealed, moved and dropped, and it is shown. When it is
// well again, it is sealed.
func TestBadSegment(t *testing.T) {
	for _, bad := range []string{"damaged", "missing", "unreadable"} {
		for _, wasSealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, sealed %t", bad, wasSealed), func(t *testing.T) {
				fs := &watch{FS: vfs.NewMem()}
				o := options(fs, batchlog.MinSegmentBytes)
				o.Settings.Dirs = []string{"one", "two"}
				o.Settings.Warm = []string{"/warm"}
				w := begin(t, o)
				w.makeDir("/warm")
				if !wasSealed {
					fs.on(failOn("read", segmentSuffix, syscall.EIO)) // nothing is sealed
				}
				w.fill(6, 3000)
				if wasSealed {
					w.sealed()
				}
				if err := w.log.Close(); err != nil {
					t.Fatal(err)
				}
				fs.on(nil)
				s := w.segs()[2]
				if wasSealed != (s.state == sealed) {
					t.Fatalf("it is in state %d", s.state)
				}
				content := contentOf(t, fs, w.path(s))
				switch bad {
				case "damaged":
					rewrite(t, fs, w.path(s), func(b []byte) []byte {
						for i := range 200 {
							b[segment.HeaderSize+3000+i] ^= 0x55
						}
						return b
					})
				case "missing":
					remove(t, fs, w.path(s))
				case "unreadable":
					fs.on(func(op, name string, _ int64) error {
						if op == "open" && name == s.name() {
							return syscall.EIO
						}
						return nil
					})
				}
				w.open()
				if !wasSealed {
					eventually(t, "it is noted", func() bool { return len(w.log.Status().Damaged) == 1 })
					eventually(t, "the others are sealed", func() bool {
						return slices.Equal(w.states(), []state{sealed, sealed, full, sealed, sealed, active})
					})
				}
				if moved, err := w.log.Warm(t.Context(), w.segs()[4].last); err != nil || moved != 4 {
					t.Errorf("%d segments went warm: %v", moved, err)
				}
				if st := w.log.Status(); len(st.Damaged) != 1 || !strings.Contains(st.Damaged[0], s.name()) || st.Warm != 4 {
					t.Errorf("%+v", st)
				}
				w.write(put(10, "on"))
				if _, err := read(t, w.log, batchlog.LogOptions{From: batchlog.At(s.first), Until: s.last}); err == nil {
					t.Error("nobody noticed")
				}
				got, err := read(t, w.log, batchlog.LogOptions{From: batchlog.At(s.last + 1), Until: w.log.Head()})
				if err != nil {
					t.Error(err)
				}
				wantRecords(t, got, w.all[s.last:])

				// Mended, it is taken back by who looks.
				fs.on(nil)
				if err := disk.WriteFile(fs, w.path(s), content); err != nil {
					t.Fatal(err)
				}
				w.verify()
				if st := w.log.Status(); len(st.Damaged) != 0 {
					t.Errorf("%+v", st)
				}
				w.sealed()
				if moved, err := w.log.Warm(t.Context(), s.last); err != nil || moved != 1 {
					t.Errorf("mended, %d segments went warm: %v", moved, err)
				}
				w.wantRead(batchlog.First(), w.all)

				// Bad again, age and position drop it as any other.
				s = w.seg(s.first)
				remove(t, fs, w.path(s))
				w.reopen()
				if n, err := w.log.Trim(w.segs()[4].last); err != nil || n != 5 {
					t.Errorf("trimmed %d, %v", n, err)
				}
				w.swept()
				w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
			})
		}
	}
}

// A sealed file is as long as what is in it, on a disk that can cut one; a quiet log whose segments end for their age does not grow them.
func TestQuietLog(t *testing.T) {
	o := options(vfs.Default, 64<<20)
	o.Dir = t.TempDir()
	w := &world{t: t, opts: o, time: 1_000_000, step: 1000}
	w.open()
	for i := range 10 {
		w.write(put(100, "quiet", i))
		w.log.RollIfOlder(time.UnixMicro(1<<50), time.Second)
	}
	w.write(put(100, "quiet"))
	w.sealed()
	segs := w.segs()
	if len(segs) != 11 {
		t.Fatalf("%d segments", len(segs))
	}
	total := int64(0)
	for _, s := range segs[:10] {
		info, err := o.FS.Stat(filepath.Join(o.Dir, s.name()))
		if err != nil || info.Size() != s.size || s.size > segment.HeaderSize+2<<10 {
			t.Errorf("sealed file of %d bytes, %d in the table: %v", info.Size(), s.size, err)
		}
		total += info.Size()
	}
	if size := segs[10].size; size != firstSegmentBytes {
		t.Errorf("the active segment has %d bytes", size)
	}
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.verify()
	w.wantRead(batchlog.First(), w.all)
	// Sizes shrink again when a log goes quiet.
	w.log.tail.seg = &seg{size: 64 << 20}
	w.log.tail.offset = 1 << 20
	if got := w.log.nextSize(false); got != 16<<20 {
		t.Errorf("after a segment of 64 MiB that took 1: %d", got)
	}
	w.log.tail.offset = 40 << 20
	if got := w.log.nextSize(false); got != 64<<20 {
		t.Errorf("after a segment of 64 MiB that took 40: %d", got)
	}
	t.Logf("ten segments take %d bytes", total)
}
