package local

import (
	"bytes"
	"slices"

	"github.com/bytespace/batchlog/internal/wire"
)

// spans are the keys that the ops of a chain touch, by spaces: see batchlog.ChainRef.
type spans struct {
	list   []span // sorted by path
	last   int    // that was widened: the next key is mostly there as well
	coarse bool
}

type span struct {
	wire.KeyRange
	path []byte // closed
}

// touch adds a key, or the keys from low on and below high, which are of one space.
func (s *spans) touch(low, high []byte) error {
	if s.coarse {
		s.list[0].widen(low, high)
		return nil
	}
	if s.last < len(s.list) && bytes.HasPrefix(low, s.list[s.last].path) {
		s.list[s.last].widen(low, high)
		return nil
	}
	path, _, err := wire.SplitKey(low)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearchFunc(s.list, path, func(s span, path []byte) int { return bytes.Compare(s.path, path) })
	s.last = at
	if found {
		s.list[at].widen(low, high)
		return nil
	}
	added := span{path: bytes.Clone(path)}
	added.Low = bytes.Clone(low)
	added.widen(low, high)
	s.list = slices.Insert(s.list, at, added)
	if len(s.list) > wire.ChainSpansMax {
		s.list, s.last, s.coarse = []span{{KeyRange: s.around()}}, 0, true
	}
	return nil
}

func (s *span) widen(low, high []byte) {
	if bytes.Compare(low, s.Low) < 0 {
		s.Low = append(s.Low[:0], low...)
	}
	switch {
	case high == nil && bytes.Compare(low, s.High) >= 0:
		s.High = append(append(s.High[:0], low...), 0)
	case bytes.Compare(high, s.High) > 0:
		s.High = append(s.High[:0], high...)
	}
}

// overlaps reports whether a key from low on and below high may have been touched.
func (s *spans) overlaps(low, high []byte) bool {
	for i := range s.list {
		if bytes.Compare(s.list[i].Low, high) < 0 && bytes.Compare(low, s.list[i].High) < 0 {
			return true
		}
	}
	return false
}

// spansBytes bounds the spans of a chain as the log holds them, so that its record is small. Above they are coarse.
const spansBytes = 64 << 10

// ranges is the spans as the log holds them.
func (s *spans) ranges() (ranges []wire.KeyRange, coarse bool) {
	size := 0
	for i := range s.list {
		ranges = append(ranges, s.list[i].KeyRange)
		size += len(s.list[i].Low) + len(s.list[i].High)
	}
	if size > spansBytes && len(ranges) > 1 {
		return []wire.KeyRange{s.around()}, true
	}
	return ranges, s.coarse
}

// around is one range around all.
func (s *spans) around() wire.KeyRange {
	all := span{KeyRange: wire.KeyRange{Low: bytes.Clone(s.list[0].Low), High: bytes.Clone(s.list[0].High)}}
	for _, one := range s.list[1:] {
		all.widen(one.Low, one.High)
	}
	return all.KeyRange
}
