package seglog

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The settings that a table of the first version holds are read; from then on it holds none.
func TestLegacyConfig(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(3, 3000)
	w.sealed()
	fs := w.opts.FS
	if _, ok, err := LegacyConfig(fs, "elsewhere"); ok || err != nil {
		t.Errorf("without a log: %t, %v", ok, err)
	}
	if _, ok, err := LegacyConfig(fs, dir); ok || !errors.Is(err, ErrNoConfig) {
		t.Errorf("a log whose settings are elsewhere: %t, %v", ok, err)
	}
	want := batchlog.LogConfig{Name: "main", HotTTL: time.Hour, Dirs: []string{"a"}, Warm: []string{"/b"}, Undo: true, BlobBytes: 1 << 20, SegmentBytes: 1 << 20}
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	w.makeLegacy(func(m *legacyManifest) { m.Config = &want })
	if c, ok, err := LegacyConfig(fs, dir); !ok || err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %t, %v", c, ok, err)
	}
	w.open()
	if _, ok, err := LegacyConfig(fs, dir); ok || !errors.Is(err, ErrNoConfig) {
		t.Errorf("a table of today: %t, %v", ok, err)
	}
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]error{
		"":  batchlog.ErrCorrupt,
		"x": batchlog.ErrCorrupt,
		string(disk.AppendDocument(nil, manifestName, manifestVersion+1, nil)): batchlog.ErrUnsupported,
	} {
		rewrite(t, fs, manifestPath, func([]byte) []byte { return []byte(text) })
		if _, ok, err := LegacyConfig(fs, dir); ok || !errors.Is(err, want) {
			t.Errorf("%q: %t, %v", text, ok, err)
		}
	}
}
