package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2"
)

// The store knows which blobs commits have referred to, and where from: what it is told with each put of a reference, in the same write. A
// blob is in use as long as the log has a commit that refers to it, or one of the keys that it was put under still does.
//
//	00 'b' hash       id of the newest commit that put a reference to the blob, 8 bytes; size, 8 bytes
//	00 'r' hash key   nothing: a stored key that a reference was put under
const (
	blobTag    = 'b'
	blobRefTag = 'r'
	blobHash   = 32
)

func blobKey(hash [blobHash]byte) []byte { return append([]byte{0, blobTag}, hash[:]...) }

func blobRefKey(hash [blobHash]byte, key []byte) []byte {
	return append(append([]byte{0, blobRefTag}, hash[:]...), key...)
}

// appendBlobIndex appends what the store is to know of the references in r, of which all ops are in memory.
func appendBlobIndex(data []byte, r *batchlog.Record) (count int, _ []byte, err error) {
	err = r.EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		ref, err := refOf(kind, value)
		if ref == nil || err != nil {
			return err
		}
		data = appendSet(data, blobKey(ref.Hash), blobEntry(r.ID, ref.Size))
		data = appendSet(data, blobRefKey(ref.Hash, key), nil)
		count += 2
		return nil
	})
	return count, data, err
}

func blobEntry(id batchlog.ID, size int64) []byte {
	return binary.BigEndian.AppendUint64(idBytes(id), uint64(size))
}

func refOf(kind batchlog.OpKind, value []byte) (*batchlog.BlobRef, error) {
	if kind != batchlog.OpPut {
		return nil, nil
	}
	_, ref, err := batchlog.ParseValue(value)
	return ref, err
}

// indexBlobs is appendBlobIndex for a chain, some at a time, before it is applied: that the store knows of a reference that is not there yet
// does no harm.
func (s *Store) indexBlobs(r *batchlog.Record) error {
	const some = 1 << 20 // bytes written at once
	b := s.db.NewBatch()
	defer func() { _ = b.Close() }() // applied or of no use
	err := r.EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		ref, err := refOf(kind, value)
		if ref == nil || err != nil {
			return err
		}
		if err := errors.Join(b.Set(blobKey(ref.Hash), blobEntry(r.ID, ref.Size), nil), b.Set(blobRefKey(ref.Hash, key), nil, nil)); err != nil {
			return err
		}
		if b.Len() < some {
			return nil
		}
		err = s.db.Apply(b, pebble.NoSync)
		b.Reset()
		return err
	})
	if err == nil && !b.Empty() {
		err = s.db.Apply(b, pebble.NoSync)
	}
	if err != nil {
		return fmt.Errorf("note the blobs of a chain: %w", err)
	}
	return nil
}
