package roster

import (
	"context"
	"errors"
	"testing"

	"github.com/bytespace/batchlog"
)

// A commit that has the turn of its task and is held back by one that runs alone, which wants the turn, gives it back, and comes after it.
func TestAloneGetsTheTurn(t *testing.T) {
	r := New(batchlog.New(nil), nil, nil)
	e := r.entry("t")
	e.known, e.fences = true, map[uint64]struct{}{1: {}}
	waiting, released := make(chan struct{}), make(chan struct{})
	entered := 0
	done := make(chan error, 1)
	go func() {
		window := &batchlog.Proposal{Task: &batchlog.TaskMove{Task: "t", Fence: 1, From: 0, To: 5}}
		_, err := r.Commit(t.Context(), window, func(ctx context.Context, _ *batchlog.Proposal) (batchlog.ID, error) {
			if entered++; entered == 1 {
				close(waiting)
			}
			select { // the engine holds it back
			case <-released:
				return 8, nil
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		})
		done <- err
	}()
	<-waiting
	alone := &batchlog.Proposal{Turn: 1, Task: &batchlog.TaskMove{Task: "t", Fence: 1, From: 0, To: 3}}
	if id, err := r.Commit(t.Context(), alone, func(context.Context, *batchlog.Proposal) (batchlog.ID, error) { return 7, nil }); id != 7 || err != nil {
		t.Fatal(id, err)
	}
	close(released)
	var refused *batchlog.TaskMoveError
	if err := <-done; !errors.As(err, &refused) || refused.Cursor != 3 {
		t.Errorf("after the cursor was moved by the other: %v", err)
	}
	if e.urgent != 0 || e.holder != nil || len(e.turn) != 0 {
		t.Errorf("left behind: %d, %t, %d", e.urgent, e.holder != nil, len(e.turn))
	}
}

// A commit whose own context ends while it waits is not tried again.
func TestTurnContext(t *testing.T) {
	r := New(batchlog.New(nil), nil, nil)
	r.entry("t").fences = map[uint64]struct{}{1: {}}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	p := &batchlog.Proposal{Task: &batchlog.TaskMove{Task: "t", Fence: 1, From: 0, To: 5}}
	_, err := r.Commit(ctx, p, func(ctx context.Context, _ *batchlog.Proposal) (batchlog.ID, error) {
		cancel(why)
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	if !errors.Is(err, why) {
		t.Error(err)
	}
}
