package commit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
)

// A gate holds reads until the store has reached the commit that they ask for. With nothing to wait for it costs two
// atomic loads.
type gate struct {
	applied atomic.Uint64
	held    atomic.Int64 // reads in waiting: lets reached pass by the lock
	waited  atomic.Bool  // a read has waited since the applier has looked
	// storeFailed says why the store can't go on. An Apply that was under way then may never return.
	storeFailed func() error

	mu struct {
		sync.Mutex
		waiting map[*hold]struct{}
		failed  error
	}
}

type hold struct {
	id   batchlog.ID
	done chan error // has room for one
}

// Hold returns when the store is as far as o asks for.
func (p *Pipeline) Hold(ctx context.Context, o batchlog.ReadOptions) error {
	if o.Stale {
		return nil
	}
	id := o.AtLeast
	if id == 0 {
		id = p.log.Head()
	}
	if batchlog.ID(p.reads.applied.Load()) >= id {
		return nil
	}
	return p.reads.wait(ctx, id, o.MaxWait)
}

func (g *gate) wait(ctx context.Context, id batchlog.ID, most time.Duration) error {
	began := time.Now()
	if most > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, most)
		defer cancel()
	}
	h := &hold{id: id, done: make(chan error, 1)}
	g.waited.Store(true)
	g.held.Add(1)
	defer g.held.Add(-1)
	g.mu.Lock()
	switch {
	case batchlog.ID(g.applied.Load()) >= id:
		g.mu.Unlock()
		return nil
	case g.mu.failed != nil:
		g.mu.Unlock()
		return g.mu.failed
	}
	if g.mu.waiting == nil {
		g.mu.waiting = map[*hold]struct{}{}
	}
	g.mu.waiting[h] = struct{}{}
	g.mu.Unlock()
	err, failed := g.await(ctx, h)
	if err == nil && failed == nil {
		return nil
	}
	g.mu.Lock()
	delete(g.mu.waiting, h)
	g.mu.Unlock()
	if failed != nil {
		return failed
	}
	return &batchlog.WaitError{For: id, Applied: batchlog.ID(g.applied.Load()), Waited: time.Since(began), Err: err}
}

// await waits for h. waited is why ctx ended first, failed why the store will not get there.
func (g *gate) await(ctx context.Context, h *hold) (waited, failed error) {
	look := time.NewTicker(holdPoll)
	defer look.Stop()
	for {
		select {
		case err := <-h.done:
			return nil, err
		case <-ctx.Done():
			return context.Cause(ctx), nil
		case <-look.C:
			if err := g.storeFailed(); err != nil {
				return nil, fmt.Errorf("%w until the database is opened again: %w", batchlog.ErrReadOnly, err)
			}
		}
	}
}

// holdPoll is how often a held read looks whether what it waits for can still come.
const holdPoll = 50 * time.Millisecond

// reached lets go of the reads that ask for id or less.
func (g *gate) reached(id batchlog.ID) {
	g.applied.Store(uint64(id))
	if g.held.Load() == 0 {
		return // whoever comes now sees applied
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for h := range g.mu.waiting {
		if h.id <= id {
			h.done <- nil
			delete(g.mu.waiting, h)
		}
	}
}

// fail ends all waits, and those to come, with err.
func (g *gate) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.failed == nil {
		g.mu.failed = err
	}
	for h := range g.mu.waiting {
		h.done <- g.mu.failed
		delete(g.mu.waiting, h)
	}
}

// Applied is the newest commit that reads may see.
func (p *Pipeline) Applied() batchlog.ID { return batchlog.ID(p.reads.applied.Load()) }
