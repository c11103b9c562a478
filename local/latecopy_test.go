package local

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A copy whose source key is deleted between the sort and the commit leaves the target what it had; where that is a blob, the commit counts as one that
// refers to it, whether other ops of the chain are on the same keys or not.
func TestCopyLateBlob(t *testing.T) {
	for _, mixed := range []bool{false, true} {
		t.Run(fmt.Sprint("mixed=", mixed), func(t *testing.T) {
			db := chainDB(t, Options{})
			src, dst := db.Space("src"), db.Space("dst")
			content := bytes.Repeat([]byte("b"), 5000)
			if _, err := dst.PutBlob(t.Context(), batchlog.K(7), bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			var b batchlog.Batch
			for i := range 500 {
				b.Put(src, batchlog.K(i), bytes.Repeat([]byte("v"), 100))
			}
			if _, err := db.Write(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			c, err := db.Chain(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if mixed {
				c.Put(dst, batchlog.K(1), []byte("before"))
			}
			if err := c.CopyRange(dst, src, batchlog.Range{}); err != nil {
				t.Fatal(err)
			}
			deleted := false
			c.Progress = func(p batchlog.ChainProgress) {
				if p.Stage == "sort" && !deleted {
					deleted = true
					if _, err := src.Delete(t.Context(), batchlog.K(7)); err != nil {
						t.Error(err)
					}
				}
			}
			id, err := c.Commit(t.Context())
			if err != nil || !deleted {
				t.Fatalf("commit %d, %v, deleted %t", id, err, deleted)
			}
			if got, err := dst.Get(t.Context(), batchlog.K(7)); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the target has %.20q, %v", got, err)
			}
			verified(t, db)
			time.Sleep(time.Millisecond) // the blob is older than the sweep
			if _, err := db.SweepBlobs(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			verified(t, db)
		})
	}
}

// A copy whose source is written much while it is built has what was written as a further stretch of its file: puts, deletes and deleted ranges, none of
// them lost, in the store and in the log.
func TestCopyLateMuch(t *testing.T) {
	db := chainDB(t, Options{})
	src, dst := db.Space("src"), db.Space("dst")
	const keys = 20_000
	put := func(from, to int, value string) {
		t.Helper()
		var b batchlog.Batch
		for i := from; i < to; i++ {
			b.Put(src, batchlog.K(i), bytes.Repeat([]byte(value), 50))
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Error(err)
		}
	}
	put(0, keys, "v")
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.CopyRange(dst, src, batchlog.Range{}); err != nil {
		t.Fatal(err)
	}
	written := false
	c.Progress = func(p batchlog.ChainProgress) {
		if p.Stage != "sort" || written {
			return
		}
		written = true
		put(1000, 1000+2*fullPace.soon, "w")
		put(keys, keys+100, "w")
		var b batchlog.Batch
		b.DeleteRange(src, batchlog.Range{Low: batchlog.K(100), High: batchlog.K(300)})
		b.Delete(src, batchlog.K(7))
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Error(err)
		}
	}
	id, err := c.Commit(t.Context())
	if err != nil || !written {
		t.Fatalf("%v; written meanwhile: %t", err, written)
	}
	stretches := 0
	for commit, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(id), Until: id}) {
		if err != nil {
			t.Fatal(err)
		}
		var s wire.Stretches
		err := commit.Inside().EachOp(func(kind batchlog.OpKind, key, _ []byte) error {
			if s.Begin(kind, key) {
				stretches++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if stretches < 2 {
		t.Errorf("%d stretches, want more", stretches)
	}
	contents := func(s *batchlog.Space) map[string]string {
		m := map[string]string{}
		for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			m[e.Key.String()] = string(e.Value)
		}
		return m
	}
	if d := difference(contents(dst), contents(src)); d != "" {
		t.Errorf("the copy is not its source: %s", d)
	}
	verified(t, db)
}

// A hook that changes the values of a copy does so with those that the copy comes to, and brings back none that have left its source meanwhile.
func TestCopyLateReplaced(t *testing.T) {
	for _, much := range []bool{false, true} {
		db := chainDB(t, Options{})
		src, dst := db.Space("src"), db.Space("dst")
		const keys = 5_000
		put := func(from, to int, value string) {
			t.Helper()
			var b batchlog.Batch
			for i := from; i < to; i++ {
				b.Put(src, batchlog.K(i), bytes.Repeat([]byte(value), 50))
			}
			if _, err := db.Write(t.Context(), &b); err != nil {
				t.Error(err)
			}
		}
		put(0, keys, "v")
		db.PreCommit(dst, func(tx *batchlog.Tx, ops []batchlog.Op) error {
			for _, op := range ops {
				if op.Kind == batchlog.OpPut && op.Value[0] == 'v' {
					if err := tx.Replace(op, append([]byte("hooked "), op.Value...)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		c, err := db.Chain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.CopyRange(dst, src, batchlog.Range{}); err != nil {
			t.Fatal(err)
		}
		written := false
		c.Progress = func(p batchlog.ChainProgress) {
			if p.Stage != "sort" || written {
				return
			}
			written = true
			if much {
				put(1000, keys, "w")
			}
			put(20, 30, "w")
			var b batchlog.Batch
			b.DeleteRange(src, batchlog.Range{Low: batchlog.K(100), High: batchlog.K(300)})
			b.Delete(src, batchlog.K(7))
			if _, err := db.Write(t.Context(), &b); err != nil {
				t.Error(err)
			}
		}
		if _, err := c.Commit(t.Context()); err != nil || !written {
			t.Fatalf("%v; written meanwhile: %t", err, written)
		}
		contents := func(s *batchlog.Space, hooked string) map[string]string {
			m := map[string]string{}
			for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				value := string(e.Value)
				if value[0] == 'v' {
					value = hooked + value
				}
				m[e.Key.String()] = value
			}
			return m
		}
		if d := difference(contents(dst, ""), contents(src, "hooked ")); d != "" {
			t.Errorf("the copy is not its source, as the hook changes it: %s", d)
		}
		verified(t, db)
	}
}
