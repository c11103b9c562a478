package local

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A flush under which the store loses its disk is none, although the store is told from then on that all goes well.
func TestFlushOfLostStore(t *testing.T) {
	var armed atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync && strings.HasSuffix(op.Path, "/store") && armed.Swap(false) {
			return errorfs.ErrInjected
		}
		return nil
	}))
	db, err := Open("db", &Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Space("s").Put(t.Context(), batchlog.K("a"), []byte("b")); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if err := db.Flush(t.Context()); !errors.Is(err, errorfs.ErrInjected) {
		t.Errorf("flushed although the names in the store's directory are not durable: %v", err)
	}
	if armed.Load() {
		t.Fatal("the directory was not synced at all")
	}
}
