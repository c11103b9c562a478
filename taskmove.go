package batchlog

import (
	"fmt"
)

// A TaskMove is what the commit of a task's window carries: whose it is, and how far it takes the task. An engine makes the commit only if the worker
// with that fence is still one of the task's, and the task's cursor is at From; so a worker that was thought dead cannot commit, and no
// window is committed twice or out of order. It is for package task.
type TaskMove struct {
	Task     string
	Fence    uint64 // of the worker; numbers ascend and are never given twice
	From, To ID     // the cursor before and after; To is 0 for a commit that doesn't move it
	// Admin is of a commit that changes the task itself (who works on it, where it stands, what it derives). The engine then
	// looks at the task anew. It is not kept in the log.
	Admin bool
}

// A TaskMoveError says why an engine did not take the commit of a task's window. It is an [ErrPermission].
type TaskMoveError struct {
	Move   TaskMove
	Cursor ID   // where the task is
	Lost   bool // the fence is not, or no longer, one of the task's workers'
	// Cut is not 0 if a view waits for the task's state at this very commit: a window that ends there must come first.
	Cut ID
	// Head is not 0 if the move goes beyond the newest commit, which this is: nobody can have handled what isn't there.
	Head ID
}

func (e *TaskMoveError) Error() string {
	m := e.Move
	switch {
	case e.Lost:
		return fmt.Sprintf("task %s: worker %d is none of its workers any more", m.Task, m.Fence)
	case e.Cut != 0:
		return fmt.Sprintf("task %s: commits %d to %d: a view waits for the task at commit %d", m.Task, m.From+1, m.To, e.Cut)
	case e.Head != 0:
		return fmt.Sprintf("task %s: commits %d to %d: the newest commit is %d", m.Task, m.From+1, m.To, e.Head)
	default:
		return fmt.Sprintf("task %s: commits %d to %d: the task is at %d", m.Task, m.From+1, m.To, e.Cursor)
	}
}

// Is reports whether target is [ErrPermission].
func (e *TaskMoveError) Is(target error) bool { return target == ErrPermission }
