package task

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
	"github.com/bytespace/batchlog/internal/wire"
)

// turnWait is how long a window that is computed waits, with its transaction open, for the one before it. After that it lets go of the
// transaction, which keeps old versions in the store, and is computed again when its turn comes.
const turnWait = time.Second

var (
	errPaused = errors.New("paused")
	errTurn   = errors.New("the window before takes long")
)

// A handlerError is an error of the handler, or of what it wrote, which counts as an attempt.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }

// windowLoop handles windows until there are no more. What ends the task's work goes to stop.
func (r *runner) windowLoop(ctx context.Context, jobs <-chan *window, stop context.CancelCauseFunc) {
	for w := range jobs {
		if err := r.handle(ctx, w); err != nil {
			stop(err)
			return
		}
	}
}

// handle brings a window to its end: committed, or by the policy for poison parked or skipped.
func (r *runner) handle(ctx context.Context, w *window) error {
	defer r.end(w)
	for rest := w; ; {
		cut, err := r.handlePart(ctx, rest)
		if err != nil || cut == 0 {
			return err
		}
		// Somebody wants to see the task at this very commit.
		if again, err := r.handlePart(ctx, rest.upTo(cut)); err != nil || again != 0 {
			if err == nil {
				continue // at an earlier one first
			}
			return err
		}
		next := rest.after(cut)
		next.endOf = w
		rest = next
	}
}

// handlePart brings a window to its end, or returns the commit at which it must be cut in two.
func (r *runner) handlePart(ctx context.Context, w *window) (cut batchlog.ID, err error) {
	backoff := r.t.Retry.First
	for attempt := 1; ; {
		err := lost(r.try(ctx, w, attempt))
		var failed *handlerError
		var refused *batchlog.TaskMoveError
		switch {
		case err == nil:
			r.seen.moved(w.last)
			return 0, nil
		case errors.As(err, &refused):
			return refused.Cut, nil
		case errors.Is(err, errTurn):
			if _, err := r.seen.turn(ctx, w.first, nil); err != nil {
				return 0, err
			}
		case errors.Is(err, errPaused):
			if err := r.waitResumed(ctx); err != nil {
				return 0, err
			}
		case passing(err):
			if err := sleep(ctx, retryOften); err != nil {
				return 0, err
			}
		case errors.As(err, &failed) && ctx.Err() == nil:
			if attempt == r.t.Retry.Attempts {
				return r.poison(ctx, w, attempt, failed.err)
			}
			// Half of it is jitter, so that tasks that failed together do not come back together.
			pause := backoff/2 + time.Duration(rand.Int64N(int64(backoff/2)+1))
			r.t.Logger.Warn("window failed; it will be tried again", "task", r.t.Name, "first", w.first, "last", w.last, "attempt", attempt, "in", pause, "err", failed.err)
			if err := r.report(ctx, taskstate.Trouble{First: w.first, Last: w.last, Attempts: attempt, Error: failed.err.Error(), Next: time.Now().Add(pause)}); err != nil {
				return 0, err
			}
			if err := sleep(ctx, pause); err != nil {
				return 0, err
			}
			attempt++
			backoff = min(2*backoff, r.t.Retry.Max)
		default:
			return 0, err
		}
	}
}

// try computes a window and commits it with the cursor. If what it read is changed by a window before it, Update computes it again: so
// the outcome is that of one window after the other.
func (r *runner) try(ctx context.Context, w *window, attempt int) error {
	began := time.Now()
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		control, err := r.mayWork(tx)
		if err != nil {
			return err
		}
		if len(w.commits) > 0 {
			if err := r.call(ctx, r.handed(w, tx, attempt)); err != nil {
				return &handlerError{err}
			}
		}
		held, err := r.seen.turn(ctx, w.first, time.After(turnWait))
		if err != nil {
			return err
		}
		if !held {
			return errTurn
		}
		if attempt > 1 {
			tx.Delete(r.at.State, taskstate.KeyTrouble)
		}
		return r.moveTo(tx, w, control, began)
	})
	return written(err)
}

// written is the error of a commit: a handlerError if what the handler wrote can't be committed.
func written(err error) error {
	if errors.As(err, new(*batchlog.HookError)) || errors.Is(err, batchlog.ErrTooLarge) || errors.Is(err, batchlog.ErrPermission) && !errors.As(err, new(*batchlog.TaskMoveError)) ||
		errors.Is(err, batchlog.ErrUnsupported) {
		return &handlerError{err}
	}
	return err
}

// mayWork returns why this worker may not commit windows now, or nil.
func (r *runner) mayWork(tx *batchlog.Tx) (taskstate.Control, error) {
	var c taskstate.Control
	if _, err := taskstate.Load(tx, r.at.State, taskstate.KeyControl, &c); err != nil {
		return c, err
	}
	if c.Paused {
		return c, errPaused
	}
	return c, nil
}

// moveTo makes the end of w the cursor.
func (r *runner) moveTo(tx *batchlog.Tx, w *window, c taskstate.Control, began time.Time) error {
	tx.Inside().Move(wire.TaskMove{Task: r.t.Name, Fence: r.fence, From: w.first - 1, To: w.last})
	taskstate.Save(tx, r.at.State, taskstate.KeyCursor, taskstate.Cursor{ID: w.last, Time: time.Now().UTC(), Rate: r.rate.with(w, began)})
	if claim := r.claimOf(w); claim != 0 {
		tx.Delete(r.at.Claims, batchlog.K(uint64(claim)))
	}
	return hold(tx, r.db, r.t.Name, w.last, c)
}

// call calls the handler. A panic is a failed attempt: one window must not end its host.
func (r *runner) call(ctx context.Context, w *Window) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return r.t.Handle(ctx, w)
}

// poison does with a window that failed for good what the policy says, or returns the commit at which it must be cut in two.
func (r *runner) poison(ctx context.Context, w *window, attempts int, cause error) (cut batchlog.ID, err error) {
	if _, err := r.seen.turn(ctx, w.first, nil); err != nil {
		return 0, err
	}
	if r.t.Poison == Stop {
		if err := r.report(ctx, taskstate.Trouble{First: w.first, Last: w.last, Attempts: attempts, Error: cause.Error(), Stopped: true}); err != nil {
			return 0, err
		}
		return 0, &PoisonError{Task: r.t.Name, First: w.first, Last: w.last, Attempts: attempts, Err: cause}
	}
	verb := map[Poison]string{Park: "parked", Skip: "skipped"}[r.t.Poison]
	r.t.Logger.Error("window failed for good and is "+verb, "task", r.t.Name, "first", w.first, "last", w.last, "attempts", attempts, "err", cause)
	for began := time.Now(); ; {
		_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
			c, err := r.mayWork(tx)
			if err != nil {
				return err
			}
			if r.t.Poison == Park {
				taskstate.Save(tx, r.at.Parked, batchlog.K(uint64(w.first)), ParkedWindow{
					First: w.first, Last: w.last, Attempts: attempts, Error: cause.Error(), Time: time.Now().UTC(),
				})
			}
			tx.Delete(r.at.State, taskstate.KeyTrouble)
			return r.moveTo(tx, w, c, began)
		})
		var refused *batchlog.TaskMoveError
		switch err := lost(err); {
		case err == nil:
			r.seen.moved(w.last)
			return 0, nil
		case errors.As(err, &refused):
			return refused.Cut, nil
		case errors.Is(err, errPaused):
			if err := r.waitResumed(ctx); err != nil {
				return 0, err
			}
		case !passing(err):
			return 0, err
		default:
			if err := sleep(ctx, retryOften); err != nil {
				return 0, err
			}
		}
	}
}

// report keeps what is wrong where Get finds it.
func (r *runner) report(ctx context.Context, t taskstate.Trouble) error {
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := r.asWorker(tx); err != nil {
			return err
		}
		taskstate.Save(tx, r.at.State, taskstate.KeyTrouble, t)
		return nil
	})
	if passing(err) {
		return nil
	}
	return lost(err)
}

// waitResumed returns when the task is no longer paused.
func (r *runner) waitResumed(ctx context.Context) error {
	for {
		// What the worker has seen may be behind the pause: the database is asked.
		v, err := r.db.View(ctx, systemOnly)
		if err != nil {
			return err
		}
		var c taskstate.Control
		_, err = taskstate.Load(v, r.at.State, taskstate.KeyControl, &c)
		if err := errors.Join(err, v.Close()); err != nil || !c.Paused {
			return err
		}
		if _, err := r.seen.wait(ctx, time.After(retryOften), func() bool { return false }); err != nil {
			return err
		}
	}
}

// A rate is how fast the task passes through the log while it has work.
type rate struct {
	mu    sync.Mutex
	value float64 // commits a second
	moved time.Time
}

// with is the rate after w, which was begun at that time. Waiting for commits doesn't count.
func (r *rate) with(w *window, began time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.moved.After(began) {
		began = r.moved // side by side with the one before
	}
	now := time.Now()
	r.moved = now
	if took := now.Sub(began).Seconds(); took > 0 {
		const weight = 0.1
		last := float64(w.last-w.first+1) / took
		if r.value == 0 {
			r.value = last
		}
		r.value += weight * (last - r.value)
	}
	return r.value
}
