// Package undo takes commits back, and brings them back again. Every commit can be taken back, one of the last minute or of last year, alone or with
// those that built on it; what is needed for it, the commit's inverse, is kept by the engine where [batchlog.LogConfig.Undo] asks for it.
//
//	id, err := undo.Undo(ctx, db, 41, undo.Options{})  // commit id takes back commit 41
//	id, err = undo.Redo(ctx, db, 41, undo.Options{})   // and commit id takes that back
//	id, err = undo.To(ctx, db, 30, undo.Options{})     // all as it was at commit 30
//
// Nothing in the log is changed: whatever is taken back, brought back, or set to an earlier state is one new commit on top, which hooks, tasks and
// followers see like any other, and which can be taken back itself. Its labels say what it did (see [LabelUndo], [LabelRedo], [LabelTo]).
//
// A commit is taken back only if each key that it changed still holds what the commit has left there; else the [*ConflictError] names each key that does not, and the commit
// that wrote it since. Values are compared, not ids: a key that others changed and set back is no conflict.
//
// [Stack] is undo and redo as an editor has it, one for each of its users. [Show], [Diff] and [History] tell what commits have changed.
//
// What tasks derive follows its sources: it is never taken back by itself, and the cursors of tasks don't go back. The package stands on a
// [batchlog.DB] alone. All of its functions are safe for concurrent use.
package undo

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/bytespace/batchlog"
)

// The labels of the commits that this package makes.
const (
	LabelUndo  = "undo"       // the ids of the commits that were taken back, the newest first, with commas between
	LabelRedo  = "redo"       // the id of the undo that was taken back
	LabelTo    = "undo-to"    // the id of the commit whose state was brought back
	LabelSpace = "undo-space" // beside LabelTo: the space that it was brought back in; without it: all
)

// Options say how commits are taken back.
type Options struct {
	// Force takes back what still holds what the commit has left, and leaves the other keys as they are. Left is told which.
	Force bool
	// Cascade takes back the later commits as well that changed keys of those that are taken back, each with all of its keys. Not with Force.
	Cascade bool
	// Space is where To brings the earlier state back: in this space and all within it; nil: everywhere. Undo and Redo have none.
	Space *batchlog.Space
	// Token is for safe retries, as in batchlog.Batch: a commit with it that is in the log already is returned, and nothing is done.
	Token string
	// Labels are those of the new commit, besides the ones that this package sets.
	Labels map[string]string
	// Left is told of each key that Force has left as it is, in the order of keys, once the new commit is there; nil: nobody.
	Left func(Conflict)
	// Progress is told how far it is, some times a second, where the commit is so large that it takes a chain; nil: nobody. It must be quick.
	Progress func(batchlog.ChainProgress)
}

// Undo takes commit id back: one new commit puts back what each key had before that the commit has changed. It returns the new commit's id; when it does, the commit is as durable
// and as visible as after [batchlog.DB.Write]. A commit that has changed nothing is taken back by a commit without ops, which says so in its label.
//
// If a key no longer holds what commit id has left there, the error is a [*ConflictError] and nothing is written; to take a commit back twice is such a conflict. Options.Force and
// Options.Cascade are the ways out. Keys that were in a range which the commit has deleted, but had no value, were not changed by it.
//
// Memory is bounded to some 64 MiB whatever the size of the commit: a large one is taken back by a chain. A chain is tried again, some times, if others write between
// its keys; then the error is an [batchlog.ErrConflict] that is no *ConflictError. A cascade has to fit into a batch, else it is a [*batchlog.LimitError]: use [To].
//
// Other errors: [batchlog.ErrNotFound] if there is no such commit, [*batchlog.GapError] if the log no longer has it, [*batchlog.InverseError] if its inverse is
// not there, [batchlog.ErrPermission] for what tasks derive, and those of [batchlog.DB.Write] and [batchlog.Chain.Commit].
func Undo(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (batchlog.ID, error) {
	if err := o.check(true); err != nil {
		return 0, err
	}
	u := &undoing{db: db, id: id, o: o, labels: o.labels(LabelUndo, id.String())}
	return u.run(ctx)
}

// check returns what is wrong with o. undo says that it is not for To.
func (o *Options) check(undo bool) error {
	switch {
	case o.Force && o.Cascade:
		return fmt.Errorf("undo with both Force and Cascade, which leave and take the same keys: %w", batchlog.ErrUnsupported)
	case undo && o.Space != nil:
		return fmt.Errorf("undo of a commit in one space only: leave Options.Space nil, or use To: %w", batchlog.ErrUnsupported)
	case !undo && (o.Force || o.Cascade || o.Left != nil):
		return fmt.Errorf("return to a commit with Force, Cascade or Left: it has no conflicts: %w", batchlog.ErrUnsupported)
	}
	for _, name := range []string{LabelUndo, LabelRedo, LabelTo, LabelSpace} {
		if _, ok := o.Labels[name]; ok {
			return fmt.Errorf("label %q, which package undo sets itself: %w", name, batchlog.ErrUnsupported)
		}
	}
	return nil
}

// labels are those of the new commit.
func (o *Options) labels(name, value string) map[string]string {
	l := maps.Clone(o.Labels)
	if l == nil {
		l = map[string]string{}
	}
	l[name] = value
	return l
}

// An undoing is one commit being taken back.
type undoing struct {
	db     *batchlog.DB
	id     batchlog.ID
	o      Options
	labels map[string]string
	// at is asked, before each try, whether the commit is still to be taken back as of the commit base; nil: it is.
	at func(ctx context.Context, base batchlog.ID) error
	// idle is the token of the new commit if it has no ops, and so no conflict that would keep two of them apart. Options.Token wins.
	idle string
}

func (u *undoing) run(ctx context.Context) (batchlog.ID, error) {
	id, err := u.once(ctx)
	var conflict *ConflictError
	if errors.As(err, &conflict) && u.o.Token != "" {
		// The conflict may be with the very commit that the token stands for.
		if known, lookErr := findToken(ctx, u.db, u.id+1, u.o.Token); lookErr != nil || known != 0 {
			return known, lookErr
		}
	}
	var refused *batchlog.HookError
	if errors.Is(err, batchlog.ErrPermission) && !errors.As(err, &refused) {
		return 0, fmt.Errorf("undo of commit %d: %w; what a task derives follows when commits of its sources are taken back", u.id, err)
	}
	return id, err
}

func (u *undoing) once(ctx context.Context) (batchlog.ID, error) {
	t, err := load(ctx, u.db, u.id)
	if err != nil {
		return 0, err
	}
	if u.o.Cascade {
		return u.cascade(ctx)
	}
	small, fits, err := t.collect(ctx)
	switch {
	case err != nil:
		return 0, err
	case fits:
		return u.small(ctx, small)
	default:
		return u.large(ctx, t)
	}
}

// To brings back the state at commit id, in the whole database or in one space, as one commit, and returns its id. It has no conflicts: whatever was written since is taken back, also
// by others, until right before the new commit. What tasks derive is left to them. An id of 0 is the state before the first commit; that of the head makes a commit without ops.
//
// Memory is bounded; it takes the inverses of all commits since, a missing one is an [*batchlog.InverseError]. An id above the head is a [batchlog.ErrNotFound]. If
// others write faster than can be taken back it is an [batchlog.ErrConflict]. Other errors are those of [batchlog.Chain.Commit].
func To(ctx context.Context, db *batchlog.DB, id batchlog.ID, o Options) (_ batchlog.ID, err error) {
	if err := o.check(false); err != nil {
		return 0, err
	}
	s := db.Root()
	labels := o.labels(LabelTo, id.String())
	if o.Space != nil {
		if err := db.Owns(o.Space); err != nil {
			return 0, err
		}
		s = o.Space
		labels[LabelSpace] = s.String()
	}
	c, err := db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token, c.Labels, c.Progress = o.Token, labels, o.Progress
	if err := c.Revert(s, id); err != nil {
		return 0, err
	}
	return c.Commit(ctx)
}
