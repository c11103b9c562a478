package simtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bytespace/batchlog"
)

// The steps that change something. Those that read are in reads_test.go.

var steps map[string]step

var stepNames []string

func init() {
	steps = map[string]step{
		"write":       {weight: 30, do: (*run).stepWrite},
		"large":       {weight: 2, do: (*run).stepLarge},
		"update":      {weight: 10, do: (*run).stepUpdate},
		"token again": {weight: 3, do: (*run).stepTokenAgain},
		"refused":     {weight: 1, do: (*run).stepRefused},

		"chain":        {weight: 4, do: (*run).stepChain, when: func(r *run) bool { return len(r.chains) < 3 }},
		"fill chain":   {weight: 8, do: (*run).stepFillChain, when: func(r *run) bool { return len(r.chains) > 0 }},
		"commit chain": {weight: 6, do: (*run).stepCommitChain, when: func(r *run) bool { return len(r.chains) > 0 }},
		"close chain":  {weight: 1, do: (*run).stepCloseChain, when: func(r *run) bool { return len(r.chains) > 0 }},
		"copy":         {weight: 3, do: (*run).stepCopy},
		"blob":         {weight: 6, do: (*run).stepBlob},
		"stray blob":   {weight: 1, do: (*run).stepStrayBlob},
		"read blob":    {weight: 4, do: (*run).stepReadBlob},
		"sweep":        {weight: 3, do: (*run).stepSweep},

		"backfill": {weight: 2, do: (*run).stepBackfill},
		"revert":   {weight: 4, do: (*run).stepRevert},

		"get":         {weight: 10, do: (*run).stepGet},
		"stale":       {weight: 3, do: (*run).stepStale},
		"scan":        {weight: 8, do: (*run).stepScan},
		"wait":        {weight: 1, do: (*run).stepWait},
		"view":        {weight: 4, do: (*run).stepView, when: func(r *run) bool { return len(r.views) < 4 }},
		"read view":   {weight: 6, do: (*run).stepReadView, when: func(r *run) bool { return len(r.views) > 0 }},
		"close view":  {weight: 2, do: (*run).stepCloseView, when: func(r *run) bool { return len(r.views) > 0 }},
		"tail":        {weight: 5, do: (*run).stepTail},
		"follow":      {weight: 4, do: (*run).stepFollow, when: func(r *run) bool { return len(r.followers) < 5 }},
		"pull":        {weight: 14, do: (*run).stepPull, when: func(r *run) bool { return len(r.followers) > 0 }},
		"end follow":  {weight: 1, do: (*run).stepEndFollow, when: func(r *run) bool { return len(r.followers) > 0 }},
		"plan":        {weight: 1, do: (*run).stepPlan},
		"configure":   {weight: 2, do: (*run).stepConfigure},
		"clock":       {weight: 4, do: (*run).stepClock},
		"trim":        {weight: 3, do: (*run).stepTrim},
		"flush":       {weight: 1, do: (*run).stepFlush},
		"verify":      {weight: 1, do: func(r *run) { r.log("verify"); r.verify() }},
		"reopen":      {weight: 2, do: (*run).stepReopen},
		"crash":       {weight: 1, do: (*run).stepCrash, when: func(r *run) bool { return r.mix.crashes }},
		"crash soon":  {weight: 3, do: (*run).stepCrashSoon, when: func(r *run) bool { return r.mix.crashes }},
		"fault":       {weight: 3, do: func(r *run) { r.armFault() }, when: func(r *run) bool { return r.mix.faults }},
		"full":        {weight: 3, do: (*run).stepFull, when: func(r *run) bool { return r.mix.full && !r.disk.isFull() }},
		"space again": {weight: 12, do: (*run).stepSpace, when: func(r *run) bool { return r.disk.isFull() }},
	}
	stepNames = slices.Sorted(maps.Keys(steps))
}

// value is one that there was not before.
func (r *run) value() string {
	r.written++
	return fmt.Sprintf("%d %s", r.written, strings.Repeat("v", r.rng.IntN(r.mix.values)))
}

// randomOp is an op of a program.
func (r *run) randomOp() op {
	space := r.writable()
	switch r.rng.IntN(9) {
	case 0:
		for {
			rg := randomRange(r.rng)
			o := op{kind: batchlog.OpDeleteRange, space: space, key: string(rg.Low), high: string(rg.High), open: rg.High == nil}
			if o.open || o.key < o.high { // a batch leaves out what is empty
				return o
			}
		}
	case 1, 2:
		return op{kind: batchlog.OpDelete, space: space, key: randomKey(r.rng)}
	default:
		return op{kind: batchlog.OpPut, space: space, key: randomKey(r.rng), value: r.value()}
	}
}

// writer is a batch or a transaction.
type writer interface {
	Put(s *batchlog.Space, k batchlog.Key, value []byte)
	Delete(s *batchlog.Space, k batchlog.Key)
	DeleteRange(s *batchlog.Space, r batchlog.Range)
	PutRef(s *batchlog.Space, k batchlog.Key, ref batchlog.BlobRef)
}

// add adds o to w.
func (r *run) add(w writer, o op) {
	s := r.spaces[o.space]
	switch {
	case o.ref != nil:
		w.PutRef(s, batchlog.Key(o.key), *o.ref)
	case o.kind == batchlog.OpPut:
		w.Put(s, batchlog.Key(o.key), []byte(o.value))
	case o.kind == batchlog.OpDelete:
		w.Delete(s, batchlog.Key(o.key))
	default:
		rg := batchlog.Range{Low: batchlog.Key(o.key), High: batchlog.Key(o.high)}
		if o.open {
			rg.High = nil
		}
		w.DeleteRange(s, rg)
	}
}

// randomCommit is a batch of a program.
func (r *run) randomCommit() commit {
	c := commit{at: r.clock.now()}
	for range r.rng.IntN(7) {
		c.ops = append(c.ops, r.randomOp())
	}
	if r.rng.IntN(3) == 0 {
		c.labels = map[string]string{"n": fmt.Sprint(r.written), "by": "simtest"}
	}
	if r.rng.IntN(5) == 0 {
		r.written++
		c.token = fmt.Sprintf("token %d", r.written)
	}
	return c
}

// submit writes c, and takes what comes of it over into the model.
func (r *run) submit(c commit) {
	r.t.Helper()
	b := batchlog.Batch{Token: c.token, Labels: maps.Clone(c.labels)}
	for _, o := range c.ops {
		r.add(&b, o)
	}
	ctx, cancel := r.context()
	defer cancel()
	id, err := r.db.Write(ctx, &b)
	r.settle(c, id, err)
}

// settle takes over what came of a write.
func (r *run) settle(c commit, id batchlog.ID, err error) {
	r.t.Helper()
	outcome := errClass(err)
	r.log("write of %d ops, token %q: commit %d, %s %v", len(c.ops), c.token, id, outcome, err)
	if outcome != "other" || !r.wide { // what tokens and hooks read can fail, too
		r.outcomes = append(r.outcomes, outcome)
	}
	r.met["write "+outcome]++
	hurt := r.disk.crashed() || r.disk.faults() > 0
	r.model.latest = max(r.model.latest, c.at.UnixMicro(), r.clock.now().UnixMicro())
	switch {
	case outcome == "acked":
		if len(r.model.pending) > 0 {
			r.t.Fatalf("step %d: commit %d is acknowledged after a write with an outcome that is not known", r.step, id)
		}
		if r.absorb != nil {
			r.absorb(id - 1)
		}
		if c.chain != nil {
			r.seeNet(&c, id)
		}
		if want := r.model.commit(c); id != want {
			r.t.Fatalf("step %d: commit %d, want %d", r.step, id, want)
		}
		r.follows(id)
	case outcome == "uncertain" && hurt:
		r.model.pending = append(r.model.pending, c)
	case outcome == "no space" && (r.disk.isFull() || hurt || time.Since(r.spaceSince) < time.Second || time.Since(r.disk.spaceSince()) < time.Second):
	case outcome == "read-only" && hurt:
	case outcome == "context" && r.disk.isFull():
	case outcome == "other" && hurt:
	default:
		r.t.Fatalf("step %d: write: %v", r.step, err)
	}
}

// follows asserts that a commit which was just acknowledged is in the log, for whoever follows it.
func (r *run) follows(id batchlog.ID) {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	list, err := tailAll(ctx, r.db.DB, batchlog.TailOptions{From: batchlog.At(id), Until: id})
	if r.readErr("tail of a new commit", err) {
		return
	}
	r.must("tail of a new commit", errors.Join(idsDense(list, id), watchContract(&watched{from: id, seen: list}, r.model)))
}

func (r *run) stepWrite() { r.submit(r.randomCommit()) }

// stepLarge writes a commit that takes much of a segment, or more than one.
func (r *run) stepLarge() {
	c := r.randomCommit()
	size := int(r.mix.segmentBytes) * (1 + r.rng.IntN(8)) / 4
	c.ops = append(c.ops, op{kind: batchlog.OpPut, space: r.writable(), key: randomKey(r.rng), value: r.value() + strings.Repeat("w", size)})
	r.submit(c)
}

// stepTokenAgain writes another batch with a token that is known: it must be the first commit with it.
func (r *run) stepTokenAgain() {
	tokens := slices.Sorted(maps.Keys(r.model.tokens))
	tokens = slices.DeleteFunc(tokens, func(token string) bool { return r.model.tokens[token] < r.model.oldest })
	if len(tokens) == 0 {
		return
	}
	token := tokens[r.rng.IntN(len(tokens))]
	b := batchlog.Batch{Token: token}
	b.Put(r.spaces[1], batchlog.Key("never"), []byte("there"))
	ctx, cancel := r.context()
	defer cancel()
	id, err := r.db.Write(ctx, &b)
	r.log("token %q again: %d, %v", token, id, err)
	if err != nil && r.excused(err) {
		return
	}
	r.must("write with a token", err)
	if want := r.model.tokens[token]; id != want {
		r.t.Fatalf("step %d: token %q is commit %d, want %d", r.step, token, id, want)
	}
}

// stepRefused writes what is too large; nothing of it may be seen.
func (r *run) stepRefused() {
	var b batchlog.Batch
	b.Put(r.spaces[1], batchlog.Key("never"), []byte("there"))
	b.Put(r.spaces[2], make(batchlog.Key, batchlog.MaxKeyBytes), nil)
	ctx, cancel := r.context()
	defer cancel()
	id, err := r.db.Write(ctx, &b)
	if id != 0 || !errors.Is(err, batchlog.ErrTooLarge) {
		r.t.Fatalf("step %d: commit %d, %v; want ErrTooLarge", r.step, id, err)
	}
}

// stepUpdate runs a transaction that reads and writes at random; what it reads is compared as it goes.
func (r *run) stepUpdate() {
	r.t.Helper()
	c := commit{at: r.clock.now()}
	ours := errors.New("ours")
	fails := r.rng.IntN(6) == 0
	ctx, cancel := r.context()
	defer cancel()
	id, err := r.db.Update(ctx, func(tx *batchlog.Tx) error {
		if c.ops != nil {
			r.t.Fatalf("step %d: an update with no other writer runs twice", r.step)
		}
		if err := heldIsFresh(tx.Base(), r.model.head()); err != nil {
			r.t.Fatalf("step %d: update: %v", r.step, err)
		}
		own := maps.Clone(r.model.now)
		for range 1 + r.rng.IntN(8) {
			switch r.rng.IntN(4) {
			case 0:
				if err := r.txGet(tx, own); err != nil {
					return err
				}
			case 1:
				if err := r.txScan(tx, own); err != nil {
					return err
				}
			default:
				o := r.randomOp()
				r.add(tx, o)
				own.op(o)
				c.ops = append(c.ops, o)
			}
		}
		if fails {
			return ours
		}
		return nil
	})
	switch {
	case fails && errors.Is(err, ours):
		r.log("update of %d ops that fails", len(c.ops))
	case len(c.ops) == 0 && err == nil:
		if id != 0 {
			r.t.Fatalf("step %d: an update that wrote nothing is commit %d", r.step, id)
		}
	case err != nil && r.excused(err) && !errors.Is(err, batchlog.ErrUncertain):
		r.log("update: %v", err)
	case err != nil && r.disk.isFull() && errors.Is(err, errHung):
		r.log("update on a full disk: %v", err) // its view was held
	default:
		r.settle(c, id, err)
	}
}

func (r *run) txGet(tx *batchlog.Tx, own state) error {
	p := place{r.readable(), randomKey(r.rng)}
	got, err := tx.Get(r.spaces[p.space], batchlog.Key(p.key))
	if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
		return err
	}
	if want, ok := own[p]; ok != (err == nil) || string(got) != want {
		r.t.Fatalf("step %d: update reads %v=%.60q, %v; want %.60q, %t", r.step, p, got, err, want, ok)
	}
	return nil
}

func (r *run) txScan(tx *batchlog.Tx, own state) error {
	space, rg, reverse := r.readable(), randomRange(r.rng), r.rng.IntN(2) == 0
	var opts []batchlog.ReadOption
	if reverse {
		opts = append(opts, batchlog.ScanReverse())
	}
	var got []pair
	for e, err := range tx.Scan(r.spaces[space], rg, opts...) {
		if err != nil {
			return err
		}
		got = append(got, pair{string(e.Key), string(e.Value)})
	}
	r.must("scan of an update", samePairs(got, own.scan(space, rg, reverse)))
	return nil
}

// stepClock moves the clock, also back.
func (r *run) stepClock() {
	by := []time.Duration{time.Millisecond, time.Second, time.Minute, 10 * time.Minute, -time.Second, -5 * time.Minute}[r.rng.IntN(6)]
	r.log("clock %s", by)
	r.clock.add(by)
}

func (r *run) stepConfigure() {
	c := batchlog.LogConfig{
		SegmentBytes: int64(16+r.rng.IntN(48)) << 10,
		HotTTL:       []time.Duration{0, time.Second, time.Minute, time.Hour}[r.rng.IntN(4)],
		BlobBytes:    []int{0, 0, batchlog.MinBlobBytes, 2 * batchlog.MinBlobBytes}[r.rng.IntN(4)],
		Undo:         r.rng.IntN(4) > 0,
	}
	if c.HotTTL > 0 && r.rng.IntN(2) == 0 {
		c.Warm = [][]string{{"/warm"}, {"/warm", "/warmer"}}[r.rng.IntN(2)]
		c.WarmTTL = []time.Duration{0, 0, c.HotTTL, 4 * c.HotTTL}[r.rng.IntN(4)]
	}
	r.configure(c)
}

// stepPlan asks what other settings would do, which must do nothing.
func (r *run) stepPlan() {
	ctx, cancel := r.context()
	defer cancel()
	_, err := r.db.PlanConfigure(ctx, batchlog.LogConfig{HotTTL: time.Nanosecond, SegmentBytes: batchlog.MinSegmentBytes})
	r.must("plan", err)
}

func (r *run) stepTrim() {
	ctx, cancel := r.context()
	defer cancel()
	err := r.db.Trim(ctx)
	r.log("trim: %v", err)
	if err != nil && !r.excused(err) && !r.disk.isFull() {
		r.must("trim", err)
	}
	r.limbo = r.limbo || err != nil
	r.trimmed = true
	r.met["trim"]++
}

func (r *run) stepFlush() {
	ctx, cancel := r.context()
	defer cancel()
	if r.disk.isFull() { // then it would wait for space
		ctx, cancel = bounded(5 * tick)
		defer cancel()
	}
	err := r.db.Flush(ctx)
	r.log("flush: %v", err)
	if err != nil && !r.excused(err) && !r.disk.isFull() {
		r.must("flush", err)
	}
}

func (r *run) stepReopen() {
	if !r.sweeping {
		r.disk.clear()
	}
	r.reopen("by itself")
}

func (r *run) stepCrash() {
	r.log("crash")
	r.disk.crash([]int{0, 20, 50, 80, 100}[r.rng.IntN(5)])
}

func (r *run) stepCrashSoon() {
	n, percent, torn := 1+r.rng.IntN(80), []int{0, 20, 50, 80, 100}[r.rng.IntN(5)], r.rng.IntN(2) == 0
	r.log("crash in %d changes, %d%%, torn %t", n, percent, torn)
	r.disk.crashIn(n, percent, torn)
}

// armFault has an operation to come fail: any, or one of a kind, once or for a while.
func (r *run) armFault() {
	after, times := r.rng.IntN(60), 1+r.rng.IntN(3)*r.rng.IntN(10)
	kinds := [][]string{{"sync"}, {"write"}, {"sync", "write", "create", "rename", "remove", "dirsync"}, {"read", "open"}, {"rename", "dirsync"}, nil}
	only := kinds[r.rng.IntN(len(kinds))]
	part := []string{".seg", "store/", "log/", ""}[r.rng.IntN(4)]
	r.log("fault after %d, %d times, of %v in %q", after, times, only, part)
	fault := faultAfter(after, times, only, part)
	r.disk.failing(func(op diskOp) error {
		if r.faulty != nil && !r.faulty(op) {
			return nil
		}
		return fault(op)
	})
}

// faultAfter has operations of these kinds (nil: all) on files whose path holds part fail: so many, after so many.
func faultAfter(after, times int, only []string, part string) func(op diskOp) error {
	return func(op diskOp) error {
		if only != nil && !slices.Contains(only, op.kind) || !strings.Contains(op.path, part) || op.kind == "stat" || op.kind == "lock" {
			return nil
		}
		if after--; after >= 0 {
			return nil
		}
		if times--; times < 0 {
			return nil
		}
		return errFault
	}
}

func (r *run) stepFull() {
	r.log("disk full")
	r.met["full"]++
	r.disk.setFull(true)
}

// stepSpace gives space again: writes must be taken again by themselves.
func (r *run) stepSpace() {
	r.log("space again")
	r.disk.setFull(false)
	r.spaceSince = time.Now()
	if r.disk.faults() > 0 {
		return
	}
	if r.wide { // so that how soon it is found does not depend on goroutines
		time.Sleep(2 * time.Second)
	}
	for tries := 0; ; tries++ {
		before := r.model.head()
		r.submit(commit{at: r.clock.now(), ops: []op{{kind: batchlog.OpPut, space: 1, key: "space", value: r.value()}}})
		if r.disk.crashed() || r.disk.faults() > 0 || r.model.head() > before {
			return
		}
		if tries > int(patience/tick) {
			r.t.Fatalf("step %d: there is space again, but no write is taken", r.step)
		}
		time.Sleep(tick)
	}
}
