// Package wire is the bytes that a batch is from the moment its ops are added: what hooks read, the log holds, the store
// applies, a follower decodes and an archive keeps. Nothing on that way encodes again.
//
// It is below everything but package bytewise, and pure: bytes in, bytes out. Users meet its words as those of the
// front, package batchlog.
package wire

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// An ID is a commit's number: 1, 2, 3 … dense in a database, never used twice and never going back. 0 stands before the
// first commit.
type ID uint64

// String is the id in decimal.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ErrCorrupt says that stored bytes are damaged. It is the front's.
var ErrCorrupt = errors.New("corrupt")

// cutString splits off a string with its length, a uvarint, in front.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 { // one byte: nearly all keys
		n := int(b[0]) + 1
		if n > len(b) {
			return nil, nil, false
		}
		return b[1:n:n], b[n:], true
	}
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	end := n + int(size)
	return b[n:end:end], b[end:], true
}

func appendBytes(dst, s []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
