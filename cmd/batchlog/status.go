package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the database is",
		Long: `Head is the newest durable commit, applied the one that the store has reached. With --json it is one object with at least
head, applied and epoch.`,
		Example: `  batchlog status
  batchlog status --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.withDB(false, func(db *local.DB) error {
				s, err := db.Status(ctx)
				if err != nil {
					return err
				}
				holds := a.holds(ctx, db)
				if a.json {
					return a.printJSON(statusJSON{s, holds})
				}
				_, err = a.out.WriteString(statusText(a.dir, s, holds))
				return err
			})
		}),
	}
}

// A statusJSON is what status --json prints.
type statusJSON struct {
	batchlog.Status
	Holds []task.Hold `json:"holds,omitempty"`
}

// holdsWait is how long status waits for the store to say which tasks hold the log: it is there for databases that are not well, too.
const holdsWait = 2 * time.Second

// holds is what of the log is kept for tasks. If that can't be said, stderr has why.
func (a *app) holds(ctx context.Context, db *local.DB) []task.Hold {
	ctx, cancel := context.WithTimeout(ctx, holdsWait)
	defer cancel()
	holds, err := task.Holds(ctx, db.DB)
	if err != nil {
		fmt.Fprintf(a.err, "batchlog: what of the log is kept for tasks is not known: %v\n", err)
	}
	return holds
}

// printJSON prints v as one line of JSON.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// statusText is s for people.
func statusText(dir string, s batchlog.Status, holds []task.Hold) string {
	state := s.State
	if s.Reason != "" {
		state += ": " + s.Reason
	}
	rows := [][]string{
		{"database", dir},
		{"uuid", s.UUID},
		{"state", state},
		{"epoch", fmt.Sprint(s.Epoch)},
		{"head", countText(int64(s.Head))},
		{"applied", countText(int64(s.Applied))},
		{"flushed", countText(int64(s.Flushed))},
		{"backlog", fmt.Sprintf("%s of at most %s", bytesText(s.BacklogBytes), limitText(s.BacklogLimit))},
		{"followers", fmt.Sprint(s.Followers)},
	}
	if s.Clock != nil {
		rows = append(rows, []string{"clock", clockText(*s.Clock)})
	}
	for _, l := range s.Logs {
		rows = append(rows, []string{"log " + l.Name, logText(l)}, []string{"", settingsText(l.Config)})
		for _, d := range l.Dirs {
			if d.State != batchlog.DirReady {
				rows = append(rows, []string{"", "directory " + printable(d.Dir) + " is " + dirText(d)})
			}
		}
		for _, d := range l.Damaged {
			rows = append(rows, []string{"", "damaged: " + d})
		}
		for line := range strings.Lines(l.Trouble) {
			rows = append(rows, []string{"", "not moved or dropped: " + printable(strings.TrimSuffix(line, "\n"))})
		}
	}
	if s.Undo.On || len(s.Undo.Have) > 0 {
		rows = append(rows, []string{"undo", undoText(s)})
	}
	for _, h := range holds {
		rows = append(rows, []string{"task " + printable(h.Task), fmt.Sprintf("holds the log from commit %s on, %s, since %s", countText(int64(h.First)), bytesText(h.Bytes), sinceText(h))})
	}
	st := s.Store
	rows = append(rows, []string{"store", fmt.Sprintf("%s on disk, %s in memory, %s cached; read amplification %d, write amplification %s",
		bytesText(st.Bytes), bytesText(st.MemoryBytes), bytesText(st.CacheBytes), st.ReadAmp, threeDigits(st.WriteAmp))})
	return aligned(rows)
}

// clockText is a clock in doubt, for people.
func clockText(c batchlog.ClockStatus) string {
	way := "ahead of"
	if c.Off < 0 {
		way = "behind"
	}
	return fmt.Sprintf("in doubt: %s %s what is known to have passed; the log is trimmed by that. If the clock is right: batchlog clock trust", durationText(c.Off.Abs()), way)
}

func logText(l batchlog.LogStatus) string {
	if l.Last < l.First || l.Last == 0 {
		return "no commits; " + counted(l.Segments, "segment")
	}
	text := fmt.Sprintf("commits %s to %s, %s in %s", countText(int64(l.First)), countText(int64(l.Last)), bytesText(l.Bytes), counted(l.Segments, "segment"))
	if l.Warm > 0 {
		text += fmt.Sprintf(", %d of them, %s, in warm directories", l.Warm, bytesText(l.WarmBytes))
	}
	if !l.Oldest.IsZero() {
		text += ", since " + l.Oldest.Local().Format(time.DateTime)
	}
	return text
}

// undoText is which commits can be taken back, for people.
func undoText(s batchlog.Status) string {
	text := "off"
	if s.Undo.On {
		text = "on"
	}
	if len(s.Undo.Have) == 0 {
		return text + "; no commit can be taken back yet"
	}
	const most = 3
	var rows []string
	for _, r := range s.Undo.Have {
		rows = append(rows, fmt.Sprintf("%s to %s", countText(int64(r.First)), countText(int64(r.Last))))
	}
	if n := len(rows); n > most {
		rows = append([]string{"…"}, rows[n-most:]...)
	}
	text += "; commits " + strings.Join(rows, ", ") + " can be taken back"
	if s.Undo.Have[0].First > s.Oldest || len(s.Undo.Have) > 1 {
		text += "; undo backfill adds the rest"
	}
	return text
}

// settingsText is the settings of a log for people.
func settingsText(c batchlog.LogConfig) string {
	ttl := "kept for ever"
	switch keep := c.WarmTTL; {
	case len(c.Warm) == 0 && c.HotTTL > 0:
		ttl = "kept for " + ttlText(c.HotTTL)
	case keep > 0 && c.HotTTL > 0:
		ttl = "kept for " + ttlText(keep)
	}
	if len(c.Warm) > 0 && c.HotTTL > 0 {
		ttl += fmt.Sprintf(", after %s in %s", ttlText(c.HotTTL), strings.Join(c.Warm, ", "))
	}
	size := c.SegmentBytes
	if size == 0 {
		size = batchlog.DefaultSegmentBytes
	}
	text := fmt.Sprintf("%s, segments of %s", ttl, limitText(size))
	if c.BlobBytes > 0 {
		text += fmt.Sprintf(", values from %s on as blobs", limitText(int64(c.BlobBytes)))
	}
	if len(c.Dirs) > 0 {
		text += ", in " + strings.Join(c.Dirs, ", ")
	}
	return text
}

func ttlText(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 0 && d%(24*time.Hour) == 0 {
		return counted(int64(days), "day")
	}
	return d.String()
}
