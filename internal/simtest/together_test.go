package simtest

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// TestTogether runs random programs with everything on: all that the other programs of this package do one by one, on one database, with other options at each
// opening, hooks that write, tasks, undo, a clock that jumps, copies of the directory, kills and losses of power, faults and full disks.
//
// A program runs in a bubble of its own (testing/synctest): time is virtual, a call that would never return ends the program at once, and so does a goroutine
// that is left over at the end. What happens in a step is drawn from the seed and the number of the step alone, so steps can be left out (-simtest.skip)
// and the others are still what they were; -simtest.shrink leaves out what a failure does not need.
func TestTogether(t *testing.T) {
	met := map[string]int{}
	for seed := range seeds(16, 5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			shrinkAfter(t, seed)
			runTogether(t, seed, met)
		})
	}
	if testing.Verbose() {
		t.Log(met)
	}
}

// TestTogetherTwice runs seeds twice: what happens, step by step, is the same. It is so for every other seed, whose faults, crashes and workers of tasks come only where the order of things does not
// depend on which goroutine is faster: crashes between steps and at writes and syncs of the log, faults there, and tasks that have the database to themselves while they work.
func TestTogetherTwice(t *testing.T) {
	for seed := range seeds(2, 1) {
		if *flagSeed == 0 {
			seed *= 2
		}
		var traces [2][]string
		for i := range traces {
			t.Run(fmt.Sprintf("seed %d run %d", seed, i), func(t *testing.T) { traces[i] = runTogether(t, seed, map[string]int{}) })
		}
		for i := range min(len(traces[0]), len(traces[1])) {
			if traces[0][i] != traces[1][i] {
				t.Errorf("seed %d: step %d was %s, then %s\nbefore: %s", seed, i, traces[0][i], traces[1][i], strings.Join(traces[0][max(0, i-3):i], "\n"))
				break
			}
		}
		if len(traces[0]) != len(traces[1]) {
			t.Errorf("seed %d: %d steps, then %d", seed, len(traces[0]), len(traces[1]))
		}
	}
}

// A together is one program with everything on.
type together struct {
	*run
	exact      bool // the same seed gives the same trace
	skip       skips
	start      time.Time
	streamed   bool // the index is kept by a streamed hook, since the last opening
	jobs       []*job
	fold       *fold
	crew       *crew
	halfFilled bool // a backfill has not come to its end: what it has made so far is kept for the next one
	working    bool // tasks have worked since the database was opened, so that it may hold commits of theirs that nobody has seen
	boots      int  // of the machine, so far
	booted     time.Time
	ended      bool // the process was ended last, the machine runs on
	bootDisk   *disk
	paused     bool // a task may be
	copies     []*copied
	fence      fence
	posts      posts
	trace      []string
	memTable   int64         // Options.MemTableBytes of the next opening; 0: any
	opening    bool          // the database is being opened
	steps      *atomic.Int64 // that were done, for who looks whether it goes on
}

// togetherSteps is how many steps a program has.
const togetherSteps = 220

// wallPatience is how long a step may take, in real time.
const wallPatience = 30 * time.Second

// runTogether runs one program and returns its trace.
func runTogether(t *testing.T, seed uint64, met map[string]int) (trace []string) {
	t.Helper()
	var g *together
	var steps atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				bubbleEnded(t, seed, p)
			}
		}()
		synctest.Test(t, func(t *testing.T) {
			g = newTogether(t, seed)
			g.steps = &steps
			defer func() { // the bubble ends only when they do
				if t.Failed() {
					g.abandon()
				}
			}()
			g.program()
		})
	}()
	for last, quiet := int64(-1), time.Duration(0); ; {
		select {
		case <-done:
			if g != nil {
				for what, n := range g.met {
					met[what] += n
				}
				for what, n := range g.did {
					met["step "+what] += n
				}
				trace = g.trace
			}
			return trace
		case <-time.After(time.Second):
			quiet += time.Second
		}
		if now := steps.Load(); now != last {
			last, quiet = now, 0
		}
		if quiet > wallPatience {
			standsStill(t, seed, met)
			return nil
		}
	}
}

// standsStill says why a program does not go on. That a goroutine waits for a lock whose holder sleeps is no fault of the database, but time in a bubble
// does not pass for it: such a program is given up.
func standsStill(t *testing.T, seed uint64, met map[string]int) {
	t.Helper()
	left := bubbled()
	if strings.Contains(left, "pebble/v2.(*DB).compact(") && strings.Contains(left, "[runnable") && off("compactions that can't read") {
		met["given up"]++
		t.Logf("seed %d is given up: a compaction is tried again and again, and time stands still", seed)
		return
	}
	if strings.Contains(left, "[sync.Mutex.Lock") && strings.Contains(left, "patientFS") {
		met["given up"]++
		t.Logf("seed %d is given up: time stands still for who waits for a lock", seed)
		return
	}
	t.Errorf("seed %d: a step does not end:\n%s", seed, left)
}

// bubbleEnded says what it means that a bubble ended with p.
func bubbleEnded(t *testing.T, seed uint64, p any) {
	t.Helper()
	what := fmt.Sprint(p)
	if strings.Contains(what, "blocked goroutines remain") {
		left := bubbled()
		theirs := !slices.ContainsFunc(strings.Split(left, "\n\n"), func(s string) bool { return !strings.Contains(s, "/pebble/") })
		if !t.Failed() && !(theirs && off("what is left of a lost disk")) {
			t.Errorf("seed %d: goroutines are left when the database is closed:\n%s", seed, left)
		}
		return
	}
	t.Errorf("seed %d: %s\n%s", seed, what, bubbled())
}

// bubbled is the stacks of goroutines in bubbles.
func bubbled() string {
	buf := make([]byte, 4<<20)
	var list []string
	for s := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(s, "synctest bubble") {
			list = append(list, s)
		}
	}
	return strings.Join(list, "\n\n")
}

// newTogether is a program.
func newTogether(t *testing.T, seed uint64) *together {
	t.Helper()
	m := randomMix(seed)
	m.crashes, m.faults, m.full, m.inverseBytes, m.steps = true, true, true, 0, togetherSteps
	if *flagSteps > 0 {
		m.steps = *flagSteps
	}
	g := &together{run: newRun(t, seed, m), exact: seed%2 == 0, start: time.Now()}
	g.skip = parseSkips(t, *flagSkip)
	g.wide, g.clock.real = true, time.Now()
	g.disk.ordered = true
	g.disk.counted, g.faulty = g.counted, g.counted
	g.fence.begin(g)
	g.newJobs()
	g.model.effects, g.model.foreign = hookEffects, g.isForeign
	g.absorb = g.absorbTasks
	g.tune, g.opened = g.options, g.isOpen
	return g
}

// counted says of a change whether a crash or a fault may come at it: at every one, or at one whose turn does not depend on goroutines.
func (g *together) counted(op diskOp) bool {
	if g.opening && strings.Contains(op.path, "/store/") && off("faults of the store while it opens") {
		return false
	}
	if !g.exact {
		return true
	}
	return strings.HasSuffix(op.path, ".seg") && (op.kind == "write" || op.kind == "sync")
}

// isOpen is called when the database has been opened.
func (g *together) isOpen() {
	g.opening = false
	g.crew = &crew{db: g.db}
	if g.fence.uuid == "" {
		g.fence.meet(g)
	}
	g.bindHooks(g.db)
}

// step n draws from a source of its own.
func (g *together) seedStep(n int) {
	g.run.step = n
	g.rng = rand.New(rand.NewPCG(g.seed, 0x70<<32|uint64(n)))
}

// program does the steps.
func (g *together) program() {
	g.t.Helper()
	g.seedStep(0)
	g.mustOpen()
	g.registerJobs()
	g.stepConfigure()
	for n := 1; n <= g.mix.steps; n++ {
		g.steps.Add(1)
		g.seedStep(n)
		name := g.pick()
		if g.skip.has(n) {
			continue
		}
		g.did[name]++
		g.do(name)
		g.after(name)
	}
	g.seedStep(g.mix.steps + 1)
	g.finish()
}

// do does one step.
func (g *together) do(name string) {
	if *flagSkip != "" || *flagLog {
		g.t.Logf("%d: %s, at %s", g.step, name, g.clock.now().Format(time.RFC3339))
	}
	if own, ok := ownSteps[name]; ok {
		own.do(g)
	} else {
		steps[name].do(g.run)
	}
	synctest.Wait()
}

// after asserts what is always true, and notes what happened.
func (g *together) after(name string) {
	g.t.Helper()
	crashed := g.disk.crashed()
	pending := slices.Clone(g.model.pending)
	g.checkStep()
	synctest.Wait()
	g.working = g.working && !crashed
	if !g.disk.crashed() {
		g.fence.check(g)
		g.readFold()
		g.posts.check(g)
	}
	if crashed {
		g.retry(pending)
	}
	h := fnv.New64a()
	for _, p := range slices.SortedFunc(maps.Keys(g.model.now), comparePlaces) {
		_, _ = fmt.Fprintf(h, "%v=%q\n", p, g.model.now[p])
	}
	g.trace = append(g.trace, fmt.Sprintf("%d %s: head %d, oldest %d, state %x, power %t, full %t, %q", g.step, name, g.model.head(), g.model.oldest, h.Sum64(),
		crashed, g.disk.isFull(), g.outcomes))
	if *flagTrace {
		g.t.Log(g.trace[len(g.trace)-1])
	}
}

func comparePlaces(a, b place) int {
	if a.space != b.space {
		return a.space - b.space
	}
	return strings.Compare(a.key, b.key)
}

// finish closes and opens once more, and looks at everything.
func (g *together) finish() {
	g.t.Helper()
	g.disk.clear()
	g.reopen("last")
	g.disk.clear()
	g.disk.forgive()
	if g.disk.crashed() {
		g.recover("last")
		g.disk.clear()
	}
	g.work(true)
	g.verify()
	g.readFold()
	ctx, cancel := g.context()
	defer cancel()
	g.must("tasks in the end", g.fold.compare(ctx, g.db.DB))
	g.openCopies()
	g.explainFiles()
	g.end()
	g.fence.check(g)
}

// abandon ends what would keep the bubble from ending, after a failure.
func (g *together) abandon() {
	g.disk.clear()
	if g.crew != nil {
		g.crew.dismiss(nil)
	}
	g.letGo()
	if g.db != nil {
		_ = closeWithin(g.db, patience)
	}
	for _, c := range g.copies {
		if c.db != nil {
			_ = closeWithin(c.db, patience)
		}
	}
}

// retry writes again, with their tokens, batches whose outcome was not known when the power went: each is committed once.
func (g *together) retry(pending []commit) {
	g.t.Helper()
	for _, c := range pending {
		if c.token == "" || c.chain != nil || g.disk.crashed() {
			continue
		}
		c.hooked, c.at = false, g.clock.now()
		c.ops = []op{{kind: batchlog.OpPut, space: 1, key: "again", value: g.value()}}
		g.met["retries"]++
		g.submitToken(c)
	}
	g.after2()
}

// after2 has what follows a step done for what was added to it.
func (g *together) after2() {
	synctest.Wait()
	if g.disk.crashed() {
		g.recover("crash")
	}
}

// submitToken writes c, whose token may be that of a commit: then that is what it gets, as long as the log has it.
func (g *together) submitToken(c commit) {
	g.t.Helper()
	first, known := g.model.tokens[c.token]
	b := batchlog.Batch{Token: c.token, Labels: maps.Clone(c.labels)}
	for _, o := range c.ops {
		g.add(&b, o)
	}
	ctx, cancel := g.context()
	defer cancel()
	id, err := g.db.Write(ctx, &b)
	switch {
	case err == nil && known && id == first:
		g.log("token %q again: %d", c.token, id)
		g.met["token known"]++
	case err == nil && known && first >= g.model.oldest:
		g.t.Fatalf("step %d: token %q is commit %d, want %d", g.step, c.token, id, first)
	default:
		if known && err == nil {
			g.met["token free again"]++
		}
		g.settle(c, id, err)
	}
}

// options changes how the database is opened: other sizes each time.
func (g *together) options(o *local.Options) {
	g.opening = true
	if g.bootDisk != g.disk && !g.ended {
		g.boots++
		g.booted = time.Now()
	}
	g.bootDisk, g.ended = g.disk, false
	o.Uptime = func() (string, time.Duration) { return fmt.Sprint("run ", g.boots), time.Since(g.booted) }
	defer func() {
		if g.memTable > 0 {
			o.MemTableBytes, g.memTable = g.memTable, 0
		}
	}()
	pick := func(sizes ...int64) int64 { return sizes[g.rng.IntN(len(sizes))] }
	o.CacheBytes = pick(64<<10, 1<<20, 16<<20)
	o.MemTableBytes = pick(64<<10, 64<<10, 256<<10, 1<<20, 64<<20)
	o.ChainBytes = pick(16<<10, 16<<10, 64<<10, 1<<20, 32<<20)
	o.InverseBytes = pick(0, 0, 0, 8<<10)
	g.kept.limit = 0
	if o.InverseBytes > 0 {
		g.kept.all = 0 // what is applied again may now be too large
	}
	g.log("open with cache %d, memtable %d, chain %d, inverse %d", o.CacheBytes, o.MemTableBytes, o.ChainBytes, o.InverseBytes)
}

// posts are the commits that a post-commit hook is called for.
type posts struct {
	sync.Mutex
	ids   []batchlog.ID
	from  batchlog.ID // the hook is bound since then
	round int
}

// bindPost binds a hook to all commits.
func (g *together) bindPost(db *local.DB) {
	g.posts.Lock()
	defer g.posts.Unlock()
	g.posts.round++
	round := g.posts.round
	g.posts.ids, g.posts.from = nil, 0
	db.PostCommit(db.Root(), func(c *batchlog.Commit) {
		g.posts.Lock()
		defer g.posts.Unlock()
		if g.posts.round == round {
			g.posts.ids = append(g.posts.ids, c.ID)
		}
	})
}

// check asserts that the hook was called for every commit, in order, once nothing goes on.
func (p *posts) check(g *together) {
	g.t.Helper()
	p.Lock()
	defer p.Unlock()
	if g.disk.faults() > 0 || g.disk.isFull() || g.disk.crashed() {
		return
	}
	if !slices.IsSorted(p.ids) {
		g.t.Fatalf("step %d: a post-commit hook is called for %v", g.step, p.ids)
	}
	if len(p.ids) == 0 {
		return
	}
	i := 0
	for id := p.ids[0]; id <= g.model.head(); id++ {
		if len(g.model.commits[id-1].ops) == 0 {
			continue
		}
		if i >= len(p.ids) || p.ids[i] != id {
			g.t.Fatalf("step %d: a post-commit hook is not called for commit %d; it was for %v", g.step, id, p.ids[max(0, i-3):])
		}
		i++
	}
	g.met["post-commit"] += len(p.ids)
	p.ids = nil
}
