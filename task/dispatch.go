package task

import (
	"context"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// Where nothing matches, the cursor is moved for the sake of that alone when so many commits were looked through, and so much time is over.
const (
	skipCommits = 1000
	skipEvery   = 250 * time.Millisecond
)

// dispatch cuts the log into windows and hands those that this worker takes to jobs, until ctx ends or the log can't be followed.
//
// A worker that is alone just takes the next one. With others each window is claimed in the database before it is handled. That is only
// to share the work: which windows are committed, in which order, and by whom, does not depend on claims.
func (r *runner) dispatch(ctx context.Context, jobs chan<- *window) error {
	defer close(jobs)
	r.seen.mu.Lock()
	at := r.seen.cursor
	r.seen.mu.Unlock()
	found := make(chan *batchlog.Commit, min(r.t.Window.Commits, 1000))
	failed := make(chan error, 1)
	ahead := newAhead(r.t.Window.Bytes)
	go func() {
		defer close(found)
		for c, err := range r.db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(at), Spaces: r.source(), Bookmarks: true}) {
			if err != nil {
				failed <- err
				return
			}
			if r.made(c) {
				c = c.AsBookmark()
			}
			if err := ahead.take(ctx, c.Size()); err != nil {
				failed <- err
				return
			}
			select {
			case found <- c:
			case <-ctx.Done():
				failed <- context.Cause(ctx)
				return
			}
		}
		failed <- context.Cause(ctx)
	}()
	c := collector{found: found, ahead: ahead, limit: r.t.Window, skipped: time.Now()}
	for next := at + 1; ; {
		w := c.collect(next)
		if w == nil {
			return <-failed
		}
		next = w.last + 1
		if !r.seen.alone() {
			claimed, err := r.claim(ctx, w)
			for passing(err) {
				if err := sleep(ctx, retryOften); err != nil {
					return err
				}
				claimed, err = r.claim(ctx, w)
			}
			if err != nil {
				return err
			}
			if claimed == nil {
				continue
			}
			w = claimed
		}
		r.begin(w)
		select {
		case jobs <- w:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// source is the spaces that the task follows.
func (r *runner) source() []*batchlog.Space {
	if len(r.t.Source) == 0 {
		return []*batchlog.Space{r.db.Root()} // but not the system's own, such as this task's cursor
	}
	return r.t.Source
}

// made reports whether c is a window of this task. A task does not handle what it has written itself: it would never come to an end.
func (r *runner) made(c *batchlog.Commit) bool { return madeBy(c, r.t.Name) }

func madeBy(c *batchlog.Commit, name string) bool { return c.Task != nil && c.Task.Task == name }

// A collector makes windows of commits.
type collector struct {
	found   <-chan *batchlog.Commit
	ahead   *ahead // of what is in found
	limit   Limit
	skipped time.Time // when the cursor was last moved for nothing's sake
}

// collect waits for commits and returns the window that begins with commit first, or nil when there are no more to come.
func (k *collector) collect(first batchlog.ID) *window {
	w := &window{first: first, last: first - 1}
	var timeout <-chan time.Time
	for {
		var c *batchlog.Commit
		var ok bool
		if len(w.commits) > 0 && timeout == nil { // whatever is there already, no waiting
			select {
			case c, ok = <-k.found:
			default:
				return w
			}
		} else {
			select {
			case c, ok = <-k.found:
			case <-timeout:
				if len(w.commits) == 0 {
					k.skipped = time.Now()
				}
				return w
			}
		}
		if ok {
			k.ahead.give(c.Size())
		}
		switch {
		case !ok:
			return nil
		case c.ID < first:
			continue // another worker's
		case !c.Bookmark():
			w.add(c)
			if w.full(k.limit) {
				return w
			}
			if len(w.commits) == 1 {
				timeout = nil
				if k.limit.Wait > 0 {
					timeout = time.After(k.limit.Wait)
				}
			}
		default:
			w.last = c.ID
			if len(w.commits) == 0 && timeout == nil && w.last-w.first+1 >= skipCommits {
				timeout = time.After(time.Until(k.skipped.Add(skipEvery)))
			}
		}
	}
}

// claim takes w for this worker, as far as no other one has; nil if others have it all. What it had taken while it was
// alone is claimed with it.
func (r *runner) claim(ctx context.Context, w *window) (*window, error) {
	var mine *window
	var claimed []*window
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		mine, claimed = nil, nil
		var frontier taskstate.Frontier
		if _, err := taskstate.Load(tx, r.at.State, taskstate.KeyFrontier, &frontier); err != nil {
			return err
		}
		r.seen.mu.Lock()
		to := max(frontier.ID, r.seen.cursor)
		r.seen.mu.Unlock()
		for _, held := range r.unclaimed() {
			switch {
			case held.last <= to:
				continue
			case held.first != to+1:
				return errMoved
			}
			claimed = append(claimed, held)
			to = held.last
		}
		switch {
		case w.first > to+1:
			return errMoved
		case w.last > to:
			mine = w.after(to)
			claimed = append(claimed, mine)
			to = mine.last
		}
		if len(claimed) == 0 {
			return nil
		}
		if err := r.asWorker(tx); err != nil {
			return err
		}
		for _, c := range claimed {
			taskstate.Save(tx, r.at.Claims, batchlog.K(uint64(c.first)), taskstate.Claim{First: c.first, Last: c.last, Fence: r.fence})
		}
		taskstate.Save(tx, r.at.State, taskstate.KeyFrontier, taskstate.Frontier{ID: to})
		return nil
	})
	if err := lost(err); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range claimed {
		c.claim = c.first
	}
	return mine, nil
}

// begin notes that w is being handled, end that it is no more.
func (r *runner) begin(w *window) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds, r.since = append(r.holds, w), time.Now()
}

func (r *runner) end(w *window) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds, r.since = slices.DeleteFunc(r.holds, func(o *window) bool { return o == w }), time.Now()
}

// held is the part of the log that is being handled, and since when nothing has changed in that.
func (r *runner) held() (first, last batchlog.ID, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.holds {
		if first == 0 || w.first < first {
			first = w.first
		}
		last = max(last, w.last)
	}
	return first, last, r.since
}

// unclaimed is the windows that were taken without a claim.
func (r *runner) unclaimed() []*window {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*window
	for _, w := range r.holds {
		if w.claim == 0 {
			list = append(list, w)
		}
	}
	return list
}

// claimOf is what w is claimed under, 0 if it isn't, or if more comes under the same claim.
func (r *runner) claimOf(w *window) batchlog.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.endOf != nil {
		return w.endOf.claim
	}
	return w.claim
}
