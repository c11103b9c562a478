package simtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// tellUndo tells the story of undo: inverses of all sizes, of commits and of chains, with blobs; off and on again, filled in, reverted, trimmed.
func (s *story) tellUndo(begun, then func()) {
	s.t.Helper()
	turn := func(on bool) func() {
		return func() { s.configure(batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, Undo: on}) }
	}
	s.tellSteps(begun, then,
		s.write, s.blob, s.largeChain, turn(true), s.write, s.blob, s.blobChain, s.largeValues, s.largeRange, s.largeChain, s.largeValues, s.rangeChain, s.blobChain,
		turn(false), s.write, s.largeValues, s.rangeChain, s.blob, s.backfill, turn(true), s.write, s.revert, s.write, s.backfill,
		s.revertFar, s.checkInverses, s.goWarm, s.stepTrim, s.checkInverses, s.revert, s.grow, s.stepTrim, s.sweep)
}

// goWarm makes all that is in the log old enough for another directory.
func (s *story) goWarm() {
	s.configure(batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Second, Warm: []string{"/warm"}, Undo: true})
	s.clock.add(time.Hour)
	s.write()
}

// largeValues puts values that are together too large for one block of inverses.
func (s *story) largeValues() {
	c := commit{at: s.clock.now()}
	for i := range 6 {
		c.ops = append(c.ops, op{kind: batchlog.OpPut, space: 9, key: fmt.Sprint("k", i), value: s.value() + strings.Repeat("w", 250_000)})
	}
	s.submit(c)
}

// largeRange deletes them.
func (s *story) largeRange() {
	s.submit(commit{at: s.clock.now(), ops: []op{
		{kind: batchlog.OpDeleteRange, space: 9, open: true}, {kind: batchlog.OpPut, space: 9, key: "k1", value: s.value()},
	}})
}

// rangeChain deletes them in a chain that is taken in as tables.
func (s *story) rangeChain() {
	s.stepChainOf(func(o *openChain) {
		del := op{kind: batchlog.OpDeleteRange, space: 9, key: "k0", high: "k6"}
		s.add(o.chain, del)
		o.commit.chain = append(o.commit.chain, chainStep{op: del})
		s.fill(o, 9, 100)
	})
}

// backfill makes the inverses that are missing. On a disk without fault it succeeds.
func (s *story) backfill() {
	s.t.Helper()
	ctx, cancel := s.context()
	defer cancel()
	head := s.model.head()
	err := s.bounded(func() error { return s.db.Backfill(ctx, batchlog.BackfillOptions{}) })
	s.log("backfill at %d: %v", head, err)
	s.met["backfill "+errClass(err)]++
	switch {
	case err == nil:
		s.kept.filled(head, batchlog.BackfillOptions{})
	case !s.excusedChain(err):
		s.must("backfill", err)
	}
}

// revert brings a space back to where it was before its last change but two, while it is written.
func (s *story) revert() {
	s.stepChainOf(func(o *openChain) {
		s.busy(o)
		to := s.model.head() - min(s.model.head(), 3)
		if err := s.addRevert(o, &spaceRevert{space: 1, to: to, then: s.model.fold(to)}); err != nil && !errors.Is(err, batchlog.ErrNoInverse) && !s.excusedChain(err) {
			s.must("revert", err)
		}
	})
}

// revertFar brings a space, with all in it, back to the beginning.
func (s *story) revertFar() {
	s.stepChainOf(func(o *openChain) {
		to := min(s.model.head(), 1)
		if err := s.addRevert(o, &spaceRevert{space: 1, to: to, then: s.model.fold(to)}); err != nil && !errors.Is(err, batchlog.ErrNoInverse) && !s.excusedChain(err) {
			s.must("revert", err)
		}
	})
}

// grow makes all that is in the log old.
func (s *story) grow() {
	s.configure(batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Second, Undo: true})
	s.clock.add(time.Hour)
}

// Whatever change of the disk the power fails at, while inverses are made, small or large, of commits or chains, kept or filled in later, while they are turned on
// or off, used or trimmed: those that should be there are, and are what was overwritten.
func TestUndoCrashSweep(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	t.Parallel()
	sweepStory(t, 1501, 1501, func(t *testing.T, n int) bool {
		s := newStory(t, uint64(1+n%3))
		s.tellUndo(func() { s.disk.crashIn(n, []int{0, 50, 100}[n%3], n%2 == 0) }, func() {})
		return s.met["power lost"] == 0
	})
}

// Whatever change of the disk the power fails at while one commit with a large inverse is applied, or a chain: after it the inverse is what was overwritten before.
func TestUndoCommitCrash(t *testing.T) {
	t.Parallel()
	for name, commit := range map[string]func(s *story){"range": (*story).largeRange, "chain": (*story).largeChain, "range in a chain": (*story).rangeChain, "blobs in a chain": (*story).blobChain} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n += stepOf(29, 61) {
				s := newStory(t, uint64(n))
				s.mustOpen()
				s.configure(batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, Undo: true})
				s.write()
				s.blob()
				s.largeValues()
				s.stepFlush()
				s.disk.crashIn(n, []int{0, 50, 100}[n%3], n%2 == 0)
				commit(s)
				s.waitApplied()
				if !s.disk.crashed() {
					s.disk.clear()
					s.end()
					return
				}
				s.recover("power lost")
				s.write()
				s.checkInverses()
				s.end()
			}
		})
	}
}

// stepOf is how many operations a sweep goes on by.
func stepOf(stride, short int) int {
	switch {
	case *flagAll:
		return 1
	case testing.Short():
		return short
	default:
		return stride
	}
}

// waitApplied waits until all is applied, or the power is gone.
func (s *story) waitApplied() {
	ctx, cancel := s.context()
	defer cancel()
	if v, err := s.db.View(ctx); err == nil {
		_ = v.Close() // the database may be beyond it
	}
	s.stepFlush()
}

// Whatever operation finds the disk full: nothing hangs that need not, and with space again all goes on.
func TestUndoFullSweep(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	t.Parallel()
	sweepStory(t, 1501, 1501, func(t *testing.T, n int) bool {
		s := newStory(t, uint64(1+n%3))
		s.disk.lenient = n%2 == 0
		full := false
		s.tellUndo(func() { s.disk.fullIn(n) }, func() {
			if s.disk.isFull() {
				full = true
				s.spaceAgain()
				s.backfill()
			}
		})
		return !full
	})
}

// Whatever operation of the disk fails: what is shown of inverses is right, and what was to be kept is, once the database is opened again.
func TestUndoFaultSweep(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	t.Parallel()
	sweepStory(t, 3001, 3001, func(t *testing.T, n int) bool {
		s := newStory(t, uint64(1+n%3))
		s.tellUndo(func() { s.disk.failing(faultAfter(n, 1, nil, "")) }, func() {
			if s.disk.faults() > 0 {
				s.met["fault"]++
				s.disk.clear()
				s.reopen("a fault")
				s.disk.forgive()
			}
		})
		return s.met["fault"] == 0
	})
}
