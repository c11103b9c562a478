package store

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// A memory is what the store takes of it: for the cache of blocks, and for memtables. Pebble takes its memtables out of the cache, so that a cache of the size that was
// asked for would be none while there are some. It is made larger by all that there may be. What they leave is for blocks, but for what is held back as long as
// so little was written that they can't be large: a store that is only read takes no more than its cache.
type memory struct {
	cache     *pebble.Cache
	memTables int64        // the bytes of all that there may be
	written   atomic.Int64 // bytes, since the store was opened
	enough    atomic.Int64 // up to so many written bytes what memtables were given is enough

	mu      sync.Mutex // held while what is held back changes
	release func()     // gives that back; nil: it is nothing
}

const (
	// memTables is how many there are at most: who writes waits while there are so many.
	memTables = 4
	// firstMemTables is more than the first ones take. Pebble begins with one of 256 KiB, and makes each at most twice as large as the one before.
	firstMemTables = 1 << 20
	// memTableFactor times the bytes that were written is more than what memtables take by then: each is at most twice as large as what was written before, and a small op
	// takes some times its size.
	memTableFactor = 16
)

func newMemory(cacheBytes, memTableBytes int64) *memory {
	m := &memory{memTables: memTables * memTableBytes}
	m.cache = pebble.NewCache(cacheBytes + m.memTables)
	m.hold()
	return m
}

// grow is called before so many bytes are written.
func (m *memory) grow(size int64) {
	if m.written.Add(size) > m.enough.Load() {
		m.hold()
	}
}

// hold holds back what memtables need not have before twice as much is written as now.
func (m *memory) hold() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.release != nil {
		m.release()
		m.release = nil
	}
	enough := 2 * m.written.Load()
	held := m.memTables - firstMemTables - memTableFactor*enough
	if held <= 0 {
		m.enough.Store(math.MaxInt64)
		return
	}
	m.release = m.cache.Reserve(int(held))
	m.enough.Store(max(enough, firstMemTables/memTableFactor))
}
