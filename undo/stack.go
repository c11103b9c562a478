package undo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/bytespace/batchlog"
)

// ErrNothing says that a stack has nothing to undo, or to redo.
var ErrNothing = errors.New("nothing to take back")

// StackDepth is how many commits a stack remembers.
const StackDepth = 1000

// An ActorStack is the commits that carry one label with one value, an actor's or a session's, as an editor's undo has them. Undo takes the newest of them back, Redo takes back
// the newest undo, and a new commit of that actor clears what there was to redo. Commits of others in between are no obstacle, unless they have changed the same
// keys. What it knows it has from the log, so any number of stacks for the same actor, in several processes, agree. It is safe for concurrent use.
type ActorStack struct {
	db           *batchlog.DB
	label, value string

	mu   sync.Mutex
	at   batchlog.ID   // the commit up to which the log was looked through
	undo []batchlog.ID // to be taken back, the newest last
	redo []batchlog.ID // undos to be taken back, the newest last
}

// Stack is the stack of the commits that carry the label with this value. It reads nothing yet: the first call of a method looks through the log, the others through what has come
// since. It remembers the newest [StackDepth] commits.
func Stack(db *batchlog.DB, label, value string) *ActorStack {
	return &ActorStack{db: db, label: label, value: value}
}

// Undo takes back the newest commit of the actor that is not taken back yet, and returns the id of the commit that does; see the function [Undo]. Without one it is
// [ErrNothing]. After a *[ConflictError] the stack is as it was.
func (s *ActorStack) Undo(ctx context.Context) (batchlog.ID, error) {
	return s.step(ctx, func() []batchlog.ID { return s.undo }, func(id batchlog.ID) (batchlog.ID, error) {
		return undo(ctx, s.db, id, Options{Labels: s.labels()}, "")
	})
}

// Redo takes back the newest undo, unless the actor has committed something since; then, or without one, it is [ErrNothing].
func (s *ActorStack) Redo(ctx context.Context) (batchlog.ID, error) {
	return s.step(ctx, func() []batchlog.ID { return s.redo }, func(id batchlog.ID) (batchlog.ID, error) {
		return undo(ctx, s.db, id, Options{Labels: s.labels()}, id.String())
	})
}

// Next says which commits Undo and Redo would take back now; 0: none.
func (s *ActorStack) Next(ctx context.Context) (undo, redo batchlog.ID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.follow(ctx); err != nil {
		return 0, 0, err
	}
	return top(s.undo), top(s.redo), nil
}

func (s *ActorStack) labels() map[string]string { return map[string]string{s.label: s.value} }

func top(ids []batchlog.ID) batchlog.ID {
	if len(ids) == 0 {
		return 0
	}
	return ids[len(ids)-1]
}

// step takes back the top of a list. Where another stack for the same actor was faster it takes what is on top then.
func (s *ActorStack) step(ctx context.Context, list func() []batchlog.ID, take func(id batchlog.ID) (batchlog.ID, error)) (batchlog.ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.follow(ctx); err != nil {
		return 0, err
	}
	for {
		id := top(list())
		if id == 0 {
			return 0, ErrNothing
		}
		done, err := take(id)
		if conflict := (*ConflictError)(nil); !errors.As(err, &conflict) {
			return done, err
		}
		if ferr := s.follow(ctx); ferr != nil {
			return 0, errors.Join(err, ferr)
		}
		if top(list()) == id {
			return 0, err
		}
	}
}

// follow looks through what has come into the log.
func (s *ActorStack) follow(ctx context.Context) error {
	head, err := s.db.Head(ctx)
	if err != nil {
		return err
	}
	from := batchlog.After(s.at)
	if s.at == 0 {
		from = batchlog.Oldest()
	}
	for s.at < head {
		for c, err := range s.db.Tail(ctx, batchlog.TailOptions{From: from, Until: head, Brief: true}) {
			var gap *batchlog.GapError
			if errors.As(err, &gap) { // it has slept for long: what is gone can't be taken back either
				from = batchlog.Oldest()
				s.undo, s.redo = nil, nil
				break
			}
			if err != nil {
				return fmt.Errorf("stack of %s %s: %w", s.label, s.value, err)
			}
			s.fold(c)
			s.at, from = c.ID, batchlog.After(c.ID)
		}
	}
	return nil
}

// fold is what a commit does to the stack.
func (s *ActorStack) fold(c *batchlog.Commit) {
	mine := c.Labels[s.label] == s.value && hasLabel(c.Labels, s.label)
	takesBack, undoes := c.Labels[LabelUndo]
	again, redoes := c.Labels[LabelRedo]
	switch {
	case undoes:
		again, taken := s.remove(&s.redo, takesBack), s.remove(&s.undo, takesBack)
		switch {
		case again: // the undo of an undo, by another name
			s.undo = append(s.undo, c.ID)
		case mine && taken:
			s.redo = append(s.redo, c.ID)
		case mine && c.Len() > 0: // of somebody else's commit: a commit like any
			s.push(c.ID)
		}
	case redoes:
		if s.remove(&s.redo, again) || mine && c.Len() > 0 {
			s.undo = append(s.undo, c.ID)
		}
	case mine:
		s.push(c.ID)
	}
	if n := len(s.undo); n > StackDepth {
		s.undo = slices.Clone(s.undo[n-StackDepth:])
	}
}

func hasLabel(labels map[string]string, name string) bool {
	_, ok := labels[name]
	return ok
}

// push adds a commit that is no undo of the stack.
func (s *ActorStack) push(id batchlog.ID) { s.undo, s.redo = append(s.undo, id), nil }

// remove removes the commits that a label names from a list, and reports whether there were any.
func (s *ActorStack) remove(list *[]batchlog.ID, text string) bool {
	n := len(*list)
	for _, id := range parseIDs(text) {
		*list = slices.DeleteFunc(*list, func(x batchlog.ID) bool { return x == id })
	}
	return len(*list) < n
}
