package simtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// chainFlipOptions are those of the databases here: what is large begins early.
func chainFlipOptions(t *testing.T, fs vfs.FS) *local.Options {
	o := flipOptions(t, fs)
	o.ChainBytes = 16 << 10
	return o
}

func chainFlipOpen(t *testing.T, fs vfs.FS) *local.DB {
	t.Helper()
	db, err := local.Open("db", chainFlipOptions(t, fs))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// filesUnder is the files in a directory and within, in order.
func filesUnder(t *testing.T, fs vfs.FS, dir string) []string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	var files []string
	for _, name := range names {
		name = path.Join(dir, name)
		info, err := fs.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			files = append(files, filesUnder(t, fs, name)...)
		} else {
			files = append(files, name)
		}
	}
	return files
}

// flipByte changes one byte of a file, and is undone by a second call.
func flipByte(t *testing.T, fs vfs.FS, name string, at int, mask byte) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	b := []byte{0}
	_, err = f.ReadAt(b, int64(at))
	if err == nil {
		b[0] ^= mask
		_, err = f.WriteAt(b, int64(at))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// newChainSample is a database with a commit, a chain, and a commit.
func newChainSample(t *testing.T) (fs *crashfs.FS, commits []seen) {
	t.Helper()
	fs = crashfs.New()
	db := chainFlipOpen(t, fs)
	put := func(key string) {
		t.Helper()
		if _, err := db.Space("a").Put(t.Context(), batchlog.Key(key), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		c.Put(db.Space(worldPaths[1+i%3]...), batchlog.K(i), fmt.Appendf(nil, "%d %0100d", i, i))
	}
	c.DeleteRange(db.Space("a"), batchlog.Between(batchlog.K(20), batchlog.K(30)))
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	put("after")
	if commits, err = tailAll(t.Context(), db.DB, batchlog.TailOptions{Until: 3}); err != nil {
		t.Fatal(err)
	}
	flipClose(t, db)
	return fs, commits
}

// chainFile is the only file of a chain in the log.
func chainFile(t *testing.T, fs vfs.FS) (name string, content []byte) {
	t.Helper()
	for _, file := range filesUnder(t, fs, flipLog) {
		if strings.HasSuffix(file, ".ops") {
			if name != "" {
				t.Fatalf("two chains: %s and %s", name, file)
			}
			name = file
		}
	}
	return name, flipRead(t, fs, name)
}

// wantDamage says how err is not the damage of that chain.
func wantDamage(err error, name string) error {
	var damage *batchlog.CorruptError
	switch {
	case !errors.As(err, &damage):
		return fmt.Errorf("%w, want a *CorruptError", err)
	case path.Base(damage.File) != path.Base(name) || damage.ID != 2:
		return fmt.Errorf("damage in %s, commit %d: want %s, commit 2: %w", damage.File, damage.ID, name, err)
	}
	return nil
}

// One flipped bit in the file of a chain is noticed by who follows the log and by Verify, with file and commit, or makes no difference. It never leads to other
// ops, and the commits around it are read.
func TestFlipChain(t *testing.T) {
	t.Parallel()
	fs, want := newChainSample(t)
	name, content := chainFile(t, fs)
	db := chainFlipOpen(t, fs)
	defer flipClose(t, db)
	step := 97
	if *flagAll {
		step = 1
	}
	noticed := 0
	for at, n := 0, 0; at < len(content); at, n = at+step, n+1 {
		mask := []byte{1, 0x80}[n%2]
		flipByte(t, fs, name, at, mask)
		list, err := tailAll(t.Context(), db.DB, batchlog.TailOptions{Until: 3})
		if err == nil {
			if len(list) != 3 || !slices.Equal(list[1].ops, want[1].ops) {
				t.Errorf("byte %d: other ops, and nobody noticed", at)
			}
		} else if err := wantDamage(err, name); err != nil {
			t.Errorf("byte %d: tail: %v", at, err)
		} else {
			noticed++
		}
		behind, tailErr := tailAll(t.Context(), db.DB, batchlog.TailOptions{From: batchlog.At(3), Until: 3})
		if tailErr != nil || len(behind) != 1 || !slices.Equal(behind[0].ops, want[2].ops) {
			t.Errorf("byte %d: the commit behind is %v, %v", at, behind, tailErr)
		}
		if n%5 == 0 {
			r, verifyErr := db.Verify(t.Context(), local.VerifyOptions{LogOnly: true})
			if verifyErr != nil || (len(r.Problems) > 0) != (err != nil) {
				t.Errorf("byte %d: verify: %v, %v; tail: %v", at, verifyErr, r.Problems, err)
			}
			if len(r.Problems) > 0 && (path.Base(r.Problems[0].File) != path.Base(name) || r.Problems[0].ID != 2) {
				t.Errorf("byte %d: verify: %+v", at, r.Problems[0])
			}
		}
		flipByte(t, fs, name, at, mask)
	}
	t.Logf("%d bytes, %d flips noticed", len(content), noticed)
	if noticed < len(content)/step/2 {
		t.Errorf("%d of %d flips noticed", noticed, len(content)/step)
	}
	if r, err := db.Verify(t.Context(), local.VerifyOptions{}); err != nil || len(r.Problems) > 0 {
		t.Errorf("verify in the end: %v, %v", err, r.Problems)
	}
}

// The file of a chain that is cut, missing, or another's is damage.
func TestFlipChainMisplaced(t *testing.T) {
	t.Parallel()
	fs, _ := newChainSample(t)
	name, content := chainFile(t, fs)
	other, _ := newChainSample(t)
	_, otherContent := chainFile(t, other)
	for what, harm := range map[string]func(){
		"missing": func() {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		},
		"empty":   func() { flipWrite(t, fs, name, nil) },
		"cut":     func() { flipWrite(t, fs, name, content[:len(content)/2]) },
		"shorter": func() { flipWrite(t, fs, name, content[:len(content)-1]) },
		"other":   func() { flipWrite(t, fs, name, otherContent) },
		"zeros":   func() { flipWrite(t, fs, name, make([]byte, len(content))) },
	} {
		harm()
		db, err := local.Open("db", chainFlipOptions(t, fs))
		if err == nil {
			_, err = tailAll(t.Context(), db.DB, batchlog.TailOptions{Until: 3})
			flipClose(t, db)
		}
		if err := wantDamage(err, name); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		flipWrite(t, fs, name, content)
	}
}

// What is behind the end of a chain's file makes no difference to who reads it, and Verify tells of it.
func TestFlipChainLonger(t *testing.T) {
	t.Parallel()
	fs, want := newChainSample(t)
	name, content := chainFile(t, fs)
	for _, more := range [][]byte{{0}, make([]byte, 5000), bytes.Clone(content[4096:])} {
		flipWrite(t, fs, name, append(bytes.Clone(content), more...))
		db := chainFlipOpen(t, fs)
		list, err := tailAll(t.Context(), db.DB, batchlog.TailOptions{Until: 3})
		if err != nil || len(list) != 3 || !slices.Equal(list[1].ops, want[1].ops) {
			t.Errorf("%d bytes more: tail: %v", len(more), err)
		}
		r, err := db.Verify(t.Context(), local.VerifyOptions{LogOnly: true})
		if err != nil || len(r.Problems) != 1 {
			t.Errorf("%d bytes more: verify: %v, %v", len(more), err, r.Problems)
		}
		for _, p := range r.Problems {
			if p.ID != 2 || path.Base(p.File) != path.Base(name) || p.Offset != int64(len(content)) || !strings.Contains(p.What, fmt.Sprint(len(more), " bytes behind the end")) {
				t.Errorf("%d bytes more: %+v", len(more), p)
			}
		}
		flipClose(t, db)
		flipWrite(t, fs, name, content)
	}
}

// A chain whose file is damaged when it has to be applied again keeps the database from opening: the store would lack what was acknowledged.
func TestFlipChainReplay(t *testing.T) {
	t.Parallel()
	fs := crashfs.New()
	db := chainFlipOpen(t, fs)
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		c.Put(db.Space("a"), batchlog.K(i), make([]byte, 100))
	}
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	flipClose(t, db)
	name, content := chainFile(t, crashed)
	for _, at := range []int{5000, len(content) / 2, len(content) - 1} {
		flipByte(t, crashed, name, at, 1)
		db, err := local.Open("db", chainFlipOptions(t, crashed))
		var damage *batchlog.CorruptError
		if err == nil {
			flipClose(t, db)
		}
		if !errors.As(err, &damage) || damage.ID != 1 || path.Base(damage.File) != path.Base(name) {
			t.Errorf("byte %d of %d: open: %v", at, len(content), err)
		}
		flipByte(t, crashed, name, at, 1)
	}
	db = chainFlipOpen(t, crashed)
	defer flipClose(t, db)
	if r, err := db.Verify(t.Context(), local.VerifyOptions{}); err != nil || len(r.Problems) > 0 || r.Keys != 300 {
		t.Errorf("verify: %v, %v, %d keys", err, r.Problems, r.Keys)
	}
}

// One flipped bit in a blob is noticed by whoever reads it, with space and key, and by Verify, or makes no difference.
func TestFlipBlob(t *testing.T) {
	t.Parallel()
	fs := crashfs.New()
	db := chainFlipOpen(t, fs)
	defer flipClose(t, db)
	s, k := db.Space("space"), batchlog.K("key")
	want := bytes.Repeat([]byte("content "), 10_000)
	if _, err := s.PutBlob(t.Context(), k, bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	files := filesUnder(t, fs, "db/blobs")
	if len(files) != 1 {
		t.Fatalf("files are %q", files)
	}
	size := len(flipRead(t, fs, files[0]))
	ats := []int{size - 1, size - 64, size - 60, size - 50, size - 30, size - 5, size - 66}
	for at := 0; at < size; at += 9973 {
		ats = append(ats, at)
	}
	for _, at := range ats {
		flipByte(t, fs, files[0], at, 0x10)
		for how, read := range map[string]func() ([]byte, error){
			"get": func() ([]byte, error) { return s.Get(t.Context(), k) },
			"blob": func() ([]byte, error) {
				b, err := s.Blob(t.Context(), k)
				if err != nil {
					return nil, err
				}
				defer b.Close()
				return io.ReadAll(b)
			},
			"copy": func() ([]byte, error) {
				b, err := s.Blob(t.Context(), k)
				if err != nil {
					return nil, err
				}
				defer b.Close()
				var out bytes.Buffer
				_, err = b.WriteTo(&out)
				return out.Bytes(), err
			},
			"tail": func() (value []byte, err error) {
				for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: 1}) {
					if err != nil {
						return nil, err
					}
					for op, err := range c.Ops() {
						if err != nil {
							return nil, err
						}
						return op.Load(t.Context())
					}
				}
				return nil, io.EOF
			},
			"scan": func() ([]byte, error) {
				for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
					return e.Value, err
				}
				return nil, io.EOF
			},
		} {
			got, err := read()
			var damage *batchlog.CorruptError
			switch {
			case err == nil && !bytes.Equal(got, want):
				t.Errorf("byte %d: %s: other content, and nobody noticed", at, how)
			case err == nil:
				t.Errorf("byte %d of %d: %s: nobody noticed", at, size, how)
			case !errors.As(err, &damage) || path.Base(damage.File) != path.Base(files[0]) || !strings.Contains(err.Error(), "space") || !strings.Contains(err.Error(), k.String()):
				t.Errorf("byte %d: %s: %v", at, how, err)
			case !bytes.HasPrefix(want, got):
				t.Errorf("byte %d: %s: wrong bytes before the error", at, how)
			}
		}
		r, err := db.Verify(t.Context(), local.VerifyOptions{})
		if err != nil || len(r.Problems) == 0 || r.Problems[0].Key != k.String() || r.Problems[0].Space == "" || path.Base(r.Problems[0].File) != path.Base(files[0]) {
			t.Errorf("byte %d: verify: %v, %+v", at, err, r.Problems)
		}
		flipByte(t, fs, files[0], at, 0x10)
	}
	if got, err := s.Get(t.Context(), k); err != nil || !bytes.Equal(got, want) {
		t.Errorf("in the end: %d bytes, %v", len(got), err)
	}
	if err := fs.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), k)
	if !errors.Is(err, batchlog.ErrCorrupt) || !strings.Contains(err.Error(), k.String()) {
		t.Errorf("get of a blob that is missing: %v", err)
	}
	if r, err := db.Verify(t.Context(), local.VerifyOptions{}); err != nil || len(r.Problems) == 0 || r.Problems[0].Key != k.String() {
		t.Errorf("verify of a blob that is missing: %v, %+v", err, r.Problems)
	}
}

// One flipped bit in what a chain has staged fails its commit, which writes nothing, or makes no difference.
func TestFlipRun(t *testing.T) {
	t.Parallel()
	for n := range 24 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			fs := crashfs.New()
			db := chainFlipOpen(t, fs)
			defer flipClose(t, db)
			s := db.Space("s")
			c, err := db.Chain(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			const keys = 4000
			for i := range keys {
				value := fmt.Appendf(nil, "%d %0100d", i, i)
				if i%500 == 0 {
					value = bytes.Repeat(value, 30)
				}
				c.Put(s, batchlog.K(i*7919%keys), value)
				if i%100 == 0 {
					c.DeleteRange(s, batchlog.Between(batchlog.K(keys+i), batchlog.K(keys+i+1)))
				}
			}
			files := filesUnder(t, fs, "db/chains")
			if len(files) < 5 {
				t.Fatalf("%d files are staged: the test shows nothing", len(files))
			}
			name := files[n*13%len(files)]
			size := len(flipRead(t, fs, name))
			if size == 0 {
				return
			}
			at := n * 7919 % size
			flipByte(t, fs, name, at, 1<<(n%8))
			id, err := c.Commit(t.Context())
			if err == nil {
				if r, err := db.Verify(t.Context(), local.VerifyOptions{}); err != nil || len(r.Problems) > 0 || r.Keys != keys {
					t.Errorf("byte %d of %s: verify: %v, %v, %d keys", at, name, err, r.Problems, r.Keys)
				}
				for i := range keys {
					if got, err := s.Get(t.Context(), batchlog.K(i*7919%keys)); err != nil || !bytes.HasPrefix(got, fmt.Appendf(nil, "%d %0100d", i, i)) {
						t.Fatalf("byte %d of %s: nobody noticed, and a value is %q, %v", at, name, got, err)
					}
				}
				return
			}
			if id != 0 || !errors.Is(err, batchlog.ErrCorrupt) {
				t.Errorf("byte %d of %s: commit %d, %v; want ErrCorrupt", at, name, id, err)
			}
			if head, err := db.Head(t.Context()); err != nil || head != 0 {
				t.Errorf("head is %d, %v", head, err)
			}
			for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
				t.Fatalf("there is %v, %v", e, err)
			}
		})
	}
}
