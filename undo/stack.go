package undo

import (
	"context"

	"github.com/bytespace/batchlog"
)

// Steps are the commits of one actor that can be taken back and brought back again.
type Steps struct {
	// Depth is how many commits can be taken back; 0: 1,000. Older ones are forgotten. To be set before first use.
	Depth int
	// From is where in the log the steps begin; the zero value: at its oldest commit. batchlog.Now() leaves out what came before. To be set before first use.
	From batchlog.Position
	// Labels are those of the commits that Undo and Redo make, besides the actor's and those of this package. To be set before first use.
	Labels map[string]string
}

// Stack is the undo and redo of an actor: of the commits that carry the label with that value.
func Stack(db *batchlog.DB, label, value string) *Steps { return &Steps{} }

// Undo takes the newest step back.
func (s *Steps) Undo(ctx context.Context) (batchlog.ID, error) { return 0, batchlog.ErrUnsupported }

// Redo brings back the step that was taken back last.
func (s *Steps) Redo(ctx context.Context) (batchlog.ID, error) { return 0, batchlog.ErrUnsupported }

// Peek returns the commits that Undo would take back, and Redo bring back; 0: none.
func (s *Steps) Peek(ctx context.Context) (undo, redo batchlog.ID, err error) {
	return 0, 0, batchlog.ErrUnsupported
}
