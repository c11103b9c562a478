package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
)

// CopyInverses takes over the inverses of the commits from row.First on, which is where a row begins, up to row.Last, from a store that was brought up from the same log.
// from is not applied to meanwhile. On a disk that is full it waits until ctx ends.
func (s *Store) CopyInverses(ctx context.Context, from *Store, row batchlog.IDRange) (err error) {
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
	defer func() { err = errors.Join(err, readError(it.Close())) }()
	some := int(s.chainBatchBytes()) // bytes written at once
	b := s.db.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	write := func(more int) (*pebble.Batch, error) {
		if b.Len()+more < some || b.Empty() {
			return b, nil
		}
		full := b
		b = s.db.NewBatch()
		return b, s.applyBounded(ctx, full, func() {})
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
			if err := s.takeInverse(ctx, from, blk.first+batchlog.ID(i), v, write); err != nil {
				return err
			}
		}
		b, err := write(len(it.Value()))
		if err == nil {
			err = b.Set(it.Key(), it.Value(), nil)
		}
		if err != nil {
			return err
		}
	}
	err = readError(it.Error())
	if !slices.ContainsFunc(rows, func(r batchlog.IDRange) bool { return r.First <= row.First && row.Last <= r.Last }) { // else it must stay as it is
		err = errors.Join(err, b.Set(inverseRowKey(row.First), idBytes(row.Last), nil))
	}
	if err != nil {
		return err
	}
	last := b
	b = s.db.NewBatch()
	return s.applyBounded(ctx, last, func() {})
}

// applyBounded applies a batch, which it closes. It leaves that behind when ctx has ended while the disk is full, and when the disk fails. What is left behind holds the store
// open, and may yet be done. after is called when it is over, if it ever is.
func (s *Store) applyBounded(ctx context.Context, b *pebble.Batch, after func()) error {
	if !s.use.enter() {
		after()
		return errors.Join(batchlog.ErrClosed, b.Close())
	}
	done := make(chan error, 1)
	go func() {
		defer s.use.leave()
		defer after()
		done <- errors.Join(s.write(b), b.Close())
	}()
	return s.await(ctx, done)
}

// await returns what comes of a change, or why it is not waited for any longer.
func (s *Store) await(ctx context.Context, done <-chan error) error {
	trouble := s.Trouble()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(endPoll):
		}
		if err := s.Failed(); err != nil {
			return err
		}
		if now := s.Trouble(); now != trouble {
			return *now
		}
		if ctx.Err() != nil && (s.NoSpace() || trouble != nil) {
			return context.Cause(ctx)
		}
	}
}

// ApplyBounded is Apply for who need not wait until the disk has space again, or works: it returns an error then, when ctx has ended. The store must be closed
// after an error, before the memory of the records is used again.
func (s *Store) ApplyBounded(ctx context.Context, records []wire.Record) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the store can't go on") // it has ended this goroutine
		defer func() { done <- err }()
		err = s.Apply(records)
	}()
	return s.await(ctx, done)
}

// takeInverse takes over what of an inverse is not in its block. write writes what there is, if more does not go with it, and returns the batch to go on with.
func (s *Store) takeInverse(ctx context.Context, from *Store, id batchlog.ID, v inverse, write func(more int) (*pebble.Batch, error)) error {
	switch v.form {
	case formTooLarge:
		b, err := write(0)
		if err == nil {
			err = b.Set(tooLargeKey(id), nil, nil)
		}
		return err
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
			b, err := write(len(value))
			if err == nil {
				err = b.Set(inversePartKey(id, part), value, nil)
			}
			if err != nil {
				return err
			}
		}
	case formInline:
	}
	return s.claimInverseBlobs(ctx, from, id, v)
}

// claimInverseBlobs has the store know that an inverse which it takes over refers to blobs.
func (s *Store) claimInverseBlobs(ctx context.Context, from *Store, id batchlog.ID, v inverse) error {
	return from.visitInverse(id, v, func(_ batchlog.ID, ops []byte, count int) error {
		return wire.EachOp(ops, count, func(kind batchlog.OpKind, _, value []byte) error {
			ref, err := refOf(kind, value)
			if ref == nil || err != nil {
				return err
			}
			s.blobIndex.Lock()
			last, err := s.BlobLast(ref.Hash)
			if err != nil || last >= id {
				s.blobIndex.Unlock()
				return err
			}
			b := s.db.NewBatch()
			if err := b.Set(blobKey(ref.Hash), blobEntry(id, ref.Size), nil); err != nil {
				s.blobIndex.Unlock()
				return errors.Join(err, b.Close())
			}
			return s.applyBounded(ctx, b, s.blobIndex.Unlock)
		})
	})
}
