package undo

import (
	"bytes"

	"github.com/bytespace/batchlog"
)

// A Value is what a key has at some point.
type Value struct {
	Unknown bool              // it is not known what the key has: there is no inverse
	Present bool              // false: it has none
	Bytes   []byte            // of a value that is no blob
	Blob    *batchlog.BlobRef // of one that is; its content may be gone if nothing refers to it any more
}

// A Change is what a commit, or some, did to a key.
type Change struct {
	ID    batchlog.ID // the commit; of a Diff: the newest one that changed the key
	Space *batchlog.Space
	Key   batchlog.Key
	// Range says that the change is the deletion of all keys of the space from Key on and below High, where it isn't known which there were: there is no
	// inverse. A nil High is no bound.
	Range bool
	High  batchlog.Key
	Old   Value
	New   Value
}

// stored is a value as the store holds it, or none.
type stored struct {
	value []byte
	has   bool
}

func (s stored) equal(o stored) bool { return s.has == o.has && bytes.Equal(s.value, o.value) }

// decode is s for those who use the package. It shares memory.
func (s stored) decode() (Value, error) {
	if !s.has {
		return Value{}, nil
	}
	value, ref, err := batchlog.ParseValue(s.value)
	return Value{Present: true, Bytes: value, Blob: ref}, err
}
