package commit

import (
	"bytes"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A readSet is what a transaction has read, in order: so that a key or a range is looked up in log n, in the write loop too, which all others wait
// for. It is made by the caller of Commit, and not changed after that. Its bytes are those of the Reads that it was made of. Who looks up in one that
// others look up in, too, does it in a copy: lookups are counted.
type readSet struct {
	keys   [][]byte        // sorted, each once, and in none of ranges
	ranges []wire.KeyRange // sorted, not empty, with something between any two
	steps  int             // comparisons of lookups
}

// keptReads is up to how many keys, or ranges, the memory of a readSet is used again.
const keptReads = 1024

// set makes s what was read, in the memory that it has.
func (s *readSet) set(reads *waist.Reads) {
	s.reset()
	s.keys = append(s.keys, reads.Keys...)
	s.ranges = append(s.ranges, reads.Ranges...)
	s.arrange()
}

// reset makes s empty.
func (s *readSet) reset() {
	clear(s.keys)
	clear(s.ranges)
	s.keys, s.ranges, s.steps = s.keys[:0], s.ranges[:0], 0
	if cap(s.keys) > keptReads {
		s.keys = nil
	}
	if cap(s.ranges) > keptReads {
		s.ranges = nil
	}
}

// arrange brings s into order.
func (s *readSet) arrange() {
	if len(s.ranges) > 0 {
		s.ranges = joined(s.ranges)
	}
	if len(s.keys) > 1 {
		slices.SortFunc(s.keys, bytes.Compare)
		s.keys = slices.CompactFunc(s.keys, bytes.Equal)
	}
	if len(s.ranges) > 0 && len(s.keys) > 0 {
		s.keys = slices.DeleteFunc(s.keys, s.inRanges)
	}
}

// joined is ranges in order, those that overlap or meet made one, in the same memory.
func joined(ranges []wire.KeyRange) []wire.KeyRange {
	ranges = slices.DeleteFunc(ranges, func(r wire.KeyRange) bool { return bytes.Compare(r.Low, r.High) >= 0 })
	slices.SortFunc(ranges, func(a, b wire.KeyRange) int { return bytes.Compare(a.Low, b.Low) })
	n := 0
	for _, r := range ranges {
		if n > 0 && bytes.Compare(r.Low, ranges[n-1].High) <= 0 {
			if bytes.Compare(r.High, ranges[n-1].High) > 0 {
				ranges[n-1].High = r.High
			}
			continue
		}
		ranges[n] = r
		n++
	}
	clear(ranges[n:])
	return ranges[:n]
}

func (s *readSet) empty() bool { return len(s.keys)+len(s.ranges) == 0 }

// touches reports whether key was read.
func (s *readSet) touches(key []byte) bool {
	if s.inRanges(key) {
		return true
	}
	at := s.search(len(s.keys), func(i int) bool { return bytes.Compare(s.keys[i], key) >= 0 })
	return at < len(s.keys) && bytes.Equal(s.keys[at], key)
}

// inRanges reports whether key is in a range that was read.
func (s *readSet) inRanges(key []byte) bool {
	at := s.search(len(s.ranges), func(i int) bool { return bytes.Compare(s.ranges[i].High, key) > 0 })
	return at < len(s.ranges) && bytes.Compare(s.ranges[at].Low, key) <= 0
}

// overlaps reports whether a key, or part of a range, from low on and below high was read.
func (s *readSet) overlaps(low, high []byte) bool {
	if bytes.Compare(low, high) >= 0 {
		return false
	}
	at := s.search(len(s.ranges), func(i int) bool { return bytes.Compare(s.ranges[i].High, low) > 0 })
	if at < len(s.ranges) && bytes.Compare(s.ranges[at].Low, high) < 0 {
		return true
	}
	at = s.search(len(s.keys), func(i int) bool { return bytes.Compare(s.keys[i], low) >= 0 })
	return at < len(s.keys) && bytes.Compare(s.keys[at], high) < 0
}

// contains reports whether all from low on and below high was read, as a range.
func (s *readSet) contains(low, high []byte) bool {
	at := s.search(len(s.ranges), func(i int) bool { return bytes.Compare(s.ranges[i].High, low) > 0 })
	return at < len(s.ranges) && bytes.Compare(s.ranges[at].Low, low) <= 0 && bytes.Compare(high, s.ranges[at].High) <= 0
}

// search is sort.Search, counted.
func (s *readSet) search(n int, found func(i int) bool) int {
	low, high := 0, n
	for low < high {
		s.steps++
		if mid := int(uint(low+high) >> 1); found(mid) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// without takes out of s what is in other.
func (s *readSet) without(other *readSet) {
	o := *other
	s.keys = slices.DeleteFunc(s.keys, o.touches)
	s.ranges = slices.DeleteFunc(s.ranges, func(r wire.KeyRange) bool { return o.contains(r.Low, r.High) })
}

// with is what is in s, or in other.
func (s *readSet) with(other *readSet) *readSet {
	both := &readSet{keys: slices.Concat(s.keys, other.keys), ranges: slices.Concat(s.ranges, other.ranges)}
	both.arrange()
	return both
}

// fewReads is up to how many keys and ranges two readSets are compared one by one in the write loop.
const fewReads = 1024

// meets reports whether something is in both s and other. Of two large ones it says so too if they merely lie among one another.
func (s *readSet) meets(other *readSet) bool {
	small, large := *s, *other
	if len(small.keys)+len(small.ranges) > len(large.keys)+len(large.ranges) {
		small, large = large, small
	}
	if small.empty() {
		return false
	}
	if len(small.keys)+len(small.ranges) > fewReads {
		low, high := small.span()
		otherLow, otherHigh := large.span()
		return bytes.Compare(low, otherHigh) <= 0 && bytes.Compare(otherLow, high) <= 0
	}
	return slices.ContainsFunc(small.keys, large.touches) ||
		slices.ContainsFunc(small.ranges, func(r wire.KeyRange) bool { return large.overlaps(r.Low, r.High) })
}

// span is bounds around s, which is not empty.
func (s *readSet) span() (low, high []byte) {
	if n := len(s.keys); n > 0 {
		low, high = s.keys[0], s.keys[n-1]
	}
	if n := len(s.ranges); n > 0 {
		if low == nil || bytes.Compare(s.ranges[0].Low, low) < 0 {
			low = s.ranges[0].Low
		}
		if bytes.Compare(s.ranges[n-1].High, high) > 0 {
			high = s.ranges[n-1].High
		}
	}
	return low, high
}

// changedBy reports whether an op is on what was read.
func (s *readSet) changedBy(kind batchlog.OpKind, key, value []byte) bool {
	if kind == batchlog.OpDeleteRange {
		return s.overlaps(key, value)
	}
	return s.touches(key)
}

// spanned reports whether the spans of c touch what was read. That is less than to have changed it, but needs no look at its ops: the write
// loop is not held up by the size of a chain.
func (s *readSet) spanned(c *wire.ChainRef) bool {
	return slices.ContainsFunc(c.Spans, func(span wire.KeyRange) bool { return s.overlaps(span.Low, span.High) })
}

// readIn is a key between low and high that was read, or the lowest of a range: to tell what a conflict is about.
func (s *readSet) readIn(low, high []byte) []byte {
	at := s.search(len(s.keys), func(i int) bool { return bytes.Compare(s.keys[i], low) >= 0 })
	if at < len(s.keys) && bytes.Compare(s.keys[at], high) < 0 {
		return s.keys[at]
	}
	at = s.search(len(s.ranges), func(i int) bool { return bytes.Compare(s.ranges[i].High, low) > 0 })
	if at < len(s.ranges) && bytes.Compare(s.ranges[at].Low, high) < 0 {
		return s.ranges[at].Low
	}
	return nil
}
