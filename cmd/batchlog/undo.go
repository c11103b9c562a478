package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

type undoFlags struct {
	writeFlags
	to      string
	space   string
	last    string
	force   bool
	cascade bool
	dryRun  bool
	given   func(flag string) bool
	redo    bool // it is redo
}

func newUndo(a *app) *cobra.Command {
	flags := undoFlags{}
	cmd := &cobra.Command{
		Use:   "undo ID | undo --to ID [--space SPACE] | undo --last NAME=VALUE",
		Short: "Take back a commit, or all since one",
		Long: `A new commit gives each key that commit ID has changed the value that it had before. Every key must still hold what the commit left there; else the
keys and who has changed them are listed, nothing is written, and the exit code is 4. --force takes back the keys that are unchanged, --cascade the
later commits on the same keys as well. --dry-run says what would be done.

With --to it brings back the state at commit ID, of all spaces or of one and those within it, whatever was changed since. With --last it takes back the newest commit
with that label that is not taken back yet, as an editor's undo does; redo --last brings it back.

It works for commits that were made while undo was on: space configure / --undo. undo backfill adds older ones. Blobs come back, too.`,
		Example: `  batchlog undo 17
  batchlog undo 17 --dry-run
  batchlog undo 17 --cascade --label why=mistake
  batchlog undo --to 12
  batchlog undo --to 12 --space users --json
  batchlog undo --last actor=ada`,
		Args: takes(0, 1),
	}
	flags.given = cmd.Flags().Changed
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		if flags.given("to") {
			return a.undoTo(ctx, args, flags)
		}
		return a.undo(ctx, args, flags)
	})
	cmd.Flags().StringVar(&flags.to, "to", "", "bring back the state at commit `ID`; 0: that before the first one")
	cmd.Flags().StringVar(&flags.space, "space", "", "with --to: only `SPACE` and the spaces within it")
	flags.add(cmd)
	cmd.AddCommand(newBackfill(a))
	return cmd
}

func newRedo(a *app) *cobra.Command {
	flags := undoFlags{redo: true}
	cmd := &cobra.Command{
		Use:   "redo ID | redo --last NAME=VALUE",
		Short: "Take back an undo",
		Long: `ID is that of the undo, or of the commit that it took back. In all else it is as undo. With --last it takes back the newest undo of the commits with
that label, unless a commit with the label has come since.`,
		Example: `  batchlog redo 17 --dry-run
  batchlog redo 17
  batchlog redo --last actor=ada`,
		Args: takes(0, 1),
	}
	flags.given = cmd.Flags().Changed
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error { return a.undo(ctx, args, flags) })
	flags.add(cmd)
	return cmd
}

func (f *undoFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.last, "last", "", "the newest commit with the label `NAME=VALUE`")
	cmd.Flags().BoolVar(&f.force, "force", false, "take back the keys that were not changed since, and list the others")
	cmd.Flags().BoolVar(&f.cascade, "cascade", false, "take back the later commits that have changed the same keys as well")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and do nothing")
	f.writeFlags.add(cmd)
}

// An undoneJSON is what undo and redo --json print.
type undoneJSON struct {
	ID   batchlog.ID    `json:"id"` // of the new commit
	Keys int            `json:"keys"`
	Left []conflictJSON `json:"left,omitempty"` // with --force
}

type conflictJSON struct {
	Space string       `json:"space"`
	Key   batchlog.Key `json:"key"`
	ID    batchlog.ID  `json:"id"` // who has changed it
}

// A previewJSON is what --dry-run --json prints.
type previewJSON struct {
	Commits   []batchlog.ID  `json:"commits"` // that would be taken back, newest first
	Keys      int            `json:"keys"`
	Conflicts []conflictJSON `json:"conflicts"`
	More      int            `json:"more,omitempty"` // conflicts that are not listed
}

func conflictsJSON(conflicts []undo.Conflict) []conflictJSON {
	all := []conflictJSON{}
	for _, c := range conflicts {
		all = append(all, conflictJSON{c.Space.String(), c.Key, c.ID})
	}
	return all
}

func (a *app) undo(ctx context.Context, args []string, flags undoFlags) error {
	switch {
	case flags.given("last") == (len(args) == 1):
		return usagef("it takes an ID or --last")
	case flags.given("space"):
		return usagef("--space goes with --to")
	case flags.force && flags.cascade:
		return usagef("--force and --cascade don't go together")
	case flags.given("last"):
		return a.undoLast(ctx, flags)
	}
	id, err := parseID(args[0])
	if err != nil {
		return err
	}
	o := undo.Options{Force: flags.force, Cascade: flags.cascade, Token: flags.token}
	if o.Labels, err = parseLabels(flags.labels); err != nil {
		return err
	}
	return a.withDB(false, func(db *local.DB) error {
		if flags.dryRun {
			return a.previewUndo(ctx, db, id, o, flags.redo)
		}
		var left []undo.Conflict
		o.Left = func(c undo.Conflict) { left = append(left, c) }
		stages := &stageMeter{meters: a.meters()}
		defer stages.end()
		o.Progress = stages.chain
		take := undo.Undo
		if flags.redo {
			take = undo.Redo
		}
		done, err := take(ctx, db.DB, id, o)
		stages.end()
		if err != nil {
			return a.undoError(ctx, err)
		}
		return a.printUndone(ctx, db, done, left)
	})
}

// undoError is err with what to do next; the keys of a conflict are listed on stderr.
func (a *app) undoError(ctx context.Context, err error) error {
	var conflict *undo.ConflictError
	switch {
	case errors.As(err, &conflict):
		const most = 20
		var hint strings.Builder
		for i, c := range conflict.Conflicts {
			if len(conflict.Conflicts) == 1 { // the message has it
				break
			}
			if i == most {
				fmt.Fprintf(&hint, "and %s more\n", counted(len(conflict.Conflicts)-most+conflict.More, "key"))
				break
			}
			fmt.Fprintf(&hint, "%s\n", printable(c.String()))
		}
		fmt.Fprintf(&hint, "batchlog show ID%s tells what a commit has changed; --cascade takes the later ones back as well, --force leaves their keys as they are", a.dbFlag())
		return &hintedError{err, hint.String()}
	case errors.Is(err, batchlog.ErrNoInverse):
		return &hintedError{interruption(ctx, err), fmt.Sprintf("batchlog space configure / --undo%s has it kept from now on; batchlog undo backfill%s adds older commits, as far as the log goes back", a.dbFlag(), a.dbFlag())}
	}
	return interruption(ctx, err)
}

func (a *app) printUndone(ctx context.Context, db *local.DB, id batchlog.ID, left []undo.Conflict) error {
	c, err := undo.Commit(ctx, db.DB, id)
	if err != nil {
		return fmt.Errorf("it is commit %d, and durable; count its keys: %w", id, interruption(ctx, err))
	}
	if a.json {
		return a.printJSON(undoneJSON{ID: id, Keys: c.Len(), Left: conflictsJSON(left)})
	}
	text := fmt.Sprintf("commit %d: %s\n", id, counted(c.Len(), "key"))
	for _, l := range left {
		text += "left as it is: " + printable(l.String()) + "\n"
	}
	_, err = a.out.WriteString(text)
	return err
}

func (a *app) previewUndo(ctx context.Context, db *local.DB, id batchlog.ID, o undo.Options, redo bool) error {
	preview := undo.PreviewUndo
	if redo {
		preview = undo.PreviewRedo
	}
	p, err := preview(ctx, db.DB, id, o)
	if err != nil {
		return a.undoError(ctx, err)
	}
	if a.json {
		return a.printJSON(previewJSON{p.Commits, p.Keys, conflictsJSON(p.Conflicts), p.More})
	}
	text := "would take back commit"
	if len(p.Commits) > 1 {
		text += "s"
	}
	for i, id := range p.Commits {
		if i > 0 {
			text += ","
		}
		text += " " + id.String()
	}
	text += ": " + counted(p.Keys, "key") + "\n"
	for _, c := range p.Conflicts {
		text += "changed since: " + printable(c.String()) + "\n"
	}
	if p.More > 0 {
		text += "and " + counted(p.More, "more key") + "\n"
	}
	if len(p.Conflicts) > 0 && !o.Force {
		text += "so it would be refused; --force leaves these keys as they are, --cascade takes back who has changed them\n"
	}
	_, err = a.out.WriteString(text)
	return err
}

// undoLast takes back the newest commit with a label.
func (a *app) undoLast(ctx context.Context, flags undoFlags) error {
	name, value, ok := strings.Cut(flags.last, "=")
	if !ok || name == "" {
		return usagef("--last %s is no NAME=VALUE", flags.last)
	}
	if flags.force || flags.cascade || len(flags.labels) > 0 || flags.token != "" {
		return usagef("--last goes with --dry-run alone")
	}
	return a.withDB(false, func(db *local.DB) error {
		s := undo.Stack(db.DB, name, value)
		what, step := "undo", s.Undo
		if flags.redo {
			what, step = "redo", s.Redo
		}
		if flags.dryRun {
			next, again, err := s.Next(ctx)
			if err != nil {
				return interruption(ctx, err)
			}
			if flags.redo {
				next = again
			}
			if next != 0 {
				return a.previewUndo(ctx, db, next, undo.Options{}, false)
			}
			return &notFoundError{fmt.Sprintf("nothing to %s for %s", what, printable(flags.last))}
		}
		id, err := step(ctx)
		if errors.Is(err, undo.ErrNothing) {
			return &notFoundError{fmt.Sprintf("nothing to %s for %s", what, printable(flags.last))}
		}
		if err != nil {
			return a.undoError(ctx, err)
		}
		return a.printUndone(ctx, db, id, nil)
	})
}

// undoTo brings back a state.
func (a *app) undoTo(ctx context.Context, args []string, flags undoFlags) error {
	if len(args) > 0 || flags.given("last") || flags.force || flags.cascade {
		return usagef("--to goes with --space, --dry-run, --label and --token alone")
	}
	id, err := parseID(flags.to)
	if err != nil {
		return err
	}
	path, err := pathArg("/")
	if flags.given("space") {
		path, err = pathArg(flags.space)
	}
	if err != nil {
		return err
	}
	labels, err := parseLabels(flags.labels)
	if err != nil {
		return err
	}
	return a.withDB(false, func(db *local.DB) error {
		s := db.Space(path...)
		if flags.dryRun {
			return a.previewTo(ctx, db, id, s)
		}
		stages := &stageMeter{meters: a.meters()}
		defer stages.end()
		done, err := undo.To(ctx, db.DB, id, undo.Options{Space: s, Token: flags.token, Labels: labels, Progress: stages.chain})
		stages.end()
		if err != nil {
			return a.undoError(ctx, err)
		}
		return a.printUndone(ctx, db, done, nil)
	})
}

func (a *app) previewTo(ctx context.Context, db *local.DB, id batchlog.ID, s *batchlog.Space) error {
	head, err := db.Head(ctx)
	if err != nil {
		return err
	}
	changes, err := undo.Diff(ctx, db.DB, head, id, s)
	if err != nil {
		return a.undoError(ctx, err)
	}
	if a.json {
		return a.printJSON(struct {
			Keys int `json:"keys"`
		}{len(changes)})
	}
	_, err = fmt.Fprintf(a.out, "would bring %s back to what they were at commit %d; batchlog diff %d %d shows them\n", counted(len(changes), "key"), id, head, id)
	return err
}

func newBackfill(a *app) *cobra.Command {
	var limit byteSize
	cmd := &cobra.Command{
		Use:   "backfill",
		Short: "Have commits from before undo was on be taken back, too",
		Long: `The log is applied once more, from commit 1 on, to a store beside the database's own, which says what each commit has overwritten. It can be interrupted,
and goes on where it was. The log must go back to commit 1.`,
		Example: `  batchlog undo backfill`,
		Args:    takes(0, 0),
	}
	cmd.RunE = a.runs(func(ctx context.Context, _ []string) error {
		return a.withDB(false, func(db *local.DB) error {
			stages := &stageMeter{meters: a.meters()}
			defer stages.end()
			err := db.Backfill(ctx, batchlog.BackfillOptions{Limit: int64(limit), Progress: func(p batchlog.BackfillProgress) {
				stages.set("replay", "commits", int64(p.Replayed), int64(p.Until), 0)
			}})
			if err != nil {
				return interruption(ctx, err)
			}
			stages.end()
			s, err := db.Status(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s.Undo)
			}
			_, err = fmt.Fprintf(a.out, "undo %s\n", undoText(s))
			return err
		})
	})
	cmd.Flags().Var(&limit, "limit", "what is kept of one commit at most, as 4GiB; 0: whatever it is")
	return cmd
}
