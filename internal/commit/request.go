package commit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
)

// A request is a proposal, or the wish for a protection, on its way through the write loop.
type request struct {
	prop   *waist.Proposal // nil: it asks for protect
	ticket uint64          // that of prop
	breaks bool            // prop changes a task: others wait while it is under way, so it is not held
	round  int             // how often it was handed back

	// Of a transaction: checked is the commit up to which reads have been validated. What it has read of a protection of its own, covered, is left
	// out of reads, as nobody can have changed it; whole says that this was not so in the round before.
	reads   readSet
	checked batchlog.ID
	covered *protection
	whole   bool

	// What it writes was looked at, in its caller, for the protections up to the version seen, of which it touches touched. wide takes it for
	// touching all others.
	seen    uint64
	touched []*protection
	wide    bool

	// The write loop's: by is the ticket of the protection that it is held for, passed says that it was held for one before that, too.
	by     uint64
	passed bool

	protect *protection // what it asks for

	looking sync.Mutex // held by who looks at prop before it is taken, and by a caller who leaves
	state   atomic.Uint32
	done    chan answer // has room for one
	pool    *sync.Pool  // where it goes when it was answered
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

// errAgain hands a request back: what is to be looked at for it is too much for the write loop, and is looked at by its caller.
var errAgain = errors.New("look again")

// wait returns the write loop's answer. If ctx ends before the request was taken it is withdrawn; nothing that it refers to is looked at then.
func (r *request) wait(ctx context.Context) (id batchlog.ID, left bool, err error) {
	var a answer
	if ctx.Done() == nil {
		a = <-r.done
	} else {
		select {
		case a = <-r.done:
		case <-ctx.Done():
			if r.leave() {
				return 0, true, context.Cause(ctx) // the write loop still holds r
			}
			a = <-r.done
		}
	}
	r.state.Store(stateQueued)
	return a.id, false, a.err
}

// leave withdraws the request, unless it was taken. The write loop may hold it for some seconds yet, but not what it was about.
func (r *request) leave() bool {
	r.looking.Lock()
	defer r.looking.Unlock()
	if !r.state.CompareAndSwap(stateQueued, stateLeft) {
		return false
	}
	r.prop, r.reads, r.covered = nil, readSet{}, nil
	return true
}

// begin takes the request for the write loop, unless its caller has left.
func (r *request) begin() bool { return r.state.CompareAndSwap(stateQueued, stateTaken) }

// left reports whether the caller has left.
func (r *request) left() bool { return r.state.Load() == stateLeft }

// answer ends the request. The write loop may not touch it any more.
func (r *request) answer(id batchlog.ID, err error) { r.done <- answer{id, err} }

// free gives the request back to the pool. Its caller may not touch it any more.
func (r *request) free() {
	r.prop, r.ticket, r.breaks, r.round, r.checked = nil, 0, false, 0, 0
	r.reads.reset()
	r.covered, r.whole = nil, false
	r.seen, r.touched, r.wide, r.by, r.passed, r.protect = 0, nil, false, 0, false, nil
	r.pool.Put(r)
}
