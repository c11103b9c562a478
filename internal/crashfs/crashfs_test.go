package crashfs

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Files that are linked while the disk is cloned hang neither, and a clone has what was synced. With the MemFS alone this stands
// still within a second.
func TestCloneWhileLinking(t *testing.T) {
	fs := New()
	f, err := fs.Create("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("synced")); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	root, err := fs.OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Sync(); err != nil {
		t.Fatal(err)
	}

	var linking sync.WaitGroup
	for worker := range 4 {
		linking.Go(func() {
			for n := range 3000 {
				name := fmt.Sprintf("b%d-%d", worker, n)
				if err := fs.Link("a", name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var after *FS
	for range 1000 {
		after = fs.CrashClone(vfs.CrashCloneCfg{})
	}
	linking.Wait()
	if info, err := after.Stat("a"); err != nil || info.Size() != int64(len("synced")) {
		t.Fatalf("after a crash: %v, %v", info, err)
	}
	if names, err := after.List("/"); err != nil || len(names) != 1 {
		t.Fatalf("after a crash there are %v, %v; only the first was synced", names, err)
	}
}
