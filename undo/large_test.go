package undo_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/bytespace/batchlog/undo"
)

const largeKeys = 120_000 // more than a transaction takes back

// fillLarge writes many keys as one chain.
func fillLarge(t *testing.T, db *local.DB, s *batchlog.Space, value string) batchlog.ID {
	t.Helper()
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range largeKeys {
		c.Put(s, batchlog.K(i), []byte(value))
	}
	id, err := c.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// count counts the keys of a space by their values.
func count(t *testing.T, s *batchlog.Space) map[string]int {
	t.Helper()
	n := map[string]int{}
	for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		n[string(e.Value)]++
	}
	return n
}

func wantCount(t *testing.T, s *batchlog.Space, want map[string]int) {
	t.Helper()
	if got := count(t, s); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A commit that is too large for a transaction is taken back by a chain, with all that holds for small ones.
func TestUndoLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	db := openUndo(t)
	s := db.Space("s")
	fillLarge(t, db, s, "one")
	id := fillLarge(t, db, s, "two")
	undone := mustUndo(t, db, id, undo.Options{})
	wantCount(t, s, map[string]int{"one": largeKeys})
	if c := commit(t, db, undone); !c.Chained() || c.Labels[undo.LabelUndo] != id.String() {
		t.Errorf("commit %d: chained %t, labels %v", undone, c.Chained(), c.Labels)
	}
	if _, err := undo.Undo(t.Context(), db.DB, id, undo.Options{Cascade: true}); !errors.Is(err, batchlog.ErrTooLarge) {
		t.Errorf("cascade of a large one: %v", err)
	}
	redone, err := undo.Redo(t.Context(), db.DB, id, undo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantCount(t, s, map[string]int{"two": largeKeys})
	put(t, s, 1, "two") // what it is
	by := put(t, s, 2, "three")
	var b batchlog.Batch
	b.DeleteRange(s, batchlog.Between(batchlog.K(10), batchlog.K(20)))
	if _, err = db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	var conflict *undo.ConflictError
	if _, err := undo.Undo(t.Context(), db.DB, redone, undo.Options{}); !errors.As(err, &conflict) || len(conflict.Conflicts) != 11 || conflict.Conflicts[0].ID != by || conflict.Conflicts[10].ID != by+1 {
		t.Errorf("conflicts: %v", err)
	}
	p, err := undo.PreviewUndo(t.Context(), db.DB, redone, undo.Options{})
	if err != nil || p.Keys != largeKeys-11 || len(p.Conflicts) != 11 {
		t.Errorf("preview: %+v, %v", p, err)
	}
	left := 0
	mustUndo(t, db, redone, undo.Options{Force: true, Left: func(undo.Conflict) { left++ }})
	wantCount(t, s, map[string]int{"one": largeKeys - 11, "three": 1})
	if left != 11 {
		t.Errorf("left %d", left)
	}
}

// A range delete of many keys is taken back.
func TestUndoLargeRange(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	db := openUndo(t)
	s := db.Space("s")
	fillLarge(t, db, s, "one")
	var b batchlog.Batch
	b.DeleteRange(s, batchlog.Range{})
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	wantCount(t, s, map[string]int{})
	put(t, s, "new", "there was nothing") // no conflict: it was not deleted
	put(t, db.Space("other"), "new", "x")
	undone := mustUndo(t, db, id, undo.Options{})
	wantCount(t, s, map[string]int{"one": largeKeys, "there was nothing": 1})
	n := 0
	for c, err := range undo.Show(t.Context(), db.DB, undone) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Old.Exists || string(c.New.Bytes) != "one" {
			t.Fatalf("%s: %v → %v", c.Key, c.Old, c.New)
		}
		n++
	}
	if n != largeKeys {
		t.Errorf("%d changes", n)
	}
	if r, err := db.Verify(t.Context(), local.VerifyOptions{}); err != nil || len(r.Problems) > 0 {
		t.Errorf("verify: %v, %v", r.Problems, err)
	}
}

// What a task derives follows when its source is taken back, and can't be taken back itself.
func TestUndoDerived(t *testing.T) {
	db := openUndo(t)
	src, sum := db.Space("src"), db.Space("sum")
	runs, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		copies := task.Task{Name: "copies", Source: []*batchlog.Space{src}, Derives: []*batchlog.Space{sum}, Handle: copyTo(sum)}
		if err := task.Run(runs, db.DB, copies); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer stop()
	for { // registered
		if _, err := task.Get(t.Context(), db.DB, "copies"); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	start := put(t, src, "k", "one")
	id := put(t, src, "k", "two")
	want(t, sum, "k", "two")
	head, err := db.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	derived := batchlog.ID(0) // the commit of the task
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: head, Spaces: []*batchlog.Space{sum}}) {
		if err != nil {
			t.Fatal(err)
		}
		derived = c.ID
	}
	if _, err := undo.Undo(t.Context(), db.DB, derived, undo.Options{}); !errors.Is(err, batchlog.ErrPermission) {
		t.Errorf("undo of what a task has derived: %v", err)
	}
	undone := mustUndo(t, db, id, undo.Options{})
	want(t, sum, "k", "one")
	if _, err := undo.To(t.Context(), db.DB, start-1, undo.Options{}); err != nil {
		t.Fatal(err)
	}
	want(t, src, "k", "")
	want(t, sum, "k", "")
	if _, err := undo.Undo(t.Context(), db.DB, undone, undo.Options{}); !errors.Is(err, batchlog.ErrConflict) {
		t.Errorf("undo of an undo that was gone behind: %v", err)
	}
}

// copyTo is a handler that does to a space what was done to the source.
func copyTo(dst *batchlog.Space) func(ctx context.Context, w *task.Window) error {
	return func(_ context.Context, w *task.Window) error {
		for c, err := range w.Commits() {
			if err != nil {
				return err
			}
			for op, err := range c.Ops() {
				switch {
				case err != nil:
					return err
				case op.Kind == batchlog.OpPut:
					w.Put(dst, op.Key, op.Value)
				default:
					w.Delete(dst, op.Key)
				}
			}
		}
		return nil
	}
}
