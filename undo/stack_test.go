package undo_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

// An actor has a stack, and what should be on it.
type actor struct {
	name       string
	stack      *undo.ActorStack
	undo, redo []batchlog.ID
}

func last(ids []batchlog.ID) batchlog.ID {
	if len(ids) == 0 {
		return 0
	}
	return ids[len(ids)-1]
}

// take has the actor take back what is on top of one list, which then is on top of the other.
func (a *actor) take(m *model, what string, step func(context.Context) (batchlog.ID, error), from, to *[]batchlog.ID) {
	m.t.Helper()
	id := last(*from)
	done, err := step(m.t.Context())
	if id == 0 {
		if !errors.Is(err, undo.ErrNothing) {
			m.t.Fatalf("%s of %s with nothing there: %d, %v", what, a.name, done, err)
		}
		return
	}
	if want := m.conflicts(id); len(want) > 0 {
		m.wantConflicts(id, err, want)
		return
	}
	m.wantState(fmt.Sprintf("%s of %d by %s", what, id, a.name), done, err, m.restored(m.changed(id), id-1))
	*from, *to = (*from)[:len(*from)-1], append(*to, done)
}

// TestStacks has two actors write, undo and redo in turn, with a third one who has no stack, and reopenings.
func TestStacks(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, 100+seed)
			defer func() { m.close() }()
			actors := []*actor{{name: "ada"}, {name: "bob"}}
			for n := range 200 {
				if n%50 == 0 {
					m.close()
					m.open()
					for _, a := range actors {
						a.stack = undo.Stack(m.db.DB, "actor", a.name)
					}
				}
				a := actors[m.rng.IntN(2)]
				switch m.rng.IntN(7) {
				case 0:
					m.write("")
				case 1, 2:
					a.undo, a.redo = append(a.undo, m.write(a.name)), nil
				case 3, 4:
					a.take(m, "undo", a.stack.Undo, &a.undo, &a.redo)
				case 5:
					a.take(m, "redo", a.stack.Redo, &a.redo, &a.undo)
				default:
					u, r, err := undo.Stack(m.db.DB, "actor", a.name).Next(t.Context())
					if err != nil || u != last(a.undo) || r != last(a.redo) {
						t.Fatalf("%s would undo %d and redo %d, %v; want %d and %d", a.name, u, r, err, last(a.undo), last(a.redo))
					}
				}
			}
			if r, err := m.db.Verify(t.Context(), local.VerifyOptions{}); err != nil || len(r.Problems) > 0 {
				t.Errorf("verify: %v, %v", r.Problems, err)
			}
		})
	}
}
