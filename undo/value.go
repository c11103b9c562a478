package undo

import (
	"bytes"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A Value is what a key has at some commit.
type Value struct {
	Known  bool // false: nobody knows, as the inverse of the commit is not there
	Exists bool // false: the key had no value
	Bytes  []byte
	Blob   *batchlog.BlobRef // of a value that is a blob, which DB.OpenBlob reads as long as it is there; nil: it is none
}

// valueOf is a stored value, nil for none, in memory of its own.
func valueOf(stored []byte) (Value, error) {
	if stored == nil {
		return Value{Known: true}, nil
	}
	plain, ref, err := wire.ParseValue(stored)
	if err != nil {
		return Value{}, err
	}
	v := Value{Known: true, Exists: true, Blob: (*batchlog.BlobRef)(ref)}
	if ref == nil {
		v.Bytes = bytes.Clone(present(plain))
	}
	return v, nil
}

// A Change is what a commit, or all commits between two, have done to a key.
type Change struct {
	Space *batchlog.Space
	Key   batchlog.Key
	// High is set if it is known only that the keys from Key on and below High were deleted; nil and Range: all from Key on.
	High  batchlog.Key
	Range bool

	Old, New Value
}

func newChange(db *batchlog.DB, key, old, left []byte) (Change, error) {
	s, k, err := db.Inside().Split(key)
	if err != nil {
		return Change{}, err
	}
	c := Change{Space: s, Key: bytes.Clone(k)}
	if c.Old, err = valueOf(old); err != nil {
		return Change{}, err
	}
	c.New, err = valueOf(left)
	return c, err
}
