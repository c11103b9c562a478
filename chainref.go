package batchlog

import (
	"encoding/binary"
	"errors"
	"io"
)

// A ChainRef is what the record of a chain holds in place of its ops: which file they are in, and what they touch. It is for engines.
type ChainRef struct {
	File  [16]byte // names the file
	Sum   uint32   // of the last group in it, which is chained to all before
	Bytes int64    // of the ops, encoded
	End   int64    // offset in the file behind the last group
	// Spans hold all keys that the ops touch: one span a space, sorted; or, where they are in more than
	// [ChainSpansMax] spaces, a single one around all, and Coarse is set.
	Spans  []KeyRange
	Coarse bool

	Source ChainSource // where the file can be read; not encoded
}

// ChainSpansMax bounds the spans of a ChainRef.
const ChainSpansMax = 64

// A ChainSource opens the files of chains.
type ChainSource interface {
	OpenChain(ref *ChainRef) (OpReader, error)
}

// An OpReader reads the ops of a chain in the order in which they were added. It is not safe for concurrent use.
type OpReader interface {
	// Next returns some more ops, encoded, and how many, or io.EOF. They stay valid. Damage is a *CorruptError.
	Next() (ops []byte, count int, err error)
	Close() error
}

// The reference as the record of a chain holds it. Integers are little-endian.
//
//	 0        16    20     21
//	+--------+-----+------+-------+-----+-------+----------------------------------------+
//	|  file  | sum |coarse| bytes | end | spans | low len | low | high len | high | … |
//	+--------+-----+------+-------+-----+-------+----------------------------------------+
//
//	coarse  1 if the one span is around keys of many spaces, else 0
//	bytes, end, spans (their number) and the lengths are uvarint
const (
	chainRefSum    = 16
	chainRefCoarse = 20
	chainRefHead   = 21
)

var errChainRef = errors.New("malformed reference to a chain")

// AppendChainRef appends r as a record holds it.
func AppendChainRef(dst []byte, r *ChainRef) []byte {
	dst = append(dst, r.File[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, r.Sum)
	coarse := byte(0)
	if r.Coarse {
		coarse = 1
	}
	dst = append(dst, coarse)
	dst = binary.AppendUvarint(dst, uint64(r.Bytes))
	dst = binary.AppendUvarint(dst, uint64(r.End))
	dst = binary.AppendUvarint(dst, uint64(len(r.Spans)))
	for _, s := range r.Spans {
		dst = appendBytes(dst, s.Low)
		dst = appendBytes(dst, s.High)
	}
	return dst
}

func appendBytes(dst, s []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// ParseChainRef decodes what AppendChainRef made; b must hold nothing else.
func ParseChainRef(b []byte) (*ChainRef, error) {
	if len(b) < chainRefHead || b[chainRefCoarse] > 1 {
		return nil, errChainRef
	}
	r := &ChainRef{Sum: binary.LittleEndian.Uint32(b[chainRefSum:]), Coarse: b[chainRefCoarse] == 1}
	copy(r.File[:], b)
	b = b[chainRefHead:]
	var numbers [3]uint64
	for i := range numbers {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 {
			return nil, errChainRef
		}
		numbers[i], b = v, b[n:]
	}
	r.Bytes, r.End = int64(numbers[0]), int64(numbers[1])
	if numbers[2] > ChainSpansMax {
		return nil, errChainRef
	}
	for range numbers[2] {
		var s KeyRange
		var ok bool
		if s.Low, b, ok = cutString(b); ok {
			s.High, b, ok = cutString(b)
		}
		if !ok {
			return nil, errChainRef
		}
		r.Spans = append(r.Spans, s)
	}
	if len(b) != 0 {
		return nil, errChainRef
	}
	return r, nil
}

// Open returns a reader of the chain's ops.
func (r *ChainRef) Open() (OpReader, error) { return r.Source.OpenChain(r) }

// MayTouch reports whether an op of the chain may be on a stored key from low on and below high.
func (r *ChainRef) MayTouch(low, high []byte) bool {
	for _, s := range r.Spans {
		if string(s.Low) < string(high) && string(low) < string(s.High) {
			return true
		}
	}
	return false
}

// EachOp calls visit for each op of r in order, until it returns an error. What it is given stays valid if the record does.
func (r *Record) EachOp(visit func(kind OpKind, key, value []byte) error) error {
	if r.Chain == nil {
		_, err := eachOp(r.Ops, r.Count, visit)
		return err
	}
	in, err := r.Chain.Open()
	if err != nil {
		return err
	}
	left := r.Count
	for {
		ops, count, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(err, in.Close())
		}
		if left -= count; left < 0 {
			return errors.Join(errOpCount, in.Close())
		}
		if _, err := eachOp(ops, count, visit); err != nil {
			return errors.Join(err, in.Close())
		}
	}
	if left != 0 {
		return errors.Join(errOpCount, in.Close())
	}
	return in.Close()
}

var errOpCount = errors.New("chain with another number of ops than its record says")

func eachOp(ops []byte, count int, visit func(kind OpKind, key, value []byte) error) (rest []byte, err error) {
	for range count {
		kind, key, value, next, err := NextOp(ops)
		if err != nil {
			return nil, err
		}
		if err := visit(kind, key, value); err != nil {
			return nil, err
		}
		ops = next
	}
	return ops, nil
}
