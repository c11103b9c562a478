package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// A blob's file begins with the content as it is, so that any tool can read it. What is needed to check it stands behind.
//
//	 0           size       size+4*chunks   file size
//	+--- ... ---+-------------+------------+
//	|  content  |    table    |   footer   |
//	+--- ... ---+-------------+------------+
//
//	table   CRC-32C of each chunk; all chunks have chunkBytes but the last, which has the rest, at least 1

// The footer, in 64 bytes. Integers are little-endian.
//
//	 0        8       12       16              24                                      56       60       64
//	+--------+--------+--------+---------------+------------------ ... ----------------+--------+--------+
//	| magic  |version | chunk  |     size      |                 hash                  | table  |  sum   |
//	+--------+--------+--------+---------------+------------------ ... ----------------+--------+--------+
//
//	magic    "BLOBEND" and a zero
//	version  of the format
//	chunk    bytes of a chunk; 64 KiB in version 1
//	size     bytes of the content
//	hash     SHA-256 of the content
//	table    CRC-32C of the table
//	sum      CRC-32C of the footer up to here
//
// In every version the last 64 bytes of the file have magic, version and sum in these places: only so is a newer version
// told from damage.
const (
	footerMagic   = "BLOBEND\x00"
	footerVersion = 8
	footerChunk   = 12
	footerSize    = 16
	footerHash    = 24
	footerTable   = 56
	footerSum     = 60
	footerBytes   = 64

	version    = 1
	chunkBytes = 64 << 10
	sumBytes   = 4
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A footer is what a file says about its content.
type footer struct {
	size  int64 // of the content, in bytes
	hash  Hash
	table uint32 // sum of the table
}

// makeEnd is the table and the footer.
func makeEnd(table []byte, ref Ref) []byte {
	b := bytes.Clone(table)
	start := len(table)
	b = append(b, footerMagic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, chunkBytes)
	b = le.AppendUint64(b, uint64(ref.Size))
	b = append(b, ref.Hash[:]...)
	b = le.AppendUint32(b, crc32.Checksum(table, castagnoli))
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

var (
	errMagic   = errors.New("no footer where a blob ends")
	errSum     = errors.New("footer does not match its sum")
	errTable   = errors.New("table does not match its sum")
	errContent = errors.New("content does not match its sum")
)

// parseFooter reads the footer b of a file of fileBytes. The error is a *VersionError, or a *DamageError, if it is not one
// that fits a file of that size.
func parseFooter(b []byte, name string, fileBytes int64) (footer, error) {
	damaged := func(err error) (footer, error) {
		return footer{}, &DamageError{File: name, Offset: max(0, fileBytes-footerBytes), Err: err}
	}
	if len(b) != footerBytes || string(b[:len(footerMagic)]) != footerMagic {
		return damaged(errMagic)
	}
	if crc32.Checksum(b[:footerSum], castagnoli) != le.Uint32(b[footerSum:]) {
		return damaged(errSum)
	}
	switch v := le.Uint32(b[footerVersion:]); {
	case v == 0:
		return damaged(errors.New("no blob has format version 0"))
	case v > version:
		return footer{}, &VersionError{File: name, Version: v, Known: version}
	}
	if chunk := le.Uint32(b[footerChunk:]); chunk != chunkBytes {
		return damaged(fmt.Errorf("chunks of %d bytes", chunk))
	}
	size := le.Uint64(b[footerSize:])
	if size > math.MaxInt64 || int64(size) > fileBytes || fileSize(int64(size)) != fileBytes {
		return damaged(fmt.Errorf("file of %d bytes for content of %d", fileBytes, size))
	}
	return footer{int64(size), Hash(b[footerHash : footerHash+sha256.Size]), le.Uint32(b[footerTable:])}, nil
}

// chunks is how many chunks content of that size has.
func chunks(size int64) int64 { return size/chunkBytes + min(1, size%chunkBytes) }

// fileSize is the size of the file with content of that size, which is at most that of some file.
func fileSize(size int64) int64 { return size + chunks(size)*sumBytes + footerBytes }

// A DamageError says that a file is not, or no longer, what was put.
type DamageError struct {
	File   string
	Offset int64 // of the first byte of the part that is damaged, in bytes from the file's start
	Err    error // what is wrong with it
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("blob %s is damaged at offset %d: %v", e.File, e.Offset, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// A VersionError says that a newer version of the program wrote a file.
type VersionError struct {
	File    string
	Version uint32 // of the file
	Known   uint32 // the newest that can be read
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("blob %s has format version %d, known is up to %d", e.File, e.Version, e.Known)
}
