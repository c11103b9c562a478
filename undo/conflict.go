package undo

import (
	"bytes"
	"context"
	"fmt"

	"github.com/bytespace/batchlog"
)

// A Conflict is a key that does not hold any more what a commit left there.
type Conflict struct {
	Space *batchlog.Space
	Key   batchlog.Key
	ID    batchlog.ID // the newest commit that wrote the key since; 0: the log has none
}

// String is space, key and commit.
func (c Conflict) String() string { return fmt.Sprintf("%s in %s, by commit %d", c.Key, c.Space, c.ID) }

// conflictsMax bounds the conflicts of a ConflictError.
const conflictsMax = 1000

// A ConflictError says why a commit can't be taken back as it is: later ones have changed the same keys. It is a batchlog.ErrConflict. Take these back first (newest
// first, or all with [Options.Cascade]), or take back what is unchanged ([Options.Force]).
type ConflictError struct {
	ID        batchlog.ID // the commit that was to be taken back
	Conflicts []Conflict  // in the order of keys, 1,000 at most
	More      int         // that are not in Conflicts
}

func (e *ConflictError) Error() string {
	what := "a key was"
	if n := len(e.Conflicts) + e.More; n > 1 {
		what = fmt.Sprintf("%d keys were", n)
	}
	s := fmt.Sprintf("commit %d can't be taken back: %s changed since", e.ID, what)
	if len(e.Conflicts) > 0 {
		s += ": " + e.Conflicts[0].String()
	}
	if len(e.Conflicts)+e.More > 1 {
		s += ", …"
	}
	return s
}

// Is reports whether target is batchlog.ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == batchlog.ErrConflict }

// conflictError is the *ConflictError about some keys, and more that are only counted, as of commit base.
func (t *taking) conflictError(ctx context.Context, base batchlog.ID, conflicts []change, more int) error {
	e := &ConflictError{ID: t.id, More: more}
	if n := len(conflicts); n > conflictsMax {
		conflicts, e.More = conflicts[:conflictsMax], more+n-conflictsMax
	}
	var err error
	if e.Conflicts, err = t.conflicts(ctx, base, conflicts); err != nil {
		return err
	}
	return e
}

// conflicts are the keys with the commits that changed them, as of commit base.
func (t *taking) conflicts(ctx context.Context, base batchlog.ID, changes []change) ([]Conflict, error) {
	ids, err := t.writers(ctx, base, changes)
	if err != nil {
		return nil, err
	}
	var all []Conflict
	for i, c := range changes {
		s, key, err := t.db.Inside().Split(c.key)
		if err != nil {
			return nil, err
		}
		all = append(all, Conflict{s, bytes.Clone(key), ids[i]})
	}
	return all, nil
}

// writers are the newest commits after the one that is taken back, up to base, that wrote the keys.
func (t *taking) writers(ctx context.Context, base batchlog.ID, changes []change) ([]batchlog.ID, error) {
	ids := make([]batchlog.ID, len(changes))
	spaces, err := spacesOf(t.db, changes)
	if err != nil || base <= t.id {
		return ids, err
	}
	keys := keyed(changes)
	for c, err := range t.db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(t.id), Until: base, Spaces: spaces, Brief: true}) {
		if err != nil {
			return nil, err
		}
		err := c.Inside().EachOp(func(kind batchlog.OpKind, key, value []byte) error {
			if kind != batchlog.OpDeleteRange {
				if i, ok := keys.find(key); ok {
					ids[i] = c.ID
				}
				return nil
			}
			for i := keys.from(key); i < len(changes) && bytes.Compare(changes[i].key, value) < 0; i++ {
				ids[i] = c.ID
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}
