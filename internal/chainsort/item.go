package chainsort

import (
	"bytes"
	"cmp"
	"encoding/binary"

	"github.com/bytespace/batchlog"
)

// A kind says what an item does.
type kind uint8

const (
	del          kind = iota // deletes the key
	put                      // sets the key; value is the value
	farPut                   // as put, in a run only; value is a farRef, as the value itself is in a file beside
	retract                  // takes back del and put of the seq that are older
	retracted                // a retract that has taken something back
	delRange                 // deletes from key on; value is the upper bound
	retractRange             // takes back from key on; value is the upper bound, empty if there is none
	kinds
)

var kindOf = [...]kind{batchlog.OpDelete: del, batchlog.OpPut: put, batchlog.OpDeleteRange: delRange}

func (k kind) isRange() bool  { return k >= delRange }
func (k kind) isPoint() bool  { return k <= farPut }
func (k kind) hasValue() bool { return k == put || k == farPut || k.isRange() }

// An item is an op or a retraction with its order.
//
//	 0
//	+------+-----+-----+---------+-------+-----------+---------+
//	| kind | seq | age | key len |  key  | value len |  value  |
//	+------+-----+-----+---------+-------+-----------+---------+
//
//	seq, age, key len  uvarint
//	value len          uvarint; of kinds that have a value only
//
// It is encoded once, when it is added: a run takes it over by a copy.
type item struct {
	kind  kind
	seq   uint64
	age   uint64
	key   []byte
	value []byte

	encoded []byte // of one that was decoded
	run     *run   // that it was read from; nil: from memory
}

// maxHeader bounds what is in front of the key.
const maxHeader = 1 + 2*binary.MaxVarintLen64 + binary.MaxVarintLen32

// sizeBound is at least the encoded size.
func (it *item) sizeBound() int {
	return maxHeader + len(it.key) + binary.MaxVarintLen64 + len(it.value)
}

// appendTo encodes it; header is how many bytes are in front of the key.
func (it *item) appendTo(dst []byte) (enc []byte, header int) {
	start := len(dst)
	dst = append(dst, byte(it.kind))
	dst = binary.AppendUvarint(dst, it.seq)
	dst = binary.AppendUvarint(dst, it.age)
	dst = binary.AppendUvarint(dst, uint64(len(it.key)))
	header = len(dst) - start
	dst = append(dst, it.key...)
	if it.kind.hasValue() {
		dst = binary.AppendUvarint(dst, uint64(len(it.value)))
		dst = append(dst, it.value...)
	}
	return dst, header
}

// decode reads the item at the start of b and returns its size, or 0 if there is none. It shares memory with b.
func (it *item) decode(b []byte) int {
	if len(b) == 0 || b[0] >= byte(kinds) {
		return 0
	}
	it.kind = kind(b[0])
	at := 1
	var n int
	if it.seq, n = binary.Uvarint(b[at:]); n <= 0 {
		return 0
	}
	at += n
	if it.age, n = binary.Uvarint(b[at:]); n <= 0 {
		return 0
	}
	at += n
	if it.key, at = cut(b, at); at == 0 {
		return 0
	}
	it.value = nil
	if it.kind.hasValue() {
		if it.value, at = cut(b, at); at == 0 {
			return 0
		}
	}
	it.encoded = b[:at:at]
	return at
}

// cut reads a string with its length in front at b[at:], and returns where it ends, or 0.
func cut(b []byte, at int) ([]byte, int) {
	size, n := binary.Uvarint(b[at:])
	if n <= 0 || size > uint64(len(b)-at-n) {
		return nil, 0
	}
	at += n
	end := at + int(size)
	return b[at:end:end], end
}

// compareOrder compares by seq, then age.
func (it *item) compareOrder(other *item) int {
	return cmp.Or(cmp.Compare(it.seq, other.seq), cmp.Compare(it.age, other.age))
}

// compare compares as runs are sorted: keys ascend, and on one key order descends.
func (it *item) compare(other *item) int {
	if c := bytes.Compare(it.key, other.key); c != 0 {
		return c
	}
	return other.compareOrder(it)
}

const (
	headBytes = 7 // of the key that a head holds
	headMore  = 8 // low byte of the head of a key that goes on behind it
)

// head sums up key[depth:] in a number whose order is that of keys: 7 bytes, zeros if the key ends before, then how many they are, or
// headMore if the key goes on. Equal heads without headMore are those of equal keys.
func head(key []byte, depth int) uint64 {
	rest := key[depth:]
	if len(rest) > headBytes {
		return binary.BigEndian.Uint64(rest)&^0xff | headMore
	}
	h := uint64(len(rest))
	for i, b := range rest {
		h |= uint64(b) << (56 - 8*i)
	}
	return h
}

// sharedLen is how many bytes a and b begin with in common.
func sharedLen(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
