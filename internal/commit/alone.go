package commit

import (
	"context"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
)

// AloneMax bounds how long a transaction may hold all others back. A slow one loses its turn, not the others theirs.
const AloneMax = 2 * time.Second

// Alone is as batchlog.Queuer says.
func (p *Pipeline) Alone(ctx context.Context) (turn uint64, release func(), err error) {
	select {
	case p.alone <- struct{}{}:
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	case <-p.done:
		return 0, nil, batchlog.ErrClosed
	}
	p.mu.Lock()
	p.mu.turns++
	turn = p.mu.turns
	p.mu.turn = turn
	p.mu.Unlock()

	var once sync.Once
	end := func() {
		once.Do(func() {
			p.mu.Lock()
			p.mu.turn = 0
			p.mu.Unlock()
			p.wake()
			<-p.alone
		})
	}
	timer := time.AfterFunc(AloneMax, end)
	release = func() {
		timer.Stop()
		end()
	}
	if err := p.barrier(ctx, turn); err != nil {
		release()
		return 0, nil, err
	}
	return turn, release, nil
}

// barrier returns when all that was taken before is durable.
func (p *Pipeline) barrier(ctx context.Context, turn uint64) error {
	r := p.request()
	r.prop, r.barrier = &batchlog.Proposal{Turn: turn}, true
	if err := p.enqueue(r); err != nil {
		return err
	}
	_, err := r.wait(ctx)
	return err
}
