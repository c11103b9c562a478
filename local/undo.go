package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// Inverse is as batchlog.Undoer says.
func (e *engine) Inverse(ctx context.Context, id batchlog.ID) (wire.OpReader, error) {
	if e.closed.Load() {
		return nil, batchlog.ErrClosed
	}
	if head := e.log.Head(); id == 0 || id > head {
		return nil, fmt.Errorf("commit %d of 1 to %d: %w", id, head, batchlog.ErrNotFound)
	}
	if id < e.log.Oldest() { // there may be one yet, but not what it refers to
		return nil, &batchlog.InverseError{ID: id, Gone: true}
	}
	if err := e.hold(ctx, batchlog.ReadOptions{AtLeast: id}); err != nil {
		return nil, err
	}
	r, err := e.store.Inverse(id)
	return r, e.inverseError(err)
}

// inverseError is err, which may be about a commit that the log no longer has.
func (e *engine) inverseError(err error) error {
	var missing *batchlog.InverseError
	if errors.As(err, &missing) && missing.ID < e.log.Oldest() {
		missing.Gone = true
	}
	return e.places.explain(err)
}

// beginUndo has the store keep inverses. When it returns all commits without one are durably applied, so that none of them is applied again
// after a crash: then a chain may have overwritten already what its inverse would be made of.
func (e *engine) beginUndo(ctx context.Context) error {
	if e.config().Undo {
		return nil
	}
	e.store.SetUndo(true)
	err := e.lines.Hold(ctx, batchlog.ReadOptions{})
	if err == nil {
		err = e.flush(ctx, e.store.Applied())
	}
	if err != nil {
		e.store.SetUndo(false)
		return fmt.Errorf("turn undo on: %w", err)
	}
	return nil
}

// endUndo is called before inverses are no longer kept. When it returns all commits that are in the log by now have theirs, durably: commits that are applied
// later, or again after a crash, get none.
func (e *engine) endUndo(ctx context.Context) error {
	if !e.config().Undo {
		return nil
	}
	err := e.lines.Hold(ctx, batchlog.ReadOptions{})
	if err == nil {
		err = e.flush(ctx, e.store.Applied())
	}
	if err != nil {
		return fmt.Errorf("turn undo off: %w", err)
	}
	return nil
}

// undoStatus is which commits from oldest up to applied can be taken back.
func (e *engine) undoStatus(oldest, applied batchlog.ID) (batchlog.UndoStatus, error) {
	s := batchlog.UndoStatus{On: e.config().Undo}
	rows, err := e.store.Inverses()
	if err != nil {
		return s, err
	}
	for _, r := range rows {
		if r.First, r.Last = max(r.First, oldest), min(r.Last, applied); r.First <= r.Last {
			s.Have = append(s.Have, r)
			s.Ready = r.Last
		}
	}
	return s, nil
}
