package batchlog

import (
	"bytes"
	"errors"
	"slices"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// Inside is db as the packages that extend it see it. Programs have no business there.
func (db *DB) Inside() waist.DB[*Space, Engine] { return (*insideDB)(db) }

type insideDB DB

func (db *insideDB) Engine() Engine { return db.engine }

func (db *insideDB) System() *Space { return &Space{db: (*DB)(db), prefix: wire.SystemPath} }

func (db *insideDB) SpaceAt(path []byte) (*Space, error) { return (*DB)(db).spaceOf(path) }

func (db *insideDB) Split(stored []byte) (*Space, []byte, error) {
	s, k, err := (*DB)(db).splitStored(stored)
	return s, k, err
}

func (db *insideDB) Owns(s *Space) error { return (*DB)(db).owns(s) }

// Inside is tx as the packages that extend the database see it. Programs have no business there.
func (tx *Tx) Inside() waist.Tx { return (*insideTx)(tx) }

type insideTx Tx

func (t *insideTx) Get(key []byte) ([]byte, error) {
	tx := (*Tx)(t)
	if err := tx.usable(tx.db.root); err != nil {
		return nil, err
	}
	if value, deleted, ok := tx.own.get(key); ok {
		if deleted {
			return nil, ErrNotFound
		}
		return bytes.Clone(value), nil
	}
	key = bytes.Clone(key)
	if err := tx.remember(func(r *waist.Reads) { r.Keys = append(r.Keys, key) }); err != nil {
		return nil, err
	}
	value, err := tx.snap.Get(tx.ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		tx.err = err
	}
	return value, err
}

func (t *insideTx) Put(key, value []byte) {
	t.batch.putStored(t.db, key, value)
	if t.batch.err == nil {
		t.own.put(bytes.Clone(key), bytes.Clone(value), false)
	}
}

func (t *insideTx) Delete(key []byte) {
	t.batch.deleteStored(t.db, key)
	if t.batch.err == nil {
		t.own.put(bytes.Clone(key), nil, true)
	}
}

func (t *insideTx) Move(m wire.TaskMove) { t.batch.proposal.Task = &m }

// Inside is c as the packages that extend the database see it. Programs have no business there.
func (c *Chain) Inside() waist.Chain { return (*insideChain)(c) }

type insideChain Chain

func (in *insideChain) Put(key, value []byte) {
	c := (*Chain)(in)
	refs := c.batch.proposal.Blobs
	c.batch.putStored(c.batch.db, key, value)
	if c.batch.proposal.Blobs > refs && !c.blobs {
		c.blobs = true
		c.flush() // from now on the engine knows that blobs may be needed
		return
	}
	c.stageSome()
}

func (in *insideChain) Delete(key []byte) {
	c := (*Chain)(in)
	c.batch.deleteStored(c.batch.db, key)
	c.stageSome()
}

func (in *insideChain) Depends(r *waist.Reads) { in.reads = r }

// Inside is c as the packages that extend the database see it. Programs have no business there.
func (c *Commit) Inside() waist.Commit { return (*insideCommit)(c) }

type insideCommit Commit

func (c *insideCommit) EachOp(visit func(kind wire.Kind, key, value []byte) error) error {
	r := wire.Record{ID: c.ID, Count: c.count, Ops: c.ops, Chain: c.chain}
	return r.EachOp(func(kind wire.Kind, key, value []byte) error {
		if !c.lens.shows(key) {
			return nil
		}
		return visit(kind, key, value)
	})
}

func (c *insideCommit) Record() *wire.Record {
	return &wire.Record{ID: c.ID, Time: c.Time.UnixMicro(), Count: c.count, Ops: c.ops, Chain: c.chain}
}

func (c *insideCommit) Spans() []wire.KeyRange {
	if c.chain == nil {
		return nil
	}
	spans := slices.Clone(c.chain.Spans)
	_ = wire.EachOp(c.ops, c.count-c.chain.Count, func(kind wire.Kind, key, value []byte) error { // Ops tells of damage
		high := value
		if kind != wire.DeleteRange {
			high = append(bytes.Clone(key), 0)
		}
		spans = append(spans, wire.KeyRange{Low: key, High: high})
		return nil
	})
	return spans
}

func (b *Batch) putStored(db *DB, key, value []byte) {
	s, k, err := db.splitStored(key)
	if err != nil {
		b.fail(err)
		return
	}
	_, ref, err := wire.ParseValue(value)
	if err != nil {
		b.fail(valueError(s, k, err))
		return
	}
	before := b.proposal.Count
	b.add(OpPut, s, k, value)
	if ref != nil {
		b.proposal.Blobs += b.proposal.Count - before
	}
}

func (b *Batch) deleteStored(db *DB, key []byte) {
	s, k, err := db.splitStored(key)
	if err != nil {
		b.fail(err)
		return
	}
	b.add(OpDelete, s, k, nil)
}

// splitStored is the space of a stored key, and the key in it, which shares its memory.
func (db *DB) splitStored(key []byte) (*Space, Key, error) {
	path, k, err := wire.SplitKey(key)
	if err != nil {
		return nil, nil, err
	}
	s, err := db.spaceOf(path)
	return s, Key(k), err
}
