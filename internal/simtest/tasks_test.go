package simtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/taskstate"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Random programs of tasks: several of them, chained, deriving or not, with several workers each that come and go, over a database that is
// written to, read, trimmed and crashed. The log must be, commit by commit, what a sequential fold of it comes to.
func TestTaskPrograms(t *testing.T) {
	met := map[string]int{}
	for seed := range seeds(8, 2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newTaskProgram(t, seed)
			p.run()
			for _, j := range p.fold.jobs {
				for what, n := range j.met {
					met[what] += n
				}
			}
			for what, n := range p.met {
				met[what] += n
			}
		})
	}
	t.Log(met)
}

// The spaces that programs write to.
var taskSources = [][]any{{"a"}, {"a", "in"}, {"b"}, {"c"}}

const taskTTL = time.Hour

// A taskProgram is one random program.
type taskProgram struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	clock *clock
	fs    *crashfs.FS
	db    *local.DB
	jobs  []*job
	crew  *crew
	fold  *fold
	met   map[string]int

	names sync.RWMutex // held for reading by who relies on all tasks being there

	mu      sync.Mutex
	sights  []sight
	stopped bool // what comes now is about a database that is lost
	written int
}

// A sight is what a view showed of a job.
type sight struct {
	view batchlog.ID
	job  string
	handled
}

func newTaskProgram(t *testing.T, seed uint64) *taskProgram {
	t.Helper()
	p := &taskProgram{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0x7a5c)), clock: newClock(), fs: crashfs.New(), met: map[string]int{}}
	for i := range 2 + p.rng.IntN(4) {
		j := &job{name: fmt.Sprint("job ", i), out: []any{"out", i}, derives: p.rng.IntN(3) > 0, exact: true, flaky: p.rng.IntN(2) == 0, slow: p.rng.IntN(3) == 0}
		for _, path := range taskSources {
			if p.rng.IntN(3) == 0 {
				j.source = append(j.source, path)
			}
		}
		for _, up := range p.jobs {
			if p.rng.IntN(3) == 0 {
				j.source = append(j.source, up.out)
				j.exact = j.exact && !up.derives
			}
		}
		if len(j.source) == 0 {
			j.source = [][]any{{"a"}}
		}
		if p.rng.IntN(4) == 0 {
			j.poison, j.flaky = task.Park+task.Poison(p.rng.IntN(2)), false
		}
		p.jobs = append(p.jobs, j)
	}
	p.fold = newFold(p.jobs)
	return p
}

func (p *taskProgram) failed(what string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("seed %d: %s: %v", p.seed, what, err)
	}
}

func (p *taskProgram) run() {
	rounds := 2 + p.rng.IntN(3)
	for round := range rounds {
		p.open()
		last := round == rounds-1
		crash := !last && p.rng.IntN(3) > 0
		p.round(crash)
		if last {
			p.finish()
		}
		if !crash || last {
			p.check()
		}
		fs := p.fs
		if crash {
			p.mu.Lock()
			p.stopped = true
			fs = p.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: p.rng.IntN(101), RNG: p.rng})
			p.mu.Unlock()
			p.met["crashes"]++
		}
		p.crew.dismiss(nil)
		if !crash {
			p.failed("workers", p.crew.failed())
			p.check()
		}
		p.failed("close", p.db.Close())
		p.fs = fs
	}
}

// open opens the database and puts workers on each job.
func (p *taskProgram) open() {
	o := local.Options{
		FS: p.fs, Logger: testLogger(p.t), CacheBytes: 1 << 20, MemTableBytes: 128 << 10, Now: p.clock.now,
		Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: taskTTL, Undo: p.seed%2 == 0},
	}
	db, err := local.Open("db", &o)
	p.failed("open", err)
	p.t.Cleanup(func() { db.Close() })
	p.db, p.crew, p.stopped = db, &crew{db: db}, false
	p.t.Cleanup(func(c *crew) func() { return func() { c.dismiss(nil) } }(p.crew))
	for _, j := range p.jobs {
		for range 1 + p.rng.IntN(3) {
			p.hire(j)
		}
		p.await(j.name+" is there", func() (bool, error) {
			_, err := task.Get(context.Background(), db.DB, j.name)
			return err == nil, nil
		})
	}
}

func (p *taskProgram) hire(j *job) {
	concurrency, commits, size := 1+p.rng.IntN(4), 1+p.rng.IntN(20), 0
	if p.rng.IntN(3) == 0 {
		size = 1 + p.rng.IntN(1000)
	}
	wait := time.Duration(p.rng.IntN(3)/2*p.rng.IntN(8)) * time.Millisecond
	lease := time.Duration(60+p.rng.IntN(400)) * time.Millisecond
	p.crew.hire(p.db.DB, j, func(k *task.Task) {
		k.Concurrency, k.Lease, k.Window = concurrency, lease, task.Limit{Commits: commits, Bytes: size, Wait: wait}
		k.Logger = testLogger(p.t)
		if j.one() {
			k.Window.Commits = 1
		}
	})
}

// round is some writers and readers, and beside them, one by one, what happens to tasks. crash: it need not come to its end.
func (p *taskProgram) round(crash bool) {
	ctx, stop := context.WithCancel(context.Background())
	var writers, readers sync.WaitGroup
	defer func() { // also if the test ends here
		stop()
		writers.Wait()
		readers.Wait()
	}()
	for range 2 {
		rng := rand.New(rand.NewPCG(p.rng.Uint64(), 1))
		writers.Go(func() { p.writeLoop(rng, 40) })
		eyes := rand.New(rand.NewPCG(p.rng.Uint64(), 2))
		readers.Go(func() { p.readLoop(ctx, eyes) })
	}
	for range p.rng.IntN(14) {
		p.act()
		time.Sleep(time.Duration(p.rng.IntN(10)) * time.Millisecond)
	}
	for _, j := range p.jobs { // so that somebody works
		if len(p.crew.working()) == 0 || p.rng.IntN(2) == 0 {
			p.hire(j)
		}
	}
	if crash {
		p.mu.Lock()
		p.stopped = true
		p.mu.Unlock()
	}
	writers.Wait()
}

// writeLoop writes batches of all kinds of ops.
func (p *taskProgram) writeLoop(rng *rand.Rand, n int) {
	for range n {
		id, err := p.write(rng)
		if err != nil {
			p.t.Errorf("seed %d: write: %v", p.seed, err)
			return
		}
		if rng.IntN(4) == 0 {
			p.names.RLock()
			p.readOwn(rng, id)
			p.names.RUnlock()
		}
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Microsecond)
	}
}

func (p *taskProgram) write(rng *rand.Rand) (batchlog.ID, error) {
	ctx, cancel := bounded(patience)
	defer cancel()
	p.mu.Lock()
	p.written++
	n := p.written
	p.mu.Unlock()
	var b batchlog.Batch
	for range 1 + rng.IntN(3) {
		s := p.db.Space(taskSources[rng.IntN(len(taskSources))]...)
		switch key := batchlog.K(rng.IntN(20)); rng.IntN(6) {
		case 0:
			b.Delete(s, key)
		case 1:
			b.DeleteRange(s, batchlog.Range{Low: key, High: batchlog.K(20)})
		default:
			b.Put(s, key, fmt.Appendf(nil, "%d %0*d", n, rng.IntN(300), 0))
		}
	}
	return p.db.Write(ctx, &b)
}

// readOwn reads, after commit id was written, a derived space: what its job makes of the commit must show, whatever lies between.
func (p *taskProgram) readOwn(rng *rand.Rand, id batchlog.ID) {
	ctx, cancel := bounded(patience)
	defer cancel()
	j := p.jobs[rng.IntN(len(p.jobs))]
	direct := false // it handles the commit itself, which can't be told from here: only its source says
	for c, err := range p.db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(id), Until: id, Spaces: p.sources(j)}) {
		if err != nil {
			if !errors.Is(err, batchlog.ErrGap) {
				p.t.Errorf("seed %d: commit %d: %v", p.seed, id, err)
			}
			return
		}
		direct = c.ID == id
	}
	if !direct || !j.derives || j.one() {
		return
	}
	v, err := p.db.Space(j.out...).Get(ctx, batchlog.K("seen"))
	var seen batchlog.ID
	if err == nil {
		err = scanID(string(v), &seen)
	}
	if err != nil || seen < id {
		p.t.Errorf("seed %d: after commit %d a read of what %s derives shows that it has seen %d: %v", p.seed, id, j.name, seen, err)
	}
	// What is derived from that, too, if all between is derived.
	for _, down := range p.jobs {
		if !down.derives || down.one() || !follows(down, j) {
			continue
		}
		v, err := p.db.Space(down.out...).Get(ctx, batchlog.K("root"))
		var root batchlog.ID
		if err == nil {
			err = scanID(string(v), &root)
		}
		if err != nil || root < id {
			p.t.Errorf("seed %d: after commit %d a read of what %s derives by way of %s shows %d: %v", p.seed, id, down.name, j.name, root, err)
		}
	}
}

// follows says whether down follows what up writes.
func follows(down, up *job) bool {
	for _, path := range down.source {
		if fmt.Sprint(path) == fmt.Sprint(up.out) {
			return true
		}
	}
	return false
}

func (p *taskProgram) sources(j *job) (list []*batchlog.Space) {
	for _, path := range j.source {
		list = append(list, p.db.Space(path...))
	}
	return list
}

// readLoop takes views and notes what they show of jobs.
func (p *taskProgram) readLoop(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		p.names.RLock()
		p.look(rng)
		p.names.RUnlock()
		time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
	}
}

func (p *taskProgram) look(rng *rand.Rand) {
	ctx, cancel := bounded(patience)
	defer cancel()
	v, err := p.db.View(ctx)
	if err != nil {
		p.t.Errorf("seed %d: view: %v", p.seed, err)
		return
	}
	defer v.Close()
	for _, j := range p.jobs {
		if rng.IntN(3) == 0 || !j.derives {
			continue
		}
		if rng.IntN(4) == 0 {
			time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond) // tasks go on, the view stays
		}
		h, err := load(v, p.db.Space(j.out...))
		if err != nil {
			p.t.Errorf("seed %d: view at %d of what %s derives: %v", p.seed, v.ID(), j.name, err)
			return
		}
		p.mu.Lock()
		if !p.stopped {
			p.sights = append(p.sights, sight{view: v.ID(), job: j.name, handled: h})
		}
		p.mu.Unlock()
	}
}

// act does something to tasks or workers.
func (p *taskProgram) act() {
	ctx, cancel := bounded(patience)
	defer cancel()
	j := p.jobs[p.rng.IntN(len(p.jobs))]
	kind := []string{"hire", "dismiss", "fire", "pause", "reset", "drop", "trim", "check", "retry"}[p.rng.IntN(9)]
	p.met[kind]++
	switch kind {
	case "hire":
		p.hire(j)
	case "dismiss":
		p.crew.dismiss(j)
		p.hire(j)
	case "fire":
		if all := p.crew.working(); len(all) > 0 {
			h := all[p.rng.IntN(len(all))]
			h.stop()
			<-h.done
			p.hire(h.job)
		}
	case "pause":
		if err := task.Pause(ctx, p.db.DB, j.name); err != nil {
			p.t.Fatalf("seed %d: pause: %v\n%s", p.seed, err, p.states())
		}
		time.Sleep(time.Duration(p.rng.IntN(20)) * time.Millisecond)
		p.failed("resume", task.Resume(ctx, p.db.DB, j.name))
	case "reset":
		p.reset(ctx, j)
	case "drop":
		p.names.Lock()
		defer p.names.Unlock()
		s, err := task.Get(ctx, p.db.DB, j.name)
		p.failed("status", err)
		if p.rng.IntN(2) == 0 {
			p.crew.dismiss(j)
		}
		p.failed("drop", task.Drop(ctx, p.db.DB, j.name))
		p.crew.dismiss(j)
		for range 1 + p.rng.IntN(2) {
			p.crew.hire(p.db.DB, j, func(k *task.Task) {
				k.Start, k.Lease = batchlog.After(s.Cursor), 100*time.Millisecond
				if j.one() {
					k.Window.Commits = 1
				}
			})
		}
		p.await(j.name+" is there again", func() (bool, error) {
			_, err := task.Get(ctx, p.db.DB, j.name)
			return err == nil, nil
		})
	case "trim":
		p.failed("the log", p.fold.read(ctx, p.db.DB))
		p.clock.add(taskTTL * 6 / 10)
		p.failed("trim", p.db.Trim(ctx))
	case "check":
		p.check()
	case "retry":
		_, err := task.RetryParked(ctx, p.db.DB, j.name, 0)
		p.failed("retry", err)
	}
}

// reset sends a job back, as far as the log is there.
func (p *taskProgram) reset(ctx context.Context, j *job) {
	s, err := task.Get(ctx, p.db.DB, j.name)
	p.failed("status", err)
	st, err := p.db.Status(ctx)
	p.failed("status", err)
	if s.Cursor <= st.Oldest {
		return
	}
	back := batchlog.ID(p.rng.Uint64N(min(uint64(s.Cursor-st.Oldest), 60)))
	if err := task.Reset(ctx, p.db.DB, j.name, batchlog.At(s.Cursor-back)); !errors.Is(err, batchlog.ErrGap) { // trimmed meanwhile
		p.failed("reset", err)
	}
}

func (p *taskProgram) await(what string, ok func() (bool, error)) {
	p.t.Helper()
	ctx, cancel := bounded(patience)
	defer cancel()
	for {
		done, err := ok()
		p.failed(what, err)
		if done {
			return
		}
		if ctx.Err() != nil {
			p.t.Fatalf("seed %d: not yet: %s\n%s", p.seed, what, p.states())
		}
		p.failed("workers", p.crew.failed())
		time.Sleep(2 * time.Millisecond)
	}
}

// states is how the tasks are, for who reads why a test hangs.
func (p *taskProgram) states() string {
	v, err := p.db.View(context.Background(), batchlog.Stale())
	if err != nil {
		return err.Error()
	}
	defer v.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "log at %d\n", v.ID())
	for _, j := range p.jobs {
		l, known, err := taskstate.Read(v, p.db.DB, j.name)
		if err != nil || !known {
			fmt.Fprintf(&b, "%s: %t %v\n", j.name, known, err)
			continue
		}
		fmt.Fprintf(&b, "%s: cursor %d, has to handle %d, control %+v, claims %v, workers", j.name, l.Cursor.ID, p.fold.jobs[j.name].newest(v.ID()), l.Control, l.Claims)
		for fence, w := range l.Workers {
			fmt.Fprintf(&b, " %d: %d–%d", fence, w.First, w.Last)
		}
		if l.Trouble != nil {
			fmt.Fprintf(&b, ", trouble at %d–%d, attempt %d: %.60s", l.Trouble.First, l.Trouble.Last, l.Trouble.Attempts, l.Trouble.Error)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// finish lets all jobs come to the end.
func (p *taskProgram) finish() {
	for _, j := range p.jobs {
		if j.poison == task.Park {
			_, err := task.RetryParked(context.Background(), p.db.DB, j.name, 0)
			p.failed("retry", err)
		}
	}
	p.await("all is retried", func() (bool, error) {
		for _, j := range p.jobs {
			parked, err := task.Parked(context.Background(), p.db.DB, j.name)
			if err != nil {
				return false, err
			}
			for _, w := range parked {
				if w.Retry {
					return false, nil
				}
			}
		}
		return true, nil
	})
	p.await("all is handled", func() (bool, error) { return p.fold.handledAll(context.Background(), p.db.DB) })
	for _, j := range p.jobs {
		s, err := task.Get(context.Background(), p.db.DB, j.name)
		p.failed("status", err)
		if s.State != "idle" {
			p.t.Errorf("seed %d: %s is %s in the end: %+v", p.seed, j.name, s.State, s)
		}
	}
	p.crew.dismiss(nil)
	ctx, cancel := bounded(patience)
	defer cancel()
	p.failed("the log", p.fold.read(ctx, p.db.DB))
	p.failed("the end", p.fold.compare(ctx, p.db.DB))
}

// check reads the log and compares what was seen with it.
func (p *taskProgram) check() {
	p.t.Helper()
	ctx, cancel := bounded(patience)
	defer cancel()
	p.mu.Lock()
	sights := p.sights
	p.sights = nil
	p.mu.Unlock()
	st, err := p.db.Status(ctx)
	p.failed("status", err)
	if p.seed%2 == 0 {
		kept := keeping{on: true, sure: true, from: 1}
		p.failed("inverses", kept.check(&st))
	}
	p.failed("the log", p.fold.read(ctx, p.db.DB))
	for _, s := range sights {
		j := p.fold.jobs[s.job]
		cursor, known := j.moves[s.chain]
		if s.chain != "" && !known {
			p.t.Fatalf("seed %d: a view at %d shows of %s %+v, which it never came to", p.seed, s.view, s.job, s.handled)
		}
		if want := j.newest(s.view); j.exact && !j.one() && (s.seen != want || j.newest(cursor) != want && s.chain != "") {
			p.t.Fatalf("seed %d: a view at %d shows of %s %+v, of cursor %d; it has to show it at %d", p.seed, s.view, s.job, s.handled, cursor, want)
		} else if !j.exact && !j.one() && s.seen < want {
			p.t.Logf("seed %d: view at %d, %s, %+v", p.seed, s.view, s.job, s.handled)
		}
		p.met["sights"]++
	}
}
