package seglog

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A num is an item of a list; value tells items with the same key apart.
type num struct{ k, value uint64 }

func (n num) key() uint64 { return n.k }

// A list does what a plain slice does, whatever is done to it, and none of its earlier versions ever changes.
func TestListModel(t *testing.T) {
	type version struct {
		list  list[num]
		model []num
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := version{}
		versions := []version{now}
		next := uint64(1 + r.IntN(3))
		for range 300 {
			l, model := now.list, slices.Clone(now.model)
			some := func() uint64 { return r.Uint64N(next + 2) }
			switch op := r.IntN(10); {
			case op < 4:
				items := make([]num, r.IntN([]int{3, 3, 600}[r.IntN(3)]))
				for i := range items {
					items[i] = num{next, r.Uint64()}
					next += 1 + r.Uint64N(3)
				}
				l, model = l.with(items...), append(model, items...)
			case op < 7 && len(model) > 0:
				at := r.IntN(len(model))
				model[at].value++
				l = l.set(model[at])
			case op < 9:
				low := some()
				high := low + r.Uint64N(4)
				if r.IntN(4) == 0 {
					low = 0 // as when the oldest are dropped
				}
				l = l.without(low, high)
				model = slices.DeleteFunc(model, func(n num) bool { return n.k >= low && n.k <= high })
			default:
				now = versions[r.IntN(len(versions))] // versions may branch
				if n := len(now.model); n > 0 {
					next = now.model[n-1].k + 1
				}
				continue
			}
			now = version{l, model}
			versions = append(versions, now)
			checkList(t, l, model, some())
		}
		for _, v := range versions {
			checkList(t, v.list, v.model, 7)
		}
	}
}

func checkList(t *testing.T, l list[num], model []num, key uint64) {
	t.Helper()
	if got := slices.Collect(l.all()); !slices.Equal(got, model) || l.len() != len(model) {
		t.Fatalf("%d items %v, want %d: %v", l.len(), got, len(model), model)
	}
	back := slices.Collect(l.backward())
	slices.Reverse(back)
	if !slices.Equal(back, model) {
		t.Fatalf("backward %v, want %v", back, model)
	}
	at, exact := slices.BinarySearchFunc(model, key, func(n num, key uint64) int { return int(n.k) - int(key) })
	if got := slices.Collect(l.from(key)); !slices.Equal(got, model[at:]) {
		t.Fatalf("from %d: %v, want %v", key, got, model[at:])
	}
	if got, ok := l.get(key); ok != exact || exact && got != model[at] {
		t.Fatalf("item %d is %v, %t", key, got, ok)
	}
	if exact {
		at++
	}
	if got, ok := l.find(key); ok != (at > 0) || at > 0 && got != model[at-1] {
		t.Fatalf("up to %d: %v, %t, want %v", key, got, ok, model[:at])
	}
	first, some := l.first()
	last, _ := l.last()
	if some != (len(model) > 0) || some && (first != model[0] || last != model[len(model)-1]) {
		t.Fatalf("from %v to %v, want %v", first, last, model)
	}
}
