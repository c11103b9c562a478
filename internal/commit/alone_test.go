package commit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
)

// While one runs alone the others wait; they go on, in their order, when it is released, however often.
func TestAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		p := newLine(t, l, s)
		before := p.commit(t.Context(), propose(put("before")))
		<-b.entered
		type turn struct {
			turn    uint64
			release func()
		}
		got := make(chan turn, 1)
		go func() {
			n, release, err := p.Alone(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- turn{n, release}
		}()
		synctest.Wait()
		if !pending(got) {
			t.Fatal("alone while a group is synced")
		}
		b.release()
		first := <-got
		check(t, "before", <-before, result{1, nil})
		others := []<-chan result{}
		for _, key := range []string{"x", "y"} {
			others = append(others, p.commit(t.Context(), propose(put(key))))
			synctest.Wait()
		}
		wrong := propose(put("wrong turn"))
		wrong.Turn = first.turn + 1
		others = append(others, p.commit(t.Context(), wrong))
		for range 2 {
			mine := propose(put("mine"))
			mine.Turn = first.turn
			mustCommit(t, p, mine)
		}
		time.Sleep(AloneMax - time.Millisecond)
		for _, o := range others {
			if !pending(o) {
				t.Error("another one was committed during the turn")
			}
		}
		first.release()
		first.release()
		for i, o := range others {
			check(t, "other", <-o, result{batchlog.ID(4 + i), nil})
		}
		second, release, err := p.Alone(t.Context())
		if err != nil || second == first.turn {
			t.Fatal(second, err)
		}
		first.release() // of a turn that is over: the second's goes on
		waits := p.commit(t.Context(), propose(put("z")))
		synctest.Wait()
		if !pending(waits) {
			t.Error("an old release has ended the turn of another")
		}
		release()
		check(t, "last", (<-waits).err, nil)
		check(t, "log", firstKeys(l.durable()), "[before mine mine x y wrong turn z]")
	})
}

// A turn ends by itself after AloneMax; what its owner proposes afterwards is as any other.
func TestAloneTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		turn, release, err := p.Alone(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		mustCommit(t, p, propose(put("other")))
		check(t, "waited", time.Since(began), AloneMax)
		late := propose(put("late"))
		late.Turn = turn
		mustCommit(t, p, late)
		_, next, err := p.Alone(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
		tooLate := p.commit(t.Context(), late)
		synctest.Wait()
		if !pending(tooLate) {
			t.Error("taken during the turn of another")
		}
		next()
		check(t, "too late", (<-tooLate).err, nil)
	})
}

// Who leaves while it waits for its turn, or for what is before it, has none, and holds nobody up.
func TestAloneContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		_, release, err := p.Alone(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		_, none, err := p.Alone(ctx)
		if !errors.Is(err, why) || none != nil {
			t.Error(err)
		}
		release()

		b := newBlocker()
		l.syncing = b.wait
		before := p.commit(t.Context(), propose(put("before")))
		<-b.entered
		ctx, cancel = context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		if _, _, err := p.Alone(ctx); !errors.Is(err, why) {
			t.Error(err)
		}
		b.release()
		check(t, "before", <-before, result{1, nil})
		began := time.Now()
		mustCommit(t, p, propose(put("after")))
		check(t, "waited", time.Since(began), time.Duration(0))
	})
}

// Alone refuses as a write would, and the turn is free again.
func TestAloneRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		s.full.Store(true)
		_, _, err := p.Alone(t.Context())
		wantErr(t, "alone", err, batchlog.ErrNoSpace)
		s.full.Store(false)
		_, release, err := p.Alone(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.Close() // during a turn; others that wait are answered
		release()
	})
}
