package simtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// patience bounds every wait: what takes longer has hung (11). It is counted in steps of a tick, so that a machine that stands still
// for a while does not use it up.
const (
	patience = 20 * time.Second
	tick     = 20 * time.Millisecond
)

// A run is one random program on one database, and the model beside it. One goroutine does its steps, so that, but for the
// engine's own goroutines, a seed makes the same run again.
type run struct {
	t     testing.TB
	seed  uint64
	rng   *rand.Rand
	clock *clock
	model *model
	mix   mix
	kept  keeping

	disk       *disk
	db         *local.DB
	spaces     []*batchlog.Space
	config     batchlog.LogConfig
	followers  []*follower
	views      []*heldView
	chains     []*openChain
	blobs      []string  // contents that were stored
	outcomes   []string  // of the writes since the database was opened
	written    int       // number of the next value, so that no two are the same
	spaceSince time.Time // when the disk was full last
	trimmed    bool      // since it was opened something may have been trimmed
	limbo      bool      // a trim has failed: a crash may bring back what it has dropped

	// fullPatience bounds a call from when the disk gets full; 0: patience does.
	fullPatience time.Duration
	// wide says that there are hooks and tasks, so that some of the world's spaces are not for everyone to write.
	everWarm bool // there have been warm directories
	wide     bool
	tune     func(o *local.Options) // changes how the database is opened; nil: nothing does
	opened   func()                 // is called when it was; nil: nobody
	faulty   func(op diskOp) bool   // what faults may hit; nil: everything
	absorb   func(upTo batchlog.ID) // takes over what tasks have committed; nil: there are none
	sweeping bool                   // one fault or crash is to come at a certain operation, and must come

	step   int
	recent []string       // what was done last, for messages
	did    map[string]int // how often each step was done
	met    map[string]int // what happened, so that a soak can see that everything does
}

// A mix says what a program is made of.
type mix struct {
	crashes, faults, full bool
	steps                 int
	segmentBytes          int64
	memTableBytes         int64
	values                int // values are up to this large
	inverseBytes          int64
	spaceStrict           bool
}

func newRun(t *testing.T, seed uint64, m mix) *run {
	t.Helper()
	r := &run{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0xba7c)), clock: newClock(), model: newModel(), mix: m,
		did: map[string]int{}, met: map[string]int{},
		config: batchlog.LogConfig{SegmentBytes: m.segmentBytes},
		kept:   keeping{limit: m.inverseBytes},
	}
	r.disk = newDisk(nil, seed)
	r.disk.lenient = !m.spaceStrict
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, step %d: go test ./internal/simtest -run '%s' -simtest.seed=%d\nlast steps:\n  %s",
				seed, r.step, strings.SplitN(t.Name(), "/", 2)[0], seed, strings.Join(r.recent, "\n  "))
		}
	})
	return r
}

// log notes what is done.
func (r *run) log(format string, args ...any) {
	line := fmt.Sprintf("%d: ", r.step) + fmt.Sprintf(format, args...)
	if *flagTrace {
		r.t.Log(line)
	}
	if len(line) > 200 {
		line = line[:200] + "…"
	}
	if r.recent = append(r.recent, line); len(r.recent) > 40 {
		r.recent = r.recent[1:]
	}
}

// must fails the run if err is not nil.
func (r *run) must(what string, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("step %d: %s: %v", r.step, what, err)
	}
}

// context is one for a single call, which no call may outlast.
func (r *run) context() (context.Context, context.CancelFunc) {
	if r.disk.isFull() {
		return bounded(2 * time.Second)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := make(chan struct{})
	go func() {
		for left := patience / tick; left > 0; left-- {
			select {
			case <-stop:
				return
			case <-time.After(tick):
			}
			if r.fullPatience > 0 && r.disk.isFull() {
				left = min(left, r.fullPatience/tick)
			}
		}
		cancel(errHung)
	}()
	return ctx, sync.OnceFunc(func() {
		close(stop)
		cancel(nil)
	})
}

// excused says whether a read may have ended with err: because the disk failed, or was full.
func (r *run) excused(err error) bool {
	if r.disk.crashed() || r.disk.faults() > 0 {
		// What the store can't get to it can't show. But it says so, and doesn't hang.
		return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, batchlog.ErrReadOnly) || errors.Is(err, batchlog.ErrNoSpace)
	}
	return false
}

// program does the steps.
func (r *run) program() {
	r.t.Helper()
	if !r.sweeping {
		r.mustOpen()
	} else if err := r.open(); err != nil || r.disk.crashed() {
		r.firstOpen(err)
	}
	for r.step = 1; r.step <= r.mix.steps; r.step++ {
		name := r.pick()
		r.did[name]++
		began := time.Now()
		steps[name].do(r)
		r.met["ms "+name] += int(time.Since(began).Milliseconds())
		began = time.Now()
		r.checkStep()
		r.met["ms checks"] += int(time.Since(began).Milliseconds())
	}
	r.step++
	r.disk.clear()
	r.reopen("last")
	r.disk.clear()
	if r.disk.faults() == 0 {
		r.verify()
	}
	r.end()
}

// firstOpen goes on after an opening that went wrong: the next one, with what it left behind, must not.
func (r *run) firstOpen(err error) {
	r.t.Helper()
	r.log("open: %v", err)
	if err == nil {
		_ = r.closeBounded()
	} else if !r.excused(err) {
		r.must("open", err)
	}
	if r.disk.crashed() {
		r.recoverDisk()
	}
	r.openAgain("an opening that failed")
}

// end closes for good.
func (r *run) end() {
	r.letGo()
	if err := r.closeBounded(); errors.Is(err, errHung) || r.disk.faults() == 0 && !r.disk.crashed() {
		r.must("close", err)
	}
}

// checkStep asserts what is always true.
func (r *run) checkStep() {
	r.t.Helper()
	if r.disk.crashed() {
		r.met["crash"]++
		r.recover("crash")
		return
	}
	r.checkStatus()
}

// checkStatus asserts what the status says.
func (r *run) checkStatus() {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	st, err := r.db.Status(ctx)
	if err != nil && r.excused(err) {
		return
	}
	r.must("status", err)
	r.must("marks", marksOrdered(&st))
	r.model.latest = max(r.model.latest, r.clock.now().UnixMicro())
	if st.Head != r.model.head() && r.absorb != nil {
		r.absorb(st.Head)
	}
	if st.Head != r.model.head() {
		r.t.Fatalf("step %d: head is %d, want %d", r.step, st.Head, r.model.head())
	}
	if st.Oldest < r.model.oldest {
		r.t.Fatalf("step %d: oldest went from %d to %d", r.step, r.model.oldest, st.Oldest)
	}
	r.model.oldest = st.Oldest
	if st.State == "read-only" && r.disk.faults() == 0 && !r.disk.crashed() {
		r.t.Fatalf("step %d: read-only without a reason: %s", r.step, st.Reason)
	}
	r.must("writes", failedStaysFailed(r.outcomes))
	r.met["warm segments"] = max(r.met["warm segments"], st.Logs[0].Warm)
	r.must("inverses", r.kept.check(&st))
}

// pick is a random step, by weight.
func (r *run) pick() string {
	total := 0
	for _, name := range stepNames {
		total += r.weight(name)
	}
	n := r.rng.IntN(total)
	for _, name := range stepNames {
		if n -= r.weight(name); n < 0 {
			return name
		}
	}
	panic("no step")
}

func (r *run) weight(name string) int {
	s := steps[name]
	if s.when != nil && !s.when(r) {
		return 0
	}
	return s.weight
}

// A step of a program.
type step struct {
	weight int
	do     func(r *run)
	when   func(r *run) bool // nil: always
}

// TestPrograms runs random programs, each with everything that may go wrong, or with none of it.
func TestPrograms(t *testing.T) {
	total := map[string]int{}
	var mu sync.Mutex
	for seed := range seeds(24, 8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := newRun(t, seed, randomMix(seed))
			r.program()
			mu.Lock()
			defer mu.Unlock()
			for what, n := range r.met {
				total[what] += n
			}
			for what, n := range r.did {
				total["step "+what] += n
			}
		})
	}
	if testing.Verbose() {
		t.Log(total)
	}
}

// randomMix is what the program with that seed is made of.
func randomMix(seed uint64) mix {
	rng := rand.New(rand.NewPCG(seed, 0x1111))
	m := mix{
		steps:        300,
		segmentBytes: []int64{16 << 10, 16 << 10, 32 << 10, 64 << 10}[rng.IntN(4)], memTableBytes: []int64{64 << 10, 128 << 10, 256 << 10}[rng.IntN(3)],
		values: []int{20, 500, 3000}[rng.IntN(3)], spaceStrict: rng.IntN(2) == 0,
	}
	if *flagSteps > 0 {
		m.steps = *flagSteps
	}
	if seed%4 == 0 {
		m.inverseBytes = 1 << (8 + seed/4%8)
	}
	switch rng.IntN(6) {
	case 0: // nothing goes wrong
	case 1:
		m.crashes = true
	case 2:
		m.faults = true
	case 3:
		m.full = true
	default:
		m.crashes, m.faults, m.full = true, true, true
	}
	return m
}

// options are how the run opens its database: each time with memtables of another size, which must not matter to what is on the disk.
func (r *run) options() *local.Options {
	o := &local.Options{
		FS: r.disk, Logger: testLogger(r.t), Now: r.clock.now, Log: r.config, CacheBytes: 1 << 20, MemTableBytes: r.mix.memTableBytes << (3 * r.rng.IntN(4)), ChainBytes: 16 << 10,
		InverseBytes: r.mix.inverseBytes,
	}
	if r.tune != nil {
		r.tune(o)
	}
	return o
}

// open opens the database and looks whether it is what the model is.
func (r *run) open() error {
	db, err := local.Open("data/db", r.options())
	if err != nil {
		return err
	}
	r.db = db
	r.spaces = nil
	for _, path := range worldPaths {
		r.spaces = append(r.spaces, db.Space(path...))
	}
	r.outcomes, r.limbo, r.kept.have = nil, false, nil
	if r.opened != nil {
		r.opened()
	}
	return nil
}

func (r *run) mustOpen() {
	r.t.Helper()
	r.must("open", r.open())
}

// letGo ends followers, views and chains.
func (r *run) letGo() {
	for _, f := range r.followers {
		f.stop()
	}
	for _, v := range r.views {
		_ = v.view.Close() // the database may be beyond it
	}
	for _, c := range r.chains {
		_ = c.chain.Close() // so is this
	}
	r.followers, r.views, r.chains = nil, nil, nil
}

// reopen closes the database and opens it again.
func (r *run) reopen(why string) {
	r.t.Helper()
	r.log("close and open: %s", why)
	if r.rng.IntN(2) == 0 {
		r.letGo()
	}
	err := r.closeBounded()
	if errors.Is(err, errHung) || err != nil && r.disk.faults() == 0 && !r.disk.crashed() && !r.disk.isFull() {
		r.must("close", err)
	}
	r.letGo()
	if r.disk.crashed() { // on the way
		r.recoverDisk()
	}
	r.openAgain(why)
}

// recover opens the database on what a loss of power has left.
func (r *run) recover(why string) {
	r.t.Helper()
	r.log("recover: %s", why)
	r.letGo()
	old := r.db
	if err := closeWithin(old, patience); errors.Is(err, errHung) {
		r.must("close without power", err)
	}
	r.recoverDisk()
	r.openAgain(why)
}

// recoverDisk replaces the disk by what survived.
func (r *run) recoverDisk() {
	r.met["power lost"]++
	old := r.disk
	r.disk = newDisk(old.survivor(), r.rng.Uint64())
	r.disk.keepReserved(old)
	r.disk.lenient, r.disk.ordered, r.disk.counted, r.disk.watch = old.lenient, old.ordered, old.counted, old.watch
}

// openAgain opens the database, through further crashes and faults, and compares it with the model.
func (r *run) openAgain(why string) {
	r.t.Helper()
	if r.mix.crashes && r.rng.IntN(4) == 0 {
		r.disk.crashIn(1+r.rng.IntN(60), []int{0, 30, 100}[r.rng.IntN(3)], r.rng.IntN(2) == 0)
	}
	if r.mix.faults && r.rng.IntN(4) == 0 {
		r.armFault()
	}
	for try := 0; ; try++ {
		err := r.open()
		switch {
		case err == nil:
		case r.disk.crashed():
			r.met["crash while opening"]++
			r.recoverDisk()
			continue
		case try < 10 && (r.disk.faults() > 0 && r.excused(err) || r.disk.isFull() && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, batchlog.ErrNoSpace))):
			r.log("open: %v", err)
			r.met["open failed"]++
			r.disk.clear()
			continue
		default:
			r.must("open after "+why, err)
		}
		if r.disk.crashed() {
			r.met["crash while opening"]++
			_ = closeWithin(r.db, patience)
			r.recoverDisk()
			continue
		}
		break
	}
	r.compare()
}

var _ vfs.FS = (*disk)(nil)
