package main

import (
	"encoding/binary"
	"math/bits"
)

// pairBytes is the size of a pair: its key and its value.
const pairBytes = keyBytes + valueBytes

// A pairSet is n pairs of random keys and of values that do not compress, which can be asked for in the order of keys and in a random one: no
// sort is needed to know either.
type pairSet struct {
	n    uint64
	step uint64 // between the lowest high halves of keys
	bits int    // of the numbers that shuffled walks through
}

func newPairs(n uint64) pairSet {
	return pairSet{n: n, step: ^uint64(0) / n, bits: max(1, bits.Len64(n-1))}
}

// fill sets k and v to the i-th pair in the order of keys.
func (p pairSet) fill(i uint64, k, v []byte) {
	binary.BigEndian.PutUint64(k, i*p.step+mix(i)%p.step)
	binary.BigEndian.PutUint64(k[8:], mix(^i))
	seed := mix(i + 1<<63)
	var last [8]byte
	for ; len(v) > 0; seed++ {
		if len(v) < 8 {
			binary.LittleEndian.PutUint64(last[:], mix(seed))
			copy(v, last[:])
			return
		}
		binary.LittleEndian.PutUint64(v, mix(seed))
		v = v[8:]
	}
}

// shuffled is the i-th of the numbers below n in an order that is as good as random. Each of its steps is a bijection of the numbers of some bits;
// those from n on are stepped over.
func (p pairSet) shuffled(i uint64) uint64 {
	mask, shift := uint64(1)<<p.bits-1, (p.bits+1)/2
	for {
		for _, odd := range [...]uint64{0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb} {
			i = (i + odd>>32) * odd & mask
			i ^= i >> shift
		}
		if i < p.n {
			return i
		}
	}
}
