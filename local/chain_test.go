package local

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func chainDB(t *testing.T, o Options) *DB {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	if o.ChainBytes == 0 {
		o.ChainBytes = 16 << 10
	}
	db, err := Open("db", &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func verified(t *testing.T, db *DB) Report {
	t.Helper()
	r, err := db.Verify(t.Context(), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("verify: %s", p)
	}
	return r
}

// A chain of many ops, larger than its memory, is one commit that shows at once, and comes back after a crash.
func TestChainLarge(t *testing.T) {
	fs := crashfs.New()
	db := chainDB(t, Options{FS: fs})
	s := db.Space("s")
	if _, err := s.Put(t.Context(), batchlog.K("before"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	c.DeleteRange(s, batchlog.Range{})
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60000 {
		k := fmt.Sprint("k", r.IntN(30000))
		v := fmt.Sprint("value ", i)
		c.Put(s, batchlog.K(k), []byte(v))
		want[k] = v
	}
	if n, _ := db.Head(t.Context()); n != 1 {
		t.Fatal("something was committed")
	}
	id, err := c.Commit(t.Context())
	if err != nil || id != 2 {
		t.Fatal(id, err)
	}
	check := func(db *DB) {
		t.Helper()
		s := db.Space("s")
		n := 0
		for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			k, _ := e.Key.Decode()
			if want[k.(string)] != string(e.Value) {
				t.Fatalf("%v is %q, want %q", k, e.Value, want[k.(string)])
			}
			n++
		}
		if n != len(want) {
			t.Fatalf("%d keys, want %d", n, len(want))
		}
		for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: 2}) {
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, err := range c.Ops() {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n != c.Len() || c.ID == 2 && (!c.Chained() || n != len(want)+1) {
				t.Errorf("commit %d: %d ops, Len %d, chained %t", c.ID, n, c.Len(), c.Chained())
			}
		}
		verified(t, db)
	}
	check(db)
	left, err := db.Chains(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("chains %v, %v", left, err)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	check(chainDB(t, Options{FS: crashed}))
	if err := db.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(chainDB(t, Options{FS: fs.CrashClone(vfs.CrashCloneCfg{})}))
}

// Verify applies a chain after the commits before it, also where it reads them at once.
func TestVerifyChainOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	fs := vfs.NewMem()
	db := chainDB(t, Options{FS: fs, ChainBytes: 16 << 20})
	s := db.Space("s")
	for range 2 {
		var b batchlog.Batch
		b.DeleteRange(s, batchlog.Range{})
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		c, err := db.Chain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 60_000 {
			c.Put(s, batchlog.K(i), make([]byte, 100))
		}
		if _, err := c.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	verified(t, chainDB(t, Options{FS: fs})) // reads the file
}

func head(t *testing.T, db *DB) batchlog.ID {
	t.Helper()
	id, err := db.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// foldOp does to a model what an op does.
func foldOp(m map[string]string, op batchlog.Op) {
	key := string(op.Space.Stored()) + string(op.Key)
	switch op.Kind {
	case batchlog.OpPut:
		m[key] = string(op.Value)
	case batchlog.OpDelete:
		delete(m, key)
	case batchlog.OpDeleteRange:
		for k := range m {
			own, in := strings.CutPrefix(k, string(op.Space.Stored()))
			if in && own >= string(op.Key) && (op.High == nil || own < string(op.High)) {
				delete(m, k)
			}
		}
	}
}

func difference(have, want map[string]string) string {
	n := 0
	var b strings.Builder
	for k, v := range have {
		if w, ok := want[k]; (!ok || w != v) && n < 5 {
			fmt.Fprintf(&b, "%q is %q, want %q; ", k, v, w)
			n++
		}
	}
	for k, w := range want {
		if _, ok := have[k]; !ok && n < 10 {
			fmt.Fprintf(&b, "%q is missing, want %q; ", k, w)
			n++
		}
	}
	return b.String()
}
