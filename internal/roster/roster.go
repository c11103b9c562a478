// Package roster is what an engine knows of tasks: who works on them, how far each has come, and which spaces they derive. With that it
//
//   - takes the commit of a window only from a live worker, and only where the task stands (commit.go);
//   - keeps everybody else from writing into derived spaces (permit.go);
//   - holds reads there until the task has handled what was in the log when they came (hold.go);
//   - gives views in which all derived spaces are as of one commit (view.go).
//
// The truth is in the database, where package task keeps it; the roster follows it, since all commits pass through the engine.
package roster

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
	"github.com/bytespace/batchlog/internal/waist"
)

// An Engine is what the roster needs of the engine that it is a part of.
type Engine interface {
	// Hold returns when the store is as far as o asks for, which says nothing of derived spaces.
	Hold(ctx context.Context, o batchlog.ReadOptions) error
	// Snapshot returns the store as it is.
	Snapshot() (waist.Snapshot, error)
	// Log returns a reader of the log.
	Log(ctx context.Context, o batchlog.LogOptions) (waist.LogReader, error)
	Head(ctx context.Context) (batchlog.ID, error)
	Applied() batchlog.ID
	// Session names this opening of the database.
	Session() string
}

// A Roster is the tasks of a database. It is safe for concurrent use.
type Roster struct {
	engine Engine
	db     *batchlog.DB // the front over engine
	done   <-chan struct{}

	mu      sync.Mutex
	tasks   map[string]*entry
	changes int                   // commits under way that change a task
	derived atomic.Pointer[shape] // nil: nothing is derived, so that who writes and reads elsewhere pays one load
	moments moments
	// changing is closed when no such commit is under way any more; nil: none is. Who comes meanwhile waits, as the store may show the
	// change before the roster knows it.
	changing atomic.Pointer[chan struct{}]
}

// An entry is one task.
type entry struct {
	name string
	turn chan struct{} // held by the commit that moves or changes the task

	mu      sync.Mutex
	urgent  int                     // commits that run alone and want the turn
	holder  context.CancelCauseFunc // ends the wait of the commit that has the turn; nil: there is none, or it runs alone
	known   bool                    // there is such a task
	read    int                     // how often it was read
	config  taskstate.Config
	sources [][]byte // open paths
	fences  map[uint64]struct{}
	cursor  batchlog.ID
	last    batchlog.ID          // the commit that brought the cursor there, or a later one
	changed chan struct{}        // closed when one of the above has changed
	clear   span                 // in which no commit concerns the task
	cuts    map[*moment]struct{} // moments that wait for the task to stand at their commit
}

// A span is the commits after from up to upTo.
type span struct{ from, upTo batchlog.ID }

// New is the roster of the database that db is the front of, without its tasks; see Load. Waits end with done.
func New(db *batchlog.DB, e Engine, done <-chan struct{}) *Roster {
	return &Roster{engine: e, db: db, done: done, tasks: map[string]*entry{}}
}

// Load reads all tasks.
func (r *Roster) Load(ctx context.Context) error {
	v, err := r.db.View(ctx, plain)
	if err != nil {
		return err
	}
	defer v.Close()
	for e, err := range v.Scan(taskstate.All(r.db), batchlog.Range{}) {
		if err != nil {
			return err
		}
		name, err := e.Key.Decode()
		if err != nil {
			return err
		}
		if text, ok := name.(string); ok {
			if err := r.read(v, r.entry(text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// change notes that a commit which changes a task is under way; done that it is not any more.
func (r *Roster) change() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes++; r.changes == 1 {
		ch := make(chan struct{})
		r.changing.Store(&ch)
	}
}

func (r *Roster) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes--; r.changes == 0 {
		close(*r.changing.Swap(nil))
	}
}

// upToDate waits while a task is being changed.
func (r *Roster) upToDate(ctx context.Context) error {
	ch := r.changing.Load()
	if ch == nil {
		return nil
	}
	select {
	case <-*ch:
		return nil
	case <-r.done:
		return batchlog.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// entry is the task of that name, whether there is one or not.
func (r *Roster) entry(name string) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.tasks[name]
	if e == nil {
		e = &entry{name: name, turn: make(chan struct{}, 1), changed: make(chan struct{}), cuts: map[*moment]struct{}{}}
		r.tasks[name] = e
	}
	return e
}

// plain is the option of views that read what is not derived.
func plain(o *batchlog.ReadOptions) { o.Plain = true }

// reload reads a task anew, as of commit id or later.
func (r *Roster) reload(ctx context.Context, e *entry, id batchlog.ID) error {
	v, err := r.db.View(ctx, batchlog.AtLeast(id), plain)
	if err != nil {
		return err
	}
	defer v.Close()
	return r.read(v, e)
}

// read sets e to what v says.
func (r *Roster) read(v *batchlog.View, e *entry) error {
	look, known, err := taskstate.Read(v, r.db, e.name)
	if err != nil {
		return err
	}
	if !known {
		look = &taskstate.Look{}
	}
	e.mu.Lock()
	e.known, e.config, e.cursor, e.last, e.clear = known, look.Config, look.Cursor.ID, v.ID(), span{}
	e.sources = e.config.Sources(r.db)
	e.read++
	e.fences = make(map[uint64]struct{}, len(look.Workers))
	for fence := range look.Workers {
		e.fences[fence] = struct{}{}
	}
	e.wakeLocked()
	e.mu.Unlock()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.derived.Store(newShape(r.tasks))
	return nil
}

// wakeLocked tells those who wait that something has changed.
func (e *entry) wakeLocked() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// take takes the turn of the task.
func (e *entry) take(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *entry) release() { <-e.turn }
