package simtest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/taskstate"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

// A job is a task whose outcome tells everything. Its handler keeps three keys:
//
//	"chain"  a rolling hash of each commit that was handled: one that is left out, doubled, out of order or computed from a stale state shows
//	"seen"   the newest commit that was handled
//	"root"   the newest commit outside of derived spaces that was handled, perhaps by way of other jobs
type job struct {
	name    string
	source  [][]any // paths
	out     []any   // path
	derives bool
	exact   bool // nothing that it follows is derived: views show it as of their id
	poison  task.Poison
	flaky   bool // its first attempts fail or panic now and then
	slow    bool // its handler takes a while now and then
}

// badAttempts is how often a commit that is no good is tried before it is set aside; retried from there it is good.
const badAttempts = 2

// bad says of a commit, by its text, that a job which sets windows aside can't handle it.
func (j *job) bad(text string) bool { return j.poison != task.Stop && hashOf(text)%9 == 0 }

// one says whether its windows have one commit each, so that what is set aside does not depend on how the log is cut.
func (j *job) one() bool { return j.poison != task.Stop }

func hashOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return h.Sum64()
}

// link is the chain with one commit more.
func link(chain string, id batchlog.ID, text string) string {
	return strconv.FormatUint(hashOf(chain+"|"+id.String()+"|"+text), 16)
}

var errBad = errors.New("this commit is no good")

// handled is what a job keeps.
type handled struct {
	chain      string
	seen, root batchlog.ID
}

// add is h after a commit with these ops.
func (h handled) add(id batchlog.ID, text string, root batchlog.ID) handled {
	return handled{chain: link(h.chain, id, text), seen: max(h.seen, id), root: max(h.root, root)}
}

// sourceText is the ops of a commit in one text, and the newest commit that it comes from.
func sourceText(c *batchlog.Commit, in func(op batchlog.Op) bool) (text string, root batchlog.ID, err error) {
	var b strings.Builder
	n := 0
	for op, err := range c.Ops() {
		if err != nil {
			return "", 0, err
		}
		if !in(op) {
			continue
		}
		n++
		b.WriteString(opText(op))
		b.WriteByte('\n')
		if p := op.Space.Path(); len(p) > 0 && p[0] == "out" {
			if string(op.Key) == string(batchlog.K("root")) {
				var id uint64
				if id, err = strconv.ParseUint(string(op.Value), 10, 64); err != nil {
					return "", 0, err
				}
				root = max(root, batchlog.ID(id))
			}
		} else {
			root = c.ID
		}
	}
	if n == 0 {
		return "", 0, nil
	}
	return b.String(), root, nil
}

// getter is a View or a Tx.
type getter interface {
	Get(s *batchlog.Space, k batchlog.Key) ([]byte, error)
}

// load reads what a job keeps.
func load(from getter, out *batchlog.Space) (h handled, err error) {
	for key, set := range map[string]func(string) error{
		"chain": func(v string) error { h.chain = v; return nil },
		"seen":  func(v string) error { return scanID(v, &h.seen) },
		"root":  func(v string) error { return scanID(v, &h.root) },
	} {
		v, err := from.Get(out, batchlog.K(key))
		if errors.Is(err, batchlog.ErrNotFound) {
			continue
		}
		if err == nil {
			err = set(string(v))
		}
		if err != nil {
			return h, err
		}
	}
	return h, nil
}

func scanID(text string, id *batchlog.ID) error {
	n, err := strconv.ParseUint(text, 10, 64)
	*id = batchlog.ID(n)
	return err
}

// task is j as it is run.
func (j *job) task(db *batchlog.DB) task.Task {
	out := db.Space(j.out...)
	k := task.Task{Name: j.name, Poison: j.poison, Retry: task.Retry{Attempts: 1000, First: time.Millisecond, Max: 4 * time.Millisecond}}
	if j.poison != task.Stop {
		k.Retry.Attempts = badAttempts
	}
	for _, path := range j.source {
		k.Source = append(k.Source, db.Space(path...))
	}
	if j.derives {
		k.Derives = []*batchlog.Space{out}
	}
	k.Handle = func(_ context.Context, w *task.Window) error {
		luck := hashOf(fmt.Sprint(j.name, w.First, w.Last, w.Attempt))
		if j.slow && luck%5 == 0 {
			time.Sleep(time.Duration(luck/5%4) * time.Millisecond)
		}
		if j.flaky && w.Attempt <= 2 && luck/31%6 == 0 {
			if luck/31%12 == 0 {
				panic("a bad day")
			}
			return errors.New("a bad day")
		}
		h, err := load(w, out)
		if err != nil {
			return err
		}
		late := false
		for c, err := range w.Commits() {
			if err != nil {
				return err
			}
			text, root, err := sourceText(c, func(batchlog.Op) bool { return true })
			if err != nil {
				return err
			}
			if j.bad(text) {
				if w.Attempt <= badAttempts {
					return errBad
				}
				late = true
			}
			h = h.add(c.ID, text, root)
		}
		if late {
			w.Put(out, batchlog.K("late", uint64(w.First)), []byte("handled"))
			return nil
		}
		w.Put(out, batchlog.K("chain"), []byte(h.chain))
		w.Put(out, batchlog.K("seen"), []byte(h.seen.String()))
		w.Put(out, batchlog.K("root"), []byte(h.root.String()))
		return nil
	}
	return k
}

// A fold is what the log says of some jobs, read once from its beginning, commit by commit. It says what is wrong: a window that isn't
// what a sequential fold of the log up to there comes to, a cursor that jumps, a worker that commits and is none, somebody else
// in a derived space.
type fold struct {
	at batchlog.ID // the newest commit that it has read
	// sparse says that there are commits without ops, which the tail passes over.
	sparse bool
	jobs   map[string]*folded
}

// A folded is one job in a fold.
type folded struct {
	job
	handled
	known   bool
	cursor  batchlog.ID
	fence   uint64              // the highest that was given out
	workers map[uint64]struct{} // fences
	parked  map[batchlog.ID]struct{}
	late    map[batchlog.ID]struct{}
	source  []sourced
	moves   map[string]batchlog.ID // by chain: the cursor then
	met     map[string]int         // what happened
}

// A sourced is a commit that a job has to handle.
type sourced struct {
	id, root batchlog.ID
	text     string
}

func newFold(jobs []*job) *fold {
	f := &fold{jobs: map[string]*folded{}}
	for _, j := range jobs {
		f.jobs[j.name] = &folded{
			job: *j, workers: map[uint64]struct{}{}, parked: map[batchlog.ID]struct{}{}, late: map[batchlog.ID]struct{}{},
			moves: map[string]batchlog.ID{}, met: map[string]int{},
		}
	}
	return f
}

// read goes on to head.
func (f *fold) read(ctx context.Context, db *batchlog.DB) error {
	head, err := db.Head(ctx)
	if err != nil || head <= f.at {
		return err
	}
	all := batchlog.TailOptions{From: batchlog.After(f.at), Until: head, Spaces: []*batchlog.Space{db.Root(), db.Inside().System()}}
	for c, err := range db.Tail(ctx, all) {
		if err != nil {
			return err
		}
		if c.ID != f.at+1 && !(f.sparse && c.ID > f.at) {
			return fmt.Errorf("commit %d comes after %d", c.ID, f.at)
		}
		f.at = c.ID
		for _, j := range f.jobs {
			if err := j.take(db, c); err != nil {
				return fmt.Errorf("commit %d (%+v): task %s, at %d, workers %v: %w", c.ID, c.Task, j.name, j.cursor, j.workers, err)
			}
		}
	}
	f.at = head
	return nil
}

// take is one commit more.
func (j *folded) take(db *batchlog.DB, c *batchlog.Commit) error {
	mine := c.Task != nil && c.Task.Task == j.name
	if mine {
		if _, ok := j.workers[c.Task.Fence]; !ok {
			return errors.New("its worker is none")
		}
	}
	if err := j.output(db, c, mine); err != nil {
		return err
	}
	if err := j.state(db, c, mine); err != nil {
		return err
	}
	text, root, err := sourceText(c, func(op batchlog.Op) bool {
		for _, path := range j.job.source {
			if op.In(db.Space(path...)) {
				return true
			}
		}
		return false
	})
	if text != "" {
		j.source = append(j.source, sourced{id: c.ID, root: root, text: text})
	}
	return err
}

// output checks what the commit has in the space that j writes.
func (j *folded) output(db *batchlog.DB, c *batchlog.Commit, mine bool) error {
	out := db.Space(j.out...)
	got := map[string]string{}
	for op, err := range c.Ops() {
		switch {
		case err != nil:
			return err
		case !op.In(out):
			continue
		case !mine && (j.known || !j.derives):
			return fmt.Errorf("somebody else writes there: %s", opText(op))
		}
		got[string(op.Key)] = string(op.Value)
	}
	if !mine {
		return nil
	}
	want := map[string]string{}
	if c.Task.To != 0 {
		if c.Task.From != j.cursor || c.Task.To <= c.Task.From || c.Task.To >= c.ID {
			return errors.New("its window doesn't begin at the cursor, or ends wrong")
		}
		aside, err := j.window(c.Task.From, c.Task.To)
		if err != nil {
			return err
		}
		if !aside && j.met["commits"] > 0 {
			want = map[string]string{
				string(batchlog.K("chain")): j.chain, string(batchlog.K("seen")): j.seen.String(), string(batchlog.K("root")): j.root.String(),
			}
		}
		j.met["commits"] = 0
	} else {
		for key, value := range got {
			k, err := batchlog.Key(key).Decode()
			if parts, ok := k.([]any); err != nil || !ok || len(parts) != 2 || parts[0] != "late" || value != "handled" {
				return fmt.Errorf("a commit that moves no cursor writes %v: %w", k, err)
			}
			want[key] = value
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("it writes %q, the fold %q", got, want)
	}
	return nil
}

// window handles the commits after from up to to. aside: they are set aside.
func (j *folded) window(from, to batchlog.ID) (aside bool, err error) {
	h, n := j.handled, 0
	for _, s := range j.source {
		if s.id <= from || s.id > to {
			continue
		}
		n++
		h = h.add(s.id, s.text, s.root)
		aside = aside || j.bad(s.text)
	}
	if n > 1 && j.one() {
		return false, fmt.Errorf("a window of %d commits", n)
	}
	j.met["windows"]++
	j.met["commits"] = n
	if n == 0 {
		j.met["empty"]++
	}
	switch {
	case !aside:
		j.handled = h
	case j.poison == task.Park:
		j.met["parked"]++
	default:
		j.met["skipped"]++
	}
	j.moves[j.chain] = to
	return aside, nil
}

// state takes over what the commit changes in the state of the task.
func (j *folded) state(db *batchlog.DB, c *batchlog.Commit, mine bool) error {
	at := taskstate.Of(db, j.name)
	moved := false
	for op, err := range c.Ops() {
		if err != nil {
			return err
		}
		put := op.Kind == batchlog.OpPut
		switch {
		case op.Space.Equal(taskstate.All(db)) && string(op.Key) == string(batchlog.K(j.name)):
			j.known = put
		case op.Space.Equal(at.Workers):
			if err := j.worker(op); err != nil {
				return err
			}
		case op.Space.Equal(at.State) && put && string(op.Key) == string(taskstate.KeyCursor):
			var cursor taskstate.Cursor
			if err := taskstate.Decode(op.Space, op.Key, op.Value, &cursor); err != nil {
				return err
			}
			if mine && (c.Task.To == 0 || cursor.ID != c.Task.To) {
				return fmt.Errorf("the cursor is set to %d", cursor.ID)
			}
			j.cursor, moved = cursor.ID, true
		case op.Space.Equal(at.Parked):
			if err := j.park(op, c); err != nil {
				return err
			}
		}
	}
	if mine && c.Task.To != 0 && !moved {
		return errors.New("it doesn't set the cursor")
	}
	return nil
}

func (j *folded) worker(op batchlog.Op) error {
	if op.Kind == batchlog.OpDeleteRange {
		clear(j.workers)
		return nil
	}
	fence, err := taskstate.Number(op.Key)
	if err != nil {
		return err
	}
	_, known := j.workers[fence]
	switch {
	case op.Kind == batchlog.OpDelete:
		delete(j.workers, fence)
	case !known && fence <= j.fence:
		return fmt.Errorf("fence %d is given out again, the highest was %d", fence, j.fence)
	default:
		j.workers[fence] = struct{}{}
		j.fence = max(j.fence, fence)
	}
	return nil
}

func (j *folded) park(op batchlog.Op, c *batchlog.Commit) error {
	if op.Kind == batchlog.OpDeleteRange {
		clear(j.parked)
		return nil
	}
	n, err := taskstate.Number(op.Key)
	if err != nil {
		return err
	}
	first := batchlog.ID(n)
	if op.Kind == batchlog.OpPut {
		j.parked[first] = struct{}{}
		return nil
	}
	if _, ok := j.parked[first]; !ok || c.Task == nil || c.Task.To != 0 {
		return fmt.Errorf("window %d is taken off the list of the parked", first)
	}
	delete(j.parked, first)
	j.late[first] = struct{}{}
	j.met["retried"]++
	return nil
}

// newest is the newest commit up to id that j has to handle, 0 if there is none.
func (j *folded) newest(id batchlog.ID) (newest batchlog.ID) {
	for _, s := range j.source {
		if s.id > id {
			break
		}
		newest = s.id
	}
	return newest
}

// compare says how the database, in which every job is done, is not as the fold.
func (f *fold) compare(ctx context.Context, db *batchlog.DB) error {
	v, err := db.View(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	for _, j := range f.jobs {
		got, err := load(v, db.Space(j.out...))
		if err != nil {
			return err
		}
		if got != j.handled {
			return fmt.Errorf("task %s has come to %+v, the fold to %+v", j.name, got, j.handled)
		}
		late := map[batchlog.ID]struct{}{}
		for e, err := range v.Scan(db.Space(j.out...), batchlog.Prefix("late")) {
			if err != nil {
				return err
			}
			k, err := e.Key.Decode()
			if err != nil {
				return err
			}
			late[batchlog.ID(k.([]any)[1].(float64))] = struct{}{}
		}
		if fmt.Sprint(late) != fmt.Sprint(j.late) {
			return fmt.Errorf("task %s has retried windows %v, by the log %v", j.name, late, j.late)
		}
		parked, err := task.Parked(ctx, db, j.name)
		if err != nil {
			return err
		}
		aside := map[batchlog.ID]struct{}{}
		for _, w := range parked {
			aside[w.First] = struct{}{}
		}
		if fmt.Sprint(aside) != fmt.Sprint(j.parked) {
			return fmt.Errorf("task %s has parked windows %v, by the log %v", j.name, aside, j.parked)
		}
	}
	return nil
}

// handledAll says whether every job has handled all that it has to; call read before.
func (f *fold) handledAll(ctx context.Context, db *batchlog.DB) (bool, error) {
	if err := f.read(ctx, db); err != nil {
		return false, err
	}
	for _, j := range f.jobs {
		if j.newest(f.at) > j.cursor {
			return false, nil
		}
	}
	return true, nil
}

// A crew is the workers of some jobs.
type crew struct {
	db  *local.DB
	wg  sync.WaitGroup
	mu  sync.Mutex
	all []*hand
	bad []error // ends of workers that should not be
}

// A hand is one worker.
type hand struct {
	job  *job
	stop context.CancelFunc
	done chan struct{}
}

// hire adds a worker on db, which may be one of several fronts of the crew's database.
func (c *crew) hire(db *batchlog.DB, j *job, change func(*task.Task)) *hand {
	k := j.task(db)
	change(&k)
	ctx, cancel := context.WithCancel(context.Background())
	h := &hand{job: j, stop: cancel, done: make(chan struct{})}
	c.mu.Lock()
	c.all = append(c.all, h)
	c.mu.Unlock()
	c.wg.Go(func() {
		defer close(h.done)
		err := task.Run(ctx, db, k)
		if ctx.Err() == nil && !errors.Is(err, task.ErrUnknown) {
			c.mu.Lock()
			c.bad = append(c.bad, fmt.Errorf("a worker ended: %w", err))
			c.mu.Unlock()
		}
	})
	return h
}

// failed is how workers ended that should not have.
func (c *crew) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.bad...)
}

// dismiss stops all workers of a job, or of all if it is nil.
func (c *crew) dismiss(j *job) {
	c.mu.Lock()
	var list, rest []*hand
	for _, h := range c.all {
		if j == nil || h.job == j {
			list = append(list, h)
		} else {
			rest = append(rest, h)
		}
	}
	c.all = rest
	c.mu.Unlock()
	for _, h := range list {
		h.stop()
	}
	for _, h := range list {
		<-h.done
	}
}

// working is the workers that have not ended.
func (c *crew) working() (list []*hand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.all {
		select {
		case <-h.done:
		default:
			list = append(list, h)
		}
	}
	return list
}
