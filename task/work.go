package task

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/bytespace/batchlog"
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
		close(w.done)
	}
}

// handle brings a window to its end: committed, or by the policy for poison parked or skipped.
func (r *runner) handle(ctx context.Context, w *window) error {
	backoff := r.t.Retry.First
	for attempt := 1; ; {
		err := r.try(ctx, w, attempt)
		var failed *handlerError
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errTurn):
			if err := waitFor(ctx, w.before); err != nil {
				return err
			}
		case errors.Is(err, errPaused):
			if err := r.waitResumed(ctx); err != nil {
				return err
			}
		case passing(err):
			if err := sleep(ctx, retryOften); err != nil {
				return err
			}
		case errors.As(err, &failed) && ctx.Err() == nil:
			if attempt == r.t.Retry.Attempts {
				return r.poison(ctx, w, attempt, failed.err)
			}
			// Half of it is jitter, so that tasks that failed together do not come back together.
			pause := backoff/2 + time.Duration(rand.Int64N(int64(backoff/2)+1))
			r.t.Logger.Warn("window failed; it will be tried again", "task", r.t.Name, "first", w.first, "last", w.last, "attempt", attempt, "in", pause, "err", failed.err)
			if err := r.report(ctx, trouble{First: w.first, Last: w.last, Attempts: attempt, Error: failed.err.Error(), Next: time.Now().Add(pause)}); err != nil {
				return err
			}
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			attempt++
			backoff = min(2*backoff, r.t.Retry.Max)
		default:
			return err
		}
	}
}

// try computes a window and commits it with the cursor. If what it read is changed by a window before it, Update computes it again: so
// the outcome is that of one window after the other.
func (r *runner) try(ctx context.Context, w *window, attempt int) error {
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := r.mayWork(tx); err != nil {
			return err
		}
		if len(w.commits) > 0 {
			if err := r.call(ctx, w.handed(tx, attempt)); err != nil {
				return &handlerError{err}
			}
		}
		select {
		case <-w.before:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(turnWait):
			return errTurn
		}
		if attempt > 1 {
			tx.Delete(r.at.state, keyTrouble)
		}
		return r.moveTo(tx, w.last)
	})
	if errors.As(err, new(*batchlog.HookError)) || errors.Is(err, batchlog.ErrTooLarge) {
		return &handlerError{err} // what the handler wrote can't be committed
	}
	return err
}

// mayWork returns why this worker may not commit windows now, or nil.
func (r *runner) mayWork(tx *batchlog.Tx) error {
	if err := r.mine(tx); err != nil {
		return err
	}
	var c control
	if _, err := load(tx, r.at.state, keyControl, &c); err != nil {
		return err
	}
	if c.Paused {
		return errPaused
	}
	return nil
}

// moveTo makes id the cursor.
func (r *runner) moveTo(tx *batchlog.Tx, id batchlog.ID) error {
	save(tx, r.at.state, keyCursor, cursor{id})
	return r.at.hold(tx, r.t.Name, id)
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

// poison does with a window that failed for good what the policy says.
func (r *runner) poison(ctx context.Context, w *window, attempts int, cause error) error {
	if err := waitFor(ctx, w.before); err != nil {
		return err
	}
	if r.t.Poison == Stop {
		if err := r.report(ctx, trouble{First: w.first, Last: w.last, Attempts: attempts, Error: cause.Error(), Stopped: true}); err != nil {
			return err
		}
		return &PoisonError{Task: r.t.Name, First: w.first, Last: w.last, Attempts: attempts, Err: cause}
	}
	verb := map[Poison]string{Park: "parked", Skip: "skipped"}[r.t.Poison]
	r.t.Logger.Error("window failed for good and is "+verb, "task", r.t.Name, "first", w.first, "last", w.last, "attempts", attempts, "err", cause)
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := r.mine(tx); err != nil {
			return err
		}
		if r.t.Poison == Park {
			save(tx, r.at.parked, batchlog.K(uint64(w.first)), ParkedWindow{
				First: w.first, Last: w.last, Attempts: attempts, Error: cause.Error(), Time: time.Now().UTC(),
			})
		}
		tx.Delete(r.at.state, keyTrouble)
		return r.moveTo(tx, w.last)
	})
	return err
}

// report keeps what is wrong where Get finds it.
func (r *runner) report(ctx context.Context, t trouble) error {
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := r.mine(tx); err != nil {
			return err
		}
		save(tx, r.at.state, keyTrouble, t)
		return nil
	})
	if passing(err) {
		return nil
	}
	return err
}

// waitResumed returns when the task is no longer paused.
func (r *runner) waitResumed(ctx context.Context) error {
	for {
		var c control
		if err := r.read(ctx, keyControl, &c); err != nil || !c.Paused {
			return err
		}
		if err := sleep(ctx, retryOften); err != nil {
			return err
		}
	}
}

func waitFor(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
