package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
	"github.com/bytespace/batchlog/local"
)

type demoFlags struct {
	dir     string // "": a temporary one
	keep    bool
	limit   int64
	maxBlob byteSize
}

func newDemo(a *app) *cobra.Command {
	var flags demoFlags
	cmd := &cobra.Command{
		Use:   "demo [REPO]",
		Short: "Load a git history into a fresh database, follow it live, check it, and tell",
		Long: `REPO is a git repository or a directory within one; without it, the repository one stands in. Each commit of HEAD's first parents goes
through the log into the store, while a follower reads the log live and a task derives the size of each directory. Then the store and what was
derived are compared with git, and the database verified. The database is in a temporary directory that is removed at the end, unless --keep or --db say otherwise. $BATCHLOG_DB is not looked at.`,
		Example: `  batchlog demo repo
  batchlog demo repo --limit 1000 --keep
  batchlog demo repo --db demo-data`,
		Args: takes(0, 1),
	}
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		if cmd.Flags().Changed("db") {
			flags.dir = a.dir
		}
		if flags.limit < 0 {
			return usagef("--limit %d is negative", flags.limit)
		}
		return a.demo(ctx, repoArg(args), flags)
	})
	cmd.Flags().BoolVar(&flags.keep, "keep", false, "keep the database")
	cmd.Flags().Int64Var(&flags.limit, "limit", 0, "only the oldest `N` commits; 0: all")
	cmd.Flags().Var(&flags.maxBlob, "max-blob", "leave out the content of larger blobs, as 10MB; 0: of none")
	return cmd
}

// A demoResult is what demo tells.
type demoResult struct {
	Import     importResult `json:"import"`
	LogBytes   int64        `json:"logBytes"`
	Segments   int          `json:"segments"`
	StoreBytes int64        `json:"storeBytes"`
	Follower   followed     `json:"follower"`
	Derived    derivedSizes `json:"derived"`
	Busiest    []pathCount  `json:"busiest"`
	Git        comparison   `json:"git"`
	Verify     reportJSON   `json:"verify"`
	Dir        string       `json:"dir,omitempty"` // where the database is kept; "": it was removed
}

func (a *app) demo(ctx context.Context, repoDir string, flags demoFlags) (err error) {
	repo, err := openRepo(ctx, repoDir)
	if err != nil {
		return interruption(ctx, err)
	}
	plan := importPlan{Rev: "HEAD", Limit: flags.limit, MaxBlob: int64(flags.maxBlob)}
	if err := repo.has(ctx, plan); err != nil {
		return interruption(ctx, err)
	}
	dir, kept := flags.dir, flags.dir != "" || flags.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "batchlog-demo-"); err != nil {
			return err
		}
	} else if some, err := os.ReadDir(dir); err == nil && len(some) > 0 {
		return fmt.Errorf("%s is not empty: the demo wants a fresh directory", dir)
	}
	if !kept {
		defer func() {
			if removeErr := os.RemoveAll(dir); err == nil {
				err = removeErr
			}
		}()
	}
	db, err := a.openDB(dir, true)
	if err != nil {
		return err
	}
	r, err := a.runDemo(ctx, db, repo, plan)
	if closeErr := db.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("close database %s: %w", dir, closeErr)
	}
	if err != nil {
		return interruption(ctx, err)
	}
	if kept {
		r.Dir = dir
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		_, err = a.out.WriteString(r.text(a.style()))
	}
	if err == nil && !r.sound() {
		err = &differenceError{what: "the demo has found something wrong, see above"}
	}
	return err
}

// sound says whether all that was checked is as it should be.
func (r *demoResult) sound() bool {
	return r.Git.Equal && r.Verify.OK && r.Follower.Wrong == "" && r.Follower.Commits == r.Import.Commits && len(r.Derived.Wrong) == 0
}

// runDemo imports while a follower and a task follow, then checks.
func (a *app) runDemo(ctx context.Context, db *local.DB, repo *repo, plan importPlan) (*demoResult, error) {
	store, err := newGitStore(db.DB, repo.name)
	if err != nil {
		if store, err = newGitStore(db.DB, "repo"); err != nil {
			return nil, err
		}
	}
	sizes, err := startSizes(ctx, store)
	if err != nil {
		return nil, err
	}
	follower := follow(ctx, db.DB, store)
	im := &importer{repo: repo, store: store, plan: plan, meter: a.importMeter()}
	r := &demoResult{}
	r.Import, err = im.run(ctx)
	if err == nil {
		r.Derived, err = sizes.read(ctx)
	}
	if endErr := sizes.end(); err == nil {
		err = endErr
	}
	r.Follower, r.Busiest = follower.end(ctx, r.Import.Last)
	if err != nil {
		return nil, err
	}
	if err := r.Derived.compare(ctx, repo, r.Import.Hash); err != nil {
		return nil, err
	}
	if r.Git, err = compareGit(ctx, repo, store, a.meters()); err != nil {
		return nil, err
	}
	report, err := verifyDB(ctx, db, false, a.meters())
	if err != nil {
		return nil, err
	}
	r.Verify = jsonOf(report, false)
	if err := db.Flush(ctx); err != nil { // so that the size of the store is that of all of it
		return nil, err
	}
	status, err := db.Status(ctx)
	if err != nil {
		return nil, err
	}
	r.StoreBytes = status.Store.Bytes
	for _, l := range status.Logs {
		r.LogBytes += l.Bytes
		r.Segments += l.Segments
	}
	return r, nil
}

// A followed is what a follower has seen.
type followed struct {
	Commits int64         `json:"commits"`
	Ops     int64         `json:"ops"`
	Bytes   int64         `json:"bytes"`
	Last    batchlog.ID   `json:"last"`
	Lag     time.Duration `json:"worstLagNs"` // longest time from a commit's time, which is before its sync, to its arrival
	Wrong   string        `json:"wrong,omitempty"`
}

// A pathCount is a path and how many changes it had.
type pathCount struct {
	Path    string `json:"path"`
	Changes int64  `json:"changes"`
}

// A follower follows the log live, in a goroutine of its own, and counts the commits of an import among all there are.
type follower struct {
	seen   followed // the goroutine's until done is closed
	counts map[string]int64
	at     chan batchlog.ID // tells each id that was seen; end reads it
	stop   context.CancelFunc
}

func follow(ctx context.Context, db *batchlog.DB, store *gitStore) *follower {
	ctx, stop := context.WithCancel(ctx)
	f := &follower{counts: map[string]int64{}, at: make(chan batchlog.ID, 1), stop: stop}
	go f.loop(ctx, db, store)
	return f
}

func (f *follower) loop(ctx context.Context, db *batchlog.DB, store *gitStore) {
	defer close(f.at)
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.First()}) {
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			f.seen.Wrong = err.Error()
			return
		case c.ID != f.seen.Last+1:
			f.seen.Wrong = fmt.Sprintf("commit %d came after %d", c.ID, f.seen.Last)
			return
		}
		f.seen.Last = c.ID
		if err := f.count(c, store); err != nil {
			f.seen.Wrong = err.Error()
			return
		}
		select { // the newest id is all that end needs to know
		case <-f.at:
		default:
		}
		f.at <- c.ID
	}
}

// count counts a commit if the import has written it: the task writes as well.
func (f *follower) count(c *batchlog.Commit, store *gitStore) error {
	lag := time.Since(c.Time)
	imported := false
	for op, err := range c.Ops() {
		if err != nil {
			return err
		}
		imported = imported || op.Space.Equal(store.commits)
		if op.Space.Equal(store.files) {
			path, err := history.Path(op.Key)
			if err != nil {
				return err
			}
			f.counts[path]++
		}
	}
	if imported {
		f.seen.Lag = max(f.seen.Lag, lag)
		f.seen.Commits++
		f.seen.Ops += int64(c.Len())
		f.seen.Bytes += int64(c.Size())
	}
	return nil
}

// followerWait is how long a follower may take to arrive at the last commit when all else is done.
const followerWait = 30 * time.Second

// end waits until the follower has seen last, ends it and returns what it saw.
func (f *follower) end(ctx context.Context, last batchlog.ID) (followed, []pathCount) {
	late := time.After(followerWait)
	reached := last == 0
	for open := true; open && !reached; {
		select {
		case id, ok := <-f.at:
			open, reached = ok, id >= last
		case <-late:
			open = false
		case <-ctx.Done():
			open = false
		}
	}
	f.stop()
	for range f.at { // until it has ended
	}
	if !reached && f.seen.Wrong == "" {
		f.seen.Wrong = fmt.Sprintf("it has seen commits up to %d, not %d", f.seen.Last, last)
	}
	return f.seen, busiest(f.counts, busiestShown)
}
