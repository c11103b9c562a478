// Package segment is the format of one file of a log: a header, groups of commits, and, once the file is
// sealed, an index and a footer. It is pure over bytes and io: no clock, no disk, no goroutine.
//
//	 0        HeaderSize                       end                       file size
//	+--------+--------+--------+-----+--------+---------+-------+---------+
//	| header | group  | group  | ... | group  |  index  | zeros | footer  |
//	+--------+--------+--------+-----+--------+---------+-------+---------+
//
// An active segment has been filled with zeros ahead of its groups, as a sync is cheapest where nothing about the file
// changes but its bytes. Each group is what one sync made durable. When the segment is sealed the index
// follows the last group, and the footer that finds it stands at the very end of the file: right behind the index, where the file is
// cut, or behind what there was of zeros, as earlier programs left it.
//
// What this trusts a disk with: a sync that returned nil has kept the bytes, and writing the rest of a sector anew with what
// it held before, and more behind that, does not harm what it held.
package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/bytespace/batchlog"
)

// Version is the newest format that this package reads, and the one that it writes.
const Version = 1

// HeaderSize is the bytes that the header takes, in a page of its own.
const HeaderSize = 4096

// UUID names a database or a segment.
type UUID [16]byte

// String is u in the usual form.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// A Header says which file this is.
//
//	 0               8       12      16              32              48      56      64    68    72    76
//	+---------------+-------+-------+---------------+---------------+-------+-------+-----+-----+-----+
//	|     magic     |version| codec | database uuid | segment uuid  | epoch | first | log |  0  | sum |
//	+---------------+-------+-------+---------------+---------------+-------+-------+-----+-----+-----+
//
//	magic    "BLOGSEG" and a zero
//	version  of the format
//	codec    how groups are packed; 0: not at all
//	epoch    of the database when the segment was begun
//	first    id of the first commit
//	log      number of the log; 0 is main
//	sum      CRC-32C of all before; at this place in every version
type Header struct {
	Version  uint32
	Codec    uint32
	Database UUID
	Segment  UUID
	Epoch    batchlog.Epoch
	First    batchlog.ID
	Log      uint32
}

const (
	headerMagic   = "BLOGSEG\x00"
	headerVersion = 8
	headerCodec   = 12
	headerDB      = 16
	headerSegment = 32
	headerEpoch   = 48
	headerFirst   = 56
	headerLog     = 64
	headerSum     = 72
	headerEnd     = 76
)

// AppendHeader appends the page that h fills.
func AppendHeader(dst []byte, h Header) []byte {
	page := make([]byte, HeaderSize)
	copy(page, headerMagic)
	le.PutUint32(page[headerVersion:], h.Version)
	le.PutUint32(page[headerCodec:], h.Codec)
	copy(page[headerDB:], h.Database[:])
	copy(page[headerSegment:], h.Segment[:])
	le.PutUint64(page[headerEpoch:], uint64(h.Epoch))
	le.PutUint64(page[headerFirst:], uint64(h.First))
	le.PutUint32(page[headerLog:], h.Log)
	le.PutUint32(page[headerSum:], crc32.Checksum(page[:headerSum], castagnoli))
	return append(dst, page...)
}

var (
	errHeaderMagic = errors.New("not a segment of a log")
	errHeaderSum   = errors.New("header does not match its sum")
	errHeaderCodec = errors.New("header names an unknown codec")
	errHeaderZero  = errors.New("no segment has format version 0")
)

// ParseHeader decodes the header at the start of b. name is the file's, for errors: a *batchlog.VersionError
// if a newer program wrote it, else a *batchlog.CorruptError.
func ParseHeader(b []byte, name string) (Header, error) {
	damaged := func(err error) (Header, error) {
		return Header{}, &batchlog.CorruptError{File: name, Err: err}
	}
	if len(b) < headerEnd || string(b[:len(headerMagic)]) != headerMagic {
		return damaged(errHeaderMagic)
	}
	if le.Uint32(b[headerSum:]) != crc32.Checksum(b[:headerSum], castagnoli) {
		return damaged(errHeaderSum)
	}
	h := Header{
		Version:  le.Uint32(b[headerVersion:]),
		Codec:    le.Uint32(b[headerCodec:]),
		Database: UUID(b[headerDB:]),
		Segment:  UUID(b[headerSegment:]),
		Epoch:    batchlog.Epoch(le.Uint64(b[headerEpoch:])),
		First:    batchlog.ID(le.Uint64(b[headerFirst:])),
		Log:      le.Uint32(b[headerLog:]),
	}
	if h.Version == 0 {
		return damaged(errHeaderZero)
	}
	if h.Version > Version {
		return Header{}, &batchlog.VersionError{What: name, Version: h.Version, Known: Version}
	}
	if h.Codec != 0 {
		return damaged(errHeaderCodec)
	}
	return h, nil
}

// Salt is what the sums of the groups in h's file begin with, so that a group of another file, or of an earlier use of the
// same blocks of the disk, is never taken for one of this.
func (h Header) Salt() uint32 { return crc32.Checksum(h.Segment[:], castagnoli) }

// Chain is what the first group of h's file names as the one before it.
func (h Header) Chain() uint32 {
	page := AppendHeader(nil, h)
	return le.Uint32(page[headerSum:])
}

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)
