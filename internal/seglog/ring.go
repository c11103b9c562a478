package seglog

import (
	"context"
	"sort"
	"sync"

	"github.com/bytespace/batchlog"
)

// ringBytes bounds the groups that are kept in memory for followers at the tail, in bytes.
const ringBytes = 8 << 20

// A ring is the newest durable groups.
type ring struct {
	mu     sync.Mutex
	groups []ringGroup // in order, without holes, up to head
	next   batchlog.ID // of the commit after the last group
	bytes  int
	limit  int
	tick   chan struct{} // closed when a group comes; nil while nobody waits
}

type ringGroup struct {
	first, last batchlog.ID
	records     []byte
	count       int
}

// ringOverhead is what a group takes beside its records.
const ringOverhead = 64

// publish adds a group and wakes who waits for one.
func (r *ring) publish(g ringGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups = append(r.groups, g)
	r.next = g.last + 1
	r.bytes += len(g.records) + ringOverhead
	for r.bytes > r.limit && len(r.groups) > 1 {
		r.bytes -= len(r.groups[0].records) + ringOverhead
		r.groups[0] = ringGroup{}
		r.groups = r.groups[1:]
	}
	r.wakeLocked()
}

func (r *ring) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeLocked()
}

func (r *ring) wakeLocked() {
	if r.tick != nil {
		close(r.tick)
		r.tick = nil
	}
}

// from appends to dst the groups that hold commit id and those after it, up to some bytes. ok is false if the ring doesn't go
// back that far.
func (r *ring) from(dst []ringGroup, id batchlog.ID, bytes int) (_ []ringGroup, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id >= r.next {
		return dst, true
	}
	if len(r.groups) == 0 || id < r.groups[0].first {
		return dst, false
	}
	at := sort.Search(len(r.groups), func(i int) bool { return r.groups[i].last >= id })
	for ; at < len(r.groups) && bytes > 0; at++ {
		dst = append(dst, r.groups[at])
		bytes -= len(r.groups[at].records)
	}
	return dst, true
}

// wait returns when commit id is in the log, ctx ends or done is closed.
func (r *ring) wait(ctx context.Context, id batchlog.ID, done <-chan struct{}) {
	r.mu.Lock()
	if id < r.next {
		r.mu.Unlock()
		return
	}
	if r.tick == nil {
		r.tick = make(chan struct{})
	}
	tick := r.tick
	r.mu.Unlock()
	select {
	case <-tick:
	case <-ctx.Done():
	case <-done:
	}
}
