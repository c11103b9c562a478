package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
)

// A Conflict is a key that no longer holds what the commit has left there.
type Conflict struct {
	Space *batchlog.Space
	Key   batchlog.Key
	ID    batchlog.ID // the newest commit that wrote the key since, put, deleted, or by a range delete; 0: the log no longer says
}

// String is the conflict for people.
func (c Conflict) String() string {
	return fmt.Sprintf("%s in space %s, which commit %d wrote since", c.Key, c.Space, c.ID)
}

// MaxConflicts bounds the conflicts that a ConflictError, or an Outcome, names.
const MaxConflicts = 1000

// A ConflictError says why a commit can't be taken back as it is: others have changed what it has left. Nothing was written. It is a [batchlog.ErrConflict].
type ConflictError struct {
	ID        batchlog.ID // the commit that was to be taken back
	Conflicts []Conflict  // in the order of keys; the first MaxConflicts
	More      int         // how many there are beyond
}

func (e *ConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "undo of commit %d: conflict: ", e.ID)
	if n := len(e.Conflicts) + e.More; n == 1 {
		b.WriteString("a key has changed since: ")
	} else {
		fmt.Fprintf(&b, "%d keys have changed since: ", n)
	}
	const some = 3
	for i, c := range e.Conflicts[:min(some, len(e.Conflicts))] {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(c.String())
	}
	if more := len(e.Conflicts) + e.More - some; more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	b.WriteString("; Force leaves what has changed, Cascade takes the later commits back as well")
	return b.String()
}

// Is reports whether target is [batchlog.ErrConflict].
func (e *ConflictError) Is(target error) bool { return target == batchlog.ErrConflict }

// ErrNotUndone says that there is nothing to redo: the commit is no undo, and no undo of it is in the log.
var ErrNotUndone = errors.New("not undone")

// ErrNothing says that a stack has nothing to undo, or to redo.
var ErrNothing = errors.New("nothing there")

// conflictsOf are the conflicts on stored keys, which are sorted, with the commits between id and until, both included, that wrote them.
func conflictsOf(ctx context.Context, db *batchlog.DB, keys [][]byte, id, until batchlog.ID) ([]Conflict, error) {
	list, err := namesOf(db, keys)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list, writersOf(ctx, db, keys, list, id, until)
}

func namesOf(db *batchlog.DB, keys [][]byte) ([]Conflict, error) {
	list := make([]Conflict, len(keys))
	for i, key := range keys {
		var err error
		if list[i].Space, list[i].Key, err = db.SplitStored(key); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// spacesMax is up to how many spaces a tail is asked for those alone.
const spacesMax = 32

// writersOf sets the ids of list, which is about keys.
func writersOf(ctx context.Context, db *batchlog.DB, keys [][]byte, list []Conflict, id, until batchlog.ID) error {
	if id > until {
		return nil
	}
	o := batchlog.TailOptions{From: batchlog.At(id), Until: until, Brief: true}
	for _, c := range list { // sorted by space
		if n := len(o.Spaces); n == 0 || string(o.Spaces[n-1].Stored()) != string(c.Space.Stored()) {
			o.Spaces = append(o.Spaces, c.Space)
		}
	}
	if len(o.Spaces) > spacesMax {
		o.Spaces = nil
	}
	for c, err := range db.Tail(ctx, o) {
		if err != nil {
			return err
		}
		if c.Chained() && !slices.ContainsFunc(c.Spans(), func(r batchlog.KeyRange) bool { return anyIn(keys, r.Low, r.High) }) {
			continue
		}
		err := c.EachStored(func(kind batchlog.OpKind, key, value []byte) error {
			if err := ended(ctx); err != nil {
				return err
			}
			i, _ := find(keys, key)
			for ; i < len(keys) && covers(kind, key, value, keys[i]); i++ {
				list[i].ID = c.ID
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("commit %d: %w", c.ID, err)
		}
	}
	return nil
}

// find is where key is among keys, which are sorted, or would be.
func find(keys [][]byte, key []byte) (int, bool) {
	return slices.BinarySearchFunc(keys, key, bytes.Compare)
}

func anyIn(keys [][]byte, low, high []byte) bool {
	i, _ := find(keys, low)
	return i < len(keys) && string(keys[i]) < string(high)
}

// covers reports whether an op is on a stored key.
func covers(kind batchlog.OpKind, key, value, on []byte) bool {
	if kind == batchlog.OpDeleteRange {
		return string(key) <= string(on) && string(on) < string(value)
	}
	return string(key) == string(on)
}

// ended is why ctx has ended, or nil.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}
