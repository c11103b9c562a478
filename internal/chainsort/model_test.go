package chainsort

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const dir = "sort"

// A step is one thing that was added; its place in the list is its age.
type step struct {
	kind      kind
	seq       uint64
	key, high []byte // high: of a range; a retractRange without bound has none
	value     []byte
}

// A model is all that was added, from which the net effect is reckoned key by key as the rules say.
type model []step

func (m model) net(low, high []byte) []string {
	var ranges []step
	keys := map[string]bool{}
	for _, s := range m {
		switch {
		case s.kind == delRange:
			ranges = append(ranges, s)
		case s.kind.isPoint():
			keys[string(s.key)] = true
		}
	}
	type line struct{ at, text string }
	var lines []line
	for _, r := range joined(ranges) {
		if bytes.Compare(r.key, low) < 0 {
			r.key = low
		}
		if high != nil && bytes.Compare(r.high, high) > 0 {
			r.high = high
		}
		if bytes.Compare(r.key, r.high) < 0 {
			lines = append(lines, line{string(r.key) + "\x00", fmt.Sprintf("range %x %x", r.key, r.high)})
		}
	}
	for k := range keys {
		if k < string(low) || high != nil && k >= string(high) {
			continue
		}
		if text := m.at(k); text != "" {
			lines = append(lines, line{k + "\x00\x00", text})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.at, b.at) })
	var texts []string
	for _, l := range lines {
		texts = append(texts, l.text)
	}
	return texts
}

// at is the net effect on a key.
func (m model) at(key string) string {
	covers := func(s step) bool {
		return string(s.key) <= key && (key < string(s.high) || s.kind == retractRange && s.high == nil)
	}
	best, bestSeq, anyRange := -1, uint64(0), false
	for age, s := range m {
		if s.kind == delRange && covers(s) {
			anyRange = true
		}
		if !s.kind.isPoint() || string(s.key) != key || best >= 0 && s.seq < bestSeq {
			continue
		}
		gone := false
		for _, later := range m[age+1:] {
			gone = gone || later.seq == s.seq &&
				(later.kind == retract && string(later.key) == key || later.kind == retractRange && covers(later))
		}
		if !gone {
			best, bestSeq = age, s.seq
		}
	}
	if best < 0 {
		if anyRange {
			return ""
		}
		return fmt.Sprintf("none %x", key)
	}
	for age, s := range m {
		if s.kind == delRange && covers(s) && (s.seq > bestSeq || s.seq == bestSeq && age > best) {
			return ""
		}
	}
	switch w := m[best]; {
	case w.kind == put:
		return fmt.Sprintf("put %x %x", key, w.value)
	case anyRange:
		return ""
	}
	return fmt.Sprintf("del %x", key)
}

// joined joins ranges of the same space that overlap or touch.
func joined(ranges []step) []step {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b step) int { return bytes.Compare(a.key, b.key) })
	var out []step
	for _, r := range ranges {
		if n := len(out); n > 0 {
			a, _, _ := wire.SplitKey(out[n-1].key)
			b, _, _ := wire.SplitKey(r.key)
			if bytes.Equal(a, b) && bytes.Compare(r.key, out[n-1].high) <= 0 {
				if bytes.Compare(r.high, out[n-1].high) > 0 {
					out[n-1].high = r.high
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// give adds a step to a Sorter.
func give(s *Sorter, st step) error {
	switch st.kind {
	case retract:
		return s.Retract(st.seq, st.key)
	case retractRange:
		return s.RetractRange(st.seq, st.key, st.high)
	}
	return s.Add(st.seq, st.encode(nil), 1)
}

// encode appends the op.
func (st step) encode(dst []byte) []byte {
	switch st.kind {
	case put:
		return wire.AppendOp(dst, batchlog.OpPut, st.key, st.value)
	case del:
		return wire.AppendOp(dst, batchlog.OpDelete, st.key, nil)
	case delRange:
		return wire.AppendOp(dst, batchlog.OpDeleteRange, st.key, st.high)
	}
	panic("no op")
}

// net is what a Sorter yields, as the model writes it.
func net(s *Sorter, low, high []byte) ([]string, error) {
	var out []string
	err := s.Net(context.Background(), low, high, func(n Net) error {
		switch n.Kind {
		case NetPut:
			out = append(out, fmt.Sprintf("put %x %x", n.Key, n.Value))
		case NetDelete:
			out = append(out, fmt.Sprintf("del %x", n.Key))
		case NetDeleteRange:
			out = append(out, fmt.Sprintf("range %x %x", n.Key, n.Value))
		case NetNone:
			out = append(out, fmt.Sprintf("none %x", n.Key))
		}
		return nil
	})
	return out, err
}

// newSorter makes a Sorter on an empty file system.
func newSorter(t testing.TB, fs vfs.FS, memory int) *Sorter {
	t.Helper()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := New(Options{FS: fs, Dir: dir, MemoryBytes: memory})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func files(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var paths = []string{"\xa0\x00", "\xa0\x70a\x00\x00", "\xa0\x70a\x00\x70b\x00\x00", "\xa0\x70bb\x00\x00"}

// A maker makes random steps on a few keys of some spaces, which share beginnings of all lengths.
type maker struct {
	*rand.Rand
	seqs uint64
	keys int
}

func (r maker) key(path string) []byte {
	k := path
	switch r.IntN(12) {
	case 0:
		k += strings.Repeat("p", 70) // more than a mark keeps
	case 1:
		k += strings.Repeat("q", 700) // more than a page of the smallest Sorter
	case 2:
		k += strings.Repeat("\x00", r.IntN(10))
	}
	return fmt.Appendf([]byte(k), "%d", r.IntN(r.keys))
}

func (r maker) anyKey() []byte { return r.key(paths[r.IntN(len(paths))]) }

func (r maker) step() step {
	path := paths[r.IntN(len(paths))]
	s := step{seq: r.Uint64N(r.seqs), key: r.key(path)}
	switch n := r.IntN(100); {
	case n < 50:
		s.kind, s.value = put, fmt.Appendf(nil, "v%d", r.IntN(1000))
		switch r.IntN(20) {
		case 0:
			s.value = bytes.Repeat(s.value, 40) // long: beside the run
		case 1:
			s.value = bytes.Repeat(s.value, 400) // above a page
		case 2:
			s.value = nil
		}
	case n < 70:
		s.kind = del
	case n < 88:
		s.kind = retract
	default:
		s.kind = retractRange
		if n >= 94 {
			s.kind = delRange
		}
		s.high = r.key(path)
		if r.IntN(10) == 0 {
			s.high = append([]byte(path[:len(path)-1]), 1) // all behind it in the space
		}
		if c := bytes.Compare(s.key, s.high); c == 0 {
			s.high = append(s.high, 0)
		} else if c > 0 {
			s.key, s.high = s.high, s.key
		}
		if s.kind == retractRange && r.IntN(10) == 0 {
			s.high = nil
		}
	}
	return s
}

// bounds makes the bounds of a Net; often there are none.
func (r maker) bounds() (low, high []byte) {
	if r.IntN(3) > 0 {
		low = r.anyKey()
	}
	if r.IntN(3) > 0 {
		high = r.anyKey()
	}
	if high != nil && bytes.Compare(low, high) > 0 {
		low, high = high, low
	}
	return low, high
}

func TestModel(t *testing.T) {
	most, merged := 0, false
	for seed := range uint64(150) {
		r := maker{rand.New(rand.NewPCG(seed, 1)), 1 + seed%7, 1 + int(seed%23)}
		s := newSorter(t, vfs.NewMem(), 4<<10<<(seed%3))
		var m model
		steps := 50 << (seed % 6)
		for len(m) < steps {
			m = giveSome(t, s, m, r)
			if r.IntN(steps) < 4 {
				compare(t, seed, s, m, r)
			}
			most = max(most, len(s.points.runs))
			merged = merged || s.made > 60
		}
		for range 4 {
			compare(t, seed, s, m, r)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if left := files(t, s.opts.FS); len(left) > 0 {
			t.Fatalf("seed %d: files left over: %v", seed, left)
		}
	}
	if most < 4 || !merged {
		t.Fatalf("at most %d runs at once, merged: %v: the test tests nothing", most, merged)
	}
}

// giveSome adds a retraction or some ops of one seq.
func giveSome(t *testing.T, s *Sorter, m model, r maker) model {
	t.Helper()
	var ops []byte
	count, seq := 0, uint64(0)
	for range 1 + r.IntN(4) {
		st := r.step()
		if !st.kind.isPoint() && st.kind != delRange {
			if count > 0 {
				break
			}
			if err := give(s, st); err != nil {
				t.Fatal(err)
			}
			return append(m, st)
		}
		if count == 0 {
			seq = st.seq
		}
		st.seq = seq
		ops = st.encode(ops)
		m = append(m, st)
		count++
	}
	if err := s.Add(seq, ops, count); err != nil {
		t.Fatal(err)
	}
	return m
}

func compare(t *testing.T, seed uint64, s *Sorter, m model, r maker) {
	t.Helper()
	low, high := r.bounds()
	got, err := net(s, low, high)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if want := m.net(low, high); !slices.Equal(got, want) {
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Fatalf("seed %d: net of %x to %x after %d steps differs at %d:\n got %.200q\nwant %.200q",
					seed, low, high, len(m), i, got[min(i, len(got)):min(i+2, len(got))], want[min(i, len(want)):min(i+2, len(want))])
			}
		}
	}
}
