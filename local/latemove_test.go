package local

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
)

// What a chain puts into a tree after it has moved it stays, whatever others put there while the chain is built.
func TestMoveTreeLateOwnPuts(t *testing.T) {
	db := chainDB(t, Options{})
	src, dst := db.Space("src"), db.Space("dst")
	var b batchlog.Batch
	for i := range 5000 {
		b.Put(src.Space("x"), batchlog.K(i), bytes.Repeat([]byte("v"), 50))
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.MoveTree(dst, src); err != nil {
		t.Fatal(err)
	}
	for _, space := range []string{"x", "y"} {
		c.Put(src.Space(space), batchlog.K("own"), []byte("own"))
	}
	written := false
	c.Progress = func(p batchlog.ChainProgress) {
		if p.Stage != "sort" || written {
			return
		}
		written = true
		for _, space := range []string{"x", "y"} {
			if _, err := src.Space(space).Put(t.Context(), batchlog.K("late"), []byte("late")); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := c.Commit(t.Context()); err != nil || !written {
		t.Fatal(err, written)
	}
	for _, space := range []string{"x", "y"} {
		got := ""
		for _, s := range []*batchlog.Space{src, dst} {
			for _, key := range []string{"own", "late"} {
				value, err := s.Space(space).Get(t.Context(), batchlog.K(key))
				if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
					t.Fatal(err)
				}
				got += fmt.Sprintf("%q ", value)
			}
		}
		if want := `"own" "" "" "late" `; got != want {
			t.Errorf("%s: own and late in source and target: %s, want %s", space, got, want)
		}
	}
	verified(t, db)
}
