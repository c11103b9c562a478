package undo

import (
	"context"
	"fmt"

	"github.com/bytespace/batchlog"
)

// To brings back the state at commit id, of all spaces or of [Options.Space] and those within it, as one commit, whose id it returns; 0 is the state before the first commit. What is brought back equals that
// state, however busy the spaces are meanwhile; who writes too much for that for too long makes it an ErrConflict. Spaces that tasks derive are left to their
// tasks. The work is the engine's, in bounded memory whatever has changed; it is a chain if that is much. If nothing has, it is a commit without ops. It can be taken back with Undo.
//
// It needs what all commits since have overwritten: one that is not known is a *batchlog.InverseError that names it.
func To(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (done batchlog.ID, err error) {
	if o.Force || o.Cascade {
		return 0, errForceTo
	}
	s := o.Space
	if s == nil {
		s = db.Root()
	}
	c, err := db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := c.Close(); cerr != nil && err == nil {
			err = cerr
		}
	}()
	c.Token, c.Labels, c.Progress = o.Token, o.labels(LabelTo, id.String()), o.Progress
	if err := c.Revert(s, id); err != nil {
		return 0, err
	}
	return c.Commit(ctx)
}

var errForceTo = fmt.Errorf("options Force and Cascade are for Undo, To brings back a state whoever has changed it since: %w", batchlog.ErrUnsupported)
