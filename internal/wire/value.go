package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// A value is held by log and store as it is, unless it is a blob or begins with the mark that tells those. Nearly no value
// begins with it, so nearly none is copied on its way.
//
//	 0      8      9
//	+------+------+-----------------------------+
//	| mark | form | …                           |
//	+------+------+-----------------------------+
//
//	form  0: the value follows, which begins with the mark itself
//	      1: a reference to a blob follows: its SHA-256 (32 bytes), its size (uvarint)
const (
	valueMark     = "\xffblob\xfe\x1a\x00"
	valueForm     = len(valueMark)
	valueHead     = valueForm + 1
	valueEscaped  = 0
	valueBlob     = 1
	valueOverhead = valueHead // of a value that is escaped
)

// MaxBlobBytes bounds the size that a reference may name. It is the front's.
const MaxBlobBytes = 1 << 62

// BlobRefBytes is the most bytes that a reference takes in place of a value.
const BlobRefBytes = valueHead + 32 + binary.MaxVarintLen64

// A BlobRef names a blob: a value that is kept outside of log and store, under the hash of its content. What log and store hold
// is the reference. See batchlog.DB.StoreBlob.
type BlobRef struct {
	Hash [32]byte // SHA-256 of the content
	Size int64    // of the content, in bytes
}

// String is the hash in hex.
func (r BlobRef) String() string { return hex.EncodeToString(r.Hash[:]) }

// AppendBlobRef appends r as log and store hold it in place of a value.
func AppendBlobRef(dst []byte, r BlobRef) []byte {
	dst = append(append(dst, valueMark...), valueBlob)
	dst = append(dst, r.Hash[:]...)
	return binary.AppendUvarint(dst, uint64(r.Size))
}

var errValueForm = errors.New("value of an unknown form")

// ParseValue decodes a value as log and store hold it: it is value, or the blob that ref refers to. value shares memory with stored.
func ParseValue(stored []byte) (value []byte, ref *BlobRef, err error) {
	if len(stored) < valueHead || string(stored[:valueForm]) != valueMark {
		return stored, nil, nil
	}
	rest := stored[valueHead:]
	switch stored[valueForm] {
	case valueEscaped:
		return rest, nil, nil
	case valueBlob:
		size, n := uint64(0), 0
		if len(rest) > 32 {
			size, n = binary.Uvarint(rest[32:])
		}
		if n <= 0 || 32+n != len(rest) || size > MaxBlobBytes {
			break
		}
		ref := &BlobRef{Size: int64(size)}
		copy(ref.Hash[:], rest)
		return nil, ref, nil
	}
	return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, errValueForm)
}

// StoredValue is value as log and store hold it.
func StoredValue(value []byte) []byte {
	if len(value) < valueForm || string(value[:valueForm]) != valueMark {
		return value
	}
	return append(append(append(make([]byte, 0, valueOverhead+len(value)), valueMark...), valueEscaped), value...)
}
