package store

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// compactions is Pebble's own scheduler, which lets one run at a time, but lets none begin while Pebble opens, and none when that
// has failed: Pebble closes what they read without waiting for them, and forgets to end the ticker of the default
// scheduler. Without a ticker nothing is lost, as the number at a time is fixed.
type compactions struct {
	*pebble.ConcurrencyLimitScheduler

	mu struct {
		sync.Mutex
		open bool
		held []pebble.CompactionGrantHandle // granted by the scheduler, and kept back
	}
}

func newCompactions() *compactions {
	return &compactions{ConcurrencyLimitScheduler: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()}
}

// TrySchedule is as pebble.CompactionScheduler says.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ok, grant := c.ConcurrencyLimitScheduler.TrySchedule()
	if !ok || c.mu.open {
		return ok, grant
	}
	c.mu.held = append(c.mu.held, grant)
	return false, nil
}

// begin lets compactions run. What is given back is granted anew, to what waits by now.
func (c *compactions) begin() {
	c.mu.Lock()
	c.mu.open = true
	held := c.mu.held
	c.mu.held = nil
	c.mu.Unlock()
	for _, grant := range held {
		grant.Done()
	}
}
