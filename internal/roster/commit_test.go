package roster

import (
	"context"
	"errors"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// An engine whose log ends somewhere; the rest of it isn't there.
type headEngine struct {
	Engine
	head batchlog.ID
}

func (e headEngine) Head(context.Context) (batchlog.ID, error) { return e.head, nil }

// A commit that has the turn of its task and is held back for one with a ticket, which wants the turn, gives it back, and comes after it.
func TestTicketGetsTheTurn(t *testing.T) {
	r := New(batchlog.New(nil), headEngine{head: 10}, nil)
	e := r.entry("t")
	e.known, e.fences = true, map[uint64]struct{}{1: {}}
	waiting, released := make(chan struct{}), make(chan struct{})
	entered := 0
	done := make(chan error, 1)
	go func() {
		window := &waist.Proposal{Task: &wire.TaskMove{Task: "t", Fence: 1, From: 0, To: 5}}
		_, err := r.Commit(t.Context(), window, func(ctx context.Context, _ *waist.Proposal) (batchlog.ID, error) {
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
	urgent := &waist.Proposal{Ticket: 1, Task: &wire.TaskMove{Task: "t", Fence: 1, From: 0, To: 3}}
	if id, err := r.Commit(t.Context(), urgent, func(context.Context, *waist.Proposal) (batchlog.ID, error) { return 7, nil }); id != 7 || err != nil {
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
	r := New(batchlog.New(nil), headEngine{head: 10}, nil)
	r.entry("t").fences = map[uint64]struct{}{1: {}}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	p := &waist.Proposal{Task: &wire.TaskMove{Task: "t", Fence: 1, From: 0, To: 5}}
	_, err := r.Commit(ctx, p, func(ctx context.Context, _ *waist.Proposal) (batchlog.ID, error) {
		cancel(why)
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	if !errors.Is(err, why) {
		t.Error(err)
	}
}

// A window is taken from a worker of the task only, and only where the task stands.
func TestRefusesMoves(t *testing.T) {
	for name, c := range map[string]struct {
		move  wire.TaskMove
		taken bool
		lost  bool
	}{
		"as it should be":         {wire.TaskMove{Fence: 2, From: 5, To: 9}, true, false},
		"no move":                 {wire.TaskMove{Fence: 2}, true, false},
		"worker that is gone":     {wire.TaskMove{Fence: 1, From: 5, To: 9}, false, true},
		"no move, worker gone":    {wire.TaskMove{Fence: 1}, false, true},
		"worker that never was":   {wire.TaskMove{Fence: 3, From: 5, To: 9}, false, true},
		"handled already":         {wire.TaskMove{Fence: 2, From: 3, To: 5}, false, false},
		"handled in part":         {wire.TaskMove{Fence: 2, From: 3, To: 9}, false, false},
		"leaves out what is next": {wire.TaskMove{Fence: 2, From: 6, To: 9}, false, false},
		"goes back":               {wire.TaskMove{Fence: 2, From: 5, To: 4}, false, false},
		"to head":                 {wire.TaskMove{Fence: 2, From: 5, To: 10}, true, false},
		"beyond head":             {wire.TaskMove{Fence: 2, From: 5, To: 11}, false, false},
	} {
		r := New(batchlog.New(nil), headEngine{head: 10}, nil)
		e := r.entry("t")
		e.known, e.cursor, e.fences = true, 5, map[uint64]struct{}{2: {}}
		c.move.Task = "t"
		calls := 0
		_, err := r.Commit(t.Context(), &waist.Proposal{Task: &c.move}, func(context.Context, *waist.Proposal) (batchlog.ID, error) {
			calls++
			return 12, nil
		})
		var refused *batchlog.TaskMoveError
		if c.taken != (err == nil && calls == 1) || !c.taken && (!errors.As(err, &refused) || refused.Lost != c.lost || calls != 0 || refused.Cursor != 5) {
			t.Errorf("%s: %v after %d calls", name, err, calls)
		}
		if want := c.move.To; c.taken && want != 0 && (e.cursor != want || e.last != 12) {
			t.Errorf("%s: at %d by %d", name, e.cursor, e.last)
		}
	}
}
