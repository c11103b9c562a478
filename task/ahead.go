package task

import (
	"context"
	"sync"
)

// ahead bounds the bytes of the commits that are read and not yet in a window. One that is larger than the bound is read when nothing else is.
type ahead struct {
	limit int

	mu    sync.Mutex
	bytes int
	waits bool          // somebody waits for freed
	freed chan struct{} // closed when bytes has become less
}

func newAhead(limit int) *ahead { return &ahead{limit: limit, freed: make(chan struct{})} }

// take waits until there is room for a commit of that size.
func (a *ahead) take(ctx context.Context, size int) error {
	for {
		a.mu.Lock()
		if a.bytes == 0 || size <= a.limit-a.bytes {
			a.bytes += size
			a.mu.Unlock()
			return nil
		}
		a.waits = true
		freed := a.freed
		a.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// give gives the room of a commit back.
func (a *ahead) give(size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes -= size
	if a.waits {
		close(a.freed)
		a.waits, a.freed = false, make(chan struct{})
	}
}
