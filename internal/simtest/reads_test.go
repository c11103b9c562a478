package simtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
)

// A heldView is a view with the state that it must show for as long as it is open.
type heldView struct {
	view *batchlog.View
	id   batchlog.ID
	now  state
}

// readErr says whether a read that ended with err is done with: it failed for a reason that there is.
func (r *run) readErr(what string, err error) bool {
	r.t.Helper()
	switch {
	case err == nil || errors.Is(err, batchlog.ErrNotFound):
		return false
	case r.excused(err):
		r.met["read failed"]++
		r.log("%s: %v", what, err)
		return true
	case r.disk.isFull() && errors.Is(err, errHung):
		// The store waits for space to apply what was acknowledged before.
		r.met["read held by a full disk"]++
		r.log("%s on a full disk: %v", what, err)
		return true
	}
	r.must(what, err)
	return true
}

func (r *run) stepGet() {
	r.t.Helper()
	p := place{r.readable(), randomKey(r.rng)}
	var opts []batchlog.ReadOption
	if head := r.model.head(); head > 0 && r.rng.IntN(4) == 0 {
		opts = append(opts, batchlog.AtLeast(head), batchlog.MaxWait(time.Hour))
	}
	ctx, cancel := r.context()
	defer cancel()
	got, err := r.spaces[p.space].Get(ctx, batchlog.Key(p.key), opts...)
	if r.readErr("get", err) {
		return
	}
	if want, ok := r.model.now[p]; ok != (err == nil) || string(got) != want {
		r.t.Fatalf("step %d: get %v: %.60q, %v; want %.60q, %t", r.step, p, got, err, want, ok)
	}
}

// stepStale reads without a wait: what it sees must have been there at some id.
func (r *run) stepStale() {
	r.t.Helper()
	p := place{r.readable(), randomKey(r.rng)}
	ctx, cancel := r.context()
	defer cancel()
	got, err := r.spaces[p.space].Get(ctx, batchlog.Key(p.key), batchlog.Stale())
	if err != nil && r.disk.isFull() && !errors.Is(err, batchlog.ErrNotFound) && !r.excused(err) {
		r.must("stale get on a full disk", err)
	}
	if r.readErr("stale get", err) {
		return
	}
	if !r.model.had(p, string(got), err == nil) {
		r.t.Fatalf("step %d: stale get %v: %.60q, %v; it never was", r.step, p, got, err)
	}
}

func (r *run) stepScan() {
	r.t.Helper()
	space, rg, reverse := r.readable(), randomRange(r.rng), r.rng.IntN(2) == 0
	var opts []batchlog.ReadOption
	if reverse {
		opts = append(opts, batchlog.ScanReverse())
	}
	ctx, cancel := r.context()
	defer cancel()
	var got []pair
	for e, err := range r.spaces[space].Scan(ctx, rg, opts...) {
		if r.readErr("scan", err) {
			return
		}
		got = append(got, pair{string(e.Key), string(e.Value)})
	}
	r.must(fmt.Sprintf("scan of %v, %q to %q, reverse %t", worldPaths[space], string(rg.Low), string(rg.High), reverse), samePairs(got, r.model.now.scan(space, rg, reverse)))
}

// stepWait asks for what is yet to come: it must be told what it waited for.
func (r *run) stepWait() {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	id := r.model.head() + 5
	_, err := r.db.View(ctx, batchlog.AtLeast(id), batchlog.MaxWait(time.Millisecond))
	if r.excused(err) {
		return
	}
	var we *batchlog.WaitError
	if !errors.As(err, &we) || we.For != id || we.Applied > r.model.head() || !errors.Is(err, context.DeadlineExceeded) {
		r.t.Fatalf("step %d: a view at %d is %v, want a *WaitError", r.step, id, err)
	}
}

func (r *run) stepView() {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	var opts []batchlog.ReadOption
	stale := r.rng.IntN(4) == 0
	if stale {
		opts = append(opts, batchlog.Stale())
	}
	v, err := r.db.View(ctx, opts...)
	if r.readErr("view", err) {
		return
	}
	r.log("view at %d", v.ID())
	if !stale {
		r.must("view", heldIsFresh(v.ID(), r.model.head()))
	}
	if v.ID() > r.model.head() {
		r.t.Fatalf("step %d: view at %d, head is %d", r.step, v.ID(), r.model.head())
	}
	r.views = append(r.views, &heldView{v, v.ID(), r.model.fold(v.ID())})
}

func (r *run) stepReadView() {
	r.t.Helper()
	v := r.views[r.rng.IntN(len(r.views))]
	if v.view.ID() != v.id {
		r.t.Fatalf("step %d: view went from %d to %d", r.step, v.id, v.view.ID())
	}
	space, rg, reverse := r.readable(), randomRange(r.rng), r.rng.IntN(2) == 0
	got, err := collect(v.view, r.spaces[space], rg, reverse)
	if r.readErr("scan of a view", err) {
		return
	}
	r.must(fmt.Sprintf("view at %d", v.id), samePairs(got, v.now.scan(space, rg, reverse)))
}

func (r *run) stepCloseView() {
	r.t.Helper()
	i := r.rng.IntN(len(r.views))
	r.must("close view", r.views[i].view.Close())
	r.views = slices.Delete(r.views, i, i+1)
}

// A follower is a tail that is open, and all that it has yielded.
type follower struct {
	watched
	next   func() (*batchlog.Commit, error, bool)
	stop   func()
	cancel context.CancelCauseFunc
	at     batchlog.ID // the last commit or bookmark
}

// randomFilter is some spaces, or nil for all.
func (r *run) randomFilter() []int {
	if r.rng.IntN(3) == 0 {
		return nil
	}
	return r.rng.Perm(r.followable())[:1+r.rng.IntN(2)]
}

// tailOptions are those for a tail of these spaces.
func (r *run) tailOptions(from batchlog.Position, filter []int) batchlog.TailOptions {
	o := batchlog.TailOptions{From: from, Bookmarks: r.rng.IntN(2) == 0}
	for _, s := range filter {
		o.Spaces = append(o.Spaces, r.spaces[s])
	}
	return o
}

// randomFrom is a position, and the id that it stands for.
func (r *run) randomFrom() (batchlog.Position, batchlog.ID) {
	head := r.model.head()
	id := batchlog.ID(1 + r.rng.Uint64N(uint64(head)+2))
	switch r.rng.IntN(7) {
	case 0:
		return batchlog.First(), 1
	case 1:
		return batchlog.Oldest(), r.model.oldest
	case 2:
		return batchlog.After(id - 1), id
	case 3:
		if head == 0 {
			return batchlog.First(), 1
		}
		at := r.model.times[r.rng.IntN(len(r.model.times))] + int64(r.rng.IntN(3)-1)
		if slices.Contains(r.model.known, false) {
			return batchlog.At(id), id
		}
		first, _ := slices.BinarySearch(r.model.times, at)
		return batchlog.Since(time.UnixMicro(at)), batchlog.ID(first + 1)
	default:
		return batchlog.At(id), id
	}
}

// stepTail reads from somewhere to the head, in one go or in two.
func (r *run) stepTail() {
	r.t.Helper()
	from, id := r.randomFrom()
	filter := r.randomFilter()
	o := r.tailOptions(from, filter)
	o.Until = r.model.head()
	if o.Until == 0 || id > o.Until {
		return
	}
	ctx, cancel := r.context()
	defer cancel()
	list, err := tailAll(ctx, r.db.DB, o)
	r.log("tail from %s (%d) of %v: %d, %v", from, id, filter, len(list), err)
	if id < r.model.oldest && !r.excused(err) {
		r.must("tail from what is gone", gapIsTyped(err, id, r.model.oldest-1, r.model.oldest))
		r.met["gap"]++
		if len(list) > 0 {
			r.t.Fatalf("step %d: %d commits before the gap", r.step, len(list))
		}
		return
	}
	if r.readErr("tail", err) {
		return
	}
	whole := &watched{from: id, filter: filter, seen: list}
	r.must("tail", watchContract(whole, r.model))
	r.must("tail to its end", r.cameToEnd(whole, o.Until))
	if len(list) < 2 {
		return
	}
	cut := 1 + r.rng.IntN(len(list)-1)
	first := &watched{from: id, filter: filter, seen: list[:cut]}
	o.From = batchlog.After(list[cut-1].id)
	list, err = tailAll(ctx, r.db.DB, o)
	if r.readErr("tail that goes on", err) {
		return
	}
	second := &watched{from: behind(first), filter: filter, seen: list}
	r.must("tail that goes on", errors.Join(isResumable(first, second, r.model), r.cameToEnd(second, o.Until)))
}

// behind is the id behind the last that w saw.
func behind(w *watched) batchlog.ID { return w.seen[len(w.seen)-1].id + 1 }

// cameToEnd says which commit up to until did not come.
func (r *run) cameToEnd(w *watched, until batchlog.ID) error {
	got := map[batchlog.ID]bool{}
	for _, s := range w.commits() {
		got[s.id] = true
	}
	for id := w.from; id <= until; id++ {
		if r.model.commits[id-1].matches(w.filter) && !got[id] {
			return fmt.Errorf("commit %d did not come", id)
		}
	}
	return nil
}

// stepFollow begins a tail that goes on.
func (r *run) stepFollow() {
	// By an id: a tail finds out what a time stands for when it begins, which is at the first pull.
	_, id := r.randomFrom()
	id = max(id, r.model.oldest)
	from := batchlog.At(id)
	filter := r.randomFilter()
	r.log("follow from %s (%d), %v", from, id, filter)
	r.follow(from, id, filter)
}

func (r *run) follow(from batchlog.Position, id batchlog.ID, filter []int) {
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &follower{watched: watched{from: id, filter: filter}, at: id - 1, cancel: cancel}
	next, stop := iter.Pull2(r.db.Tail(ctx, r.tailOptions(from, filter)))
	f.next = next
	f.stop = func() {
		cancel(nil)
		stop()
	}
	r.followers = append(r.followers, f)
}

// due is how many commits the follower has not yet been given.
func (f *follower) due(m *model) int {
	n := 0
	for id := max(f.at+1, f.from); id <= m.head(); id++ {
		if m.commits[id-1].matches(f.filter) {
			n++
		}
	}
	return n
}

// stepPull lets a follower have some of the commits that are due.
func (r *run) stepPull() {
	r.t.Helper()
	i := r.rng.IntN(len(r.followers))
	f := r.followers[i]
	n := f.due(r.model)
	if n == 0 {
		return
	}
	n = 1 + r.rng.IntN(n)
	r.log("pull %d behind %d, %v", n, f.at, f.filter)
	for n > 0 {
		rest := patient(patience, func() { f.cancel(errHung) })
		c, err, ok := f.next()
		rest()
		if !ok {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			f.stop()
			r.followers = slices.Delete(r.followers, i, i+1)
			r.followerEnded(f, err)
			return
		}
		s, err := see(c)
		if err != nil { // of a chain, whose ops are read now
			f.stop()
			r.followers = slices.Delete(r.followers, i, i+1)
			r.followerEnded(f, err)
			return
		}
		f.seen = append(f.seen, s)
		f.at = s.id
		if !s.bookmark {
			n--
		}
	}
	r.must("follower", watchContract(&f.watched, r.model))
}

// followerEnded asserts that a tail had a reason to end.
func (r *run) followerEnded(f *follower, err error) {
	r.t.Helper()
	r.log("follower at %d ends: %v", f.at, err)
	if r.excused(err) {
		return
	}
	r.must("a follower ends", gapIsTyped(err, f.at+1, r.model.oldest-1, r.model.oldest))
	r.met["gap"]++
}

func (r *run) stepEndFollow() {
	i := r.rng.IntN(len(r.followers))
	r.followers[i].stop()
	r.followers = slices.Delete(r.followers, i, i+1)
}
