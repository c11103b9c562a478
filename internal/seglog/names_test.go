package seglog

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment that was given its name by a process that was killed then, or whose sync of that name failed, has it durably before anything is written to it: it is no longer looked for
// under the other name when the next one has begun.
func TestNameOfSegmentIsDurable(t *testing.T) {
	for _, killed := range []bool{true, false} {
		mem := crashfs.New()
		fs := &watch{FS: mem}
		o := options(fs, batchlog.MinSegmentBytes)
		if err := disk.MakeDir(fs, dir); err != nil {
			t.Fatal(err)
		}
		w := begin(t, o)
		w.use("/a", "/b")
		w.fill(3, 9000)
		named := 0
		fs.on(func(op, name string, _ int64) error {
			switch {
			case op == "rename" && strings.HasSuffix(name, segmentSuffix):
				named = 1
				return nil
			case named == 0:
				return nil
			}
			if killed {
				return errDisk
			}
			if op == "sync" && (name == "a" || name == "b") && named == 1 {
				named++
				return errDisk
			}
			return nil
		})
		for named == 0 {
			_ = w.tryWrite(put(9000, "more"))
		}
		if killed {
			_ = w.log.Close()
			fs.on(nil)
			w.open()
			w.time = max(w.time, w.log.LastTime())
		}
		fs.on(nil)
		w.fill(w.log.Status().Segments+1, 9000)
		w.opts.FS = mem.CrashClone(vfs.CrashCloneCfg{RNG: rand.New(rand.NewPCG(1, 2))})
		w.open()
		w.wantRead(batchlog.First(), w.all)
	}
}

// A segment that can't be given its name as the disk is full is one more thing that waits for space: the error says so, and when it has its name the log no longer does.
func TestNameOfSegmentOnFullDisk(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, batchlog.MinSegmentBytes))
	w.fill(2, 9000)
	full := 0
	fs.on(func(op, name string, _ int64) error {
		if op == "rename" && strings.HasSuffix(name, segmentSuffix) {
			full++
			return syscall.ENOSPC
		}
		return nil
	})
	for full < 2 { // as it is named first, and once more
		if err := w.tryWrite(put(9000, "more")); (err != nil) != (full > 0) || err != nil && !errors.Is(err, batchlog.ErrNoSpace) {
			t.Fatalf("full %d times: %v", full, err)
		}
	}
	if !w.log.NoSpace() {
		t.Error("the log does not say that it waits for space")
	}
	fs.on(nil)
	w.write(put(9000, "more"))
	if w.log.NoSpace() {
		t.Error("the log says that it waits for space, and it was written to")
	}
	w.reopen()
	w.wantRead(batchlog.First(), w.all)
}

// What a crash has left of a file with inverses goes with the segment that it was to be beside, as that file does.
func TestPartOfInversesGoes(t *testing.T) {
	o := options(vfs.NewMem(), batchlog.MinSegmentBytes)
	o.Settings.Warm = []string{"/warm"}
	w := begin(t, o)
	w.fill(3, 9000)
	w.sealed()
	first := w.segs()[0]
	if n, err := w.log.Warm(t.Context(), first.last); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	_, file := w.log.Beside(1)
	for _, name := range []string{file, file + copySuffix} {
		if err := disk.WriteFile(o.FS, name, []byte("inverses")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.log.Trim(first.last); err != nil {
		t.Fatal(err)
	}
	w.swept()
	if names, err := o.FS.List("/warm"); len(names) > 0 || err != nil {
		t.Errorf("%q are left, %v", names, err)
	}
}
