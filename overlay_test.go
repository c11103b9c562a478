package batchlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// A listCursor is a cursor over keys in a list.
type listCursor struct {
	keys []string
}

func (c *listCursor) Next() (key, value []byte, err error) {
	if len(c.keys) == 0 {
		return nil, nil, io.EOF
	}
	key = []byte(c.keys[0])
	c.keys = c.keys[1:]
	return key, []byte("stored"), nil
}

func (c *listCursor) Close() error { return nil }

// A plainOverlay is a model: all keys there can be, and what is known of them.
type plainOverlay map[string]string

const gone = "\x00gone"

func (m plainOverlay) deleteRange(universe []string, low, high string) {
	for _, k := range universe {
		if low <= k && k < high {
			m[k] = gone
		}
	}
}

// scan is what a scan on top of the store shows.
func (m plainOverlay) scan(universe []string, stored map[string]bool, low, high string, reverse bool) (seen []string) {
	for _, k := range universe {
		v, own := m[k]
		if !own && stored[k] {
			v = "stored"
		}
		if low <= k && k < high && v != gone && (own || stored[k]) {
			seen = append(seen, k+"="+v)
		}
	}
	if reverse {
		slices.Reverse(seen)
	}
	return seen
}

// Whatever is written, reads and scans, in both directions, show what the model says, also scans that began before more was written; the trees are in order.
func TestOverlay(t *testing.T) {
	universe := []string{""}
	for _, a := range "abcde" {
		universe = append(universe, string(a))
		for _, b := range "abcde" {
			universe = append(universe, string(a)+string(b))
		}
	}
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		pick := func() string { return universe[rng.IntN(len(universe))] }
		stored := map[string]bool{}
		for range rng.IntN(20) {
			stored[pick()] = true
		}
		var o overlay
		m := plainOverlay{}
		type scan struct {
			merged merge
			want   []string
		}
		var open []scan // each goes one step at a time
		step := func(s *scan) (over bool) {
			key, value, err := s.merged.next()
			if err != nil {
				if !errors.Is(err, io.EOF) || len(s.want) != 0 {
					t.Fatalf("seed %d: a scan ends with %v before %q", seed, err, s.want)
				}
				return true
			}
			if len(s.want) == 0 || string(key)+"="+string(value) != s.want[0] {
				t.Fatalf("seed %d: a scan shows %s=%s, not %q", seed, key, value, s.want)
			}
			s.want = s.want[1:]
			return false
		}
		for n := range 120 {
			switch rng.IntN(6) {
			case 0, 1:
				k := pick()
				m[k] = fmt.Sprint(n)
				o.put([]byte(k), fmt.Append(nil, n), false)
			case 2:
				k := pick()
				m[k] = gone
				o.put([]byte(k), nil, true)
			case 3:
				low, high := pick(), pick()
				m.deleteRange(universe, low, high)
				o.deleteRange([]byte(low), []byte(high))
			case 4:
				low, high, reverse := pick(), pick(), rng.IntN(2) == 0
				cursor := &listCursor{keys: slices.DeleteFunc(slices.Sorted(maps.Keys(stored)), func(k string) bool { return k < low || k >= high })}
				if reverse {
					slices.Reverse(cursor.keys)
				}
				open = append(open, scan{merge{cursor: cursor, own: o.view([]byte(low), []byte(high), reverse)}, m.scan(universe, stored, low, high, reverse)})
			default:
				for i := len(open) - 1; i >= 0; i-- {
					if step(&open[i]) {
						open = slices.Delete(open, i, i+1)
					}
				}
			}
			for _, k := range universe {
				value, deleted, ok := o.get([]byte(k))
				want, own := m[k]
				if own != ok || own && (want == gone) != deleted || own && !deleted && string(value) != want {
					t.Fatalf("seed %d: %q is %q, %t, %t, not %q", seed, k, value, deleted, ok, want)
				}
			}
			inOrder(t, &o.keys)
			inOrder(t, &o.ranges)
			for at := o.ranges.ceiling(nil, true); at != nil; {
				next := o.ranges.ceiling(at.key, false)
				if bytes.Compare(at.key, at.value) >= 0 || next != nil && bytes.Compare(at.value, next.key) >= 0 {
					t.Fatalf("seed %d: range %q to %q, then %v", seed, at.key, at.value, next)
				}
				at = next
			}
		}
		for i := range open {
			for !step(&open[i]) {
			}
		}
	}
}

// inOrder checks that o is a search tree by key and a heap by rank.
func inOrder(t *testing.T, o *ordered) {
	t.Helper()
	var last []byte
	first := true
	var walk func(n *orderedNode)
	walk = func(n *orderedNode) {
		if n == nil {
			return
		}
		walk(n.left)
		if !first && bytes.Compare(last, n.key) >= 0 {
			t.Fatalf("%q after %q", n.key, last)
		}
		last, first = n.key, false
		for _, child := range []*orderedNode{n.left, n.right} {
			if child != nil && child.rank > n.rank {
				t.Fatal("no heap")
			}
		}
		walk(n.right)
	}
	walk(o.root)
}

// What a transaction does to its own writes takes log n: the nodes that are visited are counted, over programs that were quadratic.
func TestOverlayIsFast(t *testing.T) {
	key := func(i int) []byte { return fmt.Appendf(nil, "%08d", i) }
	for name, program := range map[string]func(o *overlay, n int) (own int){
		"range deleted, then put": func(o *overlay, n int) int {
			for i := range n {
				o.deleteRange(key(10*i), key(10*i+5))
				o.put(key(10*i+2), nil, false)
			}
			return 0
		},
		"the same range, and puts in it": func(o *overlay, n int) int {
			for i := range n {
				o.deleteRange(key(0), key(n))
				o.put(key(i), nil, false)
			}
			return 0
		},
		"ascending, descending, read": func(o *overlay, n int) int {
			for i := range n {
				o.put(key(i), nil, false)
				o.put(key(3*n-i), nil, false)
				o.get(key(i))
				o.deleteRange(key(4*n+2*i), key(4*n+2*i+1))
			}
			for i := range n {
				o.get(key(4*n + 2*i))
			}
			return 0
		},
		"scans that are broken off, and writes": func(o *overlay, n int) (own int) {
			for i := range n {
				o.put(key(i), nil, false)
				v := o.view(key(0), key(n), i%2 == 0)
				v.advance()
				own += v.keys.steps + v.ranges.steps
			}
			return own
		},
		"one scan of all": func(o *overlay, n int) (own int) {
			for i := range n {
				o.put(key(i), nil, false)
			}
			v := o.view(key(0), key(n), false)
			for v.next != nil {
				v.advance()
			}
			return v.keys.steps + v.ranges.steps
		},
	} {
		const n = 8000
		var o overlay
		steps := program(&o, n) + o.keys.steps + o.ranges.steps
		if most := 20 * n * bits.Len(n); steps > most {
			t.Errorf("%s: %d nodes visited, at most %d", name, steps, most)
		}
	}
}
