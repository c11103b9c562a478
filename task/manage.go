package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bytespace/batchlog"
)

// List returns all tasks that have ever run and were not dropped, by name.
func List(ctx context.Context, db *batchlog.DB) ([]Status, error) {
	v, err := db.View(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var all []Status
	for e, err := range v.Scan(db.System().Space("holds"), batchlog.Range{}) {
		if err != nil {
			return nil, err
		}
		name, err := e.Key.Decode()
		if err != nil {
			return nil, err
		}
		s, err := get(v, db, fmt.Sprint(name))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Get returns how a task is, or [ErrUnknown].
func Get(ctx context.Context, db *batchlog.DB, name string) (Status, error) {
	v, err := db.View(ctx)
	if err != nil {
		return Status{}, err
	}
	defer v.Close()
	return get(v, db, name)
}

func get(v *batchlog.View, db *batchlog.DB, name string) (Status, error) {
	at := spacesOf(db, name)
	s := Status{Name: name, Head: v.ID()}
	var (
		conf config
		pos  cursor
		ctl  control
		f    fence
		l    lease
		tr   trouble
	)
	known, err := load(v, at.state, keyConfig, &conf)
	if err == nil && !known {
		err = fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	for k, into := range map[string]any{"cursor": &pos, "control": &ctl, "fence": &f, "lease": &l} {
		if err == nil {
			_, err = load(v, at.state, batchlog.K(k), into)
		}
	}
	failing := false
	if err == nil {
		failing, err = load(v, at.state, keyTrouble, &tr)
	}
	if err != nil {
		return Status{}, err
	}
	for _, err := range v.Scan(at.parked, batchlog.Range{}) {
		if err != nil {
			return Status{}, err
		}
		s.Parked++
	}
	s.Source, s.Cursor = conf.Source, pos.ID
	alive := time.Until(l.Until) > 0
	if failing {
		s.First, s.Last, s.Attempts, s.Error, s.Next = tr.First, tr.Last, tr.Attempts, tr.Error, tr.Next
	}
	switch {
	case ctl.Paused:
		s.State = "paused"
	case failing && tr.Stopped && !alive:
		s.State = "stopped"
	case !alive:
		s.State = "waiting for a worker"
	case failing:
		s.State = "failing"
	case s.Head-s.Cursor < skipPersist:
		s.State = "idle"
	default:
		s.State = "running"
	}
	return s, nil
}

// Pause has the task commit no further window until Resume. A window that is being computed is given up.
func Pause(ctx context.Context, db *batchlog.DB, name string) error {
	return setControl(ctx, db, name, control{Paused: true})
}

// Resume ends a pause.
func Resume(ctx context.Context, db *batchlog.DB, name string) error {
	return setControl(ctx, db, name, control{})
}

func setControl(ctx context.Context, db *batchlog.DB, name string, c control) error {
	return change(ctx, db, name, func(tx *batchlog.Tx, at spaces) error {
		save(tx, at.state, keyControl, c)
		return nil
	})
}

// Reset moves the task's cursor, so that the commit at pos is handled next: again, or with what lies between left out. Its
// worker, if there is one, starts anew from there. Outputs that were written stay; windows that are parked stay, too.
func Reset(ctx context.Context, db *batchlog.DB, name string, pos batchlog.Position) error {
	r := runner{db: db, t: Task{Name: name, Start: pos}}
	start, err := r.start(ctx)
	if err != nil {
		return err
	}
	return change(ctx, db, name, func(tx *batchlog.Tx, at spaces) error {
		var f fence
		if _, err := load(tx, at.state, keyFence, &f); err != nil {
			return err
		}
		save(tx, at.state, keyFence, fence{Number: f.Number + 1})
		tx.Delete(at.state, keyLease)
		tx.Delete(at.state, keyTrouble)
		save(tx, at.state, keyCursor, cursor{start})
		return at.hold(tx, name, start)
	})
}

// Drop forgets the task: its cursor, its parked windows, and that the log is kept for it. A worker that still runs ends with an
// error. What the task has written stays.
func Drop(ctx context.Context, db *batchlog.DB, name string) error {
	return change(ctx, db, name, func(tx *batchlog.Tx, at spaces) error {
		tx.DeleteRange(at.state, batchlog.Range{})
		tx.DeleteRange(at.parked, batchlog.Range{})
		tx.Delete(at.holds, batchlog.K(name))
		return nil
	})
}

// change changes the state of a task that there is.
func change(ctx context.Context, db *batchlog.DB, name string, f func(tx *batchlog.Tx, at spaces) error) error {
	at := spacesOf(db, name)
	_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
		if _, err := tx.Get(at.state, keyConfig); errors.Is(err, batchlog.ErrNotFound) {
			return fmt.Errorf("%q: %w", name, ErrUnknown)
		} else if err != nil {
			return err
		}
		return f(tx, at)
	})
	return err
}
