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
)

// BlockBytes is the size from which on a block takes no further record. A block is what a filtered reader reads or leaves
// out, so it is small: a space with one commit in a hundred has nothing in most blocks, however its commits are spread.
const BlockBytes = 2 << 10

// The bounds of summaries. A block that goes beyond has none, and is always read.
const (
	blockSpacesMax = 4096    // in one block
	indexSpacesMax = 1 << 16 // in all blocks of a segment together
)

// An Index is what a sealed segment says about itself: where commits, times and spaces are, and its hash.
type Index struct {
	End         int64 // offset behind the last group
	First, Last batchlog.ID
	FirstTime   int64    // of the first commit, in microseconds since 1970
	LastTime    int64    // of the last
	Ops         int64    // in all commits
	Hash        [32]byte // SHA-256 of the file up to End
	Prev        [32]byte // Hash of the segment before; zero for the first of the log, and if that one was not sealed before
	// Spaces are the [SpaceHash] of every space that an op of the segment is in, and of all spaces around those; sorted. The
	// same hash may stand for another space, too; that costs a read, no more.
	Spaces []uint32
	Blocks []Block
}

// A Block is some records, one behind the other, of one group.
type Block struct {
	Offset int64       // of the first record
	Size   int         // of the records, in bytes
	Count  int         // of the records
	First  batchlog.ID // of the first record
	Time   int64       // of the first record
	Sum    uint32      // CRC-32C, salted with the segment's uuid, of the records: a block can be read alone
	// Spaces are the positions in Index.Spaces of the spaces that the block has ops in or within; sorted. nil: not known.
	Spaces []uint32
}

// End is the offset behind the records of b.
func (b *Block) End() int64 { return b.Offset + int64(b.Size) }

// Holds reports whether these are the records of b.
func (b *Block) Holds(records []byte, salt uint32) bool {
	return crc32.Update(salt, castagnoli, records) == b.Sum
}

// SpaceHash is how summaries name the space with this open path.
func SpaceHash(open []byte) uint32 { return crc32.Checksum(open, castagnoli) }

// Positions is where in x.Spaces the spaces with these hashes are, without those that no op is in.
func (x *Index) Positions(hashes []uint32) []uint32 {
	var at []uint32
	for _, h := range hashes {
		if i, ok := slices.BinarySearch(x.Spaces, h); ok {
			at = append(at, uint32(i))
		}
	}
	slices.Sort(at)
	return at
}

// MayTouch reports whether b may have an op in, or within, a space at one of these positions of Index.Spaces.
func (b *Block) MayTouch(positions []uint32) bool {
	if b.Spaces == nil {
		return true
	}
	few, many := positions, b.Spaces // both are sorted
	if len(few) > len(many) {
		few, many = many, few
	}
	for _, p := range few {
		at, found := slices.BinarySearch(many, p)
		if found {
			return true
		}
		many = many[at:]
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

// Group is the offset of the group that the block at position i is in, and the first commit of that group.
func (x *Index) Group(i int) (offset int64, first batchlog.ID) {
	for i > 0 && x.Blocks[i-1].End() == x.Blocks[i].Offset {
		i--
	}
	return x.Blocks[i].Offset - GroupHead, x.Blocks[i].First
}

// The index as it stands behind the last group. Numbers are uvarint unless a size is given; sorted numbers are given by their
// difference to the one before.
//
//	end, first, number of commits, first time, last time-first time, ops, hash (32 bytes), prev (32 bytes)
//	number of spaces, 4 bytes each
//	number of blocks, of each:
//	  offset behind the end of the block before, size, count, time behind that of the block before, sum (4 bytes),
//	  number of spaces+1 (0: not known), their positions
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
	dst = binary.AppendUvarint(dst, uint64(x.Last+1-x.First))
	dst = binary.AppendUvarint(dst, uint64(x.FirstTime))
	dst = binary.AppendUvarint(dst, uint64(x.LastTime-x.FirstTime))
	dst = binary.AppendUvarint(dst, uint64(x.Ops))
	dst = append(dst, x.Hash[:]...)
	dst = append(dst, x.Prev[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(x.Spaces)))
	for _, h := range x.Spaces {
		dst = le.AppendUint32(dst, h)
	}
	dst = binary.AppendUvarint(dst, uint64(len(x.Blocks)))
	end, time := int64(HeaderSize), x.FirstTime
	for i := range x.Blocks {
		b := &x.Blocks[i]
		dst = binary.AppendUvarint(dst, uint64(b.Offset-end))
		dst = binary.AppendUvarint(dst, uint64(b.Size))
		dst = binary.AppendUvarint(dst, uint64(b.Count))
		dst = binary.AppendUvarint(dst, uint64(b.Time-time))
		dst = le.AppendUint32(dst, b.Sum)
		dst = appendPositions(dst, b.Spaces)
		end, time = b.End(), b.Time
	}
	return dst
}

func appendPositions(dst []byte, positions []uint32) []byte {
	if positions == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(positions))+1)
	last := uint32(0)
	for _, p := range positions {
		dst = binary.AppendUvarint(dst, uint64(p-last))
		last = p
	}
	return dst
}

var errIndex = errors.New("malformed index")

// ParseIndex decodes an index.
func ParseIndex(b []byte) (*Index, error) {
	d := decoder{rest: b}
	x := &Index{End: int64(d.uvarint()), First: batchlog.ID(d.uvarint())}
	x.Last = x.First + batchlog.ID(d.uvarint()) - 1
	x.FirstTime = int64(d.uvarint())
	x.LastTime = x.FirstTime + int64(d.uvarint())
	x.Ops = int64(d.uvarint())
	copy(x.Hash[:], d.bytes(32))
	copy(x.Prev[:], d.bytes(32))
	x.Spaces = make([]uint32, d.count(4))
	for i := range x.Spaces {
		x.Spaces[i] = le.Uint32(d.bytes(4))
	}
	x.Blocks = make([]Block, d.count(9)) // the least that a block takes
	positions := make([]uint32, 0, len(x.Blocks))
	last := Block{Offset: HeaderSize, First: x.First, Time: x.FirstTime}
	for i := range x.Blocks {
		next := Block{Offset: last.End() + int64(d.uvarint()), First: last.First + batchlog.ID(last.Count)}
		next.Size, next.Count = int(d.uvarint()), int(d.uvarint())
		next.Time = last.Time + int64(d.uvarint())
		if sum := d.bytes(4); sum != nil {
			next.Sum = le.Uint32(sum)
		}
		next.Spaces, positions = d.positions(positions, len(x.Spaces))
		if next.Offset < HeaderSize+GroupHead || next.Offset > x.End || int64(next.Size) > x.End-next.Offset || next.Count <= 0 {
			return nil, errIndex
		}
		x.Blocks[i], last = next, next
	}
	if d.failed || len(d.rest) != 0 || !slices.IsSorted(x.Spaces) {
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
	if n <= 0 || v > 1<<62 {
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

// count is the number of items to come, of which each takes at least size bytes: it is not believed beyond that.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.rest)/size) {
		d.failed, d.rest = true, nil
		return 0
	}
	return int(n)
}

// positions decodes positions below limit. They go behind those in all, which blocks share the memory of.
func (d *decoder) positions(all []uint32, limit int) (mine, rest []uint32) {
	n := d.uvarint()
	if n == 0 {
		return nil, all
	}
	if n-1 > uint64(len(d.rest)) {
		d.failed, d.rest = true, nil
		return nil, all
	}
	start, last := len(all), uint64(0)
	for range n - 1 {
		last += d.uvarint()
		if last >= uint64(limit) {
			d.failed, d.rest = true, nil
			return nil, all
		}
		all = append(all, uint32(last))
	}
	return all[start:len(all):len(all)], all
}

// Seal is what to write behind the last group to seal a file with index x: bytes that go to offset, the index and the footer. Behind them the
// file ends: it is to be cut there if it is longer. Files of some programs have zeros between the two.
func Seal(x *Index, salt uint32) (offset int64, b []byte) {
	offset = Align(x.End)
	b = x.Append(nil)
	indexSize := len(b)
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
	errFooterShort = errors.New("file ends before its footer does")
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
	if n, err := file.ReadAt(footer, at); n < len(footer) {
		if errors.Is(err, io.EOF) {
			return damaged(at, errFooterShort) // zeros in place of what is missing might match
		}
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
	if n, err := file.ReadAt(b, offset); n < len(b) {
		if errors.Is(err, io.EOF) {
			return damaged(offset, errFooterShort)
		}
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
