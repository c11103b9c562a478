package disk_test

import (
	"io/fs"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func TestDocument(t *testing.T) {
	text := disk.AppendDocument(nil, "database", 3, []byte(`{"a":1}`))
	version, body, err := disk.ParseDocument(text, "database")
	if version != 3 || string(body) != `{"a":1}` || err != nil {
		t.Fatalf("%d %q %v", version, body, err)
	}
	bad := map[string]string{
		"":                    "first line",
		"batchlog database 3": "first line",
		"batchlog manifest 3 " + string(text[len("batchlog database 3 "):]):  "first line",
		"batchlog database 03 " + string(text[len("batchlog database 3 "):]): "first line",
		string(text) + " ": "sum",
		string(disk.AppendDocument(nil, "database", 0, nil)): "version 0",
	}
	for text, want := range bad {
		if _, _, err := disk.ParseDocument([]byte(text), "database"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A file that is replaced is found whole after a loss of power at every change, and until it is durable as it was.
func TestReplaceFile(t *testing.T) {
	for fail := 0; ; fail++ {
		mem := vfs.NewCrashableMem()
		if err := disk.MakeDir(mem, "a/b"); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.ReplaceFile(mem, "a/b/f", []byte("old")); err != nil {
			t.Fatal(err)
		}
		n := 0
		failing := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
			if n++; n == fail+1 {
				return errorfs.ErrInjected
			}
			return nil
		}))
		uncertain, err := disk.ReplaceFile(failing, "a/b/f", []byte("new"))
		for _, kept := range []int{0, 100} {
			crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rand.New(rand.NewPCG(1, 2))})
			got, readErr := disk.ReadFile(crashed, "a/b/f")
			switch {
			case readErr != nil:
				t.Fatalf("operation %d: %v", fail, readErr)
			case err == nil && string(got) != "new", err != nil && !uncertain && string(got) != "old", string(got) != "old" && string(got) != "new":
				t.Fatalf("operation %d (%v, uncertain %t): a crash finds %q", fail, err, uncertain, got)
			}
		}
		if err == nil {
			return
		}
	}
}

// A directory is durable when MakeDir returns, also if somebody before was killed while he made it, or his sync failed.
func TestMakeDir(t *testing.T) {
	for _, killed := range []bool{true, false} {
		for fail := 0; ; fail++ {
			mem := vfs.NewCrashableMem()
			n := 0
			failing := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
				if n++; n == fail+1 || killed && n > fail {
					return errorfs.ErrInjected
				}
				return nil
			}))
			done := disk.MakeDir(failing, "/a/b/c") == nil
			if err := disk.MakeDir(mem, "/a/b/c"); err != nil {
				t.Fatal(err)
			}
			crashed := mem.CrashClone(vfs.CrashCloneCfg{})
			if info, err := crashed.Stat("/a/b/c"); err != nil || !info.IsDir() {
				t.Errorf("operation %d failed: after a crash the directory is not there: %v", fail, err)
			}
			if done {
				break
			}
		}
	}
}

// Where nobody may look into the directory above, one that is there is taken as it is.
func TestMakeDirBelowOneThatIsClosed(t *testing.T) {
	mem := vfs.NewMem()
	if err := disk.MakeDir(mem, "/a/b"); err != nil {
		t.Fatal(err)
	}
	closed := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpOpenDir && op.Path == "/a" {
			return fs.ErrPermission
		}
		return nil
	}))
	if err := disk.MakeDir(closed, "/a/b"); err != nil {
		t.Errorf("a directory that is there: %v", err)
	}
	if err := disk.MakeDir(closed, "/a/c"); err == nil {
		t.Error("a directory was made and its name is not durable")
	}
}

func TestErrors(t *testing.T) {
	if !disk.NotExist(&fs.PathError{Err: syscall.ENOENT}) || disk.NotExist(syscall.EIO) {
		t.Error("NotExist")
	}
	if !disk.Full(&fs.PathError{Err: syscall.EDQUOT}) || !disk.Full(syscall.ENOSPC) || disk.Full(syscall.EIO) {
		t.Error("Full")
	}
}
