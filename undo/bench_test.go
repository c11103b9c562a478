package undo_test

import (
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/undo"
)

// An undo of a commit with one op, against an Update with one: it reads the commit and its inverse besides.
func BenchmarkUndo(b *testing.B) {
	for _, what := range []string{"update", "undo", "stack"} {
		b.Run(what, func(b *testing.B) {
			db := openUndo(b)
			s := db.Space("s")
			update := func(i int) batchlog.ID {
				id, err := db.Update(b.Context(), func(tx *batchlog.Tx) error {
					tx.SetLabel("actor", "ada")
					if _, err := tx.Get(s, batchlog.K(i%1000)); err != nil && i >= 1000 {
						return err
					}
					tx.Put(s, batchlog.K(i%1000), fmt.Append(nil, i))
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
				return id
			}
			for i := range 1000 {
				update(i)
			}
			stack := undo.Stack(db.DB, "actor", "ada")
			for i := 0; b.Loop(); i++ {
				if what == "update" {
					update(1000 + i)
					continue
				}
				b.StopTimer()
				id := update(1000 + i)
				b.StartTimer()
				var err error
				if what == "undo" {
					_, err = undo.Undo(b.Context(), db.DB, id, undo.Options{})
				} else {
					_, err = stack.Undo(b.Context())
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
