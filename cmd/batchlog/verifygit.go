package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
	"github.com/bytespace/batchlog/local"
)

func newVerifyGit(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "git [REPO]",
		Short: "Compare an imported history with its git repository",
		Long: `At the newest imported commit, path, mode and blob hash of every file must equal git ls-tree -r of that commit in REPO. The
hash is computed from the value in the store; of blobs that --max-blob left out it is the one kept, which is told. Differences are listed, with
exit code 1; a history that was not imported is exit code 3.`,
		Example: `  batchlog verify git repo
  batchlog verify git repo --name released --json`,
		Args: takes(0, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error { return a.verifyGit(ctx, repoArg(args), name) }),
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` in the space git/NAME, instead of that of the repository's directory")
	return cmd
}

func (a *app) verifyGit(ctx context.Context, dir, name string) error {
	repo, err := openRepo(ctx, dir)
	if err != nil {
		return interruption(ctx, err)
	}
	if name == "" {
		name = repo.name
	}
	return a.withDB(false, func(db *local.DB) error {
		store, err := newGitStore(db.DB, name)
		if err != nil {
			return err
		}
		c, err := compareGit(ctx, repo, store, a.meters())
		if err != nil {
			return interruption(ctx, err)
		}
		if a.json {
			err = a.printJSON(c)
		} else {
			_, err = a.out.WriteString(c.text())
		}
		if err == nil && !c.Equal {
			err = &differenceError{what: fmt.Sprintf("%s from git found", counted(len(c.Differences), "difference"))}
		}
		return err
	})
}

// A comparison is what comparing the store with git has found.
type comparison struct {
	Repo        string       `json:"repo"`
	Space       string       `json:"space"`
	Commit      string       `json:"commit"` // at which they were compared
	Equal       bool         `json:"equal"`
	Files       int64        `json:"files"`                // whose hash was computed
	Bytes       int64        `json:"bytes"`                // of their contents
	Submodules  int64        `json:"submodules,omitempty"` // of which the commit was compared
	Omitted     int64        `json:"omitted,omitempty"`    // whose hash could only be looked up, as --max-blob left them out
	Differences []difference `json:"differences"`
}

// A difference is one path on which the store and git do not agree.
type difference struct {
	Path  string `json:"path"`
	What  string `json:"what"`            // "mode", "content", "omitted", or "path" if one of them does not have it
	Git   string `json:"git,omitempty"`   // what git has: mode or hash
	Store string `json:"store,omitempty"` // what the store has
}

// A comparer collects what it finds.
type comparer struct {
	comparison
	repo  *repo
	store *gitStore
	want  map[string]treeEntry // by path
	modes map[string]bool      // paths that modes has
	found map[string]bool      // paths that files or omitted has
}

// compareGit compares the store at one moment with the tree of the newest commit in it.
func compareGit(ctx context.Context, r *repo, store *gitStore, meters func(label, unit string, total int64) *meter) (comparison, error) {
	c := &comparer{
		comparison: comparison{Repo: r.dir, Space: store.String(), Differences: []difference{}},
		repo:       r, store: store,
		want: map[string]treeEntry{}, modes: map[string]bool{}, found: map[string]bool{},
	}
	view, err := store.db.View(ctx)
	if err != nil {
		return c.comparison, err
	}
	defer view.Close()
	head, err := store.head(view)
	if err != nil {
		return c.comparison, err
	}
	if head.Hash == "" {
		return c.comparison, &notFoundError{what: fmt.Sprintf("no history in %s; load it with batchlog import git %s, or name it with --name", store, shellWord(r.dir))}
	}
	c.Commit = head.Hash
	if _, err := r.resolve(ctx, head.Hash); err != nil {
		return c.comparison, fmt.Errorf("newest commit in %s: %w", store, err)
	}
	for e, err := range r.tree(ctx, head.Hash) {
		if err != nil {
			return c.comparison, err
		}
		c.want[e.path] = e
	}
	m := meters("compare", "files", int64(len(c.want)))
	defer m.end()
	for _, pass := range []struct {
		space *batchlog.Space
		take  func(path string, value []byte) error
	}{{store.modes, c.takeMode}, {store.omitted, c.takeOmitted}, {store.files, c.takeFile}} {
		for e, err := range view.Scan(pass.space, batchlog.Range{}) {
			if ctx.Err() != nil {
				return c.comparison, context.Cause(ctx)
			}
			if err != nil {
				return c.comparison, err
			}
			path, err := history.Path(e.Key)
			if err != nil {
				c.differ(e.Key.String(), "path", "", "a key that is no path")
				continue
			}
			if err := pass.take(path, e.Value); err != nil {
				return c.comparison, err
			}
			m.set(c.Files, c.Bytes)
		}
	}
	c.missing()
	slices.SortStableFunc(c.Differences, func(x, y difference) int { return cmp.Compare(x.Path, y.Path) })
	c.Equal = len(c.Differences) == 0
	return c.comparison, nil
}

func (c *comparer) differ(path, what, git, store string) {
	c.Differences = append(c.Differences, difference{Path: strings.ToValidUTF8(path, "\ufffd"), What: what, Git: git, Store: store})
}

func (c *comparer) takeMode(path string, value []byte) error {
	c.modes[path] = true
	e, ok := c.want[path]
	mode, hash, submodule := strings.Cut(string(value), " ")
	switch {
	case !ok:
		c.differ(path, "path", "", "mode "+string(value))
	case mode != e.mode || submodule != (mode == modeSubmodule):
		c.differ(path, "mode", e.mode, string(value))
	case submodule:
		c.Submodules++
		if hash != e.hash {
			c.differ(path, "content", e.hash, hash)
		}
	}
	return nil
}

func (c *comparer) takeFile(path string, value []byte) error {
	c.Files++
	c.Bytes += int64(len(value))
	e, ok := c.want[path]
	switch {
	case c.found[path]:
		c.differ(path, "content", e.hash, "both a content and an omitted one")
	case !ok || e.mode == modeSubmodule:
		c.differ(path, "path", e.mode, "a content")
	default:
		if hash := c.repo.blobHash(value); hash != e.hash {
			c.differ(path, "content", e.hash, hash)
		}
	}
	c.found[path] = true
	return nil
}

func (c *comparer) takeOmitted(path string, value []byte) error {
	var blob omittedBlob
	if err := json.Unmarshal(value, &blob); err != nil {
		return fmt.Errorf("%s %q: %w", c.store.omitted, path, err)
	}
	c.Omitted++
	e, ok := c.want[path]
	switch {
	case !ok || e.mode == modeSubmodule:
		c.differ(path, "path", e.mode, "an omitted content")
	case blob.Hash != e.hash:
		c.differ(path, "omitted", e.hash, blob.Hash)
	}
	c.found[path] = true
	return nil
}

// missing finds what git has and the store has not.
func (c *comparer) missing() {
	for path, e := range c.want {
		switch {
		case !c.modes[path] && !c.found[path]:
			c.differ(path, "path", e.mode+" "+e.hash, "")
		case !c.modes[path]:
			c.differ(path, "mode", e.mode, "")
		case e.mode != modeSubmodule && !c.found[path]:
			c.differ(path, "content", e.hash, "")
		}
	}
}

// differencesShown bounds what text lists; --json lists all.
const differencesShown = 50

// text is c for people.
func (c *comparison) text() string {
	text := fmt.Sprintf("%s at git commit %s: %s of %s compared with %s", c.Space, c.Commit, counted(c.Files, "file"), bytesText(c.Bytes), c.Repo)
	if c.Submodules > 0 {
		text += ", " + counted(c.Submodules, "submodule")
	}
	text += "\n"
	if c.Omitted > 0 {
		text += fmt.Sprintf("%s not in the store (--max-blob): only the hash kept in its place was compared\n", counted(c.Omitted, "file"))
	}
	if c.Equal {
		return text + "path, mode and blob hash of all are equal to git ls-tree -r\n"
	}
	rows := [][]string{{"DIFFERENCE", "PATH", "GIT", "STORE"}}
	for _, d := range c.Differences[:min(len(c.Differences), differencesShown)] {
		rows = append(rows, []string{d.What, printable(d.Path), cmp.Or(d.Git, "-"), cmp.Or(d.Store, "-")})
	}
	text += aligned(rows)
	if n := len(c.Differences) - differencesShown; n > 0 {
		text += fmt.Sprintf("… and %s more; --json lists all\n", countText(int64(n)))
	}
	return text
}
