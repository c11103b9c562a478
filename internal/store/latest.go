package store

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// latest is the values of the keys that were written last, as the applier has just had them in its hands: what is overwritten soon after need not be looked up in
// memtables and tables. It knows nothing of keys that were written by other ways, so it is emptied then. The applier owns it.
//
// Entries lie in a ring, one behind the other; a value that is replaced by one of the same length stays where it is.
//
//	+---------+-----------+-----+-------+
//	| key len | value len | key | value |
//	+---------+-----------+-----+-------+
//
//	key len, value len  4 bytes each; a value of length noValue is none: the key was deleted
type latest struct {
	seed maphash.Seed
	at   map[uint64]uint64 // by the key's hash: where its entry begins, counted from the first lap on
	ring []byte
	end  uint64 // behind the newest entry, counted so
}

const (
	latestHead = 8
	noValue    = 1<<32 - 1
)

// reset forgets all.
func (l *latest) reset() {
	if len(l.at) > 0 {
		clear(l.at)
	}
}

// get is what is known of a key, valid until the next put; value is nil if it has none.
func (l *latest) get(key []byte) (value []byte, known bool) {
	if len(l.at) == 0 {
		return nil, false
	}
	at, ok := l.at[maphash.Bytes(l.seed, key)]
	if !ok {
		return nil, false
	}
	return l.entry(at, key)
}

// entry is the value in the entry at a place, if that is still there and is the key's.
func (l *latest) entry(at uint64, key []byte) (value []byte, ok bool) {
	size := uint64(len(l.ring))
	if at+size < l.end { // written over
		return nil, false
	}
	b := l.ring[at%size:]
	keyLen, valueLen := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if int(keyLen) != len(key) || !bytes.Equal(b[latestHead:latestHead+keyLen], key) {
		return nil, false
	}
	if valueLen == noValue {
		return nil, true
	}
	b = b[latestHead+keyLen:]
	return b[:valueLen:valueLen], true
}

// put notes the value of a key, nil for none, in a ring of that size.
func (l *latest) put(key, value []byte, size int) {
	if l.ring == nil {
		l.seed, l.at, l.ring = maphash.MakeSeed(), map[uint64]uint64{}, make([]byte, size)
	}
	hash := maphash.Bytes(l.seed, key)
	if at, ok := l.at[hash]; ok && value != nil {
		if old, ok := l.entry(at, key); ok && old != nil && len(old) == len(value) {
			copy(old, value)
			return
		}
	}
	need := uint64(latestHead + len(key) + len(value))
	if need > uint64(len(l.ring)/16) {
		delete(l.at, hash)
		return
	}
	l.makeRoom(need)
	b := l.ring[l.end%uint64(len(l.ring)):]
	binary.LittleEndian.PutUint32(b, uint32(len(key)))
	valueLen := uint32(noValue)
	if value != nil {
		valueLen = uint32(len(value))
	}
	binary.LittleEndian.PutUint32(b[4:], valueLen)
	copy(b[latestHead:], key)
	copy(b[latestHead+len(key):], value)
	l.at[hash] = l.end
	l.end += need
}

// makeRoom begins the next lap if an entry does not fit into this one, and then forgets what the one before has written over.
func (l *latest) makeRoom(need uint64) {
	size := uint64(len(l.ring))
	if l.end%size+need <= size {
		return
	}
	l.end += size - l.end%size
	for hash, at := range l.at {
		if at+size < l.end {
			delete(l.at, hash)
		}
	}
}
