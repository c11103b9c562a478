package task

import (
	"context"
	"errors"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// takeoverLoop finds workers that have gone silent, and handles the windows of those that are gone. It has a goroutine of its own, as
// all others may wait for such a window.
func (r *runner) takeoverLoop(ctx context.Context) error {
	for {
		tick := time.After(r.t.Lease / 10)
		var orphan *taskstate.Claim
		if _, err := r.seen.wait(ctx, tick, func() bool {
			orphan = r.seen.orphanLocked(r.fence)
			return orphan != nil
		}); err != nil {
			return err
		}
		err := r.takeOver(ctx, orphan)
		if passing(err) {
			err = sleep(ctx, retryOften)
		}
		if err != nil {
			return err
		}
	}
}

// takeOver handles an orphan, if there is one, and looks who has gone silent.
func (r *runner) takeOver(ctx context.Context, orphan *taskstate.Claim) error {
	if orphan != nil {
		if err := r.adopt(ctx, *orphan); err != nil {
			return err
		}
	}
	for _, fence := range r.seen.silent(r.t.Lease) {
		if err := r.declareDead(ctx, fence); err != nil {
			return err
		}
	}
	return nil
}

// orphanLocked is the window whose turn it is, if it was taken by a worker which is gone, or by this one before it looked anew. One
// that comes later must wait: who waits for its turn here would not see that the one before it is an orphan, too.
func (p *progress) orphanLocked(own uint64) *taskstate.Claim {
	for _, c := range p.claims {
		_, alive := p.workers[c.Fence]
		_, left := p.left[c.First]
		if (left || !alive && c.Fence != own) && c.First <= p.cursor+1 && c.Last > p.cursor {
			return &c
		}
	}
	return nil
}

// silent is the workers that hold windows, or have not been heard of for long, and gave no sign of life.
func (p *progress) silent(lease time.Duration) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []uint64
	for fence, seen := range p.workers {
		patience := taskstate.AliveFor
		for _, c := range p.claims {
			if c.Fence == fence && c.Last > p.cursor {
				patience = min(patience, lease)
			}
		}
		if time.Since(seen) > patience {
			list = append(list, fence)
		}
	}
	return list
}

// declareDead takes a worker off the task: from then on it cannot commit.
func (r *runner) declareDead(ctx context.Context, fence uint64) error {
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if _, err := tx.Get(r.at.Workers, batchlog.K(fence)); err != nil {
			return err
		}
		if _, err := tx.Get(r.at.Workers, batchlog.K(r.fence)); errors.Is(err, batchlog.ErrNotFound) {
			return errLost // it was declared dead itself
		} else if err != nil {
			return err
		}
		tx.Inside().Move(admin(r.t.Name))
		tx.Delete(r.at.Workers, batchlog.K(fence))
		return nil
	})
	switch {
	case errors.Is(err, batchlog.ErrNotFound): // somebody else was faster
		return nil
	case err == nil:
		r.t.Logger.Warn("worker has gone silent; its windows are taken over", "task", r.t.Name, "worker", fence)
	}
	return err
}

// adopt takes the claim of a worker that is gone, and handles its window.
func (r *runner) adopt(ctx context.Context, c taskstate.Claim) error {
	key := batchlog.K(uint64(c.First))
	taken := false
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		taken = false
		var now taskstate.Claim
		if known, err := taskstate.Load(tx, r.at.Claims, key, &now); err != nil || !known || now != c {
			return err // somebody else was faster
		}
		if err := r.asWorker(tx); err != nil {
			return err
		}
		taken = true
		now.Fence = r.fence
		taskstate.Save(tx, r.at.Claims, key, now)
		return nil
	})
	if err := lost(err); err != nil {
		return err
	}
	r.seen.mu.Lock()
	delete(r.seen.claims, c.First) // what the log says of it comes later
	delete(r.seen.left, c.First)
	first := max(c.First, r.seen.cursor+1)
	r.seen.mu.Unlock()
	if !taken || first > c.Last {
		return nil
	}
	w, err := r.window(ctx, first, c.Last)
	if err != nil {
		return err
	}
	w.claim = c.First
	r.begin(w)
	return r.handle(ctx, w)
}

// window reads a window again.
func (r *runner) window(ctx context.Context, first, last batchlog.ID) (*window, error) {
	w := &window{first: first, last: first - 1}
	for c, err := range r.db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(first), Until: last, Spaces: r.source()}) {
		if err != nil {
			return nil, err
		}
		if !r.made(c) {
			w.add(c)
		}
	}
	w.last = last
	return w, nil
}
