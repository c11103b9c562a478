package commit

import (
	"context"
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
	select {
	case err := <-h.done:
		return err
	case <-ctx.Done():
	}
	g.mu.Lock()
	delete(g.mu.waiting, h)
	g.mu.Unlock()
	return &batchlog.WaitError{For: id, Applied: batchlog.ID(g.applied.Load()), Waited: time.Since(began), Err: context.Cause(ctx)}
}

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
