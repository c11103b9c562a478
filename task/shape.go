package task

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// ErrLoop says that a task would follow, perhaps over what other tasks derive, what it derives itself.
var ErrLoop = errors.New("the task would follow itself")

// checkShape refuses a task whose derived spaces are another one's, or lead back to its sources.
func checkShape(tx *batchlog.Tx, db *batchlog.DB, name string, c *taskstate.Config) error {
	all := map[string]*taskstate.Config{name: c}
	names := []string{name}
	for e, err := range tx.Scan(taskstate.All(db), batchlog.Range{}) {
		if err != nil {
			return err
		}
		other := fmt.Sprint(decoded(e.Key))
		if other == name {
			continue
		}
		var o taskstate.Config
		if err := taskstate.Decode(taskstate.All(db), e.Key, e.Value, &o); err != nil {
			return err
		}
		all[other] = &o
		names = append(names, other)
		for _, mine := range c.Derives {
			for _, theirs := range o.Derives {
				if taskstate.Overlap(taskstate.Open(mine), taskstate.Open(theirs)) {
					return fmt.Errorf("space %s is, as far as it overlaps %s, derived by task %s: a derived space belongs to one task: %w",
						spaceText(db, mine), spaceText(db, theirs), other, batchlog.ErrPermission)
				}
			}
		}
	}
	for _, path := range c.Derives {
		if !taskstate.Overlap(taskstate.Open(path), taskstate.Open(db.Root().Stored())) {
			return fmt.Errorf("space %s belongs to the system: %w", spaceText(db, path), batchlog.ErrPermission)
		}
	}
	if loop := findLoop(db, all, names, []string{name}); loop != nil {
		return fmt.Errorf("%w: %s: choose sources that do not hold what it derives", ErrLoop, strings.Join(loop, " → "))
	}
	return nil
}

// findLoop is the tasks from path on that feed one another and lead back to its first, or nil.
func findLoop(db *batchlog.DB, all map[string]*taskstate.Config, names, path []string) []string {
	at := path[len(path)-1]
	for _, next := range names {
		if !all[at].Feeds(db, all[next]) {
			continue
		}
		if next == path[0] {
			return append(path, next)
		}
		seen := false
		for _, p := range path {
			seen = seen || p == next
		}
		if seen {
			continue
		}
		if loop := findLoop(db, all, names, append(path[:len(path):len(path)], next)); loop != nil {
			return loop
		}
	}
	return nil
}

// decoded is what a key says; the key itself if it is not one that this package makes.
func decoded(k batchlog.Key) any {
	v, err := k.Decode()
	if err != nil {
		return k
	}
	return v
}

// spaceText is a stored path for people.
func spaceText(db *batchlog.DB, path []byte) string {
	s, err := db.SpaceAt(path)
	if err != nil {
		return fmt.Sprintf("%x", path)
	}
	return s.String()
}
