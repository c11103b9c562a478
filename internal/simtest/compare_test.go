package simtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// What a program compares with its model when it has opened a database.

// compare asserts that the database is what the model is: after this nothing is pending.
func (r *run) compare() {
	r.t.Helper()
	armed := r.disk.disarm() // what is compared is what was recovered, not how it reads under faults
	defer r.disk.arm(armed)
	ctx, cancel := bounded(patience)
	defer cancel()
	st, err := r.db.Status(ctx)
	r.must("status", err)
	r.must("marks", marksOrdered(&st))
	r.model.latest = max(r.model.latest, r.clock.now().UnixMicro())
	if st.Oldest < r.model.oldest && !r.trimmed {
		r.t.Fatalf("oldest went from %d to %d", r.model.oldest, st.Oldest)
	}
	// A trim that was under way when the power went may or may not have been.
	r.model.oldest, r.trimmed = st.Oldest, false
	var log []seen
	if st.Head >= st.Oldest {
		log, err = tailAll(ctx, r.db.DB, batchlog.TailOptions{From: batchlog.Oldest(), Until: st.Head})
		r.must("tail of the whole log", err)
	}
	r.must("ids", idsDense(log, st.Oldest))
	before := r.model.head()
	r.must("log", ackedSurvives(r.model, log))
	if n := r.model.head() - before; n > 0 {
		r.met["uncertain commits found"] += int(n)
	}
	if st.Head != r.model.head() {
		r.t.Fatalf("head is %d, want %d", st.Head, r.model.head())
	}
	r.must("times", timesAscend(log, r.model))
	var opts []batchlog.ReadOption
	if r.wide { // what tasks derive is compared as it is, not as it will be
		opts = append(opts, batchlog.Stale())
	}
	v, err := r.db.View(ctx, opts...)
	r.must("view", err)
	defer v.Close()
	if v.ID() != r.model.head() {
		r.t.Fatalf("view is at %d, want %d", v.ID(), r.model.head())
	}
	r.must("store", viewIsFold(v, r.spaces, r.model.now))
	r.must("inverses", r.kept.check(&st))
	if !r.kept.sure {
		r.kept.turn(st.Undo.On, true, st.Head)
		r.config.Undo = st.Undo.On
	}
	r.checkInverses()
}

// tailAll is all that a tail with an end yields.
func tailAll(ctx context.Context, db *batchlog.DB, o batchlog.TailOptions) ([]seen, error) {
	var list []seen
	for c, err := range db.Tail(ctx, o) {
		if err != nil {
			return list, err
		}
		s, err := see(c)
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
	return list, nil
}

// verify asserts that the database finds nothing wrong with itself.
func (r *run) verify() {
	r.t.Helper()
	ctx, cancel := bounded(patience)
	defer cancel()
	report, err := r.db.Verify(ctx, local.VerifyOptions{})
	if err != nil && (r.excused(err) || r.disk.isFull() && errors.Is(err, batchlog.ErrNoSpace)) {
		return
	}
	r.must("verify", err)
	if r.disk.faults() > 0 || r.disk.crashed() { // what can't be read is a problem too
		report.Problems = slices.DeleteFunc(report.Problems, func(p local.Problem) bool { return strings.Contains(p.What, syscall.EIO.Error()) })
	}
	if len(report.Problems) > 0 {
		r.t.Fatalf("step %d: verify finds %d problems: %v", r.step, len(report.Problems), report.Problems[0])
	}
}
