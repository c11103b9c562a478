package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
)

// The inverse of a commit that deletes ranges, or is a chain, or overwrites much, is made by a merge of the net effect of its ops with the keys of the store, in the
// order of keys and in bounded memory. What is small enough goes into a block after all; the rest into tables, which are taken in before the commit
// is applied, or together with its own.

// A largeInverse is that of one commit.
type largeInverse struct {
	inverse
	tables *Tables // nil: it is inline
}

// invertLarge makes the inverse of a commit whose net effect are these layers.
func (s *Store) invertLarge(id batchlog.ID, layers []layer) (_ largeInverse, err error) {
	w := &partsWriter{store: s, id: id, dir: s.undoDir()}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.drop())
		}
	}()
	m := merging{store: s, layers: layers, out: w.add}
	if err := errors.Join(m.run(), m.close()); err != nil && !errors.Is(err, errTooLarge) {
		return largeInverse{}, err
	}
	return w.finish()
}

// undoDir is where the tables of a large inverse are made, until they are taken in.
func (s *Store) undoDir() string { return filepath.Join(s.opts.Staging, "undo") }

// clearUndoDir removes what is left there. What can't be removed is when the next tables are made, or the store is opened.
func (s *Store) clearUndoDir() { _ = s.fs.RemoveAll(s.undoDir()) }

// A layer is ops in the order of keys: no two on one key, but a delete range that begins there, which comes first; delete ranges don't overlap.
type layer interface {
	// next returns the next op, valid until the one after the next is asked for, or io.EOF.
	next() (op netOp, err error)
	close() error
}

type netOp struct {
	kind       batchlog.OpKind
	key, value []byte
}

// A memoryLayer is one in memory.
type memoryLayer struct {
	ops   []byte
	count int
}

func (l *memoryLayer) next() (op netOp, err error) {
	if l.count == 0 {
		return netOp{}, io.EOF
	}
	l.count--
	op.kind, op.key, op.value, l.ops, err = wire.NextOp(l.ops)
	return op, err
}

func (l *memoryLayer) close() error { return nil }

// netLayer is the net effect of ops in any order.
func (s *Store) netLayer(ops []byte, count int) (_ layer, err error) {
	// Twice their size, so that they stay in memory.
	sorter := chainsort.New(chainsort.Options{FS: s.fs, Dir: s.undoDir(), MemoryBytes: 4*len(ops) + 1<<20})
	defer func() { err = errors.Join(err, sorter.Close()) }()
	if err := sorter.Add(1, ops, count); err != nil {
		return nil, err
	}
	l := &memoryLayer{}
	return l, sorter.Net(context.Background(), nil, nil, func(n chainsort.Net) error {
		kind := batchlog.OpPut
		switch n.Kind {
		case chainsort.NetDelete:
			kind = batchlog.OpDelete
		case chainsort.NetDeleteRange:
			kind = batchlog.OpDeleteRange
		}
		l.ops = wire.AppendOp(l.ops, kind, n.Key, n.Value)
		l.count++
		return nil
	})
}

// A stretchLayer is one stretch of the file of a chain.
type stretchLayer struct {
	in        wire.OpReader
	stretches wire.Stretches
	after     int // stretches that are to begin yet, it included
	ops       []byte
	count     int
	ended     bool
}

// stretchLayers are the layers of a chain whose file has so many stretches.
func stretchLayers(c *wire.ChainRef, stretches int) (layers []layer, err error) {
	for i := range stretches {
		in, err := c.Open()
		if err != nil {
			return nil, errors.Join(err, closeLayers(layers))
		}
		layers = append(layers, &stretchLayer{in: in, after: i + 1})
	}
	return layers, nil
}

func closeLayers(layers []layer) (err error) {
	for _, l := range layers {
		err = errors.Join(err, l.close())
	}
	return err
}

func (l *stretchLayer) next() (op netOp, err error) {
	for {
		if l.ended {
			return netOp{}, io.EOF
		}
		for l.count == 0 {
			if l.ops, l.count, err = l.in.Next(); err != nil {
				l.ended = errors.Is(err, io.EOF)
				return netOp{}, err
			}
		}
		l.count--
		if op.kind, op.key, op.value, l.ops, err = wire.NextOp(l.ops); err != nil {
			return netOp{}, err
		}
		if l.stretches.Begin(op.kind, op.key) {
			if l.after == 0 {
				l.ended = true
				return netOp{}, io.EOF
			}
			l.after--
		}
		if l.after == 0 {
			return op, nil
		}
	}
}

func (l *stretchLayer) close() error { return l.in.Close() }

// A merging goes through the keys that layers are on, and says what the store has there.
type merging struct {
	store  *Store
	layers []layer // later ones win
	heads  []netOp // the next op of each
	ended  []bool
	open   [][]byte // the upper bound of the delete range of each that is open; nil: none is
	it     *pebble.Iterator
	placed bool // the iterator was; it goes only ahead, and stands behind the last key that was dealt with
	out    func(kind batchlog.OpKind, key, value []byte) error
}

func (m *merging) run() (err error) {
	if m.it, err = m.store.db.NewIter(&pebble.IterOptions{LowerBound: []byte{userKeys}}); err != nil {
		return readError(err)
	}
	m.heads, m.ended, m.open = make([]netOp, len(m.layers)), make([]bool, len(m.layers)), make([][]byte, len(m.layers))
	for i := range m.layers {
		if err := m.advance(i); err != nil {
			return err
		}
	}
	for {
		next := m.least()
		if next < 0 {
			return m.deleted(nil)
		}
		op := m.heads[next]
		if err := m.deleted(op.key); err != nil { // what comes before it
			return err
		}
		if op.kind == batchlog.OpDeleteRange {
			m.open[next] = append([]byte(nil), op.value...)
			err = errors.Join(m.seek(op.key), m.advance(next))
		} else {
			err = m.point(op)
		}
		if err != nil {
			return err
		}
	}
}

// advance reads the next op of a layer.
func (m *merging) advance(i int) error {
	for {
		op, err := m.layers[i].next()
		if errors.Is(err, io.EOF) {
			m.ended[i], m.heads[i] = true, netOp{}
			return nil
		}
		if err != nil {
			return err
		}
		if !systemKey(op.key) {
			m.heads[i] = op
			return nil
		}
	}
}

// least is the layer whose op comes next: that with the least key, a range delete first; -1 when all have ended.
func (m *merging) least() int {
	least := -1
	for i := range m.layers {
		if m.ended[i] {
			continue
		}
		if least >= 0 {
			order := bytes.Compare(m.heads[i].key, m.heads[least].key)
			if order > 0 || order == 0 && (m.heads[i].kind != batchlog.OpDeleteRange || m.heads[least].kind == batchlog.OpDeleteRange) {
				continue
			}
		}
		least = i
	}
	return least
}

// point is about the key that an op, and those of other layers with the same key, are on.
func (m *merging) point(op netOp) error {
	key := append([]byte(nil), op.key...)
	covered := m.covering(key)
	var value []byte // that is left there; nil: none
	for i := range m.layers {
		if m.ended[i] || !bytes.Equal(m.heads[i].key, key) { // no range delete: those came before
			continue
		}
		if i >= covered {
			value, covered = nil, i
			if m.heads[i].kind == batchlog.OpPut {
				value = append([]byte{}, m.heads[i].value...)
			}
		}
		if err := m.advance(i); err != nil {
			return err
		}
	}
	old, err := m.old(key)
	switch {
	case err != nil:
		return err
	case same(old, value):
	case old == nil:
		err = m.out(batchlog.OpDelete, key, nil)
	default:
		err = m.out(batchlog.OpPut, key, old)
	}
	if old != nil {
		m.it.Next()
	}
	return err
}

// covering is the last layer with a delete range that is open at key; -1: none has. It closes those that have ended.
func (m *merging) covering(key []byte) int {
	last := -1
	for i, high := range m.open {
		if high == nil {
			continue
		}
		if bytes.Compare(high, key) <= 0 {
			m.open[i] = nil
			continue
		}
		last = i
	}
	return last
}

// deleted is about the keys of the store in the delete ranges that are open, from where the merge stands up to key, nil: to their end. No op is on these.
func (m *merging) deleted(key []byte) error {
	for {
		var high []byte // the highest bound
		for _, h := range m.open {
			if h != nil && bytes.Compare(h, high) > 0 {
				high = h
			}
		}
		if high == nil || !m.it.Valid() || key != nil && bytes.Compare(m.it.Key(), key) >= 0 {
			return readError(m.it.Error())
		}
		if bytes.Compare(m.it.Key(), high) >= 0 {
			clear(m.open)
			return nil
		}
		value, err := m.it.ValueAndErr()
		if err != nil {
			return readError(err)
		}
		if err := m.out(batchlog.OpPut, m.it.Key(), value); err != nil {
			return err
		}
		m.it.Next()
	}
}

// seek moves the iterator to key, or to the first one behind.
func (m *merging) seek(key []byte) error {
	const near = 8 // steps that cost no more than a search
	if !m.placed {
		m.it.SeekGE(key)
		m.placed = true
	}
	for steps := 0; m.it.Valid() && bytes.Compare(m.it.Key(), key) < 0; steps++ {
		if steps < near {
			m.it.Next()
		} else {
			m.it.SeekGE(key)
		}
	}
	return readError(m.it.Error())
}

// old is what the store has under key, valid until the iterator moves; nil: nothing.
func (m *merging) old(key []byte) ([]byte, error) {
	if err := m.seek(key); err != nil || !m.it.Valid() || !bytes.Equal(m.it.Key(), key) {
		return nil, err
	}
	value, err := m.it.ValueAndErr()
	return present(value), readError(err)
}

func (m *merging) close() error {
	err := closeLayers(m.layers)
	if m.it != nil {
		err = errors.Join(err, readError(m.it.Close()))
	}
	return err
}

// A partsWriter takes the ops of a large inverse.
type partsWriter struct {
	store *Store
	id    batchlog.ID
	dir   string

	total int
	size  int64
	ops   []byte // of the part
	count int
	parts uint32
	part  []byte
	table *TableWriter // nil: all is in ops
	large bool
}

// errTooLarge ends an inverse that is larger than the limit.
var errTooLarge = errors.New("inverse too large")

func (w *partsWriter) add(kind batchlog.OpKind, key, value []byte) error {
	before := len(w.ops)
	w.ops = wire.AppendOp(w.ops, kind, key, value)
	w.count++
	w.total++
	w.size += int64(len(w.ops) - before)
	if w.size > w.store.opts.InverseLimit {
		w.large = true
		return errTooLarge
	}
	if sizes := w.store.undo.sizes; w.table == nil && len(w.ops) > sizes.inline || w.table != nil && len(w.ops) >= sizes.part {
		return w.flush()
	}
	return nil
}

// flush writes the part.
func (w *partsWriter) flush() error {
	if err := w.begin(); err != nil || w.count == 0 {
		return err
	}
	w.part = append(binary.AppendUvarint(w.part[:0], uint64(w.count)), w.ops...)
	err := w.table.Add(batchlog.OpPut, inversePartKey(w.id, w.parts), w.part)
	w.parts++
	w.ops, w.count = w.ops[:0], 0
	return err
}

func (w *partsWriter) begin() error {
	if w.table != nil {
		return nil
	}
	fs := w.store.fs
	if err := errors.Join(fs.RemoveAll(w.dir), fs.MkdirAll(w.dir, 0o755)); err != nil {
		return fmt.Errorf("directory for inverses: %w", openError(err))
	}
	w.table = w.store.NewTables(w.dir)
	w.table.tables.fs = fs // that waits for space: the commit is in the log, and has to be applied
	return nil
}

// finish returns the inverse. What is not inline is in tables, with its block.
func (w *partsWriter) finish() (largeInverse, error) {
	switch {
	case w.large:
		err := w.drop()
		w.table = nil
		return largeInverse{inverse: inverse{form: formTooLarge, size: w.size}}, err
	case w.table == nil:
		return largeInverse{inverse: inverse{form: formInline, count: w.total, size: w.size, ops: w.ops}}, nil
	}
	if err := w.flush(); err != nil {
		return largeInverse{}, err
	}
	v := inverse{form: formParts, count: w.total, size: w.size}
	return w.finishTables(v)
}

func (w *partsWriter) finishTables(v inverse) (largeInverse, error) {
	b := blockWriter{next: w.id}
	b.add(v)
	key, value, _ := b.take()
	err := w.table.Add(batchlog.OpPut, key, value)
	if err == nil && v.form == formTooLarge {
		err = w.table.Add(batchlog.OpPut, tooLargeKey(w.id), nil)
	}
	if err != nil {
		return largeInverse{}, err
	}
	t, err := w.table.Finish()
	return largeInverse{inverse: v, tables: t}, err
}

func (w *partsWriter) drop() error {
	if w.table == nil {
		return nil
	}
	return w.table.Drop()
}

// asTables is the inverse in tables, also if it is small: what is taken in together with the tables of a chain is there as soon as they are.
func (s *Store) asTables(id batchlog.ID, v largeInverse) (*Tables, error) {
	if v.tables != nil {
		return v.tables, nil
	}
	w := &partsWriter{store: s, id: id, dir: s.undoDir()}
	err := w.begin()
	if err == nil {
		v, err = w.finishTables(v.inverse)
	}
	if err != nil {
		return nil, errors.Join(err, w.drop())
	}
	return v.tables, nil
}
