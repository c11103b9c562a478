package simtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// The tasks of programs with everything on. What they come to is told by the log: see fold.

// newJobs are two tasks, the second of which follows what the first one derives.
func (g *together) newJobs() {
	one := &job{name: "first", source: [][]any{{"a"}, {"h"}}, out: worldPaths[spaceDerived], derives: true, exact: true, flaky: g.seed%3 == 0}
	two := &job{name: "second", source: [][]any{{"b", []byte{0xff}}, {"t"}, one.out}, out: worldPaths[spaceDerived+1], derives: true}
	if g.seed%4 >= 2 {
		two.poison = task.Park
	}
	g.jobs = []*job{one, two}
	g.fold = newFold(g.jobs)
	g.fold.sparse = true
}

// registerJobs makes the tasks known, so that what they derive is theirs from the beginning.
func (g *together) registerJobs() {
	g.t.Helper()
	for _, j := range g.jobs {
		ctx, cancel := g.context()
		g.working = true
		g.must("register", task.Register(ctx, g.db.DB, j.task(g.db.DB)))
		cancel()
	}
	g.absorbHead()
}

// isForeign says whether a commit that was found is a task's.
func (g *together) isForeign(s *seen) bool {
	if !g.working || s.labels != nil {
		return false
	}
	for _, o := range s.list {
		if o.space < spaceDerived {
			return false
		}
	}
	return s.task != nil || len(s.list) == 0
}

// absorbTasks takes over what tasks have committed, up to a commit.
func (g *together) absorbTasks(upTo batchlog.ID) {
	g.t.Helper()
	if upTo <= g.model.head() {
		return
	}
	armed := g.disk.disarm()
	defer g.disk.arm(armed)
	ctx, cancel := bounded(patience)
	defer cancel()
	list, err := tailAll(ctx, g.db.DB, batchlog.TailOptions{From: batchlog.After(g.model.head()), Until: upTo})
	g.must("tail of what tasks have committed", errors.Join(err, idsDense(list, g.model.head()+1)))
	for i := range list {
		if !g.isForeign(&list[i]) {
			g.t.Fatalf("step %d: commit %d is nobody's: %+v", g.step, list[i].id, list[i])
		}
		g.model.take(&list[i])
		g.met["commits of tasks"]++
	}
}

func (g *together) absorbHead() {
	g.t.Helper()
	ctx, cancel := g.context()
	defer cancel()
	head, err := g.db.Head(ctx)
	g.must("head", err)
	g.absorb(head)
}

// readFold has the fold read on, which says what a task has done that it should not have.
func (g *together) readFold() {
	g.t.Helper()
	armed := g.disk.disarm()
	defer g.disk.arm(armed)
	ctx, cancel := bounded(patience)
	defer cancel()
	g.must("tasks by the log", g.fold.read(ctx, g.db.DB))
}

// stepWork has workers handle what there is to handle.
func (g *together) stepWork() { g.work(false) }

// work has each task worked on until it has handled all that concerns it, or, where the order of things need not be the same each time, for a while, with others who write meanwhile.
func (g *together) work(toEnd bool) {
	g.t.Helper()
	if g.disk.isFull() || g.disk.crashed() || g.disk.faults() > 0 {
		return
	}
	if g.paused { // a pause that could not be ended
		for _, j := range g.jobs {
			g.working = true
			g.must("resume", task.Resume(g.t.Context(), g.db.DB, j.name))
		}
		g.paused = false
	}
	if g.exact {
		armed := g.disk.disarm()
		defer g.disk.arm(armed)
	}
	busy := !g.exact && !toEnd && g.rng.IntN(2) == 0
	g.working, g.crew = true, &crew{db: g.db}
	for _, j := range g.jobs {
		workers, concurrency := 1, 1
		if !g.exact {
			workers, concurrency = 1+g.rng.IntN(2), 1+g.rng.IntN(3)
		}
		commits := 1 + g.rng.IntN(20)
		for range workers {
			g.crew.hire(g.db.DB, j, func(k *task.Task) {
				k.Concurrency, k.Window.Commits, k.Lease, k.Logger = concurrency, commits, 10*time.Second, testLogger(g.t)
				if g.exact { // all that there is comes first, so that where a window ends is no matter of who is faster
					k.Window.Wait = 3 * time.Millisecond
				}
				if j.one() {
					k.Window.Commits = 1
				}
			})
		}
		if !busy {
			g.await(j)
			g.crew.dismiss(nil)
		}
	}
	if busy {
		for range g.rng.IntN(6) {
			g.stepWrite()
			time.Sleep(time.Duration(g.rng.IntN(3)) * time.Millisecond)
		}
		g.crew.dismiss(nil)
	}
	synctest.Wait()
	bad := g.crew.failed()
	g.log("tasks have worked: %v", bad)
	full := time.Since(g.spaceSince) < time.Second && errors.Is(bad, batchlog.ErrNoSpace)
	if bad != nil && !g.hurt() && !full {
		g.must("work on a task", bad)
	}
	if !g.disk.crashed() {
		g.absorbAfterWork()
	}
}

// absorbAfterWork takes over what was committed, as far as the disk lets it.
func (g *together) absorbAfterWork() {
	g.t.Helper()
	armed := g.disk.disarm()
	defer g.disk.arm(armed)
	g.absorbHead()
}

// await waits until a task has handled all that concerns it.
func (g *together) await(j *job) {
	g.t.Helper()
	const poll = 5 * time.Millisecond
	for left := patience; ; left -= poll {
		synctest.Wait()
		if g.disk.crashed() || g.disk.faults() > 0 || g.crew.failed() != nil {
			return
		}
		g.readFold()
		f := g.fold.jobs[j.name]
		if f.newest(g.fold.at) <= f.cursor {
			return
		}
		if left <= 0 {
			s, err := task.Get(context.Background(), g.db.DB, j.name)
			g.t.Fatalf("step %d: task %s stands still at %d, %+v, %v", g.step, j.name, f.cursor, s, err)
		}
		time.Sleep(poll)
	}
}

// stepManage pauses, resumes, resets a task, or has what was set aside be tried again.
func (g *together) stepManage() {
	g.t.Helper()
	if g.disk.isFull() {
		return
	}
	ctx, cancel := g.context()
	defer cancel()
	g.working = true
	j := g.jobs[g.rng.IntN(len(g.jobs))]
	what := []string{"pause", "reset", "retry", "status"}[g.rng.IntN(4)]
	var err error
	switch what {
	case "pause":
		err = errors.Join(task.Pause(ctx, g.db.DB, j.name), task.Resume(ctx, g.db.DB, j.name))
		g.paused = err != nil
	case "reset":
		f := g.fold.jobs[j.name]
		to := max(g.model.oldest, f.cursor-min(f.cursor, batchlog.ID(g.rng.IntN(20))))
		err = task.Reset(ctx, g.db.DB, j.name, batchlog.At(to))
	case "retry":
		_, err = task.RetryParked(ctx, g.db.DB, j.name, 0)
	case "status":
		err = g.checkHolds(ctx)
	}
	g.log("%s task %s: %v", what, j.name, err)
	if err != nil && !g.excusedChain(err) && !g.hurt() {
		g.must(what+" a task", err)
	}
	if !g.disk.crashed() {
		g.absorbAfterWork()
	}
}

// hurt says whether the disk has done what it should not.
func (g *together) hurt() bool { return g.disk.crashed() || g.disk.faults() > 0 }

// checkHolds asserts that the log is kept for the tasks: none of what they have yet to handle is gone.
func (g *together) checkHolds(ctx context.Context) error {
	list, err := task.List(ctx, g.db.DB)
	if err != nil {
		return err
	}
	for _, s := range list {
		f := g.fold.jobs[s.Name]
		if f == nil || s.Cursor != f.cursor {
			return fmt.Errorf("task %s is at %d, by the log %+v", s.Name, s.Cursor, f)
		}
		if f.newest(g.model.head()) > f.cursor && g.model.oldest > f.cursor+1 {
			return fmt.Errorf("task %s is at %d, the log begins with %d", s.Name, s.Cursor, g.model.oldest)
		}
	}
	return nil
}

// stepDerived reads what tasks derive: without work it is what it was, and a read that waits says for whom.
func (g *together) stepDerived() {
	g.t.Helper()
	if g.disk.isFull() || g.hurt() {
		return
	}
	j := g.jobs[g.rng.IntN(len(g.jobs))]
	f := g.fold.jobs[j.name]
	ctx, cancel := g.context()
	defer cancel()
	due := f.newest(g.fold.at) > f.cursor
	for _, up := range g.jobs { // what feeds it is due first
		if follows(j, up) {
			due = due || g.fold.jobs[up.name].newest(g.fold.at) > g.fold.jobs[up.name].cursor
		}
	}
	_, err := g.db.Space(j.out...).Get(ctx, batchlog.K("seen"), batchlog.MaxWait(3*time.Millisecond))
	switch {
	case err == nil || errors.Is(err, batchlog.ErrNotFound):
		if due {
			g.t.Fatalf("step %d: a read of what %s derives does not wait, cursor %d, due %d", g.step, j.name, f.cursor, f.newest(g.fold.at))
		}
	case errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "task"):
		if !due {
			g.t.Fatalf("step %d: a read of what %s derives waits for nothing: %v", g.step, j.name, err)
		}
	case !g.excused(err):
		g.must("read of what is derived", err)
	}
	g.met["derived reads"]++
}
