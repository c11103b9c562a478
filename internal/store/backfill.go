package store

import (
	"errors"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2"
)

// CopyInverses takes over the inverses of the commits from row.First on, which is where a row begins, up to row.Last, from a store that was brought up from the same log.
// from is not applied to meanwhile.
func (s *Store) CopyInverses(from *Store, row batchlog.IDRange) (err error) {
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	if !from.use.enter() {
		return batchlog.ErrClosed
	}
	defer from.use.leave()
	if err := s.Failed(); err != nil {
		return err
	}
	rows, err := s.inverseRows(s.Applied())
	if err != nil {
		return err
	}
	it, err := from.inverseIter(row.First)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	some := int(s.chainBatchBytes()) // bytes written at once
	b := s.db.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	write := func(more int) error {
		if b.Len()+more < some || b.Empty() {
			return nil
		}
		err := s.db.Apply(b, pebble.NoSync)
		b.Reset()
		return err
	}
	if row.First == row.Last { // which may have been too large before
		if err := b.Delete(tooLargeKey(row.First), nil); err != nil {
			return err
		}
	}
	for ok := it.First(); ok; ok = it.Next() {
		blk, err := iterBlock(it)
		if err != nil {
			return err
		}
		if blk.first > row.Last {
			break
		}
		for i, v := range blk.inverses {
			if err := s.takeInverse(from, b, blk.first+batchlog.ID(i), v, write); err != nil {
				return err
			}
		}
		if err := errors.Join(write(len(it.Value())), b.Set(it.Key(), it.Value(), nil)); err != nil {
			return err
		}
	}
	err = it.Error()
	if !slices.ContainsFunc(rows, func(r batchlog.IDRange) bool { return r.First <= row.First && row.Last <= r.Last }) { // else it must stay as it is
		err = errors.Join(err, b.Set(inverseRowKey(row.First), idBytes(row.Last), nil))
	}
	if err != nil {
		return err
	}
	return s.db.Apply(b, pebble.NoSync)
}

// takeInverse takes over what of an inverse is not in its block.
func (s *Store) takeInverse(from *Store, b *pebble.Batch, id batchlog.ID, v inverse, write func(more int) error) error {
	switch v.form {
	case formTooLarge:
		return b.Set(tooLargeKey(id), nil, nil)
	case formParts:
		left := v.count
		for part := uint32(0); left > 0; part++ {
			value, err := from.part(id, part)
			if err != nil {
				return err
			}
			n, err := partCount(value, id, left)
			if err != nil {
				return err
			}
			left -= n
			if err := errors.Join(write(len(value)), b.Set(inversePartKey(id, part), value, nil)); err != nil {
				return err
			}
		}
	case formInline:
	}
	return s.claimInverseBlobs(from, id, v)
}

// claimInverseBlobs has the store know that an inverse which it takes over refers to blobs.
func (s *Store) claimInverseBlobs(from *Store, id batchlog.ID, v inverse) error {
	return from.visitInverse(id, v, func(_ batchlog.ID, ops []byte, count int) error {
		return batchlog.EachOp(ops, count, func(kind batchlog.OpKind, _, value []byte) error {
			ref, err := refOf(kind, value)
			if ref == nil || err != nil {
				return err
			}
			s.blobIndex.Lock()
			defer s.blobIndex.Unlock()
			last, err := s.BlobLast(ref.Hash)
			if err != nil || last >= id {
				return err
			}
			return s.db.Set(blobKey(ref.Hash), blobEntry(id, ref.Size), pebble.NoSync)
		})
	})
}
