package chainsort

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// parseStep reads "5 put a 1", "5 del a", "5 range a c", "5 retract a" or "5 retracts a c". Keys are those of space "a", or with "b/" in front
// of the space in it; "-" means no bound, and "$" what is behind the own keys of the space.
func parseStep(t *testing.T, line string) (s step) {
	t.Helper()
	f := append(strings.Fields(line), "")
	if _, err := fmt.Sscan(f[0], &s.seq); err != nil {
		t.Fatal(err)
	}
	s.key = stored(f[2])
	switch f[1] {
	case "put":
		s.kind, s.value = put, []byte(f[3])
	case "del":
		s.kind = del
	case "retract":
		s.kind = retract
	case "range", "retracts":
		s.kind, s.high = delRange, stored(f[3])
		if f[1] == "retracts" {
			s.kind = retractRange
		}
	default:
		t.Fatalf("no step: %s", line)
	}
	return s
}

func stored(key string) []byte {
	path := paths[1]
	if rest, ok := strings.CutPrefix(key, "b/"); ok {
		path, key = paths[2], rest
	}
	switch key {
	case "-":
		return nil
	case "$":
		return append([]byte(path[:len(path)-1]), 1)
	}
	return []byte(path + key)
}

func TestRules(t *testing.T) {
	for _, c := range []struct{ name, steps, want string }{
		{"nothing", "", ""},
		{"later wins", "1 put k 1; 1 put k 2", "put k 2"},
		{"higher seq wins", "2 put k 1; 1 put k 2", "put k 1"},
		{"delete wins", "1 put k 1; 1 del k", "del k"},
		{"keys in order", "1 put b 1; 1 put a 2; 2 del aa", "put a 2; del aa; put b 1"},
		{"retract", "1 put k 1; 2 put k 2; 2 retract k", "put k 1"},
		{"retract of a seq that is hidden", "1 put k 1; 2 put k 2; 1 retract k", "put k 2"},
		{"retract before", "1 retract k; 1 put k 1", "put k 1"},
		{"retract takes all older ones of the seq", "1 put k 1; 2 put k 2; 2 del k; 2 retract k", "put k 1"},
		{"put after retract", "1 put k 1; 1 retract k; 1 put k 2", "put k 2"},
		{"all taken back", "1 put k 1; 2 del k; 1 retract k; 2 retract k", "none k"},
		{"retract of nothing", "1 retract k; 1 retracts a z", ""},
		{"retract range", "1 put a 1; 1 put b 2; 1 put c 3; 1 retracts b c", "put a 1; none b; put c 3"},
		{"retract range of one seq", "1 put b 1; 2 put b 2; 3 retracts a c; 2 retracts a c", "put b 1"},
		{"retract range before", "1 retracts a c; 1 put b 1", "put b 1"},
		{"retract range without bound", "1 put a 1; 1 put b/x 2; 1 retracts b -", "put a 1; none b/x"},
		{"wider and later", "1 put k 1; 1 put m 1; 1 retracts j z; 1 put k 2; 1 retracts k l", "none k; none m"},
		{"range over put", "1 put k 1; 2 range a z", "range a z"},
		{"range under put", "2 put k 1; 1 range a z", "range a z; put k 1"},
		{"range under put, same seq", "1 range a z; 1 put k 1", "range a z; put k 1"},
		{"range over put, same seq", "1 put k 1; 1 range a z", "range a z"},
		{"range under delete", "1 range a z; 2 del k; 2 del z", "range a z; del z"},
		{"range does not take back", "1 put k 1; 1 retract k; 0 range a z", "range a z"},
		{"retract leaves ranges", "1 range a z; 1 retract a; 1 retracts a z", "range a z"},
		{"retract uncovers a put under a range", "1 put k 1; 2 range a z; 3 put k 3; 3 retract k", "range a z"},
		{"the highest of nested ranges", "5 range a z; 1 range b c; 3 put bb 1; 7 put x 2", "range a z; put x 2"},
		{"an end uncovers", "5 range a c; 1 range a z; 3 put b 1; 3 put c 2", "range a z; put c 2"},
		{"range at a key", "1 range k l; 2 put k 1; 2 put j 1", "put j 1; range k l; put k 1"},
		{"joined", "1 range a c; 2 range b d; 3 range d e; 4 range f g", "range a e; range f g"},
		{"ahead of points", "1 range a c; 9 put b 1; 1 range c d", "range a d; put b 1"},
		{"not over spaces", "1 range a $; 1 range b/a b/c; 1 range b/c b/$; 0 put b/x 2", "range a $; range b/a b/$"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m model
			for line := range strings.SplitSeq(c.steps, "; ") {
				if line != "" {
					m = append(m, parseStep(t, line))
				}
			}
			var want []string
			for line := range strings.SplitSeq(c.want, "; ") {
				f := append(strings.Fields(line), "", "")
				switch f[0] {
				case "put":
					want = append(want, fmt.Sprintf("put %x %x", stored(f[1]), f[2]))
				case "range":
					want = append(want, fmt.Sprintf("range %x %x", stored(f[1]), stored(f[2])))
				case "del", "none":
					want = append(want, fmt.Sprintf("%s %x", f[0], stored(f[1])))
				}
			}
			if got := m.net(nil, nil); !slices.Equal(got, want) {
				t.Errorf("the model has\n %q, want\n %q", got, want)
			}
			for _, runs := range []string{"memory", "one run", "a run each", "merged"} {
				s := newSorter(t, vfs.NewMem(), 64<<10)
				for _, st := range m {
					if err := give(s, st); err != nil {
						t.Fatal(err)
					}
					if runs == "a run each" || runs == "merged" {
						mustSpill(t, s)
					}
				}
				if runs == "one run" {
					mustSpill(t, s)
				}
				for _, l := range []*lane{&s.points, &s.ranges} {
					if runs == "merged" && len(l.runs) > 1 {
						if err := s.mergeSmallest(context.Background(), l, len(l.runs)); err != nil {
							t.Fatal(err)
						}
					}
				}
				if got, err := net(s, nil, nil); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: %v\n got %q\nwant %q", runs, err, got, want)
				}
			}
		})
	}
}

func mustSpill(t testing.TB, s *Sorter) {
	t.Helper()
	if err := s.spill(); err != nil {
		t.Fatal(err)
	}
}

func TestBounds(t *testing.T) {
	for _, spilled := range []bool{false, true} {
		s := newSorter(t, vfs.NewMem(), 0)
		for _, line := range []string{"1 range a f", "2 put b 1", "2 put c 2", "2 put d 3", "2 put g 4", "3 range f h", "9 put g 5"} {
			if err := give(s, parseStep(t, line)); err != nil {
				t.Fatal(err)
			}
		}
		if spilled {
			mustSpill(t, s)
		}
		for _, c := range []struct{ low, high, want string }{
			{"c", "d", "range c d put c"},
			{"c", "", "range c h put c put d put g"},
			{"", "b", "range a b"},
			{"g", "gg", "range g gg put g"},
			{"h", "", ""},
			{"d", "c", ""},
		} {
			var low, high []byte
			if c.low != "" {
				low = stored(c.low)
			}
			if c.high != "" {
				high = stored(c.high)
			}
			var got []string
			err := s.Net(context.Background(), low, high, func(n Net) error {
				cut := func(b []byte) string { return strings.TrimPrefix(string(b), paths[1]) }
				switch n.Kind {
				case NetPut:
					got = append(got, "put", cut(n.Key))
				case NetDeleteRange:
					got = append(got, "range", cut(n.Key), cut(n.Value))
				default:
					t.Errorf("net of kind %d", n.Kind)
				}
				return nil
			})
			if s := strings.Join(got, " "); err != nil || s != c.want {
				t.Errorf("from %q to %q: %s, %v; want %s", c.low, c.high, s, err, c.want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	s := newSorter(t, vfs.NewMem(), 0)
	good := step{kind: put, key: stored("k"), value: []byte("v")}.encode(nil)
	for name, c := range map[string]struct {
		ops   []byte
		count int
	}{
		"kind":           {append(slices.Clone(good), 9), 2},
		"cut":            {good[:len(good)-1], 1},
		"more ops":       {append(slices.Clone(good), good...), 1},
		"fewer ops":      {good, 2},
		"empty range":    {step{kind: delRange, key: stored("k"), high: stored("k")}.encode(slices.Clone(good)), 2},
		"other space":    {step{kind: delRange, key: stored("k"), high: stored("b/k")}.encode(slices.Clone(good)), 2},
		"behind a space": {step{kind: delRange, key: stored("k"), high: []byte("\xa0\x70a\x00\x01x")}.encode(slices.Clone(good)), 2},
		"no space":       {step{kind: delRange, key: []byte("k"), high: []byte("l")}.encode(slices.Clone(good)), 2},
		"long key":       {step{kind: put, key: make([]byte, batchlog.MaxKeyBytes+1)}.encode(slices.Clone(good)), 2},
	} {
		if err := s.Add(1, c.ops, c.count); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if ops, _, _ := s.Size(); ops != 0 {
		t.Errorf("%d ops of refused ones were added", ops)
	}
	if err := s.Retract(1, make([]byte, batchlog.MaxKeyBytes+1)); !errors.Is(err, batchlog.ErrTooLarge) {
		t.Errorf("retract of a long key: %v", err)
	}
	if err := s.Add(1, append(slices.Clone(good), good...), 2); err != nil {
		t.Fatal(err)
	}
	if ops, size, disk := s.Size(); ops != 2 || size != int64(2*len(good)) || disk != 0 {
		t.Errorf("size is %d, %d, %d", ops, size, disk)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Add(1, good, 1), s.Retract(1, nil), s.RetractRange(1, nil, nil), s.Net(context.Background(), nil, nil, nil)} {
		if !errors.Is(err, batchlog.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestStops(t *testing.T) {
	s := newSorter(t, vfs.NewMem(), 4<<10)
	for i := range 20000 {
		if err := give(s, step{kind: put, key: fmt.Appendf(stored("k"), "%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.points.runs); n > 12 || s.made < 100 {
		t.Errorf("%d runs are there, of %d made: too many are left for memory", n, s.made)
	}
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	err := s.Net(ctx, nil, nil, func(Net) error { seen++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || seen > checkEvery {
		t.Errorf("cancelled: %v after %d", err, seen)
	}
	stop := errors.New("stop")
	if err := s.Net(context.Background(), nil, nil, func(Net) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("visit's error: %v", err)
	}
}

// TestSorted holds the sort of refs against a plain one, on keys that share beginnings, end in zeros, and are equal.
func TestSorted(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := newSorter(t, vfs.NewMem(), 0)
		var want []string
		stems := []string{"", "\x00\x00", strings.Repeat("s", r.IntN(40)), strings.Repeat("\x00", r.IntN(40)), "\xff\xff\xff\xff\xff\xff\xff\xff"}
		for range 3000 {
			key := stems[r.IntN(len(stems))] + stems[r.IntN(len(stems))]
			for range r.IntN(20) {
				key += string([]byte{byte(r.IntN(2) * r.IntN(3))})
			}
			seq := r.Uint64N(4)
			want = append(want, fmt.Sprintf("%x %d %08d", key, 9-seq, 1<<20-s.age))
			if err := s.add(&item{kind: del, seq: seq, key: []byte(key)}); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(want)
		c := s.newMemoryCursor(&s.points, nil)
		for i := range want {
			it, _ := c.next()
			if got := fmt.Sprintf("%x %d %08d", it.key, 9-it.seq, 1<<20-it.age); got != want[i] {
				t.Fatalf("seed %d: at %d: %s, want %s", seed, i, got, want[i])
			}
		}
	}
}

func TestMarks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		var m marks
		var keys []string
		for range 1 + r.IntN(300) {
			keys = append(keys, strings.Repeat("x", r.IntN(2)*70)+fmt.Sprintf("%04d", r.IntN(5000)))
		}
		slices.Sort(keys)
		for i, k := range keys {
			m.add([]byte(k), int64(i), 500)
		}
		if len(m.keys)+16*len(m.ends) > 500 {
			t.Fatalf("%d marks take more than 500 bytes", len(m.ends))
		}
		for range 100 {
			low := []byte(strings.Repeat("x", r.IntN(2)*70) + fmt.Sprintf("%04d", r.IntN(5000)))
			at := int(m.seek(low))
			// All in the blocks before must be below low, so the block sought begins with a key below it.
			if at > 0 && keys[at] >= string(low) {
				t.Fatalf("seek %s goes to block %d, which begins with %s", low, at, keys[at])
			}
			first, _ := slices.BinarySearch(keys, string(low))
			if bytes.HasPrefix(low, []byte("x")) == strings.HasPrefix(keys[at], "x") && !strings.HasPrefix(string(low), "x") && first-at > 2*m.every {
				t.Fatalf("seek %s goes %d blocks too far back", low, first-at)
			}
		}
	}
}

// TestCover holds a cover against a list.
func TestCover(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 4))
		c := newCover(maxActive)
		type ranged struct {
			group uint64
			span
		}
		var all []ranged
		for at := range 3000 {
			key := fmt.Appendf(nil, "%06d", at)
			for range r.IntN(4) {
				s := span{seq: r.Uint64N(5), age: r.Uint64(), high: fmt.Appendf(nil, "%06d", at+1+r.IntN(1+r.IntN(4000)))}
				if r.IntN(500) == 0 {
					s.high = nil
				}
				group := r.Uint64N(3)
				all = append(all, ranged{group, s})
				if err := c.add(group, s, key); err != nil {
					t.Fatal(err)
				}
			}
			group := r.Uint64N(4)
			var want *span
			for i, s := range all {
				if s.group == group && s.holds(key) && (want == nil || s.compareOrder(want) > 0) {
					want = &all[i].span
				}
			}
			got, ok := c.top(group, key)
			if ok != (want != nil) || ok && got.compareOrder(want) != 0 {
				t.Fatalf("seed %d: top at %s is %v, %v; want %v", seed, key, got, ok, want)
			}
		}
		if c.len > 2*trimFrom {
			t.Errorf("%d spans are held", c.len)
		}
	}
}

// TestTooManyRanges nests ranges that all matter, as each one is higher than those around it.
func TestTooManyRanges(t *testing.T) {
	for _, k := range []kind{delRange, retractRange} {
		for _, limit := range []int{1900, 2000} {
			s := newSorter(t, vfs.NewMem(), 0)
			s.active = limit
			for i := range 2000 {
				st := step{kind: k, seq: 1, key: fmt.Appendf(stored("k"), "%05d", i), high: fmt.Appendf(stored("k"), "%05d", 9999-i)}
				if err := give(s, st); err != nil {
					t.Fatal(err)
				}
			}
			if err := give(s, step{kind: put, seq: 1, key: stored("l"), value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
			_, err := net(s, nil, nil)
			var over *batchlog.LimitError
			if errors.As(err, &over) != (limit < 2000) {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
	}
}

// TestDeadRanges has many ranges that begin below a higher one and can't matter any more.
func TestDeadRanges(t *testing.T) {
	c := newCover(1900)
	if err := c.add(0, span{seq: 9, high: []byte("m")}, []byte("a")); err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		if err := c.add(0, span{seq: 1, age: uint64(i), high: []byte("z")}, []byte("b")); err != nil {
			t.Fatal(err)
		}
	}
	if top, ok := c.top(0, []byte("n")); !ok || top.age != 4999 {
		t.Errorf("top is %v, %v", top, ok)
	}
}
