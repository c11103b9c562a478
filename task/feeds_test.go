package task_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// cpu is the time that this process has had of processors.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A task that begins now, or at a later commit, is registered in a database without a commit, too; and where nothing would change Reset
// can be planned.
func TestRegisterInAnEmptyDatabase(t *testing.T) {
	for _, start := range []batchlog.Position{batchlog.Now(), batchlog.At(7), batchlog.Since(time.Now()), batchlog.Oldest(), batchlog.First()} {
		db := mem(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := task.Register(ctx, db.DB, task.Task{Name: "t", Start: start, Handle: mirror(db.Space("out"))})
		if err == nil {
			_, err = task.PlanReset(ctx, db.DB, "t", batchlog.First())
		}
		if err != nil {
			t.Errorf("from %s: %v", start, err)
		}
		cancel()
	}
}

// However tasks feed one another, to register one, to read what one derives, and to explain that takes work in proportion to the tasks, and not
// to the ways that lead from one to another.
func TestManyTasksFeedOneAnother(t *testing.T) {
	for name, c := range map[string]struct {
		tasks  int
		source func(i int) []int // the tasks that task i follows
	}{
		"each follows all before it": {manyTasks, func(i int) []int {
			all := make([]int, i)
			for j := range all {
				all[j] = j
			}
			return all
		}},
		"diamonds": {3 * manyTasks, func(i int) []int { // two that follow one, which follows two
			switch {
			case i == 0:
				return nil
			case i%3 == 0:
				return []int{i - 1, i - 2}
			}
			return []int{i - i%3}
		}},
		"a chain": {6 * manyTasks, func(i int) []int { return []int{i - 1}[:min(i, 1)] }},
	} {
		t.Run(name, func(t *testing.T) {
			db := mem(t)
			out := func(i int) *batchlog.Space { return db.Space("out", i) }
			began := cpu(t)
			for n := range c.tasks {
				i := c.tasks - 1 - n // so that there are those that follow each already
				k := task.Task{Name: fmt.Sprint("task ", i), Source: []*batchlog.Space{db.Space("source")}, Derives: []*batchlog.Space{out(i)}, Start: batchlog.Now(), Handle: mirror(out(i))}
				for _, j := range c.source(i) {
					k.Source = append(k.Source, out(j))
				}
				if err := task.Register(t.Context(), db.DB, k); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				for i := range c.tasks {
					if got := dump(t, out(i)); got != "" {
						t.Fatal(got)
					}
				}
			}
			waits, err := task.Explain(t.Context(), db.DB, out(c.tasks-1))
			if err != nil || len(waits) < c.tasks-1 { // in diamonds the last has one beside it
				t.Errorf("%d waits, %v", len(waits), err)
			}
			loop := task.Task{Name: "task 0", Source: []*batchlog.Space{out(c.tasks - 1)}, Derives: []*batchlog.Space{out(0)}, Handle: mirror(out(0))}
			if err := task.Register(t.Context(), db.DB, loop); err == nil {
				t.Error("a loop is taken")
			}
			if took := cpu(t) - began; took > 20*time.Second {
				t.Errorf("took %v of the processor", took)
			}
		})
	}
}

const manyTasks = 40
