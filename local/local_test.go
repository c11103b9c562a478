package local_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What was written is there after a close and an open: in the store, and in the log as it was written.
func TestReopen(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	o := &local.Options{FS: fs, Log: batchlog.LogConfig{SegmentBytes: 16 << 10}}
	const n = 2000
	db, err := local.Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	s := db.Space("users", "eu")
	for i := range n {
		id, err := s.Put(ctx, batchlog.K(i), []byte(fmt.Sprint("value ", i)))
		if err != nil || id != batchlog.ID(i+1) {
			t.Fatal(id, err)
		}
	}
	if v, err := s.Get(ctx, batchlog.K(7)); err != nil || string(v) != "value 7" {
		t.Fatal(string(v), err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, batchlog.K(7)); !errors.Is(err, batchlog.ErrClosed) {
		t.Fatal(err)
	}
	db, err = local.Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s = db.Space("users", "eu")
	i := 0
	for c, err := range s.Tail(ctx, batchlog.TailOptions{Until: n}) {
		if err != nil {
			t.Fatal(err)
		}
		for op, err := range c.Ops() {
			if err != nil || op.Key.String() != fmt.Sprint(i) || c.ID != batchlog.ID(i+1) || !op.Space.Equal(s) {
				t.Fatal(c.ID, op, err)
			}
		}
		i++
	}
	i = 0
	for e, err := range s.Scan(ctx, batchlog.Range{}) {
		if err != nil || e.Key.String() != fmt.Sprint(i) || string(e.Value) != fmt.Sprint("value ", i) {
			t.Fatal(i, e, err)
		}
		i++
	}
	if i != n {
		t.Fatalf("%d keys", i)
	}
	r, err := db.Verify(ctx, local.VerifyOptions{})
	if err != nil || len(r.Problems) > 0 || r.Commits != n || r.Keys != n || !r.Complete {
		t.Fatalf("%+v %v", r, err)
	}
	st, err := db.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", st)
}
