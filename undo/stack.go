package undo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"

	"github.com/bytespace/batchlog"
)

// DefaultDepth is how many steps a stack remembers unless told otherwise.
const DefaultDepth = 1000

// Steps are the undo and the redo of one actor, as an editor has them. Make them with [Stack]. They keep nothing but what they have read from the log, so that any number of them, in
// any process, can be about the same actor, and all of them agree. Steps are safe for concurrent use; the fields are to be set before first use.
type Steps struct {
	// Depth is how many commits can be taken back, the newest ones; 0: DefaultDepth.
	Depth int
	// After leaves out the commits up to this one, such as those of an earlier session; 0: all that are in the log count.
	After batchlog.ID
	// Labels are those of the commits that Undo and Redo make, besides that of the actor and those of this package.
	Labels map[string]string

	db   *batchlog.DB
	turn chan struct{} // holds one: whoever has taken it may use fold
	fold fold
}

// Stack is the undo and redo of an actor: of the commits that carry the label with that value, where others' commits in between don't matter. The actor's commits are
// made as any others, with that label; each is a step. A new one ends what could be redone, as in an editor.
//
// Where a step was taken back by somebody else, by [Undo], as part of a cascade or with Force, it counts as undone: Redo brings it back. What [To] does with the
// actor's label is a step as well, and so is what the actor takes back of others; without the label it is none. A step that no longer holds, as others have written over it,
// is a [*ConflictError] that leaves all as it is; to leave some keys, or to take the others' commits back as well, use [Undo] with the label of the actor.
//
// The first use reads the log, from its oldest commit or Steps.After on; later ones read what is new.
func Stack(db *batchlog.DB, label, value string) *Steps {
	return &Steps{db: db, turn: make(chan struct{}, 1), fold: fold{label: label, value: value}}
}

// Undo takes the newest step back and returns the id of the new commit. If there is none the error is [ErrNothing]; others are those of [Undo].
//
// Where the stack is used elsewhere at the same time, two calls take back two steps, one after the other, and never the same one twice.
func (s *Steps) Undo(ctx context.Context) (batchlog.ID, error) {
	return s.move(ctx, LabelUndo, func() (batchlog.ID, error) {
		if len(s.fold.undo) == 0 {
			return 0, fmt.Errorf("undo of %s %s: %w", s.fold.label, s.fold.value, ErrNothing)
		}
		return s.fold.undo[len(s.fold.undo)-1].now, nil
	})
}

// Redo brings back the step that was taken back last and returns the id of the new commit. If there is none the error is [ErrNothing]; others are those of [Redo]. As for Undo, no two
// calls bring back the same step.
func (s *Steps) Redo(ctx context.Context) (batchlog.ID, error) {
	return s.move(ctx, LabelRedo, func() (batchlog.ID, error) {
		if len(s.fold.redo) == 0 {
			return 0, fmt.Errorf("redo of %s %s: %w", s.fold.label, s.fold.value, ErrNothing)
		}
		return s.fold.redo[len(s.fold.redo)-1].by, nil
	})
}

// Peek returns the commits that Undo would take back, and that Redo would bring back, as they were made first; 0: there is none.
func (s *Steps) Peek(ctx context.Context) (undo, redo batchlog.ID, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, 0, err
	}
	defer s.leave()
	if n := len(s.fold.undo); n > 0 {
		undo = s.fold.undo[n-1].id
	}
	if n := len(s.fold.redo); n > 0 {
		redo = s.fold.redo[n-1].id
	}
	return undo, redo, nil
}

// enter waits for a turn and folds the log up to its head.
func (s *Steps) enter(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	head, err := s.db.Head(ctx)
	if err == nil {
		err = s.foldTo(ctx, head)
	}
	if err != nil {
		s.leave()
	}
	return err
}

func (s *Steps) leave() { <-s.turn }

// move takes back the commit that pick chooses, as long as the stack stays as it was.
func (s *Steps) move(ctx context.Context, label string, pick func() (batchlog.ID, error)) (batchlog.ID, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	o := Options{Labels: maps.Clone(s.Labels)}
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	o.Labels[s.fold.label] = s.fold.value
	if err := o.check(true); err != nil {
		return 0, err
	}
	for {
		id, err := pick()
		if err != nil {
			return 0, err
		}
		last := s.fold.last
		u := &undoing{db: s.db, id: id, o: o, labels: o.labels(label, id.String()), idle: s.token(label, id)}
		u.at = func(ctx context.Context, base batchlog.ID) error {
			if err := s.foldTo(ctx, base); err != nil {
				return err
			}
			if s.fold.last != last {
				return errMoved
			}
			return nil
		}
		if id, err = u.run(ctx); !errors.Is(err, errMoved) {
			return id, err
		}
	}
}

// token names the commit, should it have no ops, by the state of the stack that it is made in.
func (s *Steps) token(label string, id batchlog.ID) string {
	return fmt.Sprintf("undo %x", sha256.Sum256(fmt.Appendf(nil, "%q %q %s %d %d", s.fold.label, s.fold.value, label, id, s.fold.last)))
}

// foldTo folds the log up to commit id.
func (s *Steps) foldTo(ctx context.Context, id batchlog.ID) error {
	f := &s.fold
	if f.depth = s.Depth; f.depth <= 0 {
		f.depth = DefaultDepth
	}
	f.at = max(f.at, s.After)
	if f.at >= id {
		return nil
	}
	from := batchlog.After(f.at)
	if f.at == 0 {
		from = batchlog.Oldest()
	}
	err := s.foldFrom(ctx, from, id)
	if errors.Is(err, batchlog.ErrGap) {
		// The log has dropped commits that were not looked at: what is left of it counts.
		f.undo, f.redo, f.last = nil, nil, 0
		err = s.foldFrom(ctx, batchlog.Oldest(), id)
	}
	return err
}

func (s *Steps) foldFrom(ctx context.Context, from batchlog.Position, until batchlog.ID) error {
	f := &s.fold
	for c, err := range s.db.Tail(ctx, batchlog.TailOptions{From: from, Until: until, Brief: true}) {
		if err != nil {
			return err
		}
		f.add(c.ID, c.Labels)
		f.at = c.ID
	}
	f.at = until
	return nil
}
