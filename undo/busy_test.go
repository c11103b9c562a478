package undo_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/undo"
)

// Undos while others write the same keys, and copy spaces: each is as if it had been alone, against the state right before it.
func TestBusy(t *testing.T) {
	for _, large := range []bool{false, true} {
		t.Run(fmt.Sprint("large=", large), func(t *testing.T) {
			if large {
				undo.SetSmallKeys(t, 0)
			}
			m := newModel(t, 77)
			defer func() { m.close() }()
			var wg sync.WaitGroup
			stop := make(chan struct{})
			for seed := range uint64(2) {
				wg.Go(func() { m.others(seed, stop) })
			}
			undone := map[batchlog.ID]batchlog.ID{}
			forced, conflicts := map[batchlog.ID]bool{}, 0
			for range 80 {
				id := m.write("")
				o := undo.Options{Force: m.rng.IntN(2) == 0}
				by, err := undo.Undo(t.Context(), m.db.DB, id, o)
				if conflict := (*undo.ConflictError)(nil); errors.As(err, &conflict) || large && errors.Is(err, batchlog.ErrConflict) {
					conflicts++ // or a chain that has lost too often
					continue
				}
				if err != nil {
					t.Error(err)
					break
				}
				undone[by], forced[by] = id, o.Force
			}
			close(stop)
			wg.Wait()
			m.follow(m.logHead())
			for by, id := range undone {
				m.checkBusy(by, id, forced[by])
			}
			t.Logf("%d commits, %d undos, %d conflicts", m.head(), len(undone), conflicts)
			if len(undone) < 20 {
				t.Errorf("only %d undos", len(undone))
			}
		})
	}
}

func (m *model) logHead() batchlog.ID {
	m.t.Helper()
	head, err := m.db.Head(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return head
}

// others writes until stop is closed.
func (m *model) others(seed uint64, stop chan struct{}) {
	rng := rand.New(rand.NewPCG(seed, 5))
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.IntN(1500)) * time.Microsecond):
		}
		var err error
		if rng.IntN(30) == 0 {
			_, err = m.db.CopyRange(m.t.Context(), m.db.Space("a", "b"), m.db.Space("c"), batchlog.Range{})
		} else {
			_, err = m.db.Space("a").Put(m.t.Context(), batchlog.K(rng.IntN(12)), fmt.Appendf(nil, "v%d", rng.IntN(4)))
		}
		if err != nil {
			m.t.Error(err)
			return
		}
	}
}

// checkBusy checks that commit by has taken back commit id, in the state that by came upon.
func (m *model) checkBusy(by, id batchlog.ID, forced bool) {
	m.t.Helper()
	was := m.states[by-1]
	want := maps.Clone(was)
	for k := range m.changed(id) {
		left, has := m.states[id][k]
		if now, there := was[k]; there != has || now != left {
			if !forced {
				m.t.Errorf("commit %d takes back %d against a conflict on %q", by, id, k)
			}
			continue
		}
		delete(want, k)
		if old, had := m.states[id-1][k]; had {
			want[k] = old
		}
	}
	if d := differing(m.states[by], want); len(d) > 0 {
		m.t.Errorf("commit %d, which takes back %d, differs in %d keys", by, id, len(d))
	}
}

// A chain gets through where others write between its keys all the time.
func TestBusyBetween(t *testing.T) {
	undo.SetSmallKeys(t, 0)
	db := openUndo(t)
	s := db.Space("s")
	var b batchlog.Batch
	for i := range 1000 {
		b.Put(s, batchlog.K(10*i), []byte("new"))
	}
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for seed := range uint64(3) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 9))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Put(t.Context(), batchlog.K(10*rng.IntN(1000)+5), []byte("other")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		done, err := undo.Undo(t.Context(), db.DB, id, undo.Options{})
		if err != nil {
			t.Error(err)
			break
		}
		want(t, s, 10, "")
		if id, err = undo.Redo(t.Context(), db.DB, done, undo.Options{}); err != nil {
			t.Error(err)
			break
		}
		want(t, s, 10, "new")
	}
	close(stop)
	wg.Wait()
}
