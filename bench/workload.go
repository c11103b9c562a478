package main

import (
	"encoding/binary"
	"math/rand/v2"
)

const (
	keyBytes   = 16
	valueBytes = 100
)

// An op is a put, of a random key and of a value that does not compress.
type op struct{ key, value []byte }

// A generator makes ops from a seed: the same for every peer. All that it hands out is valid until the next call.
type generator struct {
	pcg  rand.PCG
	keys uint64 // ops are on keys of putKey below that number; 0: on any
	buf  []byte
	ops  []op
}

// newGenerator makes batches of count ops.
func newGenerator(seed uint64, count int) *generator {
	const stride = (keyBytes + valueBytes + 7) / 8 * 8
	g := &generator{buf: make([]byte, count*stride), ops: make([]op, count)}
	g.pcg.Seed(seed, 0)
	for i := range g.ops {
		b := g.buf[i*stride:]
		g.ops[i] = op{key: b[:keyBytes:keyBytes], value: b[keyBytes : keyBytes+valueBytes : keyBytes+valueBytes]}
	}
	return g
}

// next is the next batch.
func (g *generator) next() []op {
	for b := g.buf; len(b) > 0; b = b[8:] {
		binary.LittleEndian.PutUint64(b, g.pcg.Uint64())
	}
	if g.keys > 0 {
		for _, o := range g.ops {
			putKey(o.key, binary.LittleEndian.Uint64(o.key)%g.keys)
		}
	}
	return g.ops
}

// putKey sets k, of keyBytes, to the n-th of a fixed sequence of random keys, so that they can be asked for again. The
// steps are those of splitmix64, which is a bijection: no two n have the same key.
func putKey(k []byte, n uint64) {
	binary.BigEndian.PutUint64(k, mix(n))
	binary.BigEndian.PutUint64(k[8:], mix(^n))
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
