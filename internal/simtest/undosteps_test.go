package simtest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/bytespace/batchlog"
)

// The steps of programs that are about undo.

// configure changes the settings, and takes note of what comes of it for undo.
func (r *run) configure(c batchlog.LogConfig) {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	if !c.Undo || !r.config.Undo || !r.kept.sure { // from now on nothing is certain
		r.kept.turn(c.Undo && r.kept.on, false, r.model.head())
	}
	err := r.db.Configure(ctx, c)
	r.log("configure %+v: %v", c, err)
	r.everWarm = r.everWarm || len(c.Warm) > 0
	if err == nil {
		r.config = c
		r.kept.turn(c.Undo, true, r.model.head())
		return
	}
	r.met["configure failed"]++
	if !r.excused(err) && !r.disk.isFull() {
		r.must("configure", err)
	}
}

// stepBackfill makes the inverses that are missing. Sometimes it is interrupted at an operation of the disk.
func (r *run) stepBackfill() {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	var o batchlog.BackfillOptions
	if r.rng.IntN(3) == 0 {
		armed := r.disk.disarm()
		defer r.disk.arm(armed)
		r.disk.arm(interrupted(armed, r.rng.IntN(100), nil, func() { interrupt(errInterrupted) }))
	}
	if r.rng.IntN(6) == 0 {
		o.Limit = 1 << r.rng.IntN(16)
	}
	head := r.model.head()
	r.kept.limit = 0
	err := r.bounded(func() error { return r.db.Backfill(ctx, o) })
	r.log("backfill, limit %d, at %d: %v", o.Limit, head, err)
	r.met["backfill "+errClass(err)]++
	var missing *batchlog.InverseError
	switch {
	case err == nil:
		r.kept.filled(head, o)
		r.checkStatus()
		r.checkInverses()
	case errors.Is(err, errInterrupted):
	case errors.As(err, &missing):
		if !missing.Gone || r.model.oldest == 1 {
			r.must("backfill", err)
		}
	case !r.excusedChain(err):
		r.must("backfill", err)
	}
}

// bounded is what a call returns, whose context ends in time; or it fails the test when it hangs.
func (r *run) bounded(call func() error) error {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	tired := make(chan struct{})
	defer patient(2*patience, func() { close(tired) })()
	select {
	case err := <-done:
		return err
	case <-tired:
		r.t.Fatalf("step %d: %v:\n%s", r.step, errHung, stacks())
		return nil
	}
}

// errInterrupted ends what was to be interrupted.
var errInterrupted = errors.New("interrupted")

// interrupted is what is armed, with a call at an operation to come. begun, if not nil, is set when it comes.
func interrupted(a armed, after int, begun *atomic.Bool, call func()) armed {
	before := a.fault
	a.fault = func(op diskOp) error {
		if after--; after == 0 {
			if begun != nil {
				begun.Store(true)
			}
			go call() // not under the lock of the disk
		}
		if before != nil {
			return before(op)
		}
		return nil
	}
	return a
}

// stepRevert brings a space back to an earlier commit.
func (r *run) stepRevert() {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	st, err := r.db.Status(ctx)
	if err != nil && r.excused(err) {
		return
	}
	r.must("status", err)
	oldest, head := uint64(st.Oldest), uint64(r.model.head())
	low := oldest - min(oldest, 3)
	if r.rng.IntN(2) == 0 && head > 20 {
		low = max(low, head-20)
	}
	to := batchlog.ID(low + r.rng.Uint64N(head-low+1))
	v := &spaceRevert{space: r.writable(), to: to, then: r.model.fold(to)}
	r.stepChainOf(func(o *openChain) {
		r.busyChain(o)
		covered := covers(st.Undo.Have, to+1, st.Applied) && st.Applied == r.model.head()
		err := r.addRevert(o, v)
		r.log("revert %d to %d: %v", v.space, to, err)
		if err == nil {
			r.met["reverts"]++
		}
		if err != nil && errors.Is(err, batchlog.ErrNoInverse) {
			r.met["reverts without inverse"]++
			var missing *batchlog.InverseError
			if !errors.As(err, &missing) || covered && missing.Limit == 0 {
				r.t.Fatalf("step %d: revert to %d: %v; undo is %+v", r.step, to, err, st.Undo)
			}
		}
	})
}

// addRevert adds a revert to a chain.
func (r *run) addRevert(o *openChain, v *spaceRevert) error {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	defer context.AfterFunc(ctx, func() { o.cancel(context.Cause(ctx)) })()
	err := o.chain.Revert(r.spaces[v.space], v.to)
	o.lost, o.noInverse = o.lost || err != nil, errors.Is(err, batchlog.ErrNoInverse)
	o.blobs = true // or may have
	o.commit.chain = append(o.commit.chain, chainStep{revert: v})
	return err
}
