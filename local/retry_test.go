package local

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// What a commit overwrites can't be read for a while: the database says so, and goes on by itself.
func TestApplyGoesOn(t *testing.T) {
	mem := vfs.NewMem()
	var on atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !on.Load() || !strings.HasSuffix(op.Path, ".sst") {
			return nil
		}
		if op.Kind == errorfs.OpFileReadAt || op.Kind == errorfs.OpFileRead {
			return syscall.EIO
		}
		return nil
	}))
	o := Options{FS: fs, Log: batchlog.LogConfig{Undo: true}}
	db := mustOpen(t, o)
	for i := range 300 {
		if _, err := db.Space("a").Put(t.Context(), batchlog.K(i), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = mustOpen(t, o)
	on.Store(true)
	var id batchlog.ID
	var err error
	for i := range 300 {
		if id, err = db.Space("a").Put(t.Context(), batchlog.K(i), []byte("new")); err != nil {
			t.Fatal(err)
		}
	}
	waits := false
	for end := time.Now().Add(time.Second); time.Now().Before(end) && !waits; time.Sleep(time.Millisecond) {
		s, err := db.Status(t.Context())
		waits = err == nil && s.State == "open" && strings.Contains(s.Reason, "tried again") && s.Applied < id
	}
	on.Store(false)
	if !waits {
		t.Error("the status does not say that applying is tried again")
	}
	for i := range 300 {
		if v, err := db.Space("a").Get(t.Context(), batchlog.K(i)); err != nil || string(v) != "new" {
			t.Fatal(string(v), err)
		}
	}
	if s, err := db.Status(t.Context()); err != nil || s.Reason != "" || s.Applied != id {
		t.Errorf("%+v, %v", s, err)
	}
	for id := batchlog.ID(301); id <= 600; id++ {
		r, err := db.Inverse(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if r, err := db.Verify(t.Context(), VerifyOptions{}); err != nil || len(r.Problems) > 0 {
		t.Error(r.Problems, err)
	}
}
