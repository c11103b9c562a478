package undo

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A pieces is a chain in memory: its ops, some at a time.
type pieces [][]byte

func (p pieces) OpenChain(*wire.ChainRef) (wire.OpReader, error) {
	return &piecesReader{p}, nil
}

type piecesReader struct{ left pieces }

func (r *piecesReader) Next() ([]byte, int, error) {
	if len(r.left) == 0 {
		return nil, 0, io.EOF
	}
	ops := r.left[0]
	r.left = r.left[1:]
	n := 0
	for rest := ops; len(rest) > 0; n++ {
		var err error
		if _, _, _, rest, err = wire.NextOp(rest); err != nil {
			return nil, 0, err
		}
	}
	return ops, n, nil
}

func (r *piecesReader) Close() error { return nil }

type op struct {
	kind       batchlog.OpKind
	key, value string
}

func (o op) append(b []byte) []byte {
	return wire.AppendOp(b, o.kind, []byte(o.key), []byte(o.value))
}

// A maker makes the ops of a commit, and what they come to.
type maker struct {
	rng  *rand.Rand
	net  map[string]string // the last value; "-": deleted
	n    int
	keys int
}

func (m *maker) key(i int) string { return fmt.Sprintf("%03d", i) }

func (m *maker) point(key string) op {
	m.n++
	if m.rng.IntN(3) == 0 {
		m.net[key] = "-"
		return op{batchlog.OpDelete, key, ""}
	}
	m.net[key] = fmt.Sprint(m.n)
	return op{batchlog.OpPut, key, m.net[key]}
}

func (m *maker) ranged(low, high int) op {
	for i := low; i < high; i++ {
		m.net[m.key(i)] = "-"
	}
	return op{batchlog.OpDeleteRange, m.key(low), m.key(high)}
}

// stretch is sorted ops: ranges that don't overlap, and one op at most on a key.
func (m *maker) stretch() []op {
	var list []op
	for i := m.rng.IntN(5); i < m.keys; i += 1 + m.rng.IntN(20) {
		high := min(m.keys, i+1+m.rng.IntN(6))
		if m.rng.IntN(3) > 0 {
			list = append(list, m.ranged(i, high))
		}
		for k := i; k < high; k++ {
			if m.rng.IntN(2) == 0 {
				list = append(list, m.point(m.key(k)))
			}
		}
		i = high
	}
	return list
}

func (m *maker) inline(n int) []op {
	var list []op
	for range n {
		if m.rng.IntN(4) == 0 {
			low := m.rng.IntN(m.keys)
			list = append(list, m.ranged(low, min(m.keys, low+1+m.rng.IntN(20))))
		} else {
			list = append(list, m.point(m.key(m.rng.IntN(m.keys))))
		}
	}
	return list
}

func (m *maker) record() *wire.Record {
	r := &wire.Record{ID: 1}
	if stretches := m.rng.IntN(6); stretches > 0 {
		var p pieces
		for range stretches {
			for _, o := range m.stretch() {
				if len(p) == 0 || m.rng.IntN(10) == 0 {
					p = append(p, nil)
				}
				p[len(p)-1] = o.append(p[len(p)-1])
				r.Count++
			}
		}
		r.Chain = &wire.ChainRef{Count: r.Count, Source: p}
	}
	for _, o := range m.inline(m.rng.IntN(60)) {
		r.Ops = o.append(r.Ops)
		r.Count++
	}
	return r
}

// What a commit leaves under a key is that of its ops in their order, however many stretches it has.
func TestOps(t *testing.T) {
	for seed := range uint64(400) {
		m := &maker{rng: rand.New(rand.NewPCG(seed, 1)), net: map[string]string{}, keys: 100}
		r := m.record()
		o, err := openOps(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for i := range m.keys {
			if m.rng.IntN(3) == 0 {
				continue
			}
			want, known := m.net[m.key(i)]
			v, ok, err := o.at([]byte(m.key(i)))
			if err != nil || ok != known || (v != nil) != (known && want != "-") || v != nil && string(v) != want {
				t.Fatalf("seed %d, key %d: %q %t, %v; want %q", seed, i, v, ok, err, want)
			}
		}
	}
}

// Damage in a chain is told, and a chain in too many stretches refused.
func TestOpsRefused(t *testing.T) {
	var p pieces
	for i := range stretchesMax + 1 {
		p = append(p, op{batchlog.OpPut, fmt.Sprintf("%04d", 1000-i), ""}.append(nil))
	}
	for name, c := range map[string]*wire.ChainRef{
		"too many stretches": {Count: len(p), Source: p},
		"fewer ops":          {Count: 3, Source: slices.Clone(p[:1])},
		"no op":              {Count: 1, Source: pieces{{77}}},
	} {
		o, err := openOps(t.Context(), &wire.Record{ID: 1, Count: c.Count, Chain: c})
		if err == nil {
			_, _, err = o.at([]byte("zzz"))
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
