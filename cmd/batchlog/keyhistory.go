package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

func newKeyHistory(a *app) *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:   "history SPACE KEY",
		Short: "Show the values that a key has had",
		Long: `A line a value, the newest first: the commit that set it, its time, the value, its labels. It goes back as far as the log does, and, where undo was on, to the value
that the oldest of these commits has overwritten.

With --json a line is {"id":…,"time":…,"labels":{…},"value":VALUE}; null is deleted, a blob {"$blob":{…}}; the last one may be {"before":ID,"value":VALUE}: what commit ID has overwritten, or with 0 what the key has although no commit in the log has written it.`,
		Example: `  batchlog history users alice
  batchlog history users alice --limit 3 --json`,
		Args: takes(2, 2),
	}
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		path, err := pathArg(args[0])
		if err != nil {
			return err
		}
		key, err := parseKey(args[1])
		if err != nil {
			return err
		}
		if limit < 0 {
			return usagef("--limit %d is negative", limit)
		}
		return a.withDB(false, func(db *local.DB) error {
			s, n := db.Space(path...), 0
			for v, err := range undo.History(ctx, db.DB, s, key) {
				if err == nil {
					err = a.printVersion(v)
				}
				if err != nil {
					return interruption(ctx, err)
				}
				if n++; n == limit {
					return nil
				}
			}
			if n == 0 {
				return &notFoundError{fmt.Sprintf("no commit in the log has written %s in space %s", key, s)}
			}
			return nil
		})
	})
	cmd.Flags().IntVar(&limit, "limit", 0, "at most `N` values; 0: all")
	return cmd
}

func (a *app) printVersion(v *undo.Version) error {
	var line []byte
	switch {
	case a.json && v.ID == 0:
		line = append(appendValueJSON(fmt.Appendf(nil, `{"before":%d,"value":`, v.Before), v.Value), '}')
	case a.json:
		return a.printVersionJSON(v)
	case v.ID == 0 && v.Before == 0:
		line = appendVersion([]byte("before the log\t\t"), v.Value)
	case v.ID == 0:
		line = appendVersion(fmt.Appendf(nil, "before %d\t\t", v.Before), v.Value)
	default:
		line = fmt.Appendf(nil, "%d\t%s\t", v.ID, v.Time.Local().Format(time.DateTime))
		if v.Value.Exists {
			line = appendVersion(line, v.Value)
		} else {
			line = append(line, "(deleted)"...)
		}
		line = append(line, labelsText(v.Labels)...)
	}
	_, err := a.out.Write(append(line, '\n'))
	return err
}

func (a *app) printVersionJSON(v *undo.Version) error {
	labels := v.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return a.printJSON(struct {
		ID     batchlog.ID       `json:"id"`
		Time   time.Time         `json:"time"`
		Labels map[string]string `json:"labels"`
		Value  json.RawMessage   `json:"value"`
	}{v.ID, v.Time.UTC(), labels, json.RawMessage(appendValueJSON(nil, v.Value))})
}
