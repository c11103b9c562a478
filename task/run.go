package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
	"github.com/bytespace/batchlog/internal/wire"
)

const (
	// idleRenew is how often a worker that holds no windows says that it is alive; one that does, three times a lease.
	idleRenew = 30 * time.Second
	// leaveTime is how long a worker that ends tries to say so.
	leaveTime = 5 * time.Second
	// retryOften is how long a worker waits before it asks again for what it can't do now: a full disk, a pause.
	retryOften = 200 * time.Millisecond
)

// Run handles commits of t's sources until ctx ends, and returns why it stopped: the context's error, a *PoisonError, a
// *batchlog.GapError if commits that t has not handled are gone, or the database's error. A task that derives what another one derives, or that would,
// over what other tasks derive, follow itself, is refused.
//
// Any number of Runs of one task, in this process or elsewhere, may be under way. They share its windows: each takes the next one that nobody has
// taken, and the windows are committed in order, so that the outcome is that of one Run. One that goes silent
// for Lease while it holds windows loses them to the others, and cannot commit whatever it had begun.
func Run(ctx context.Context, db *batchlog.DB, t Task) error {
	t, err := t.withDefaults()
	if err != nil {
		return err
	}
	r := &runner{db: db, t: t, at: taskstate.Of(db, t.Name)}
	if err := r.register(ctx); err != nil {
		return fmt.Errorf("task %s: %w", t.Name, err)
	}
	for joined := false; ; {
		if !joined {
			err := r.join(ctx)
			for r.fence != 0 && passing(err) { // it was one before
				if err = sleep(ctx, retryOften); err == nil {
					err = r.join(ctx)
				}
			}
			if err != nil {
				return fmt.Errorf("task %s: %w", t.Name, err)
			}
			joined = true
		}
		err := r.work(ctx)
		switch {
		case errors.Is(err, errMoved):
			t.Logger.Debug("another worker was faster; looking again where the task is", "task", t.Name, "worker", r.fence)
		case errors.Is(err, errLost):
			joined = false
			t.Logger.Warn("no worker of the task any more; joining again", "task", t.Name, "worker", r.fence)
		default:
			r.leave()
			var poison *PoisonError
			if errors.As(err, &poison) {
				return err // it says which task
			}
			return fmt.Errorf("task %s: %w", t.Name, err)
		}
	}
}

// Register makes the task known without running it: where it begins is fixed, the log is kept for it, and what it derives is its own, so
// that reads there are held. Run does so, too; a program that begins Run in a goroutine and reads derived spaces next registers it first.
func Register(ctx context.Context, db *batchlog.DB, t Task) error {
	t, err := t.withDefaults()
	if err != nil {
		return err
	}
	r := &runner{db: db, t: t, at: taskstate.Of(db, t.Name)}
	if err := r.register(ctx); err != nil {
		return fmt.Errorf("task %s: %w", t.Name, err)
	}
	return nil
}

// A runner is one Run.
type runner struct {
	db    *batchlog.DB
	t     Task
	at    taskstate.Spaces
	fence uint64           // its number, of this join
	me    taskstate.Worker // its record

	seen *progress // of one work
	rate rate

	mu    sync.Mutex
	holds []*window // windows that it has taken and not yet brought to an end, in order
	since time.Time // when it last began or ended one
}

// name is what people are told of a worker.
func workerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s, process %d", host, os.Getpid())
}

// admin is the move of a commit that changes the task.
func admin(name string) wire.TaskMove { return wire.TaskMove{Task: name, Admin: true} }

// asWorker makes tx a commit that only this worker may make, as long as it is one, and that leaves the cursor where it is.
func (r *runner) asWorker(tx *batchlog.Tx) error {
	if _, err := tx.Get(r.at.Workers, batchlog.K(r.fence)); errors.Is(err, batchlog.ErrNotFound) {
		return errLost
	} else if err != nil {
		return err
	}
	tx.Inside().Move(wire.TaskMove{Task: r.t.Name, Fence: r.fence})
	return nil
}

// register keeps what the task is, and makes the state of one that is new.
func (r *runner) register(ctx context.Context) error {
	start, err := startOf(ctx, r.db, r.t.Start)
	if err != nil {
		return err
	}
	_, err = r.db.Update(ctx, func(tx *batchlog.Tx) error {
		c := taskstate.Config{Stall: r.t.Stall, Made: time.Now().UTC()}
		var old taskstate.Config
		known, err := taskstate.Load(tx, taskstate.All(r.db), batchlog.K(r.t.Name), &old)
		if err != nil {
			return err
		}
		if known {
			c.Made = old.Made
		}
		if c.Source, err = r.stored(r.t.Source); err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if c.Derives, err = r.stored(r.t.Derives); err != nil {
			return fmt.Errorf("derived space: %w", err)
		}
		if err := checkShape(tx, r.db, r.t.Name, &c); err != nil {
			return err
		}
		tx.Inside().Move(admin(r.t.Name))
		taskstate.Save(tx, taskstate.All(r.db), batchlog.K(r.t.Name), c)
		if known {
			return nil
		}
		taskstate.Save(tx, r.at.State, taskstate.KeyCursor, taskstate.Cursor{ID: start, Time: time.Now().UTC()})
		return hold(tx, r.db, r.t.Name, start, taskstate.Control{})
	})
	return err
}

// stored is the paths of spaces.
func (r *runner) stored(spaces []*batchlog.Space) ([][]byte, error) {
	var paths [][]byte
	for _, s := range spaces {
		if s == nil {
			return nil, errors.New("nil space")
		}
		if err := r.db.Inside().Owns(s); err != nil {
			return nil, err
		}
		paths = append(paths, s.Stored())
	}
	return paths, nil
}

// startOf is the cursor of a task that begins at pos: the commit before its first.
func startOf(ctx context.Context, db *batchlog.DB, pos batchlog.Position) (batchlog.ID, error) {
	head, err := db.Head(ctx)
	if err != nil || head == 0 || pos == batchlog.First() { // a tail until 0 would wait for ever
		return 0, err
	}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: pos, Until: head}) {
		if err != nil {
			return 0, err
		}
		return c.ID - 1, nil
	}
	return head, nil
}

// join makes r one of the task's workers. Those of an earlier opening of the database are gone; if it is the only one now, nothing is taken.
func (r *runner) join(ctx context.Context) error {
	status, err := r.db.Status(ctx)
	if err != nil {
		return err
	}
	_, err = r.db.Update(ctx, func(tx *batchlog.Tx) error {
		look, known, err := taskstate.Read(tx, r.db, r.t.Name)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("it was dropped: %w", ErrUnknown)
		}
		var fences taskstate.Fences
		if _, err := taskstate.Load(tx, r.at.State, taskstate.KeyFences, &fences); err != nil {
			return err
		}
		others := 0
		for fence, w := range look.Workers {
			if w.Session == status.Session {
				others++
				continue
			}
			tx.Delete(r.at.Workers, batchlog.K(fence))
		}
		if others == 0 {
			for _, c := range look.Claims {
				tx.Delete(r.at.Claims, batchlog.K(uint64(c.First)))
			}
			taskstate.Save(tx, r.at.State, taskstate.KeyFrontier, taskstate.Frontier{ID: look.Cursor.ID})
		}
		r.fence = fences.Last + 1
		now := time.Now().UTC()
		r.me = taskstate.Worker{Name: workerName(), Session: status.Session, Since: now, Seen: now}
		tx.Inside().Move(admin(r.t.Name))
		taskstate.Save(tx, r.at.State, taskstate.KeyFences, taskstate.Fences{Last: r.fence})
		taskstate.Save(tx, r.at.Workers, batchlog.K(r.fence), r.me)
		if look.Trouble != nil && look.Trouble.Stopped {
			tx.Delete(r.at.State, taskstate.KeyTrouble) // it is tried anew
		}
		return nil
	})
	return err
}

// leave ends r's part in the task; what it has taken the others take over. If that fails they do so after the lease.
func (r *runner) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if _, err := tx.Get(r.at.Workers, batchlog.K(r.fence)); err != nil {
			return err
		}
		tx.Inside().Move(admin(r.t.Name))
		tx.Delete(r.at.Workers, batchlog.K(r.fence))
		return nil
	})
	if err != nil && !errors.Is(err, batchlog.ErrNotFound) && !errors.Is(err, batchlog.ErrClosed) {
		r.t.Logger.Warn("worker not taken off the task; the others wait for it a while", "task", r.t.Name, "worker", r.fence, "err", err)
	}
}

// work is the worker's life until something ends it: it follows what the others do, cuts the log into windows, handles those that it
// takes, and takes over from those who are gone.
func (r *runner) work(ctx context.Context) error {
	seen, from, err := r.look(ctx)
	if err != nil {
		return err
	}
	r.seen, r.holds, r.since = seen, nil, time.Now()
	within, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { stop(r.followLoop(within, from)) })
	wg.Go(func() { stop(r.renewLoop(within)) })
	wg.Go(func() { stop(r.takeoverLoop(within)) })
	wg.Go(func() { stop(r.parkedLoop(within)) })
	jobs := make(chan *window)
	for range r.t.Concurrency {
		wg.Go(func() { r.windowLoop(within, jobs, stop) })
	}
	err = r.dispatch(within, jobs)
	stop(err)
	wg.Wait()
	return context.Cause(within)
}

// renewLoop says that the worker is alive.
func (r *runner) renewLoop(ctx context.Context) error {
	last := time.Now()
	for {
		if err := sleep(ctx, r.t.Lease/3); err != nil {
			return err
		}
		first, end, since := r.held()
		if (first == 0 || time.Since(since) < r.t.Lease/3) && time.Since(last) < idleRenew {
			continue
		}
		me := r.me
		me.Seen, me.First, me.Last = time.Now().UTC(), first, end
		_, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
			if err := r.asWorker(tx); err != nil {
				return err
			}
			taskstate.Save(tx, r.at.Workers, batchlog.K(r.fence), me)
			return nil
		})
		if err := lost(err); err != nil && !passing(err) {
			return err
		}
		last = time.Now()
	}
}

// lost is err as this package tells it: a refused move is errLost or errMoved.
func lost(err error) error {
	var refused *batchlog.TaskMoveError
	switch {
	case !errors.As(err, &refused) || refused.Cut != 0:
		return err
	case refused.Lost:
		return errLost
	default:
		return errMoved
	}
}

// passing reports whether an error of the database goes by with time.
func passing(err error) bool { return errors.Is(err, batchlog.ErrNoSpace) }

// sleep waits for d, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
