package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bytespace/batchlog"
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
	for e, err := range spacesOf(db, name).parked.Scan(ctx, batchlog.Range{}) {
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
	at := spacesOf(db, name)
	n := 0
	_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
		n = 0
		for e, err := range tx.Scan(at.parked, batchlog.Range{}) {
			if err != nil {
				return err
			}
			var w ParkedWindow
			if err := json.Unmarshal(e.Value, &w); err != nil {
				return fmt.Errorf("parked window %s: %w", e.Key, err)
			}
			if first == 0 || w.First == first {
				w.Retry = true
				save(tx, at.parked, e.Key, w)
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
		all, err := Parked(ctx, r.db, r.t.Name)
		if err != nil {
			return err
		}
		for _, w := range all {
			if !w.Retry {
				continue
			}
			if err := r.retry(ctx, w); err != nil {
				return err
			}
		}
		if err := sleep(ctx, retryOften); err != nil {
			return err
		}
	}
}

// retry handles a parked window once, and takes it off the list if that succeeds.
func (r *runner) retry(ctx context.Context, p ParkedWindow) error {
	w := &window{first: p.First, last: p.Last}
	source := r.t.Source
	if len(source) == 0 {
		source = []*batchlog.Space{r.db.Root()}
	}
	for c, err := range r.db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(p.First), Until: p.Last, Spaces: source}) {
		if err != nil {
			return err
		}
		w.add(c)
	}
	w.last = p.Last
	key := batchlog.K(uint64(p.First))
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := r.mayWork(tx); err != nil {
			return err
		}
		if err := r.call(ctx, w.handed(tx, p.Attempts+1)); err != nil {
			return &handlerError{err}
		}
		tx.Delete(r.at.parked, key)
		return r.rehold(tx)
	})
	var failed *handlerError
	switch {
	case errors.Is(err, errPaused) || passing(err):
		return nil // it stays on the list
	case !errors.As(err, &failed):
		return err
	}
	p.Attempts, p.Error, p.Time, p.Retry = p.Attempts+1, failed.Error(), time.Now().UTC(), false
	_, err = r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if err := r.mine(tx); err != nil {
			return err
		}
		save(tx, r.at.parked, key, p)
		return nil
	})
	return err
}

// rehold holds the log for the cursor as it is.
func (r *runner) rehold(tx *batchlog.Tx) error {
	var at cursor
	if _, err := load(tx, r.at.state, keyCursor, &at); err != nil {
		return err
	}
	return r.at.hold(tx, r.t.Name, at.ID)
}
