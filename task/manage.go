package task

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// Pause has the task commit no further window until Resume. A window that is being computed is given up.
func Pause(ctx context.Context, db *batchlog.DB, name string) error {
	return control(ctx, db, name, func(c *taskstate.Control) { c.Paused = true })
}

// Resume ends a pause.
func Resume(ctx context.Context, db *batchlog.DB, name string) error {
	return control(ctx, db, name, func(c *taskstate.Control) { c.Paused = false })
}

func control(ctx context.Context, db *batchlog.DB, name string, set func(*taskstate.Control)) error {
	return change(ctx, db, name, func(tx *batchlog.Tx, l *taskstate.Look) error {
		set(&l.Control)
		taskstate.Save(tx, taskstate.Of(db, name).State, taskstate.KeyControl, l.Control)
		return nil
	})
}

// Reset moves the task's cursor, so that the commit at pos is handled next: again, or with what lies between left out. Its
// workers start anew from there. Outputs that were written stay; windows that are parked stay, too. The log is kept for the task again
// if it was let go.
func Reset(ctx context.Context, db *batchlog.DB, name string, pos batchlog.Position) error {
	start, err := startOf(ctx, db, pos)
	if err != nil {
		return err
	}
	return change(ctx, db, name, func(tx *batchlog.Tx, l *taskstate.Look) error {
		at := taskstate.Of(db, name)
		tx.DeleteRange(at.Workers, batchlog.Range{}) // what they had begun can't be committed any more
		tx.DeleteRange(at.Claims, batchlog.Range{})
		tx.Delete(at.State, taskstate.KeyTrouble)
		tx.Delete(at.State, taskstate.KeyFrontier)
		l.Cursor.ID, l.Control.LetGo = start, false
		taskstate.Save(tx, at.State, taskstate.KeyControl, l.Control)
		taskstate.Save(tx, at.State, taskstate.KeyCursor, l.Cursor)
		return hold(tx, db, name, start, l.Control)
	})
}

// A ResetPlan is what Reset would do.
type ResetPlan struct {
	From   batchlog.ID `json:"from"`   // the cursor as it is
	To     batchlog.ID `json:"to"`     // and as it would be
	Again  uint64      `json:"again"`  // commits of its sources that would be handled once more
	Skips  uint64      `json:"skips"`  // commits of its sources that would never be handled
	Parked int         `json:"parked"` // parked windows, which stay
}

// PlanReset says what Reset would do, and does nothing.
func PlanReset(ctx context.Context, db *batchlog.DB, name string, pos batchlog.Position) (ResetPlan, error) {
	start, err := startOf(ctx, db, pos)
	if err != nil {
		return ResetPlan{}, err
	}
	v, err := db.View(ctx, systemOnly)
	if err != nil {
		return ResetPlan{}, err
	}
	defer v.Close()
	l, known, err := taskstate.Read(v, db, name)
	if err == nil && !known {
		err = unknown(name)
	}
	if err != nil {
		return ResetPlan{}, err
	}
	p := ResetPlan{From: l.Cursor.ID, To: start, Parked: l.Parked}
	if p.From == p.To { // a tail until 0 would wait for ever
		return p, nil
	}
	source, err := sourcesOf(db, &l.Config)
	if err != nil {
		return ResetPlan{}, err
	}
	n := &p.Again
	if p.To > p.From {
		n = &p.Skips
	}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(min(p.From, p.To)), Until: max(p.From, p.To), Spaces: source}) {
		if err != nil {
			return ResetPlan{}, err
		}
		if !madeBy(c, name) {
			*n++
		}
	}
	return p, nil
}

// Drop forgets the task: its cursor, its parked windows, and that the log is kept for it. A worker that still runs ends with an
// error. What the task has written stays, and what it derived is for everyone to write.
//
// The number of its last worker stays, too: one that sleeps through all this must not wake up as a worker of a new task of that name.
func Drop(ctx context.Context, db *batchlog.DB, name string) error {
	return change(ctx, db, name, func(tx *batchlog.Tx, _ *taskstate.Look) error {
		at := taskstate.Of(db, name)
		var fences taskstate.Fences
		if _, err := taskstate.Load(tx, at.State, taskstate.KeyFences, &fences); err != nil {
			return err
		}
		for _, s := range []*batchlog.Space{at.State, at.Workers, at.Claims, at.Parked} {
			tx.DeleteRange(s, batchlog.Range{})
		}
		taskstate.Save(tx, at.State, taskstate.KeyFences, fences)
		tx.Delete(taskstate.All(db), batchlog.K(name))
		tx.Delete(taskstate.Holds(db), batchlog.K(name))
		return nil
	})
}

// LetGo makes the log no longer be kept for a task, which then ends with a *batchlog.GapError when commits that it has yet to handle, or that are parked,
// are dropped. The log says who did so: the commit carries the task's name and the reason as labels. Reset takes hold again.
func LetGo(ctx context.Context, db *batchlog.DB, name, reason string) error {
	if reason == "" {
		return errors.New("let go of the log for a task: say why, it is kept in the log")
	}
	return change(ctx, db, name, func(tx *batchlog.Tx, l *taskstate.Look) error {
		l.Control.LetGo = true
		taskstate.Save(tx, taskstate.Of(db, name).State, taskstate.KeyControl, l.Control)
		tx.Delete(taskstate.Holds(db), batchlog.K(name))
		tx.SetLabel("let go of the log for task", name)
		tx.SetLabel("reason", reason)
		return nil
	})
}

// change changes a task that there is.
func change(ctx context.Context, db *batchlog.DB, name string, f func(tx *batchlog.Tx, l *taskstate.Look) error) error {
	_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
		l, known, err := taskstate.Read(tx, db, name)
		if err == nil && !known {
			err = unknown(name)
		}
		if err != nil {
			return err
		}
		tx.Inside().Move(admin(name))
		return f(tx, l)
	})
	return err
}

func unknown(name string) error { return fmt.Errorf("%s: %w", quoted(name), ErrUnknown) }

// quoted is a name for an error, or the beginning of what is too long for one.
func quoted(name string) string {
	if len(name) > taskstate.MaxNameBytes {
		return fmt.Sprintf("%q…", name[:100])
	}
	return strconv.Quote(name)
}

// sourcesOf is the spaces that a task follows.
func sourcesOf(db *batchlog.DB, c *taskstate.Config) ([]*batchlog.Space, error) {
	if len(c.Source) == 0 {
		return []*batchlog.Space{db.Root()}, nil
	}
	return spacesAt(db, c.Source)
}

func spacesAt(db *batchlog.DB, paths [][]byte) ([]*batchlog.Space, error) {
	var list []*batchlog.Space
	for _, path := range paths {
		s, err := db.Inside().SpaceAt(path)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
