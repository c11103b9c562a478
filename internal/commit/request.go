package commit

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/bytespace/batchlog"
)

// A request is a proposal on its way through the write loop.
type request struct {
	prop    *batchlog.Proposal
	barrier bool // proposes nothing: it is answered when all before it is durable
	// checked is the commit up to which the reads of the proposal have been validated; keys is what it read, for many.
	checked batchlog.ID
	keys    map[string]struct{}

	state atomic.Uint32
	done  chan answer // has room for one
	pool  *sync.Pool  // where it goes when it was answered
}

type answer struct {
	id  batchlog.ID
	err error
}

// The states of a request.
const (
	stateQueued uint32 = iota
	stateTaken         // by the write loop, which will answer
	stateLeft          // by its caller, before it was taken
)

// wait returns the write loop's answer. If ctx ends before the request was taken it is withdrawn.
func (r *request) wait(ctx context.Context) (batchlog.ID, error) {
	var a answer
	if ctx.Done() == nil {
		a = <-r.done
	} else {
		select {
		case a = <-r.done:
		case <-ctx.Done():
			if r.state.CompareAndSwap(stateQueued, stateLeft) {
				return 0, context.Cause(ctx) // the write loop still holds r
			}
			a = <-r.done
		}
	}
	r.prop, r.keys, r.checked, r.barrier = nil, nil, 0, false
	r.state.Store(stateQueued)
	r.pool.Put(r)
	return a.id, a.err
}

// begin takes the request for the write loop, unless its caller has left.
func (r *request) begin() bool { return r.state.CompareAndSwap(stateQueued, stateTaken) }

// answer ends the request. The write loop may not touch it any more.
func (r *request) answer(id batchlog.ID, err error) { r.done <- answer{id, err} }
