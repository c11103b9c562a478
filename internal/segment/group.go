package segment

import (
	"errors"
	"hash/crc32"

	"github.com/bytespace/batchlog"
)

// A group is what one sync makes durable: records behind a header. It begins at a multiple of eight.
//
//	 0      4      8      12      16     20     24          32          40               40+size
//	+------+------+------+-------+------+------+-----------+-----------+------- ... ----+
//	|magic | sum  | size | count | prev | body |   first   |  durable  |     records    |
//	+------+------+------+-------+------+------+-----------+-----------+------- ... ----+
//
//	magic    "BLGR"
//	sum      CRC-32C, salted with the segment's uuid, of the header from size to its end. The size is
//	         believed only when it holds
//	size     of the records, in bytes
//	count    of the records
//	prev     sum of the group before this one, of the file's header for the first: a chain, so that what an
//	         earlier run left behind a torn tail does not become part of the log again
//	body     CRC-32C, salted, of the records
//	first    id of the first record
//	durable  offset in the file up to which groups were durable when this one was written. A group that
//	         doesn't hold before a later one that says so is damage, not a torn tail
const (
	groupMagic   = 0x52474c42 // "BLGR"
	groupSum     = 4
	groupSize    = 8
	groupCount   = 12
	groupPrev    = 16
	groupBody    = 20
	groupFirst   = 24
	groupDurable = 32
	// GroupHead is the bytes in front of a group's records.
	GroupHead = 40

	groupAlign = 8
)

const (
	// MaxGroupBytes bounds what is written as a group: the largest batch with the room its record takes, or the largest op of a chain.
	MaxGroupBytes = batchlog.MaxBatchBytes + 1<<10
	// maxChainGroupBytes bounds what is read as a group of a chain. Writers of old have put the largest op behind up to 1 MiB of others.
	maxChainGroupBytes = MaxGroupBytes + 1<<20
)

// A Group is where a group stands and what its header says.
type Group struct {
	Offset  int64 // of the header, in bytes from the file's start
	Size    int   // of the records, in bytes
	Count   int
	Prev    uint32
	Sum     uint32
	First   batchlog.ID
	Durable int64

	body uint32
}

// End is the offset behind the records of g.
func (g *Group) End() int64 { return g.Offset + GroupHead + int64(g.Size) }

// Align is the offset at or behind offset where a group may begin.
func Align(offset int64) int64 { return (offset + groupAlign - 1) &^ (groupAlign - 1) }

// PutGroup writes the header of g into the first GroupHead bytes of b, the rest of which are its records, and returns its sum. A group
// that readers would refuse is a *batchlog.LimitError.
func PutGroup(b []byte, g Group, salt uint32) (sum uint32, err error) {
	if n := len(b) - GroupHead; n > MaxGroupBytes {
		return 0, &batchlog.LimitError{What: "group of a segment", Size: int64(n), Limit: MaxGroupBytes}
	}
	return putGroup(b, g, salt), nil
}

func putGroup(b []byte, g Group, salt uint32) (sum uint32) {
	records := b[GroupHead:]
	le.PutUint32(b, groupMagic)
	le.PutUint32(b[groupSize:], uint32(len(records)))
	le.PutUint32(b[groupCount:], uint32(g.Count))
	le.PutUint32(b[groupPrev:], g.Prev)
	le.PutUint32(b[groupBody:], crc32.Update(salt, castagnoli, records))
	le.PutUint64(b[groupFirst:], uint64(g.First))
	le.PutUint64(b[groupDurable:], uint64(g.Durable))
	sum = crc32.Update(salt, castagnoli, b[groupSize:GroupHead])
	le.PutUint32(b[groupSum:], sum)
	return sum
}

var (
	errGroupNone  = errors.New("no group")
	errGroupHead  = errors.New("group header does not match its sum")
	errGroupBody  = errors.New("group does not match its sum")
	errGroupChain = errors.New("group does not follow the one before it")
	errGroupEnd   = errors.New("group goes beyond the end of the file")
	errGroupCount = errors.New("group with another number of records than it says")
	errGroupID    = errors.New("commit with an id that is not its place")
	errGroupTime  = errors.New("commit older than the one before it")
)

// parseGroup decodes the header at the start of b, which stands at offset, of a group of at most that many bytes.
func parseGroup(b []byte, offset int64, salt uint32, most int) (Group, error) {
	if len(b) < GroupHead || le.Uint32(b) != groupMagic {
		return Group{}, errGroupNone
	}
	g := Group{
		Offset:  offset,
		Size:    int(le.Uint32(b[groupSize:])),
		Count:   int(le.Uint32(b[groupCount:])),
		Prev:    le.Uint32(b[groupPrev:]),
		Sum:     le.Uint32(b[groupSum:]),
		First:   batchlog.ID(le.Uint64(b[groupFirst:])),
		Durable: int64(le.Uint64(b[groupDurable:])),
		body:    le.Uint32(b[groupBody:]),
	}
	if g.Sum != crc32.Update(salt, castagnoli, b[groupSize:GroupHead]) || g.Size > most {
		return Group{}, errGroupHead
	}
	return g, nil
}

// holds reports whether these are the records of g.
func (g *Group) holds(records []byte, salt uint32) bool {
	return crc32.Update(salt, castagnoli, records) == g.body
}
