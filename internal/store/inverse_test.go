package store

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const ownPrefix = "\xa0\x00" // of the keys of the root

// An inverseMaker makes commits of all kinds, whose keys are those of two spaces and of the system.
type inverseMaker struct {
	rng    *rand.Rand
	next   batchlog.ID
	chains map[[16]byte][]stretch // by file
	large  int                    // bytes of a value, now and then
}

// A stretch is ops in the order of keys.
type stretch struct {
	ops   []byte
	count int
}

func (m *inverseMaker) key() string {
	switch m.rng.IntN(12) {
	case 0:
		return fmt.Sprintf("\x01\x00s%02d", m.rng.IntN(5))
	case 1, 2:
		return fmt.Sprintf("\xa0\x70a\x00\x00k%02d", m.rng.IntN(20))
	default:
		return fmt.Sprintf("%sk%02d", ownPrefix, m.rng.IntN(60))
	}
}

func (m *inverseMaker) value() string {
	if m.rng.IntN(20) == 0 {
		return strings.Repeat("v", m.large)
	}
	return fmt.Sprint(m.rng.IntN(4)) // often what is there already
}

// ops are some, in any order.
func (m *inverseMaker) ops(most int, ranges bool) (ops []byte, count int) {
	for range m.rng.IntN(most) {
		switch n := m.rng.IntN(10); {
		case n < 3:
			ops = wire.AppendOp(ops, batchlog.OpDelete, []byte(m.key()), nil)
		case n < 5 && ranges:
			low, high := fmt.Sprintf("%sk%02d", ownPrefix, m.rng.IntN(60)), fmt.Sprintf("%sk%02d", ownPrefix, m.rng.IntN(60))
			if low >= high {
				low, high = high, low+"\x00"
			}
			ops = wire.AppendOp(ops, batchlog.OpDeleteRange, []byte(low), []byte(high))
		default:
			ops = wire.AppendOp(ops, batchlog.OpPut, []byte(m.key()), []byte(m.value()))
		}
		count++
	}
	return ops, count
}

func (m *inverseMaker) record() wire.Record {
	r := wire.Record{ID: m.next}
	m.next++
	switch m.rng.IntN(20) {
	case 0:
		r.Ops, r.Count = m.ops(5, true)
		m.chain(&r)
	case 1, 2, 3:
		r.Ops, r.Count = m.ops(8, true)
	default:
		r.Ops, r.Count = m.ops(4, false)
	}
	return r
}

// chain makes r one of some stretches.
func (m *inverseMaker) chain(r *wire.Record) {
	var stretches []stretch
	c := &wire.ChainRef{File: [16]byte{byte(r.ID >> 8), byte(r.ID), 1}, Source: m}
	for range 1 + m.rng.IntN(3) {
		var s stretch
		for at := m.rng.IntN(10); at < 60; at += 1 + m.rng.IntN(8) {
			key := fmt.Sprintf("%sk%02d", ownPrefix, at)
			if m.rng.IntN(3) == 0 {
				to := at + 1 + m.rng.IntN(6)
				s.add(batchlog.OpDeleteRange, key, fmt.Sprintf("%sk%02d", ownPrefix, to))
				if m.rng.IntN(2) == 0 {
					s.add(batchlog.OpPut, key, m.value())
				}
				if to-at > 2 && m.rng.IntN(2) == 0 {
					s.add(batchlog.OpPut, fmt.Sprintf("%sk%02d", ownPrefix, at+1), m.value())
				}
				at = to - 1
				continue
			}
			s.add(batchlog.OpPut, key, m.value()+strings.Repeat("x", m.large)) // larger than what is applied as a batch
		}
		if len(stretches) > 0 && s.count == 0 {
			continue
		}
		stretches = append(stretches, s)
		c.Count += s.count
		c.Bytes += int64(len(s.ops))
	}
	if c.Count == 0 {
		return
	}
	m.chains[c.File] = stretches
	r.Chain = c
	r.Count += c.Count
}

func (s *stretch) add(kind batchlog.OpKind, key, value string) {
	s.ops = wire.AppendOp(s.ops, kind, []byte(key), []byte(value))
	s.count++
}

// OpenChain is as batchlog.ChainSource says.
func (m *inverseMaker) OpenChain(c *wire.ChainRef) (wire.OpReader, error) {
	stretches, ok := m.chains[c.File]
	if !ok {
		return nil, errors.New("no such chain")
	}
	return &stretchReader{stretches}, nil
}

type stretchReader struct{ rest []stretch }

func (r *stretchReader) Next() ([]byte, int, error) {
	if len(r.rest) == 0 {
		return nil, 0, io.EOF
	}
	s := r.rest[0]
	r.rest = r.rest[1:]
	return s.ops, s.count, nil
}

func (r *stretchReader) Close() error { return nil }

// applyTo is what the record does to a model.
func (m model) applyTo(t *testing.T, r wire.Record) {
	t.Helper()
	whole := wire.Record{Count: r.Count}
	err := r.EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		whole.Ops = wire.AppendOp(whole.Ops, kind, key, value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.apply(t, whole)
}

// wantInverse is what a commit between two states has overwritten, in the order of keys.
func wantInverse(before, after model) (want []string) {
	for _, k := range slices.Sorted(maps.Keys(union(before, after))) {
		old, had := before[k]
		now, has := after[k]
		switch {
		case systemKey([]byte(k)) || had == has && old == now:
		case had:
			want = append(want, k+"="+old)
		default:
			want = append(want, k)
		}
	}
	return want
}

func union(a, b model) model {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// readInverse is the inverse that the store has.
func readInverse(s *Store, id batchlog.ID) (got []string, err error) {
	r, err := s.Inverse(id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		ops, count, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err == nil {
			err = wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
				got = append(got, inverseText(kind, key, value))
				return nil
			})
		}
		if err != nil {
			return got, err
		}
	}
}

func inverseText(kind batchlog.OpKind, key, value []byte) string {
	if kind == batchlog.OpPut {
		return string(key) + "=" + string(value)
	}
	return string(key)
}

func openUndo(t *testing.T, fs vfs.FS, sizes inverseSizes) *Store {
	t.Helper()
	s := open(t, fs, 0)
	s.SetUndo(true)
	s.undo.sizes = sizes
	return s
}

// openUndoOther opens a store that keeps inverses, with sizes and options that are not those of the last time: nothing that is on the disk may be taken
// for something else because of them.
func openUndoOther(t *testing.T, fs vfs.FS, rng *rand.Rand) *Store {
	t.Helper()
	o := testOptions(fs, 0)
	o.MemTableBytes = smallMemTable << (2 * rng.IntN(6))
	o.CacheBytes = 1 << (10 + rng.IntN(12))
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the test has looked at what matters
	s.SetUndo(true)
	s.undo.sizes = defaultInverseSizes
	if rng.IntN(2) == 0 {
		s.undo.sizes = inverseSizes{block: 300, part: 100, inline: 200, memory: 400, latest: 1000}
	}
	return s
}

// TestInverses applies commits of all kinds in groups of all sizes, with crashes between after which options are others, and compares each inverse with what the commit has changed.
func TestInverses(t *testing.T) {
	seeds := uint64(24)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 7))
		maker := &inverseMaker{rng: rng, next: 1, chains: map[[16]byte][]stretch{}, large: []int{1, 2000, 40_000}[seed%3]}
		fs := crashfs.New()
		s := openUndoOther(t, fs, rng)
		syncRoot(t, fs)
		states := []model{{}}
		var records []wire.Record
		for range 300 {
			r := maker.record()
			records = append(records, r)
			state := maps.Clone(states[len(states)-1])
			state.applyTo(t, r)
			states = append(states, state)
		}
		crash := 1 + rng.IntN(60)
		for int(s.Applied()) < len(records) {
			n := min(1+rng.IntN(40), len(records)-int(s.Applied()))
			apply(t, s, records[s.Applied():][:n]...)
			if crash > 0 && int(s.Applied()) > crash {
				fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
				_ = s.Close() // of the machine that has lost its power
				s = openUndoOther(t, fs, rng)
				if crash += 1 + rng.IntN(100); crash > len(records) {
					crash = 0
				}
			}
		}
		for id := batchlog.ID(1); int(id) < len(states); id++ {
			got, err := readInverse(s, id)
			if want := wantInverse(states[id-1], states[id]); err != nil || !slices.Equal(got, want) {
				t.Fatalf("seed %d: inverse of commit %d: %s, %v", seed, id, difference(got, want), err)
			}
		}
		rows, err := s.Inverses()
		if want := (batchlog.IDRange{First: 1, Last: 300}); err != nil || len(rows) != 1 || rows[0] != want {
			t.Fatalf("seed %d: rows %v, %v", seed, rows, err)
		}
		mustUndoAll(t, s, states, rng)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// mustUndoAll goes back from the last state to one of the earlier, by what EachInverse yields.
func mustUndoAll(t *testing.T, s *Store, states []model, rng *rand.Rand) {
	t.Helper()
	high := batchlog.ID(1 + rng.IntN(len(states)-1))
	low := batchlog.ID(rng.IntN(int(high)))
	m := maps.Clone(states[high])
	err := s.EachInverse(t.Context(), low, high, func(_ batchlog.ID, ops []byte, count int) error {
		m.apply(t, wire.Record{Ops: ops, Count: count})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	system := func(k, _ string) bool { return systemKey([]byte(k)) }
	want := maps.Clone(states[low])
	maps.DeleteFunc(m, system)
	maps.DeleteFunc(want, system)
	if !maps.Equal(m, want) {
		t.Fatalf("from %d back to %d: %v, want %v", high, low, m.in("", "\xff"), want.in("", "\xff"))
	}
}
