package local

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A faulty is a file system whose operations fail when asked to.
type faulty struct {
	vfs.FS
	mu    sync.Mutex
	fails func(op errorfs.Op) error
}

func newFaulty() *faulty {
	f := &faulty{}
	f.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.fails == nil {
			return nil
		}
		return f.fails(op)
	}))
	return f
}

func (f *faulty) set(fails func(op errorfs.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = fails
}

// openFaulty opens a database on such a file system, with a clock of its own.
func openFaulty(t *testing.T, fs vfs.FS, c batchlog.LogConfig) *clockDB {
	d := &clockDB{t: t, mem: fs}
	d.o = Options{
		FS: fs, Log: c, CacheBytes: 1 << 20,
		Now:    func() time.Time { return machineStart.Add(time.Duration(d.up.Load())) },
		Uptime: func() (string, time.Duration) { return "boot", time.Duration(d.up.Load()) },
	}
	d.DB = openAt(t, &d.o)
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

// On a full disk what is past its time and in the store for good goes at once, although the rest can't be flushed; a trim does not wait for ever for that.
func TestTrimOnFullDisk(t *testing.T) {
	fs := newFaulty()
	d := openFaulty(t, fs, batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour})
	flushed := d.fill(40)
	d.up.Add(int64(time.Second))
	for i := range 40 {
		_, err := d.Root().Put(t.Context(), batchlog.K(i), make([]byte, 1000))
		check(t, err)
	}
	before := batchlog.ID(0)
	fs.set(func(op errorfs.Op) error {
		if strings.Contains(op.Path, "/store/") && needsSpace(op) {
			if before == 0 {
				before = d.engine.log.Oldest()
			}
			return syscall.ENOSPC
		}
		return nil
	})
	d.up.Add(int64(2 * time.Hour))
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := d.Trim(ctx); !errors.Is(err, batchlog.ErrNoSpace) || ctx.Err() != nil {
		t.Errorf("trim: %v", err)
	}
	if st := d.status(); st.Oldest < flushed-20 || st.Oldest > flushed+1 {
		t.Errorf("the log begins with commit %d, %d were flushed", st.Oldest, flushed)
	}
	fs.set(nil)
	if before < flushed-20 {
		t.Errorf("the log began with commit %d when the store was to be flushed: what could go had not gone", before)
	}
	d.pass(0, flushed+10)
}

// After a long stop what is past all its time is dropped where it is, not moved before.
func TestTrimDropsFirst(t *testing.T) {
	fs := newFaulty()
	d := openFaulty(t, fs, batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour, WarmTTL: 2 * time.Hour, Warm: []string{"/warm"}})
	last := d.fill(40)
	moved := 0
	fs.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasPrefix(op.Path, "/warm") {
			moved++
		}
		return nil
	})
	d.pass(100*time.Hour, last-20)
	if moved > 0 {
		t.Errorf("%d files were moved to be dropped", moved)
	}
}

// What can't be moved stops neither what can, nor what is to be dropped.
func TestTrimPassesOver(t *testing.T) {
	fs := newFaulty()
	d := openFaulty(t, fs, batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour, WarmTTL: 10 * time.Hour, Warm: []string{"/warm"}})
	last := d.fill(60)
	bad, _ := d.engine.log.Beside(20)
	badName := ""
	names, err := fs.List("/db/log/main")
	check(t, err)
	for _, name := range names {
		if strings.HasPrefix(name, "0000000000000000") && strings.Contains(name, "-") && strings.HasSuffix(name, ".seg") && idOf(t, name) == bad.First {
			badName = name
		}
	}
	fs.set(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, "main/"+badName) && (op.Kind == errorfs.OpOpen || op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpFileReadAt) {
			return syscall.EIO
		}
		return nil
	})
	d.up.Add(int64(2 * time.Hour))
	err = d.Trim(t.Context())
	st := d.status().Logs[0]
	for began := time.Now(); st.Warm != st.Segments-2 && time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) { // until those behind are sealed
		err = d.Trim(t.Context())
		st = d.status().Logs[0]
	}
	if told := append(st.Damaged, st.Trouble); !strings.Contains(strings.Join(told, "\n"), badName) {
		t.Errorf("trim: %v; what can't be read is told as %q", err, told)
	}
	if st.Warm != st.Segments-2 {
		t.Errorf("%d of %d segments are warm, all but one should, and the active one: %v; %+v", st.Warm, st.Segments, err, st)
	}
	// The mount is gone.
	fs.set(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Path, "/warm") || strings.HasSuffix(op.Path, badName) {
			return syscall.EIO
		}
		return nil
	})
	more := d.fill(40)
	d.up.Add(int64(2 * time.Hour))
	if err := d.Trim(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("trim without the warm directory: %v", err)
	}
	d.up.Add(int64(7 * time.Hour))
	_ = d.Trim(t.Context()) // what is young enough can't be moved still
	if st := d.status(); st.Oldest < last-20 || st.Oldest > more {
		t.Errorf("the log begins with commit %d: what is past its time is dropped whatever can't be moved", st.Oldest)
	}
}

// idOf is the first commit of the segment with that name.
func idOf(t *testing.T, name string) (id batchlog.ID) {
	t.Helper()
	for _, c := range name[:strings.Index(name, "-")] {
		id = id*10 + batchlog.ID(c-'0')
	}
	return id
}
