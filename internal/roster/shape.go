package roster

import (
	"slices"
	"sync"

	"github.com/bytespace/batchlog/internal/taskstate"
)

// A shape is which spaces are derived, and by whom. Another one takes its place when a task changes.
type shape struct {
	paths taskstate.Paths[*entry] // open stored paths of the derived spaces
	tasks []*entry                // those that derive something, each once

	mu       sync.Mutex
	upstream map[*entry][]*entry // as far as it was asked for
}

// newShape is the shape of some tasks; nil if they derive nothing.
func newShape(tasks map[string]*entry) *shape {
	s := &shape{upstream: map[*entry][]*entry{}}
	for _, e := range tasks {
		e.mu.Lock()
		for _, path := range e.config.Derives {
			s.paths.Add(taskstate.Open(path), e)
		}
		if len(e.config.Derives) > 0 {
			s.tasks = append(s.tasks, e)
		}
		e.mu.Unlock()
	}
	if s.paths.Len() == 0 {
		return nil
	}
	s.paths.Build()
	return s
}

// owner is the task that derives the space that a stored key is in, or nil.
func (r *Roster) owner(key []byte) *entry {
	if s := r.derived.Load(); s != nil {
		for e := range s.paths.Around(key) {
			return e
		}
	}
	return nil
}

// Derives reports whether a task derives the space with this closed path.
func (r *Roster) Derives(path []byte) bool { return r.owner(path) != nil }

// deriving is the tasks that derive something.
func (r *Roster) deriving() []*entry {
	if s := r.derived.Load(); s != nil {
		return s.tasks
	}
	return nil
}

// upstream is the tasks that derive what e follows.
func (r *Roster) upstream(e *entry) []*entry {
	s := r.derived.Load()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	up, known := s.upstream[e]
	if known {
		return up
	}
	e.mu.Lock()
	sources := e.sources
	e.mu.Unlock()
	met := map[*entry]bool{e: true}
	for _, source := range sources {
		for task := range s.paths.Overlapping(source) {
			if !met[task] {
				met[task] = true
				up = append(up, task)
			}
		}
	}
	s.upstream[e] = slices.Clip(up)
	return up
}
