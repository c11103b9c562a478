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

	"github.com/anishathalye/porcupine"
	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A linearCall is one operation on one key, as the checker knows it.
type linearCall struct {
	kind  string // put, delete, get, view, swap, append
	key   string
	value string // to put, to swap in, to append
	old   string // that swap wants to find; "": no value
}

// A linearOutcome is what a call returned.
type linearOutcome struct {
	value string // that a get, a swap or an append found; "": no value
	done  bool   // whether a swap swapped
}

// appended is what an append makes of what it finds. It stays short and tells all outcomes apart.
func appended(old, value string) string { return old[max(0, len(old)-24):] + "." + value }

// linearRegister is the model of one key: a value, or "" for none.
var linearRegister = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		keys := map[string]int{}
		var parts [][]porcupine.Operation
		for _, o := range history {
			key := o.Input.(linearCall).key
			i, ok := keys[key]
			if !ok {
				i = len(parts)
				keys[key] = i
				parts = append(parts, nil)
			}
			parts[i] = append(parts[i], o)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(linearCall), output.(linearOutcome)
		switch in.kind {
		case "put":
			return true, in.value
		case "delete":
			return true, ""
		case "swap":
			if out.value != now || out.done != (now == in.old) {
				return false, now
			}
			if out.done {
				return true, in.value
			}
			return true, now
		case "append":
			return out.value == now, appended(now, in.value)
		default: // get, view
			return out.value == now, now
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

// do makes the call on a database.
func (c linearCall) do(ctx context.Context, db *batchlog.DB, s *batchlog.Space, opts ...batchlog.ReadOption) (out linearOutcome, err error) {
	found := func(value []byte, err error) error {
		out.value = string(value)
		if errors.Is(err, batchlog.ErrNotFound) {
			err = nil
		}
		return err
	}
	key := batchlog.K(c.key)
	switch c.kind {
	case "put":
		_, err = s.Put(ctx, key, []byte(c.value))
	case "delete":
		_, err = s.Delete(ctx, key)
	case "get":
		err = found(s.Get(ctx, key, opts...))
	case "view":
		v, viewErr := db.View(ctx, opts...)
		if viewErr != nil {
			return out, viewErr
		}
		err = errors.Join(found(v.Get(s, key)), v.Close())
	case "swap":
		_, err = db.Update(ctx, func(tx *batchlog.Tx) error {
			if err := found(tx.Get(s, key)); err != nil {
				return err
			}
			if out.done = out.value == c.old; out.done {
				tx.Put(s, key, []byte(c.value))
			}
			return nil
		})
	case "append":
		_, err = db.Update(ctx, func(tx *batchlog.Tx) error {
			if err := found(tx.Get(s, key)); err != nil {
				return err
			}
			tx.Put(s, key, []byte(appended(out.value, c.value)))
			return nil
		})
	}
	return out, err
}

// A linearHistory is the calls of many goroutines, with the moments in which they began and ended.
type linearHistory struct {
	began time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// record runs do and writes down when it was under way, unless it fails.
func (h *linearHistory) record(client int, input any, do func() (any, error)) (any, error) {
	start := time.Since(h.began)
	output, err := do()
	end := time.Since(h.began)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{
		ClientId: client, Input: input, Call: start.Nanoseconds(), Output: output, Return: end.Nanoseconds(),
	})
	return output, nil
}

// check fails t unless the history has an order that the model allows.
func (h *linearHistory) check(t *testing.T, m porcupine.Model) {
	t.Helper()
	switch porcupine.CheckOperationsTimeout(m, h.ops, time.Minute) {
	case porcupine.Illegal:
		for _, o := range h.ops {
			t.Logf("client %d, %d to %d: %+v returned %+v", o.ClientId, o.Call, o.Return, o.Input, o.Output)
		}
		t.Error("not linearizable")
	case porcupine.Unknown:
		t.Errorf("%d calls took the checker more than a minute", len(h.ops))
	}
}

const (
	linearClients = 8
	linearKeys    = 3
)

// linearRun runs fn in so many goroutines, each with its own random numbers.
func linearRun(t *testing.T, seed uint64, fn func(client int, rng *rand.Rand) error) {
	t.Helper()
	var wg sync.WaitGroup
	for client := range linearClients {
		wg.Go(func() {
			if err := fn(client, rand.New(rand.NewPCG(seed, uint64(client)))); err != nil {
				t.Errorf("client %d: %v", client, err)
			}
		})
	}
	wg.Wait()
}

// linear has clients make random calls on a few keys and checks what they saw.
func linear(t *testing.T, fs vfs.FS, dir string, seed uint64, calls int) {
	t.Helper()
	db, err := local.Open(dir, &local.Options{FS: fs, Logger: testLogger(t), MemTableBytes: 64 << 10, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := db.Space("registers")
	h := &linearHistory{began: time.Now()}
	kinds := []string{"put", "put", "delete", "get", "get", "view", "swap", "append"}
	linearRun(t, seed, func(client int, rng *rand.Rand) error {
		last := map[string]string{} // that this client saw
		for n := range calls {
			c := linearCall{
				kind: kinds[rng.IntN(len(kinds))], key: string(rune('a' + rng.IntN(linearKeys))), value: fmt.Sprintf("%d/%d", client, n),
			}
			c.old = last[c.key]
			out, err := h.record(client, c, func() (any, error) { return c.do(t.Context(), db.DB, s) })
			if err != nil {
				return fmt.Errorf("%+v: %w", c, err)
			}
			last[c.key] = out.(linearOutcome).value
		}
		return nil
	})
	h.check(t, linearRegister)
}

// Whatever writes, updates and reads many goroutines make, there is one order of them in which each happens in one moment between its
// begin and its end.
func TestLinearizable(t *testing.T) {
	seeds := 4
	if *flagSeeds > 0 {
		seeds = *flagSeeds
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("Memory/seed=%d", seed), func(t *testing.T) { linear(t, vfs.NewMem(), "db", seed, 120) })
	}
	t.Run("Disk", func(t *testing.T) {
		if testing.Short() {
			t.Skip("memory is enough for a short run")
		}
		linear(t, vfs.Default, t.TempDir(), 1, 60)
	})
}

// A gatedFS holds the files that the store writes its memtables to until the gate is open.
type gatedFS struct {
	vfs.FS
	gate chan struct{}
}

func (g gatedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") {
		<-g.gate
	}
	return g.FS.Create(name, c)
}

// The checker finds a stale read, where the store lags behind the log and Stale shows that; a held read in its place passes.
func TestLinearFindsStale(t *testing.T) {
	fs := gatedFS{vfs.NewMem(), make(chan struct{})}
	db, err := local.Open("db", &local.Options{FS: fs, Logger: testLogger(t), MemTableBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	open := sync.OnceFunc(func() { close(fs.gate) })
	defer open() // before Close, which waits for the store
	s := db.Space("registers")
	h := &linearHistory{began: time.Now()}
	do := func(c linearCall, opts ...batchlog.ReadOption) linearOutcome {
		t.Helper()
		out, err := h.record(0, c, func() (any, error) { return c.do(t.Context(), db.DB, s, opts...) })
		if err != nil {
			t.Fatal(err)
		}
		return out.(linearOutcome)
	}
	do(linearCall{kind: "put", key: "a", value: "1"})
	if got := do(linearCall{kind: "get", key: "a"}); got.value != "1" {
		t.Fatalf("got %+v", got)
	}
	for i := 0; ; i++ {
		if _, err := db.Space("filler").Put(t.Context(), batchlog.K(i), make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		if st, err := db.Status(t.Context()); err != nil || i == 1000 {
			t.Fatalf("status %+v after %d commits: %v", st, i, err)
		} else if st.Head >= st.Applied+8 {
			break
		}
	}
	do(linearCall{kind: "put", key: "a", value: "2"})
	fresh := append([]porcupine.Operation(nil), h.ops...)
	if got := do(linearCall{kind: "get", key: "a"}, batchlog.Stale()); got.value != "1" {
		t.Fatalf("a stale read of a store that is held found %+v", got)
	}
	if porcupine.CheckOperations(linearRegister, h.ops) {
		t.Error("a stale read passes as linearizable")
	}
	h.ops = fresh
	time.AfterFunc(10*time.Millisecond, open)
	if got := do(linearCall{kind: "get", key: "a"}); got.value != "2" {
		t.Errorf("a held read found %+v", got)
	}
	h.check(t, linearRegister)
}

// The checker finds what must not be in histories that were made by hand: each is refused, and passes once its fault is taken out.
func TestLinearFindsFaults(t *testing.T) {
	at := func(start, end int64, c linearCall, out linearOutcome) porcupine.Operation {
		c.key = "a"
		return porcupine.Operation{Input: c, Output: out, Call: start, Return: end}
	}
	put := at(0, 1, linearCall{kind: "put", value: "1"}, linearOutcome{})
	for name, bad := range map[string][]porcupine.Operation{
		"read goes back": {put, at(2, 9, linearCall{kind: "put", value: "2"}, linearOutcome{}), at(3, 4, linearCall{kind: "get"}, linearOutcome{value: "2"}),
			at(5, 6, linearCall{kind: "get"}, linearOutcome{value: "1"})},
		"lost update": {put, at(2, 5, linearCall{kind: "append", value: "x"}, linearOutcome{value: "1"}),
			at(3, 6, linearCall{kind: "append", value: "y"}, linearOutcome{value: "1"})},
		"two swaps of one value": {put, at(2, 5, linearCall{kind: "swap", old: "1", value: "x"}, linearOutcome{"1", true}),
			at(3, 6, linearCall{kind: "swap", old: "1", value: "y"}, linearOutcome{"1", true})},
		"deleted and read": {put, at(2, 3, linearCall{kind: "delete"}, linearOutcome{}), at(4, 5, linearCall{kind: "get"}, linearOutcome{value: "1"})},
	} {
		if porcupine.CheckOperations(linearRegister, bad) {
			t.Errorf("%s: passes as linearizable", name)
		}
		if !porcupine.CheckOperations(linearRegister, bad[:len(bad)-1]) {
			t.Errorf("%s: refused without its last call", name)
		}
	}
}

// A shift is an update of two keys: it takes doctor n off duty if the other one stays, or calls both in (n < 0).
type shift struct{ n int }

// duty is who is on duty, as a shift found it.
type duty [2]bool

// linearDuties is the model of two keys that are read and written in one update each.
var linearDuties = porcupine.Model{
	Init: func() any { return duty{} },
	Step: func(state, input, output any) (bool, any) {
		now, in := state.(duty), input.(shift)
		return output.(duty) == now, now.after(in)
	},
}

func (d duty) after(s shift) duty {
	if s.n < 0 {
		return duty{true, true}
	}
	if d[0] && d[1] {
		d[s.n] = false
	}
	return d
}

// Updates that read two keys and write one of them are as if one ran after the other: there is no write skew.
func TestSerializableTwoKeys(t *testing.T) {
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := db.Space("duty")
	h := &linearHistory{began: time.Now()}
	update := func(in shift) (any, error) {
		var found duty
		_, err := db.Update(t.Context(), func(tx *batchlog.Tx) error {
			for i := range found {
				value, err := tx.Get(s, batchlog.K(i))
				if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
					return err
				}
				found[i] = string(value) == "on"
			}
			next := found.after(in)
			for i := range next {
				switch {
				case next[i] && !found[i]:
					tx.Put(s, batchlog.K(i), []byte("on"))
				case !next[i] && found[i]:
					tx.Delete(s, batchlog.K(i))
				}
			}
			return nil
		})
		return found, err
	}
	linearRun(t, 7, func(client int, rng *rand.Rand) error {
		for range 60 {
			in := shift{rng.IntN(3) - 1}
			if _, err := h.record(client, in, func() (any, error) { return update(in) }); err != nil {
				return err
			}
		}
		return nil
	})
	h.check(t, linearDuties)
	skew := []porcupine.Operation{
		{Input: shift{-1}, Output: duty{}, Call: 0, Return: 1},
		{Input: shift{0}, Output: duty{true, true}, Call: 2, Return: 5},
		{Input: shift{1}, Output: duty{true, true}, Call: 3, Return: 6},
	}
	if porcupine.CheckOperations(linearDuties, skew) {
		t.Error("a write skew passes as serializable")
	}
}
