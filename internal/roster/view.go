package roster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
)

// View is a snapshot in which derived spaces are as of its id, too: as if their tasks worked at once. A read there waits
// for the task; nothing else does.
//
// A task comes to the view's id with a later commit than that, and goes on. So a view stands on several snapshots of a [moment]: the first for
// everything, and for each task one from when it had handled the commits up to the view's id and none after. That it stands there once is
// seen to by cutting its windows; the snapshot is taken by who commits the next one, so a task never waits for readers. Of a space
// that is derived from derived ones a view shows that state or a later one.
//
// ctx is that of the view: when it ends, so do its waits.
func (r *Roster) View(ctx context.Context, o batchlog.ReadOptions) (waist.Snapshot, error) {
	if o.Stale || o.Plain {
		return r.engine.Snapshot()
	}
	if err := r.upToDate(ctx); err != nil {
		return nil, err
	}
	if r.derived.Load() == nil {
		return r.engine.Snapshot()
	}
	if s, err := r.settled(ctx); s != nil || err != nil {
		return s, err
	}
	m := r.moments.join(r)
	v := &view{roster: r, moment: m, ctx: ctx, most: o.MaxWait}
	select {
	case <-m.ready:
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), m.leave())
	}
	if m.err != nil {
		return nil, errors.Join(m.err, m.leave())
	}
	return v, nil
}

// settled is a snapshot that needs nothing beside it, as every task has answered its id; nil if there is none now.
func (r *Roster) settled(ctx context.Context) (waist.Snapshot, error) {
	type place struct {
		task         *entry
		cursor, last batchlog.ID
	}
	var before []place
	for _, e := range r.deriving() {
		e.mu.Lock()
		before = append(before, place{e, e.cursor, e.last})
		e.mu.Unlock()
	}
	s, err := r.engine.Snapshot()
	if err != nil {
		return nil, err
	}
	for _, p := range before {
		first, err := r.due(ctx, p.task, p.cursor, s.ID())
		p.task.mu.Lock()
		moved := p.task.last != p.last
		p.task.mu.Unlock()
		if err != nil || first != 0 || moved || p.last > s.ID() {
			return nil, s.Close()
		}
	}
	return s, nil
}

// A view is a reader of a moment.
type view struct {
	roster *Roster
	moment *moment
	ctx    context.Context //nolint:containedctx // reads of a view have none of their own
	most   time.Duration
	once   sync.Once
}

// ID is as waist.Snapshot says.
func (v *view) ID() batchlog.ID { return v.moment.base.ID() }

// Get is as waist.Snapshot says.
func (v *view) Get(ctx context.Context, key []byte) ([]byte, error) {
	s, err := v.of(key)
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, key)
}

// Scan is as waist.Snapshot says, for the own keys of one space: what is derived is whole subtrees.
func (v *view) Scan(ctx context.Context, low, high []byte, reverse bool) (waist.Cursor, error) {
	s, err := v.of(low)
	if err != nil {
		return nil, err
	}
	return s.Scan(ctx, low, high, reverse)
}

// of is the snapshot that a stored key is to be read in.
func (v *view) of(key []byte) (waist.Snapshot, error) {
	e := v.roster.owner(key)
	if e == nil {
		return v.moment.base, nil
	}
	if s := v.moment.of(e); s != nil {
		return s, nil
	}
	if err := v.roster.wait(v.ctx, v.most, key, e, v.ID()); err != nil {
		return nil, err
	}
	if err := e.take(v.ctx); err != nil { // so that it stays there
		return nil, err
	}
	defer e.release()
	if err := v.moment.settle(v.ctx, e); err != nil {
		return nil, err
	}
	if s := v.moment.of(e); s != nil {
		return s, nil
	}
	return nil, batchlog.ErrClosed
}

// Close is as waist.Snapshot says.
func (v *view) Close() (err error) {
	v.once.Do(func() { err = v.moment.leave() })
	return err
}
