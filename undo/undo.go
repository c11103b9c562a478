// Package undo takes commits back. What a commit has overwritten is kept where the log's settings ask for it (batchlog.LogConfig.Undo), after the fact,
// so that no writer waits for it. To take a commit back is a commit of its own: durable, followed by tails and tasks, seen by hooks, and can be
// taken back itself.
//
//	id, err := undo.Undo(ctx, db, 17, undo.Options{})
//	var conflict *undo.ConflictError
//	if errors.As(err, &conflict) {
//		for _, c := range conflict.Conflicts { … c.Space, c.Key, c.ID }
//	}
//
// It stands on the engine's batchlog.Undoer, and works wherever that does.
package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/bytespace/batchlog"
)

// Options say how commits are taken back. The zero value is strict.
type Options struct {
	// Force takes back the keys that still hold what the commit left, and leaves the others as they are. If there is none of the former, the error is the
	// *ConflictError all the same. Of a large commit it leaves up to 100,000 keys; with more it is a *batchlog.LimitError.
	Force bool
	// Left is told of the keys that Force has left as they are, after the commit; nil: nobody.
	Left func(Conflict)
	// Cascade takes back the later commits that have changed the same keys as well, and those that have changed theirs, as one commit. Not with Force.
	Cascade bool
	// Space is what To is about: its own keys and all spaces within it; nil: all.
	Space *batchlog.Space

	Token    string                       // of the new commit, as in batchlog.Batch
	Labels   map[string]string            // of the new commit, beside those of this package
	Progress func(batchlog.ChainProgress) // told how far the work is, where it is large; nil: nobody
}

// The labels that say what a commit takes back. Values are ids, in decimal.
const (
	LabelUndo = "undo"    // the commits that it takes back, newest first, separated by commas; "…" stands for more than fit, before the last
	LabelRedo = "redo"    // the undo that it takes back
	LabelTo   = "undo-to" // the commit whose state it brings back
)

// labelBytes bounds the value of LabelUndo.
const labelBytes = 4 << 10

var (
	errForceCascade = fmt.Errorf("undo with both Force and Cascade: %w", batchlog.ErrUnsupported)
	errUndoSpace    = fmt.Errorf("undo of a commit in one space only: %w; Space is for To", batchlog.ErrUnsupported)
)

func (o *Options) check() error {
	switch {
	case o.Force && o.Cascade:
		return errForceCascade
	case o.Space != nil:
		return errUndoSpace
	}
	return nil
}

// labels are those of a commit that takes something back.
func (o *Options) labels(name, value string) map[string]string {
	all := maps.Clone(o.Labels)
	if all == nil {
		all = map[string]string{}
	}
	for _, own := range []string{LabelUndo, LabelRedo, LabelTo} {
		delete(all, own) // what they say must be true
	}
	all[name] = value
	return all
}

func idsText(ids []batchlog.ID) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		if b.Len() > labelBytes && i < len(ids)-1 {
			b.WriteString("…,")
			b.WriteString(ids[len(ids)-1].String()) // the one that was asked for, by which it is found again
			break
		}
		b.WriteString(id.String())
	}
	return b.String()
}

// Undo takes back a commit: a new commit, whose id it returns, gives every key that the commit changed the value that it had before. It waits until the commit is applied.
//
// Every key must still hold what the commit left there; else nothing is written, and the error is a *[ConflictError] with each key that does not, and the
// commit that changed it. Keys in a range that the commit deleted and that had no value before are none that it changed. See [Options] for other ways. An undo of a commit that
// changed nothing is a commit without ops. What was read is validated as in DB.Update. Any number of keys may be concerned: what does not fit into a batch is committed as a chain.
//
// Other errors: *batchlog.InverseError if what it has overwritten is not known, ErrNotFound if there is no such commit, *batchlog.GapError if the log no longer has it,
// ErrPermission if it wrote in a space that a task derives (take back what it was derived from), and those of DB.Write.
func Undo(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (batchlog.ID, error) {
	if err := o.check(); err != nil {
		return 0, err
	}
	done, err := undo(ctx, db, id, o, how{})
	if err != nil {
		return retried(ctx, db, id, o.Token, err)
	}
	return done, nil
}

// how is what Redo and stacks ask for beside the options.
type how struct {
	redo bool // it is a redo, which its label says
	// check is asked, in each try, whether the commit is still to be taken back as of commit base; nil: it is. The commit is made only if nothing that the
	// undo depends on is written after base.
	check func(ctx context.Context, base batchlog.ID) error
	// idle is the token, without one in the options, of a commit that has no ops: nothing that it depends on keeps two of them apart.
	idle string
}

// undo is Undo, in some way.
func undo(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options, h how) (done batchlog.ID, err error) {
	defer func() {
		if err != nil {
			err = undoError(id, err)
		}
	}()
	t, err := load(ctx, db, id)
	if err != nil {
		return 0, err
	}
	t.how = h
	if o.Cascade {
		return t.cascade(ctx, o)
	}
	name := LabelUndo
	if h.redo {
		name = LabelRedo
	}
	if t.large {
		return t.undoLarge(ctx, o, o.labels(name, id.String()))
	}
	return t.undoSmall(ctx, o, o.labels(name, id.String()))
}

// undoError is err with what was to be taken back.
func undoError(id batchlog.ID, err error) error {
	if conflict := (*ConflictError)(nil); errors.As(err, &conflict) {
		return err
	}
	if errors.Is(err, batchlog.ErrPermission) {
		return fmt.Errorf("take back commit %d: %w; tasks follow when what they derive it from is taken back", id, err)
	}
	return fmt.Errorf("take back commit %d: %w", id, err)
}

// A taking is a commit that is to be taken back.
type taking struct {
	db      *batchlog.DB
	id      batchlog.ID
	commit  *batchlog.Commit
	changes []change // in the order of keys; some of them only if large
	large   bool
	how     how
}

// check reports whether the commit is still to be taken back.
func (t *taking) check(ctx context.Context, base batchlog.ID) error {
	if t.how.check == nil {
		return nil
	}
	return t.how.check(ctx, base)
}

// A change is what a commit has done to a key.
type change struct {
	key       []byte // stored
	old, left []byte // stored values, before and after it; nil: none
}

// smallKeys and smallBytes are up to how much is taken back by a transaction. More makes a chain. Tests have less.
var (
	smallKeys  = 100_000
	smallBytes = 16 << 20
)

// load reads what a commit has changed, if it is not too much.
func load(ctx context.Context, db *batchlog.DB, id batchlog.ID) (*taking, error) {
	t := &taking{db: db, id: id}
	size := 0
	err := eachInverse(ctx, db, id, func(key, old []byte) error {
		if size += len(key) + len(old); size > smallBytes || len(t.changes) >= smallKeys {
			t.large = true
			return errEnough
		}
		t.changes = append(t.changes, change{key: key, old: old})
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if t.commit, err = commitAt(ctx, db, id); err != nil || t.large {
		return t, err
	}
	return t, findLeft(ctx, t.commit, t.changes, func(c *change, left []byte) error {
		c.left = left
		return nil
	})
}

var errEnough = errors.New("enough")

// eachInverse calls visit for each key that a commit has changed, in the order of keys; old is nil if it had no value. What it is given stays valid.
func eachInverse(ctx context.Context, db *batchlog.DB, id batchlog.ID, visit func(key, old []byte) error) (err error) {
	r, err := db.Inverse(ctx, id)
	if err != nil {
		return err
	}
	return eachOp(r, func(kind batchlog.OpKind, key, value []byte) error {
		if kind == batchlog.OpDelete {
			return visit(key, nil)
		}
		return visit(key, present(value))
	})
}

// present is a value that is not nil.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// same reports whether two values are, or both are none.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// commitAt reads one commit from the log.
func commitAt(ctx context.Context, db *batchlog.DB, id batchlog.ID) (*batchlog.Commit, error) {
	head, err := db.Head(ctx)
	if err != nil {
		return nil, err
	}
	if id == 0 || id > head {
		return nil, fmt.Errorf("commit %d of 1 to %d: %w", id, head, batchlog.ErrNotFound)
	}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(id), Until: id}) {
		return c, err
	}
	return nil, fmt.Errorf("commit %d: %w", id, batchlog.ErrNotFound)
}

// findLeft finds what a commit has left under each of some keys that it changed, and hands it to set, nil for none: of a key again for each op on it. It shares
// memory with the commit.
func findLeft(ctx context.Context, c *batchlog.Commit, changes []change, set func(c *change, left []byte) error) error {
	keys := keyed(changes)
	return c.Inside().EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		if err := ended(ctx); err != nil {
			return err
		}
		switch kind {
		case batchlog.OpPut:
			if i, ok := keys.find(key); ok {
				return set(&changes[i], present(value))
			}
		case batchlog.OpDelete:
			if i, ok := keys.find(key); ok {
				return set(&changes[i], nil)
			}
		case batchlog.OpDeleteRange:
			for i := keys.from(key); i < len(changes) && bytes.Compare(changes[i].key, value) < 0; i++ {
				if err := set(&changes[i], nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// undoSmall takes the commit back by a transaction.
func (t *taking) undoSmall(ctx context.Context, o Options, labels map[string]string) (batchlog.ID, error) {
	var conflicts []change
	var base batchlog.ID
	if len(t.changes) == 0 {
		if o.Token == "" {
			o.Token = t.how.idle
		}
		return t.db.Write(ctx, &batchlog.Batch{Token: o.Token, Labels: labels})
	}
	id, err := t.db.Update(ctx, func(tx *batchlog.Tx) error {
		var err error
		base = tx.Base()
		if err := t.check(ctx, base); err != nil {
			return err
		}
		if conflicts, err = t.compare(tx.Inside().Get); err != nil {
			return err
		}
		if len(conflicts) == len(t.changes) || len(conflicts) > 0 && !o.Force {
			return errConflicts
		}
		skip := conflicts
		for _, c := range t.changes {
			if len(skip) > 0 && bytes.Equal(skip[0].key, c.key) {
				skip = skip[1:]
				continue
			}
			putBack(tx.Inside(), c)
		}
		setLabels(tx, o.Token, labels)
		return nil
	})
	if errors.Is(err, errConflicts) {
		return 0, t.conflictError(ctx, base, conflicts, 0)
	}
	if err != nil || len(conflicts) == 0 || o.Left == nil {
		return id, err
	}
	return id, t.tellLeft(ctx, id, base, conflicts, o.Left)
}

// tellLeft tells which keys commit id, which was made at base, has left as they are.
func (t *taking) tellLeft(ctx context.Context, id, base batchlog.ID, changes []change, tell func(Conflict)) error {
	conflicts, err := t.conflicts(ctx, base, changes)
	if err != nil {
		return fmt.Errorf("commit %d is made; which commits changed the keys that it has left is not known: %w", id, err)
	}
	for _, c := range conflicts {
		tell(c)
	}
	return nil
}

// errConflicts ends a transaction whose conflicts are to be told.
var errConflicts = errors.New("conflicts")

// compare finds the changes whose keys do not hold any more what the commit left.
func (t *taking) compare(get func(key []byte) ([]byte, error)) (conflicts []change, err error) {
	for _, c := range t.changes {
		now, err := get(c.key)
		switch {
		case errors.Is(err, batchlog.ErrNotFound):
			now = nil
		case err != nil:
			return nil, err
		default:
			now = present(now)
		}
		if !same(now, c.left) {
			conflicts = append(conflicts, c)
		}
	}
	return conflicts, nil
}

// A writer is a transaction or a chain.
type writer interface {
	Put(key, value []byte)
	Delete(key []byte)
}

// putBack gives a key its old value.
func putBack(w writer, c change) {
	if c.old == nil {
		w.Delete(c.key)
	} else {
		w.Put(c.key, c.old)
	}
}

func setLabels(tx *batchlog.Tx, token string, labels map[string]string) {
	tx.SetToken(token)
	for name, value := range labels {
		tx.SetLabel(name, value)
	}
}
