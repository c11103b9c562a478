package store

import (
	"sync/atomic"
	"time"
)

// A gate counts who is inside, so that closing can wait for them: Pebble must not be used once it is closed.
type gate struct{ inside atomic.Int64 }

const gateClosed = -1 << 62 // added to inside when the gate is closed

// enter lets the caller in unless the gate is closed.
func (g *gate) enter() bool {
	if g.inside.Add(1) < 0 {
		g.inside.Add(-1)
		return false
	}
	return true
}

func (g *gate) leave() { g.inside.Add(-1) }

// close lets nobody in any more. It reports false if the gate was closed already.
func (g *gate) close() bool {
	for {
		n := g.inside.Load()
		if n < 0 {
			return false
		}
		if g.inside.CompareAndSwap(n, n+gateClosed) {
			return true
		}
	}
}

// empty waits until all have left a closed gate, and reports whether they have before giveUp says that they won't. Those
// inside are in single calls of Pebble, so this is mostly short, and happens once.
func (g *gate) empty(giveUp func() bool) bool {
	for g.inside.Load() != gateClosed {
		if giveUp() {
			return false
		}
		time.Sleep(20 * time.Microsecond)
	}
	return true
}
