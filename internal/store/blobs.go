package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
)

// The store knows which blobs commits have referred to, and where from: what it is told with each put of a reference, in the same write. A
// blob is in use as long as the log has a commit that refers to it, or whose inverse does, or one of the keys that it was put under still does.
//
//	00 'b' hash       id of the newest commit that put a reference to the blob, or, where inverses are kept, overwrote one, 8 bytes; size, 8 bytes
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

// blobNotes are entries of blobs that are going to be written together; nil: none yet.
type blobNotes map[[blobHash]byte]blobNote

type blobNote struct {
	id   batchlog.ID
	size int64
}

// note notes that commit id has put a value, or overwrites it, if it is a reference.
func (n *blobNotes) note(id batchlog.ID, kind batchlog.OpKind, value []byte) error {
	ref, err := refOf(kind, value)
	if ref == nil || err != nil {
		return err
	}
	if *n == nil {
		*n = blobNotes{}
	}
	(*n)[ref.Hash] = blobNote{max((*n)[ref.Hash].id, id), ref.Size}
	return nil
}

// appendBlobIndex appends where the references in r, of which all ops are in memory, are from, and notes the rest.
func appendBlobIndex(data []byte, r *wire.Record, notes *blobNotes) (count int, _ []byte, err error) {
	err = r.EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		ref, err := refOf(kind, value)
		if ref == nil || err != nil {
			return err
		}
		data = appendSet(data, blobRefKey(ref.Hash, key), nil)
		count++
		return notes.note(r.ID, kind, value)
	})
	return count, data, err
}

func blobEntry(id batchlog.ID, size int64) []byte {
	return binary.BigEndian.AppendUint64(idBytes(id), uint64(size))
}

func refOf(kind batchlog.OpKind, value []byte) (*wire.BlobRef, error) {
	if kind != batchlog.OpPut {
		return nil, nil
	}
	_, ref, err := wire.ParseValue(value)
	return ref, err
}

// indexBlobs does so for a chain, some at a time, before it is applied: that the store knows of a reference that is not there yet
// does no harm.
func (s *Store) indexBlobs(r *wire.Record) error {
	const some = 1 << 20 // bytes written at once
	s.blobIndex.Lock()
	defer s.blobIndex.Unlock()
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
		err = s.write(b)
		b.Reset()
		return err
	})
	if err == nil && !b.Empty() {
		err = s.write(b)
	}
	if err != nil {
		return fmt.Errorf("note the blobs of a chain: %w", err)
	}
	return nil
}

var errBlobEntry = fmt.Errorf("store: %w: malformed entry of a blob", batchlog.ErrCorrupt)

// Blobs calls visit for each blob that a commit has referred to, with the newest one that did, in the order of hashes from one on.
func (s *Store) Blobs(from [blobHash]byte, visit func(hash [blobHash]byte, size int64, last batchlog.ID) error) error {
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: blobKey(from), UpperBound: []byte{0, blobTag + 1}})
	if err != nil {
		return readError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil && (len(it.Key()) != 2+blobHash || len(value) != 16) {
			err = errBlobEntry
		}
		if err == nil {
			err = visit([blobHash]byte(it.Key()[2:]), int64(binary.BigEndian.Uint64(value[8:])), batchlog.ID(binary.BigEndian.Uint64(value)))
		}
		if err != nil {
			return errors.Join(err, readError(it.Close()))
		}
	}
	return errors.Join(readError(it.Error()), readError(it.Close()))
}

// BlobLast is the newest commit that has referred to the blob, 0 if none has.
func (s *Store) BlobLast(hash [blobHash]byte) (batchlog.ID, error) {
	_, last, err := s.Blob(hash)
	return last, err
}

// Blob is the size of a blob, and the newest commit that has referred to it, 0 if none has.
func (s *Store) Blob(hash [blobHash]byte) (size int64, last batchlog.ID, err error) {
	value, err := s.Get(blobKey(hash))
	if errors.Is(err, batchlog.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if len(value) != 16 {
		return 0, 0, errBlobEntry
	}
	return int64(binary.BigEndian.Uint64(value[8:])), batchlog.ID(binary.BigEndian.Uint64(value)), nil
}

// BlobUsed reports whether one of the keys that a reference to the blob was put under still has it.
func (s *Store) BlobUsed(hash [blobHash]byte) (used bool, err error) {
	if !s.use.enter() {
		return false, batchlog.ErrClosed
	}
	defer s.use.leave()
	low := blobRefKey(hash, nil)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: append(low[:len(low):len(low)], 0xff)})
	if err != nil {
		return false, readError(err)
	}
	defer func() { err = errors.Join(err, readError(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()[len(low):]
		value, err := s.Get(key)
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			return false, err
		}
		if err == nil {
			if _, ref, err := wire.ParseValue(value); err == nil && ref != nil && ref.Hash == hash {
				return true, nil
			}
		}
	}
	return false, readError(it.Error())
}

// ForgetBlob forgets a blob that nothing refers to.
func (s *Store) ForgetBlob(hash [blobHash]byte) error {
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	b := s.db.NewBatch()
	low := blobRefKey(hash, nil)
	if err := errors.Join(b.Delete(blobKey(hash), nil), b.DeleteRange(low, append(low[:len(low):len(low)], 0xff), nil)); err != nil {
		return errors.Join(err, b.Close())
	}
	return s.writeAside(b)
}

// OldestSnapshot is the least id that an open snapshot shows, or one that is just being taken; what the store has applied if none is open.
func (s *Store) OldestSnapshot() batchlog.ID {
	oldest := s.floor()
	s.open.Lock()
	defer s.open.Unlock()
	for snap := range s.open.snapshots {
		oldest = min(oldest, snap.id)
	}
	return oldest
}
