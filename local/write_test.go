package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The way of a batch with one op to its acknowledgement, and that of its bytes into the store behind it, make little garbage.
func TestWriteAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	ctx := t.Context()
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": nil} {
		dir := "db"
		if fs == nil {
			dir = filepath.Join(t.TempDir(), "db")
		}
		db, err := local.Open(dir, &local.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		s := db.Space("bench")
		key, value := batchlog.K("a key"), make([]byte, 100)
		var b batchlog.Batch
		write := func() {
			b.Reset()
			b.Put(s, key, value)
			if _, err := db.Write(ctx, &b); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			write()
		}
		const most = 6
		if got := leastAllocs(2000, write); got > most {
			t.Errorf("in %s: %v allocations a write, at most %d", name, got, most)
		}
		if got := leastAllocs(200, func() {
			if _, err := s.Put(ctx, key, value); err != nil {
				t.Fatal(err)
			}
		}); got > most+2 {
			t.Errorf("in %s: %v allocations a put, at most %d", name, got, most+2)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

const identityPath = "db/database"

// content is the bytes of a file, and write makes them others.
func content(t *testing.T, fs vfs.FS, name string) []byte {
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

func overwrite(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(bytes.Clone(b))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// closed is a database that has a commit, closed.
func closed(t *testing.T, fs vfs.FS) {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Root().Put(t.Context(), batchlog.K("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// The file that says which database this is: what is wrong with it is said, and nothing else is touched.
func TestIdentityDamaged(t *testing.T) {
	fs := vfs.NewMem()
	closed(t, fs)
	good := content(t, fs, identityPath)
	line, body, _ := bytes.Cut(good, []byte("\n"))
	resum := func(version int, body []byte) []byte {
		return fmt.Appendf(nil, "batchlog database %d %08x\n%s", version, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)), body)
	}
	if want := resum(1, body); !bytes.Equal(want, good) {
		t.Fatalf("the file begins %q", line)
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":         {nil, batchlog.ErrCorrupt},
		"one line":      {line, batchlog.ErrCorrupt},
		"another file":  {[]byte("batchlog manifest 1 00000000\n{}"), batchlog.ErrCorrupt},
		"flipped":       {append(bytes.Clone(good[:len(good)-3]), good[len(good)-3]^1, good[len(good)-2], good[len(good)-1]), batchlog.ErrCorrupt},
		"no JSON":       {resum(1, []byte("{")), batchlog.ErrCorrupt},
		"no uuid":       {resum(1, []byte("{}")), batchlog.ErrCorrupt},
		"a short uuid":  {resum(1, []byte(`{"uuid":"00"}`)), batchlog.ErrCorrupt},
		"version 0":     {resum(0, body), batchlog.ErrCorrupt},
		"newer":         {resum(2, body), batchlog.ErrUnsupported},
		"newer, opaque": {resum(3, []byte("\x00")), batchlog.ErrUnsupported},
	} {
		overwrite(t, fs, identityPath, c.b)
		_, err := local.Open("db", &local.Options{FS: fs})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		var newer *batchlog.VersionError
		if errors.As(err, &newer) != errors.Is(c.want, batchlog.ErrUnsupported) || newer != nil && (newer.Known != 1 || newer.Version < 2 || newer.What != filepath.FromSlash(identityPath)) {
			t.Errorf("%s: %#v", name, err)
		}
		if got := content(t, fs, identityPath); !bytes.Equal(got, c.b) {
			t.Errorf("%s: the file was changed to %q", name, got)
		}
	}
	if err := fs.Remove(identityPath); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Open("db", &local.Options{FS: fs}); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Errorf("missing beside a log: %v", err)
	}
	overwrite(t, fs, identityPath, good)
	db, err := local.Open("db", &local.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if v, err := db.Root().Get(t.Context(), batchlog.K("k")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// Every change of one byte is found, but for those that leave the numbers of the first line what they are.
func TestIdentityFlips(t *testing.T) {
	var fs *vfs.MemFS
	var good []byte
	for !bytes.HasPrefix(good, []byte("batchlog database 1 0")) { // a sum whose first digit may be taken for a space
		fs = vfs.NewMem()
		closed(t, fs)
		good = content(t, fs, identityPath)
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		overwrite(t, fs, identityPath, b)
		db, err := local.Open("db", &local.Options{FS: fs})
		if err == nil {
			t.Errorf("byte %d: %q is taken for %q", i, b, good)
			db.Close()
		} else if !errors.Is(err, batchlog.ErrCorrupt) && !errors.Is(err, batchlog.ErrUnsupported) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

// What a database can't be opened with is said before anything is made.
func TestOptionsRefused(t *testing.T) {
	for name, o := range map[string]local.Options{
		"cache below zero":    {CacheBytes: -1},
		"memtable below zero": {MemTableBytes: -1},
		"memtable too small":  {MemTableBytes: 64<<10 - 1},
		"another log":         {Log: batchlog.LogConfig{Name: "audit"}},
		"time to live":        {Log: batchlog.LogConfig{HotTTL: -1}},
		"segments too small":  {Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes - 1}},
		"segments too large":  {Log: batchlog.LogConfig{SegmentBytes: batchlog.MaxSegmentBytes + 1}},
		"tiers":               {Log: batchlog.LogConfig{WarmTTL: 1}},
		"a cold tier":         {Log: batchlog.LogConfig{Cold: "s3://bucket"}},
		"blobs too small":     {Log: batchlog.LogConfig{BlobBytes: batchlog.MinBlobBytes - 1}},
		"chains too small":    {ChainBytes: 16<<10 - 1},
		"quota below zero":    {ChainQuota: -1},
		"inverses below zero": {InverseBytes: -1},
		"nothing to open":     {MustExist: true},
	} {
		o.FS = vfs.NewMem()
		if db, err := local.Open("db", &o); err == nil {
			t.Errorf("%s: opened", name)
			db.Close()
		}
		if names, err := o.FS.List("/"); err != nil || len(names) > 0 {
			t.Errorf("%s: made %q, %v", name, names, err)
		}
	}
}

// leastAllocs is the least of some runs of testing.AllocsPerRun, which counts what goroutines in the background allocate as well.
func leastAllocs(runs int, f func()) float64 {
	least := testing.AllocsPerRun(runs, f)
	for range 4 {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}
