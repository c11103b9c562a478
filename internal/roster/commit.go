package roster

import (
	"context"
	"fmt"

	"github.com/bytespace/batchlog"
)

// Commit makes the commit of a task with commit, if the task's worker may. A refusal is a *batchlog.TaskMoveError.
//
// Commits that move one task come one at a time: that the cursor stands where the window began is still true when the commit is made.
func (r *Roster) Commit(ctx context.Context, p *batchlog.Proposal, commit func(context.Context, *batchlog.Proposal) (batchlog.ID, error)) (batchlog.ID, error) {
	m := *p.Task
	e := r.entry(m.Task)
	if !m.Admin && m.To == 0 {
		if err := e.mayCommit(m); err != nil {
			return 0, err
		}
		return commit(ctx, p)
	}
	if err := e.take(ctx); err != nil {
		return 0, err
	}
	defer e.release()
	if m.Admin {
		r.change()
		defer r.changed()
		id, err := commit(ctx, p)
		if err != nil {
			return id, err
		}
		if err := r.reload(context.WithoutCancel(ctx), e, id); err != nil {
			return id, fmt.Errorf("task %s was changed by commit %d, but can't be read: %w", m.Task, id, err)
		}
		return id, nil
	}
	if err := e.mayCommit(m); err != nil {
		return 0, err
	}
	if err := r.serveCuts(ctx, e, m); err != nil {
		return 0, err
	}
	id, err := commit(ctx, p)
	if err == nil {
		e.mu.Lock()
		e.cursor, e.last = m.To, id
		e.wakeLocked()
		e.mu.Unlock()
	}
	return id, err
}

// mayCommit returns why a worker may not commit this now, or nil.
func (e *entry) mayCommit(m batchlog.TaskMove) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.fences[m.Fence]; !ok {
		return &batchlog.TaskMoveError{Move: m, Cursor: e.cursor, Lost: true}
	}
	if m.To != 0 && (m.From != e.cursor || m.To <= m.From) {
		return &batchlog.TaskMoveError{Move: m, Cursor: e.cursor}
	}
	return nil
}
