package roster

import (
	"context"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
)

// An idle engine has head 1, and counts what it is asked to hold.
type idle struct {
	Engine
	holds int
}

func (i *idle) Head(context.Context) (batchlog.ID, error) { return 1, nil }

func (i *idle) Hold(context.Context, batchlog.ReadOptions) error {
	i.holds++
	return nil
}

// A read waits once for each task that leads to its space, in however many ways it does.
func TestHoldAsksEachTaskOnce(t *testing.T) {
	for name, c := range map[string]struct {
		tasks  int
		follow func(i int) (first, behind int)
	}{
		"each follows all before it": {200, func(i int) (int, int) { return 0, i }},
		"diamonds":                   {600, func(i int) (int, int) { return max(0, i-2), i }},
		"a chain":                    {1000, func(i int) (int, int) { return max(0, i-1), i }},
		"a ring":                     {50, func(i int) (int, int) { return 0, 50 }},
	} {
		e := &idle{}
		db := batchlog.New(nil)
		r := New(db, e, nil)
		out := func(i int) []byte { return db.Space("out", i).Stored() }
		for i := range c.tasks {
			task := r.entry(fmt.Sprint(i))
			task.known, task.cursor = true, 1
			task.config = taskstate.Config{Derives: [][]byte{out(i)}, Source: [][]byte{db.Space("source").Stored()}}
			for first, behind := c.follow(i); first < behind; first++ {
				task.config.Source = append(task.config.Source, out(first))
			}
			task.sources = task.config.Sources(db)
		}
		r.derived.Store(newShape(r.tasks))
		for _, i := range []int{c.tasks - 1, 0} {
			e.holds = 0
			if err := r.Hold(t.Context(), append(out(i), "key"...), batchlog.ReadOptions{}); err != nil {
				t.Fatal(err)
			}
			want := i + 1
			if name == "a ring" {
				want = c.tasks
			}
			if e.holds != want {
				t.Errorf("%s: a read of the space of task %d waited %d times, not %d", name, i, e.holds, want)
			}
		}
		if err := r.Hold(t.Context(), append(db.Space("source").Stored(), "key"...), batchlog.ReadOptions{}); err != nil || r.owner(out(3)) != r.tasks["3"] {
			t.Error(err)
		}
	}
}
