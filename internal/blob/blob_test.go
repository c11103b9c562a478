package blob

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The directory and those above it are durable once the store is open, also if a process that ended before its sync made it.
func TestOpenCrash(t *testing.T) {
	for _, made := range []bool{false, true} {
		mem := crashfs.New()
		if made {
			if err := mem.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			syncRoot(t, mem)
		}
		open(t, mem, dir)
		if _, err := mem.CrashClone(vfs.CrashCloneCfg{}).Stat(dir); err != nil {
			t.Errorf("made before: %v: %v", made, err)
		}
	}
	fs := &watch{FS: vfs.NewMem()}
	for _, op := range []string{"mkdir", "sync"} {
		fs.listen(failAt(0, op, errDisk))
		if _, err := Open(Options{FS: fs, Dir: dir}); !errors.Is(err, errDisk) {
			t.Errorf("%s fails: %v", op, err)
		}
	}
}

func syncRoot(t *testing.T, fs vfs.FS) {
	t.Helper()
	d, err := fs.OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// Remove is durable, also if the sync of a call before failed, and does not mind if there is nothing.
func TestRemove(t *testing.T) {
	mem := crashfs.New()
	fs := &watch{FS: mem}
	s := open(t, fs, dir)
	if err := s.Remove(Hash{}); err != nil {
		t.Fatal(err)
	}
	ref, other := put(t, s, random(1, 10)), put(t, s, random(2, 10))
	fs.listen(failAt(0, "sync", errDisk))
	if err := s.Remove(ref.Hash); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	fs.listen(failAt(0, "remove", errDisk))
	if err := s.Remove(other.Hash); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	fs.listen(nil)
	if err := s.Remove(ref.Hash); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{s, open(t, mem.CrashClone(vfs.CrashCloneCfg{}), dir)} {
		if has, err := s.Has(ref.Hash); has || err != nil {
			t.Errorf("removed and here: %v, %v", has, err)
		}
		if _, err := s.Open(ref); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("removed and opened: %v", err)
		}
		if has, err := s.Has(other.Hash); !has || err != nil {
			t.Errorf("another is here: %v, %v", has, err)
		}
	}
}

// All yields blobs in order, and nothing else.
func TestAll(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	s := open(t, fs, dir)
	var want []string
	for i := range 300 {
		want = append(want, put(t, s, random(1, i)).Hash.String())
	}
	slices.Sort(want)
	var got []string
	for _, b := range blobs(t, s) {
		got = append(got, b.Hash.String())
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d blobs, want %d", len(got), len(want))
	}

	one := want[0]
	strange := []string{
		"README", "tmp-1.part", "tmp-1-0a-1.part", one + suffix, "zz/" + one + suffix, one[:2] + "/" + one, one[:2] + "/" + one[1:] + suffix,
		one[:2] + "/" + one + "0" + suffix, "0" + one[:2] + "/" + one + suffix, one[:2] + "/" + strings.ToUpper(one) + suffix, one[:2] + "/" + suffix,
	}
	for _, name := range strange {
		if err := fs.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, fs, filepath.Join(dir, name), []byte("x"))
	}
	if n := len(blobs(t, s)); n != len(want) {
		t.Errorf("%d blobs, with other files %d", len(want), n)
	}
	s.All()(func(Info, error) bool { return false }) // panics if it goes on

	// What can't be looked at is told, and the rest comes all the same.
	for op, errs := range map[string]int{"list blobs": 1, "list " + one[:2]: 1, "stat " + one: 1} {
		fs.listen(failAt(0, op, errDisk))
		failed := 0
		for b, err := range s.All() {
			if err != nil {
				failed++
				if !errors.Is(err, errDisk) || b.Bytes != 0 {
					t.Errorf("%s fails: %v, %v", op, b, err)
				}
			}
		}
		if failed != errs {
			t.Errorf("%s fails: %d errors", op, failed)
		}
	}
	fs.listen(failAt(0, "stat "+one, os.ErrNotExist)) // removed while it is listed
	if n := len(blobs(t, s)); n != len(want)-1 {
		t.Errorf("%d blobs, want all but one of %d", n, len(want))
	}
}

// Sweep removes old temporary files, and neither young ones nor those that are being written, nor what isn't one.
func TestSweep(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	now := time.UnixMicro(1_800_000_000_000_000)
	s, err := Open(Options{FS: fs, Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	ref := put(t, s, random(1, 10))
	old := []string{tempName(now.Add(-time.Hour), [4]byte{1}, 1), tempName(now.Add(-time.Microsecond), [4]byte{1}, 2)}
	rest := []string{tempName(now, [4]byte{1}, 1), tempName(now.Add(time.Hour), [4]byte{1}, 3), "tmp-1-2", "tmp-x-1.part", "1.part"}
	for _, name := range slices.Concat(old, rest) {
		writeFile(t, fs, filepath.Join(dir, name), []byte("abc"))
	}

	fs.listen(failAt(0, old[0], errDisk))
	if n, bytes, err := s.Sweep(now); n != 1 || bytes != 3 || !errors.Is(err, errDisk) {
		t.Fatalf("swept %d, %d bytes, %v", n, bytes, err)
	}
	fs.listen(nil)
	if n, bytes, err := s.Sweep(now); n != 1 || bytes != 3 || err != nil {
		t.Fatalf("swept %d, %d bytes, %v", n, bytes, err)
	}
	for _, name := range rest {
		readFile(t, fs, filepath.Join(dir, name))
	}

	content := random(2, 10)
	sweeping := readerFunc(func([]byte) (int, error) {
		if n, _, err := s.Sweep(now.Add(time.Minute)); n != 1 || err != nil { // the one of nobody that is begun now
			t.Errorf("swept %d, %v", n, err)
		}
		return 0, io.EOF
	})
	written, err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(content), sweeping), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, s, written, content)
	wantBlob(t, s, ref, random(1, 10))
	fs.listen(failAt(0, "list", errDisk))
	if _, _, err := s.Sweep(now); !errors.Is(err, errDisk) {
		t.Error(err)
	}
}
