package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

func newImport(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "import",
		Short:   "Load what is elsewhere: lines of JSON, CSV, a git history",
		Long:    `See batchlog import ndjson --help, import csv --help and import git --help.`,
		Example: `  batchlog import git repo`,
		Args:    cobra.ArbitraryArgs,
		RunE:    group,
	}
	cmd.AddCommand(newImportGit(a), newImportNDJSON(a), newImportCSV(a))
	return cmd
}

func newImportGit(a *app) *cobra.Command {
	var (
		plan    importPlan
		name    string
		maxBlob byteSize
	)
	cmd := &cobra.Command{
		Use:   "git [REPO]",
		Short: "Load the history of a git repository, each commit as one batch",
		Long: `REPO is a repository or a directory within one; without it, the repository one stands in. It is only read. NAME is the base name
of its directory, or --name. Each git commit becomes one batch with author, time and hash as labels, and leaves its tree in

  git/NAME/files     path → content; of a symbolic link, its target
  git/NAME/modes     path → 100644, 100755, 120000; 160000 HASH for a submodule, which has no content
  git/NAME/commits   hash → author, time, subject, parents … as JSON

A path that is not UTF-8 is a key of bytes: {"$bytes":"base64"}.

Without --all the commits are REV and its first parents, the oldest first. With --all they are all that any ref reaches, parents before
children; what a batch changes is then counted from the commit imported before it, so that git/NAME/files always is the tree of the last.

It can be stopped at any moment and run again, also after the repository has grown: it goes on where it stopped and imports
nothing twice. If that commit is no longer in the history (it was rewritten, or REV is another branch) it says so and does nothing.
A git commit must fit into a batch, 64 MiB of changes; --max-blob leaves larger blobs out and keeps their hashes in git/NAME/omitted.

With --atomic all the commits that are not there yet become one commit, a chain of any size, with the labels of the newest: all of it shows at once, or
nothing if it is stopped. Keys and values are the same as without. But the log then has their net effect, so who follows it sees one commit and no
history: what a file was before is not in it, and tasks that count git commits by their log's commits see one. git/NAME/commits has all of them.`,
		Example: `  batchlog import git repo
  batchlog import git repo --rev v1.0 --name released
  batchlog import git repo --all --name everything --limit 1000
  batchlog import git repo --atomic --name at-once`,
		Args: takes(0, 1),
	}
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		plan.MaxBlob = int64(maxBlob)
		if plan.All && cmd.Flags().Changed("rev") {
			return usagef("--rev and --all exclude each other")
		}
		if plan.Limit < 0 {
			return usagef("--limit %d is negative", plan.Limit)
		}
		return a.importGit(ctx, repoArg(args), name, plan)
	})
	cmd.Flags().StringVar(&plan.Rev, "rev", "HEAD", "the commit, tag or branch `REV` with its first parents")
	cmd.Flags().BoolVar(&plan.All, "all", false, "all commits that any ref reaches")
	cmd.Flags().StringVar(&name, "name", "", "`NAME` in the space git/NAME, instead of that of the repository's directory")
	cmd.Flags().Int64Var(&plan.Limit, "limit", 0, "stop after `N` commits; run it again to go on. 0: all")
	cmd.Flags().BoolVar(&plan.Atomic, "atomic", false, "load all as one commit")
	cmd.Flags().Var(&maxBlob, "max-blob", "leave out the content of larger blobs, as 10MB; 0: of none")
	return cmd
}

func repoArg(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

func (a *app) importGit(ctx context.Context, dir, name string, plan importPlan) error {
	repo, err := openRepo(ctx, dir)
	if err != nil {
		return interruption(ctx, err)
	}
	if name == "" {
		name = repo.name
	}
	// An empty or unknown history must not leave an empty database behind.
	if err := repo.has(ctx, plan); err != nil {
		return interruption(ctx, err)
	}
	return a.withDB(true, func(db *local.DB) error {
		store, err := newGitStore(db.DB, name)
		if err != nil {
			return err
		}
		im := &importer{repo: repo, store: store, plan: plan, meter: a.importMeter()}
		stages := a.importStages()
		im.progress = stages.chain
		r, err := im.run(ctx)
		stages.end()
		if err != nil {
			return importStopped(r, interruption(ctx, err))
		}
		if a.json {
			return a.printJSON(r)
		}
		_, err = a.out.WriteString(r.text())
		return err
	})
}

// importMeter shows how far an import is; it is long work also where no terminal is.
func (a *app) importMeter() func(total int64) *meter {
	return func(total int64) *meter { return newMeter(a.err, a.errTerm, "import", "commits", total) }
}

// importStages shows how far the chain of an import is.
func (a *app) importStages() *stageMeter {
	return &stageMeter{meters: func(label, unit string, total int64) *meter { return newMeter(a.err, a.errTerm, label, unit, total) }}
}

// importStopped is err with what was done before it.
func importStopped(r importResult, err error) error {
	done := "nothing was imported"
	if r.Commits > 0 {
		done = fmt.Sprintf("%s imported (ids %d to %d), %s left", counted(r.Commits, "commit"), r.First, r.Last, countText(r.Left))
	}
	var interrupt *interruptError
	if errors.As(err, &interrupt) {
		return fmt.Errorf("%w: %s; run it again to go on", err, done)
	}
	if r.Commits > 0 {
		return fmt.Errorf("%s; then: %w", done, err)
	}
	return err
}

// idsText is a stretch of ids for people.
func idsText(first, last batchlog.ID) string {
	if first == last {
		return fmt.Sprintf("id %d", first)
	}
	return fmt.Sprintf("ids %d to %d", first, last)
}

// text is r for people.
func (r *importResult) text() string {
	if r.Commits == 0 {
		return fmt.Sprintf("%s is up to date: %s, the newest is git commit %s\n", r.Space, counted(r.Total, "commit"), r.Hash)
	}
	text := fmt.Sprintf("imported %s of %s into %s in %.1f s: %s, %s, %s; %s commits/s\n", counted(r.Commits, "commit"), r.Repo, r.Space,
		r.Seconds, idsText(r.First, r.Last), counted(r.Ops, "op"), bytesText(r.Bytes), rateText(float64(r.Commits)/r.Seconds))
	if r.Left > 0 {
		text += fmt.Sprintf("%s left; run it again to go on\n", counted(r.Left, "commit"))
	}
	return text
}
