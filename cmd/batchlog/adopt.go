package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

type adoptFlags struct{ take, leave, moved []string }

func newAdopt(a *app) *cobra.Command {
	var flags adoptFlags
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Settle whom the directories outside of the database's own belong to",
		Long: `What a database has in directories outside of its own (space configure --warm, --dir) belongs to one directory of a database. So a copy of a
database, or an older state of it that was put back, is refused, until it is said which of the two it is to be:

without flags, it goes on in place of the other one, which is refused from then on;
with --moved, it goes on beside it, as the directories were copied, too;
with --leave, it goes on beside it, and reads what it has in them where it is, as long as it is there; configure others for what is to go warm.

Neither of the two may be open. Nothing in the directories is removed. The database goes on in its next epoch. --moved is also for a disk that is mounted
elsewhere now.`,
		Example: `  batchlog adopt
  batchlog adopt --db copy --moved archive=archive-copy
  batchlog adopt --db another-copy --leave archive`,
		Args: takes(0, 0),
		RunE: a.runs(func(context.Context, []string) error { return a.adopt(flags) }),
	}
	cmd.Flags().StringArrayVar(&flags.take, "take", nil, "`DIR` to take over, if not all are")
	cmd.Flags().StringArrayVar(&flags.leave, "leave", nil, "`DIR` to leave to the other database")
	cmd.Flags().StringArrayVar(&flags.moved, "moved", nil, "`OLD=NEW`: what the log has in directory OLD is in NEW")
	return cmd
}

func (a *app) adopt(flags adoptFlags) error {
	adoption := local.Adoption{Moved: map[string]string{}}
	var err error
	if adoption.Take, err = absolute(flags.take); err != nil {
		return err
	}
	if adoption.Leave, err = absolute(flags.leave); err != nil {
		return err
	}
	for _, pair := range flags.moved {
		from, to, ok := strings.Cut(pair, "=")
		both, err := absolute([]string{from, to})
		if err != nil {
			return err
		}
		if !ok || len(both) != 2 {
			return usagef("--moved %s is not OLD=NEW", pair)
		}
		adoption.Moved[both[0]] = both[1]
	}
	dirs, err := local.Adopt(a.dir, nil, adoption)
	if errors.Is(err, fs.ErrNotExist) {
		if _, missing := os.Stat(filepath.Join(a.dir, "database")); missing != nil {
			return &missingError{dir: a.dir, err: err}
		}
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Dirs []batchlog.DirStatus `json:"dirs"`
		}{append([]batchlog.DirStatus{}, dirs...)})
	}
	if len(dirs) == 0 {
		_, err = a.out.WriteString("there is no directory outside of the database's own\n")
		return err
	}
	rows := [][]string{{"DIRECTORY", "SEGMENTS", "STATE"}}
	for _, d := range dirs {
		rows = append(rows, []string{printable(d.Dir), d.Kind, dirText(d)})
	}
	_, err = a.out.WriteString(aligned(rows))
	return err
}

// dirText is the state of a directory for people.
func dirText(d batchlog.DirStatus) string {
	if d.Reason == "" {
		return d.State
	}
	return fmt.Sprintf("%s: %s", d.State, printable(d.Reason))
}
