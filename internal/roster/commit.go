package roster

import (
	"context"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// Commit makes the commit of a task with commit, if the task's worker may. A refusal is a *batchlog.TaskMoveError.
//
// Commits that move one task come one at a time: that the cursor stands where the window began is still true when the commit is made.
func (r *Roster) Commit(ctx context.Context, p *waist.Proposal, commit func(context.Context, *waist.Proposal) (batchlog.ID, error)) (batchlog.ID, error) {
	m := *p.Task
	e := r.entry(m.Task)
	if !m.Admin && m.To == 0 {
		if err := e.mayCommit(m); err != nil {
			return 0, err
		}
		return commit(ctx, p)
	}
	if p.Ticket != 0 {
		defer e.urge()()
		return r.commitInTurn(ctx, e, p, commit)
	}
	for {
		within, cancel := context.WithCancelCause(ctx)
		id, err := r.commitInTurn(within, e, p, func(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
			defer e.yield(cancel)()
			return commit(ctx, p)
		})
		again := err != nil && context.Cause(within) == errYield && (errors.Is(err, errYield) || errors.Is(err, context.Canceled)) //nolint:errorlint // the very one
		cancel(nil)
		if !again {
			return id, err
		}
	}
}

// errYield ends the wait of a commit that has the turn of its task, as one with a ticket wants it: the engine may hold the first back for
// that one, so neither would get through before the ticket's time is over.
var errYield = errors.New("a transaction whose reads are protected comes first")

// urge has who has the turn, or gets it before done is called, give it back if its commit has to wait.
func (e *entry) urge() (done func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.urgent++
	if e.holder != nil {
		e.holder(errYield)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.urgent--
	}
}

// yield makes cancel what urge ends the wait with, until done is called.
func (e *entry) yield(cancel context.CancelCauseFunc) (done func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holder = cancel
	if e.urgent > 0 {
		cancel(errYield)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.holder = nil
	}
}

// commitInTurn makes a commit that moves or changes the task.
func (r *Roster) commitInTurn(ctx context.Context, e *entry, p *waist.Proposal, commit func(context.Context, *waist.Proposal) (batchlog.ID, error)) (batchlog.ID, error) {
	if err := e.take(ctx); err != nil {
		return 0, err
	}
	defer e.release()
	m := *p.Task
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
	head, err := r.engine.Head(ctx)
	if err != nil {
		return 0, err
	}
	if m.To > head { // a task has handled what was durable: its cursor would leave out commits that are yet to come
		return 0, &batchlog.TaskMoveError{Move: batchlog.TaskMove(m), Cursor: m.From, Head: head}
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
func (e *entry) mayCommit(m wire.TaskMove) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.fences[m.Fence]; !ok {
		return &batchlog.TaskMoveError{Move: batchlog.TaskMove(m), Cursor: e.cursor, Lost: true}
	}
	if m.To != 0 && (m.From != e.cursor || m.To <= m.From) {
		return &batchlog.TaskMoveError{Move: batchlog.TaskMove(m), Cursor: e.cursor}
	}
	return nil
}
