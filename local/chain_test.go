package local

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
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
	fs := vfs.NewCrashableMem()
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

// A copy of a source that is written all the time is the source as of the id before its own; a move leaves nothing behind.
func TestCopyBusy(t *testing.T) {
	for _, move := range []bool{false, true} {
		for _, tree := range []bool{false, true} {
			t.Run(fmt.Sprintf("move=%t,tree=%t", move, tree), func(t *testing.T) { testCopyBusy(t, move, tree) })
		}
	}
}

func testCopyBusy(t *testing.T, move, tree bool) {
	db := chainDB(t, Options{})
	src, dst := db.Space("src"), db.Space("dst")
	spaces := []*batchlog.Space{src}
	if tree {
		spaces = append(spaces, src.Space("a"), src.Space("a", "b"))
	}
	for i := range 20 {
		for _, s := range []*batchlog.Space{dst, dst.Space("a")} {
			if _, err := s.Put(t.Context(), batchlog.K(i), []byte("dst")); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(r *rand.Rand) {
		var b batchlog.Batch
		for range 1 + r.IntN(20) {
			s := spaces[r.IntN(len(spaces))]
			k := batchlog.K(r.IntN(3000))
			switch r.IntN(60) {
			case 0:
				b.DeleteRange(s, batchlog.Range{Low: batchlog.K(r.IntN(3000)), High: batchlog.K(r.IntN(3000))})
			case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
				b.Delete(s, k)
			default:
				b.Put(s, k, fmt.Append(nil, "src ", r.Uint64()))
			}
		}
		if r.IntN(5) == 0 {
			b.Put(dst, batchlog.K(r.IntN(40)), fmt.Append(nil, "dst ", r.Uint64()))
		}
		if r.IntN(20) == 0 {
			b.DeleteRange(dst, batchlog.Range{Low: batchlog.K(r.IntN(40)), High: batchlog.K(r.IntN(40))})
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Error(err)
		}
	}
	first := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		write(first)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(w)))
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Microsecond):
					write(r)
				}
			}
		})
	}
	var ids []batchlog.ID
	for range 6 {
		var id batchlog.ID
		var err error
		switch {
		case move && tree:
			id, err = db.MoveTree(t.Context(), dst, src)
		case move:
			id, err = db.MoveRange(t.Context(), dst, src, batchlog.Range{})
		case tree:
			id, err = db.CopyTree(t.Context(), dst, src)
		default:
			id, err = db.CopyRange(t.Context(), dst, src, batchlog.Range{})
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	close(stop)
	wg.Wait()

	// The fold of the log, in which a copy is done by the model.
	state := map[string]string{}
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: head(t, db)}) {
		if err != nil {
			t.Fatal(err)
		}
		var before map[string]string
		if slices.Contains(ids, c.ID) {
			before = maps.Clone(state)
		}
		for op, err := range c.Ops() {
			if err != nil {
				t.Fatal(err)
			}
			foldOp(state, op)
		}
		if before == nil {
			continue
		}
		want := before
		for k, v := range maps.Clone(before) {
			from := string(src.Stored())
			to := string(dst.Stored())
			if tree {
				from, to = from[:len(from)-1], to[:len(to)-1]
			}
			if strings.HasPrefix(k, from) {
				if move {
					delete(want, k)
				}
				want[to+k[len(from):]] = v
			}
		}
		if !maps.Equal(state, want) {
			t.Fatalf("copy %d: %d keys, want %d: %s", c.ID, len(state), len(want), difference(state, want))
		}
	}
	have := map[string]string{}
	v, err := db.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, s := range append([]*batchlog.Space{dst, dst.Space("a"), dst.Space("a", "b")}, spaces...) {
		for e, err := range v.Scan(s, batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			have[string(s.Stored())+string(e.Key)] = string(e.Value)
		}
	}
	if !maps.Equal(have, state) {
		t.Errorf("the store is not the fold of the log: %s", difference(have, state))
	}
	verified(t, db)
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
