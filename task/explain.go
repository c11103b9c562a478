package task

import (
	"context"
	"fmt"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// A Wait is what a read of a derived space waits for.
type Wait struct {
	Space  string      `json:"space"` // the derived space
	Task   string      `json:"task"`  // that derives it
	State  string      `json:"state"`
	Cursor batchlog.ID `json:"cursor"`
	Until  batchlog.ID `json:"until"`            // the newest commit that the task has to handle first; 0: it has handled all
	Behind uint64      `json:"behind"`           // commits that concern the task and are not handled
	ETA    float64     `json:"eta,omitempty"`    // seconds
	Reason string      `json:"reason,omitempty"` // why it stands still, or its last error
}

// Explain says what a read in s, or in the spaces within, would wait for now: the tasks that derive what is there, and before each those that
// feed it. None: no task derives anything there, a read waits for nothing but the store.
func Explain(ctx context.Context, db *batchlog.DB, s *batchlog.Space) ([]Wait, error) {
	if err := db.Inside().Owns(s); err != nil {
		return nil, err
	}
	q, err := newQuery(ctx, db)
	if err != nil {
		return nil, err
	}
	defer q.view.Close()
	names, err := q.names()
	if err != nil {
		return nil, err
	}
	x := explainer{query: q, tasks: map[string]*taskstate.Config{}, feeders: map[string][]string{}, seen: map[string]bool{}}
	for _, name := range names {
		var c taskstate.Config
		if _, err := taskstate.Load(q.view, taskstate.All(db), batchlog.K(name), &c); err != nil {
			return nil, err
		}
		x.tasks[name] = &c
	}
	f := newFeeds(db, x.tasks, names)
	for _, name := range names {
		for _, next := range f.of(name) {
			x.feeders[next] = append(x.feeders[next], name)
		}
	}
	for _, name := range names {
		if slices.ContainsFunc(x.tasks[name].Derives, func(path []byte) bool {
			return taskstate.Overlap(taskstate.Open(path), taskstate.Open(s.Stored()))
		}) {
			if err := x.add(name); err != nil {
				return nil, err
			}
		}
	}
	return x.waits, nil
}

type explainer struct {
	*query
	tasks   map[string]*taskstate.Config
	feeders map[string][]string // the tasks that derive what each follows
	seen    map[string]bool
	waits   []Wait
}

// add adds a task, behind those that feed it.
func (x *explainer) add(name string) error {
	if x.seen[name] {
		return nil
	}
	x.seen[name] = true
	for _, up := range x.feeders[name] {
		if err := x.add(up); err != nil {
			return err
		}
	}
	s, err := x.status(name)
	if err != nil {
		return err
	}
	w := Wait{Task: name, State: s.State, Cursor: s.Cursor, ETA: s.ETA, Reason: s.Reason}
	for i, d := range s.Derives {
		if i > 0 {
			w.Space += ", "
		}
		w.Space += d
	}
	if w.Reason == "" {
		w.Reason = s.Error
	}
	source, err := sourcesOf(x.db, x.tasks[name])
	if err != nil {
		return err
	}
	for c, err := range x.db.Tail(x.ctx, batchlog.TailOptions{From: batchlog.At(max(s.Cursor+1, x.oldest)), Until: x.head, Spaces: source}) {
		if err != nil {
			return fmt.Errorf("commits that task %s has to handle: %w", name, err)
		}
		if madeBy(c, name) {
			continue
		}
		w.Until = c.ID
		w.Behind++
	}
	x.waits = append(x.waits, w)
	return nil
}
