package batchlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bytespace/batchlog/bytewise"
)

// An OpKind says what an op does.
type OpKind uint8

// The kinds of ops. The numbers are those of the log's format.
const (
	OpDelete      OpKind = 0  // removes a key
	OpPut         OpKind = 1  // sets a key's value
	OpDeleteRange OpKind = 15 // removes the keys from Key on and below High
)

// String is the kind as the command line writes it.
func (k OpKind) String() string {
	switch k {
	case OpDelete:
		return "del"
	case OpPut:
		return "put"
	case OpDeleteRange:
		return "delRange"
	default:
		return fmt.Sprintf("OpKind(%d)", uint8(k))
	}
}

// An Op is one change. Key and High are relative to Space.
type Op struct {
	Kind  OpKind
	Space *Space
	Key   Key    // of a range delete: the lowest key
	High  Key    // of a range delete: above the highest key; nil: no bound
	Value []byte // of a put; nil if it is a blob

	Blob *BlobRef // of a put whose value is a blob; see Op.Load and Op.Open
	run  *hookRun // of an op that a pre-commit hook is given: where it may be dropped or changed
	at   int
}

// In reports whether o is within s: in its own keys or in those of a space within it.
func (o Op) In(s *Space) bool { return s.Contains(o.Space) }

// An op is encoded once, when it is added to a batch. The same bytes are handed to hooks, held by the log,
// applied to the store and decoded by followers.
//
//	 0      1
//	+------+---------+--------+-----------+---------+
//	| kind | key len |  key   | value len |  value  |
//	+------+---------+--------+-----------+---------+
//
//	kind       an OpKind
//	key len    uvarint; at most MaxKeyBytes
//	key        the path of the space, closed, then the key
//	value len  uvarint; put and range delete only
//	value      put: the value; range delete: the path and the key above the highest one, or
//	           the first key behind the own keys of the space
//
// Kinds and layout are also those of a Pebble batch, so that the store can take them over by a copy. That
// is a convenience: the format is defined here.

// AppendOp appends an op on a stored key, path included; value is that of a put, or the stored upper bound of a range delete.
// It is for engines.
func AppendOp(dst []byte, kind OpKind, key, value []byte) []byte {
	return appendOp(dst, kind, nil, key, value)
}

func appendOp(dst []byte, kind OpKind, prefix, key, value []byte) []byte {
	dst = slices.Grow(dst, 1+binary.MaxVarintLen32+len(prefix)+len(key)+binary.MaxVarintLen32+len(value))
	dst = append(dst, byte(kind))
	dst = binary.AppendUvarint(dst, uint64(len(prefix)+len(key)))
	dst = append(dst, prefix...)
	dst = append(dst, key...)
	if kind != OpDelete {
		dst = binary.AppendUvarint(dst, uint64(len(value)))
		dst = append(dst, value...)
	}
	return dst
}

var (
	errOpKind      = errors.New("op of an unknown kind")
	errOpTruncated = errors.New("op ends early")
	errOpKey       = errors.New("op with a malformed key")
	errOpValue     = errors.New("op with a malformed reference to a blob")
)

// NextOp decodes the op at the start of ops. key is the stored key, path included; value is that of a put, or
// the stored upper bound of a range delete. They share memory with ops; rest is what follows. It is for engines.
func NextOp(ops []byte) (kind OpKind, key, value, rest []byte, err error) {
	if len(ops) == 0 {
		return 0, nil, nil, nil, errOpTruncated
	}
	kind = OpKind(ops[0])
	if kind != OpPut && kind != OpDelete && kind != OpDeleteRange {
		return 0, nil, nil, nil, errOpKind
	}
	key, rest, ok := cutString(ops[1:])
	if ok && kind != OpDelete {
		value, rest, ok = cutString(rest)
	}
	if !ok {
		return 0, nil, nil, nil, errOpTruncated
	}
	return kind, key, value, rest, nil
}

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

// SplitKey splits a stored key into the closed path of its space and the key within it. Keys that
// belong to no space, the store's own, are an error.
func SplitKey(stored []byte) (path, key []byte, err error) {
	if len(stored) == 0 {
		return nil, nil, errOpKey
	}
	rest := typed(stored)
	n, err := bytewise.ArrayLen(rest)
	if err != nil {
		return nil, nil, errOpKey
	}
	n += len(stored) - len(rest)
	return stored[:n:n], stored[n:], nil
}

// CheckOps reports whether ops is count well-formed ops on keys of spaces, as a [Batch] makes
// them. Engines call it on ops that come from elsewhere.
func CheckOps(ops []byte, count int) error {
	for i := range count {
		kind, key, value, rest, err := NextOp(ops)
		if err == nil {
			err = checkOp(kind, key, value)
		}
		if err != nil {
			return fmt.Errorf("op %d of %d: %w", i+1, count, err)
		}
		ops = rest
	}
	if len(ops) != 0 || count < 0 {
		return fmt.Errorf("%d bytes behind the last of %d ops", len(ops), count)
	}
	return nil
}

// checkOp reports why an op is none that a batch makes.
func checkOp(kind OpKind, key, value []byte) error {
	if err := LimitKey.Check(len(key)); err != nil {
		return err
	}
	_, n, err := bytewise.DecodeArrayPrefix(key) // ArrayLen would take what no path is encoded as
	if err != nil {
		return errOpKey
	}
	path := key[:n]
	if err := checkPath(path); err != nil {
		return err
	}
	switch kind {
	case OpPut:
		plain, _, err := ParseValue(value)
		if err != nil {
			return errOpValue
		}
		if err := LimitValue.Check(len(plain)); err != nil {
			return err
		}
	case OpDeleteRange:
		if err := LimitKey.Check(len(value)); err != nil {
			return err
		}
		if !inOwnKeys(path, value) || string(key) >= string(value) {
			return errOpKey
		}
	}
	return nil
}

// inOwnKeys reports whether the upper bound of a range is one of the space with that closed path.
func inOwnKeys(path, high []byte) bool {
	return len(high) >= len(path) && string(high[:len(path)]) == string(path) || string(high) == string(afterOwn(path))
}
