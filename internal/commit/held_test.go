package commit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A protection that ends while the write loop decides who comes next is not overlooked: what was held for it goes then.
func TestEndsWhileOthersBegin(t *testing.T) {
	for _, left := range []bool{false, true} {
		p := &Pipeline{ready: make(chan struct{}, 1)}
		ask := func(key string) *request {
			return &request{protect: &protection{reads: &readSet{keys: [][]byte{[]byte(key)}}}, done: make(chan answer, 1)}
		}
		first := ask("k")
		check(t, "begun", len(p.choose([]*request{first})), 1)
		held := &request{prop: propose(put("k")), done: make(chan answer, 1)}
		check(t, "not held", len(p.choose([]*request{held})), 0)
		// The same as choose does with one who asks, as the protection ends in the middle of it.
		other := ask("other")
		if left && !other.leave() {
			t.Fatal("not left")
		}
		p.held = append(p.held, other)
		p.end(first.protect.ticket)
		group := append(p.beginAsked(), p.choose(nil)...)
		want := 2
		if left {
			want = 1
		}
		check(t, "group", len(group), want)
		if len(group) == 0 || group[0] != held {
			t.Error("what was held does not come first")
		}
		check(t, "held", len(p.held), 0)
	}
}

// What is handed back is its caller's from then on: the write loop looks at it no more. (The race detector tells.)
func TestHandedBackHeld(t *testing.T) {
	p := &Pipeline{ready: make(chan struct{}, 1)}
	ask := func(key string) *request {
		return &request{protect: &protection{reads: &readSet{keys: [][]byte{[]byte(key)}}}, done: make(chan answer, 1)}
	}
	first, second := ask("k"), ask("l")
	p.choose([]*request{first})
	var ops []op
	for range 2 * lookOps {
		ops = append(ops, put("k"))
	}
	held := &request{prop: propose(ops...), done: make(chan answer, 1), pool: &p.requests}
	p.look(held)
	check(t, "not held", len(p.choose([]*request{held})), 0)
	p.choose([]*request{second})
	p.end(first.protect.ticket)
	again := make(chan error)
	go func() {
		a := <-held.done
		held.free()
		again <- a.err
	}()
	check(t, "group", len(p.choose(nil)), 0)
	check(t, "answer", <-again, errAgain)
	p.end(second.protect.ticket)
}

// Two with one token, one of which has a protection that the other one is held for, do not wait for one another.
func TestTokenOfHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		ticket, release := p.protect(t, 0, "k")
		held := p.commit(t.Context(), withToken("t", put("k")))
		synctest.Wait()
		began := time.Now()
		id, err := p.Commit(t.Context(), with(ticket, withToken("t", put("k"))))
		check(t, "waited", time.Since(began), time.Duration(0))
		check(t, "with the ticket", result{id, err}, result{1, nil})
		check(t, "held", <-held, result{1, nil})
		release()

		ticket, release = p.protect(t, 0, "k")
		held = p.commit(t.Context(), withToken("u", put("k")))
		synctest.Wait()
		began = time.Now()
		id, found, err := p.Known(t.Context(), "u", ticket)
		check(t, "waited", time.Since(began), time.Duration(0))
		check(t, "known", fmt.Sprint(id, found, err), "2 true <nil>")
		check(t, "held", <-held, result{2, nil})
		release()
	})
}

// Who has left keeps nobody from a turn.
func TestLeftInLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		_, release := p.protect(t, 0, "a")
		defer release()
		ctx, cancel := context.WithCancel(t.Context())
		left := p.asking(ctx, "a", "b")
		synctest.Wait()
		cancel()
		wantErr(t, "left", (<-left).err, context.Canceled)
		began := time.Now()
		_, releaseOther := p.protect(t, 0, "b")
		check(t, "waited", time.Since(began), time.Duration(0))
		releaseOther()
	})
}

// What has left while it was held takes no memory for as long as a protection lasts.
func TestLeftWhileHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		_, release := p.protect(t, 0, "k")
		ctx, cancel := context.WithCancel(t.Context())
		stays := p.commit(t.Context(), propose(put("k")))
		synctest.Wait()
		cancelled := errors.New("cancelled")
		for range 2000 {
			within, cancel := context.WithCancelCause(ctx)
			held := p.commit(within, propose(put("k")))
			synctest.Wait()
			cancel(cancelled)
			check(t, "held", <-held, result{0, cancelled})
		}
		cancel()
		synctest.Wait()
		if n := len(p.held); n > 300 {
			t.Errorf("%d are held, of which one has a caller", n)
		}
		for _, r := range p.held {
			if r.left() && r.prop != nil {
				t.Fatal("keeps what it was to commit")
			}
		}
		release()
		check(t, "stayed", <-stays, result{1, nil})
	})
}
