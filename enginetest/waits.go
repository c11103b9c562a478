package enginetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

var waitTests = []test{
	{"AtLeastPast", testAtLeastPast},
	{"AtLeastFuture", testAtLeastFuture},
	{"MaxWait", testMaxWait},
	{"Cancelled", testWaitCancelled},
	{"Released", testWaitReleased},
	{"Stale", testStale},
}

// heldReads are the calls that may have to wait for the store.
func heldReads(db *batchlog.DB) map[string]func(ctx context.Context, opts ...batchlog.ReadOption) error {
	s := db.Space("s")
	return map[string]func(ctx context.Context, opts ...batchlog.ReadOption) error{
		"get": func(ctx context.Context, opts ...batchlog.ReadOption) error {
			_, err := s.Get(ctx, batchlog.K("k"), opts...)
			return err
		},
		"scan": func(ctx context.Context, opts ...batchlog.ReadOption) error {
			_, err := collect(s.Scan(ctx, batchlog.Range{}, opts...))
			return err
		},
		"view": func(ctx context.Context, opts ...batchlog.ReadOption) error {
			v, err := db.View(ctx, opts...)
			if err != nil {
				return err
			}
			return v.Close()
		},
	}
}

// A read that asks for a commit which is there does not wait, and shows it.
func testAtLeastPast(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 5 {
		put(t, s, batchlog.K("k"), string(rune('a'+n)))
	}
	for id := batchlog.ID(0); id <= 5; id++ {
		v, err := db.View(within(t), batchlog.AtLeast(id))
		check(t, err)
		if v.ID() < id {
			t.Errorf("view at %d, want %d or later", v.ID(), id)
		}
		check(t, v.Close())
	}
}

// A read that asks for a commit which is yet to come waits for it.
func testAtLeastFuture(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "1")
	for name, read := range heldReads(db) {
		next := head(t, db) + 3
		done := make(chan error, 1)
		go func() { done <- read(within(t), batchlog.AtLeast(next)) }()
		for range 3 {
			select {
			case err := <-done:
				t.Fatalf("%s did not wait for commit %d: %v", name, next, err)
			default:
			}
			put(t, s, batchlog.K("k"), "2")
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// wantWait fails t unless err says what was waited for.
func wantWait(t *testing.T, what string, err error, id, applied batchlog.ID, atLeast time.Duration, why error) {
	t.Helper()
	var we *batchlog.WaitError
	if !errors.As(err, &we) || !errors.Is(err, why) {
		t.Errorf("%s: error %v, want a *WaitError for %v", what, err, why)
		return
	}
	if we.For != id || we.Applied != applied || we.Waited < atLeast {
		t.Errorf("%s: %+v, want a wait of %s or more for commit %d at %d", what, we, atLeast, id, applied)
	}
}

// A wait is bounded by MaxWait, and says what it was for, how far the store is and how long it took.
func testMaxWait(t *testing.T, open Open) {
	db := plain(t, open)
	put(t, db.Space("s"), batchlog.K("k"), "v")
	for name, read := range heldReads(db) {
		err := read(within(t), batchlog.AtLeast(1000), batchlog.MaxWait(2*time.Millisecond))
		wantWait(t, name, err, 1000, 1, 2*time.Millisecond, context.DeadlineExceeded)
		if err := read(within(t), batchlog.MaxWait(Patience)); err != nil {
			t.Errorf("%s with nothing to wait for: %v", name, err)
		}
	}
}

// A wait ends with its context, by cancellation or deadline.
func testWaitCancelled(t *testing.T, open Open) {
	db := plain(t, open)
	put(t, db.Space("s"), batchlog.K("k"), "v")
	for name, read := range heldReads(db) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		wantWait(t, name, read(ctx, batchlog.AtLeast(7)), 7, 1, 0, context.Canceled)
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		err := read(ctx, batchlog.AtLeast(7))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want that the deadline is over", name, err)
		}
	}
	_, err := db.Space("s").Get(within(t), batchlog.K("k"))
	check(t, err)
}

// Many reads wait for different commits; each comes when its own is there, none before.
func testWaitReleased(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	const n = 20
	type answer struct {
		id, at batchlog.ID
		err    error
	}
	answers := make(chan answer, n)
	for i := range n {
		go func() {
			id := batchlog.ID(i + 1)
			v, err := db.View(within(t), batchlog.AtLeast(id))
			if err != nil {
				answers <- answer{id: id, err: err}
				return
			}
			answers <- answer{id: id, at: v.ID(), err: v.Close()}
		}()
	}
	for range n {
		put(t, s, batchlog.K("k"), "v")
	}
	for range n {
		if a := <-answers; a.err != nil || a.at < a.id {
			t.Errorf("view at least at %d is at %d, %v", a.id, a.at, a.err)
		}
	}
}

// A read that says Stale shows some state that was, never waits, and never goes back for one reader.
func testStale(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	last := batchlog.ID(0)
	for n := range 50 {
		id := put(t, s, batchlog.K("k"), "v")
		v, err := db.View(within(t), batchlog.Stale())
		check(t, err)
		if v.ID() < last || v.ID() > id {
			t.Errorf("stale view at %d, after one at %d and commit %d", v.ID(), last, id)
		}
		last = v.ID()
		got, err := v.Get(s, batchlog.K("k"))
		if absent := errors.Is(err, batchlog.ErrNotFound); absent != (v.ID() == 0) || !absent && (err != nil || string(got) != "v") {
			t.Errorf("write %d: stale view at %d has %q, %v", n, v.ID(), got, err)
		}
		check(t, v.Close())
	}
	// With an id that is yet to come, Stale still does not wait.
	for name, read := range heldReads(db) {
		if err := read(within(t), batchlog.Stale(), batchlog.MaxWait(time.Nanosecond)); err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			t.Errorf("stale %s: %v", name, err)
		}
	}
}
