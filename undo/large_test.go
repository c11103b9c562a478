package undo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What is too large for a transaction is taken back by a chain, with the same outcome.
func TestLarge(t *testing.T) {
	t.Run("by keys", func(t *testing.T) {
		undo.Bounds(t, 0, 16<<20)
		TestConflicts(t)
		TestStackTwice(t)
	})
	t.Run("by bytes", func(t *testing.T) {
		undo.Bounds(t, 100, 0)
		TestConflicts(t)
	})
}

// A chain of many megabytes, in a space full of others' keys, with conflicts.
func TestLargeChain(t *testing.T) {
	undo.Bounds(t, 100, 1<<20)
	db := open(t, vfs.NewMem(), local.Options{ChainBytes: 256 << 10, Log: batchlog.LogConfig{BlobBytes: 4096}})
	s := db.Space("s")
	fill := func(step int, value string) batchlog.ID {
		c, err := db.Chain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := 0; i < 30_000; i += step {
			c.Put(s, batchlog.K(i), fmt.Appendf(nil, "%s %d %0100d", value, i, i))
		}
		c.Put(s, batchlog.K("blob"), []byte(value+string(make([]byte, 5000))))
		id, err := c.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	fill(1, "old")
	id := fill(3, "new")
	all := states(t, db)
	var told int
	back, err := undo.Undo(t.Context(), db.DB, id, undo.Options{Progress: func(batchlog.ChainProgress) { told++ }})
	if err != nil || told == 0 {
		t.Fatal(back, err, told)
	}
	all = fold(t, db, all)
	sameState(t, all[back], all[id-1])

	again, err := undo.Redo(t.Context(), db.DB, id, undo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all = fold(t, db, all)
	sameState(t, all[again], all[id])

	for i := range 100 { // every third is in the commit
		if _, err := s.Put(t.Context(), batchlog.K(i), []byte("other")); err != nil {
			t.Fatal(err)
		}
	}
	var conflict *undo.ConflictError
	if _, err := undo.Undo(t.Context(), db.DB, again, undo.Options{}); !errors.As(err, &conflict) {
		t.Fatal(err)
	}
	if len(conflict.Conflicts) != 34 || conflict.More != 0 {
		t.Errorf("%d conflicts and %d more", len(conflict.Conflicts), conflict.More)
	}
	for i, k := range conflict.Conflicts {
		if string(k.Key) != string(batchlog.K(3*i)) || k.ID != again+1+batchlog.ID(3*i) {
			t.Fatalf("conflict %d: %v", i, k)
		}
	}
	left := 0
	forced, err := undo.Undo(t.Context(), db.DB, again, undo.Options{Force: true, Left: func(undo.Conflict) { left++ }})
	if err != nil || left != 34 {
		t.Fatal(forced, err, left)
	}
	all = fold(t, db, all)
	want := all[id-1]
	for i := range 100 {
		k := string(s.Stored()) + string(batchlog.K(i))
		want[k] = "other"
	}
	sameState(t, all[forced], want)
}

func sameState(t *testing.T, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d keys, not %d", len(got), len(want))
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Fatalf("%x is %.40q, %t; want %.40q", k, g, ok, v)
		}
	}
}

// More conflicts than are named.
func TestManyConflicts(t *testing.T) {
	for _, keys := range []int{100_000, 10} {
		undo.Bounds(t, keys, 16<<20)
		db := mem(t)
		for _, v := range []string{"1", "2"} {
			var b batchlog.Batch
			for i := range 1500 {
				b.Put(db.Root(), batchlog.K(i), []byte(v))
			}
			if _, err := db.Write(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
		}
		_, err := undo.Undo(t.Context(), db.DB, 1, undo.Options{})
		var conflict *undo.ConflictError
		if !errors.As(err, &conflict) || len(conflict.Conflicts) != undo.MaxConflicts || conflict.More != 500 || conflict.Conflicts[999].ID != 2 {
			t.Error(err)
		}
		p, err := undo.Preview(t.Context(), db.DB, 1, undo.Options{})
		if err != nil || len(p.Conflicts) != undo.MaxConflicts || p.More != 500 || p.Keys != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

// Undos in the middle of writes by others: each is as if alone, or a conflict. Every undo is checked against the state before it.
func TestBusy(t *testing.T) {
	for _, large := range []bool{false, true} {
		if large {
			undo.Bounds(t, 0, 16<<20)
		}
		db := open(t, vfs.NewMem(), local.Options{Log: batchlog.LogConfig{BlobBytes: 1024}})
		w := writer{t: t, db: db, rng: rand.New(rand.NewPCG(1, 3))}
		for range 30 {
			w.write()
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for seed := range uint64(2) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 5))
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(rng.IntN(1000)) * time.Microsecond):
					}
					if _, err := db.Space("a").Put(t.Context(), batchlog.K(rng.IntN(12)), fmt.Appendf(nil, "v%d", rng.IntN(4))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		undone := map[batchlog.ID]batchlog.ID{}
		var forced = map[batchlog.ID]bool{}
		for range 60 {
			id := w.write()
			o := undo.Options{Force: w.rng.IntN(2) == 0}
			by, err := undo.Undo(t.Context(), db.DB, id, o)
			var conflict *undo.ConflictError
			if err != nil && !errors.As(err, &conflict) {
				t.Fatal(err)
			}
			if err == nil {
				undone[by], forced[by] = id, o.Force
			}
		}
		close(stop)
		wg.Wait()
		all := states(t, db)
		for by, id := range undone {
			want, conflicts := takeBack(all[by-1], all[id-1], all[id])
			if len(conflicts) > 0 && !forced[by] {
				t.Errorf("commit %d takes back %d against conflicts on %q", by, id, conflicts)
			}
			sameState(t, all[by], want)
		}
		if len(undone) < 10 {
			t.Errorf("only %d undos", len(undone))
		}
	}
}
