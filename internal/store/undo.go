package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
)

// SetUndo says whether inverses are kept, from the next commit on that is applied.
func (s *Store) SetUndo(on bool) { s.undo.wanted.Store(on) }

// Undo reports whether the inverse of the commit that was applied last was kept, and more will be.
func (s *Store) Undo() bool { return s.undo.row.Load() != 0 && s.undo.wanted.Load() }

// readRow finds the row of inverses that goes on, if there is one.
func (s *Store) readRow() (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{0, inverseRowTag}, UpperBound: []byte{0, inverseRowTag + 1}})
	if err != nil {
		return readError(err)
	}
	defer func() { err = errors.Join(err, readError(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return readError(err)
		}
		if len(it.Key()) != 2+8 || len(value) != 8 {
			return fmt.Errorf("store: %w: malformed row of inverses", batchlog.ErrCorrupt)
		}
		if binary.BigEndian.Uint64(value) == 0 {
			s.undo.row.Store(binary.BigEndian.Uint64(it.Key()[2:]))
		}
	}
	return readError(it.Error())
}

// applyInverted applies the first of records, none of which is a chain, as many as can be at once, and keeps what they overwrite.
func (s *Store) applyInverted(records []wire.Record) (n int, err error) {
	n, err = s.invert(records)
	if err != nil {
		return 0, unwritten{fmt.Errorf("keep what is overwritten: %w", err)}
	}
	if n > 0 {
		v := &s.undo.inverter
		return n, s.applyBatch(records[:n], &extra{puts: v.encoded, count: v.count, blobs: v.blobs, undo: true, known: true})
	}
	r := &records[0]
	net, err := s.netLayer(r.Ops, r.Count)
	if err != nil {
		return 0, unwritten{fmt.Errorf("keep what is overwritten: %w", err)}
	}
	inverse, err := s.invertLarge(r.ID, []layer{net})
	if err != nil {
		return 0, unwritten{fmt.Errorf("keep what is overwritten: %w", err)}
	}
	return 1, s.applyLarge(r, inverse)
}

// applyLarge applies one commit, whose inverse is that.
func (s *Store) applyLarge(r *wire.Record, v largeInverse) error {
	x := &extra{undo: true}
	if v.tables != nil {
		// First the tables: should the commit be applied again after a crash, its inverse is made again, and is the same.
		for _, stretch := range v.tables.names {
			if err := s.ingest(stretch); err != nil {
				return fmt.Errorf("take in what is overwritten: %w", err)
			}
		}
		s.clearUndoDir()
		if err := s.noteInverseBlobs(r.ID); err != nil {
			return err
		}
		return s.applyBatch([]wire.Record{*r}, x)
	}
	b := blockWriter{next: r.ID}
	b.add(v.inverse)
	key, value, _ := b.take()
	x.set(key, value)
	if v.form == formTooLarge {
		x.set(tooLargeKey(r.ID), nil)
	}
	err := wire.EachOp(v.ops, inlineCount(v.inverse), func(kind batchlog.OpKind, _, value []byte) error {
		return x.blobs.note(r.ID, kind, value)
	})
	if err != nil {
		return err
	}
	return s.applyBatch([]wire.Record{*r}, x)
}

func inlineCount(v inverse) int {
	if v.form != formInline {
		return 0
	}
	return v.count
}

// invertChain makes the inverse of a chain whose file has so many stretches and returns the tables with it.
func (s *Store) invertChain(r *wire.Record, stretches int) (tables []string, err error) {
	layers, err := stretchLayers(r.Chain, stretches)
	if err != nil {
		return nil, err
	}
	if inline := r.Count - r.Chain.Count; inline > 0 {
		last, err := s.netLayer(r.Ops, inline)
		if err != nil {
			return nil, errors.Join(err, closeLayers(layers))
		}
		layers = append(layers, last)
	}
	v, err := s.invertLarge(r.ID, layers)
	if err != nil {
		return nil, err
	}
	t, err := s.asTables(r.ID, v)
	if err != nil {
		return nil, err
	}
	return t.names[0], nil
}

// noteInverseBlobs notes the blobs that the inverse of a commit, the newest one, refers to, before the mark says that it is applied.
func (s *Store) noteInverseBlobs(id batchlog.ID) (err error) {
	s.blobIndex.Lock()
	defer s.blobIndex.Unlock()
	return s.eachInverseBlob(id, func(ref *wire.BlobRef, b *pebble.Batch) error {
		return b.Set(blobKey(ref.Hash), blobEntry(id, ref.Size), nil)
	})
}

// eachInverseBlob calls note for each reference in an inverse, with a batch that is applied.
func (s *Store) eachInverseBlob(id batchlog.ID, note func(ref *wire.BlobRef, b *pebble.Batch) error) (err error) {
	v, err := s.inverse(id)
	if err != nil || v.form == formTooLarge {
		return err
	}
	const some = 1 << 20 // bytes written at once
	b := s.db.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	err = s.visitInverse(id, v, func(_ batchlog.ID, ops []byte, count int) error {
		return wire.EachOp(ops, count, func(kind batchlog.OpKind, _, value []byte) error {
			ref, err := refOf(kind, value)
			if ref == nil || err != nil {
				return err
			}
			if err := note(ref, b); err != nil || b.Len() < some {
				return err
			}
			err = s.write(b)
			b.Reset()
			return err
		})
	})
	if err == nil && !b.Empty() {
		err = s.write(b)
	}
	return err
}
