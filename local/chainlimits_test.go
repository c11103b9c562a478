package local

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The largest value behind smaller ones is in no group of a chain's file that its readers refuse, whether it is put there or copied: what was acknowledged is
// read by who follows, by Verify, and by an opening after a crash.
func TestChainLargestValue(t *testing.T) {
	if testing.Short() {
		t.Skip("the largest values take long")
	}
	fs := crashfs.New()
	db := chainDB(t, Options{FS: fs, ChainBytes: 32 << 20})
	s, dst := db.Space("s"), db.Space("t")
	large := bytes.Repeat([]byte("large"), batchlog.MaxValueBytes/5+1)[:batchlog.MaxValueBytes]
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 10 {
		c.Put(s, batchlog.K(i), make([]byte, 100_000))
	}
	c.Put(s, batchlog.K("large"), large)
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CopyRange(t.Context(), dst, s, batchlog.Range{}); err != nil {
		t.Fatal(err)
	}
	check := func(db *DB) {
		t.Helper()
		for _, s := range []*batchlog.Space{db.Space("s"), db.Space("t")} {
			if got, err := s.Get(t.Context(), batchlog.K("large")); err != nil || !bytes.Equal(got, large) {
				t.Errorf("the largest value of %s is %d bytes, %v", s, len(got), err)
			}
		}
		for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: 2}) {
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for op, err := range c.Ops() {
				if err != nil {
					t.Fatalf("commit %d: %v", c.ID, err)
				}
				if op.Key.String() == `"large"` && bytes.Equal(op.Value, large) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("commit %d: %d large values", c.ID, n)
			}
		}
	}
	check(db)
	verified(t, db)
	check(chainDB(t, Options{FS: fs.CrashClone(vfs.CrashCloneCfg{})}))
}

// The largest value may be put into a chain behind others that are not staged yet.
func TestChainPutLargestBehindOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("the largest values take long")
	}
	db := chainDB(t, Options{ChainBytes: 32 << 20})
	s := db.Space("s")
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 2 { // together not enough to be staged
		c.Put(s, batchlog.K(i), make([]byte, 120<<10))
	}
	c.Put(s, batchlog.K("large"), make([]byte, batchlog.MaxValueBytes))
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), batchlog.K("large")); err != nil || len(got) != batchlog.MaxValueBytes {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got := fmt.Sprint(c.Len()); got != "3" {
		t.Errorf("%s ops", got)
	}
}
