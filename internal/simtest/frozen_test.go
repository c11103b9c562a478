package simtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const frozenLease = 100 * time.Millisecond

// A worker that stands still, at whatever call of the engine or return from one, and wakes up when the others have taken over, does no harm:
// they go on without it, and what it then still commits it commits as a worker.
func TestFrozenWorker(t *testing.T) {
	t.Parallel()
	stride := 37
	if testing.Short() {
		stride = 97
	}
	if *flagAll {
		stride = 1
	}
	const steps = 700 // about as many as a worker takes here; later ones freeze nobody
	var frozen, dead atomic.Int64
	t.Run("at", func(t *testing.T) {
		for at := 1; at <= steps; at += stride {
			t.Run(fmt.Sprint(at), func(t *testing.T) {
				t.Parallel()
				f, d := freezeAt(t, at)
				frozen.Add(f)
				dead.Add(d)
			})
		}
	})
	t.Logf("%d workers frozen, %d of them given up by the others", frozen.Load(), dead.Load())
	if dead.Load() == 0 {
		t.Error("none was frozen while it held windows: the test shows nothing")
	}
}

// freezeAt freezes one of two workers at a step. It returns 1 if that was done, and 1 if the other one took it off the task.
func freezeAt(t *testing.T, at int) (frozen, dead int64) {
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	j := &job{name: "job", source: [][]any{{"a"}}, out: []any{"out"}, derives: true, exact: true, slow: true}
	f, c := newFold([]*job{j}), &crew{db: db}
	ice := &freezer{at: int64(at), frozen: make(chan struct{}), thawed: make(chan struct{})}
	defer c.dismiss(nil)
	defer ice.thaw()
	write := func(n int) (last batchlog.ID) {
		for i := range n {
			if last, err = db.Space("a").Put(t.Context(), batchlog.K(i%5), fmt.Append(nil, at, i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Microsecond)
		}
		return last
	}
	set := func(k *task.Task) {
		k.Lease, k.Concurrency, k.Window.Commits, k.Logger = frozenLease, 2, 2, testLogger(t)
	}
	handled := func(what string) {
		t.Helper()
		ctx, cancel := bounded(patience)
		defer cancel()
		for {
			done, err := f.handledAll(ctx, db.DB)
			if err != nil {
				t.Fatalf("frozen at step %d, %s: %v", at, what, err)
			}
			if done {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	write(6)
	c.hire(batchlog.New(&frozenEngine{db.Inside().Engine(), ice}), j, set)
	if at%2 == 0 { // else the first works alone until it stands
		c.hire(db.DB, j, set)
	}
	for n := 0; n < 60 && frozen == 0; n++ {
		write(1)
		select {
		case <-ice.frozen:
			frozen = 1
		default:
		}
	}
	if at%2 == 1 {
		c.hire(db.DB, j, set)
	}
	write(10)
	handled("while it stands")
	if frozen == 1 && len(f.jobs["job"].workers) < 2 && f.jobs["job"].fence > 1 {
		dead = 1
	}
	ice.thaw()
	id := write(10)
	ctx, cancel := bounded(patience)
	defer cancel()
	var seen batchlog.ID
	v, err := db.Space("out").Get(ctx, batchlog.K("seen"))
	if err == nil {
		err = scanID(string(v), &seen)
	}
	if err != nil || seen < id {
		t.Errorf("frozen at step %d: a read after commit %d shows %d: %v", at, id, seen, err)
	}
	handled("afterwards")
	c.dismiss(nil)
	if err := c.failed(); err != nil {
		t.Error(err)
	}
	handled("in the end")
	if err := f.compare(ctx, db.DB); err != nil {
		t.Errorf("frozen at step %d: %v", at, err)
	}
	return frozen, dead
}

// A freezer stops who passes it, from a certain step on.
type freezer struct {
	at     int64 // the step
	steps  atomic.Int64
	frozen chan struct{} // closed when it is there
	thawed chan struct{} // closed when it is over
	once   sync.Once
}

// pass is one step: a call, or its return.
func (f *freezer) pass() {
	n := f.steps.Add(1)
	if n == f.at {
		close(f.frozen)
	}
	if n >= f.at {
		<-f.thawed
	}
}

func (f *freezer) thaw() { f.once.Do(func() { close(f.thawed) }) }

// A frozenEngine is an engine behind a freezer.
type frozenEngine struct {
	batchlog.Engine
	ice *freezer
}

func (e *frozenEngine) Commit(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	e.ice.pass()
	defer e.ice.pass()
	return e.Engine.Commit(ctx, p)
}

func (e *frozenEngine) View(ctx context.Context, o batchlog.ReadOptions) (waist.Snapshot, error) {
	e.ice.pass()
	defer e.ice.pass()
	return e.Engine.View(ctx, o)
}

func (e *frozenEngine) Log(ctx context.Context, o batchlog.LogOptions) (waist.LogReader, error) {
	e.ice.pass()
	defer e.ice.pass()
	r, err := e.Engine.Log(ctx, o)
	if err != nil {
		return nil, err
	}
	return &frozenReader{r, e.ice}, nil
}

func (e *frozenEngine) Head(ctx context.Context) (batchlog.ID, error) {
	e.ice.pass()
	defer e.ice.pass()
	return e.Engine.Head(ctx)
}

func (e *frozenEngine) Protect(ctx context.Context, ticket uint64, reads *waist.Reads) (now uint64, release func(), err error) {
	e.ice.pass()
	defer e.ice.pass()
	return e.Engine.(batchlog.Queuer).Protect(ctx, ticket, reads)
}

func (e *frozenEngine) Status(ctx context.Context) (batchlog.Status, error) {
	e.ice.pass()
	defer e.ice.pass()
	return e.Engine.(batchlog.Statuser).Status(ctx)
}

// A frozenReader is a reader of the log behind a freezer.
type frozenReader struct {
	waist.LogReader
	ice *freezer
}

func (r *frozenReader) Next(ctx context.Context) ([]wire.Record, batchlog.ID, error) {
	r.ice.pass()
	defer r.ice.pass()
	return r.LogReader.Next(ctx)
}
