package batchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// The hooks that are found for a key are those whose spaces it is in, whatever spaces have hooks, in the order in which they are called.
func TestHookIndex(t *testing.T) {
	db := New(&stub{})
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		space := func() *Space {
			s := db.Root()
			for range rng.IntN(4) {
				s = s.Space([]any{"a", "ab", "b", 1, 2, []byte{0xff}}[rng.IntN(6)])
			}
			return s
		}
		var hooks []*boundHook
		for i := range rng.IntN(12) {
			hooks = append(hooks, &boundHook{space: space(), order: i})
		}
		x := newHookIndex(hooks)
		if x == nil {
			continue
		}
		var ops []hookOp
		for range 30 {
			ops = append(ops, hookOp{key: space().storedKey(Key{byte(rng.IntN(256))})})
		}
		round := x.round(ops, 3, 25)
		want := map[*boundHook][]int{}
		for _, b := range hooks {
			for i := 3; i < 25; i++ {
				if bytes.HasPrefix(ops[i].key, wire.Open(b.space.prefix)) {
					want[b] = append(want[b], i)
				}
			}
		}
		if len(want) != len(round.ops) || len(round.hooks) != len(want) {
			t.Fatalf("seed %d: %d hooks, want %d", seed, len(round.hooks), len(want))
		}
		for b, about := range want {
			if !slices.Equal(round.ops[b], about) {
				t.Fatalf("seed %d: %s is given %v, want %v", seed, b.space, round.ops[b], about)
			}
		}
		for i := 1; i < len(round.hooks); i++ {
			a, b := round.hooks[i-1], round.hooks[i]
			if da, db := pathDepth(a.space.prefix), pathDepth(b.space.prefix); da > db || da == db && a.order > b.order {
				t.Fatalf("seed %d: %s before %s", seed, a.space, b.space)
			}
		}
	}
}

// A thousand hooks on other spaces cost a write some comparisons a key.
func TestHooksOfOthersCostNothing(t *testing.T) {
	db := New(&stub{})
	h := NewHooks(db)
	for i := range 1000 {
		if _, err := h.Add(db.Space("hooked", i), func(*Tx, []Op) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	x := h.index()
	for i := range 2000 {
		for _, s := range []*Space{db.Root(), db.Space("free"), db.Space("hooked"), db.Space("hooked", i, "in"), db.Space("zzz", i)} {
			found, looked := x.search(s.storedKey(K(i)))
			if looked > 10 {
				t.Fatalf("%d places looked at", looked)
			}
			if want := i < 1000 && db.Space("hooked", i).Contains(s); want != (found != nil) {
				t.Fatalf("key of %s: found %t", s, found != nil)
			}
		}
	}
	var b Batch
	for i := range 1000 {
		b.Put(db.Space("free"), K(i), nil)
	}
	p, err := b.seal(db)
	if err != nil {
		t.Fatal(err)
	}
	if allocs := testing.AllocsPerRun(10, func() {
		if h.Touch(p) {
			t.Fatal("touched")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// runHooks runs hook in space s on the ops of b.
func runHooks(t *testing.T, db *DB, b *Batch, s *Space, hook PreCommit) (*waist.Proposal, error) {
	t.Helper()
	h := NewHooks(db)
	if _, err := h.Add(s, hook); err != nil {
		t.Fatal(err)
	}
	p, err := b.seal(db)
	if err != nil {
		t.Fatal(err)
	}
	view, err := (&mapStore{}).View(t.Context(), ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	return h.Run(context.WithoutCancel(t.Context()), p, view)
}

// What a hook keeps of what it was given stays as it was, whatever the writer does with its batch.
func TestHookMayKeep(t *testing.T) {
	db := New(&stub{})
	s := db.Space("s")
	var b Batch
	var kept []Op
	fill := func(char string) {
		for i := range 50 {
			b.Put(s, Key(fmt.Sprint(char, i)), bytes.Repeat([]byte(char), 20))
			b.Delete(s, Key(fmt.Sprint(char, "-", i)))
			b.DeleteRange(s, Between(Key(fmt.Sprint(char, "<", i)), Key(fmt.Sprint(char, ">", i))))
		}
	}
	fill("a")
	if _, err := runHooks(t, db, &b, s, func(_ *Tx, ops []Op) error {
		kept = append(kept, ops...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	show := func() string {
		text := ""
		for _, op := range kept {
			text += fmt.Sprintf("%s %s %s %s\n", op.Kind, []byte(op.Key), []byte(op.High), op.Value)
		}
		return text
	}
	before := show()
	b.Reset()
	fill("b")
	if len(kept) != 150 || show() != before {
		t.Errorf("what the hook kept has changed: %.200s", show())
	}
}

// A hook that sets itself off, twice as much each time, is refused before it has taken much memory.
func TestHookSetsItselfOff(t *testing.T) {
	db := New(&stub{})
	s := db.Space("s")
	var b Batch
	for i := range 10_000 {
		b.Put(s, K(i), nil)
	}
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	n, before, most := 1<<30, heap(), 0
	_, err := runHooks(t, db, &b, s, func(tx *Tx, ops []Op) error {
		for range ops {
			for range 4 {
				n++
				tx.Put(s, K(n), nil)
			}
		}
		most = max(most, heap()-before)
		return nil
	})
	var limit *LimitError
	if !errors.As(err, &limit) || limit.Limit != MaxHookAddedBytes {
		t.Errorf("ended with %v", err)
	}
	if most > 2*MaxHookAddedBytes {
		t.Errorf("took %d MiB", most>>20)
	}
	t.Logf("took %d MiB", most>>20)
}

// A hook that changes each op and reads what it changed does not go through all ops each time.
func TestHookEditsAreShown(t *testing.T) {
	db := New(&stub{})
	s := db.Space("s")
	var b Batch
	for i := range 1000 {
		b.Put(s, K(i), []byte("old"))
		b.Put(s, K(i), []byte("last"))
	}
	var rebuilt int
	_, err := runHooks(t, db, &b, s, func(tx *Tx, ops []Op) error {
		for i, op := range ops {
			if err := tx.Replace(op, fmt.Append(nil, "new ", i)); err != nil {
				return err
			}
			want := fmt.Sprint("new ", i)
			if i%2 == 0 {
				want = "last" // the first of two on the same key
			}
			if got, err := tx.Get(s, op.Key); err != nil || string(got) != want {
				return fmt.Errorf("%s is %q, %w, not %q", op.Key, got, err, want)
			}
		}
		rebuilt = tx.hooks.rebuilt
		return nil
	})
	if err != nil || rebuilt > 1 {
		t.Errorf("%v, made anew %d times", err, rebuilt)
	}
}

// A proposal that begins while there is a hook, and comes to the hooks when there are none any more, goes by.
func TestHooksRemovedUnderWay(t *testing.T) {
	db := New(&stub{})
	s := db.Space("s")
	h := NewHooks(db)
	remove, err := h.Add(s, func(*Tx, []Op) error { return errors.New("called") })
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	b.Put(s, K("k"), nil)
	p, err := b.seal(db)
	if err != nil {
		t.Fatal(err)
	}
	if !h.Touch(p) {
		t.Fatal("the hook is not concerned")
	}
	remove()
	view, err := (&mapStore{}).View(t.Context(), ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	out, err := h.Run(t.Context(), p, view)
	if err != nil || out.Count != 1 || !bytes.Equal(out.Ops, p.Ops) {
		t.Errorf("%+v, %v", out, err)
	}
	chained := &waist.Proposal{Chain: &wire.ChainRef{Source: noChain{}}, Ops: p.Ops, Count: p.Count}
	if out, err = h.RunChain(t.Context(), chained, view); err != nil || out.Count != 1 || out.Chain == nil {
		t.Errorf("%+v, %v", out, err)
	}
}

// noChain is the source of a chain without ops.
type noChain struct{}

func (noChain) OpenChain(*wire.ChainRef) (wire.OpReader, error) { return noChain{}, nil }
func (noChain) Next() ([]byte, int, error)                      { return nil, 0, io.EOF }
func (noChain) Close() error                                    { return nil }

// A hook that adds more than a batch takes, and reads after that, is refused with the limit, and does not panic.
func TestHookAddsTooMuch(t *testing.T) {
	db := New(&stub{})
	s, other := db.Space("s"), db.Space("other")
	var b Batch
	b.Put(s, K("k"), make([]byte, MaxBatchBytes-1<<20))
	_, err := runHooks(t, db, &b, s, func(tx *Tx, _ []Op) error {
		tx.Put(other, K("k"), make([]byte, 2<<20))
		_, _ = tx.Get(other, K("k"))
		return nil
	})
	if !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrPermission) {
		t.Errorf("%.300v", err)
	}
}
