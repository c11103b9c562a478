package segment

import (
	"hash/crc32"
	"slices"

	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

// An indexer builds an index from groups in order.
type indexer struct {
	index  Index
	salt   uint32
	hashes map[uint32]struct{} // of all blocks
	blocks [][]uint32          // hashes of each block, sorted; nil: not known

	spaces  map[uint32]struct{} // of the block that is open
	unknown bool                // in which other spaces that has ops
	last    []byte              // path of the last op: the next one is mostly there as well
}

// group takes note of a group and checks its records.
func (x *indexer) group(g Group, records []byte) error {
	at := 0 // where the record begins that is visited
	start := 0
	newest, err := CheckRecords(g, records, x.index.LastTime, func(r *wire.Record) error {
		if at == 0 || at-start >= BlockBytes {
			x.close(records[start:at])
			start = at
			x.index.Blocks = append(x.index.Blocks, Block{Offset: g.Offset + GroupHead + int64(at), First: r.ID, Time: r.Time})
			x.spaces, x.last, x.unknown = map[uint32]struct{}{}, nil, false
		}
		x.index.Blocks[len(x.index.Blocks)-1].Count++
		at += RecordSize(r)
		if r.ID == x.index.First {
			x.index.FirstTime = r.Time
		}
		x.index.Last = r.ID
		return x.record(r)
	})
	if err != nil {
		return err
	}
	if at != len(records) {
		return errRecordSize
	}
	x.close(records[start:at])
	x.index.LastTime = newest
	x.index.End = g.End()
	return nil
}

func (x *indexer) record(r *wire.Record) error {
	x.index.Ops += int64(r.Count)
	inline := r.Count
	if r.Chain != nil {
		x.unknown = x.unknown || r.Chain.Coarse
		inline -= r.Chain.Count
		for _, span := range r.Chain.Spans { // each of one space, unless coarse
			if err := x.op(span.Low); err != nil {
				return err
			}
		}
	}
	ops := r.Ops
	for range inline {
		_, key, _, rest, err := wire.NextOp(ops)
		if err != nil {
			return err
		}
		ops = rest
		if err := x.op(key); err != nil {
			return err
		}
	}
	if len(ops) != 0 {
		return errRecordSize
	}
	return nil
}

// op takes note of the spaces that a stored key is in: its own and all around it.
func (x *indexer) op(key []byte) error {
	at := 1
	if len(key) > 0 && key[0] != bytewise.TagArray {
		at = 2 // behind the tag of the system's spaces
	}
	if len(key) < at || key[at-1] != bytewise.TagArray {
		return nil // of no space
	}
	if x.last != nil && len(key) >= len(x.last) && string(key[:len(x.last)]) == string(x.last) {
		return nil
	}
	for {
		if len(x.spaces) <= blockSpacesMax { // beyond, it has no summary
			x.spaces[SpaceHash(key[:at])] = struct{}{}
		}
		if at < len(key) && key[at] == bytewise.TagEnd {
			x.last = key[:at+1]
			return nil
		}
		n, err := bytewise.ElementLen(key[at:])
		if err != nil {
			return err
		}
		at += n
	}
}

// close ends the block that is open, whose records these are.
func (x *indexer) close(records []byte) {
	if len(records) == 0 {
		return
	}
	b := &x.index.Blocks[len(x.index.Blocks)-1]
	b.Size, b.Sum = len(records), crc32.Update(x.salt, castagnoli, records)
	var hashes []uint32
	if !x.unknown && len(x.spaces) <= blockSpacesMax && x.room() {
		hashes = make([]uint32, 0, len(x.spaces))
		for h := range x.spaces {
			hashes = append(hashes, h)
			x.hashes[h] = struct{}{}
		}
		slices.Sort(hashes)
	}
	x.blocks = append(x.blocks, hashes)
}

// room reports whether the segment's summary can take the spaces of the block that is open: those that it does not have yet. When it is
// full, blocks with spaces that it has are known still.
func (x *indexer) room() bool {
	if len(x.hashes)+len(x.spaces) <= indexSpacesMax {
		return true
	}
	more := 0
	for h := range x.spaces {
		if _, known := x.hashes[h]; !known {
			more++
		}
	}
	return len(x.hashes)+more <= indexSpacesMax
}

// finish is the index, with hashes turned into positions.
func (x *indexer) finish() *Index {
	for h := range x.hashes {
		x.index.Spaces = append(x.index.Spaces, h)
	}
	slices.Sort(x.index.Spaces)
	for i, hashes := range x.blocks {
		if hashes == nil {
			continue
		}
		x.index.Blocks[i].Spaces = make([]uint32, len(hashes))
		for j, h := range hashes {
			at, _ := slices.BinarySearch(x.index.Spaces, h)
			x.index.Blocks[i].Spaces[j] = uint32(at)
		}
	}
	return &x.index
}
