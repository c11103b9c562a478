package commit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

func randomReads(rng *rand.Rand, most int) *waist.Reads {
	var reads waist.Reads
	key := func() []byte {
		b := make([]byte, rng.IntN(3))
		for i := range b {
			b[i] = "abcdef"[rng.IntN(6)]
		}
		return b
	}
	for range rng.IntN(most) {
		if rng.IntN(2) == 0 {
			reads.Keys = append(reads.Keys, key())
		} else {
			reads.Ranges = append(reads.Ranges, wire.KeyRange{Low: key(), High: key()}) // some are empty, or upside down
		}
	}
	return &reads
}

// A readSet answers as a look at each key and range that was read does, whatever they are; it is in order, and does not change what it was made of.
func TestReadSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	universe := [][]byte{{}}
	for _, a := range "abcdef" {
		universe = append(universe, []byte{byte(a)})
		for _, b := range "abcdef" {
			universe = append(universe, []byte{byte(a), byte(b)})
		}
	}
	within := func(r wire.KeyRange, key []byte) bool {
		return bytes.Compare(r.Low, key) <= 0 && bytes.Compare(key, r.High) < 0
	}
	touches := func(reads *waist.Reads, key []byte) bool {
		for _, k := range reads.Keys {
			if bytes.Equal(k, key) {
				return true
			}
		}
		for _, r := range reads.Ranges {
			if within(r, key) {
				return true
			}
		}
		return false
	}
	overlaps := func(reads *waist.Reads, low, high []byte) bool {
		for _, k := range reads.Keys {
			if within(wire.KeyRange{Low: low, High: high}, k) {
				return true
			}
		}
		for _, r := range reads.Ranges {
			if bytes.Compare(r.Low, r.High) < 0 && bytes.Compare(low, high) < 0 && bytes.Compare(low, r.High) < 0 && bytes.Compare(r.Low, high) < 0 {
				return true
			}
		}
		return false
	}
	var s readSet // its memory is used again and again
	for n := range 3000 {
		reads, other := randomReads(rng, 12), randomReads(rng, 12)
		before := fmt.Sprint(reads)
		s.set(reads)
		if fmt.Sprint(reads) != before {
			t.Fatal("what was read was changed")
		}
		var o readSet
		o.set(other)
		both := s.with(&o)
		rest := s.with(&readSet{})
		rest.without(&o)
		meets := false
		for _, key := range universe {
			one, two := touches(reads, key), touches(other, key)
			if s.touches(key) != one || both.touches(key) != (one || two) {
				t.Fatalf("run %d: %q in %v: %t, with %v: %t", n, key, reads, s.touches(key), other, both.touches(key))
			}
			if left := rest.touches(key); left && !one || one && !two && !left {
				t.Fatalf("run %d: %q in %v without %v: %t", n, key, reads, other, left)
			}
			for _, high := range universe {
				want := overlaps(reads, key, high)
				if s.overlaps(key, high) != want {
					t.Fatalf("run %d: %q to %q in %v: %t", n, key, high, reads, !want)
				}
				if at := s.readIn(key, high); want != (at != nil) && bytes.Compare(key, high) < 0 {
					t.Fatalf("run %d: %q to %q in %v is at %q", n, key, high, reads, at)
				}
			}
		}
		for _, k := range other.Keys {
			meets = meets || touches(reads, k)
		}
		for _, r := range other.Ranges {
			meets = meets || overlaps(reads, r.Low, r.High)
		}
		if s.meets(&o) != meets || o.meets(&s) != meets {
			t.Fatalf("run %d: %v meets %v: %t, %t", n, reads, other, s.meets(&o), o.meets(&s))
		}
		for i := 1; i < len(s.ranges); i++ {
			if bytes.Compare(s.ranges[i-1].High, s.ranges[i].Low) >= 0 {
				t.Fatalf("run %d: ranges of %v are %v", n, reads, s.ranges)
			}
		}
	}
}

// numbered is n ranges apart from one another, or as many keys.
func numbered(n int, keys bool) *waist.Reads {
	var reads waist.Reads
	for i := range n {
		low := fmt.Appendf(nil, "%08d", 2*((i*7919)%n))
		if keys {
			reads.Keys = append(reads.Keys, low)
		} else {
			reads.Ranges = append(reads.Ranges, wire.KeyRange{Low: low, High: append(low, 'x')})
		}
	}
	return &reads
}

// A key or a range is found in log n, however much was read.
func TestLookupsAreShort(t *testing.T) {
	for _, n := range []int{1, 10, 10_000, 200_000} {
		for _, keys := range []bool{false, true} {
			var s readSet
			s.set(numbered(n, keys))
			if len(s.keys)+len(s.ranges) != n {
				t.Fatal(len(s.keys), len(s.ranges))
			}
			s.steps = 0
			const lookups = 1000
			for i := range lookups {
				s.touches(fmt.Appendf(nil, "%08d", i*37+1))
				s.overlaps(fmt.Appendf(nil, "%08dy", i*37), fmt.Appendf(nil, "%08dz", i*37))
			}
			if most := lookups * 2 * 2 * (bits.Len(uint(n)) + 1); s.steps > most {
				t.Errorf("%d, keys %t: %d comparisons, at most %d", n, keys, s.steps, most)
			}
		}
	}
}

// The write loop compares a bounded number of ops with what a transaction has read, whatever has come meanwhile; more is handed back. So one
// that scans 10,000 ranges beside batches of 50,000 ops holds the others up for no more than one that reads a key does.
func TestWriteLoopShare(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	p := newLine(t, l, s)
	prop := propose(put("own"))
	prop.Reads = numbered(10_000, false)
	r := p.request()
	r.prop = prop
	if err := p.prepare(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	var ops []op
	for i := range 50_000 {
		ops = append(ops, put(fmt.Sprintf("%08dz", i)))
	}
	batch := propose(ops...)
	large := wire.Record{ID: 1, Count: batch.Count, Ops: batch.Ops}
	small := func(n int) (records []wire.Record) {
		one := propose(put("z"))
		for range n {
			records = append(records, wire.Record{Count: 1, Ops: one.Ops})
		}
		return records
	}
	for name, c := range map[string]struct {
		records []wire.Record
		round   int
		again   bool
	}{
		"a large batch":                  {[]wire.Record{large}, 0, true},
		"a large batch, after rounds":    {[]wire.Record{large}, checkRounds - 1, false},
		"many commits":                   {small(checkOps), 0, true},
		"many commits, the second round": {small(checkOps), 1, false},
		"some commits":                   {small(checkOps / 2), 0, false},
	} {
		p.records, r.round, r.reads.steps = c.records, c.round, 0
		err := p.validate(r)
		if c.again != errors.Is(err, errAgain) || err != nil && !c.again {
			t.Errorf("%s: %v", name, err)
		}
		if most := (checkOps << c.round) * 2 * 15; r.reads.steps > most {
			t.Errorf("%s: %d comparisons", name, r.reads.steps)
		}
	}
	p.records = nil
}

// A transaction that is handed back looks at what came by itself, and is committed, or loses, as any other.
func TestHandedBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		p := newLine(t, l, s)
		first := p.commit(t.Context(), propose(put("first")))
		<-b.entered
		var ops []op
		for i := range 3 * checkOps {
			ops = append(ops, put(fmt.Sprint(i)))
		}
		before := p.commit(t.Context(), propose(append(ops, put("last"))...))
		time.Sleep(time.Millisecond)
		wins := p.commit(t.Context(), reading(0, []string{"free"}))
		loses := p.commit(t.Context(), reading(0, []string{"last"}))
		time.Sleep(time.Millisecond)
		b.release()
		check(t, "first", <-first, result{1, nil})
		check(t, "before", <-before, result{2, nil})
		check(t, "wins", <-wins, result{3, nil})
		var lost *batchlog.ConflictError
		if r := <-loses; !errors.As(r.err, &lost) || lost.ID != 2 || string(lost.Stored) != "last" {
			t.Error(r.err)
		}
	})
}

// A caller that has left may use what it had proposed for something else at once. (The race detector tells.) Protections come and go meanwhile, so that the write
// loop looks at what waits.
func TestLeftProposalsAreFree(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	l.syncing = func([]wire.Record) error { time.Sleep(20 * time.Microsecond); return nil }
	p := newLine(t, l, s)
	var wg, churn sync.WaitGroup
	var stop atomic.Bool
	for w := range 4 {
		churn.Go(func() {
			for !stop.Load() {
				_, end, err := p.Protect(t.Context(), 0, &waist.Reads{Keys: [][]byte{fmt.Append(nil, "other", w)}})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(30 * time.Microsecond)
				end()
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			prop := propose(put("k"))
			for i := range 300 {
				prop.Ticket, prop.Count = 0, 1
				prop.Ops = append(prop.Ops[:0], propose(put("k")).Ops...)
				prop.Reads = &waist.Reads{Keys: [][]byte{[]byte("r")}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%5)*20*time.Microsecond)
				_, err := p.Commit(ctx, prop)
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				clear(prop.Ops)
				prop.Ticket, prop.Count, prop.Reads.Keys[0][0] = uint64(i), 2, 'x'
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	churn.Wait()
	for _, key := range firstKeys(l.durable()) {
		check(t, "committed", key, "k")
	}
}

// What a caller that has left had proposed is not looked at, not even to see what it touches.
func TestLeftIsNotLookedAt(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	r := newLine(t, l, s).request()
	r.prop = propose(put("k"))
	g := &protection{version: 1, reads: &readSet{keys: [][]byte{[]byte("k")}}}
	if touched, known := r.touches(g); !touched || !known {
		t.Error("does not touch what it writes")
	}
	if !r.leave() {
		t.Fatal("could not leave")
	}
	r.prop = nil // it would panic
	if touched, known := r.touches(g); touched || !known {
		t.Error("still touches something")
	}
}
