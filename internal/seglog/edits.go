package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bytespace/batchlog"
)

// An edit is encoded as the directories that it names and its changes, to the end of its record:
//
//	+-------+-----------+-----+------+-----------------+------+------------+-----+
//	| count | directory | ... | kind |     fields      | kind |   fields   | ... |
//	+-------+-----------+-----+------+-----------------+------+------------+-----+
//
//	count      of the directories, a varint, as are all numbers here
//	directory  its length and its bytes
//	kind       of the change, a byte; it says which fields follow, always in the order of [field]
//
// A directory in a field is its place among those of the edit. Everything else in a record of the table is of constant size, but for
// chains: so an edit costs what it says, however many segments there are.
type kind uint8

const (
	kindBase    kind = 1 + iota // there is nothing but what follows: a snapshot
	kindWhole                   // a segment, in a snapshot
	kindGone                    // a file in limbo, in a snapshot
	kindMark                    // the active segment is durable up to there
	kindBegin                   // the log goes on in another segment; one with the same first commit has none, and is let go of
	kindFull                    // the active segment has ended
	kindSealed                  // a full one has its index
	kindMoving                  // a sealed one is copied to a warm directory: what is there is to be removed, unless it is moved
	kindMoved                   // it is there; what it was copied from goes
	kindUnmoved                 // it will not be there; what was copied goes
	kindDropped                 // segments whose commits are all at or before last go
	kindRemoved                 // files with these numbers in limbo are no more
	kindEnd
)

// A field is what a change may say.
type field uint32

const (
	fieldFirst  field = 1 << iota
	fieldLast         // how much more than first it is, 0 if that is not said, and one
	fieldTag          // four bytes
	fieldState        // a byte: the state, and 0x80 for a warm one
	fieldDir          // a directory
	fieldMoving       // a directory
	fieldEnd
	fieldSize
	fieldOldest // a time
	fieldNewest // a time
	fieldBegun  // a time
	fieldEnded  // a time
	fieldHash   // 32 bytes
	fieldChains // their number, and of each 16 bytes, its id and its size
	fieldLow    // a number in limbo
	fieldHigh   // how much more than low it is
	fieldName   // its length and its bytes
)

// kinds is what each kind of change says.
var kinds = [kindEnd]struct {
	name   string
	fields field
}{
	kindBase:    {"base", fieldNewest | fieldLow},
	kindWhole:   {"whole", fieldFirst | fieldLast | fieldTag | fieldState | fieldDir | fieldMoving | fieldEnd | fieldSize | fieldOldest | fieldNewest | fieldBegun | fieldEnded | fieldHash | fieldChains},
	kindGone:    {"gone", fieldDir | fieldLow | fieldName},
	kindMark:    {"mark", fieldFirst | fieldEnd | fieldBegun},
	kindBegin:   {"begin", fieldFirst | fieldTag | fieldDir | fieldSize | fieldBegun},
	kindFull:    {"full", fieldFirst | fieldLast | fieldEnd | fieldOldest | fieldNewest | fieldBegun | fieldEnded | fieldChains},
	kindSealed:  {"sealed", fieldFirst | fieldSize | fieldOldest | fieldNewest | fieldHash},
	kindMoving:  {"moving", fieldFirst | fieldDir},
	kindMoved:   {"moved", fieldFirst},
	kindUnmoved: {"unmoved", fieldFirst},
	kindDropped: {"dropped", fieldLast},
	kindRemoved: {"removed", fieldLow | fieldHigh},
}

func (k kind) String() string {
	if k == 0 || k >= kindEnd {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return kinds[k].name
}

const warmBit = 0x80

// appendEdit appends the encoding of e.
func appendEdit(dst []byte, e edit) []byte {
	var dirs []string
	dirOf := func(dir string) uint64 {
		at := slices.Index(dirs, dir)
		if at < 0 {
			at = len(dirs)
			dirs = append(dirs, dir)
		}
		return uint64(at)
	}
	var changes []byte
	for i := range e {
		changes = appendChange(append(changes, byte(e[i].kind)), &e[i], dirOf)
	}
	dst = binary.AppendUvarint(dst, uint64(len(dirs)))
	for _, dir := range dirs {
		dst = appendText(dst, dir)
	}
	return append(dst, changes...)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendChange(dst []byte, c *change, dirOf func(string) uint64) []byte {
	s, has := &c.seg, kinds[c.kind].fields
	number := func(f field, n uint64) {
		if has&f != 0 {
			dst = binary.AppendUvarint(dst, n)
		}
	}
	first := uint64(0)
	if has&fieldFirst != 0 {
		first = uint64(s.first)
		dst = binary.AppendUvarint(dst, first)
	}
	number(fieldLast, uint64(s.last)-first+1)
	if has&fieldTag != 0 {
		dst = append(dst, s.tag[:]...)
	}
	if has&fieldState != 0 {
		b := byte(s.state)
		if s.warm {
			b |= warmBit
		}
		dst = append(dst, b)
	}
	if has&fieldDir != 0 {
		number(fieldDir, dirOf(s.dir))
	}
	if has&fieldMoving != 0 {
		number(fieldMoving, dirOf(s.moving))
	}
	number(fieldEnd, uint64(s.end))
	number(fieldSize, uint64(s.size))
	number(fieldOldest, uint64(s.oldest))
	number(fieldNewest, uint64(s.newest))
	number(fieldBegun, uint64(s.begun))
	number(fieldEnded, uint64(s.ended))
	if has&fieldHash != 0 {
		dst = append(dst, s.hash[:]...)
	}
	if has&fieldChains != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(s.chains)))
		for _, chain := range s.chains {
			dst = append(dst, chain.file[:]...)
			dst = binary.AppendUvarint(dst, uint64(chain.id))
			dst = binary.AppendUvarint(dst, uint64(chain.size))
		}
	}
	number(fieldLow, c.low)
	number(fieldHigh, c.high-c.low)
	if has&fieldName != 0 {
		dst = appendText(dst, c.name)
	}
	return dst
}

var (
	errEditShort = errors.New("edit ends within a change")
	errEditKind  = errors.New("edit with a change of an unknown kind")
	errEditValue = errors.New("edit with a value that can't be")
)

// parseEdit is the edit that [appendEdit] made b of. It keeps nothing of b.
func parseEdit(b []byte) (edit, error) {
	d := editDecoder{rest: b}
	for range d.count(1) {
		d.dirs = append(d.dirs, string(d.text()))
	}
	var e edit
	for d.err == nil && len(d.rest) > 0 {
		k := kind(d.rest[0])
		d.rest = d.rest[1:]
		if k == 0 || k >= kindEnd {
			return nil, errEditKind
		}
		e = append(e, d.change(k))
	}
	if d.err != nil {
		return nil, d.err
	}
	return e, nil
}

// An editDecoder reads an edit from its front. After the first thing that can't be it yields zeros.
type editDecoder struct {
	rest []byte
	dirs []string
	err  error
}

func (d *editDecoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}

func (d *editDecoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail(errEditShort)
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// offset is a number that is a place in a file, or a size.
func (d *editDecoder) offset() int64 {
	n := d.number()
	if n > math.MaxInt64 {
		d.fail(errEditValue)
		return 0
	}
	return int64(n)
}

// count is the number of things that follow, each of which takes that many bytes at least.
func (d *editDecoder) count(size int) int {
	n := d.number()
	if n > uint64(len(d.rest)/size) {
		d.fail(errEditShort)
		return 0
	}
	return int(n)
}

// bytes is the next n bytes, which stay those of the record.
func (d *editDecoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.fail(errEditShort)
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *editDecoder) text() []byte { return d.bytes(d.count(1)) }

func (d *editDecoder) dir() string {
	n := d.number()
	if n >= uint64(len(d.dirs)) {
		d.fail(errEditValue)
		return ""
	}
	return d.dirs[n]
}

// change reads the fields of a change, in the order in which [appendChange] wrote them.
func (d *editDecoder) change(k kind) change {
	c := change{kind: k}
	s, has := &c.seg, kinds[k].fields
	if has&fieldFirst != 0 {
		s.first = batchlog.ID(d.number())
	}
	if has&fieldLast != 0 {
		s.last = s.first + batchlog.ID(d.number()) - 1
	}
	if has&fieldTag != 0 {
		s.tag = segTag(d.bytes(len(s.tag)))
	}
	if has&fieldState != 0 {
		b := d.bytes(1)[0]
		s.warm, s.state = b&warmBit != 0, state(b&^warmBit)
	}
	if has&fieldDir != 0 {
		s.dir = d.dir()
	}
	if has&fieldMoving != 0 {
		s.moving = d.dir()
	}
	if has&fieldEnd != 0 {
		s.end = d.offset()
	}
	if has&fieldSize != 0 {
		s.size = d.offset()
	}
	for _, f := range []struct {
		field field
		at    *int64
	}{{fieldOldest, &s.oldest}, {fieldNewest, &s.newest}, {fieldBegun, &s.begun}, {fieldEnded, &s.ended}} {
		if has&f.field != 0 {
			*f.at = int64(d.number())
		}
	}
	if has&fieldHash != 0 {
		s.hash = [32]byte(d.bytes(len(s.hash)))
	}
	if has&fieldChains != 0 {
		for range d.count(16 + 1 + 1) {
			s.chains = append(s.chains, segChain{[16]byte(d.bytes(16)), batchlog.ID(d.number()), d.offset()})
		}
	}
	if has&fieldLow != 0 {
		c.low = d.number()
	}
	if has&fieldHigh != 0 {
		c.high = c.low + d.number()
	}
	if has&fieldName != 0 {
		if c.name = string(d.text()); !clean(c.name) {
			d.fail(errEditValue)
		}
	}
	return c
}
