package local

import (
	"context"
	"errors"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// The line that every proposal travels, of a batch as of a chain:
//
//	hooks ─► convert ─► permit ─► queue
//
// Each station hands on to the next one. The first two take time: hooks are the user's code, and a value that becomes a blob is written to the disk first. So what
// can change meanwhile, who may write where and whether the token is known, is looked at behind them, right before the queue.

// Commit is as batchlog.Engine says.
func (e *engine) Commit(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	id, err := e.enter(ctx, p)
	if p.Token != "" && (errors.Is(err, batchlog.ErrPermission) || errors.Is(err, batchlog.ErrNotFound)) {
		// What was committed once is that commit, whoever may write there by now, or whatever blob has gone.
		if known, found, kerr := e.lines.Known(ctx, p.Token, p.Ticket); found && kerr == nil {
			return known, nil
		}
	}
	return id, err
}

func (e *engine) enter(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if p.Task != nil {
		return e.roster.Commit(ctx, p, e.hook)
	}
	return e.hook(ctx, p)
}

// hook is the station of pre-commit hooks.
func (e *engine) hook(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if p.Chain != nil && e.hooks.TouchChain(p) || p.Chain == nil && e.hooks.Touch(p) {
		return e.commitHooked(ctx, p)
	}
	return e.convert(ctx, p)
}

// commitHooked runs the hooks that p sets off and commits what comes out.
func (e *engine) commitHooked(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if p.Reads != nil {
		return e.tryHooked(ctx, p) // all that it read is stale when it loses: it runs again as a whole
	}
	return batchlog.Persist(ctx, e, func(ticket uint64) (batchlog.ID, error) {
		in := *p
		in.Ticket = ticket
		id, err := e.tryHooked(ctx, &in)
		return id, batchlog.Lost(err, nil)
	})
}

func (e *engine) tryHooked(ctx context.Context, in *waist.Proposal) (batchlog.ID, error) {
	if in.Token != "" {
		// A retry must not be refused by a hook that sees its own first try.
		if id, found, err := e.lines.Known(ctx, in.Token, in.Ticket); err != nil || found {
			return id, err
		}
	}
	if err := e.permit(ctx, in); err != nil {
		return 0, err // hooks need not look at it
	}
	view, err := e.View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return 0, err
	}
	defer view.Close()
	run := e.hooks.Run
	if in.Chain != nil {
		run = e.hooks.RunChain
	}
	out, err := run(ctx, in, view)
	if err != nil {
		return 0, err
	}
	return e.convert(ctx, out)
}

// convert is the station where large values become blobs, and what refers to blobs is marked.
func (e *engine) convert(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if p.Blobs == 0 && e.blobBytes.Load() == 0 {
		return e.queue(ctx, p)
	}
	var w blobWriter
	defer func() { e.recent.release(&w, e.log.Head()) }()
	ops, blobs, err := e.convertValues(ctx, &w, p.Ops, p.Count)
	if err != nil {
		return 0, err
	}
	if blobs == 0 && p.Blobs == 0 {
		return e.queue(ctx, p)
	}
	marked := *p
	marked.Ops = ops
	marked.Blobs += blobs
	marked.Meta = wire.AppendBlobs(p.Meta[:len(p.Meta):len(p.Meta)])
	if err := e.keepBlobs(&w, marked.Ops, marked.Count); err != nil {
		return 0, err
	}
	return e.queue(ctx, &marked)
}

// queue is the last station: what may be written there now goes to the write loop, unless its token is known.
func (e *engine) queue(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if err := e.permit(ctx, p); err != nil {
		return 0, err
	}
	return e.lines.Commit(ctx, p)
}

// permit returns an ErrPermission if p, or its chain, has ops where another task alone writes.
func (e *engine) permit(ctx context.Context, p *waist.Proposal) error {
	if err := e.roster.Permit(ctx, p); err != nil {
		return err
	}
	if p.Chain != nil {
		return e.roster.PermitChain(ctx, p.Chain)
	}
	return nil
}
