package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// damages are what may become of a file. Each returns the content that is left, nil: there is no file.
var damages = []struct {
	name string
	do   func(b []byte, rng *rand.Rand) []byte
}{
	{"missing", func([]byte, *rand.Rand) []byte { return nil }},
	{"empty", func([]byte, *rand.Rand) []byte { return []byte{} }},
	{"half", func(b []byte, _ *rand.Rand) []byte { return b[:len(b)/2] }},
	{"one byte short", func(b []byte, _ *rand.Rand) []byte { return b[:max(0, len(b)-1)] }},
	{"longer", func(b []byte, _ *rand.Rand) []byte {
		return append(b, "and more of it, some of it zeroed\x00\x00\x00\x00"...)
	}},
	{"zeroed", func(b []byte, _ *rand.Rand) []byte { return make([]byte, len(b)) }},
	{"a zeroed sector", func(b []byte, rng *rand.Rand) []byte {
		at := rng.IntN(len(b)/512+1) * 512
		clear(b[min(at, len(b)):min(at+512, len(b))])
		return b
	}},
	{"flipped", func(b []byte, rng *rand.Rand) []byte {
		if len(b) > 0 {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		return b
	}},
	{"flipped at the end", func(b []byte, rng *rand.Rand) []byte {
		if len(b) > 0 {
			b[len(b)-1-rng.IntN(min(60, len(b)))] ^= 1 << rng.IntN(8)
		}
		return b
	}},
}

// Whatever becomes of a file of the store, what is read of it is right, or an error that is damage and names the file.
func TestDamage(t *testing.T) {
	whole, want := damageStore(t)
	names := mustList(t, whole)
	kinds := map[string]bool{}
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for _, name := range names {
		kind, _, _ := strings.Cut(name, "-")
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
			kind = name[dot:]
		}
		if strings.HasPrefix(name, "marker.") {
			kind = name[:strings.LastIndexByte(name[:len("marker.format-version")], '.')+7]
		}
		kinds[kind] = true
		for _, d := range damages {
			for round := range rounds {
				for _, opened := range []bool{false, true} {
					rng := rand.New(rand.NewPCG(uint64(round), 31))
					fs := copyStore(t, whole)
					damage := func() bool {
						return damageFile(t, fs, filepath.Join("store", name), func(b []byte) []byte { return d.do(b, rng) })
					}
					if problem := readDamaged(t, fs, name, want, damage, opened); problem != "" {
						t.Errorf("%s %s, opened %t: %s", name, d.name, opened, problem)
					}
				}
			}
		}
	}
	for _, kind := range []string{".sst", "MANIFEST"} {
		if !kinds[kind] {
			t.Errorf("no file of kind %s in %s", kind, names)
		}
	}
}

// damageFile makes of a file's content what do returns; it reports false if that is the same.
func damageFile(t *testing.T, fs vfs.FS, path string, do func(b []byte) []byte) bool {
	t.Helper()
	before, err := disk.ReadFile(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	after := do(bytes.Clone(before))
	if after != nil && bytes.Equal(before, after) {
		return false
	}
	if err := fs.Remove(path); err != nil {
		t.Fatal(err)
	}
	if after != nil {
		if err := disk.WriteFile(fs, path, after); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// damageStore is a store in which all kinds of files are, and what it shows.
func damageStore(t *testing.T) (vfs.FS, model) {
	t.Helper()
	fs := vfs.NewMem()
	o := testOptions(fs, 0)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	want := model{}
	for _, r := range newMaker(5).records(300, 700) {
		want.apply(t, r)
		apply(t, s, r)
	}
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fs, want
}

func mustList(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("store")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func copyStore(t *testing.T, from vfs.FS) vfs.FS {
	t.Helper()
	to := vfs.NewMem()
	if ok, err := vfs.Clone(from, to, "store", "store"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	return to
}

// readDamaged reads all of a store in which one file is damaged, before it is opened or while it is, and says what is wrong with how it took that; "": nothing.
func readDamaged(t *testing.T, fs vfs.FS, name string, want model, damage func() bool, opened bool) string {
	t.Helper()
	wrong := func(what string, err error) string {
		var damage *batchlog.CorruptError
		switch {
		case !errors.Is(err, batchlog.ErrCorrupt):
			return fmt.Sprintf("%s: no damage: %v", what, err)
		case !errors.As(err, &damage) || damage.File == "":
			return fmt.Sprintf("%s: no file is named: %v", what, err)
		case strings.HasPrefix(name, "MANIFEST") && strings.HasSuffix(damage.File, ".sst"): // it speaks of tables that are no more
		case !strings.HasPrefix(name, filepath.Base(damage.File)):
			return fmt.Sprintf("%s: the file is not named: %v", what, err)
		}
		return ""
	}
	if !opened && !damage() {
		return ""
	}
	s, err := Open(testOptions(fs, 0))
	if err != nil {
		return wrong("open", err)
	}
	defer s.Close()
	if opened && (!slices.Contains(mustList(t, fs), name) || !damage()) {
		return ""
	}
	if strings.HasPrefix(name, "MANIFEST") && s.Applied() < 300 {
		return "" // as it was before: replay does the rest
	}
	if s.Applied() != 300 {
		return fmt.Sprintf("opened at %d", s.Applied())
	}
	var problem string
	for k, v := range want {
		got, err := s.Get([]byte(k))
		if err == nil && string(got) != v {
			return "wrong value"
		}
		if err != nil {
			problem = max(problem, wrong("get", err))
		}
	}
	snap, err := s.Snapshot()
	if err != nil {
		return max(problem, wrong("snapshot", err))
	}
	defer snap.Close()
	c, err := snap.Scan(t.Context(), []byte(keyPrefix), []byte("\xa1"), false)
	if err != nil {
		return max(problem, wrong("scan", err))
	}
	n := 0
	for {
		k, v, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return max(problem, wrong("scan", err))
		}
		if want[string(k)] != string(v) {
			return "wrong entry"
		}
		n++
	}
	if n != len(want) {
		return fmt.Sprintf("%d keys, want %d", n, len(want))
	}
	return problem
}
