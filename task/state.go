package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bytespace/batchlog"
)

// The keys of a task in its state space.
var (
	keyConfig  = batchlog.K("config")
	keyControl = batchlog.K("control")
	keyFence   = batchlog.K("fence")
	keyLease   = batchlog.K("lease")
	keyCursor  = batchlog.K("cursor")
	keyTrouble = batchlog.K("trouble")
)

// config is what was said of a task when it was last run.
type config struct {
	Source []string  `json:"source,omitempty"` // paths, as people write them; none: all
	Made   time.Time `json:"made"`
}

// control is what operators want of a task.
type control struct {
	Paused bool `json:"paused,omitempty"`
}

// fence is who may commit windows. It changes when another worker takes over and when an operator moves the cursor; every window
// reads it, so that whatever was computed before cannot be committed after.
type fence struct {
	Number uint64 `json:"number"`
	Worker string `json:"worker"`
}

// lease is until when the worker of the fence is taken to be alive. Its clock is that of the worker's machine; only who
// waits how long depends on it, never what is committed.
type lease struct {
	Until time.Time `json:"until"`
}

// cursor is the newest commit that was handled.
type cursor struct {
	ID batchlog.ID `json:"id"`
}

// trouble is what keeps a task from going on.
type trouble struct {
	First, Last batchlog.ID
	Attempts    int       `json:"attempts"`
	Error       string    `json:"error"`
	Next        time.Time `json:"next"`
	Stopped     bool      `json:"stopped,omitempty"`
}

// spaces of one task's state.
type spaces struct{ state, parked, holds *batchlog.Space }

func spacesOf(db *batchlog.DB, name string) spaces {
	s := db.System()
	return spaces{s.Space("tasks", name), s.Space("tasks", name, "parked"), s.Space("holds")}
}

// A getter is a View or a Tx.
type getter interface {
	Get(s *batchlog.Space, k batchlog.Key) ([]byte, error)
}

// load sets v to what is under k; ok is false if nothing is.
func load(from getter, s *batchlog.Space, k batchlog.Key, v any) (ok bool, err error) {
	text, err := from.Get(s, k)
	if errors.Is(err, batchlog.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("state of task, %s %s: %w", s, k, err)
	}
	return true, nil
}

// save puts v under k.
func save(tx *batchlog.Tx, s *batchlog.Space, k batchlog.Key, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic("batchlog: bug: " + err.Error())
	}
	tx.Put(s, k, text)
}

// hold makes the log keep what the task still needs: the commits after its cursor, and those of parked windows.
func (p spaces) hold(tx *batchlog.Tx, name string, id batchlog.ID) error {
	for e, err := range tx.Scan(p.parked, batchlog.Range{}) {
		if err != nil {
			return err
		}
		var w ParkedWindow
		if err := json.Unmarshal(e.Value, &w); err != nil {
			return fmt.Errorf("parked window %s: %w", e.Key, err)
		}
		id = min(id, w.First-1)
		break // the oldest comes first
	}
	tx.Put(p.holds, batchlog.K(name), fmt.Appendf(nil, "%d", id+1))
	return nil
}
