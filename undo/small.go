package undo

import (
	"context"
	"errors"
	"maps"

	"github.com/bytespace/batchlog"
)

// errConflicts ends a transaction that has met conflicts. Which they are is said outside of it.
var errConflicts = errors.New("conflicts")

// small takes changes back in a transaction.
func (u *undoing) small(ctx context.Context, changes []change) (batchlog.ID, error) {
	var left [][]byte // keys that don't hold what the commit has left
	var base batchlog.ID
	id, err := u.db.Update(ctx, func(tx *batchlog.Tx) error {
		left, base = left[:0], tx.Base()
		if err := u.begin(ctx, base); err != nil {
			return err
		}
		for i := range changes {
			c := &changes[i]
			has, err := heldIn(tx, c.key)
			if err != nil {
				return err
			}
			if has.equal(c.now) {
				write(tx, c.key, c.old)
			} else {
				left = append(left, c.key)
			}
		}
		if len(left) > 0 && !u.o.Force {
			return errConflicts
		}
		u.sign(tx)
		return nil
	})
	if errors.Is(err, errConflicts) {
		return 0, u.conflict(ctx, left, 0, base)
	}
	if err == nil && id == 0 {
		id, err = u.empty(ctx)
	}
	if err == nil {
		u.tell(ctx, left, base)
	}
	return id, err
}

// begin is asked before each try.
func (u *undoing) begin(ctx context.Context, base batchlog.ID) error {
	if u.at == nil {
		return nil
	}
	return u.at(ctx, base)
}

// sign gives the commit of tx its labels and token.
func (u *undoing) sign(tx *batchlog.Tx) {
	for name, value := range u.labels {
		tx.SetLabel(name, value)
	}
	tx.SetToken(u.o.Token)
}

// heldIn is what a key holds in a transaction.
func heldIn(tx *batchlog.Tx, key []byte) (stored, error) {
	value, err := tx.Stored(key)
	if errors.Is(err, batchlog.ErrNotFound) {
		return stored{}, nil
	}
	return stored{value, true}, err
}

// A writer is a transaction or a chain.
type writer interface {
	PutStored(key, value []byte)
	DeleteStored(key []byte)
}

func write(w writer, key []byte, v stored) {
	if v.has {
		w.PutStored(key, v.value)
	} else {
		w.DeleteStored(key)
	}
}

// empty makes a commit without ops: there was nothing to change, and the log says that it was taken back.
func (u *undoing) empty(ctx context.Context) (batchlog.ID, error) {
	b := batchlog.Batch{Token: u.o.Token, Labels: maps.Clone(u.labels)}
	if b.Token == "" {
		b.Token = u.idle
	}
	return u.db.Write(ctx, &b)
}

// conflict is the error for keys that have changed since, as of the commit base, of which more are not named.
func (u *undoing) conflict(ctx context.Context, keys [][]byte, more int, base batchlog.ID) error {
	if n := len(keys) - MaxConflicts; n > 0 {
		keys, more = keys[:MaxConflicts], more+n
	}
	list, err := conflictsOf(ctx, u.db, keys, u.id+1, base)
	if err != nil {
		return err
	}
	return &ConflictError{ID: u.id, Conflicts: list, More: more}
}

// tell tells of keys that were left. The commit is there by then: an error in looking up who wrote them is none of the undo.
func (u *undoing) tell(ctx context.Context, keys [][]byte, base batchlog.ID) {
	if u.o.Left == nil || len(keys) == 0 {
		return
	}
	list, err := namesOf(u.db, keys)
	if err != nil {
		return // no key of a commit in the log is malformed
	}
	if err := writersOf(ctx, u.db, keys, list, u.id+1, base); err != nil {
		for i := range list {
			list[i].ID = 0 // it may not be the newest
		}
	}
	for _, c := range list {
		u.o.Left(c)
	}
}

// errMoved says that a stack is no longer as it was when a step was taken from it.
var errMoved = errors.New("the stack has changed")
