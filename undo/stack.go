package undo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
)

// ErrNothing says that a stack has nothing to undo, or to redo.
var ErrNothing = errors.New("nothing to take back")

// StackDepth is how many commits a stack remembers.
const StackDepth = 1000

// An ActorStack is the commits that carry one label with one value, an actor's or a session's, as an editor's undo has them. Undo takes the newest of them back, Redo takes back
// the newest undo, and a new commit of that actor clears what there was to redo. Commits of others in between are no obstacle, unless they have changed the same
// keys.
//
// A commit that somebody else has taken back, by the function [Undo], alone or in a cascade, counts as undone, and Redo brings it back. What the actor takes back of others, or with [To], is a commit of
// the actor as any. What the stack knows it has from the log, so any number of stacks for the same actor, in several processes, agree. It is safe for concurrent use.
type ActorStack struct {
	db   *batchlog.DB
	turn chan struct{} // holds one: who has put it there may use fold. Commits are made in its turn: they follow from what fold says
	fold fold
}

// Stack is the stack of the commits that carry the label with this value. It reads nothing yet: the first call of a method looks through the log, the others through what has come
// since. It remembers the newest [StackDepth] commits.
func Stack(db *batchlog.DB, label, value string) *ActorStack {
	return &ActorStack{db: db, turn: make(chan struct{}, 1), fold: fold{label: label, value: value, depth: StackDepth}}
}

// Undo takes back the newest commit of the actor that is not taken back yet, and returns the id of the commit that does; see the function [Undo]. Without one it is
// [ErrNothing]. After a *[ConflictError] the stack is as it was. Where the same stack is used elsewhere at the same time, two calls take back two commits, never one twice.
func (s *ActorStack) Undo(ctx context.Context) (batchlog.ID, error) {
	return s.step(ctx, false, s.fold.nextUndo)
}

// Redo takes back the newest undo, unless the actor has committed something since; then, or without one, it is [ErrNothing]. In all else it is as Undo.
func (s *ActorStack) Redo(ctx context.Context) (batchlog.ID, error) {
	return s.step(ctx, true, s.fold.nextRedo)
}

// Next says which commits Undo and Redo would take back now; 0: none.
func (s *ActorStack) Next(ctx context.Context) (undo, redo batchlog.ID, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, 0, err
	}
	defer s.leave()
	return s.fold.nextUndo(), s.fold.nextRedo(), nil
}

// enter waits for a turn and follows the log up to its head.
func (s *ActorStack) enter(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	head, err := s.db.Head(ctx)
	if err == nil {
		err = s.follow(ctx, head)
	}
	if err != nil {
		s.leave()
	}
	return err
}

func (s *ActorStack) leave() { <-s.turn }

// errMoved says that the stack is not any more as it was when a commit was chosen from it.
var errMoved = errors.New("the stack has changed")

// step takes back the commit that next chooses. The choice is looked at again in each try of the commit, as of what that try reads: where another stack of the same actor was
// faster, or the actor has committed something, it chooses again.
func (s *ActorStack) step(ctx context.Context, redo bool, next func() batchlog.ID) (batchlog.ID, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	o := Options{Labels: map[string]string{s.fold.label: s.fold.value}}
	for {
		id, last := next(), s.fold.last
		if id == 0 {
			return 0, ErrNothing
		}
		check := func(ctx context.Context, base batchlog.ID) error {
			if err := s.follow(ctx, base); err != nil {
				return err
			}
			if s.fold.last != last {
				return errMoved
			}
			return nil
		}
		done, err := undo(ctx, s.db, id, o, how{redo: redo, check: check, idle: s.token(id)})
		if !errors.Is(err, errMoved) {
			return done, err
		}
	}
}

// token names the commit that takes back commit id, should it have no ops, by the state of the stack: another stack in the same state comes to the same one.
func (s *ActorStack) token(id batchlog.ID) string {
	f := &s.fold
	return fmt.Sprintf("undo %x", sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d", f.label, f.value, id, f.last)))
}

// follow looks through what has come into the log up to commit id.
func (s *ActorStack) follow(ctx context.Context, id batchlog.ID) error {
	f := &s.fold
	if f.at >= id {
		return nil
	}
	from := batchlog.After(f.at)
	if f.at == 0 {
		from = batchlog.Oldest()
	}
	err := s.followFrom(ctx, from, id)
	if errors.Is(err, batchlog.ErrGap) { // it has slept for long: what is gone can't be taken back either
		f.undo, f.redo, f.last = nil, nil, 0
		err = s.followFrom(ctx, batchlog.Oldest(), id)
	}
	if err != nil {
		return fmt.Errorf("stack of %s %s: %w", f.label, f.value, err)
	}
	f.at = id
	return nil
}

func (s *ActorStack) followFrom(ctx context.Context, from batchlog.Position, until batchlog.ID) error {
	for c, err := range s.db.Tail(ctx, batchlog.TailOptions{From: from, Until: until, Brief: true}) {
		if err != nil {
			return err
		}
		s.fold.add(c.ID, c.Labels)
		s.fold.at = c.ID
	}
	return nil
}
