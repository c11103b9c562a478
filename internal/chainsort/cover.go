package chainsort

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/bytespace/batchlog"
)

// The ranges that overlap at one key are held in memory, those that can still matter; these bound them.
const (
	maxActive      = 1 << 20
	maxActiveBytes = 64 << 20 // of their upper bounds
	trimFrom       = 1024
)

// A span is a range whose low key the sweep has passed.
type span struct {
	seq, age uint64
	high     []byte // empty: no bound
}

func (a *span) compareOrder(b *span) int {
	return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.age, b.age))
}

// reaches reports whether a ends no earlier than b.
func (a *span) reaches(b *span) bool {
	return len(a.high) == 0 || len(b.high) > 0 && bytes.Compare(a.high, b.high) >= 0
}

// holds reports whether key is below the end.
func (a *span) holds(key []byte) bool { return len(a.high) == 0 || bytes.Compare(key, a.high) < 0 }

// A cover answers which of the ranges around the key that a sweep is at has the highest order. Keys never go back. The ranges are in
// groups that know nothing of each other: retractions, which are of one seq each, in one per seq, and delete ranges in a single one.
//
// A group is a heap with the highest order at its root. A span that has ended leaves it when it gets there, one that can never be the
// answer is not taken in if the root shows it, and all others of both kinds go when the heaps have grown to twice what was left the
// last time. So memory is bounded by what matters, and each range costs a logarithm.
type cover struct {
	groups map[uint64][]span
	len    int // spans in all groups
	bytes  int // of their upper bounds
	limit  int // of len

	trimLen, trimBytes int // above these the heaps are trimmed
}

func newCover(limit int) *cover {
	return &cover{groups: map[uint64][]span{}, limit: limit, trimLen: trimFrom, trimBytes: trimFrom * 64}
}

// add begins a range at key, which is its low key. If more than limit are left where the heaps are trimmed, it is a *batchlog.LimitError.
func (c *cover) add(group uint64, s span, key []byte) error {
	h := c.groups[group]
	for len(h) > 0 {
		top := &h[0]
		higher := top.compareOrder(&s) > 0
		if higher && top.holds(key) && top.reaches(&s) {
			c.groups[group] = h
			return nil
		}
		if top.holds(key) && (higher || !s.reaches(top)) {
			break
		}
		h = c.pop(h)
	}
	s.high = bytes.Clone(s.high)
	h = append(h, s)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if h[up].compareOrder(&h[i]) > 0 {
			break
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
	c.groups[group] = h
	c.len++
	c.bytes += len(s.high)
	if c.len <= c.trimLen && c.bytes <= c.trimBytes {
		return nil
	}
	c.trim(key)
	c.trimLen, c.trimBytes = trimNext(c.len, trimFrom, c.limit), trimNext(c.bytes, trimFrom*64, maxActiveBytes)
	switch {
	case c.len > c.limit:
		return tooMany("ranges that overlap in a chain", c.len, c.limit)
	case c.bytes > maxActiveBytes:
		return tooMany("upper bounds of ranges that overlap in a chain", c.bytes, maxActiveBytes)
	}
	return nil
}

// trimNext is from which size on heaps are trimmed that have size left: twice that, and at the limit, but not each time from there on.
func trimNext(size, least, limit int) int {
	if 2*size <= limit {
		return max(least, 2*size)
	}
	return max(limit, size+limit/8)
}

func tooMany(what string, size, limit int) error {
	return &batchlog.LimitError{What: what, Size: int64(size), Limit: int64(limit), Hint: "use fewer or larger ranges, or several chains"}
}

// top is the range of a group with the highest order around key.
func (c *cover) top(group uint64, key []byte) (s span, ok bool) {
	if c.len == 0 {
		return span{}, false
	}
	h, ok := c.groups[group]
	if !ok {
		return span{}, false
	}
	before := len(h)
	for len(h) > 0 && !h[0].holds(key) {
		h = c.pop(h)
	}
	switch {
	case len(h) == 0:
		delete(c.groups, group)
		return span{}, false
	case len(h) < before:
		c.groups[group] = h
	}
	return h[0], true
}

// pop drops the root of a heap.
func (c *cover) pop(h []span) []span {
	c.len--
	c.bytes -= len(h[0].high)
	n := len(h) - 1
	h[0], h[n] = h[n], span{}
	h = h[:n]
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			return h
		}
		if down+1 < n && h[down+1].compareOrder(&h[down]) > 0 {
			down++
		}
		if h[i].compareOrder(&h[down]) > 0 {
			return h
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
}

// trim drops what has ended at key, and what ends no later than a span of higher order: the rest is a skyline.
func (c *cover) trim(key []byte) {
	c.len, c.bytes = 0, 0
	for group, h := range c.groups {
		slices.SortFunc(h, func(a, b span) int { return b.compareOrder(&a) }) // which is a heap, too
		kept := h[:0]
		for i := range h {
			if h[i].holds(key) && (len(kept) == 0 || !kept[len(kept)-1].reaches(&h[i])) {
				kept = append(kept, h[i])
				c.bytes += len(h[i].high)
			}
		}
		clear(h[len(kept):])
		c.len += len(kept)
		if c.groups[group] = kept; len(kept) == 0 {
			delete(c.groups, group)
		}
	}
}
