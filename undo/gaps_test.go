package undo_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

func putAs(t testing.TB, db *local.DB, s *batchlog.Space, actor string, key any, value string) batchlog.ID {
	t.Helper()
	b := batchlog.Batch{Labels: map[string]string{"actor": actor}}
	b.Put(s, batchlog.K(key), []byte(value))
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A retry with the token of an undo that was made, but whose answer was lost, is that undo.
func TestTokenRetry(t *testing.T) {
	db := openUndo(t)
	s := db.Space("s")
	put(t, s, "k", "one")
	id := put(t, s, "k", "two")
	for _, take := range []func(context.Context, *batchlog.DB, batchlog.ID, undo.Options) (batchlog.ID, error){undo.Undo, undo.Redo} {
		o := undo.Options{Token: fmt.Sprintf("t%p", take)}
		first, err := take(t.Context(), db.DB, id, o)
		if err != nil {
			t.Fatal(err)
		}
		again, err := take(t.Context(), db.DB, id, o)
		if err != nil || again != first {
			t.Errorf("again: %d, %v; want %d", again, err, first)
		}
	}
	want(t, s, "k", "two")
}

// The labels that say what a commit takes back are true, whatever the caller's say.
func TestOwnLabels(t *testing.T) {
	db := openUndo(t)
	id := put(t, db.Root(), "k", "one")
	done, err := undo.Undo(t.Context(), db.DB, id, undo.Options{Labels: map[string]string{"undo": "77"}})
	if err != nil {
		t.Fatal(err)
	}
	if labels := commit(t, db, done).Labels; labels[undo.LabelUndo] != id.String() {
		t.Errorf("labels %v", labels)
	}
}

// The commit that a long cascade began with can be brought back.
func TestLongCascade(t *testing.T) {
	db := openUndo(t)
	for i := range 1500 {
		put(t, db.Root(), "k", fmt.Sprint(i))
	}
	mustUndo(t, db, 1, undo.Options{Cascade: true})
	want(t, db.Root(), "k", "")
	if _, err := undo.Redo(t.Context(), db.DB, 1, undo.Options{}); err != nil {
		t.Fatal(err)
	}
	want(t, db.Root(), "k", "1499")
}

// A large commit all of whose keys were changed since has conflicts as a small one.
func TestAllConflicts(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	db := openUndo(t)
	s := db.Space("s")
	id := fillLarge(t, db, s, "one")
	later := fillLarge(t, db, s, "two")
	var conflict *undo.ConflictError
	if _, err := undo.Undo(t.Context(), db.DB, id, undo.Options{}); !errors.As(err, &conflict) || conflict.More != largeKeys-1000 || conflict.Conflicts[0].ID != later {
		t.Errorf("conflicts: %.200v", err)
	}
	if p, err := undo.PreviewUndo(t.Context(), db.DB, id, undo.Options{}); err != nil || p.Keys != 0 {
		t.Errorf("preview: %v", err)
	}
}

// A history of more than is held in memory is read in smaller windows, and the same.
func TestHistoryWindows(t *testing.T) {
	db := openUndo(t)
	s := db.Space("s")
	const n = 400
	for i := range n {
		put(t, s, "other", "x")
		put(t, s, "k", fmt.Sprint(i))
	}
	for _, bytes := range []int{0, 10, 100} {
		undo.SetWindowBytes(t, bytes)
		i := n
		for v, err := range undo.History(t.Context(), db.DB, s, batchlog.K("k")) {
			if err != nil {
				t.Fatal(err)
			}
			if i--; string(v.Value.Bytes) != fmt.Sprint(i) || v.ID != batchlog.ID(2*i+2) {
				t.Fatalf("version %d with %d bytes: %+v", i, bytes, v)
			}
		}
		if i != 0 {
			t.Errorf("%d left with %d bytes", i, bytes)
		}
	}
}

// An interposed engine calls before, once, when a commit is about to be made.
type interposed struct {
	batchlog.Engine
	batchlog.Undoer
	batchlog.Chainer
	before func()
}

func (e *interposed) Commit(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if f := e.before; f != nil {
		e.before = nil
		f()
	}
	return e.Engine.Commit(ctx, p)
}

// A step that was taken back elsewhere in the last moment is not taken back again, even if its key holds again what it has left.
func TestStackLastMoment(t *testing.T) {
	db := openUndo(t)
	s := db.Root()
	put(t, s, "k", "a")
	putAs(t, db, s, "ada", "k", "b")
	e := &interposed{Engine: db.Inside().Engine(), Undoer: db.Inside().Engine().(batchlog.Undoer), Chainer: db.Inside().Engine().(batchlog.Chainer)}
	e.before = func() {
		if _, err := undo.Stack(db.DB, "actor", "ada").Undo(t.Context()); err != nil {
			t.Error(err)
		}
		putAs(t, db, s, "bob", "k", "b")
	}
	if id, err := undo.Stack(batchlog.New(e), "actor", "ada").Undo(t.Context()); !errors.Is(err, undo.ErrNothing) {
		t.Errorf("taken back a second time, by %d, %v", id, err)
	}
	want(t, s, "k", "b")
	// A redo, too: here something new comes in between.
	s = db.Space("other")
	putAs(t, db, s, "eve", "k", "b")
	stack := undo.Stack(batchlog.New(e), "actor", "eve")
	if _, err := stack.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.before = func() { putAs(t, db, s, "eve", "j", "new") }
	if id, err := stack.Redo(t.Context()); err == nil {
		// Its keys are free, so the redo itself may go through before the new step; but not after it.
		if u, _, err := stack.Next(t.Context()); err != nil || u != id {
			t.Errorf("redo %d after a new step: %d, %v", id, u, err)
		}
	}
}

// A cascade takes along what others commit in the last moment.
func TestCascadeLastMoment(t *testing.T) {
	db := openUndo(t)
	s := db.Root()
	put(t, s, "k", "a")
	id := put(t, s, "k", "b")
	put(t, s, "other", "x")
	e := &interposed{Engine: db.Inside().Engine(), Undoer: db.Inside().Engine().(batchlog.Undoer), Chainer: db.Inside().Engine().(batchlog.Chainer)}
	e.before = func() { put(t, s, "k", "c") }
	done, err := undo.Undo(t.Context(), batchlog.New(e), id, undo.Options{Cascade: true})
	if err != nil || commit(t, db, done).Labels[undo.LabelUndo] != "4,2" {
		t.Fatal(done, err)
	}
	want(t, s, "k", "a")
}

// A large commit whose keys lie far apart.
func TestLargeSparse(t *testing.T) {
	undo.SetSmallKeys(t, 0)
	db := openUndo(t)
	s := db.Space("s")
	var b batchlog.Batch
	for i := range 1000 {
		b.Put(s, batchlog.K(i), []byte("others"))
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	for _, i := range []int{3, 400, 800, 999, 2000} {
		b.Put(s, batchlog.K(i), []byte("new"))
	}
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, 800, "later")
	_, err = undo.Undo(t.Context(), db.DB, id, undo.Options{})
	if conflict := (*undo.ConflictError)(nil); !errors.As(err, &conflict) || text(conflict.Conflicts) != "s/800 by 3" {
		t.Fatal(err)
	}
	mustUndo(t, db, id, undo.Options{Force: true})
	for key, value := range map[int]string{3: "others", 400: "others", 500: "others", 800: "later", 999: "others", 2000: ""} {
		want(t, s, key, value)
	}
}

// A hook that refuses with a conflict is not asked again.
func TestLargeHook(t *testing.T) {
	undo.SetSmallKeys(t, 0)
	db := openUndo(t)
	id := put(t, db.Root(), "k", "v")
	calls := 0
	db.PreCommit(db.Root(), func(*batchlog.Tx, []batchlog.Op) error {
		calls++
		return fmt.Errorf("no: %w", batchlog.ErrConflict)
	})
	if _, err := undo.Undo(t.Context(), db.DB, id, undo.Options{}); !errors.Is(err, batchlog.ErrConflict) || calls != 1 {
		t.Errorf("%d calls: %v", calls, err)
	}
}
