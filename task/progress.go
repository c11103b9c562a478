package task

import (
	"context"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// A progress is what a worker knows of the task: it reads it once and then follows the commits that change it, those of other workers and its
// own. It may be a little behind; what depends on it is checked where it is committed.
type progress struct {
	mu      sync.Mutex
	gone    bool // the worker is none any more
	paused  bool
	parked  bool // a window was parked, or is to be tried again, since it was looked last
	cursor  batchlog.ID
	workers map[uint64]time.Time // the others, and when they last gave a sign of life, by our clock
	claims  map[batchlog.ID]taskstate.Claim
	left    map[batchlog.ID]struct{} // claims of ours from before, whose windows nobody handles any more
	changed chan struct{}            // closed when something has changed
}

// look reads the task's state, and says from where on to follow it.
func (r *runner) look(ctx context.Context) (*progress, batchlog.Position, error) {
	none := batchlog.First()
	v, err := r.db.View(ctx, systemOnly)
	if err != nil {
		return nil, none, err
	}
	defer v.Close()
	state, known, err := taskstate.Read(v, r.db, r.t.Name)
	if err != nil {
		return nil, none, err
	}
	if _, mine := stateWorkers(state)[r.fence]; !known || !mine {
		return nil, none, errLost
	}
	p := &progress{
		paused: state.Control.Paused, cursor: state.Cursor.ID, workers: map[uint64]time.Time{}, claims: map[batchlog.ID]taskstate.Claim{},
		left: map[batchlog.ID]struct{}{}, changed: make(chan struct{}),
	}
	for fence := range state.Workers {
		if fence != r.fence {
			p.workers[fence] = time.Now()
		}
	}
	for _, c := range state.Claims {
		p.claims[c.First] = c
		if c.Fence == r.fence {
			p.left[c.First] = struct{}{}
		}
	}
	return p, batchlog.After(v.ID()), nil
}

func stateWorkers(l *taskstate.Look) map[uint64]taskstate.Worker {
	if l == nil {
		return nil
	}
	return l.Workers
}

// followLoop keeps r.seen up with the database.
func (r *runner) followLoop(ctx context.Context, from batchlog.Position) error {
	for c, err := range r.db.Tail(ctx, batchlog.TailOptions{From: from, Spaces: []*batchlog.Space{r.at.State}}) {
		if err != nil {
			return err
		}
		if err := r.seen.take(c, r.at, r.fence); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// take takes over what a commit changes.
func (p *progress) take(c *batchlog.Commit, at taskstate.Spaces, own uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Task != nil && c.Task.Fence != own {
		if _, known := p.workers[c.Task.Fence]; known {
			p.workers[c.Task.Fence] = time.Now()
		}
	}
	for op, err := range c.Ops() {
		if err != nil {
			return err
		}
		if err := p.takeOp(op, at, own); err != nil {
			return err
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

func (p *progress) takeOp(op batchlog.Op, at taskstate.Spaces, own uint64) error {
	put := op.Kind == batchlog.OpPut
	switch {
	case op.Kind == batchlog.OpDeleteRange:
		if op.Space.Equal(at.Workers) || op.Space.Equal(at.State) {
			p.gone = true // reset or dropped
		}
	case op.Space.Equal(at.Workers):
		fence, err := taskstate.Number(op.Key)
		if err != nil {
			return err
		}
		switch {
		case fence != own && put:
			p.workers[fence] = time.Now()
		case fence != own:
			delete(p.workers, fence)
		case !put:
			p.gone = true
		}
	case op.Space.Equal(at.Claims):
		if !put {
			first, err := taskstate.Number(op.Key)
			if err != nil {
				return err
			}
			delete(p.claims, batchlog.ID(first))
			return nil
		}
		var c taskstate.Claim
		if err := taskstate.Decode(op.Space, op.Key, op.Value, &c); err != nil {
			return err
		}
		p.claims[c.First] = c
	case op.Space.Equal(at.Parked):
		p.parked = p.parked || put
	case op.Space.Equal(at.State) && put && string(op.Key) == string(taskstate.KeyCursor):
		var c taskstate.Cursor
		if err := taskstate.Decode(op.Space, op.Key, op.Value, &c); err != nil {
			return err
		}
		p.cursor = max(p.cursor, c.ID)
	case op.Space.Equal(at.State) && put && string(op.Key) == string(taskstate.KeyControl):
		var c taskstate.Control
		if err := taskstate.Decode(op.Space, op.Key, op.Value, &c); err != nil {
			return err
		}
		p.paused = c.Paused
	}
	return nil
}

// moved notes that this worker has brought the cursor to id.
func (p *progress) moved(id batchlog.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id > p.cursor {
		p.cursor = id
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// alone reports whether there is no other worker.
func (p *progress) alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.workers) == 0
}

// wait returns when ok, which is called with p locked, holds; errLost if the worker is none any more. Without end it returns nil
// when limit has passed, if that is not nil.
func (p *progress) wait(ctx context.Context, limit <-chan time.Time, ok func() bool) (held bool, err error) {
	for {
		p.mu.Lock()
		done, gone, changed := ok(), p.gone, p.changed
		p.mu.Unlock()
		switch {
		case gone:
			return false, errLost
		case done:
			return true, nil
		}
		select {
		case <-changed:
		case <-limit:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// turn waits until the task stands right before commit first. held is false if limit came before. A cursor behind that point is errMoved: somebody
// else has handled that window.
func (p *progress) turn(ctx context.Context, first batchlog.ID, limit <-chan time.Time) (held bool, err error) {
	beyond := false
	held, err = p.wait(ctx, limit, func() bool {
		beyond = p.cursor >= first
		return p.cursor+1 >= first
	})
	if beyond && err == nil {
		return false, errMoved
	}
	return held, err
}
