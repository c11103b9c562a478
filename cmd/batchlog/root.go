package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// defaultDir is where the database is unless --db or $BATCHLOG_DB say otherwise.
const defaultDir = "./batchlog-data"

// helpTemplate is one line, a paragraph, then usage, examples and flags.
const helpTemplate = `{{.Short}}.{{with .Long}}

{{.}}{{end}}

{{.UsageString}}`

// The groups that help lists the commands in.
const (
	groupKeys    = "keys"
	groupLog     = "log"
	groupHistory = "history"
	groupRun     = "run"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "batchlog",
		Short: "An ordered key-value store whose write-ahead log is the product",
		Long: `Every write is a batch, every batch gets a number (1, 2, 3 …) and lives in a log that can be followed from
any point. The store is what the log adds up to.

A SPACE is a namespace of keys: a path like users/eu, / for the root, or a JSON array like ["users",7].
A KEY is JSON: "alice", ["alice",42], 7, true, and {"$date":"RFC 3339"}, {"$bytes":"base64"}, {"$undefined":true} and
{"$raw":"hex"} for what JSON lacks. A word that is not JSON is a string: alice. Write -- before a KEY or VALUE that begins with -.

Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 conflict, 130 after Ctrl-C.`,
		Example: `  batchlog put users alice '{"age":42}'
  batchlog get users alice
  batchlog tail --until head
  batchlog status`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
	}
	dir := os.Getenv("BATCHLOG_DB")
	if dir == "" {
		dir = defaultDir
	}
	root.PersistentFlags().StringVar(&a.dir, "db", dir, "`DIR` of the database; $BATCHLOG_DB sets the default")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON, for programs")
	root.SetHelpTemplate(helpTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd: cmd, err: err} })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddGroup(
		&cobra.Group{ID: groupKeys, Title: "Keys:"},
		&cobra.Group{ID: groupLog, Title: "Log and database:"},
		&cobra.Group{ID: groupHistory, Title: "A real history:"},
		&cobra.Group{ID: groupRun, Title: "The command itself:"},
	)
	root.SetHelpCommandGroupID(groupRun)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth)))
	for _, c := range []struct {
		group    string
		commands []*cobra.Command
	}{
		{groupKeys, []*cobra.Command{newPut(a), newGet(a), newDel(a), newScan(a), newWrite(a), newCopy(a), newMove(a)}},
		{groupLog, []*cobra.Command{newTail(a), newShow(a), newDiff(a), newKeyHistory(a), newUndo(a), newRedo(a), newStatus(a), newClock(a), newVerify(a), newSpace(a), newAdopt(a), newChain(a), newBlob(a), newTask(a), newExplain(a), newBench(a)}},
		{groupHistory, []*cobra.Command{newImport(a), newDemo(a)}},
		{groupRun, []*cobra.Command{newVersion(a), newCompletion(a)}},
	} {
		for _, cmd := range c.commands {
			cmd.GroupID = c.group
			root.AddCommand(cmd)
		}
	}
	wrapHelp(root)
	return root
}

// helpWidth is how wide the text of help is, in characters.
const helpWidth = 90

func wrapHelp(cmd *cobra.Command) {
	cmd.Long = wrapped(cmd.Long, helpWidth)
	for _, c := range cmd.Commands() {
		wrapHelp(c)
	}
}

// group is the work of a command that only holds others.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2
	err := fmt.Errorf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, ", "))
	}
	return &usageError{cmd: cmd, err: err}
}

// takes is how many arguments a command takes; most < 0: any number.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return &usageError{cmd: cmd, err: fmt.Errorf("an argument is missing: got %s", counted(len(args), "argument"))}
		case most >= 0 && len(args) > most:
			return &usageError{cmd: cmd, err: fmt.Errorf("too many arguments: %q is one more than it takes", args[most])}
		}
		return nil
	}
}

// withDB opens the database for fn and closes it after. Commands that only read do not create one.
func (a *app) withDB(create bool, fn func(db *local.DB) error) (err error) {
	db, err := a.openDB(a.dir, create)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := db.Close(); closeErr != nil && err == nil {
			err = fmt.Errorf("close database %s: %w", a.dir, closeErr)
		}
	}()
	return fn(db)
}

// newBlobBytes is from which size on values are blobs in a database that a command makes: a larger one would be read with its segment each time that a
// command opens the database.
const newBlobBytes = 1 << 20

// openDB opens the database in dir. After a crash that may take a while, which a meter shows.
func (a *app) openDB(dir string, create bool) (*local.DB, error) {
	var m *meter
	defer func() { m.end() }()
	first := batchlog.ID(0)
	db, err := local.Open(dir, &local.Options{MustExist: !create, Log: batchlog.LogConfig{BlobBytes: newBlobBytes}, Progress: func(applied, head batchlog.ID) {
		if m == nil {
			first = applied
			m = a.meters()("apply the log", "commits", int64(head-first))
		}
		m.set(int64(applied-first), 0)
	}})
	if !create && errors.Is(err, fs.ErrNotExist) {
		return nil, &missingError{dir: dir, err: err}
	}
	return db, err
}
