package simtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A backfill that is broken off at any operation of the disk, by the end of its context, of the database, of the power, by a fault or a full disk, is
// gone on with by the next one, which ends with every inverse there.
func TestBackfillInterrupted(t *testing.T) {
	t.Parallel()
	before := newStory(t, 1)
	before.mustOpen()
	for _, do := range []func(){before.write, before.blob, before.largeChain, before.blob, before.blobChain, before.largeValues, before.rangeChain, before.write} {
		do()
	}
	before.must("close", before.closeBounded())
	for n := 1; ; n += stepOf(191, 397) {
		broken := false
		for how := range 5 {
			t.Run(fmt.Sprint(n, " ", how), func(t *testing.T) {
				s := newStory(t, 1)
				all := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: newRand(1)}
				s.disk = newDisk(before.disk.mem.CrashClone(all), uint64(n))
				*s.model = *before.model
				s.model.now, s.model.known = maps.Clone(before.model.now), slices.Clone(before.model.known)
				s.model.times, s.model.commits = slices.Clone(before.model.times), slices.Clone(before.model.commits)
				if s.interruptBackfill(n, how) {
					broken = true
				}
			})
		}
		if t.Failed() || !broken {
			t.Logf("%d operations", n)
			return
		}
	}
}

// interruptBackfill breaks a backfill off at its n-th operation, in one of the ways, has the next one go on, and reports whether the first one got so far.
func (s *story) interruptBackfill(n, how int) (broken bool) {
	s.t.Helper()
	s.mustOpen()
	ctx, interrupt := context.WithCancelCause(s.t.Context())
	defer interrupt(nil)
	closed := make(chan error, 1)
	var begun atomic.Bool
	switch how {
	case 0:
		s.disk.arm(interrupted(armed{}, n, &begun, func() { interrupt(errInterrupted) }))
	case 1:
		s.disk.arm(interrupted(armed{}, n, &begun, func() { closed <- s.closeBounded() }))
	case 2:
		s.disk.crashIn(n, []int{0, 50, 100}[n%3], n%2 == 0)
	case 3:
		s.disk.failing(faultAfter(n, 1+n%3*10, nil, ""))
	case 4:
		s.disk.fullIn(n)
		go func() { // its caller does not wait for space for ever
			time.Sleep(5 * tick)
			interrupt(errInterrupted)
		}()
	}
	err := s.bounded(func() error { return s.db.Backfill(ctx, batchlog.BackfillOptions{}) })
	s.log("way %d at %d: %v", how, n, err)
	was := s.disk.disarm()
	broken = begun.Load() || s.disk.crashed() || s.disk.faults() > 0 || was.full
	if err == nil && how != 1 && !s.disk.crashed() {
		s.kept.filled(s.model.head(), batchlog.BackfillOptions{})
	}
	switch {
	case s.disk.crashed():
		s.recover("power lost")
	case how == 1 && broken:
		s.must("close", <-closed)
		s.openAgain("a close under way")
	case s.disk.faults() > 0 || n%2 == 0:
		s.reopen("a backfill that was broken off")
		s.disk.forgive()
	}
	s.backfill()
	if s.met["backfill acked"] == 0 {
		s.t.Fatal("the second backfill did not come to its end")
	}
	s.checkStatus()
	s.checkInverses()
	if names, err := s.disk.List("data/db"); err != nil || slices.Contains(names, "undo") {
		s.t.Errorf("left behind: %q, %v", names, err)
	}
	s.recoverFrom(0) // what it has made is durable
	s.end()
	return broken
}

// recoverFrom has the power fail now.
func (s *story) recoverFrom(percent int) {
	s.disk.crash(percent)
	s.recover("power lost")
}

// A blob that only an inverse refers to is kept until the log no longer has the commit that has overwritten it.
func TestBlobOfInverse(t *testing.T) {
	for _, large := range []bool{false, true} {
		t.Run(fmt.Sprint("large=", large), func(t *testing.T) {
			s := newStory(t, 1)
			config := batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, Undo: true}
			s.mustOpen()
			s.configure(config)
			s.blob()
			pass := func() { // what was written so far is in segments of its own, and old
				s.submit(commit{at: s.clock.now(), ops: []op{{kind: batchlog.OpPut, space: 5, key: "k", value: strings.Repeat("x", batchlog.MinSegmentBytes)}}})
				s.clock.add(30 * time.Second)
			}
			pass()
			id := s.model.head() + 1
			if large {
				s.stepChainOf(func(o *openChain) { s.fill(o, 3, 200); s.overwrite(o) })
			} else {
				s.submit(commit{at: s.clock.now(), ops: []op{{kind: batchlog.OpDelete, space: 3, key: "blob"}}})
			}
			for range 4 {
				pass()
				s.stepTrim()
				s.checkStatus()
				s.stepSweep()
				s.checkInverses()
				if there := s.met["blobs swept"] == 0; there != (s.model.oldest <= id) {
					t.Errorf("the blob is there: %t, commit %d has overwritten it, the oldest is %d", there, id, s.model.oldest)
				}
				s.recoverFrom(50)
			}
			if s.model.oldest <= id {
				t.Errorf("the log still has commit %d, from %d on", id, s.model.oldest)
			}
			s.end()
		})
	}
}

func (s *story) overwrite(o *openChain) {
	del := op{kind: batchlog.OpDelete, space: 3, key: "blob"}
	s.add(o.chain, del)
	o.commit.chain = append(o.commit.chain, chainStep{op: del})
}

// Reverts of spaces that others write to, and that a task derives from, give exactly the state that they are asked for, whatever is committed before their turn comes.
func TestRevertBusy(t *testing.T) {
	for seed := range seeds(3, 1) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			d := newDisk(nil, seed)
			opts := crowdOptions(t, d)
			opts.Log.Undo, opts.ChainBytes = true, 16<<10
			db, err := local.Open("db", opts)
			if err != nil {
				t.Fatal(err)
			}
			b := &busyReverts{t: t, db: db, rng: rand.New(rand.NewPCG(seed, 0xb))}
			b.run(25)
			d.crash(int(seed) % 3 * 50)
			if err := closeWithin(db, patience); errors.Is(err, errHung) {
				t.Fatal(err)
			}
			opts.FS = newDisk(d.survivor(), seed)
			if b.db, err = local.Open("db", opts); err != nil {
				t.Fatal(err)
			}
			b.check()
			if err := closeWithin(b.db, patience); err != nil {
				t.Error(err)
			}
		})
	}
}

type busyReverts struct {
	t       *testing.T
	db      *local.DB
	rng     *rand.Rand
	reverts []busyRevert
}

type busyRevert struct {
	low    string // stored keys that begin so
	to, id batchlog.ID
}

// derivedPath is the space that the task writes, within one that is reverted.
var derivedPath = []any{"c", "sum"}

func (b *busyReverts) run(n int) {
	b.t.Helper()
	ctx, stop := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { b.writeLoop(ctx, newRand(uint64(i))) })
	}
	wg.Go(func() {
		err := task.Run(ctx, b.db.DB, task.Task{
			Name: "sum", Source: []*batchlog.Space{b.db.Space("a"), b.db.Space("b")}, Derives: []*batchlog.Space{b.db.Space(derivedPath...)},
			Handle: func(_ context.Context, w *task.Window) error {
				for c, err := range w.Commits() {
					if err != nil {
						return err
					}
					w.Put(b.db.Space(derivedPath...), batchlog.K(uint64(c.ID)%7), fmt.Append(nil, c.ID))
				}
				return nil
			},
		})
		if err != nil && ctx.Err() == nil {
			b.t.Errorf("task: %v", err)
		}
	})
	for range n {
		time.Sleep(2 * time.Millisecond)
		b.revert(ctx)
	}
	stop()
	wg.Wait()
}

// writeLoop writes to a few keys, alone and by ranges.
func (b *busyReverts) writeLoop(ctx context.Context, rng *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		var batch batchlog.Batch
		s := b.db.Space([]any{"a", "b", "c"}[rng.IntN(3)], rng.IntN(2))
		switch rng.IntN(6) {
		case 0:
			batch.DeleteRange(s, batchlog.Between(batchlog.K(rng.IntN(50)), batchlog.K(rng.IntN(50))))
		case 1:
			batch.Delete(s, batchlog.K(rng.IntN(50)))
		default:
			batch.Put(s, batchlog.K(rng.IntN(50)), fmt.Appendf(nil, "%d %0*d", n, rng.IntN(300), 0))
		}
		if _, err := b.db.Write(ctx, &batch); err != nil && ctx.Err() == nil {
			b.t.Errorf("write: %v", err)
			return
		}
		time.Sleep(time.Duration(rng.IntN(500)) * time.Microsecond)
	}
}

func (b *busyReverts) revert(ctx context.Context) {
	b.t.Helper()
	head, err := b.db.Head(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	s := []*batchlog.Space{b.db.Root(), b.db.Space("a"), b.db.Space("b", 1), b.db.Space("c")}[b.rng.IntN(4)]
	stored := string(s.Stored())
	r := busyRevert{low: stored[:len(stored)-1], to: batchlog.ID(b.rng.Uint64N(uint64(head) + 1))}
	c, err := b.db.Chain(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Revert(s, r.to); err != nil {
		b.t.Fatal(err)
	}
	if b.rng.IntN(2) == 0 {
		time.Sleep(3 * time.Millisecond) // others go on
	}
	if r.id, err = c.Commit(ctx); err != nil {
		b.t.Fatal(err)
	}
	b.reverts = append(b.reverts, r)
}

// check folds the log and looks at the reverts on the way, and has the database verify its inverses.
func (b *busyReverts) check() {
	b.t.Helper()
	ctx, cancel := bounded(patience)
	defer cancel()
	head, err := b.db.Head(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	derived := string(b.db.Space(derivedPath...).Stored())
	derived = derived[:len(derived)-1]
	states := []map[string]string{{}}
	for c, err := range b.db.Tail(ctx, batchlog.TailOptions{Until: head}) {
		if err != nil {
			b.t.Fatal(err)
		}
		now := maps.Clone(states[len(states)-1])
		err := c.Inside().EachOp(func(kind batchlog.OpKind, key, value []byte) error {
			switch kind {
			case batchlog.OpPut:
				now[string(key)] = string(value)
			case batchlog.OpDelete:
				delete(now, string(key))
			default:
				maps.DeleteFunc(now, func(k, _ string) bool { return string(key) <= k && k < string(value) })
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
		states = append(states, now)
	}
	between := 0
	for _, r := range b.reverts {
		want := maps.Clone(states[r.id-1])
		in := func(k, _ string) bool { return strings.HasPrefix(k, r.low) && !strings.HasPrefix(k, derived) }
		maps.DeleteFunc(want, in)
		for k, v := range states[r.to] {
			if in(k, v) {
				want[k] = v
			}
		}
		if !maps.Equal(states[r.id], want) {
			b.t.Errorf("commit %d has not brought %x back to commit %d: %d keys, want %d", r.id, r.low, r.to, len(states[r.id]), len(want))
		}
		between += int(r.id - r.to)
	}
	report, err := b.db.Verify(ctx, local.VerifyOptions{})
	if err != nil || len(report.Problems) > 0 || report.Inverses != int64(head) {
		b.t.Errorf("verify: %v, problems %v, %d inverses of %d commits", err, report.Problems, report.Inverses, head)
	}
	b.t.Logf("%d reverts, %d commits; %d commits were taken back", len(b.reverts), head, between)
}
