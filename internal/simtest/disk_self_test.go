package simtest

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// writeSynced makes a file with that content; sync says whether it, and its name, are made durable.
func writeSynced(t *testing.T, fs vfs.FS, name, content string, sync bool) error {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write([]byte(content)); err != nil || !sync {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := fs.OpenDir("/")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func readAll(t *testing.T, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		return "error: " + err.Error()
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A disk that loses power keeps what was synced and, at 0 percent, nothing else; what is done after has no effect on what survives.
func TestDiskCrash(t *testing.T) {
	d := newDisk(nil, 1)
	if err := errors.Join(writeSynced(t, d, "kept", "one", true), writeSynced(t, d, "lost", "two", false)); err != nil {
		t.Fatal(err)
	}
	after := d.crash(0)
	if err := writeSynced(t, d, "late", "three", true); !errors.Is(err, errDead) {
		t.Errorf("a write without power: %v", err)
	}
	if got := readAll(t, after, "kept"); got != "one" {
		t.Errorf("what was synced is %q", got)
	}
	if _, err := after.Stat("lost"); err == nil {
		t.Error("what was not synced is there")
	}
	if d.crash(100) != after {
		t.Error("the second crash is another one")
	}
}

// A crash at the n-th change is before that change, for every n; a torn one has a part of it.
func TestDiskCrashAt(t *testing.T) {
	for n := 1; ; n++ {
		d := newDisk(nil, uint64(n))
		d.crashIn(n, 100, false)
		acked := 0
		for i := range 3 {
			if err := writeSynced(t, d, fmt.Sprint("f", i), "content", true); err != nil {
				break
			}
			acked++
		}
		if !d.crashed() {
			if n != 13 { // create, write, sync, sync of the directory, three times
				t.Errorf("%d changes were counted, want 12", n-1)
			}
			return
		}
		for i := range acked {
			if got := readAll(t, d.survivor(), fmt.Sprint("f", i)); got != "content" {
				t.Errorf("crash at %d: file %d of %d is %q", n, i, acked, got)
			}
		}
	}
}

func TestDiskTorn(t *testing.T) {
	lengths := map[int]bool{}
	for seed := range uint64(40) {
		d := newDisk(nil, seed)
		d.crashIn(2, 100, true)
		if err := writeSynced(t, d, "f", "0123456789", true); !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		lengths[len(readAll(t, d.survivor(), "f"))] = true
	}
	if len(lengths) < 5 || lengths[10] {
		t.Errorf("torn writes have lengths %v", lengths)
	}
}

// No sync that returns nil is lost, however many go on when the power goes.
func TestDiskCrashIsAtomic(t *testing.T) {
	for seed := range uint64(30) {
		d := newDisk(nil, seed)
		d.crashIn(5+int(seed)*3, 0, true)
		var wg sync.WaitGroup
		acked := make([]int, 4)
		for w := range acked {
			wg.Go(func() {
				for n := 0; writeSynced(t, d, fmt.Sprintf("%d.%d", w, n), "content", true) == nil; n++ {
					acked[w]++
				}
			})
		}
		wg.Wait()
		for w, n := range acked {
			for i := range n {
				if got := readAll(t, d.survivor(), fmt.Sprintf("%d.%d", w, i)); got != "content" {
					t.Fatalf("seed %d: file %d.%d is %q after its sync returned", seed, w, i, got)
				}
			}
		}
	}
}

// A full disk takes no writes and no new files, but syncs and removals; with space it goes on.
func TestDiskFull(t *testing.T) {
	d := newDisk(nil, 1)
	f, err := d.Create("f", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	d.setFull(true)
	if _, err := f.Write([]byte("x")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if _, err := d.Create("g", vfs.WriteCategoryUnspecified); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create: %v", err)
	}
	if err := errors.Join(f.Sync(), d.Remove("f")); err != nil {
		t.Errorf("sync and remove: %v", err)
	}
	d.setFull(false)
	if _, err := f.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}

// A fault hits the operations it is meant for, once they come.
func TestDiskFault(t *testing.T) {
	d := newDisk(nil, 1)
	d.failing(func(op diskOp) error {
		if op.kind == "sync" && op.path == "f" {
			return errFault
		}
		return nil
	})
	if err := writeSynced(t, d, "g", "x", true); err != nil {
		t.Error(err)
	}
	if err := writeSynced(t, d, "f", "x", true); !errors.Is(err, syscall.EIO) || d.faults() != 1 {
		t.Errorf("%v, %d faults", err, d.faults())
	}
}
