package batchlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A contended is an engine on which a transaction loses a number of times. It notes what it was asked.
type contended struct {
	mapStore
	lose  int // commits that fail with ErrConflict
	calls []string
	last  waist.Proposal
}

func (e *contended) note(format string, args ...any) {
	e.calls = append(e.calls, fmt.Sprintf(format, args...))
}

func (e *contended) Commit(_ context.Context, p *waist.Proposal) (ID, error) {
	e.note("commit ticket=%d base=%d", p.Ticket, p.Reads.Base)
	e.last = *p
	if e.lose > 0 {
		e.lose--
		e.id++ // of the commit that came between
		return 0, &ConflictError{ID: e.id, Base: p.Reads.Base, Stored: []byte("k"), Reads: p.Reads}
	}
	return e.apply(p), nil
}

func (e *contended) Log(context.Context, LogOptions) (waist.LogReader, error) {
	return nil, ErrUnsupported
}
func (e *contended) Head(context.Context) (ID, error) { return e.id, nil }
func (e *contended) Close() error                     { return nil }

// A queue is a contended engine that protects reads.
type queue struct {
	contended
	ticket  uint64
	ends    bool  // each protection does, before the next is asked for
	held    int   // protections that were not released
	protect error // of Protect
}

func (e *queue) Protect(_ context.Context, ticket uint64, reads *waist.Reads) (uint64, func(), error) {
	if e.protect != nil {
		return 0, nil, e.protect
	}
	e.note("protect %d: %s", ticket, reads.Keys)
	if ticket == 0 || e.ends {
		e.ticket++
	}
	e.held = 1
	return e.ticket, func() {
		e.held = 0
		e.note("release")
	}, nil
}

func put(s *Space) func(tx *Tx) error {
	return func(tx *Tx) error {
		tx.Put(s, nil, nil)
		return nil
	}
}

// A transaction that loses is run again on a newer view, after a growing wait; when it has lost often what it has read is protected, without waits, until it
// gets through.
func TestUpdateRetries(t *testing.T) {
	for lose := range 8 {
		synctest.Test(t, func(t *testing.T) {
			e := &queue{contended: contended{lose: lose}}
			db := New(e)
			began := time.Now()
			runs := 0
			id, err := db.Update(t.Context(), func(tx *Tx) error {
				if runs++; tx.Base() != ID(runs-1) {
					t.Errorf("run %d reads the view at %d", runs, tx.Base())
				}
				_, _ = tx.Get(db.Root(), Key{byte('0' + runs)})
				tx.SetLabel("run", fmt.Sprint(runs))
				tx.SetToken("token")
				return put(db.Root())(tx)
			})
			if err != nil || id != ID(lose+1) || runs != lose+1 {
				t.Errorf("lost %d times: %d, %v, after %d runs", lose, id, err, runs)
			}
			var want []string
			for i := range lose + 1 {
				ticket := 0
				if i >= protectAfter {
					ticket = 1
					want = append(want, fmt.Sprintf("protect %d: [%s]", min(i-protectAfter, 1), db.Root().storedKey(Key{byte('0' + i)})))
				}
				want = append(want, fmt.Sprintf("commit ticket=%d base=%d", ticket, i))
			}
			if lose >= protectAfter {
				want = append(want, "release")
			}
			if !slices.Equal(e.calls, want) {
				t.Errorf("lost %d times: %q, want %q", lose, e.calls, want)
			}
			most := time.Duration(0)
			for i := range min(lose, protectAfter) {
				most += min(tryBackoff<<i, tryBackoffMost)
			}
			if waited := time.Since(began); waited > most || lose > 1 && waited == 0 {
				t.Errorf("lost %d times: waited %v of at most %v", lose, waited, most)
			}
			if open := e.open.Load(); open != 0 {
				t.Errorf("lost %d times: %d snapshots are open", lose, open)
			}
			m, err := wire.DecodeMeta(e.last.Meta)
			if err != nil || m.Token != "token" || m.Labels["run"] != fmt.Sprint(runs) || e.last.Token != "token" {
				t.Errorf("meta %+v, %v", m, err)
			}
		})
	}
}

// A slow transaction is protected after its first lost try that takes long, and one that keeps losing ends: after so many tries, or so long, with an error
// that says why.
func TestUpdateEnds(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration
		tries int
	}{
		"fast": {0, MaxTries},
		"slow": {7 * time.Second, int(MaxTrying/(7*time.Second)) + 1},
		"one":  {time.Hour, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := &queue{contended: contended{lose: 1 << 30}, ends: true}
			db := New(e)
			runs := 0
			_, err := db.Update(t.Context(), func(tx *Tx) error {
				runs++
				time.Sleep(c.takes)
				return put(db.Root())(tx)
			})
			var lost *ConflictError
			if !errors.Is(err, ErrConflict) || !errors.As(err, &lost) || lost.Tries != c.tries || runs != c.tries || lost.ID != ID(runs) || lost.Took < c.takes*time.Duration(runs) || lost.Reads != nil {
				t.Errorf("%s: %v, after %d runs", name, err, runs)
			}
			if e.held != 0 || e.open.Load() != 0 {
				t.Errorf("%s: %d held, %d snapshots open", name, e.held, e.open.Load())
			}
			if protected := strings.Count(strings.Join(e.calls, " "), "protect"); c.takes > 0 && protected != runs-1 {
				t.Errorf("%s: protected %d times in %d runs", name, protected, runs)
			}
		})
	}
}

// The error says what was lost to, and what to do.
func TestConflictErrorText(t *testing.T) {
	db := New(&stub{})
	stored := db.Space("users", "eu").storedKey(K("alice"))
	for want, err := range map[string]*ConflictError{
		`conflict: commit 7 changed key "alice" of space users/eu, which the transaction had read at 5`:      {ID: 7, Base: 5, Stored: stored},
		`conflict: commit 7 changed key ff of a form that is not known, which the transaction had read at 5`: {ID: 7, Base: 5, Stored: []byte{0xff}},
		`conflict: commit 7 changed what the transaction had read at 5`:                                      {ID: 7, Base: 5},
		`conflict: lost 16 times in 2.5s, the last time as commit 7 changed key "alice" of space users/eu, which the transaction had read at 5; ` +
			`try again later, read less, or do what takes long outside of the transaction`: {ID: 7, Base: 5, Stored: stored, Tries: 16, Took: 2500 * time.Millisecond},
		`conflict: the log no longer goes back: gone`: {Reason: "the log no longer goes back", Err: errors.New("gone")},
	} {
		if err.Error() != want || !errors.Is(err, ErrConflict) {
			t.Errorf("%s\nwant %s", err, want)
		}
	}
}

// Where reads can't be protected it goes on waiting between tries, up to a bound.
func TestUpdateWithoutTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lose = 300
		e := &contended{lose: lose}
		db := New(e)
		began := time.Now()
		if id, err := db.Update(t.Context(), put(db.Root())); err != nil || id != lose+1 {
			t.Error(id, err)
		}
		if waited := time.Since(began); waited < lose*tryBackoffMost/4 || waited > lose*tryBackoffMost {
			t.Errorf("waited %v for %d tries", waited, lose)
		}
		e.lose = 1 << 30
		var lost *ConflictError
		if _, err := db.Update(t.Context(), put(db.Root())); !errors.As(err, &lost) || lost.Tries != blindTries {
			t.Error(err)
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
	e := &stub{view: store.View, commit: func(context.Context, *waist.Proposal) (ID, error) {
		commits++
		return 0, ErrUncertain
	}}
	db := New(e)
	if id, err := db.Update(t.Context(), put(db.Root())); id != 0 || !errors.Is(err, ErrUncertain) || commits != 1 {
		t.Error(id, err, commits)
	}
	e.view = func(context.Context, ReadOptions) (waist.Snapshot, error) { return nil, ErrClosed }
	if _, err := db.Update(t.Context(), put(db.Root())); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	q := &queue{contended: contended{lose: 100}, protect: errBroken}
	db = New(q)
	if _, err := db.Update(t.Context(), put(db.Root())); !errors.Is(err, errBroken) || q.open.Load() != 0 {
		t.Error(err, q.open.Load())
	}
	// A panic of the function is its caller's; the view is closed and the protection ended.
	q = &queue{contended: contended{lose: protectAfter}}
	db = New(q)
	runs := 0
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_, _ = db.Update(t.Context(), func(tx *Tx) error {
			if runs++; runs > protectAfter {
				panic("mine")
			}
			return put(db.Root())(tx)
		})
	}()
	if q.held != 0 || q.open.Load() != 0 {
		t.Errorf("%d protections, %d snapshots open", q.held, q.open.Load())
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
