package commit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A read is held until the store is where it asks for: at head by default, at an id, or not at all.
func TestHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		turn := make(chan struct{})
		s.applying = func([]wire.Record) error { <-turn; return nil }
		p := newLine(t, l, s)
		hold := func(o batchlog.ReadOptions) <-chan error {
			c := make(chan error, 1)
			go func() { c <- p.Hold(t.Context(), o) }()
			synctest.Wait()
			return c
		}
		check(t, "with nothing there", <-hold(batchlog.ReadOptions{}), nil)
		for range 3 {
			mustCommit(t, p, propose(put("k")))
			synctest.Wait() // a commit an Apply: the first is popped alone
		}
		head, one, three, future := hold(batchlog.ReadOptions{}), hold(batchlog.ReadOptions{AtLeast: 1}), hold(batchlog.ReadOptions{AtLeast: 3}), hold(batchlog.ReadOptions{AtLeast: 4})
		check(t, "stale", <-hold(batchlog.ReadOptions{Stale: true, AtLeast: 9}), nil)
		turn <- struct{}{}
		check(t, "at least 1", <-one, nil)
		synctest.Wait()
		check(t, "applied", p.Applied(), 1)
		check(t, "at least 1, there", <-hold(batchlog.ReadOptions{AtLeast: 1}), nil)
		if !pending(head) || !pending(three) {
			t.Error("let go too early")
		}
		turn <- struct{}{} // 2 and 3 come together
		check(t, "head", <-head, nil)
		check(t, "at least 3", <-three, nil)
		time.Sleep(time.Hour)
		if !pending(future) {
			t.Error("did not wait for a commit that does not exist")
		}
		check(t, "id", mustCommit(t, p, propose(put("k"))), 4)
		turn <- struct{}{}
		check(t, "at least 4", <-future, nil)
		check(t, "reads in waiting", p.reads.held.Load(), 0)
	})
}

// A wait that ends early says for what it waited, how long, how far the store was, and why it ended.
func TestWaitError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		mustCommit(t, p, propose(put("k")))
		if err := p.Hold(t.Context(), batchlog.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		b := newBlocker()
		defer b.release()
		s.applying = b.wait
		mustCommit(t, p, propose(put("k")))
		why := errors.New("why")
		cancelled, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { cancel(why) })
		deadline, done := context.WithTimeout(t.Context(), 3*time.Second)
		defer done()
		for _, test := range []struct {
			name string
			ctx  context.Context
			o    batchlog.ReadOptions
			want batchlog.WaitError
		}{
			{"MaxWait", t.Context(), batchlog.ReadOptions{MaxWait: time.Second}, batchlog.WaitError{For: 2, Applied: 1, Waited: time.Second, Err: context.DeadlineExceeded}},
			{"cancelled", cancelled, batchlog.ReadOptions{MaxWait: time.Minute}, batchlog.WaitError{For: 2, Applied: 1, Waited: time.Second, Err: why}},
			{"deadline", deadline, batchlog.ReadOptions{AtLeast: 7}, batchlog.WaitError{For: 7, Applied: 1, Waited: time.Second, Err: context.DeadlineExceeded}},
			{"ended before", deadline, batchlog.ReadOptions{AtLeast: 8}, batchlog.WaitError{For: 8, Applied: 1, Err: context.DeadlineExceeded}},
		} {
			err := p.Hold(test.ctx, test.o)
			var got *batchlog.WaitError
			if !errors.As(err, &got) || *got != test.want {
				t.Errorf("%s: %v, want %v", test.name, err, &test.want)
			}
		}
		check(t, "what still waits", len(p.reads.mu.waiting), 0)
	})
}

// When the store fails, held reads fail, later ones too unless they need nothing new, and writes are refused.
func TestApplyFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		mustCommit(t, p, propose(put("k")))
		synctest.Wait()
		broken := errors.New("broken")
		b := newBlocker()
		s.applying = func(r []wire.Record) error { return errors.Join(b.wait(r), broken) }
		mustCommit(t, p, propose(put("k")))
		var held [2]chan error
		for i := range held {
			held[i] = make(chan error, 1)
			go func() { held[i] <- p.Hold(t.Context(), batchlog.ReadOptions{AtLeast: batchlog.ID(2 + i)}) }()
		}
		synctest.Wait()
		b.release()
		for i := range held {
			wantErr(t, "held read", <-held[i], batchlog.ErrReadOnly, broken)
		}
		wantErr(t, "later read", p.Hold(t.Context(), batchlog.ReadOptions{}), batchlog.ErrReadOnly, broken)
		check(t, "read of what is there", p.Hold(t.Context(), batchlog.ReadOptions{AtLeast: 1}), nil)
		check(t, "stale read", p.Hold(t.Context(), batchlog.ReadOptions{Stale: true}), nil)
		for range 2 {
			_, err := p.Commit(t.Context(), propose(put("k")))
			wantErr(t, "commit", err, batchlog.ErrReadOnly, broken)
		}
		check(t, "head", l.Head(), 2)
	})
}
