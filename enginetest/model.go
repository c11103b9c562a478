package enginetest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
)

// A model is what a database should hold: a map for each space, by its path.
type model struct {
	keys   map[string]map[string]string
	spaces map[string]*batchlog.Space
}

func newModel() *model {
	return &model{keys: map[string]map[string]string{}, spaces: map[string]*batchlog.Space{}}
}

// of is the keys of s. Two spaces are told apart by the bytes that stand for their paths.
func (m *model) of(s *batchlog.Space) map[string]string {
	k, err := batchlog.KeyOf(append([]any{}, s.Path()...))
	if err != nil {
		panic("path of a space that no key can hold: " + err.Error())
	}
	path := string(k)
	if m.keys[path] == nil {
		m.keys[path] = map[string]string{}
		m.spaces[path] = s
	}
	return m.keys[path]
}

func (m *model) put(s *batchlog.Space, k batchlog.Key, v string) { m.of(s)[string(k)] = v }
func (m *model) delete(s *batchlog.Space, k batchlog.Key)        { delete(m.of(s), string(k)) }

func (m *model) deleteRange(s *batchlog.Space, r batchlog.Range) {
	maps.DeleteFunc(m.of(s), func(k, _ string) bool { return r.Contains(batchlog.Key(k)) })
}

// scan is the keys of s in r, in the order of a scan.
func (m *model) scan(s *batchlog.Space, r batchlog.Range, reverse bool) []pair {
	var pairs []pair
	for k, v := range m.of(s) {
		if r.Contains(batchlog.Key(k)) {
			pairs = append(pairs, pair{k, v})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if reverse {
			a, b = b, a
		}
		return strings.Compare(a.key, b.key)
	})
	return pairs
}

func (m *model) clone() *model {
	c := &model{keys: map[string]map[string]string{}, spaces: maps.Clone(m.spaces)}
	for path, keys := range m.keys {
		c.keys[path] = maps.Clone(keys)
	}
	return c
}

// randomKey is one of few enough keys that ops meet, of bytes that sort first, last, and between.
func randomKey(rng *rand.Rand) batchlog.Key {
	letters := []byte{0x00, 0x01, 'a', 'b', 0xfe, 0xff}
	k := make(batchlog.Key, rng.IntN(4))
	for i := range k {
		k[i] = letters[rng.IntN(len(letters))]
	}
	return k
}

// randomRange is a range of such keys, sometimes without bounds, sometimes empty.
func randomRange(rng *rand.Rand) batchlog.Range {
	r := batchlog.Range{Low: randomKey(rng), High: randomKey(rng)}
	switch rng.IntN(6) {
	case 0:
		r.Low = nil
	case 1:
		r.High = nil
	case 2: // as it comes, also upside down
	default:
		if string(r.Low) > string(r.High) {
			r.Low, r.High = r.High, r.Low
		}
	}
	return r
}

// apply does the ops of c to m.
func (m *model) apply(c *batchlog.Commit) error {
	for op, err := range c.Ops() {
		if err != nil {
			return err
		}
		switch op.Kind {
		case batchlog.OpPut:
			m.put(op.Space, op.Key, string(op.Value))
		case batchlog.OpDelete:
			m.delete(op.Space, op.Key)
		default:
			m.deleteRange(op.Space, batchlog.Range{Low: op.Key, High: op.High})
		}
	}
	return nil
}
