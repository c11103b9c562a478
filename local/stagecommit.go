package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
)

// commitTries is how often a chain that loses to other commits, by what hooks or copies have read, is tried.
const commitTries = 16

// Commit is as batchlog.Stage says.
func (g *stage) Commit(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if err := g.usable(ctx); err != nil {
		return 0, err
	}
	if g.state == torn {
		return 0, g.why
	}
	if p.Token != "" { // all the work would be for nothing, and hooks must not see their own first try
		if id, found, err := g.e.lines.Known(ctx, p.Token, p.Ticket); err != nil || found {
			if found {
				g.to(committed)
			}
			return id, err
		}
	}
	if g.state == gathers {
		return g.commitSmall(ctx, p, g.small, g.smallCount)
	}
	for try := 1; ; try++ {
		id, err := g.tryCommit(ctx, p)
		var refused *batchlog.HookError
		if !errors.Is(err, batchlog.ErrConflict) || errors.As(err, &refused) || p.Reads != nil { // what was read stays written
			return id, err
		}
		var conflict *batchlog.ConflictError
		if errors.As(err, &conflict) {
			if conflict.Tries > 0 {
				return id, err // it has been tried as often as it may
			}
			g.lost = conflict.Reads
		}
		if try == commitTries {
			return 0, fmt.Errorf("chain lost to other commits %d times: %w", try, err)
		}
	}
}

// tryCommit brings the chain up to the head of the log and commits it. An ErrConflict may be tried again.
func (g *stage) tryCommit(ctx context.Context, p *waist.Proposal) (id batchlog.ID, err error) {
	defer func() {
		if errors.Is(err, errLate) {
			g.to(unfilled)
		}
	}()
	if err := g.ready(ctx); err != nil {
		return 0, chainError(err)
	}
	watched := g.filler.watches()
	if watched == nil {
		return g.propose(ctx, p)
	}
	// From here on nobody else writes there, so that what was filled ends where the commit begins. Should that take too long others are let in, and
	// the reads that go with the commit tell.
	ticket, release, err := g.protect(ctx, watched)
	if err != nil {
		return 0, err
	}
	defer release()
	last, err := g.filler.last(ctx, ticket, p)
	if err != nil {
		return 0, chainError(err)
	}
	return g.propose(ctx, last)
}

// protect has others not write to what is watched, and to what hooks had read when the chain lost the last time, until release is called.
func (g *stage) protect(ctx context.Context, watched *waist.Reads) (ticket uint64, release func(), err error) {
	if g.lost != nil {
		watched.Keys = append(watched.Keys, g.lost.Keys...)
		watched.Ranges = append(watched.Ranges, g.lost.Ranges...)
	}
	return g.e.Protect(ctx, 0, watched)
}

// readyRounds bounds how often a chain is built before it is given up as one that others are too fast for.
const readyRounds = 16

// ready fills the stage if it has to be, builds it, and catches up as far as that goes while others commit.
func (g *stage) ready(ctx context.Context) error {
	if g.state == unfilled {
		if err := g.fill(ctx); err != nil {
			return err
		}
	}
	for round := 0; ; round++ {
		if err := g.filler.catchUp(ctx); err != nil {
			return err
		}
		if g.state == isBuilt {
			break
		}
		if round == readyRounds {
			return errLateCopy
		}
		if err := g.build(ctx); err != nil {
			return err
		}
	}
	if g.built.inMemory() {
		return nil
	}
	g.progress("commit", 0, 0)
	// What the store has in memory is made little, so that the tables are soon where they belong.
	return g.e.flush(ctx, g.e.store.Applied())
}

// commitSmall commits a chain that fits into a batch as one.
func (g *stage) commitSmall(ctx context.Context, p *waist.Proposal, ops []byte, count int) (batchlog.ID, error) {
	whole := *p
	whole.Ops = append(ops[:len(ops):len(ops)], p.Ops...)
	whole.Count += count
	whole.Blobs += g.blobs
	id, err := g.e.Commit(ctx, &whole)
	if err == nil || errors.Is(err, batchlog.ErrUncertain) {
		g.to(committed)
	}
	return id, err
}

// propose commits what is built, with the ops of p behind it.
func (g *stage) propose(ctx context.Context, p *waist.Proposal) (id batchlog.ID, err error) {
	b := g.built
	if b.inMemory() {
		return g.commitSmall(ctx, p, b.small, b.smallCount)
	}
	whole := *p
	whole.Chain = b.ref(g.e.log)
	whole.Blobs += g.blobs
	file := b.chain.File
	g.e.store.Stage(file, b.tables)
	id, err = g.e.Commit(ctx, &whole)
	uncertain := errors.Is(err, batchlog.ErrUncertain)
	if err != nil && !uncertain || err == nil && !g.e.log.HasChain(file) { // refused, or a commit with the same token was faster
		b.tables = g.e.store.Unstage(file)
		if err == nil {
			g.to(committed)
		}
		return id, err
	}
	if uncertain {
		g.e.store.Unstage(file) // it is applied by the next open, if it is there
	}
	_ = g.reserve(-b.bytes)
	_ = b.chain.Keep() // it was synced
	g.built = nil      // the log has the file, the store the tables
	b.dropLate()
	g.to(committed)
	return id, err
}
