package batchlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A contended is an engine on which a transaction loses a number of times. It notes what it was asked.
type contended struct {
	mapStore
	lose  int // commits that fail with ErrConflict
	calls []string
	turn  uint64
	held  bool  // by the turn that was given out last
	alone error // of Alone
	last  Proposal
}

func (e *contended) note(format string, args ...any) {
	e.calls = append(e.calls, fmt.Sprintf(format, args...))
}

func (e *contended) Commit(_ context.Context, p *Proposal) (ID, error) {
	e.note("commit turn=%d base=%d", p.Turn, p.Reads.Base)
	e.last = *p
	if e.lose > 0 {
		e.lose--
		e.id++ // of the commit that came between
		return 0, fmt.Errorf("%w: lost", ErrConflict)
	}
	return e.apply(p), nil
}

func (e *contended) Log(context.Context, LogOptions) (LogReader, error) {
	return nil, ErrUnsupported
}
func (e *contended) Head(context.Context) (ID, error) { return e.id, nil }
func (e *contended) Close() error                     { return nil }

// A queue is a contended engine with turns.
type queue struct{ contended }

func (e *queue) Alone(context.Context) (uint64, func(), error) {
	if e.alone != nil {
		return 0, nil, e.alone
	}
	if e.held {
		panic("two turns at once")
	}
	e.turn++
	e.held = true
	e.note("alone %d", e.turn)
	return e.turn, func() {
		e.held = false
		e.note("release")
	}, nil
}

func put(s *Space) func(tx *Tx) error {
	return func(tx *Tx) error {
		tx.Put(s, nil, nil)
		return nil
	}
}

// A transaction that loses is run again on a newer view, after a growing wait; when it has lost often it runs alone, without
// waits, until it gets through.
func TestUpdateRetries(t *testing.T) {
	for lose := range 8 {
		synctest.Test(t, func(t *testing.T) {
			e := &queue{contended{lose: lose}}
			db := New(e)
			began := time.Now()
			runs := 0
			id, err := db.Update(t.Context(), func(tx *Tx) error {
				if runs++; tx.Base() != ID(runs-1) {
					t.Errorf("run %d reads the view at %d", runs, tx.Base())
				}
				tx.SetLabel("run", fmt.Sprint(runs))
				tx.SetToken("token")
				return put(db.Root())(tx)
			})
			if err != nil || id != ID(lose+1) || runs != lose+1 {
				t.Errorf("lost %d times: %d, %v, after %d runs", lose, id, err, runs)
			}
			var want []string
			for i := range lose + 1 {
				if i < updateAloneAfter {
					want = append(want, fmt.Sprintf("commit turn=0 base=%d", i))
				} else {
					turn := i - updateAloneAfter + 1
					want = append(want, fmt.Sprintf("alone %d", turn), fmt.Sprintf("commit turn=%d base=%d", turn, i), "release")
				}
			}
			if !slices.Equal(e.calls, want) {
				t.Errorf("lost %d times: %q, want %q", lose, e.calls, want)
			}
			most := time.Duration(0)
			for i := range min(lose, updateAloneAfter) {
				most += min(updateBackoff<<i, updateBackoffMax)
			}
			if waited := time.Since(began); waited > most || lose > 1 && waited == 0 {
				t.Errorf("lost %d times: waited %v of at most %v", lose, waited, most)
			}
			if open := e.open.Load(); open != 0 {
				t.Errorf("lost %d times: %d snapshots are open", lose, open)
			}
			m, err := DecodeMeta(e.last.Meta)
			if err != nil || m.Token != "token" || m.Labels["run"] != fmt.Sprint(runs) || e.last.Token != "token" {
				t.Errorf("meta %+v, %v", m, err)
			}
		})
	}
}

// Where there are no turns it goes on waiting between tries, up to a bound.
func TestUpdateWithoutTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lose = 300
		e := &contended{lose: lose}
		db := New(e)
		began := time.Now()
		if id, err := db.Update(t.Context(), put(db.Root())); err != nil || id != lose+1 {
			t.Error(id, err)
		}
		if waited := time.Since(began); waited < lose*updateBackoffMax/4 || waited > lose*updateBackoffMax {
			t.Errorf("waited %v for %d tries", waited, lose)
		}
	})
}

// What the function says counts, also when it says ErrConflict itself; nothing is written and nothing is run again.
func TestUpdateRefuses(t *testing.T) {
	e := &queue{}
	db := New(e)
	for _, want := range []error{errBroken, ErrConflict, fmt.Errorf("mine: %w", ErrConflict)} {
		runs := 0
		id, err := db.Update(t.Context(), func(tx *Tx) error {
			runs++
			tx.Put(db.Root(), nil, nil)
			return want
		})
		if id != 0 || !errors.Is(err, want) || runs != 1 || len(e.calls) > 0 || e.open.Load() != 0 {
			t.Errorf("%v: %d, %v after %d runs, %q, %d open", want, id, err, runs, e.calls, e.open.Load())
		}
	}
	for name, fn := range map[string]func(tx *Tx) error{
		"nothing": func(*Tx) error { return nil },
		"a read": func(tx *Tx) error {
			_, err := tx.Get(db.Root(), nil)
			if !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
			return nil
		},
		"a label":            func(tx *Tx) error { tx.SetLabel("a", "b"); return nil },
		"a range of nothing": func(tx *Tx) error { tx.DeleteRange(db.Root(), Between(Key("b"), Key("a"))); return nil },
	} {
		if id, err := db.Update(t.Context(), fn); id != 0 || err != nil || len(e.calls) > 0 {
			t.Errorf("wrote %s: %d, %v, %q", name, id, err, e.calls)
		}
	}
}

// Errors of the engine end it; other than a conflict none is tried again.
func TestUpdateErrors(t *testing.T) {
	commits := 0
	store := &mapStore{}
	e := &stub{view: store.View, commit: func(context.Context, *Proposal) (ID, error) {
		commits++
		return 0, ErrUncertain
	}}
	db := New(e)
	if id, err := db.Update(t.Context(), put(db.Root())); id != 0 || !errors.Is(err, ErrUncertain) || commits != 1 {
		t.Error(id, err, commits)
	}
	e.view = func(context.Context, ReadOptions) (Snapshot, error) { return nil, ErrClosed }
	if _, err := db.Update(t.Context(), put(db.Root())); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	q := &queue{contended{lose: 100, alone: errBroken}}
	db = New(q)
	if _, err := db.Update(t.Context(), put(db.Root())); !errors.Is(err, errBroken) || q.open.Load() != 0 {
		t.Error(err, q.open.Load())
	}
	// A panic of the function is its caller's; the view is closed and the turn given back.
	q = &queue{contended{lose: updateAloneAfter}}
	db = New(q)
	runs := 0
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_, _ = db.Update(t.Context(), func(tx *Tx) error {
			if runs++; runs > updateAloneAfter {
				panic("mine")
			}
			return put(db.Root())(tx)
		})
	}()
	if q.held || q.open.Load() != 0 {
		t.Errorf("turn held %v, %d snapshots open", q.held, q.open.Load())
	}
}

// The end of the context ends the wait between tries, with its cause.
func TestUpdateCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &contended{lose: 1 << 30}
		db := New(e)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errBroken)
		defer cancel()
		began := time.Now()
		if _, err := db.Update(ctx, put(db.Root())); !errors.Is(err, errBroken) {
			t.Error(err)
		}
		if waited := time.Since(began); waited != 50*time.Millisecond {
			t.Errorf("after %v", waited)
		}
	})
}
