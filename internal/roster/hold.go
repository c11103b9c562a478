package roster

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
	"github.com/bytespace/batchlog/internal/wire"
)

// Hold returns when a read of the stored key may be made as o asks for: at once unless a task derives its space. Else when the
// task has handled every commit that concerns it up to head, or to o.AtLeast, and the store shows what came of that. A wait that ends early is
// a *batchlog.WaitError with the task in it.
func (r *Roster) Hold(ctx context.Context, key []byte, o batchlog.ReadOptions) error {
	if o.Stale || o.Plain {
		return nil
	}
	if err := r.upToDate(ctx); err != nil {
		return err
	}
	e := r.owner(key)
	if e == nil {
		return nil
	}
	target := o.AtLeast
	if target == 0 {
		head, err := r.engine.Head(ctx)
		if err != nil {
			return err
		}
		target = head
	}
	return r.wait(ctx, o.MaxWait, key, e, target)
}

// wait waits until e has answered target, most so long if that is not 0.
func (r *Roster) wait(ctx context.Context, most time.Duration, key []byte, e *entry, target batchlog.ID) error {
	began := time.Now()
	if most > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, most)
		defer cancel()
	}
	_, slow, err := r.answered(ctx, e, target)
	if err == nil || ctx.Err() == nil {
		return err
	}
	return r.waitError(key, slow, target, began, context.Cause(ctx))
}

// answered returns when e has handled all up to target that concerns it, with the commit that brought it there, which the store
// shows then. What e follows may be derived itself: then what that task makes of target concerns e, too. If ctx ends
// first, slow is the task that was waited for.
func (r *Roster) answered(ctx context.Context, e *entry, target batchlog.ID) (last batchlog.ID, slow *entry, err error) {
	a := answers{roster: r, ctx: ctx, target: target, last: map[*entry]batchlog.ID{}}
	return a.of(e)
}

// answers is what the tasks have made of a commit, as far as they were waited for: each of them once, in however many ways it leads to the
// one that was asked for.
type answers struct {
	roster *Roster
	ctx    context.Context //nolint:containedctx // of one wait
	target batchlog.ID
	last   map[*entry]batchlog.ID // the commit with which each has answered; 0 while it is waited for
}

// of waits for e, after those that derive what it follows.
func (a *answers) of(e *entry) (last batchlog.ID, slow *entry, err error) {
	if last, met := a.last[e]; met {
		return last, nil, nil
	}
	a.last[e] = 0
	target := a.target
	for _, up := range a.roster.upstream(e) {
		through, slow, err := a.of(up)
		if err != nil {
			return 0, slow, err
		}
		target = max(target, through)
	}
	last, slow, err = a.roster.handled(a.ctx, e, target)
	a.last[e] = last
	return last, slow, err
}

// handled returns when e itself has handled all up to target that concerns it.
func (r *Roster) handled(ctx context.Context, e *entry, target batchlog.ID) (last batchlog.ID, slow *entry, err error) {
	for {
		e.mu.Lock()
		known, cursor, last, changed := e.known, e.cursor, e.last, e.changed
		e.mu.Unlock()
		if !known {
			return last, nil, nil // dropped: a space as any other
		}
		first, err := r.due(ctx, e, cursor, target)
		if err != nil {
			return 0, e, err
		}
		if first == 0 {
			return last, e, r.engine.Hold(ctx, batchlog.ReadOptions{AtLeast: last})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, e, context.Cause(ctx)
		case <-r.done:
			return 0, e, batchlog.ErrClosed
		}
	}
}

// due is the first commit after cursor and up to target that concerns e, 0 if there is none. What was looked through once is
// not looked through again.
func (r *Roster) due(ctx context.Context, e *entry, cursor, target batchlog.ID) (batchlog.ID, error) {
	if cursor >= target {
		return 0, nil
	}
	e.mu.Lock()
	from, sources, read := cursor, e.sources, e.read
	if e.clear.from <= cursor && cursor <= e.clear.upTo {
		from = e.clear.upTo
	}
	e.mu.Unlock()
	if from >= target {
		return 0, nil
	}
	// A target that is yet to come is waited for here: nothing else says whether it will concern the task.
	reader, err := r.engine.Log(ctx, batchlog.LogOptions{From: batchlog.After(from), Until: target, Within: sources})
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	for {
		found, scanned, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if len(found) > 0 {
			scanned = found[0].ID - 1
		}
		e.mu.Lock()
		if e.read == read && e.clear.upTo < scanned {
			e.clear = span{from: cursor, upTo: scanned}
		}
		e.mu.Unlock()
		if len(found) > 0 {
			return found[0].ID, nil
		}
	}
}

// waitError says what a read waited for.
func (r *Roster) waitError(key []byte, e *entry, target batchlog.ID, began time.Time, cause error) error {
	e.mu.Lock()
	cursor := e.cursor
	e.mu.Unlock()
	w := &batchlog.WaitError{
		For: target, Applied: r.engine.Applied(), Waited: time.Since(began), Err: cause, Task: e.name, Cursor: cursor, State: "in an unknown state",
	}
	if path, _, err := wire.SplitKey(key); err == nil {
		w.Space, _ = r.db.Inside().SpaceAt(path) // without it the error still says which task
	}
	v, err := r.db.View(context.Background(), batchlog.Stale())
	if err != nil {
		return w
	}
	defer v.Close()
	if look, known, err := taskstate.Read(v, r.db, e.name); err == nil && known {
		w.State, w.Reason = look.State(true, r.engine.Session(), time.Now())
	}
	return w
}
