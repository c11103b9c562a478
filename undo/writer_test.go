package undo_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// states folds the log: the state at each id, from 0 on, by stored key and value.
func states(t *testing.T, db *local.DB) []map[string]string {
	t.Helper()
	all := []map[string]string{{}}
	return fold(t, db, all)
}

// fold goes on with all.
func fold(t *testing.T, db *local.DB, all []map[string]string) []map[string]string {
	t.Helper()
	head, err := db.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if int(head) < len(all) {
		return all
	}
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(batchlog.ID(len(all))), Until: head}) {
		if err != nil {
			t.Fatal(err)
		}
		m := maps.Clone(all[len(all)-1])
		err := c.EachStored(func(kind batchlog.OpKind, key, value []byte) error {
			switch kind {
			case batchlog.OpPut:
				m[string(key)] = string(value)
			case batchlog.OpDelete:
				delete(m, string(key))
			case batchlog.OpDeleteRange:
				maps.DeleteFunc(m, func(k, _ string) bool { return string(key) <= k && k < string(value) })
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// A writer writes all kinds of commits into a few keys of a few spaces.
type writer struct {
	t   *testing.T
	db  *local.DB
	rng *rand.Rand
}

func (w *writer) space() *batchlog.Space {
	return []*batchlog.Space{w.db.Space("a"), w.db.Space("a", "b"), w.db.Space("c")}[w.rng.IntN(3)]
}

func (w *writer) key() batchlog.Key { return batchlog.K(w.rng.IntN(12)) }

func (w *writer) value() []byte {
	if w.rng.IntN(10) == 0 {
		return fmt.Appendf(nil, "%02000d", w.rng.IntN(3)) // a blob
	}
	return fmt.Appendf(nil, "v%d", w.rng.IntN(4))
}

func (w *writer) write() batchlog.ID { return w.writeAs(nil) }

func (w *writer) writeAs(labels map[string]string) batchlog.ID {
	w.t.Helper()
	var id batchlog.ID
	var err error
	switch n := w.rng.IntN(24); {
	case n == 0:
		id, err = w.chain(labels, 20)
	case n == 1:
		id, err = w.chain(labels, 1500)
	case n == 2 && labels == nil:
		id, err = w.db.CopyRange(w.t.Context(), w.db.Space("c"), w.db.Space("a"), batchlog.Range{})
	case n < 6:
		id, err = w.db.Update(w.t.Context(), func(tx *batchlog.Tx) error {
			for name, value := range labels {
				tx.SetLabel(name, value)
			}
			tx.Put(w.space(), w.key(), w.value())
			tx.Delete(w.space(), w.key())
			return nil
		})
	default:
		b := batchlog.Batch{Labels: labels}
		for range 1 + w.rng.IntN(4) {
			switch w.rng.IntN(8) {
			case 0:
				b.Delete(w.space(), w.key())
			case 1:
				b.DeleteRange(w.space(), batchlog.Between(w.key(), w.key()))
			default:
				b.Put(w.space(), w.key(), w.value())
			}
		}
		id, err = w.db.Write(w.t.Context(), &b)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// chain writes a chain, of more than 1 MiB if it has many keys.
func (w *writer) chain(labels map[string]string, keys int) (batchlog.ID, error) {
	c, err := w.db.Chain(w.t.Context())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.Labels = labels
	if w.rng.IntN(2) == 0 {
		c.DeleteRange(w.space(), batchlog.Range{})
	}
	s := w.space()
	for i := range keys {
		c.Put(s, batchlog.K(i%1100), fmt.Appendf(nil, "%d %01000d", w.rng.IntN(3), i%1100))
	}
	return c.Commit(w.t.Context())
}
