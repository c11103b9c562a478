package crashfs

import (
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What was synced survives, of the rest the same part for the same seed; all of it when only the process ends.
func TestSurvivor(t *testing.T) {
	fs := New()
	if err := fs.MkdirAll("d", 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		write(t, fs, fmt.Sprint("d/f", i), fmt.Sprint("synced ", i), i < 10)
		if i == 9 {
			if err := syncRoot(fs); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, fs, "d/f0", "LATER", false)
	if err := fs.Remove("d/f1"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(8) {
		one, two := list(t, survive(t, fs, 50, seed)), list(t, survive(t, fs, 50, seed))
		if !slices.Equal(one, two) {
			t.Errorf("seed %d: %q, then %q", seed, one, two)
		}
		for i := 1; i < 10; i++ {
			if want := fmt.Sprintf("f%d=synced %d", i, i); !slices.Contains(one, want) {
				t.Errorf("seed %d: %q lacks %q", seed, one, want)
			}
		}
		seen[fmt.Sprint(one)] = true
	}
	if len(seen) < 4 {
		t.Errorf("eight seeds make %d disks", len(seen))
	}
	if got := list(t, survive(t, fs, 0, 1)); len(got) != 10 || got[0] != "f0=synced 0" {
		t.Errorf("at 0%% there is %q", got)
	}
	if got := list(t, survive(t, fs, 100, 1)); len(got) != 20 || got[0] != "f0=LATERd 0" {
		t.Errorf("at 100%% there is %q", got)
	}
	kept, err := fs.Copy()
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, kept); len(got) != 19 || got[0] != "f0=LATERd 0" {
		t.Errorf("a copy has %q", got)
	}
	if got := list(t, survive(t, kept, 0, 1)); len(got) != 19 {
		t.Errorf("of a copy %q survives", got)
	}
}

func survive(t *testing.T, fs *FS, percent int, seed uint64) *FS {
	t.Helper()
	out, err := fs.Survivor(percent, seed, nil, func(name string) string { return name })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func syncRoot(fs *FS) error {
	for _, dir := range []string{"d", "/"} {
		if err := syncDir(fs, dir); err != nil {
			return err
		}
	}
	return nil
}

func write(t *testing.T, fs *FS, name, content string, sync bool) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err = f.WriteAt([]byte(content), 0); err == nil && sync {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, fs *FS) (all []string) {
	t.Helper()
	names, err := fs.List("d")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		f, err := fs.Open("d/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		all = append(all, name+"="+string(b))
	}
	return all
}
