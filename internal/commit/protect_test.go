package commit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// protect protects keys, which must succeed.
func (p *Pipeline) protect(t *testing.T, ticket uint64, keys ...string) (uint64, func()) {
	t.Helper()
	got, release, err := p.Protect(t.Context(), ticket, reading(0, keys).Reads)
	if err != nil {
		t.Fatal(err)
	}
	return got, release
}

// asking asks for a protection of keys in a goroutine of its own.
func (p *Pipeline) asking(ctx context.Context, keys ...string) <-chan granted {
	c := make(chan granted, 1)
	go func() {
		ticket, release, err := p.Protect(ctx, 0, reading(0, keys).Reads)
		c <- granted{ticket, release, err}
	}()
	return c
}

type granted struct {
	ticket  uint64
	release func()
	err     error
}

func with(ticket uint64, prop *waist.Proposal) *waist.Proposal {
	prop.Ticket = ticket
	return prop
}

// What touches a protection is held, however it does, and goes in its order when that ends. All else goes by.
func TestProtect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		p := newLine(t, l, s)
		before := p.commit(t.Context(), propose(put("k")))
		<-b.entered
		asked := p.asking(t.Context(), "k")
		synctest.Wait()
		if !pending(asked) {
			t.Fatal("protected while a group is synced")
		}
		b.release()
		first := <-asked
		check(t, "before", <-before, result{1, nil})
		var held []<-chan result
		for _, o := range []op{put("k"), del("k"), delRange("a", "z")} {
			held = append(held, p.commit(t.Context(), propose(put("~"), o)))
			synctest.Wait()
		}
		chain := propose()
		chain.Chain = &wire.ChainRef{Spans: []wire.KeyRange{{Low: []byte("j"), High: []byte("l")}}}
		held = append(held, p.commit(t.Context(), chain))
		synctest.Wait()
		held = append(held, p.commit(t.Context(), with(first.ticket+1, propose(put("k"))))) // a ticket that nobody has
		began := time.Now()
		for _, o := range []op{put("j"), del("kk"), delRange("a", "k"), delRange("k\x00", "z")} {
			mustCommit(t, p, propose(o))
		}
		mustCommit(t, p, with(first.ticket, propose(put("k"))))
		check(t, "waited", time.Since(began), time.Duration(0))
		time.Sleep(ProtectMax - time.Millisecond)
		for i, o := range held {
			if !pending(o) {
				t.Errorf("%d was not held", i)
			}
		}
		first.release()
		first.release()
		for i, o := range held {
			check(t, "held", <-o, result{batchlog.ID(7 + i), nil})
		}
		second, release := p.protect(t, first.ticket, "k")
		if second == first.ticket {
			t.Error("a ticket came twice")
		}
		first.release() // of one that is over: the second's goes on
		waits := p.commit(t.Context(), propose(put("k")))
		synctest.Wait()
		if !pending(waits) {
			t.Error("an old release has ended the protection of another")
		}
		release()
		check(t, "last", (<-waits).err, nil)
	})
}

// A protection ends by itself after ProtectMax, also one that was added to; what its owner proposes afterwards is as any other.
func TestProtectTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		ticket, _ := p.protect(t, 0, "k")
		began := time.Now()
		time.Sleep(ProtectMax / 2)
		if again, _ := p.protect(t, ticket, "m"); again != ticket {
			t.Error("what was added has a ticket of its own")
		}
		for _, key := range []string{"k", "m"} {
			mustCommit(t, p, propose(put(key)))
			check(t, "waited for "+key, time.Since(began), ProtectMax)
		}
		_, release := p.protect(t, 0, "k")
		late := p.commit(t.Context(), with(ticket, propose(put("k"))))
		synctest.Wait()
		if !pending(late) {
			t.Error("went by with a ticket that was over")
		}
		release()
		check(t, "late", (<-late).err, nil)
	})
}

// Who leaves while it waits for a protection has none, and holds nobody up; who leaves while it is held is never committed.
func TestProtectContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		_, release := p.protect(t, 0, "k")
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		waits := p.asking(ctx, "k")
		held := p.commit(ctx, propose(put("k")))
		synctest.Wait()
		cancel(why)
		if g := <-waits; !errors.Is(g.err, why) || g.release != nil {
			t.Error(g.err)
		}
		check(t, "held", <-held, result{0, why})
		release()
		began := time.Now()
		mustCommit(t, p, propose(put("k")))
		check(t, "waited", time.Since(began), time.Duration(0))
		check(t, "log", firstKeys(l.durable()), "[k]")
		check(t, "held", len(p.held), 0)
	})
}

// Protect refuses as a write would, and nothing is protected then. Close ends what is held, and who asks.
func TestProtectRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		s.full.Store(true)
		_, _, err := p.Protect(t.Context(), 0, reading(0, []string{"k"}).Reads)
		wantErr(t, "protect", err, batchlog.ErrNoSpace)
		s.full.Store(false)
		began := time.Now()
		mustCommit(t, p, propose(put("k")))
		check(t, "waited", time.Since(began), time.Duration(0))
		_, release := p.protect(t, 0, "k")
		held, asked := p.commit(t.Context(), propose(put("k"))), p.asking(t.Context(), "k")
		synctest.Wait()
		p.Close()
		wantErr(t, "held", (<-held).err, batchlog.ErrClosed)
		wantErr(t, "asked", (<-asked).err, batchlog.ErrClosed)
		release()
		_, _, err = p.Protect(t.Context(), 0, reading(0, []string{"k"}).Reads)
		wantErr(t, "after Close", err, batchlog.ErrClosed)
	})
}

// Two that protect what the other one writes do not wait for each other: the older one goes by, and the younger one is validated, and loses.
func TestProtectionsDoNotWaitForEachOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		old, releaseOld := p.protect(t, 0, "a")
		young, releaseYoung := p.protect(t, 0, "b")
		base := l.Head()
		held := p.commit(t.Context(), with(young, propose(put("a"))))
		synctest.Wait()
		if !pending(held) {
			t.Error("the younger one went by")
		}
		began := time.Now()
		mustCommit(t, p, with(old, propose(put("b"))))
		check(t, "the older one waited", time.Since(began), time.Duration(0))
		tx := reading(base, []string{"b"})
		_, err := p.Commit(t.Context(), with(young, tx))
		wantErr(t, "the younger one", err, batchlog.ErrConflict)
		p.protect(t, young, "b") // it knows what came, and is whole again
		mustCommit(t, p, with(young, reading(l.Head(), []string{"b"})))
		releaseOld()
		check(t, "held", (<-held).err, nil)
		releaseYoung()
	})
}

// A transaction whose reads are protected gets through, whatever is committed beside it: it need not be compared with that.
func TestProtectedGetsThrough(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		ticket, release := p.protect(t, 0, "k")
		defer release()
		for range windowBytes>>20 + 4 {
			mustCommit(t, p, propose(op{batchlog.OpPut, "other", string(make([]byte, 1<<20))}))
		}
		l.trim(l.Head()) // nobody could look at it
		mustCommit(t, p, with(ticket, reading(0, []string{"k"})))
		_, err := p.Commit(t.Context(), with(ticket, reading(0, []string{"k", "more"}))) // what is not protected is compared
		wantErr(t, "more", err, batchlog.ErrConflict)
	})
}

// A ticket says nothing of what came before what was read was protected.
func TestProtectedTooLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		mustCommit(t, p, propose(put("k")))
		ticket, release := p.protect(t, 0, "k")
		defer release()
		_, err := p.Commit(t.Context(), with(ticket, reading(0, []string{"k"})))
		wantErr(t, "read before", err, batchlog.ErrConflict)
		mustCommit(t, p, with(ticket, reading(1, []string{"k"})))
	})
}

// A protection that ends between the look at what was read and the commit's turn is none: all that was read is validated.
func TestProtectedTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		ticket, _ := p.protect(t, 0, "k")
		b := newBlocker()
		l.syncing = b.wait
		first := p.commit(t.Context(), propose(put("first")))
		<-b.entered
		other := p.commit(t.Context(), propose(put("k")))
		synctest.Wait()
		late := p.commit(t.Context(), with(ticket, reading(0, []string{"k"})))
		time.Sleep(2 * ProtectMax)
		b.release()
		check(t, "first", <-first, result{1, nil})
		check(t, "other", <-other, result{2, nil})
		wantErr(t, "late", (<-late).err, batchlog.ErrConflict)
	})
}

// A proposal of many ops is compared with what is protected by its caller; should new protections come all the time it waits for those that there are.
func TestProtectLarge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		var ops []op
		for i := range 2 * lookOps {
			ops = append(ops, put(fmt.Sprint("k", i)))
		}
		_, release := p.protect(t, 0, "other")
		mustCommit(t, p, propose(ops...))
		held := p.commit(t.Context(), propose(append(ops, put("other"))...))
		synctest.Wait()
		if !pending(held) {
			t.Error("went by")
		}
		release()
		check(t, "held", (<-held).err, nil)

		r := p.request()
		r.prop, r.round = propose(ops...), lookRounds
		p.look(r)
		if touched, known := r.touches(&protection{version: 1 << 40, reads: &readSet{}}); !touched || !known {
			t.Error("after some rounds it is not taken for touching all")
		}
		r.wide = false
		if _, known := r.touches(&protection{version: 1 << 40, reads: &readSet{}}); known {
			t.Error("looked at by the write loop")
		}
	})
}

// However many want to be protected for the same keys, and whoever writes these beside them: all get through in their order, and one who is held waits
// for one protection and no longer. Who writes something else does not wait at all.
func TestLosersInLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		const losers, each = 100, 5 * time.Millisecond
		var wg, writers sync.WaitGroup
		var stop atomic.Bool
		writer := func(key string, most time.Duration) {
			writers.Go(func() {
				for !stop.Load() {
					began := time.Now()
					if _, err := p.Commit(t.Context(), propose(put(key))); err != nil {
						t.Error(err)
					}
					if waited := time.Since(began); waited > most {
						t.Errorf("%s waited %s", key, waited)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		for range 3 {
			writer("k", each)
			writer("other", 0)
		}
		began := time.Now()
		for range losers {
			wg.Go(func() {
				ticket, release, err := p.Protect(t.Context(), 0, reading(0, []string{"k"}).Reads)
				if err != nil {
					t.Error(err)
					return
				}
				defer release()
				base := l.Head()
				time.Sleep(each)
				if _, err := p.Commit(t.Context(), with(ticket, reading(base, []string{"k"}))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		check(t, "took", time.Since(began), losers*each)
		stop.Store(true)
		writers.Wait()
	})
}

// A commit that touches what many protect, one after the other, is held for two of them in the end, not for ever.
func TestHeldTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 4 { // of each key somebody protects it nearly all the time, and no two begin at once
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				for ctx.Err() == nil {
					_, release, err := p.Protect(ctx, 0, reading(0, []string{fmt.Sprint(i)}).Reads)
					if err != nil {
						return
					}
					time.Sleep(400 * time.Millisecond)
					release()
				}
			})
		}
		time.Sleep(time.Second)
		for range 20 {
			began := time.Now()
			mustCommit(t, p, propose(put("0"), put("1"), put("2"), put("3")))
			if waited := time.Since(began); waited > 2*400*time.Millisecond {
				t.Errorf("waited %s", waited)
			}
		}
		cancel()
		wg.Wait()
	})
}

// One that wants much is not passed over for ever by those that want little.
func TestWideLoser(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		p := newLine(t, l, s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, release, err := p.Protect(ctx, 0, reading(0, []string{fmt.Sprint(i)}).Reads)
					if err != nil {
						return
					}
					if n := len(p.protected.list()); n > maxProtected {
						t.Errorf("%d at a time", n)
					}
					time.Sleep(time.Duration(50+i) * time.Millisecond)
					release()
				}
			})
		}
		time.Sleep(time.Second)
		began := time.Now()
		_, release, err := p.Protect(t.Context(), 0, reading(0, nil, [2]string{"0", "9"}).Reads)
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited > 300*time.Millisecond {
			t.Errorf("waited %s", waited)
		}
		release()
		cancel()
		wg.Wait()
	})
}

// Random writers, transactions and protections: nobody waits who need not by the model, all end, and what is in the log is serializable: each
// transaction's keys are unchanged from its view to its commit.
func TestProtectRandom(t *testing.T) {
	for seed := range uint64(12) {
		bubble(t, func(t *testing.T) {
			l, s := newFakeLog(t), newFakeStore(t)
			l.syncing = func([]wire.Record) error { time.Sleep(syncTakes); return nil }
			w := world{t: t, seed: seed, p: newLine(t, l, s), log: l, protected: map[string]int{}, ever: map[string]int{}, commits: map[batchlog.ID]read{}}
			var wg sync.WaitGroup
			for n := range uint64(8) {
				wg.Go(func() { w.write(rand.New(rand.NewPCG(seed, n))) })
			}
			for n := range uint64(5) {
				wg.Go(func() { w.transact(rand.New(rand.NewPCG(seed, 100+n))) })
			}
			wg.Wait()
			w.check()
		})
	}
}

// A world is the model of what may be held.
type world struct {
	t    *testing.T
	seed uint64
	p    *Pipeline
	log  *fakeLog

	mu        sync.Mutex
	protected map[string]int // how many protect a key, or ask for that
	ever      map[string]int // how often that began
	commits   map[batchlog.ID]read
}

// A read is what a transaction that was committed has read.
type read struct {
	base batchlog.ID
	keys []string
}

const (
	syncTakes = 50 * time.Microsecond
	longest   = 30 * time.Millisecond // that something is protected
)

// some is one or two keys.
func some(rng *rand.Rand) []string {
	all := []string{"a", "b", "c", "d", "e", "f"}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+rng.IntN(2)]
}

// count is by how many keys are protected, and how often that has begun.
func (w *world) count(keys []string) (now, ever int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range keys {
		now += w.protected[k]
		ever += w.ever[k]
	}
	return now, ever
}

func (w *world) note(keys []string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range keys {
		w.protected[k] += n
		w.ever[k] += max(n, 0)
	}
}

// write makes plain commits: one that touches nothing that is protected meanwhile waits for the syncs alone, any for two protections at most.
func (w *world) write(rng *rand.Rand) {
	for range 150 {
		keys := some(rng)
		var ops []op
		for _, k := range keys {
			ops = append(ops, put(k))
		}
		now, before := w.count(keys)
		began := time.Now()
		if _, err := w.p.Commit(w.t.Context(), propose(ops...)); err != nil {
			w.t.Error(err)
		}
		waited := time.Since(began)
		if _, after := w.count(keys); now == 0 && after == before && waited > 3*syncTakes {
			w.t.Errorf("seed %d: %v waited %s although nobody protects it", w.seed, keys, waited)
		}
		if waited > 2*longest {
			w.t.Errorf("seed %d: %v waited %s", w.seed, keys, waited)
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
	}
}

// transact makes transactions that protect what they read, and add to that when they lose, as they read something else beside it.
func (w *world) transact(rng *rand.Rand) {
	for range 15 {
		keys := some(rng)
		w.note(keys, 1)
		ticket, release, err := w.p.Protect(w.t.Context(), 0, reading(0, keys).Reads)
		for try := 0; err == nil; try++ {
			base := w.log.Head()
			all := append(slices.Clone(keys), some(rng)[0])
			time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
			tx := with(ticket, reading(base, all))
			tx.Ops = propose(put(some(rng)[0])).Ops
			id, lost := w.p.Commit(w.t.Context(), tx)
			if lost == nil {
				w.mu.Lock()
				w.commits[id] = read{base, all}
				w.mu.Unlock()
			}
			if lost == nil || try == 4 {
				break
			}
			wantErr(w.t, "transaction", lost, batchlog.ErrConflict)
			w.note(all[len(keys):], 1)
			keys = all
			_, _, err = w.p.Protect(w.t.Context(), ticket, reading(0, keys).Reads)
		}
		if err != nil {
			w.t.Error(err)
			return
		}
		release()
		w.note(keys, -1)
		time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
	}
}

func (w *world) check() {
	changed := map[string]batchlog.ID{}
	for _, r := range w.log.durable() {
		c := w.commits[r.ID]
		for _, k := range c.keys {
			if changed[k] > c.base {
				w.t.Errorf("seed %d: commit %d has read %s at %d, which %d changed", w.seed, r.ID, k, c.base, changed[k])
			}
		}
		_ = r.EachOp(func(_ batchlog.OpKind, key, _ []byte) error {
			changed[string(key)] = r.ID
			return nil
		})
	}
	if len(w.commits) == 0 {
		w.t.Errorf("seed %d: no transaction got through", w.seed)
	}
	check(w.t, "left protected", len(w.p.protected.list()), 0)
	check(w.t, "left held", len(w.p.held), 0)
}
