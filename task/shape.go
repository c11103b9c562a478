package task

import (
	"errors"
	"fmt"
	"slices"
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
	if loop := findLoop(name, newFeeds(db, all, names).of); loop != nil {
		return fmt.Errorf("%w: %s: choose sources that do not hold what it derives", ErrLoop, strings.Join(loop, " → "))
	}
	return nil
}

// feeds is who follows what tasks derive.
type feeds struct {
	tasks     map[string]*taskstate.Config
	names     []string
	followers taskstate.Paths[int] // by what they follow, as places in names
}

func newFeeds(db *batchlog.DB, tasks map[string]*taskstate.Config, names []string) *feeds {
	f := &feeds{tasks: tasks, names: names}
	for i, name := range names {
		for _, source := range tasks[name].Sources(db) {
			f.followers.Add(source, i)
		}
	}
	f.followers.Build()
	return f
}

// of is the tasks that follow something that a task derives, in the order of their names' places.
func (f *feeds) of(name string) []string {
	var at []int
	for _, path := range f.tasks[name].Derives {
		at = slices.AppendSeq(at, f.followers.Overlapping(taskstate.Open(path)))
	}
	slices.Sort(at)
	var next []string
	for _, i := range slices.Compact(at) {
		next = append(next, f.names[i])
	}
	return next
}

// findLoop is the tasks from name on that feed one another and lead back to it, or nil. Each task is looked at once: from one that
// does not lead back it need not be tried again, as what it leads to by way of those before it is tried from there.
func findLoop(name string, feeds func(name string) []string) []string {
	type step struct {
		name string
		next []string // not yet tried
	}
	seen := map[string]bool{name: true}
	path := []step{{name, feeds(name)}}
	for len(path) > 0 {
		at := &path[len(path)-1]
		if len(at.next) == 0 {
			path = path[:len(path)-1]
			continue
		}
		next := at.next[0]
		at.next = at.next[1:]
		if next == name {
			var loop []string
			for _, s := range path {
				loop = append(loop, s.name)
			}
			return append(loop, name)
		}
		if !seen[next] {
			seen[next] = true
			path = append(path, step{next, feeds(next)})
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
	s, err := db.Inside().SpaceAt(path)
	if err != nil {
		return fmt.Sprintf("%x", path)
	}
	return s.String()
}
