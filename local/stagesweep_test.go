package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A stageSteps counts the steps of a chain: the operations on its files, what it reserves on the disk, and its looks at its context. One of them fails; at
// some, others write.
type stageSteps struct {
	mu     sync.Mutex
	armed  bool
	n      int
	fail   int // which step fails; 0: none
	failed string
	kind   errorfs.OpKind // of the operation that failed
	// others is called at each step, with mu held: what it returns, if not nil, is called without.
	others func(n int) (rest func())
}

var errStepFails = errors.New("this step fails")

// step is the next step, and reports whether it fails.
func (s *stageSteps) step(what string) bool {
	s.mu.Lock()
	if !s.armed {
		s.mu.Unlock()
		return false
	}
	s.n++
	n, fails := s.n, s.n == s.fail
	if fails {
		s.failed = what
	}
	rest := s.others(n)
	s.mu.Unlock()
	if rest != nil {
		rest()
	}
	return fails
}

func (s *stageSteps) arm(armed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = armed
}

// MaybeError is as errorfs.Injector says.
func (s *stageSteps) MaybeError(op errorfs.Op) error {
	if !strings.Contains(op.Path, "/chains/") && !strings.Contains(op.Path, "/chain-") {
		return nil
	}
	if !s.step(fmt.Sprintf("operation %d on %s", op.Kind, op.Path)) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind = op.Kind
	if s.fail%2 == 0 {
		return syscall.ENOSPC
	}
	return syscall.EIO
}

// String is as errorfs.Injector says.
func (s *stageSteps) String() string { return "the steps of a chain" }

// A stepContext ends when a look at it fails.
type stepContext struct {
	context.Context
	steps  *stageSteps
	cancel context.CancelCauseFunc
}

func (c stepContext) Err() error {
	if c.steps.step("look at the context") {
		c.cancel(errStepFails)
	}
	return c.Context.Err()
}

// A stageStory is a chain beside others who write, as which one step fails.
type stageStory struct {
	t     *testing.T
	kind  string
	fs    vfs.FS
	steps stageSteps
	rng   *rand.Rand
	opts  Options
	db    *DB
	to    batchlog.ID // of a revert

	reopened bool

	kick chan chan struct{} // each is closed when others have written
	idle sync.WaitGroup     // others that are asked to write and haven't yet
}

var stageSpaces = [][]any{{"a"}, {"a", "b"}, {"c"}, {"c", "b"}, {"d"}}

func newStageStory(t *testing.T, kind string, fail int) *stageStory {
	t.Helper()
	s := &stageStory{t: t, kind: kind, rng: rand.New(rand.NewPCG(uint64(fail), 7)), kick: make(chan chan struct{}, 100)}
	s.steps.fail = fail
	when := map[int]bool{}
	for range 4 {
		when[1+s.rng.IntN(400)] = true
	}
	s.steps.others = func(n int) func() {
		if !when[n] {
			return nil
		}
		s.idle.Add(1)
		return func() {
			done := make(chan struct{})
			s.kick <- done
			select { // where nobody else may commit now, they come later
			case <-done:
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	s.fs = errorfs.Wrap(vfs.NewMem(), &s.steps)
	s.opts = Options{FS: s.fs, ChainBytes: 16 << 10, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Log: batchlog.LogConfig{Undo: true, BlobBytes: 1500}}
	s.open()
	for range 12 {
		s.write(40)
	}
	s.to = head(t, s.db)
	for range 12 {
		s.write(40)
	}
	return s
}

func (s *stageStory) open() {
	s.t.Helper()
	db, err := Open("db", &s.opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.db = db
	e := db.engine
	e.chains.pace = pace{soon: 20, soonBytes: 8000, late: 4, pass: 100, lateBytes: 3000}
	e.chains.refuse = func(int64) error {
		if s.steps.step("reserve") {
			return batchlog.ErrNoSpace
		}
		return nil
	}
}

func (s *stageStory) space() *batchlog.Space {
	return s.db.Space(stageSpaces[s.rng.IntN(len(stageSpaces))]...)
}

// write writes a commit of some ops, as others do.
func (s *stageStory) write(ops int) {
	s.t.Helper()
	var b batchlog.Batch
	for range ops {
		k := batchlog.K(s.rng.IntN(150))
		switch s.rng.IntN(12) {
		case 0:
			b.DeleteRange(s.space(), batchlog.Between(k, batchlog.K(s.rng.IntN(150))))
		case 1, 2:
			b.Delete(s.space(), k)
		case 3:
			b.Put(s.space(), k, make([]byte, 2000)) // a blob
		default:
			b.Put(s.space(), k, fmt.Appendf(nil, "%d %0*d", s.rng.IntN(3), s.rng.IntN(200), 0))
		}
	}
	if _, err := s.db.Write(context.Background(), &b); err != nil {
		s.t.Errorf("write of others: %v", err)
	}
}

func (s *stageStory) othersLoop() {
	for done := range s.kick {
		s.write(40)
		close(done)
		s.idle.Done()
	}
}

// fill fills the chain. own is what was added but for copies, in order: before and behind the copy.
func (s *stageStory) fill(c *batchlog.Chain) (own [2][]batchlog.Op, err error) {
	a, dst := s.db.Space("a"), s.db.Space("c")
	add := func(i int, spaces ...*batchlog.Space) {
		for range 60 {
			sp, k := spaces[s.rng.IntN(len(spaces))], batchlog.K(s.rng.IntN(150))
			o := batchlog.Op{Kind: batchlog.OpPut, Space: sp, Key: k, Value: fmt.Appendf(nil, "chain %0*d", s.rng.IntN(200), 0)}
			switch s.rng.IntN(10) {
			case 0:
				o.Kind, o.Value = batchlog.OpDelete, nil
				c.Delete(sp, k)
			case 1:
				if high := batchlog.K(s.rng.IntN(150)); string(high) > string(k) {
					o.Kind, o.Value, o.High = batchlog.OpDeleteRange, nil, high
					c.DeleteRange(sp, batchlog.Between(k, high))
					break
				}
				fallthrough
			default:
				c.Put(sp, k, o.Value)
			}
			own[i] = append(own[i], o)
		}
	}
	switch s.kind {
	case "plain":
		for range 5 {
			add(0, a, dst)
		}
	case "copy":
		add(0, s.db.Space("d"))
		err = c.CopyTree(dst, a)
		add(1, s.db.Space("d"))
	case "mixed":
		add(0, dst)
		err = c.CopyRange(dst, a, batchlog.Range{})
		add(1, dst)
	case "move":
		err = c.MoveTree(dst, a)
	case "revert":
		err = c.Revert(s.db.Root(), s.to)
	}
	return own, err
}

// want is what the state before the chain's commit becomes by it.
func (s *stageStory) want(own [2][]batchlog.Op, before map[string]string, all []map[string]string) map[string]string {
	if s.kind == "revert" {
		return all[s.to]
	}
	m := maps.Clone(before)
	for _, o := range own[0] {
		foldOp(m, o)
	}
	from, to := s.db.Space("a").Stored(), s.db.Space("c").Stored()
	if s.kind != "mixed" { // trees
		from, to = from[:len(from)-1], to[:len(to)-1]
	}
	if s.kind != "plain" {
		for k, v := range before {
			if own, in := strings.CutPrefix(k, string(from)); in {
				if s.kind == "move" {
					delete(m, k)
				}
				m[string(to)+own] = v
			}
		}
	}
	for _, o := range own[1] {
		foldOp(m, o)
	}
	return m
}

const storyLabel = "story"

// ours are the commits of the chain.
func (s *stageStory) ours() (ids []batchlog.ID) {
	s.t.Helper()
	for c, err := range s.db.Tail(s.t.Context(), batchlog.TailOptions{Until: head(s.t, s.db)}) {
		if err != nil {
			s.t.Fatal(err)
		}
		if c.Labels[storyLabel] != "" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// tell does it all and returns which step has failed; "": none.
func (s *stageStory) tell() (failed string) {
	t := s.t
	t.Helper()
	go s.othersLoop()
	defer close(s.kick)
	base, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	ctx := stepContext{base, &s.steps, cancel}
	s.steps.arm(true)
	c, err := s.db.Chain(ctx)
	if err != nil {
		s.steps.arm(false)
		return s.steps.failed // that nothing was begun is all there is to see
	}
	c.Labels = map[string]string{storyLabel: s.kind}
	own, err := s.fill(c)
	if err != nil && s.steps.failed == "" {
		t.Errorf("filled: %v", err)
	}
	id, err := c.Commit(ctx)
	for try := 1; err != nil; try++ {
		if s.steps.failed == "" && !errors.Is(err, batchlog.ErrConflict) {
			t.Errorf("commit, of which no step has failed: %v", err)
		}
		if ids := s.ours(); len(ids) > 0 {
			t.Fatalf("%s failed: commit: %v, but there is commit %d", s.steps.failed, err, ids)
		}
		if try == 5 || c.Err() != nil && !errors.Is(c.Err(), batchlog.ErrNoSpace) {
			break // what could not be added is lost for good
		}
		id, err = c.Commit(context.Background())
	}
	s.steps.arm(false)
	s.idle.Wait()
	if err == nil {
		s.check(id, own)
	} else if !errors.Is(err, errStepFails) && !errors.Is(err, syscall.EIO) && !errors.Is(err, batchlog.ErrNoSpace) || c.Err() == nil {
		t.Errorf("%s failed: in the end: %v", s.steps.failed, err)
	}
	if err := c.Close(); err != nil && s.steps.failed == "" {
		t.Errorf("close of the chain: %v", err)
	}
	if !s.reopened { // else that is swept
		s.left()
	}
	if err := s.db.Close(); err != nil && s.steps.failed == "" {
		t.Errorf("close: %v", err)
	}
	return s.steps.failed
}

// left looks for what the chain has left behind when it is closed: nothing, unless the very removing has failed.
func (s *stageStory) left() {
	t := s.t
	t.Helper()
	e := s.db.engine
	e.chains.mu.Lock()
	if e.chains.used != 0 {
		t.Errorf("%s failed: %d bytes of the quota are taken by no chain", s.steps.failed, e.chains.used)
	}
	e.chains.mu.Unlock()
	_ = e.lines.Hold(t.Context(), batchlog.ReadOptions{}) // until what was committed has its place; an error is told by check
	left, err := s.db.Chains(t.Context())
	if err != nil || len(left) > 0 && s.steps.kind != errorfs.OpRemove && s.steps.kind != errorfs.OpRemoveAll && e.failed() == nil {
		t.Errorf("%s failed: chains left behind: %+v, %v", s.steps.failed, left, err)
	}
}

// check compares what is there with what should be.
func (s *stageStory) check(id batchlog.ID, own [2][]batchlog.Op) {
	t := s.t
	t.Helper()
	got, err := s.stored()
	if err != nil && s.steps.failed != "" { // it was of the work that comes after the commit: that is done again by the next opening
		_ = s.db.Close() // says what has failed
		s.reopened = true
		s.open()
		got, err = s.stored()
	}
	if err != nil {
		t.Fatalf("%s failed: read: %v", s.steps.failed, err)
	}
	if ids := s.ours(); len(ids) != 1 || ids[0] != id {
		t.Fatalf("%s failed: commits %d, want %d", s.steps.failed, ids, id)
	}
	all := states(t, s.db)
	if want := s.want(own, all[id-1], all); !maps.Equal(all[id], want) {
		t.Errorf("%s failed: commit %d: %s", s.steps.failed, id, difference(all[id], want))
	}
	if want := all[len(all)-1]; !maps.Equal(got, want) {
		t.Errorf("%s failed: the store is not what the log says: %s", s.steps.failed, difference(got, want))
	}
}

// stored is what is in the store, as the log has it.
func (s *stageStory) stored() (map[string]string, error) {
	m := map[string]string{}
	for _, path := range stageSpaces {
		sp := s.db.Space(path...)
		for e, err := range sp.Scan(s.t.Context(), batchlog.Range{}, batchlog.BlobRefs()) {
			if err != nil {
				return nil, err
			}
			value := e.Value
			if e.Blob != nil {
				value = wire.AppendBlobRef(nil, wire.BlobRef(*e.Blob))
			}
			m[string(sp.Stored())+string(e.Key)] = string(value)
		}
	}
	return m, nil
}

// Whatever step of the life of a chain fails, the disk, the quota or its context, while others write where it does: a commit that succeeds has its whole effect, one that
// fails has none, and it may be tried again.
func TestStageSweep(t *testing.T) {
	for _, kind := range []string{"plain", "copy", "mixed", "move", "revert"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			stride := 3
			if testing.Short() {
				stride = 31
			}
			// Where others write differs, so stories are of different lengths: it ends when some in a row have come to theirs before the step.
			stories, failed := 0, 0
			for n, ended := 0, 0; ended < 8; n += stride {
				what := newStageStory(t, kind, n).tell()
				if stories++; what != "" {
					failed, ended = failed+1, 0
				} else {
					ended++
				}
				if t.Failed() {
					t.Fatalf("where step %d fails: %s", n, what)
				}
			}
			t.Logf("%d stories, a step of %d has failed", stories, failed)
			if failed < 5 {
				t.Error("the test shows nothing")
			}
		})
	}
}
