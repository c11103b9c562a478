package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// damagedStore is a file system with a closed store of large and small values, what is in it, and its largest table.
func damagedStore(t *testing.T, large int) (fs *vfs.MemFS, want map[string][]byte, table string, size int64) {
	t.Helper()
	fs = vfs.NewMem()
	want = map[string][]byte{}
	rng := rand.NewChaCha8([32]byte{1})
	s := open(t, fs, 0)
	id := batchlog.ID(1)
	for i := range 40 {
		value := make([]byte, 300)
		if i%10 == 5 {
			value = make([]byte, large)
		}
		_, _ = rng.Read(value)
		k := fmt.Sprintf("key %02d", i)
		want[k] = value
		apply(t, s, put(id, k, string(value)))
		id++
	}
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		info, err := fs.Stat(fs.PathJoin("store", name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".sst") && info.Size() > size {
			table, size = fs.PathJoin("store", name), info.Size()
		}
	}
	return fs, want, table, size
}

// writeAt writes b over a file's bytes.
func writeAt(t *testing.T, fs vfs.FS, name string, b []byte, offset int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.WriteAt(b, offset)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A damaged block is known by one sum, whatever its size, at each read of it, and told by the place of it.
func TestDamagedLargeValue(t *testing.T) {
	const large = 256 << 10
	fs, want, table, size := damagedStore(t, large)
	writeAt(t, fs, table, make([]byte, 512), size/2)
	s := open(t, fs, 0)
	failed := 0
	for round := range 3 {
		for k, value := range want {
			got, err := s.Get(key(k))
			if err == nil {
				if !bytes.Equal(got, value) {
					t.Fatalf("%s is not what was put", k)
				}
				continue
			}
			failed++
			var damage *batchlog.CorruptError
			if !errors.Is(err, batchlog.ErrCorrupt) || !errors.As(err, &damage) || damage.File != table || damage.Offset > size/2 || damage.Offset+large+1024 < size/2 {
				t.Fatalf("round %d: %s: %v", round, k, err)
			}
		}
	}
	if failed == 0 || failed > 3*15 { // a block begins with some 4 KiB of small ones
		t.Errorf("%d reads failed, of %d", failed, 3*len(want))
	}
	if summed, limit := s.summed.summed.Load(), int64(3*len(want))*(large+8192); summed == 0 || summed > limit {
		t.Errorf("%d bytes were summed, with each of %d reads at most one block: %d", summed, 3*len(want), limit)
	}
}

// Wherever a sector of a table is zeroed, each key is what it was, or damage.
func TestDamagedSectors(t *testing.T) {
	fs, want, table, size := damagedStore(t, 3<<10)
	kept := make([]byte, size)
	f, err := fs.Open(table)
	if err == nil {
		_, err = f.ReadAt(kept, 0)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < size; at += 512 {
		end := min(at+512, size)
		writeAt(t, fs, table, make([]byte, end-at), at)
		s, err := Open(testOptions(fs, 0))
		if err != nil {
			if !errors.Is(err, batchlog.ErrCorrupt) {
				t.Errorf("sector at %d: %v", at, err)
			}
		} else {
			for k, value := range want {
				if got, err := s.Get(key(k)); err != nil && !errors.Is(err, batchlog.ErrCorrupt) || err == nil && !bytes.Equal(got, value) {
					t.Errorf("sector at %d: %s: %v", at, k, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Errorf("sector at %d: %v", at, err)
			}
		}
		writeAt(t, fs, table, kept[at:end], at)
	}
}
