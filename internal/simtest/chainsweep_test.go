package simtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// A story is a fixed program about chains, copies and blobs, which takes all their phases in turn.
type story struct {
	*run
}

func newStory(t *testing.T, seed uint64) *story {
	t.Helper()
	r := newRun(t, seed, mix{segmentBytes: batchlog.MinSegmentBytes, memTableBytes: 64 << 10, values: 200, spaceStrict: true})
	r.fullPatience = 3 * tick
	return &story{r}
}

// tell does the story. begun is called when the database is open; after each step, then is.
func (s *story) tell(begun, then func()) {
	s.t.Helper()
	s.tellSteps(begun, then,
		s.write, s.largeChain, s.write, s.busyCopy, s.blob, s.write, s.blob, s.mixedCopy, s.blobChain, s.move, s.dropped, s.age, s.stepTrim, s.stepFlush, s.sweep)
}

func (s *story) tellSteps(begun, then func(), steps ...func()) {
	s.t.Helper()
	s.mustOpen()
	begun()
	for n, do := range steps {
		s.step = n + 1
		do()
		s.checkStep()
		then()
	}
	s.step++
	s.disk.clear()
	s.reopen("last")
	s.letGo()
	s.verify()
	s.disk.clear()
	s.sweep()
	s.end()
}

func (s *story) write() {
	c := commit{at: s.clock.now()}
	for i := range 30 {
		c.ops = append(c.ops, op{kind: batchlog.OpPut, space: 1 + i%3, key: fmt.Sprint("k", i), value: s.value()})
	}
	c.ops = append(c.ops, op{kind: batchlog.OpDelete, space: 1, key: "k3"}, op{kind: batchlog.OpDeleteRange, space: 2, key: "k1", high: "k2"})
	s.submit(c)
}

// fill adds puts and deletes to a chain.
func (s *story) fill(o *openChain, space, n int) {
	add := func(op op) {
		s.add(o.chain, op)
		o.commit.chain = append(o.commit.chain, chainStep{op: op})
	}
	for i := range n {
		add(op{kind: batchlog.OpPut, space: space, key: fmt.Sprint("k", i*7919%n), value: s.value()})
	}
	add(op{kind: batchlog.OpDelete, space: space, key: "k1"})
	add(op{kind: batchlog.OpDeleteRange, space: space, key: "k20", high: "k22"})
	add(op{kind: batchlog.OpPut, space: space, key: "k21", value: s.value()})
}

func (s *story) copy(o *openChain, c spaceCopy) {
	err := s.addCopy(o, &c)
	o.lost = o.lost || err != nil
	s.log("copy %s: %v", c, err)
	o.commit.chain = append(o.commit.chain, chainStep{copy: &c})
}

// largeChain commits a chain that is sorted in several runs, and taken in as tables.
func (s *story) largeChain() {
	s.stepChainOf(func(o *openChain) {
		o.token = fmt.Sprint("large ", s.step)
		o.chain.Token = o.token
		s.fill(o, 1, 300)
	})
}

// busy has commits be made to the source and the target of a copy while it is committed.
func (s *story) busy(o *openChain) {
	n := 0
	o.chain.Progress = func(p batchlog.ChainProgress) {
		if n > 1 || p.Stage == "fill" || p.Stage == "catch up" || s.disk.crashed() || s.disk.isFull() {
			return
		}
		n++
		s.met["written during "+p.Stage]++
		s.submit(commit{at: s.clock.now(), ops: []op{
			{kind: batchlog.OpPut, space: 1, key: "k5", value: s.value()}, {kind: batchlog.OpDelete, space: 1, key: "k6"},
			{kind: batchlog.OpPut, space: 8, key: "k6", value: s.value()}, {kind: batchlog.OpDeleteRange, space: 1, key: "k30", high: "k31"},
		}})
		if n == 1 {
			time.Sleep(100 * time.Millisecond) // until there is a report again
		}
	}
}

// busyCopy copies a tree that is written meanwhile.
func (s *story) busyCopy() {
	s.stepChainOf(func(o *openChain) {
		s.copy(o, spaceCopy{dst: 8, src: 1, tree: true, open: true})
		s.busy(o)
	})
}

// mixedCopy does so with ops on the same keys.
func (s *story) mixedCopy() {
	s.stepChainOf(func(o *openChain) {
		s.fill(o, 5, 20)
		s.copy(o, spaceCopy{dst: 5, src: 1, open: true})
		s.fill(o, 5, 30)
		s.busy(o)
	})
}

func (s *story) move() {
	s.stepChainOf(func(o *openChain) { s.copy(o, spaceCopy{dst: 6, src: 5, open: true, move: true}) })
}

// blob puts a blob over the one before.
func (s *story) blob() {
	o := op{kind: batchlog.OpPut, space: 3, key: "blob", value: s.value()}
	s.putBlob(&o, s.value()+strings.Repeat("b", 70_000))
	s.submit(commit{at: s.clock.now(), ops: []op{o}})
}

// putBlob makes the value of a put a blob, if that can be stored.
func (s *story) putBlob(o *op, value string) {
	s.t.Helper()
	ctx, cancel := s.context()
	defer cancel()
	ref, err := s.db.StoreBlob(ctx, strings.NewReader(value))
	s.log("blob: %v", err)
	switch {
	case err == nil:
		o.value, o.ref = value, &ref
	case !s.excusedChain(err):
		s.must("store a blob", err)
	case !s.disk.crashed() && s.disk.faults() == 0 && !errors.Is(err, batchlog.ErrNoSpace) && !errors.Is(err, errHung):
		s.must("store a blob on a full disk", err)
	}
}

// blobChain commits a chain with blobs, that is taken in as tables.
func (s *story) blobChain() {
	s.stepChainOf(func(o *openChain) {
		s.fill(o, 3, 60)
		for i := range 3 {
			p := op{kind: batchlog.OpPut, space: 3, key: fmt.Sprint("blob", i), value: s.value()}
			s.putBlob(&p, strings.Repeat("c", 3000)+fmt.Sprint(i/2)) // two of them the same
			s.add(o.chain, p)
			o.commit.chain = append(o.commit.chain, chainStep{op: p})
		}
	})
}

// dropped fills a chain that is not committed.
func (s *story) dropped() {
	s.stepChain()
	if len(s.chains) > 0 {
		o := s.chains[len(s.chains)-1]
		s.fill(o, 1, 300)
		s.copy(o, spaceCopy{dst: 5, src: 1, open: true})
		s.stepCloseChain()
	}
}

// age makes all that is in the log old.
func (s *story) age() {
	ctx, cancel := s.context()
	defer cancel()
	c := batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Second}
	err := s.db.Configure(ctx, c)
	s.log("configure: %v", err)
	if err != nil && !s.excusedChain(err) && !s.disk.isFull() {
		s.must("configure", err)
	}
	s.clock.add(time.Hour)
}

func (s *story) sweep() {
	for _, c := range s.chains {
		_ = c.chain.Close() // what stays is swept
	}
	s.chains = nil
	s.stepSweep()
}

// sweepStory tells the story for every stride-th n from 1 on, some at once, until one says that it has come to its end without what was to go wrong.
func sweepStory(t *testing.T, stride, short int, tell func(t *testing.T, n int) (done bool)) {
	t.Helper()
	if testing.Short() {
		stride = short
	}
	if *flagAll {
		stride = 1
	}
	const at = 8 // at once: a story waits more than it works
	var done atomic.Bool
	for n := 1; !done.Load() && !t.Failed(); n += at * stride {
		t.Run(fmt.Sprint("from ", n), func(t *testing.T) {
			for i := range at {
				t.Run(fmt.Sprint(n+i*stride), func(t *testing.T) {
					t.Parallel()
					if tell(t, n+i*stride) {
						done.Store(true)
					}
				})
			}
		})
	}
}

// Whatever change of the disk the power fails at, while a chain is filled, sorted, built, committed and applied, while a copy catches up, while blobs are put
// and swept: what is there then is whole or not at all, and nothing stays that nothing needs.
func TestChainCrashSweep(t *testing.T) {
	t.Parallel()
	sweepStory(t, 67, 191, func(t *testing.T, n int) bool {
		s := newStory(t, uint64(1+n%3))
		s.tell(func() { s.disk.crashIn(n, []int{0, 50, 100}[n%3], n%2 == 0) }, func() {})
		return s.met["power lost"] == 0
	})
}

// Whatever operation finds the disk full: the error says so or the call waits, no id is given, reads go on, and when there is space again
// what has failed is tried again and succeeds.
func TestChainFullSweep(t *testing.T) {
	t.Parallel()
	sweepStory(t, 31, 97, func(t *testing.T, n int) bool {
		s := newStory(t, uint64(1+n%3))
		s.disk.lenient = n%2 == 0
		full := false
		s.tell(func() { s.disk.fullIn(n) }, func() {
			if s.disk.isFull() {
				full = true
				s.spaceAgain()
			}
		})
		return !full
	})
}

// spaceAgain reads on the full disk, and tries again what has failed when there is space.
func (s *story) spaceAgain() {
	s.t.Helper()
	s.stepStale()
	ctx, cancel := s.context()
	v, err := s.db.View(ctx, batchlog.Stale())
	s.must("view on a full disk", err)
	s.must("view on a full disk", errors.Join(viewIsFold(v, s.spaces, s.model.fold(v.ID())), v.Close()))
	cancel()
	s.stepSpace()
	for len(s.chains) > 0 {
		o := s.chains[0]
		if err := o.chain.Err(); err != nil && !o.lost && !errors.Is(err, batchlog.ErrNoSpace) {
			s.must("chain on a disk that was full", err)
		}
		left := len(s.chains)
		s.met["tried again"]++
		for try := 0; len(s.chains) == left; try++ {
			if o.lost {
				s.met["copy lost to a full disk"]++
				s.must("close", o.chain.Close())
				s.chains = s.chains[1:]
				break
			}
			ctx, cancel := bounded(patience)
			o.at = s.clock.now()
			id, err := o.chain.Commit(ctx)
			cancel()
			if err == nil {
				s.settle(o.commit, id, err)
				s.chains = s.chains[1:]
				s.must("close", o.chain.Close())
				break
			}
			if try > 20 || !errors.Is(err, batchlog.ErrNoSpace) {
				s.t.Fatalf("step %d: there is space again, and a chain can't be committed: %v", s.step, err)
			}
			time.Sleep(tick)
		}
	}
	list, err := s.db.Chains(context.Background())
	if err != nil || len(list) > 0 {
		s.t.Fatalf("step %d: chains are %+v, %v", s.step, list, err)
	}
}
