package batchlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog/internal/wire"
)

// A chain whose ops a streamed hook replaces comes to what it would without the hook, but for the values of the puts that stand in the end, in whatever
// calls and stretches it says things of one key.
func TestChainReplaced(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		db := New(&stub{})
		s := db.Space("s")
		h := NewHooks(db)
		all := rng.IntN(2) == 0
		_, err := h.AddStreamed(s, func(tx *Tx, ops []Op) error {
			for _, op := range ops {
				if op.Kind == OpPut && (all || rng.IntN(2) == 0) {
					if err := tx.Replace(op, append([]byte("hooked "), op.Value...)); err != nil {
						return err
					}
				}
				if rng.IntN(4) == 0 {
					_, _ = tx.Get(s, op.Key)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		view, err := (&mapStore{}).View(t.Context(), ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := hookedChain{ctx: t.Context(), hooks: h, index: h.index(), snap: view, room: MaxHookAddedBytes, large: true}
		want, got := map[string]string{}, map[string]string{}
		fold := func(m map[string]string) func(kind OpKind, key, value []byte) error {
			return func(kind OpKind, key, value []byte) error {
				switch kind {
				case OpPut:
					m[string(key)] = string(bytes.TrimPrefix(bytes.TrimPrefix(value, []byte{0}), []byte("hooked ")))
				case OpDelete:
					delete(m, string(key))
				case OpDeleteRange:
					for k := range m {
						if k >= string(key) && k < string(value) {
							delete(m, k)
						}
					}
				}
				return nil
			}
		}
		var b Batch
		for n := range 60 {
			k := K(rng.IntN(8))
			switch rng.IntN(6) {
			case 0, 1:
				b.Delete(s, k)
			case 2:
				b.DeleteRange(s, Between(k, K(8)))
			default:
				b.Put(s, k, fmt.Append(nil, "value ", n))
			}
		}
		chain := bytes.Clone(b.proposal.Ops)
		if err := wire.EachOp(chain, b.proposal.Count, func(kind OpKind, key, value []byte) error {
			if rng.IntN(10) == 0 {
				if err := c.run(); err != nil {
					return err
				}
			}
			return c.take(kind, key, value)
		}); err != nil {
			t.Fatal(err)
		}
		if err := c.run(); err != nil {
			t.Fatal(err)
		}
		for _, m := range []map[string]string{want, got} {
			if err := wire.EachOp(chain, b.proposal.Count, fold(m)); err != nil {
				t.Fatal(err)
			}
		}
		if err := wire.EachOp(c.out.Ops, c.out.Count, fold(got)); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("seed %d: %q, want %q", seed, got, want)
		}
		if err := view.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
