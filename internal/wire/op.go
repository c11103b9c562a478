package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Kind says what an op does.
type Kind uint8

// The kinds of ops. The numbers are those of the log's format.
const (
	Delete      Kind = 0  // removes a key
	Put         Kind = 1  // sets a key's value
	DeleteRange Kind = 15 // removes the keys from one on and below another
)

// String is the kind as the command line writes it.
func (k Kind) String() string {
	switch k {
	case Delete:
		return "del"
	case Put:
		return "put"
	case DeleteRange:
		return "delRange"
	default:
		return fmt.Sprintf("OpKind(%d)", uint8(k))
	}
}

// An op is encoded once, when it is added to a batch. The same bytes are handed to hooks, held by the log,
// applied to the store and decoded by followers.
//
//	 0      1
//	+------+---------+--------+-----------+---------+
//	| kind | key len |  key   | value len |  value  |
//	+------+---------+--------+-----------+---------+
//
//	kind       a Kind
//	key len    uvarint; at most batchlog.MaxKeyBytes
//	key        the path of the space, closed, then the key
//	value len  uvarint; put and range delete only
//	value      put: the value; range delete: the path and the key above the highest one, or
//	           the first key behind the own keys of the space
//
// Kinds and layout are also those of a Pebble batch, so that the store can take them over by a copy. That
// is a convenience: the format is defined here.

// AppendOp appends an op on a stored key, path included; value is that of a put, or the stored upper bound of a range delete.
func AppendOp(dst []byte, kind Kind, key, value []byte) []byte {
	return AppendOpIn(dst, kind, nil, key, value)
}

// AppendOpIn is AppendOp on a key that is relative to the space with that closed path.
func AppendOpIn(dst []byte, kind Kind, path, key, value []byte) []byte {
	dst = slices.Grow(dst, 1+binary.MaxVarintLen32+len(path)+len(key)+binary.MaxVarintLen32+len(value))
	dst = append(dst, byte(kind))
	dst = binary.AppendUvarint(dst, uint64(len(path)+len(key)))
	dst = append(dst, path...)
	dst = append(dst, key...)
	if kind != Delete {
		dst = binary.AppendUvarint(dst, uint64(len(value)))
		dst = append(dst, value...)
	}
	return dst
}

// What may be wrong with an op.
var (
	ErrOpKind      = errors.New("op of an unknown kind")
	ErrOpTruncated = errors.New("op ends early")
	ErrOpKey       = errors.New("op with a malformed key")
	ErrOpValue     = errors.New("op with a malformed reference to a blob")
)

// NextOp decodes the op at the start of ops. key is the stored key, path included; value is that of a put, or
// the stored upper bound of a range delete. They share memory with ops; rest is what follows.
func NextOp(ops []byte) (kind Kind, key, value, rest []byte, err error) {
	if len(ops) == 0 {
		return 0, nil, nil, nil, ErrOpTruncated
	}
	kind = Kind(ops[0])
	if kind != Put && kind != Delete && kind != DeleteRange {
		return 0, nil, nil, nil, ErrOpKind
	}
	key, rest, ok := cutString(ops[1:])
	if ok && kind != Delete {
		value, rest, ok = cutString(rest)
	}
	if !ok {
		return 0, nil, nil, nil, ErrOpTruncated
	}
	return kind, key, value, rest, nil
}

// EachOp calls visit for each of the count ops, in order, until it returns an error.
func EachOp(ops []byte, count int, visit func(kind Kind, key, value []byte) error) error {
	for range count {
		kind, key, value, rest, err := NextOp(ops)
		if err != nil {
			return err
		}
		if err := visit(kind, key, value); err != nil {
			return err
		}
		ops = rest
	}
	return nil
}
