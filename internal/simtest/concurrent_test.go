package simtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// Many goroutines write, update and read a few keys at once, through losses of power. What they were told is then checked: each
// key against a register that can be compared and set (porcupine), and all of it against the log, which says what happened in
// what order. linear_test.go has the same without crashes, and with more kinds of calls.

// What a call did to one register.
type registerInput struct {
	kind  byte // 'r' read, 'w' write, 'd' delete, 'c' compare and set
	value string
	old   string // of a compare and set: what it has seen; "" for nothing
}

type registerOutput struct {
	value   string // of a read; "" for nothing
	unknown bool   // nobody knows whether it happened
}

// register is a key, as porcupine knows it.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in, out := input.(registerInput), output.(registerOutput)
		switch in.kind {
		case 'r':
			return out.unknown || out.value == state.(string), state
		case 'w', 'd':
			return true, in.value
		default: // what has succeeded saw what was there; of what may not have happened nobody knows
			if in.old != state.(string) {
				return out.unknown, state
			}
			return true, in.value
		}
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v -> %+v", input, output)
	},
}

// A history is the calls on the registers, with when each began and ended.
type history struct {
	mu    sync.Mutex
	start time.Time
	calls map[int][]porcupine.Operation // by key
	acked map[batchlog.ID]string        // what an acknowledged commit wrote
	open  map[string]bool               // values of commits whose outcome is not known
}

func newHistory() *history {
	return &history{start: time.Now(), calls: map[int][]porcupine.Operation{}, acked: map[batchlog.ID]string{}, open: map[string]bool{}}
}

func (h *history) now() int64 { return time.Since(h.start).Nanoseconds() }

func (h *history) add(key, client int, in registerInput, called int64, out registerOutput) {
	h.mu.Lock()
	defer h.mu.Unlock()
	returned := h.now()
	if out.unknown {
		returned = 1 << 62 // it may take effect at any time from its call on, or never
	}
	h.calls[key] = append(h.calls[key], porcupine.Operation{ClientId: client, Input: in, Call: called, Output: out, Return: returned})
}

// A crowd is the goroutines and what they work on.
type crowd struct {
	t    *testing.T
	h    *history
	keys int

	mu      sync.RWMutex // held for writing while the database is exchanged
	db      *local.DB
	options *local.Options
	stop    atomic.Bool
	clients atomic.Int64
	seen    sync.Map // id of a commit that a follower saw → its value
}

func (c *crowd) current() (*local.DB, *batchlog.Space) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.db, c.db.Space("registers")
}

// client does random calls until the crowd is told to stop.
func (c *crowd) client(seed uint64) {
	rng := newRand(seed)
	id := int(c.clients.Add(1))
	for n := 0; !c.stop.Load(); n++ {
		key := rng.IntN(c.keys)
		value := fmt.Sprintf("%d.%d", id, n)
		db, s := c.current()
		called := c.h.now()
		switch rng.IntN(8) {
		case 0, 1:
			c.write(db, s, id, key, value, called)
		case 2:
			c.remove(s, id, key, called)
		case 3, 4:
			c.update(db, s, id, key, value, called)
		default:
			got, err := s.Get(context.Background(), batchlog.K(key))
			if err == nil || errors.Is(err, batchlog.ErrNotFound) {
				c.h.add(key, id, registerInput{kind: 'r'}, called, registerOutput{value: string(got)})
			} else if !gone(err) {
				c.t.Errorf("get: %v", err)
			}
		}
		if rng.IntN(50) == 0 {
			time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
		}
	}
}

// gone says whether a call failed because the database is being closed, or its disk has no power.
func gone(err error) bool {
	return errors.Is(err, batchlog.ErrClosed) || errors.Is(err, batchlog.ErrReadOnly) || errors.Is(err, errDead)
}

// settle takes note of how a write ended. A nil return of known says that it has no effect.
func (c *crowd) settle(key, client int, in registerInput, called int64, id batchlog.ID, err error) {
	switch {
	case err == nil:
		c.h.add(key, client, in, called, registerOutput{})
		c.h.mu.Lock()
		defer c.h.mu.Unlock()
		text := fmt.Sprintf("%d=%s", key, in.value)
		if old, twice := c.h.acked[id]; twice {
			c.t.Errorf("commit %d is both %s and %s", id, old, text)
		}
		c.h.acked[id] = text
	case errors.Is(err, batchlog.ErrUncertain):
		c.h.add(key, client, in, called, registerOutput{unknown: true})
		c.h.mu.Lock()
		defer c.h.mu.Unlock()
		c.h.open[fmt.Sprintf("%d=%s", key, in.value)] = true
	case !gone(err):
		c.t.Errorf("write: %v", err)
	}
}

func (c *crowd) write(db *local.DB, s *batchlog.Space, client, key int, value string, called int64) {
	var b batchlog.Batch
	b.Put(s, batchlog.K(key), []byte(value))
	id, err := db.Write(context.Background(), &b)
	c.settle(key, client, registerInput{kind: 'w', value: value}, called, id, err)
}

func (c *crowd) remove(s *batchlog.Space, client, key int, called int64) {
	id, err := s.Delete(context.Background(), batchlog.K(key))
	c.settle(key, client, registerInput{kind: 'd'}, called, id, err)
}

// update is a compare and set: it sets the key if it still has the value that was read.
func (c *crowd) update(db *local.DB, s *batchlog.Space, client, key int, value string, called int64) {
	var old string
	id, err := db.Update(context.Background(), func(tx *batchlog.Tx) error {
		v, err := tx.Get(s, batchlog.K(key))
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			return err
		}
		old = string(v)
		tx.Put(s, batchlog.K(key), []byte(value))
		return nil
	})
	c.settle(key, client, registerInput{kind: 'c', value: value, old: old}, called, id, err)
}

// follow reads the log from its beginning, over and over, and notes what it sees.
func (c *crowd) follow(ctx context.Context) {
	last := batchlog.ID(0)
	for !c.stop.Load() {
		db, _ := c.current()
		for commit, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.After(last)}) {
			if err != nil {
				if ctx.Err() == nil && !gone(err) {
					c.t.Errorf("tail: %v", err)
				}
				break
			}
			if commit.ID != last+1 {
				c.t.Errorf("commit %d comes after %d", commit.ID, last)
			}
			last = commit.ID
			c.seen.Store(commit.ID, commitText(c.t, commit))
		}
	}
}

// commitText is what a commit of the crowd wrote.
func commitText(t *testing.T, commit *batchlog.Commit) string {
	t.Helper()
	text := ""
	for op, err := range commit.Ops() {
		if err != nil {
			t.Errorf("ops of commit %d: %v", commit.ID, err)
			return ""
		}
		key, err := op.Key.Decode()
		if err != nil {
			t.Errorf("key of commit %d: %v", commit.ID, err)
		}
		text += strconv.Itoa(int(key.(float64))) + "=" + string(op.Value)
	}
	return text
}

// check asserts that the database, which was opened again, is what the crowd was told and saw.
func (c *crowd) check() {
	c.t.Helper()
	ctx, cancel := bounded(patience)
	defer cancel()
	head, err := c.db.Head(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	found := map[batchlog.ID]string{}
	values := map[string]string{}
	next := batchlog.ID(1)
	for commit, err := range c.db.Tail(ctx, batchlog.TailOptions{Until: head}) {
		if err != nil {
			c.t.Fatal(err)
		}
		if commit.ID != next {
			c.t.Fatalf("commit %d where %d belongs", commit.ID, next)
		}
		next++
		text := commitText(c.t, commit)
		found[commit.ID] = text
		key, value, _ := strings.Cut(text, "=")
		values[key] = value
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	for id, text := range c.h.acked {
		if found[id] != text {
			c.t.Fatalf("commit %d was acknowledged as %s, is %q", id, text, found[id])
		}
	}
	for id, text := range found {
		if c.h.acked[id] == "" && !c.h.open[text] && !strings.HasSuffix(text, "=") {
			c.t.Fatalf("commit %d, %s, was never submitted, or refused", id, text)
		}
	}
	c.seen.Range(func(id, text any) bool {
		if found[id.(batchlog.ID)] != text {
			c.t.Errorf("a follower saw commit %d as %s, it is %q", id, text, found[id.(batchlog.ID)])
		}
		return true
	})
	s := c.db.Space("registers")
	for key := range c.keys {
		got, err := s.Get(ctx, batchlog.K(key))
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) || string(got) != values[strconv.Itoa(key)] {
			c.t.Fatalf("key %d is %q, %v; the log adds up to %q", key, got, err, values[strconv.Itoa(key)])
		}
	}
}

// linearizable asserts that the calls on each key could have been made one after the other.
func (c *crowd) linearizable() {
	c.t.Helper()
	calls := 0
	for key := range c.keys {
		list := c.h.calls[key]
		calls += len(list)
		switch result := porcupine.CheckOperationsTimeout(register, list, time.Minute); result {
		case porcupine.Illegal:
			c.t.Errorf("the %d calls on key %d are not linearizable", len(list), key)
		case porcupine.Unknown:
			c.t.Logf("key %d: %d calls are too many to say", key, len(list))
		}
	}
	c.t.Logf("%d calls, %d commits", calls, len(c.h.acked))
}

// TestCrowdCrashes runs a crowd through losses of power: what anybody was told, or saw in the log, is there afterwards, and
// the calls are linearizable across.
func TestCrowdCrashes(t *testing.T) {
	for seed := range seeds(6, 2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := newRand(seed)
			d := newDisk(nil, seed)
			c := newCrowd(t, d, 6)
			for round := range 4 {
				d.crashIn(20+rng.IntN(400), []int{0, 50, 100}[rng.IntN(3)], rng.IntN(2) == 0)
				c.run(seed*10+uint64(round), 6, 60*time.Millisecond)
				survivor := d.crash(rng.IntN(101))
				if err := closeWithin(c.db, patience); errors.Is(err, errHung) {
					t.Fatal(err)
				}
				d = newDisk(survivor, seed+uint64(round))
				c.disk(d)
				c.reopen()
				c.check()
			}
			c.linearizable()
			c.close()
		})
	}
}

// crowdOptions are how a crowd opens its database.
func crowdOptions(t *testing.T, d *disk) *local.Options {
	t.Helper()
	return &local.Options{
		FS: d, Logger: testLogger(t), CacheBytes: 1 << 20, MemTableBytes: 64 << 10, Log: batchlog.LogConfig{SegmentBytes: 16 << 10},
	}
}

func newCrowd(t *testing.T, d *disk, keys int) *crowd {
	t.Helper()
	c := &crowd{t: t, h: newHistory(), keys: keys}
	c.disk(d)
	c.reopen()
	return c
}

// disk is what the next opening is on.
func (c *crowd) disk(d *disk) { c.options = crowdOptions(c.t, d) }

func (c *crowd) reopen() {
	c.t.Helper()
	db, err := local.Open("db", c.options)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.db = db
}

func (c *crowd) close() {
	c.t.Helper()
	if err := closeWithin(c.db, patience); err != nil {
		c.t.Fatal(err)
	}
}

// run has so many clients, and two followers, work for a while.
func (c *crowd) run(seed uint64, clients int, d time.Duration) {
	c.stop.Store(false)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { c.client(seed*100 + uint64(i)) })
	}
	for range 2 {
		wg.Go(func() { c.follow(ctx) })
	}
	time.Sleep(d)
	c.stop.Store(true)
	cancel()
	wg.Wait()
}
