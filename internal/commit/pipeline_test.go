package commit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// Whatever comes at once, each proposal has one id, ids are dense, and the times of the log never go back.
func TestIDsAreDense(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	l.room = 7
	var readings atomic.Int64
	p := New(Options{Log: l, Store: s, LastTime: 500, Now: func() time.Time {
		n := readings.Add(1)
		return time.UnixMicro(1000 + n - 400*(n%3)) // a clock that goes back every third time
	}})
	defer p.Close()
	const writers, each = 32, 30
	var mu sync.Mutex
	ids := map[batchlog.ID]string{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprint(w, i)
				id, err := p.Commit(t.Context(), propose(put(key)))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				ids[id] = key
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	keys := firstKeys(l.durable())
	if len(keys) != writers*each || len(ids) != len(keys) {
		t.Fatalf("%d commits, %d ids", len(keys), len(ids))
	}
	for i, key := range keys {
		if got := ids[batchlog.ID(i+1)]; got != key {
			t.Fatalf("commit %d is %q, its writer was told %q", i+1, key, got)
		}
	}
	if n := readings.Load(); n > int64(len(l.groups())) {
		t.Errorf("%d readings of the clock for %d groups", n, len(l.groups()))
	}
	if err := p.Hold(t.Context(), batchlog.ReadOptions{}); err != nil || p.Applied() != l.Head() {
		t.Error(p.Applied(), err)
	}
}

// What waits while a group is synced is the next group, with one reading of the clock, even one before LastTime.
func TestGroupHasOneTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		readings := 0
		p := New(Options{Log: l, Store: s, LastTime: 1000, Now: func() time.Time {
			readings++
			return time.UnixMicro([]int64{2000, 1500, 3000}[readings-1])
		}})
		defer p.Close()
		var answers []<-chan result
		for i := range 6 {
			answers = append(answers, p.commit(t.Context(), propose(put(fmt.Sprint(i)))))
			synctest.Wait()
			if i > 0 && readings != 1 {
				t.Fatal("a group was begun while another one is synced")
			}
		}
		for _, a := range answers {
			if !pending(a) {
				t.Fatal("acknowledged before the sync")
			}
		}
		check(t, "head", l.Head(), 0)
		b.release()
		for i, a := range answers {
			check(t, "answer", <-a, result{batchlog.ID(i + 1), nil})
		}
		mustCommit(t, p, propose(put("last")))
		var times []int64
		for _, g := range l.groups() {
			for _, r := range g {
				times = append(times, r.Time)
			}
		}
		check(t, "times", times, []int64{2000, 2000, 2000, 2000, 2000, 2000, 3000})
		check(t, "groups", len(l.groups()), 3)
		check(t, "readings", readings, 3)
	})
}

// When a group fails, or one of it, everyone is told so, and the ids go on without a hole.
func TestGroupFailure(t *testing.T) {
	uncertain := fmt.Errorf("%w: sync", batchlog.ErrUncertain)
	full := fmt.Errorf("%w: write", batchlog.ErrNoSpace)
	for _, test := range []struct {
		name    string
		room    int
		add     string // the key whose Add fails
		fail    int    // the Sync that fails, the one under way being 1
		err     error
		answers string
		log     string
	}{
		{"add, first", 0, "a", 0, full, "0 err 2 3 4", "[first b c d after]"},
		{"add, in the middle", 0, "b", 0, full, "2 0 err 3 4", "[first a c d after]"},
		{"add, last", 0, "d", 0, full, "2 3 4 0 err", "[first a b c after]"},
		{"sync, no space", 0, "", 2, full, "0 err 0 err 0 err 0 err", "[first after]"},
		{"sync, uncertain", 0, "", 2, uncertain, "0 err 0 err 0 err 0 err", "[first]"},
		{"add, uncertain", 0, "a", 0, uncertain, "0 err 2 3 4", "[first b c d]"},
		{"first of two groups", 2, "", 2, full, "0 err 0 err 2 3", "[first c d after]"},
		{"second of two groups", 2, "", 3, full, "2 3 0 err 0 err", "[first a b after]"},
		{"first of four groups", 1, "", 2, full, "0 err 2 3 4", "[first b c d after]"},
		{"add after a failed group", 2, "c", 2, full, "0 err 0 err 0 err 2", "[first d after]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				b := newBlocker()
				syncs := 0
				l.room = test.room
				l.syncing = func(group []wire.Record) error {
					syncs++
					if syncs == test.fail {
						return test.err
					}
					return b.wait(group)
				}
				l.addErr = func(r wire.Record) error {
					if test.add != "" && firstKeys([]wire.Record{r})[0] == test.add {
						return test.err
					}
					return nil
				}
				p := newLine(t, l, s)
				var answers []<-chan result
				for _, key := range []string{"first", "a", "b", "c", "d"} {
					answers = append(answers, p.commit(t.Context(), propose(put(key))))
					synctest.Wait()
				}
				b.release()
				text := ""
				for i, a := range answers {
					r := <-a
					if i == 0 {
						check(t, "first", r, result{1, nil})
						continue
					}
					text += fmt.Sprint(" ", r.id)
					if r.err != nil {
						text += " err"
						wantErr(t, "answer", r.err, test.err)
					}
				}
				check(t, "answers", text[1:], test.answers)
				if id, err := p.Commit(t.Context(), propose(put("after"))); errors.Is(test.err, batchlog.ErrUncertain) {
					wantErr(t, "after", err, batchlog.ErrReadOnly)
					if errors.Is(err, batchlog.ErrUncertain) {
						t.Error("a write that was not tried is uncertain:", err)
					}
				} else if err != nil || id != l.Head() {
					t.Error(id, err)
				}
				check(t, "log", firstKeys(l.durable()), test.log)
				if err := p.Hold(t.Context(), batchlog.ReadOptions{}); err != nil || s.Applied() != l.Head() {
					t.Error(s.Applied(), err)
				}
			})
		})
	}
}

// A proposal whose caller leaves while it waits for a turn is never committed; one that was taken runs to its end.
func TestContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		p := newLine(t, l, s)
		why := errors.New("why it ended")
		takenCtx, cancelTaken := context.WithCancelCause(t.Context())
		taken := p.commit(takenCtx, propose(put("taken")))
		<-b.entered
		queuedCtx, cancelQueued := context.WithCancelCause(t.Context())
		queued := p.commit(queuedCtx, propose(put("queued")))
		stays := p.commit(t.Context(), propose(put("stays")))
		synctest.Wait()
		cancelTaken(why)
		cancelQueued(why)
		synctest.Wait()
		if !pending(taken) {
			t.Error("what has its id was given up")
		}
		check(t, "queued", <-queued, result{0, why})
		if _, err := p.Commit(queuedCtx, propose(put("dead"))); !errors.Is(err, why) {
			t.Error(err)
		}
		b.release()
		check(t, "taken", <-taken, result{1, nil})
		check(t, "stays", <-stays, result{2, nil})
		mustCommit(t, p, propose(put("more"))) // its request was another one's before
		check(t, "log", firstKeys(l.durable()), "[taken stays more]")
	})
}

func TestTooLarge(t *testing.T) {
	p := newLine(t, newFakeLog(t), newFakeStore(t))
	_, err := p.Commit(t.Context(), &waist.Proposal{Ops: make([]byte, batchlog.MaxBatchBytes), Meta: []byte{0}})
	wantErr(t, "commit", err, batchlog.ErrTooLarge)
	check(t, "head", p.log.Head(), 0)
}

// When the store falls behind writers wait, may leave, and go on when it drains.
func TestBacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		s.applying = b.wait
		p := newLine(t, l, s)
		n := 0
		for p.Backlog() < p.BacklogLimit() {
			mustCommit(t, p, large(1<<20))
			n++
		}
		if n > BacklogBytes>>20 {
			t.Errorf("%d MiB in the backlog", n)
		}
		var waiting []<-chan result
		for range 20 {
			waiting = append(waiting, p.commit(t.Context(), propose(put("waits"))))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		left := p.commit(ctx, propose(put("leaves")))
		time.Sleep(time.Minute)
		check(t, "left", <-left, result{0, context.DeadlineExceeded})
		for _, w := range waiting {
			if !pending(w) {
				t.Fatal("a write did not wait for room")
			}
		}
		check(t, "head", l.Head(), n)
		b.release()
		for _, w := range waiting {
			if r := <-w; r.err != nil {
				t.Error(r.err)
			}
		}
		if err := p.Hold(t.Context(), batchlog.ReadOptions{}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		check(t, "backlog", p.Backlog(), 0)
		check(t, "head", l.Head(), n+20)
	})
}

// One Apply takes many commits, within a bound.
func TestApplyTakesMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		s.applying = b.wait
		p := newLine(t, l, s)
		mustCommit(t, p, propose())
		<-b.entered
		for range 2 * applyCommits {
			mustCommit(t, p, propose(put("k")))
		}
		for range 3 {
			mustCommit(t, p, large(applyBytes))
		}
		b.release()
		if err := p.Hold(t.Context(), batchlog.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		check(t, "commits of each Apply", s.mu.calls, []int{1, applyCommits, applyCommits, 1, 1, 1})
	})
}

// A full disk of the store refuses writes, and only while it is full.
func TestNoSpace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		s.applying = b.wait
		p := newLine(t, l, s)
		mustCommit(t, p, large(BacklogBytes))
		waiting := p.commit(t.Context(), propose(put("waits for room")))
		synctest.Wait()
		s.full.Store(true)
		wantErr(t, "what waited for room", (<-waiting).err, batchlog.ErrNoSpace)
		_, err := p.Commit(t.Context(), propose(put("refused")))
		wantErr(t, "commit", err, batchlog.ErrNoSpace)
		s.full.Store(false)
		b.release()
		check(t, "id", mustCommit(t, p, propose(put("after"))), 2)
		check(t, "log", firstKeys(l.durable()), "[k after]")
	})
}

// Close with everything in flight: every call returns, what is durable was told so, and what was told so is applied.
func TestCloseInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		slow := func([]wire.Record) error { time.Sleep(time.Millisecond); return nil }
		l.syncing, s.applying = slow, slow
		p := New(Options{Log: l, Store: s, Now: time.Now})
		var acked, ended atomic.Int64
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := 0; ; i++ {
					prop := propose(put("k"))
					if w%2 == 0 {
						prop = withToken(fmt.Sprint("token", w/4, i), put("k"))
					}
					_, err := p.Commit(t.Context(), prop)
					if err != nil {
						wantErr(t, "commit", err, batchlog.ErrClosed)
						ended.Add(1)
						return
					}
					acked.Add(1)
				}
			})
		}
		for range 4 {
			wg.Go(func() {
				wantErr(t, "held read", p.Hold(t.Context(), batchlog.ReadOptions{AtLeast: 1 << 40}), batchlog.ErrClosed)
			})
		}
		for range 3 {
			wg.Go(func() {
				for {
					_, release, err := p.Protect(t.Context(), 0, reading(0, []string{"k"}).Reads)
					if err != nil {
						wantErr(t, "protect", err, batchlog.ErrClosed)
						return
					}
					time.Sleep(300 * time.Microsecond)
					release()
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		p.Close()
		p.Close()
		wg.Wait()
		if l.Head() == 0 || acked.Load() < int64(l.Head()) || s.Applied() != l.Head() {
			t.Errorf("%d acknowledged, %d durable, %d applied", acked.Load(), l.Head(), s.Applied())
		}
		_, err := p.Commit(t.Context(), propose())
		wantErr(t, "commit after Close", err, batchlog.ErrClosed)
		_, err = p.Commit(t.Context(), withToken("t"))
		wantErr(t, "commit with a token after Close", err, batchlog.ErrClosed)
		_, _, err = p.Protect(t.Context(), 0, &waist.Reads{})
		wantErr(t, "protect after Close", err, batchlog.ErrClosed)
	}) // the bubble does not end while a goroutine of it is left
}

// Close waits for what has its id, and not for all who stood in line when it was called: these are refused.
func TestCloseRefusesTheLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		l.room = 1 // each is synced by itself, as large ones are
		b := newBlocker()
		l.syncing = b.wait
		p := newLine(t, l, s)
		first := p.commit(t.Context(), propose(put("first")))
		<-b.entered
		var line []<-chan result
		for range 50 {
			line = append(line, p.commit(t.Context(), propose(put("k"))))
		}
		synctest.Wait()
		l.syncing = func([]wire.Record) error { time.Sleep(time.Second); return nil }
		b.release()
		time.Sleep(2500 * time.Millisecond) // all are in one group, of which the third is synced
		began := time.Now()
		p.Close()
		check(t, "closed", time.Since(began), 1500*time.Millisecond) // that sync, and that of the one behind it
		check(t, "first", <-first, result{1, nil})
		refused := 0
		for _, c := range line {
			if r := <-c; r.err != nil {
				wantErr(t, "in line", r.err, batchlog.ErrClosed)
				refused++
			}
		}
		check(t, "durable", int(l.Head())+refused, 51)
		check(t, "head", l.Head(), 5)
	})
}

// Close does not wait for a store that is full or has failed, only for one that is slow.
func TestCloseWithBlockedStore(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name string
		stop func(s *fakeStore)
	}{
		{"full", func(s *fakeStore) { s.full.Store(true) }},
		{"failed", func(s *fakeStore) { s.failed.Store(&broken) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				b := newBlocker()
				defer b.release()
				s.applying = b.wait
				p := New(Options{Log: l, Store: s, Now: time.Now})
				mustCommit(t, p, large(BacklogBytes))
				waiting := p.commit(t.Context(), propose(put("waits")))
				held := make(chan error, 1)
				go func() { held <- p.Hold(t.Context(), batchlog.ReadOptions{}) }()
				synctest.Wait()
				closed := make(chan struct{})
				go func() { p.Close(); close(closed) }()
				time.Sleep(time.Minute)
				select {
				case <-closed:
					t.Fatal("closed while the store was applying")
				default:
				}
				wantErr(t, "held read", <-held, batchlog.ErrClosed)
				test.stop(s)
				<-closed
				if r := <-waiting; r.err == nil {
					t.Error("committed without room")
				}
			})
		})
	}
}

// Close may leave behind what the store can't end, but never the write loop: the log is closed next, and must not be in use.
func TestCloseWaitsForSync(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name string
		stop func(s *fakeStore)
	}{
		{"full", func(s *fakeStore) { s.full.Store(true) }},
		{"failed", func(s *fakeStore) { s.failed.Store(&broken) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				sync := newBlocker()
				defer sync.release()
				l.syncing = sync.wait
				p := New(Options{Log: l, Store: s, Now: time.Now})
				writing := p.commit(t.Context(), propose(put("in sync")))
				synctest.Wait()
				test.stop(s)
				closed := make(chan struct{})
				go func() { p.Close(); close(closed) }()
				time.Sleep(time.Minute)
				select {
				case <-closed:
					t.Fatal("closed while the log was syncing")
				default:
				}
				sync.release()
				<-closed
				if r := <-writing; r.err != nil {
					t.Error(r.err)
				}
			})
		})
	}
}

// A store that ends the goroutine which applies, as it does when it can't go on, leaves nobody waiting.
func TestApplyEndsGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		s.applying = func([]wire.Record) error { runtime.Goexit(); return nil }
		p := newLine(t, l, s)
		mustCommit(t, p, propose(put("k")))
		wantErr(t, "held read", p.Hold(t.Context(), batchlog.ReadOptions{}), batchlog.ErrReadOnly)
		_, err := p.Commit(t.Context(), propose(put("k")))
		wantErr(t, "commit", err, batchlog.ErrReadOnly)
		check(t, "head", l.Head(), 1)
	})
}
