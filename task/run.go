package task

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
)

const (
	// leaseTime is how long a worker that went silent is waited for before another one takes over.
	leaseTime = 5 * time.Second
	// leaseRenew is how often a worker says that it is alive.
	leaseRenew = leaseTime / 3
	// skipPersist is how many commits without a match are looked through before the cursor is moved for their sake alone.
	skipPersist = 1000
	// retryOften is how long a worker waits before it asks again for what it can't do now: a full disk, a lease.
	retryOften = 200 * time.Millisecond
)

// Run handles commits of t's sources until ctx ends, and returns why it stopped: the context's error, a *PoisonError, a
// *batchlog.GapError if commits that t has not handled are gone, or the database's error.
//
// Any number of Runs of one task, in this process or elsewhere, may be under way: one works, the others stand by and take over when it
// ends or goes silent. Whoever lost the task cannot commit, whatever it had begun.
func Run(ctx context.Context, db *batchlog.DB, t Task) error {
	t, err := t.withDefaults()
	if err != nil {
		return err
	}
	r := &runner{db: db, t: t, at: spacesOf(db, t.Name), worker: rand.Text()}
	if err := r.register(ctx); err != nil {
		return fmt.Errorf("task %s: %w", t.Name, err)
	}
	for {
		if err := r.acquire(ctx); err != nil {
			return fmt.Errorf("task %s: %w", t.Name, err)
		}
		err := r.work(ctx)
		if !errors.Is(err, errLost) {
			return fmt.Errorf("task %s: %w", t.Name, err)
		}
		t.Logger.Warn("task taken over by another worker; standing by", "task", t.Name)
	}
}

// A runner is one Run.
type runner struct {
	db     *batchlog.DB
	t      Task
	at     spaces
	worker string
}

// register makes the state of a task that is new.
func (r *runner) register(ctx context.Context) error {
	start, err := r.start(ctx)
	if err != nil {
		return err
	}
	_, err = r.db.Update(ctx, func(tx *batchlog.Tx) error {
		var c config
		known, err := load(tx, r.at.state, keyConfig, &c)
		if err != nil {
			return err
		}
		if !known {
			c.Made = time.Now().UTC()
			save(tx, r.at.state, keyCursor, cursor{start})
			if err := r.at.hold(tx, r.t.Name, start); err != nil {
				return err
			}
		}
		c.Source = nil
		for _, s := range r.t.Source {
			c.Source = append(c.Source, s.String())
		}
		save(tx, r.at.state, keyConfig, c)
		return nil
	})
	return err
}

// start is the cursor of the task if it is new: the commit before its first.
func (r *runner) start(ctx context.Context) (batchlog.ID, error) {
	head, err := r.db.Head(ctx)
	if err != nil || r.t.Start == batchlog.First() {
		return 0, err
	}
	for c, err := range r.db.Tail(ctx, batchlog.TailOptions{From: r.t.Start, Until: head}) {
		if err != nil {
			return 0, err
		}
		return c.ID - 1, nil
	}
	return head, nil
}

// acquire makes r the task's worker, as soon as there is no other that is alive.
func (r *runner) acquire(ctx context.Context) error {
	for {
		var wait time.Duration
		_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
			wait = 0
			if _, err := tx.Get(r.at.state, keyConfig); errors.Is(err, batchlog.ErrNotFound) {
				return fmt.Errorf("it was dropped: %w", ErrUnknown)
			} else if err != nil {
				return err
			}
			var f fence
			var l lease
			if _, err := load(tx, r.at.state, keyFence, &f); err != nil {
				return err
			}
			if _, err := load(tx, r.at.state, keyLease, &l); err != nil {
				return err
			}
			if left := time.Until(l.Until); f.Worker != r.worker && left > 0 {
				wait = min(left, retryOften)
				return nil
			}
			save(tx, r.at.state, keyFence, fence{f.Number + 1, r.worker})
			save(tx, r.at.state, keyLease, lease{time.Now().Add(leaseTime)})
			return nil
		})
		if err != nil || wait == 0 {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// mine returns errLost unless r is still the task's worker. It is a read of every window, so it holds when the window is committed.
func (r *runner) mine(tx *batchlog.Tx) error {
	var f fence
	if _, err := load(tx, r.at.state, keyFence, &f); err != nil {
		return err
	}
	if f.Worker != r.worker {
		return errLost
	}
	return nil
}

// work is the worker's life: it renews the lease, hands out windows and, at its end, gives the lease back.
func (r *runner) work(ctx context.Context) error {
	within, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { stop(r.renewLoop(within)) })
	wg.Go(func() { stop(r.parkedLoop(within)) })
	jobs := make(chan *window)
	for range r.t.Concurrency {
		wg.Go(func() { r.windowLoop(within, jobs, stop) })
	}
	err := r.dispatch(within, jobs)
	stop(err)
	wg.Wait()
	err = context.Cause(within)
	r.release()
	return err
}

// renewLoop keeps the lease until ctx ends or it is lost.
func (r *runner) renewLoop(ctx context.Context) error {
	for {
		if err := sleep(ctx, leaseRenew); err != nil {
			return err
		}
		_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
			if err := r.mine(tx); err != nil {
				return err
			}
			save(tx, r.at.state, keyLease, lease{time.Now().Add(leaseTime)})
			return nil
		})
		if err != nil && !passing(err) {
			return err
		}
	}
}

// release lets another worker take over at once. If that fails it does when the lease runs out.
func (r *runner) release() {
	ctx, cancel := context.WithTimeout(context.Background(), leaseTime)
	defer cancel()
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := r.mine(tx); err != nil {
			return err
		}
		tx.Delete(r.at.state, keyLease)
		return nil
	})
	if err != nil && !errors.Is(err, errLost) && !errors.Is(err, batchlog.ErrClosed) {
		r.t.Logger.Warn("lease not given back; it runs out by itself", "task", r.t.Name, "err", err)
	}
}

// dispatch cuts the log into windows and hands them to jobs, until ctx ends or the log can't be followed.
func (r *runner) dispatch(ctx context.Context, jobs chan<- *window) error {
	defer close(jobs)
	var at cursor
	if err := r.read(ctx, keyCursor, &at); err != nil {
		return err
	}
	source := r.t.Source
	if len(source) == 0 {
		source = []*batchlog.Space{r.db.Root()} // but not the system's own, such as this task's cursor
	}
	found := make(chan *batchlog.Commit, r.t.Window.Commits)
	failed := make(chan error, 1)
	go func() {
		defer close(found)
		for c, err := range r.db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(at.ID), Spaces: source, Bookmarks: true}) {
			if err != nil {
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
	}()
	before := make(chan struct{})
	close(before)
	for next := at.ID + 1; ; {
		w := r.collect(found, next)
		if w == nil {
			return <-failed
		}
		w.before = before
		select {
		case jobs <- w:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		before, next = w.done, w.last+1
	}
}

// collect waits for commits and returns the next window, or nil when there are no more to come.
func (r *runner) collect(found <-chan *batchlog.Commit, first batchlog.ID) *window {
	w := &window{first: first, last: first - 1, done: make(chan struct{})}
	var timeout <-chan time.Time
	for {
		var c *batchlog.Commit
		var ok bool
		switch {
		case len(w.commits) == 0:
			c, ok = <-found
		case timeout == nil: // whatever is there already, no waiting
			select {
			case c, ok = <-found:
			default:
				return w
			}
		default:
			select {
			case c, ok = <-found:
			case <-timeout:
				return w
			}
		}
		if !ok {
			return nil
		}
		if c.Bookmark() {
			w.last = c.ID
			if len(w.commits) == 0 && w.last-w.first+1 < skipPersist {
				continue
			}
			return w
		}
		w.add(c)
		if w.full(r.t.Window) {
			return w
		}
		if timeout == nil && r.t.Window.Wait > 0 {
			timeout = time.After(r.t.Window.Wait)
		}
	}
}

// read sets v to what is under a key of the task's state now, if anything is.
func (r *runner) read(ctx context.Context, k batchlog.Key, v any) error {
	view, err := r.db.View(ctx)
	if err != nil {
		return err
	}
	defer view.Close()
	_, err = load(view, r.at.state, k, v)
	return err
}

// passing reports whether an error of the database goes by with time.
func passing(err error) bool { return errors.Is(err, batchlog.ErrNoSpace) }

// sleep waits for d, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
