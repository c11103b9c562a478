package undo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func open(t testing.TB, o local.Options) *local.DB {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	db, err := local.Open("db", &o)
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

func openUndo(t testing.TB) *local.DB {
	t.Helper()
	return open(t, local.Options{Log: batchlog.LogConfig{Undo: true}})
}

func put(t testing.TB, s *batchlog.Space, key any, value string) batchlog.ID {
	t.Helper()
	id, err := s.Put(t.Context(), batchlog.K(key), []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// want checks the value of a key; "" is none.
func want(t testing.TB, s *batchlog.Space, key any, value string) {
	t.Helper()
	got, err := s.Get(t.Context(), batchlog.K(key))
	if errors.Is(err, batchlog.ErrNotFound) && value == "" {
		return
	}
	if err != nil || string(got) != value {
		t.Errorf("%v is %q, %v, want %q", key, got, err, value)
	}
}

func mustUndo(t testing.TB, db *local.DB, id batchlog.ID, o undo.Options) batchlog.ID {
	t.Helper()
	done, err := undo.Undo(t.Context(), db.DB, id, o)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func commit(t testing.TB, db *local.DB, id batchlog.ID) *batchlog.Commit {
	t.Helper()
	c, err := undo.Commit(t.Context(), db.DB, id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An undo is a commit that says what it is; undo of undo of undo is right.
func TestUndoOfUndo(t *testing.T) {
	db := openUndo(t)
	s := db.Space("s")
	put(t, s, "k", "one")
	id := put(t, s, "k", "two")
	value := "two"
	for i := range 6 {
		taken := id
		id = mustUndo(t, db, id, undo.Options{Labels: map[string]string{"actor": "ada"}, Token: fmt.Sprint("t", i)})
		if value = map[string]string{"one": "two", "two": "one"}[value]; value == "" {
			t.Fatal("no value")
		}
		want(t, s, "k", value)
		if c := commit(t, db, id); c.Labels[undo.LabelUndo] != taken.String() || c.Labels["actor"] != "ada" || c.Len() != 1 {
			t.Errorf("commit %d has labels %v, %d ops", id, c.Labels, c.Len())
		}
	}
	// The same token: the same commit.
	again, err := undo.Undo(t.Context(), db.DB, id-1, undo.Options{Token: "t5"})
	if err != nil || again != id {
		t.Errorf("token used again: %d, %v", again, err)
	}
	want(t, s, "k", value)
}

func TestUndoErrors(t *testing.T) {
	db := open(t, local.Options{})
	s := db.Space("s")
	id := put(t, s, "k", "v")
	var missing *batchlog.InverseError
	if _, err := undo.Undo(t.Context(), db.DB, id, undo.Options{}); !errors.As(err, &missing) || !errors.Is(err, batchlog.ErrNoInverse) || missing.ID != id {
		t.Errorf("with undo off: %v", err)
	}
	if _, err := undo.To(t.Context(), db.DB, 0, undo.Options{}); !errors.As(err, &missing) || missing.ID != id {
		t.Errorf("to, with undo off: %v", err)
	}
	if err := db.Configure(t.Context(), batchlog.LogConfig{Undo: true}); err != nil {
		t.Fatal(err)
	}
	id = put(t, s, "k", "w")
	for what, err := range map[string]error{
		"no such commit":       second(undo.Undo(t.Context(), db.DB, 99, undo.Options{})),
		"commit 0":             second(undo.Undo(t.Context(), db.DB, 0, undo.Options{})),
		"redo no such commit":  second(undo.Redo(t.Context(), db.DB, 99, undo.Options{})),
		"to a later one":       second(undo.To(t.Context(), db.DB, 99, undo.Options{})),
		"diff with a later":    second(undo.Diff(t.Context(), db.DB, 1, 99)),
		"a preview of no such": second(undo.PreviewUndo(t.Context(), db.DB, 99, undo.Options{})),
	} {
		if !errors.Is(err, batchlog.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"force and cascade":  second(undo.Undo(t.Context(), db.DB, id, undo.Options{Force: true, Cascade: true})),
		"undo in one space":  second(undo.Undo(t.Context(), db.DB, id, undo.Options{Space: s})),
		"to with force":      second(undo.To(t.Context(), db.DB, id, undo.Options{Force: true})),
		"redo with a space":  second(undo.Redo(t.Context(), db.DB, id, undo.Options{Space: s})),
		"preview with force": second(undo.PreviewUndo(t.Context(), db.DB, id, undo.Options{Force: true, Cascade: true})),
	} {
		if !errors.Is(err, batchlog.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := undo.Redo(t.Context(), db.DB, id, undo.Options{}); !errors.Is(err, undo.ErrNotUndone) {
		t.Errorf("redo of what was not undone: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := undo.Undo(ended, db.DB, id, undo.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
	if head, err := db.Head(t.Context()); err != nil || head != id {
		t.Errorf("head %d, %v: something was written", head, err)
	}
}

func second[T any](_ T, err error) error { return err }

// The error of a conflict says which keys, and who has written them.
func TestConflictText(t *testing.T) {
	db := openUndo(t)
	s := db.Space("docs")
	id := put(t, s, "a", "1")
	var b batchlog.Batch
	for i := range 1500 {
		b.Put(s, batchlog.K(i), []byte("x"))
	}
	many, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	later := put(t, s, "a", "2")
	_, err = undo.Undo(t.Context(), db.DB, id, undo.Options{})
	if text := fmt.Sprintf("commit %d can't be taken back: a key was changed since: \"a\" in docs, by commit %d", id, later); err == nil || err.Error() != text {
		t.Errorf("%v, want %s", err, text)
	}
	b = batchlog.Batch{}
	b.DeleteRange(s, batchlog.Range{})
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	var conflict *undo.ConflictError
	_, err = undo.Undo(t.Context(), db.DB, many, undo.Options{})
	if !errors.As(err, &conflict) || len(conflict.Conflicts) != 1000 || conflict.More != 500 || conflict.Conflicts[999].ID != later+1 || !strings.Contains(err.Error(), "1500 keys were") {
		t.Errorf("many conflicts: %v", err)
	}
	left := 0
	put(t, s, 7, "x")
	mustUndo(t, db, many, undo.Options{Force: true, Left: func(undo.Conflict) { left++ }})
	want(t, s, 7, "")
	if left != 1499 {
		t.Errorf("left %d", left)
	}
}

// Redo means what is in effect.
func TestRedo(t *testing.T) {
	db := openUndo(t)
	s := db.Space("s")
	put(t, s, "k", "one")
	id := put(t, s, "k", "two")
	undone := mustUndo(t, db, id, undo.Options{})
	redo := func(id batchlog.ID, value string) batchlog.ID {
		t.Helper()
		done, err := undo.Redo(t.Context(), db.DB, id, undo.Options{})
		if err != nil {
			t.Fatal(err)
		}
		want(t, s, "k", value)
		return done
	}
	again := redo(id, "two")
	if c := commit(t, db, again); c.Labels[undo.LabelRedo] != undone.String() || c.Labels[undo.LabelUndo] != "" {
		t.Errorf("labels of a redo: %v", c.Labels)
	}
	if _, err := undo.Redo(t.Context(), db.DB, id, undo.Options{}); !errors.Is(err, undo.ErrNotUndone) {
		t.Errorf("redo of what is back: %v", err)
	}
	redo(undone, "one") // it was taken back by the redo, which is taken back
	redo(undone, "two") // it is in effect again
	// What has taken back the redo would have to go, but its key was written since.
	if _, err := undo.Redo(t.Context(), db.DB, again, undo.Options{}); !errors.Is(err, batchlog.ErrConflict) {
		t.Errorf("redo of a redo: %v", err)
	}
}

// The commit of a hook that refuses an undo is not made.
func TestUndoHooks(t *testing.T) {
	db := openUndo(t)
	s := db.Space("s")
	put(t, s, "k", "one")
	id := put(t, s, "k", "two")
	refuse := errors.New("no way back")
	remove := db.PreCommit(s, func(_ *batchlog.Tx, ops []batchlog.Op) error { return refuse })
	if _, err := undo.Undo(t.Context(), db.DB, id, undo.Options{}); !errors.Is(err, refuse) {
		t.Errorf("with a hook that refuses: %v", err)
	}
	remove()
	mustUndo(t, db, id, undo.Options{})
	want(t, s, "k", "one")
}
