package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/bytewise"
)

// BlockBytes is the size from which on a block ends, with the group that passes it. A block is what a filtered reader
// reads or skips.
const BlockBytes = 16 << 10

// spacesMax bounds the spaces in the summary of a block; one with more has none and is always read.
const spacesMax = 4096

// An Index is what a sealed segment says about itself: where commits, times and spaces are, and its hash.
type Index struct {
	End         int64 // offset behind the last group
	First, Last batchlog.ID
	FirstTime   int64    // of the first commit, in microseconds since 1970
	LastTime    int64    // of the last
	Ops         int64    // in all commits
	Hash        [32]byte // SHA-256 of the file up to End
	Prev        [32]byte // Hash of the segment before; zero for the first of the log
	Blocks      []Block
}

// A Block is some groups, one behind the other, up to the next block.
type Block struct {
	Offset int64
	First  batchlog.ID
	Time   int64 // of the first commit
	// Spaces are the [SpaceHash] of every space that an op of the block is in, and of all spaces around those;
	// sorted. nil: not known. The same hash may stand for another space; that costs a read, no more.
	Spaces []uint32
}

// SpaceHash is how summaries name the space with this open path.
func SpaceHash(open []byte) uint32 { return crc32.Checksum(open, castagnoli) }

// MayTouch reports whether b may have an op in a space with one of these hashes, or within.
func (b *Block) MayTouch(hashes []uint32) bool {
	if b.Spaces == nil {
		return true
	}
	for _, h := range hashes {
		if _, ok := slices.BinarySearch(b.Spaces, h); ok {
			return true
		}
	}
	return false
}

// Find is the position in x.Blocks of the block that holds commit id.
func (x *Index) Find(id batchlog.ID) int {
	return max(0, sort.Search(len(x.Blocks), func(i int) bool { return x.Blocks[i].First > id })-1)
}

// FindTime is the position in x.Blocks of the block that holds the first commit at time or later, if any does.
func (x *Index) FindTime(time int64) int {
	return max(0, sort.Search(len(x.Blocks), func(i int) bool { return x.Blocks[i].Time >= time })-1)
}

// The index as it stands behind the last group. Numbers are uvarint unless a size is given; differences are to the field
// of the same name before.
//
//	end, first, last-first, first time, last time-first time, ops, hash (32 bytes), prev (32 bytes), blocks
//	of each block: offset difference, first difference, time difference, spaces+1 (0: not known), 4 bytes each
//
// The footer is the last bytes of the file.
//
//	 0               8       12      16              24      28      32
//	+---------------+-------+-------+---------------+-------+-------+
//	|     magic     |version|   0   | index offset  | size  |  sum  |
//	+---------------+-------+-------+---------------+-------+-------+
//
//	magic  "BLOGEND" and a zero
//	size   of the index, in bytes
//	sum    CRC-32C, salted with the segment's uuid, of the footer before it and of the index
const (
	footerMagic   = "BLOGEND\x00"
	footerVersion = 8
	footerOffset  = 16
	footerSize    = 24
	footerSum     = 28

	// FooterSize is the bytes that the footer takes.
	FooterSize = 32
)

// Append appends the index as it stands in a file.
func (x *Index) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(x.End))
	dst = binary.AppendUvarint(dst, uint64(x.First))
	dst = binary.AppendUvarint(dst, uint64(x.Last-x.First))
	dst = binary.AppendUvarint(dst, uint64(x.FirstTime))
	dst = binary.AppendUvarint(dst, uint64(x.LastTime-x.FirstTime))
	dst = binary.AppendUvarint(dst, uint64(x.Ops))
	dst = append(dst, x.Hash[:]...)
	dst = append(dst, x.Prev[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(x.Blocks)))
	last := Block{Offset: HeaderSize, First: x.First, Time: x.FirstTime}
	for _, b := range x.Blocks {
		dst = binary.AppendUvarint(dst, uint64(b.Offset-last.Offset))
		dst = binary.AppendUvarint(dst, uint64(b.First-last.First))
		dst = binary.AppendUvarint(dst, uint64(b.Time-last.Time))
		if b.Spaces == nil {
			dst = append(dst, 0)
		} else {
			dst = binary.AppendUvarint(dst, uint64(len(b.Spaces))+1)
			for _, h := range b.Spaces {
				dst = le.AppendUint32(dst, h)
			}
		}
		last = b
	}
	return dst
}

var errIndex = errors.New("malformed index")

// ParseIndex decodes an index.
func ParseIndex(b []byte) (*Index, error) {
	d := decoder{rest: b}
	x := &Index{End: int64(d.uvarint()), First: batchlog.ID(d.uvarint())}
	x.Last = x.First + batchlog.ID(d.uvarint())
	x.FirstTime = int64(d.uvarint())
	x.LastTime = x.FirstTime + int64(d.uvarint())
	x.Ops = int64(d.uvarint())
	copy(x.Hash[:], d.bytes(32))
	copy(x.Prev[:], d.bytes(32))
	count := d.uvarint()
	if d.failed || count > uint64(len(d.rest)) {
		return nil, errIndex
	}
	x.Blocks = make([]Block, count)
	last := Block{Offset: HeaderSize, First: x.First, Time: x.FirstTime}
	for i := range x.Blocks {
		last = Block{
			Offset: last.Offset + int64(d.uvarint()),
			First:  last.First + batchlog.ID(d.uvarint()),
			Time:   last.Time + int64(d.uvarint()),
		}
		if n := d.uvarint(); n > 0 {
			hashes := d.bytes(int(min(n-1, spacesMax+1)) * 4)
			last.Spaces = make([]uint32, len(hashes)/4)
			for j := range last.Spaces {
				last.Spaces[j] = le.Uint32(hashes[4*j:])
			}
			if n-1 != uint64(len(last.Spaces)) || !slices.IsSorted(last.Spaces) {
				return nil, errIndex
			}
		}
		x.Blocks[i] = last
	}
	if d.failed || len(d.rest) != 0 {
		return nil, errIndex
	}
	return x, nil
}

// A decoder takes fields off the front of bytes, and remembers when there were too few.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.failed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.failed, d.rest = true, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// Seal is what to write to seal a file of that size with index x: bytes that go to offset, the index first, the
// footer last, zeros between. Behind them the file ends.
func Seal(x *Index, size int64, salt uint32) (offset int64, b []byte) {
	offset = Align(x.End)
	b = x.Append(nil)
	indexSize := len(b)
	if gap := size - offset - int64(indexSize) - FooterSize; gap > 0 {
		b = append(b, make([]byte, gap)...)
	}
	footer := make([]byte, FooterSize)
	copy(footer, footerMagic)
	le.PutUint32(footer[footerVersion:], Version)
	le.PutUint64(footer[footerOffset:], uint64(offset))
	le.PutUint32(footer[footerSize:], uint32(indexSize))
	sum := crc32.Update(salt, castagnoli, footer[:footerSum])
	le.PutUint32(footer[footerSum:], crc32.Update(sum, castagnoli, b[:indexSize]))
	return offset, append(b, footer...)
}

var (
	errFooterMagic = errors.New("no footer where a sealed segment ends")
	errFooterPlace = errors.New("footer names an index outside of the file")
	errFooterSum   = errors.New("index and footer do not match their sum")
)

// ReadIndex reads the index of the sealed file of that size. What is damaged is a *batchlog.CorruptError.
func ReadIndex(file io.ReaderAt, size int64, name string, salt uint32) (*Index, error) {
	damaged := func(offset int64, err error) (*Index, error) {
		return nil, &batchlog.CorruptError{File: name, Offset: offset, Err: err}
	}
	at := size - FooterSize
	if at < HeaderSize {
		return damaged(0, errFooterMagic)
	}
	footer := make([]byte, FooterSize)
	if _, err := file.ReadAt(footer, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read footer of %s: %w", name, err)
	}
	if string(footer[:len(footerMagic)]) != footerMagic {
		return damaged(at, errFooterMagic)
	}
	offset, indexSize := int64(le.Uint64(footer[footerOffset:])), int64(le.Uint32(footer[footerSize:]))
	if offset < HeaderSize || offset > at-indexSize {
		return damaged(at, errFooterPlace)
	}
	b := make([]byte, indexSize)
	if _, err := file.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read index of %s: %w", name, err)
	}
	sum := crc32.Update(salt, castagnoli, footer[:footerSum])
	if crc32.Update(sum, castagnoli, b) != le.Uint32(footer[footerSum:]) {
		return damaged(offset, errFooterSum)
	}
	if v := le.Uint32(footer[footerVersion:]); v > Version {
		return nil, &batchlog.VersionError{What: name, Version: v, Known: Version}
	}
	x, err := ParseIndex(b)
	if err != nil {
		return damaged(offset, err)
	}
	return x, nil
}

// An indexer builds the blocks of an index from groups in order.
type indexer struct {
	index  Index
	spaces map[uint32]struct{} // of the block that is open
	last   []byte              // path of the last op: the next one is mostly there as well
}

// group takes note of a group and checks its records.
func (x *indexer) group(g Group, records []byte) error {
	start := len(x.index.Blocks) == 0
	if !start && g.Offset-x.index.Blocks[len(x.index.Blocks)-1].Offset >= BlockBytes {
		x.close()
		start = true
	}
	first := true
	newest, err := CheckRecords(g, records, x.index.LastTime, func(r *batchlog.Record) error {
		if first && start {
			x.index.Blocks = append(x.index.Blocks, Block{Offset: g.Offset, First: g.First, Time: r.Time})
			x.spaces, x.last = map[uint32]struct{}{}, nil
		}
		if len(x.index.Blocks) == 1 && first && start {
			x.index.First, x.index.FirstTime = r.ID, r.Time
		}
		first = false
		x.index.Last = r.ID
		return x.record(r)
	})
	x.index.LastTime = newest
	x.index.End = g.End()
	return err
}

func (x *indexer) record(r *batchlog.Record) error {
	x.index.Ops += int64(r.Count)
	ops := r.Ops
	for range r.Count {
		_, key, _, rest, err := batchlog.NextOp(ops)
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
	if len(key) == 0 || key[0] != bytewise.TagArray {
		return nil // the system's own
	}
	if x.last != nil && len(key) >= len(x.last) && string(key[:len(x.last)]) == string(x.last) {
		return nil
	}
	at := 1
	for {
		x.spaces[SpaceHash(key[:at])] = struct{}{}
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

// close ends the block that is open.
func (x *indexer) close() {
	if n := len(x.index.Blocks); n > 0 && len(x.spaces) <= spacesMax {
		hashes := make([]uint32, 0, len(x.spaces))
		for h := range x.spaces {
			hashes = append(hashes, h)
		}
		slices.Sort(hashes)
		x.index.Blocks[n-1].Spaces = hashes
	}
}
