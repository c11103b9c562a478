package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// Status is how a task is.
type Status struct {
	Name string `json:"name"`
	// State is "running", "idle" (nothing to handle), "paused", "failing" (a window is tried again), "stopped" (a window failed for good),
	// "waiting for a worker", or "stalled": there is something to handle, and no progress for long.
	State   string      `json:"state"`
	Reason  string      `json:"reason,omitempty"` // why it is stalled
	Source  []string    `json:"source,omitempty"`
	Derives []string    `json:"derives,omitempty"`
	Cursor  batchlog.ID `json:"cursor"`         // the newest commit that was handled
	Moved   time.Time   `json:"moved,omitzero"` // when it last moved
	Head    batchlog.ID `json:"head"`
	Lag     Lag         `json:"lag"`
	Rate    float64     `json:"rate"`          // commits of the log a second that it passes while it works, lately
	ETA     float64     `json:"eta,omitempty"` // seconds until it is at head at this rate; 0: it is, or that can't be said
	Parked  int         `json:"parked"`
	Workers []Worker    `json:"workers,omitempty"`
	Hold    batchlog.ID `json:"hold,omitempty"` // the first commit that the log is kept for it; 0: none, it was let go

	// Of the window that fails, if one does.
	First    batchlog.ID `json:"first,omitempty"`
	Last     batchlog.ID `json:"last,omitempty"`
	Attempts int         `json:"attempts,omitempty"`
	Error    string      `json:"error,omitempty"`
	Next     time.Time   `json:"next,omitzero"` // when it is tried again
}

// Lag is how far a task is behind head, from the first commit on that it has to handle; zero when there is none.
type Lag struct {
	Commits uint64  `json:"commits"` // of the log, those that do not concern the task included
	Bytes   int64   `json:"bytes"`   // of the log, about
	Seconds float64 `json:"seconds"` // age of the first commit that it has to handle, by the time that it has; never negative
	// InDoubt says that the age may be nonsense: the clock of the machine that commits has jumped. See batchlog.ClockStatus.
	InDoubt bool `json:"inDoubt,omitempty"`
}

// A Worker is a Run of a task.
type Worker struct {
	Fence uint64      `json:"fence"` // its number; what it commits carries it
	Name  string      `json:"name"`  // host and process
	Since time.Time   `json:"since"`
	Seen  time.Time   `json:"seen"` // last sign of life
	Alive bool        `json:"alive"`
	First batchlog.ID `json:"first,omitempty"` // the windows that it holds
	Last  batchlog.ID `json:"last,omitempty"`
}

// A Hold is a part of the log that is kept for a task.
type Hold struct {
	Task  string      `json:"task"`
	First batchlog.ID `json:"first"` // and all after it
	Bytes int64       `json:"bytes"` // from there to head, about
	Since time.Time   `json:"since"` // time of that commit; zero if there is none yet
}

// systemOnly is the option of views that read the state of tasks: it is not derived, nothing needs to be waited for.
func systemOnly(o *batchlog.ReadOptions) { o.Plain = true }

// List returns all tasks that have ever run and were not dropped, by name.
func List(ctx context.Context, db *batchlog.DB) ([]Status, error) {
	q, err := newQuery(ctx, db)
	if err != nil {
		return nil, err
	}
	defer q.view.Close()
	names, err := q.names()
	if err != nil {
		return nil, err
	}
	all := make([]Status, 0, len(names))
	for _, name := range names {
		s, err := q.status(name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Get returns how a task is, or [ErrUnknown].
func Get(ctx context.Context, db *batchlog.DB, name string) (Status, error) {
	q, err := newQuery(ctx, db)
	if err != nil {
		return Status{}, err
	}
	defer q.view.Close()
	return q.status(name)
}

// A query looks at tasks at one moment.
type query struct {
	ctx    context.Context //nolint:containedctx // it lives for one call
	db     *batchlog.DB
	view   *batchlog.View
	head   batchlog.ID
	bytes  int64 // of the log
	oldest batchlog.ID
	now    time.Time
	clock  bool // it is in doubt

	session string
}

// newQuery is a query of the state as it is now. Its view must be closed.
func newQuery(ctx context.Context, db *batchlog.DB) (*query, error) {
	v, err := db.View(ctx, systemOnly)
	if err != nil {
		return nil, err
	}
	s, err := db.Status(ctx)
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	q := &query{ctx: ctx, db: db, view: v, head: v.ID(), oldest: s.Oldest, now: time.Now(), session: s.Session, clock: s.Clock != nil}
	for _, l := range s.Logs {
		q.bytes += l.Bytes
	}
	return q, nil
}

func (q *query) names() ([]string, error) {
	var names []string
	for e, err := range q.view.Scan(taskstate.All(q.db), batchlog.Range{}) {
		if err != nil {
			return nil, err
		}
		names = append(names, fmt.Sprint(decoded(e.Key)))
	}
	return names, nil
}

func (q *query) status(name string) (Status, error) {
	l, known, err := taskstate.Read(q.view, q.db, name)
	if err == nil && !known {
		err = unknown(name)
	}
	if err != nil {
		return Status{}, err
	}
	s := Status{Name: name, Head: q.head, Cursor: l.Cursor.ID, Moved: l.Cursor.Time, Rate: l.Cursor.Rate, Parked: l.Parked}
	for _, path := range l.Config.Source {
		s.Source = append(s.Source, spaceText(q.db, path))
	}
	for _, path := range l.Config.Derives {
		s.Derives = append(s.Derives, spaceText(q.db, path))
	}
	for fence, w := range l.Workers {
		s.Workers = append(s.Workers, Worker{
			Fence: fence, Name: w.Name, Since: w.Since, Seen: w.Seen, Alive: w.Alive(q.session, q.now), First: w.First, Last: w.Last,
		})
	}
	slices.SortFunc(s.Workers, func(a, b Worker) int { return cmp.Compare(a.Fence, b.Fence) })
	if l.Trouble != nil {
		s.First, s.Last, s.Attempts, s.Error, s.Next = l.Trouble.First, l.Trouble.Last, l.Trouble.Attempts, l.Trouble.Error, l.Trouble.Next
	}
	if s.Hold, err = q.hold(name); err != nil {
		return Status{}, err
	}
	lag, pending, err := q.lag(name, l)
	if err != nil {
		return Status{}, err
	}
	s.Lag = lag
	if s.Rate > 0 && slices.ContainsFunc(s.Workers, func(w Worker) bool { return w.Alive }) {
		s.ETA = float64(s.Lag.Commits) / s.Rate
	}
	s.State, s.Reason = l.State(pending, q.session, q.now)
	return s, nil
}

// lag is how far a task is behind. The log that it needs may be gone: then all of what is there counts.
func (q *query) lag(name string, l *taskstate.Look) (lag Lag, pending bool, err error) {
	source, err := sourcesOf(q.db, &l.Config)
	if err != nil || l.Cursor.ID >= q.head {
		return Lag{}, false, err
	}
	from := max(l.Cursor.ID+1, q.oldest)
	for c, err := range q.db.Tail(q.ctx, batchlog.TailOptions{From: batchlog.At(from), Until: q.head, Spaces: source}) {
		if err != nil {
			return Lag{}, false, err
		}
		if madeBy(c, name) {
			continue
		}
		lag.Commits = uint64(q.head - c.ID + 1)
		lag.Bytes = q.size(c.ID)
		age := q.now.Sub(c.Time)
		lag.Seconds = max(age.Seconds(), 0)
		lag.InDoubt = q.clock || age < -clockSlack
		return lag, true, nil
	}
	return Lag{}, false, nil
}

// clockSlack is how far in the future a commit may be without the clock having been wrong.
const clockSlack = time.Minute

// size is about the bytes of the log from commit first on, taken by the number of commits.
func (q *query) size(first batchlog.ID) int64 {
	if all := q.head - q.oldest + 1; first <= q.head && all > 0 {
		return int64(float64(q.bytes) * float64(q.head-first+1) / float64(all))
	}
	return 0
}

// hold is the first commit that the log is kept for a task, 0 if there is none.
func (q *query) hold(name string) (batchlog.ID, error) {
	text, err := q.view.Get(taskstate.Holds(q.db), batchlog.K(name))
	if errors.Is(err, batchlog.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("hold of task %s: %w", name, err)
	}
	return batchlog.ID(id), nil
}

// Holds returns which task holds what of the log, the oldest first.
func Holds(ctx context.Context, db *batchlog.DB) ([]Hold, error) {
	q, err := newQuery(ctx, db)
	if err != nil {
		return nil, err
	}
	defer q.view.Close()
	names, err := q.names()
	if err != nil {
		return nil, err
	}
	var holds []Hold
	for _, name := range names {
		first, err := q.hold(name)
		if err != nil {
			return nil, err
		}
		if first == 0 {
			continue
		}
		h := Hold{Task: name, First: first, Bytes: q.size(max(first, q.oldest))}
		if first >= q.oldest && first <= q.head {
			for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(first), Until: first}) {
				if err != nil {
					return nil, err
				}
				h.Since = c.Time
			}
		}
		holds = append(holds, h)
	}
	slices.SortFunc(holds, func(a, b Hold) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Task, b.Task)) })
	return holds, nil
}
