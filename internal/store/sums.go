package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A summedFS checks the blocks of tables as they are read, before Pebble does. Pebble answers a block that does not match its
// sum by flipping bit after bit of it and summing all of it each time, in case that mends it: for a block with a value of a megabyte
// that is half a minute, in which nobody is heard, and again at each read. One sum more a read says the same at once, and in which file.
//
// A block stands in a table as Pebble reads it, whole and with one ReadAt:
//
//	 0                  size    size+1      size+5
//	+-------- ... -------+--------+-----------+
//	|   keys and values  | packed |    sum    |
//	+-------- ... -------+--------+-----------+
//
//	sum  CRC-32C of all before it, turned by 15 bits, plus a constant; little-endian
type summedFS struct {
	vfs.FS
	summed atomic.Int64 // bytes, by all files
}

const (
	blockSum   = 4
	blockDelta = 0xa282ead8
	// summedFrom is the size of a read from which on it is checked. Pebble's footers are smaller and no blocks; in blocks as small as
	// this its search costs nothing.
	summedFrom = 1 << 10
)

var (
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	errBlockSum = errors.New("block of a table does not match its sum")
)

// Open is as vfs.FS says. Only tables are read with ReadAt.
func (s *summedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return &summedFile{File: f, name: name, fs: s}, nil
}

// Unwrap is as vfs.FS says.
func (s *summedFS) Unwrap() vfs.FS { return s.FS }

type summedFile struct {
	vfs.File
	name string
	fs   *summedFS
}

// ReadAt reads a block of a table, or its footer.
func (f *summedFile) ReadAt(b []byte, offset int64) (int, error) {
	n, err := f.File.ReadAt(b, offset)
	if err != nil || n < summedFrom || n < len(b) {
		return n, err
	}
	f.fs.summed.Add(int64(n))
	body := b[:n-blockSum]
	c := crc32.Checksum(body, castagnoli)
	if (c>>15|c<<17)+blockDelta == binary.LittleEndian.Uint32(b[len(body):]) {
		return n, nil
	}
	// Pebble knows damage by its own error.
	return 0, &batchlog.CorruptError{File: f.name, Offset: offset, Err: fmt.Errorf("%w: %w", errBlockSum, pebble.ErrCorruption)}
}
