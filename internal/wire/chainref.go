package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// A ChainRef is what the record of a chain holds in place of its ops: which file they are in, and what they touch.
type ChainRef struct {
	File  [16]byte // names the file
	Sum   uint32   // of the last group in it, which is chained to all before
	Count int      // of the ops in the file
	Bytes int64    // of these ops, encoded
	End   int64    // offset in the file behind the last group
	// Spans hold all keys that the ops in the file touch: one span a space, sorted, that begins with the lowest of them; or, where they are
	// in more than [ChainSpansMax] spaces, a single one around all, and Coarse is set.
	Spans  []KeyRange
	Coarse bool

	ID     ID          // of the commit; not encoded
	Source ChainSource // where the file can be read; not encoded
}

// ChainSpansMax bounds the spans of a ChainRef.
const ChainSpansMax = 256

// A ChainSource opens the files of chains.
type ChainSource interface {
	OpenChain(ref *ChainRef) (OpReader, error)
}

// An OpReader reads the ops of a chain, in stretches that are sorted by key: in each there is at most one put or delete of a key. Range deletes are
// sorted among them by their lowest key, before the op on that key, and don't overlap. Nearly all chains are one stretch; a copy whose source was written meanwhile has more. It is not safe for concurrent use.
type OpReader interface {
	// Next returns some more ops, encoded, and how many, or io.EOF. They stay valid. Damage is a *CorruptError.
	Next() (ops []byte, count int, err error)
	Close() error
}

// Stretches tells the stretches of what an [OpReader] reads apart. The zero value is before the first op. It is for engines, and
// not safe for concurrent use.
type Stretches struct {
	last   []byte // the key of the op before
	ranged bool   // that was a range delete
	begun  bool   // there was one
}

// Begin takes in the next op and reports whether it begins a stretch, as the first does. key is copied.
func (s *Stretches) Begin(kind Kind, key []byte) bool {
	order := bytes.Compare(s.last, key)
	goesOn := s.begun && (order < 0 || order == 0 && s.ranged && kind != DeleteRange)
	s.begun, s.last, s.ranged = true, append(s.last[:0], key...), kind == DeleteRange
	return !goesOn
}

// The reference as the record of a chain holds it. Integers are little-endian.
//
//	 0        16    20     21
//	+--------+-----+------+-------+-------+-----+-------+---------+-----+----------+------+---+
//	|  file  | sum |coarse| count | bytes | end | spans | low len | low | high len | high | … |
//	+--------+-----+------+-------+-------+-----+-------+---------+-----+----------+------+---+
//
//	coarse  1 if the one span is around keys of many spaces, else 0
//	count, bytes, end, spans (their number) and the lengths are uvarint
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
	dst = binary.AppendUvarint(dst, uint64(r.Count))
	dst = binary.AppendUvarint(dst, uint64(r.Bytes))
	dst = binary.AppendUvarint(dst, uint64(r.End))
	dst = binary.AppendUvarint(dst, uint64(len(r.Spans)))
	for _, s := range r.Spans {
		dst = appendBytes(dst, s.Low)
		dst = appendBytes(dst, s.High)
	}
	return dst
}

// ParseChainRef decodes what AppendChainRef made; b must hold nothing else.
func ParseChainRef(b []byte) (*ChainRef, error) {
	if len(b) < chainRefHead || b[chainRefCoarse] > 1 {
		return nil, errChainRef
	}
	r := &ChainRef{Sum: binary.LittleEndian.Uint32(b[chainRefSum:]), Coarse: b[chainRefCoarse] == 1}
	copy(r.File[:], b)
	b = b[chainRefHead:]
	var numbers [4]uint64
	for i := range numbers {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 {
			return nil, errChainRef
		}
		numbers[i], b = v, b[n:]
	}
	r.Count, r.Bytes, r.End = int(numbers[0]), int64(numbers[1]), int64(numbers[2])
	if numbers[3] > ChainSpansMax {
		return nil, errChainRef
	}
	for range numbers[3] {
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

// EachOp calls visit for the ops in the file.
func (r *ChainRef) EachOp(visit func(kind Kind, key, value []byte) error) (err error) {
	in, err := r.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	left := r.Count
	for {
		ops, count, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if left -= count; left < 0 {
			return errOpCount
		}
		if err := EachOp(ops, count, visit); err != nil {
			return err
		}
	}
	if left != 0 {
		return errOpCount
	}
	return nil
}

var errOpCount = errors.New("chain with another number of ops than its commit says")
