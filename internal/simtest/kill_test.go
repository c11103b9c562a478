package simtest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

var flagKills = flag.Int("simtest.kills", 6, "processes to kill while they write")

// A process that is killed at any moment takes nothing with it that was acknowledged, and leaves no half of a write behind.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	var h ledger
	for round := range *flagKills {
		p := startWriter(t, orders{Dir: dir, Round: round, Workers: 16, Errors: 1})
		p.awaitFirst(t)
		time.Sleep(10*time.Millisecond + rand.N(290*time.Millisecond))
		p.kill()
		if len(p.errs) > 0 {
			t.Errorf("round %d: writes failed before the kill: %.200q", round, p.errs)
		}
		h.add(t, p)
		h.check(t, dir, round == *flagKills-1)
		if t.Failed() {
			t.Fatalf("that was round %d", round)
		}
	}
	t.Logf("%d kills, %d commits, %d acknowledged", *flagKills, len(h.log), len(h.acked))
}

// jobsForKill are run by processes that are killed: one derives, one feeds on that and more, one only writes.
func jobsForKill() []*job {
	return []*job{
		{name: "derives", source: [][]any{{"users"}}, out: []any{"out", 0}, derives: true, exact: true, flaky: true},
		{name: "feeds on it", source: [][]any{{"out", 0}, {"orders"}}, out: []any{"out", 1}, derives: true},
		{name: "writes", source: [][]any{{"orders"}}, out: []any{"out", 2}, exact: true, slow: true},
	}
}

// hireForKill puts workers on the jobs, in each round others.
func hireForKill(c *crew, round int) {
	for i, j := range jobsForKill() {
		for n := range 1 + (round+i)%3 {
			c.hire(c.db.DB, j, func(k *task.Task) {
				k.Concurrency, k.Window.Commits, k.Lease = 1+(round+n)%4, 1+(17*round+5*i)%40, 200*time.Millisecond
			})
		}
	}
}

// A process that is killed while it runs tasks takes no window with it that was committed, leaves no half of one behind, and the next one goes
// on where it was.
func TestKillTasks(t *testing.T) {
	dir := t.TempDir()
	f := newFold(jobsForKill())
	for round := range *flagKills {
		p := startWriter(t, orders{Dir: dir, Round: round, Workers: 2, Errors: 1, Tasks: true})
		p.awaitFirst(t)
		time.Sleep(10*time.Millisecond + rand.N(290*time.Millisecond))
		p.kill()
		if len(p.errs) > 0 {
			t.Errorf("round %d: writes failed before the kill: %.200q", round, p.errs)
		}
		foldAfterKill(t, dir, f, round, round == *flagKills-1)
	}
	windows := 0
	for _, j := range f.jobs {
		windows += j.met["windows"]
	}
	t.Logf("%d kills, %d commits, %d windows", *flagKills, f.at, windows)
	if windows == 0 {
		t.Error("no window was committed: the test shows nothing")
	}
}

// foldAfterKill opens what a process left and reads on in its log. In the end the tasks are run until they have handled all.
func foldAfterKill(t *testing.T, dir string, f *fold, round int, end bool) {
	t.Helper()
	db, err := local.Open(dir, realOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := bounded(patience)
	defer cancel()
	if err := f.read(ctx, db.DB); err != nil {
		t.Fatalf("after the kill in round %d: %v", round, err)
	}
	for _, j := range f.jobs {
		got, err := db.Space(j.out...).Get(ctx, batchlog.K("chain"), batchlog.Stale())
		if j.chain != "" && (err != nil || string(got) != j.chain) {
			t.Fatalf("after the kill in round %d: task %s has come to %s, the fold to %s: %v", round, j.name, got, j.chain, err)
		}
	}
	if !end {
		return
	}
	c := &crew{db: db}
	defer c.dismiss(nil)
	hireForKill(c, round+1)
	for {
		done, err := f.handledAll(ctx, db.DB)
		if err == nil {
			err = c.failed()
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("after the last kill: %v", fmt.Errorf("%w, %w", ctx.Err(), err))
		}
		if done {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	c.dismiss(nil)
	if err := f.read(ctx, db.DB); err != nil {
		t.Fatal(err)
	}
	if err := f.compare(ctx, db.DB); err != nil {
		t.Error(err)
	}
}
