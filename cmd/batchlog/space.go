package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

func newSpace(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "space",
		Short: "List spaces, and set how their commits are kept",
		Long:  `Every space belongs to a log, main unless configured. A log's settings say how its commits are kept.`,
		Example: `  batchlog space ls
  batchlog space configure / --hot-ttl 30d --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(newSpaceLs(a), newSpaceConfigure(a), newSpaceTrim(a))
	return cmd
}

func newSpaceTrim(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "trim",
		Short: "Drop now what is past its time",
		Long: `What is past --hot-ttl goes to warm directories, or without these it is dropped, as what is past --warm-ttl. While the database is open that
happens by itself within a minute. It works on a full disk, too.`,
		Example: `  batchlog space configure / --hot-ttl 7d
  batchlog space trim`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error { return interruption(ctx, db.Trim(ctx)) })
		}),
	}
}

func newSpaceLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the spaces that the log has ops in",
		Long: `For each space: how many commits and ops the log holds in its own keys, and the newest of them. It reads the whole log. Spaces
that only commits before the oldest in the log have written to are not known to it.`,
		Example: `  batchlog space ls
  batchlog space ls --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error { return a.spaceLs(ctx) }),
	}
}

// A spaceJSON is a line of space ls --json.
type spaceJSON struct {
	Space   string      `json:"space"`
	Log     string      `json:"log"`
	Commits int64       `json:"commits"`
	Ops     int64       `json:"ops"`
	Last    batchlog.ID `json:"last"` // newest commit
}

func (a *app) spaceLs(ctx context.Context) error {
	return a.withDB(false, func(db *local.DB) error {
		status, err := db.Status(ctx)
		if err != nil {
			return err
		}
		spaces, err := spacesOf(ctx, db, status, a.meters())
		if err != nil {
			return interruption(ctx, err)
		}
		if status.Oldest > 1 {
			fmt.Fprintf(a.err, "batchlog: the log begins with commit %d: spaces that were only written to before it are not listed\n", status.Oldest)
		}
		if a.json {
			for _, s := range spaces {
				if err := a.printJSON(s); err != nil {
					return err
				}
			}
			return nil
		}
		rows := [][]string{{"SPACE", "LOG", "COMMITS", "OPS", "LAST"}}
		for _, s := range spaces {
			rows = append(rows, []string{s.Space, s.Log, countText(s.Commits), countText(s.Ops), s.Last.String()})
		}
		text := aligned(rows, 2, 3, 4)
		for _, l := range status.Logs {
			text += fmt.Sprintf("\nlog %s: %s; %s\n", l.Name, logText(l), settingsText(l.Config))
		}
		_, err = a.out.WriteString(text)
		return err
	})
}

// spacesOf goes through the log and says which spaces it has ops in.
func spacesOf(ctx context.Context, db *local.DB, status batchlog.Status, meters func(label, unit string, total int64) *meter) ([]*spaceJSON, error) {
	if status.Head < status.Oldest || status.Head == 0 {
		return nil, nil
	}
	m := meters("read the log", "commits", int64(status.Head-status.Oldest)+1)
	defer m.end()
	found := map[*batchlog.Space]*spaceJSON{} // the same space may be here under several pointers
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.Oldest(), Until: status.Head}) {
		if err != nil {
			return nil, err
		}
		for op, err := range c.Ops() {
			if err != nil {
				return nil, err
			}
			s := found[op.Space]
			if s == nil {
				s = &spaceJSON{Space: op.Space.String(), Log: batchlog.DefaultLog}
				found[op.Space] = s
			}
			if s.Last != c.ID {
				s.Last = c.ID
				s.Commits++
			}
			s.Ops++
		}
		m.set(int64(c.ID-status.Oldest)+1, 0)
	}
	merged := map[string]*spaceJSON{}
	for _, s := range found {
		t := merged[s.Space]
		if t == nil {
			merged[s.Space] = s
			continue
		}
		t.Commits, t.Ops, t.Last = t.Commits+s.Commits, t.Ops+s.Ops, max(t.Last, s.Last)
	}
	return slices.SortedFunc(maps.Values(merged), func(x, y *spaceJSON) int { return strings.Compare(x.Space, y.Space) }), nil
}

type configureFlags struct {
	log          string
	hotTTL       duration
	warmTTL      duration
	warm         []string
	segmentBytes byteSize
	blobBytes    byteSize
	undo         bool
	dirs         []string
	dryRun       bool
}

func newSpaceConfigure(a *app) *cobra.Command {
	flags := configureFlags{log: batchlog.DefaultLog}
	cmd := &cobra.Command{
		Use:   "configure SPACE",
		Short: "Set how the commits of a space, and of all within it, are kept",
		Long: `It sets the log that the space belongs to; settings that are not given stay as they are. What changes is printed, and
with --dry-run not done. In this version there is one log, main, for all spaces: SPACE is /. The database is created if it is not there.`,
		Example: `  batchlog space configure / --hot-ttl 30d --dry-run
  batchlog space configure / --segment-bytes 16MiB
  batchlog space configure / --blob-bytes 1MiB
  batchlog space configure / --hot-ttl 7d --warm archive --warm-ttl 365d
  batchlog space configure / --undo
  batchlog space configure / --undo=false
  batchlog space configure / --hot-ttl 0s`,
		Args: takes(1, 1),
	}
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		return a.configure(ctx, args[0], flags, cmd.Flags().Changed)
	})
	cmd.Flags().StringVar(&flags.log, "log", flags.log, "`NAME` of the log")
	cmd.Flags().Var(&flags.hotTTL, "hot-ttl", "how long sealed segments stay in the database's directory, as 12h or 30d, before they go to --warm, or without that are removed; 0s: for ever")
	cmd.Flags().StringArrayVar(&flags.warm, "warm", nil, "`DIR` that segments go to after --hot-ttl, which take turns if more are given; '' alone: none")
	cmd.Flags().Var(&flags.warmTTL, "warm-ttl", "how long segments are kept when there is --warm, counted from their last commit as well; 0s: for ever")
	cmd.Flags().Var(&flags.segmentBytes, "segment-bytes", "size at which a segment is sealed and the next one begun, as 64MiB; 0: the default")
	cmd.Flags().Var(&flags.blobBytes, "blob-bytes", "size from which on values are blobs, outside of log and store, as 1MiB, at least 1KiB; 0: only those that are put as such")
	cmd.Flags().BoolVar(&flags.undo, "undo", false, "keep what commits overwrite, so that they can be taken back")
	cmd.Flags().StringArrayVar(&flags.dirs, "dir", nil, "`DIR` for segments, which are striped over all that are given; '' alone: the database's own")
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "say what would change, and change nothing")
	return cmd
}

// A planJSON is what space configure --json prints.
type planJSON struct {
	Changes  []string    `json:"changes"`
	Segments int         `json:"segments"` // that are past their time under the new settings
	Bytes    int64       `json:"bytes"`
	Last     batchlog.ID `json:"last"`
	Done     bool        `json:"done"` // false with --dry-run
}

func (a *app) configure(ctx context.Context, space string, flags configureFlags, given func(flag string) bool) error {
	path, err := pathArg(space)
	if err != nil {
		return err
	}
	return a.withDB(!flags.dryRun, func(db *local.DB) error {
		status, err := db.Status(ctx)
		if err != nil {
			return err
		}
		config := batchlog.LogConfig{Name: flags.log}
		for _, l := range status.Logs {
			if l.Name == flags.log {
				config = l.Config
			}
		}
		if given("hot-ttl") {
			config.HotTTL = time.Duration(flags.hotTTL)
		}
		if given("warm-ttl") {
			config.WarmTTL = time.Duration(flags.warmTTL)
		}
		if given("warm") {
			if config.Warm, err = absolute(flags.warm); err != nil {
				return err
			}
		}
		if given("segment-bytes") {
			config.SegmentBytes = int64(flags.segmentBytes)
		}
		if given("blob-bytes") {
			if flags.blobBytes > math.MaxInt32 {
				return usagef("--blob-bytes %s is larger than a value that is no blob can be", bytesText(int64(flags.blobBytes)))
			}
			config.BlobBytes = int(flags.blobBytes)
		}
		if given("undo") {
			config.Undo = flags.undo
		}
		if given("dir") {
			config.Dirs = slices.DeleteFunc(flags.dirs, func(d string) bool { return d == "" }) // relative ones are within the log's
		}
		s := db.Space(path...)
		plan, err := db.PlanConfigure(ctx, config, s)
		if err == nil && !flags.dryRun {
			err = db.Configure(ctx, config, s)
		}
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(planJSON{append([]string{}, plan.Changes...), plan.Segments, plan.Bytes, plan.Last, !flags.dryRun})
		}
		_, err = a.out.WriteString(planText(plan, flags.dryRun))
		return err
	})
}

// absolute is directories as seen from anywhere, but those without a name.
func absolute(dirs []string) (all []string, err error) {
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		all = append(all, dir)
	}
	return all, nil
}

// planText is p for people.
func planText(p batchlog.Plan, dryRun bool) string {
	if len(p.Changes) == 0 {
		return "nothing changes\n"
	}
	verb := "changed"
	if dryRun {
		verb = "would change"
	}
	text := verb + ":\n"
	for _, c := range p.Changes {
		text += "  " + c + "\n"
	}
	if p.Segments > 0 {
		text += fmt.Sprintf("%s of %s, up to commit %d, past their time: they are removed from the log as soon as the store has durably applied them\n",
			counted(p.Segments, "sealed segment"), bytesText(p.Bytes), p.Last)
	}
	return text
}
