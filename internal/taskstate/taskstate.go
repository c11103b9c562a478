// Package taskstate is how the state of tasks lies in a database: its keys, and what stands under them. Package task writes it, the engine reads what it
// needs to take a task's commits and to hold reads of what tasks derive. All of it is JSON in system spaces:
//
//	tasks                  by name: what the task is                                            Config
//	tasks/NAME             "cursor", "control", "trouble", "frontier", "fences"                 Cursor, Control, Trouble, Frontier, Fences
//	tasks/NAME/workers     by fence: who works on it                                            Worker
//	tasks/NAME/claims      by first commit: the windows that workers have taken                 Claim
//	tasks/NAME/parked      by first commit: the windows that were set aside
//	holds                  by name: the first commit that the log must keep for the task, in decimal
package taskstate

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/bytespace/batchlog"
)

// The keys of a task in its own space.
var (
	KeyCursor   = batchlog.K("cursor")
	KeyControl  = batchlog.K("control")
	KeyTrouble  = batchlog.K("trouble")
	KeyFrontier = batchlog.K("frontier")
	KeyFences   = batchlog.K("fences")
)

// A Config is what was said of a task when it was last run.
type Config struct {
	Source  [][]byte      `json:"source,omitempty"`  // stored paths; none: all but the system's own
	Derives [][]byte      `json:"derives,omitempty"` // stored paths
	Stall   time.Duration `json:"stall"`
	Made    time.Time     `json:"made"`
}

// A Cursor is the newest commit that was handled.
type Cursor struct {
	ID   batchlog.ID `json:"id"`
	Time time.Time   `json:"time"` // when it came there
	Rate float64     `json:"rate"` // commits of the log a second, while there was work
}

// A Control is what operators want of a task.
type Control struct {
	Paused bool `json:"paused,omitempty"`
	LetGo  bool `json:"letGo,omitempty"` // the log is not kept for it
}

// Trouble is what keeps a task from going on.
type Trouble struct {
	First    batchlog.ID `json:"first"`
	Last     batchlog.ID `json:"last"`
	Attempts int         `json:"attempts"`
	Error    string      `json:"error"`
	Next     time.Time   `json:"next"`
	Stopped  bool        `json:"stopped,omitempty"`
}

// A Frontier is how far windows have been claimed.
type Frontier struct {
	ID batchlog.ID `json:"id"`
}

// Fences is the number that was given out last.
type Fences struct {
	Last uint64 `json:"last"`
}

// A Worker is who works on a task.
type Worker struct {
	Name    string      `json:"name"`    // host and process, for people
	Session string      `json:"session"` // of the database that it found; in another one it is gone
	Since   time.Time   `json:"since"`
	Seen    time.Time   `json:"seen"`            // its last sign of life, by its own clock: for people, nothing depends on it
	First   batchlog.ID `json:"first,omitempty"` // the commits that it handled then
	Last    batchlog.ID `json:"last,omitempty"`
}

// A Claim is a window that a worker has taken.
type Claim struct {
	First batchlog.ID `json:"first"`
	Last  batchlog.ID `json:"last"`
	Fence uint64      `json:"fence"`
}

// Spaces are where the state of one task is.
type Spaces struct{ State, Workers, Claims, Parked *batchlog.Space }

// MaxNameBytes bounds the name of a task.
const MaxNameBytes = 1024

// ValidName reports whether a task can have this name: text in UTF-8, as keys and paths hold it.
func ValidName(name string) bool {
	return name != "" && len(name) <= MaxNameBytes && utf8.ValidString(name)
}

// Of returns where the state of a task is.
func Of(db *batchlog.DB, name string) Spaces {
	s := All(db).Space(name)
	return Spaces{State: s, Workers: s.Space("workers"), Claims: s.Space("claims"), Parked: s.Space("parked")}
}

// All is the space of the tasks' configurations; what is within it belongs to one task each.
func All(db *batchlog.DB) *batchlog.Space { return db.Inside().System().Space("tasks") }

// Holds is the space of what the log is kept for.
func Holds(db *batchlog.DB) *batchlog.Space { return db.Inside().System().Space("holds") }

// A Getter is a View or a Tx.
type Getter interface {
	Get(s *batchlog.Space, k batchlog.Key) ([]byte, error)
}

// Load sets v to what is under k; ok is false if nothing is.
func Load(from Getter, s *batchlog.Space, k batchlog.Key, v any) (ok bool, err error) {
	text, err := from.Get(s, k)
	if errors.Is(err, batchlog.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, Decode(s, k, text, v)
}

// Decode sets v to what the value of a key says.
func Decode(s *batchlog.Space, k batchlog.Key, value []byte, v any) error {
	if err := json.Unmarshal(value, v); err != nil {
		return fmt.Errorf("state of a task, %s %s: %w", s, k, err)
	}
	return nil
}

// Save puts v under k.
func Save(tx *batchlog.Tx, s *batchlog.Space, k batchlog.Key, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic("batchlog: bug: " + err.Error())
	}
	tx.Put(s, k, text)
}

// Sources are the open stored paths of what a task follows.
func (c *Config) Sources(db *batchlog.DB) [][]byte {
	if len(c.Source) == 0 {
		return [][]byte{Open(db.Root().Stored())}
	}
	open := make([][]byte, len(c.Source))
	for i, path := range c.Source {
		open[i] = Open(path)
	}
	return open
}

// Open is a closed stored path without its end.
func Open(path []byte) []byte { return path[: len(path)-1 : len(path)-1] }

// Overlap reports whether the subtrees with these open paths have a space in common.
func Overlap(a, b []byte) bool {
	n := min(len(a), len(b))
	return string(a[:n]) == string(b[:n])
}
