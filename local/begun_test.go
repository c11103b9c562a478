package local

import (
	"errors"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A log that is gone is not begun again, also where nothing else knows that it had commits: its ids would be given a second time.
func TestLogGone(t *testing.T) {
	for name, harm := range map[string]func(fs vfs.FS) error{
		"the directory of the log": func(fs vfs.FS) error { return fs.RemoveAll("db/log") },
		"all files of the log": func(fs vfs.FS) error {
			return errors.Join(fs.RemoveAll("db/log/main"), fs.MkdirAll("db/log/main", 0o755))
		},
		"the manifest":               func(fs vfs.FS) error { return fs.Remove("db/log/main/manifest") },
		"the log and the store":      func(fs vfs.FS) error { return errors.Join(fs.RemoveAll("db/log"), fs.RemoveAll("db/store")) },
		"the log, which had nothing": nil,
	} {
		fs := vfs.NewMem()
		o := Options{FS: fs, Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, Dirs: []string{"/a", "/b"}}}
		db, err := Open("db", &o)
		if err != nil {
			t.Fatal(err)
		}
		if harm != nil {
			for i := range 20 {
				if _, err := db.Root().Put(t.Context(), batchlog.K(i), make([]byte, 2000)); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			harm = func(fs vfs.FS) error { return fs.RemoveAll("db/log") }
		}
		if err := errors.Join(db.Close(), harm(fs)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if db, err := Open("db", &o); !errors.Is(err, batchlog.ErrCorrupt) {
				t.Errorf("without %s: %v", name, err)
				if err == nil {
					db.Close()
				}
			}
		}
	}
}
