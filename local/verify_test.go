package local

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// While a database is verified nothing of its log is dropped, however old it gets; afterwards it is.
func TestVerifyTrim(t *testing.T) {
	now := time.Unix(1e9, 0)
	db := mustOpen(t, Options{
		FS: vfs.NewMem(), Now: func() time.Time { return now },
		Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, Undo: true},
	})
	for i := range 200 {
		b := batchlog.Batch{Token: fmt.Sprint(i)}
		b.Put(db.Space("a"), batchlog.K(i%20), make([]byte, 500))
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	for _, stage := range []string{"log", "commits", "keys"} {
		trimmed := false
		r, err := db.Verify(t.Context(), VerifyOptions{Progress: func(p Progress) {
			if p.Stage != stage || trimmed {
				return
			}
			trimmed = true
			now = now.Add(time.Hour)
			if err := db.Trim(t.Context()); err != nil {
				t.Error(err)
			}
		}})
		if err != nil || len(r.Problems) > 0 || r.Commits != 200 || !r.Complete || !trimmed {
			t.Fatalf("trimmed %t while it is at %s: %+v, %v", trimmed, stage, r, err)
		}
	}
	if err := db.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if db.engine.log.Oldest() == 1 {
		t.Error("nothing is dropped afterwards")
	}
}

// A damaged file of a chain is told of, and that the store is not compared, and nothing else.
func TestVerifyBadChain(t *testing.T) {
	for name, harm := range map[string]func(b []byte) []byte{
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"missing": func([]byte) []byte { return nil },
	} {
		fs := vfs.NewMem()
		db := mustOpen(t, Options{FS: fs, ChainBytes: 16 << 10, Log: batchlog.LogConfig{Undo: true}})
		put := func(from int) {
			c, err := db.Chain(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for i := range 1000 {
				c.Put(db.Space("a"), batchlog.K(from+i), fmt.Appendf(nil, "%d %050d", i, i))
			}
			if _, err := c.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		put(0)
		put(500)
		if err := db.Flush(t.Context()); err != nil { // both are applied
			t.Fatal(err)
		}
		file := ""
		for _, n := range listAll(t, fs, "db/log") {
			if strings.HasSuffix(n, ".ops") && file == "" {
				file = n
			}
		}
		rewrite(t, fs, file, harm)
		r, err := db.Verify(t.Context(), VerifyOptions{})
		if err != nil || len(r.Problems) == 0 || len(r.Problems) > 3 || r.Commits != 2 {
			t.Fatalf("%s %s: %+v, %v", file, name, r, err)
		}
		once := 0
		for _, p := range r.Problems {
			if strings.Contains(p.What, "not compared") {
				once++
			} else if !strings.Contains(p.File, filepath.Base(file)) && !strings.Contains(p.What, filepath.Base(file)) {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if once != 1 {
			t.Errorf("%s: %+v", name, r.Problems)
		}
	}
}

// Damage of the store is in the report, with its file, and all else is verified.
func TestVerifyDamagedStore(t *testing.T) {
	fs := vfs.NewMem()
	db := mustOpen(t, Options{FS: fs, Log: batchlog.LogConfig{Undo: true}})
	rng := rand.New(rand.NewPCG(1, 1))
	const commits, keys = 50, 100
	for i := range commits {
		b := batchlog.Batch{Token: fmt.Sprint("token", i)}
		for k := range keys {
			value := make([]byte, 100)
			for n := range value {
				value[n] = byte(rng.Uint32())
			}
			b.Put(db.Space("a"), batchlog.K(i*keys+k), value)
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	table, size := "", 0
	for _, n := range listAll(t, fs, "db/store") {
		if b, err := disk.ReadFile(fs, n); err == nil && strings.HasSuffix(n, ".sst") && len(b) > size {
			table, size = n, len(b)
		}
	}
	found := 0
	for at := size / 10; at < size; at += size / 9 {
		damaged := vfs.NewMem()
		if ok, err := vfs.Clone(fs, damaged, "db", "db"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		rewrite(t, damaged, table, func(b []byte) []byte { b[at] ^= 1; return b })
		db, err := Open("db", &Options{FS: damaged, Log: batchlog.LogConfig{Undo: true}})
		if err != nil {
			continue // what is read then
		}
		r, err := db.Verify(t.Context(), VerifyOptions{})
		if err != nil || len(r.Problems) == 0 || r.Commits != commits {
			t.Errorf("byte %d of %s: %+v, %v", at, table, r, err)
		}
		if !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.File == table && p.Offset > 0 && p.Offset <= int64(at) }) || len(r.Problems) > 4 {
			t.Errorf("byte %d of %s: %+v", at, table, r.Problems)
		}
		if r.Keys < commits*keys*9/10 {
			t.Errorf("byte %d of %s: %d keys compared, of %d", at, table, r.Keys, commits*keys)
		}
		found++
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if found < 5 {
		t.Errorf("%d places", found)
	}
}

// listAll are the files in a directory and those below.
func listAll(t *testing.T, fs vfs.FS, dir string) (files []string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, n := range names {
		path := filepath.Join(dir, n)
		if info, err := fs.Stat(path); err == nil && info.IsDir() {
			files = append(files, listAll(t, fs, path)...)
		} else {
			files = append(files, path)
		}
	}
	return files
}

// rewrite makes of a file's content what do returns, in place; nil: no file.
func rewrite(t *testing.T, fs vfs.FS, name string, do func(b []byte) []byte) {
	t.Helper()
	b, err := disk.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	b = do(b)
	if err := fs.Remove(name); err != nil {
		t.Fatal(err)
	}
	if b != nil {
		if err := disk.WriteFile(fs, name, b); err != nil {
			t.Fatal(err)
		}
	}
}
