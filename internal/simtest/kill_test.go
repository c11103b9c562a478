package simtest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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

// A process that is killed while it fills and commits chains, copies, and puts blobs leaves each of them whole or not at all, with its inverse, and nothing that is not swept.
func TestKillChains(t *testing.T) {
	dir := t.TempDir()
	var h ledger
	kinds := map[string]int{}
	left := 0
	for round := range *flagKills {
		p := startWriter(t, orders{Dir: dir, Round: round, Workers: 3, Errors: 1, Chains: true})
		p.awaitFirst(t)
		time.Sleep(10*time.Millisecond + rand.N(290*time.Millisecond))
		p.kill()
		if len(p.errs) > 0 {
			t.Errorf("round %d: writes failed before the kill: %.200q", round, p.errs)
		}
		for w := range p.acked {
			kinds[w.kind()]++
		}
		h.add(t, p)
		h.check(t, dir, round == *flagKills-1)
		left += sweepAfterKill(t, dir)
		if t.Failed() {
			t.Fatalf("that was round %d", round)
		}
	}
	t.Logf("%d kills, %d commits, acknowledged by kind: %v; %d chains were left behind", *flagKills, len(h.log), kinds, left)
}

// sweepAfterKill sweeps what the process left, and looks that all is well then. It returns how many chains that was.
func sweepAfterKill(t *testing.T, dir string) (chains int) {
	t.Helper()
	db, err := local.Open(dir, realOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	chains, _, err = db.SweepChains(t.Context(), 0)
	if err != nil {
		t.Errorf("sweep of chains: %v", err)
	}
	if _, err := db.SweepBlobs(t.Context(), 0); err != nil {
		t.Errorf("sweep of blobs: %v", err)
	}
	list, err := db.Chains(t.Context())
	if err != nil || len(list) > 0 {
		t.Errorf("chains are %+v, %v after a sweep", list, err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "chains")); err == nil && len(names) > 0 {
		t.Errorf("%d directories of chains after a sweep", len(names))
	}
	r, err := db.Verify(t.Context(), local.VerifyOptions{})
	if err != nil || len(r.Problems) > 0 || r.Inverses != int64(r.Last) {
		t.Errorf("verify after a sweep: %v, %v; %d inverses of %d commits", err, r.Problems, r.Inverses, r.Last)
	}
	return chains
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
