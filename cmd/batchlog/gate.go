package main

import (
	"context"
	"sync"
)

// A gate bounds the bytes that are under way. One goroutine acquires; any may release.
type gate struct {
	limit int64
	freed chan struct{} // has one in it if something was released since it was looked at

	mu struct {
		sync.Mutex
		used int64
	}
}

func newGate(limitBytes int64) *gate {
	return &gate{limit: limitBytes, freed: make(chan struct{}, 1)}
}

// acquire waits until n more bytes fit, or until nothing else is under way. An error is that of ctx.
func (g *gate) acquire(ctx context.Context, n int64) error {
	for {
		g.mu.Lock()
		fits := g.mu.used == 0 || g.mu.used+n <= g.limit
		if fits {
			g.mu.used += n
		}
		g.mu.Unlock()
		if fits {
			return nil
		}
		select {
		case <-g.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *gate) release(n int64) {
	g.mu.Lock()
	g.mu.used -= n
	g.mu.Unlock()
	select {
	case g.freed <- struct{}{}:
	default:
	}
}
