package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// A ParkedWindow is a window that failed for good and was set aside. The log keeps its commits.
type ParkedWindow struct {
	First    batchlog.ID `json:"first"`
	Last     batchlog.ID `json:"last"`
	Attempts int         `json:"attempts"`
	Error    string      `json:"error"`           // of the last attempt
	Time     time.Time   `json:"time"`            // of the last attempt
	Retry    bool        `json:"retry,omitempty"` // it is to be tried again
}

// Parked returns the windows of a task that were set aside, the oldest first.
func Parked(ctx context.Context, db *batchlog.DB, name string) ([]ParkedWindow, error) {
	var all []ParkedWindow
	for e, err := range taskstate.Of(db, name).Parked.Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return nil, err
		}
		var w ParkedWindow
		if err := json.Unmarshal(e.Value, &w); err != nil {
			return nil, fmt.Errorf("parked window %s: %w", e.Key, err)
		}
		all = append(all, w)
	}
	return all, nil
}

// RetryParked asks the task's worker to handle the parked window that begins with commit first once more, or all of them if
// first is 0. It returns how many there are; they are handled when a worker runs. The task's cursor stays where it is.
func RetryParked(ctx context.Context, db *batchlog.DB, name string, first batchlog.ID) (int, error) {
	at := taskstate.Of(db, name)
	n := 0
	_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
		n = 0
		for e, err := range tx.Scan(at.Parked, batchlog.Range{}) {
			if err != nil {
				return err
			}
			var w ParkedWindow
			if err := json.Unmarshal(e.Value, &w); err != nil {
				return fmt.Errorf("parked window %s: %w", e.Key, err)
			}
			if first == 0 || w.First == first {
				w.Retry = true
				taskstate.Save(tx, at.Parked, e.Key, w)
				n++
			}
		}
		if n == 0 && first != 0 {
			return fmt.Errorf("task %s has no parked window that begins with commit %d: %w", name, first, batchlog.ErrNotFound)
		}
		return nil
	})
	return n, err
}

// parkedLoop handles parked windows that are to be tried again: a lane of its own, which never moves the cursor.
func (r *runner) parkedLoop(ctx context.Context) error {
	for {
		some, err := r.retryParked(ctx)
		if err != nil {
			return err
		}
		if some { // one may have stayed on the list
			if err := sleep(ctx, retryOften); err != nil {
				return err
			}
			continue
		}
		if _, err := r.seen.wait(ctx, nil, func() bool {
			news := r.seen.parked
			r.seen.parked = false
			return news
		}); err != nil {
			return err
		}
	}
}

// retryParked tries the parked windows again that are to be, and reports whether there were some.
func (r *runner) retryParked(ctx context.Context) (some bool, err error) {
	all, err := Parked(ctx, r.db, r.t.Name)
	if err != nil {
		return false, err
	}
	for _, w := range all {
		if !w.Retry {
			continue
		}
		some = true
		if err := r.retry(ctx, w); err != nil {
			return true, err
		}
	}
	return some, nil
}

// retry handles a parked window once, and takes it off the list if that succeeds.
func (r *runner) retry(ctx context.Context, p ParkedWindow) error {
	w, err := r.window(ctx, p.First, p.Last)
	if err != nil {
		return err
	}
	key := batchlog.K(uint64(p.First))
	_, err = r.db.Update(ctx, func(tx *batchlog.Tx) error {
		control, err := r.mayWork(tx)
		if err != nil {
			return err
		}
		if _, err := tx.Get(r.at.Parked, key); err != nil {
			return err // another worker was faster
		}
		if err := r.call(ctx, r.handed(w, tx, p.Attempts+1)); err != nil {
			return &handlerError{err}
		}
		if err := r.asWorker(tx); err != nil {
			return err
		}
		tx.Delete(r.at.Parked, key)
		return r.rehold(tx, control)
	})
	err = written(err)
	var failed *handlerError
	switch {
	case errors.Is(err, errPaused) || passing(err) || errors.Is(err, batchlog.ErrNotFound):
		return nil // it stays on the list, or is not there any more
	case !errors.As(err, &failed):
		return lost(err)
	}
	p.Attempts, p.Error, p.Time, p.Retry = p.Attempts+1, failed.Error(), time.Now().UTC(), false
	_, err = r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if _, err := tx.Get(r.at.Parked, key); errors.Is(err, batchlog.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		if err := r.asWorker(tx); err != nil {
			return err
		}
		taskstate.Save(tx, r.at.Parked, key, p)
		return nil
	})
	if passing(err) {
		return nil
	}
	return lost(err)
}

// rehold holds the log for the cursor as it is.
func (r *runner) rehold(tx *batchlog.Tx, c taskstate.Control) error {
	var at taskstate.Cursor
	if _, err := taskstate.Load(tx, r.at.State, taskstate.KeyCursor, &at); err != nil {
		return err
	}
	return hold(tx, r.db, r.t.Name, at.ID, c)
}

// hold makes the log keep what the task still needs: the commits after its cursor, and those of parked windows.
func hold(tx *batchlog.Tx, db *batchlog.DB, name string, id batchlog.ID, c taskstate.Control) error {
	if c.LetGo {
		return nil
	}
	parked := taskstate.Of(db, name).Parked
	for e, err := range tx.Scan(parked, batchlog.Range{}) {
		if err != nil {
			return err
		}
		var w ParkedWindow
		if err := taskstate.Decode(parked, e.Key, e.Value, &w); err != nil {
			return err
		}
		id = min(id, w.First-1)
		break // the oldest comes first
	}
	tx.Put(taskstate.Holds(db), batchlog.K(name), fmt.Appendf(nil, "%d", id+1))
	return nil
}
