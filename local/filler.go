package local

import (
	"context"

	"github.com/bytespace/batchlog/internal/waist"
)

// A filler brings into a chain what nobody adds op by op, and keeps it up with what others write until the chain has its id.
type filler interface {
	// fill fills the sorter of a stage that is unfilled, from the start.
	fill(ctx context.Context) error
	// catchUp brings what was filled up to what others have written since, as far as that goes while they go on: into the sorter of a stage that sorts, or
	// beside what is built. The stage may sort again after it.
	catchUp(ctx context.Context) error
	// watches is what others may not write while the last round is made; nil: nothing, there is none.
	watches() *waist.Reads
	// last is that round: the proposal with what is still missing from a stage that is built, and what it depends on. ticket is that of what protects it. An
	// ErrConflict says that it is too much.
	last(ctx context.Context, ticket uint64, p *waist.Proposal) (*waist.Proposal, error)
	// mixes reports whether there may be other ops in the chain.
	mixes() bool
	// close lets go of what the filler holds.
	close() error
}

// plain fills nothing: all there is was added.
type plain struct{}

func (plain) fill(context.Context) error {
	panic("batchlog: bug: a chain that nothing fills is not filled")
}
func (plain) catchUp(context.Context) error { return nil }
func (plain) watches() *waist.Reads         { return nil }
func (plain) mixes() bool                   { return true }
func (plain) close() error                  { return nil }

func (plain) last(_ context.Context, _ uint64, p *waist.Proposal) (*waist.Proposal, error) {
	return p, nil
}
