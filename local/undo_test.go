package local

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// states folds the log: the state at each id, from 0 on, by stored key and value, without the system's keys.
func states(t *testing.T, db *DB) []map[string]string {
	t.Helper()
	all := []map[string]string{{}}
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: head(t, db)}) {
		if err != nil {
			t.Fatal(err)
		}
		m := maps.Clone(all[len(all)-1])
		err := c.Inside().EachOp(func(kind batchlog.OpKind, key, value []byte) error {
			switch kind {
			case batchlog.OpPut:
				m[string(key)] = string(value)
			case batchlog.OpDelete:
				delete(m, string(key))
			case batchlog.OpDeleteRange:
				maps.DeleteFunc(m, func(k, _ string) bool { return string(key) <= k && k < string(value) })
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// mustInvert checks the inverse of a commit between two states.
func mustInvert(t *testing.T, db *DB, id batchlog.ID, before, after map[string]string) {
	t.Helper()
	r, err := db.Inverse(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m := maps.Clone(after)
	n := 0
	for {
		ops, count, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += count
		err = wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
			old, had := before[string(key)]
			if (kind == batchlog.OpPut) != had || old != string(value) {
				t.Errorf("commit %d: %s %x, which was %q, %t", id, kind, key, old, had)
			}
			delete(m, string(key))
			if had {
				m[string(key)] = old
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(m, before) {
		t.Fatalf("commit %d: inverse of %d keys: %s", id, n, difference(m, before))
	}
}

// An undoWriter writes all kinds of commits into a few keys.
type undoWriter struct {
	t   *testing.T
	db  *DB
	rng *rand.Rand
}

func (w *undoWriter) space() *batchlog.Space {
	return []*batchlog.Space{w.db.Space("a"), w.db.Space("a", "b"), w.db.Space("c")}[w.rng.IntN(3)]
}

func (w *undoWriter) key() batchlog.Key { return batchlog.K(w.rng.IntN(40)) }

func (w *undoWriter) write() {
	w.t.Helper()
	ctx := w.t.Context()
	var err error
	switch w.rng.IntN(20) {
	case 0:
		var c *batchlog.Chain
		if c, err = w.db.Chain(ctx); err != nil {
			break
		}
		defer c.Close()
		if w.rng.IntN(2) == 0 {
			c.DeleteRange(w.space(), batchlog.Range{})
		}
		s := w.space()
		for i := range 300 {
			c.Put(s, batchlog.K(w.rng.IntN(300)), fmt.Appendf(nil, "%d %0100d", i, i))
		}
		_, err = c.Commit(ctx)
	case 1:
		_, err = w.db.CopyRange(ctx, w.db.Space("c"), w.db.Space("a"), batchlog.Range{})
	default:
		var b batchlog.Batch
		for range 1 + w.rng.IntN(5) {
			switch w.rng.IntN(8) {
			case 0:
				b.Delete(w.space(), w.key())
			case 1:
				b.DeleteRange(w.space(), batchlog.Between(w.key(), w.key()))
			case 2:
				b.Put(w.space(), w.key(), make([]byte, 2000)) // a blob
			default:
				b.Put(w.space(), w.key(), fmt.Appendf(nil, "v%d", w.rng.IntN(5)))
			}
		}
		_, err = w.db.Write(ctx, &b)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// With Undo on, every commit has its inverse; off, none; a backfill makes those that are missing, also after it was interrupted.
func TestUndoBackfill(t *testing.T) {
	fs := vfs.NewMem()
	config := batchlog.LogConfig{BlobBytes: 1024}
	db := chainDB(t, Options{FS: fs, Log: config})
	w := &undoWriter{t, db, rand.New(rand.NewPCG(1, 1))}
	turn := func(on bool) {
		t.Helper()
		if _, err := db.Root().Get(t.Context(), batchlog.K("")); !errors.Is(err, batchlog.ErrNotFound) { // all is applied
			t.Fatal(err)
		}
		config.Undo = on
		if err := db.Configure(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	var want []batchlog.IDRange
	for i := range 4 {
		turn(i%2 == 1)
		first := head(t, db) + 1
		for range 100 {
			w.write()
		}
		if i%2 == 1 {
			want = append(want, batchlog.IDRange{First: first, Last: head(t, db)})
		}
	}
	turn(false)
	w.write()
	turn(false)
	st, err := db.Status(t.Context())
	if err != nil || fmt.Sprint(st.Undo.Have) != fmt.Sprint(want) || st.Undo.On || st.Undo.Ready != want[1].Last {
		t.Fatalf("undo %+v, %v; want %v", st.Undo, err, want)
	}
	var missing *batchlog.InverseError
	if _, err := db.Inverse(t.Context(), 5); !errors.As(err, &missing) || missing.ID != 5 || missing.Gone || missing.Limit > 0 {
		t.Errorf("without an inverse: %v", err)
	}
	if _, err := db.Inverse(t.Context(), 5000); !errors.Is(err, batchlog.ErrNotFound) {
		t.Errorf("without a commit: %v", err)
	}
	turn(true)
	all := states(t, db)
	for _, r := range want {
		for id := r.First; id <= r.Last; id++ {
			mustInvert(t, db, id, all[id-1], all[id])
		}
	}
	if err := db.Backfill(t.Context(), batchlog.BackfillOptions{}); err != nil {
		t.Fatal(err)
	}
	all = states(t, db)
	for id := 1; id < len(all); id++ {
		mustInvert(t, db, batchlog.ID(id), all[id-1], all[id])
	}
	st, err = db.Status(t.Context())
	if err != nil || len(st.Undo.Have) != 1 || st.Undo.Ready != head(t, db) {
		t.Errorf("undo %+v, %v", st.Undo, err)
	}
	have := fmt.Sprint(st.Undo.Have)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = chainDB(t, Options{FS: fs})
	if st, err = db.Status(t.Context()); err != nil || fmt.Sprint(st.Undo.Have) != have {
		t.Errorf("undo after it was opened again: %+v, %v; want %s", st.Undo, err, have)
	}
	if names, err := fs.List("db"); err != nil || fmt.Sprint(names) == "" || contains(names, "undo") {
		t.Errorf("left behind: %q, %v", names, err)
	}
	verified(t, db)
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// A revert brings a subtree back to any earlier state, also while others write there.
func TestRevert(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy=", busy), func(t *testing.T) {
			db := chainDB(t, Options{Log: batchlog.LogConfig{BlobBytes: 1024, Undo: true}})
			w := &undoWriter{t, db, rand.New(rand.NewPCG(2, 1))}
			for range 150 {
				w.write()
			}
			var reverts []revertCase
			stop, wg := make(chan struct{}), sync.WaitGroup{}
			if busy {
				wg.Go(func() { writeUntil(t, db, stop) })
			}
			reverting := 30
			if testing.Short() {
				reverting = 6
			}
			for range reverting {
				r := revertCase{to: batchlog.ID(w.rng.IntN(int(head(t, db)))), space: []*batchlog.Space{db.Root(), db.Space("a"), db.Space("c")}[w.rng.IntN(3)]}
				r.commit(t, db)
				reverts = append(reverts, r)
				w.write()
			}
			close(stop)
			wg.Wait()
			all := states(t, db)
			for _, r := range reverts {
				r.check(t, all)
			}
			for id := 1; id < len(all); id++ {
				mustInvert(t, db, batchlog.ID(id), all[id-1], all[id])
			}
			verified(t, db)
		})
	}
}

type revertCase struct {
	space  *batchlog.Space
	to, id batchlog.ID
}

func (r *revertCase) commit(t *testing.T, db *DB) {
	t.Helper()
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Revert(r.space, r.to); err != nil {
		t.Fatal(err)
	}
	if r.id, err = c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// check compares the state that the revert has left with that at the commit, within its space, and with the one before it, outside.
func (r *revertCase) check(t *testing.T, all []map[string]string) {
	t.Helper()
	open := string(r.space.Stored()[:len(r.space.Stored())-1])
	in := func(k string) bool { return len(k) >= len(open) && k[:len(open)] == open }
	want := map[string]string{}
	for k, v := range all[r.to] {
		if in(k) {
			want[k] = v
		}
	}
	for k, v := range all[r.id-1] {
		if !in(k) {
			want[k] = v
		}
	}
	if got := all[r.id]; !maps.Equal(got, want) {
		t.Errorf("commit %d, back to %d in %s: %s", r.id, r.to, r.space, difference(got, want))
	}
}

// writeUntil writes single keys until stop is closed.
func writeUntil(t *testing.T, db *DB, stop chan struct{}) {
	w := &undoWriter{t, db, rand.New(rand.NewPCG(3, 1))}
	pause := 50 * time.Microsecond
	if testing.Short() { // the race detector slows reverts down more than writers
		pause = 2 * time.Millisecond
	}
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(w.rng.Int64N(int64(pause)))):
		}
		var b batchlog.Batch
		switch w.rng.IntN(6) {
		case 0:
			b.DeleteRange(w.space(), batchlog.Between(w.key(), w.key()))
		case 1:
			b.Delete(w.space(), w.key())
		default:
			b.Put(w.space(), batchlog.K(w.rng.IntN(1000)), []byte("other"))
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Error(err)
			return
		}
	}
}

// Verify tells of inverses that are not those of their commits.
func TestVerifyInverses(t *testing.T) {
	fill := func(db *DB, values ...string) *DB {
		for _, v := range values {
			if _, err := db.Root().Put(t.Context(), batchlog.K("key"), []byte(v)); err != nil {
				t.Fatal(err)
			}
		}
		return db
	}
	for name, other := range map[string][]string{
		"another value": {"a", "x", "c", "d"},
		"no change":     {"a", "a", "c", "d"},
		"the same":      {"a", "b", "c", "d"},
	} {
		t.Run(name, func(t *testing.T) {
			db := fill(chainDB(t, Options{Log: batchlog.LogConfig{Undo: true}}), "a", "b", "c", "d")
			from := fill(chainDB(t, Options{Log: batchlog.LogConfig{Undo: true}}), other...)
			verified(t, db)
			if err := from.Flush(t.Context()); err != nil { // applied
				t.Fatal(err)
			}
			if err := db.engine.store.CopyInverses(t.Context(), from.engine.store, batchlog.IDRange{First: 1, Last: 4}); err != nil {
				t.Fatal(err)
			}
			r, err := db.Verify(t.Context(), VerifyOptions{})
			if err != nil || (len(r.Problems) == 0) != (name == "the same") || r.Inverses != 4 {
				t.Errorf("%d inverses, problems %v, %v", r.Inverses, r.Problems, err)
			}
		})
	}
}
