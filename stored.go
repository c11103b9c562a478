package batchlog

import (
	"bytes"
	"errors"
	"slices"
)

// What is here reads and writes stored keys and values as they are, blobs by their references. It is for packages that extend the database.

// Record is c as the log has it, without its meta, the ops included that do not show. It shares memory with c.
func (c *Commit) Record() *Record {
	return &Record{ID: c.ID, Time: c.Time.UnixMicro(), Count: c.count, Ops: c.ops, Chain: c.chain}
}

// EachStored calls visit for each op of c in order, with stored keys and values as [NextOp] says, only of those that show. What it is given stays valid if c does.
func (c *Commit) EachStored(visit func(kind OpKind, key, value []byte) error) error {
	r := Record{ID: c.ID, Count: c.count, Ops: c.ops, Chain: c.chain}
	return r.EachOp(func(kind OpKind, key, value []byte) error {
		if !c.lens.shows(key) {
			return nil
		}
		return visit(kind, key, value)
	})
}

// Spans are ranges that hold all stored keys that the ops of a chain are on, also those that don't show; nil if c is no chain, see [Commit.Chained].
func (c *Commit) Spans() []KeyRange {
	if c.chain == nil {
		return nil
	}
	spans := slices.Clone(c.chain.Spans)
	_ = EachOp(c.ops, c.count-c.chain.Count, func(kind OpKind, key, value []byte) error { // Ops tells of damage
		high := value
		if kind != OpDeleteRange {
			high = append(bytes.Clone(key), 0)
		}
		spans = append(spans, KeyRange{Low: key, High: high})
		return nil
	})
	return spans
}

// Stored returns the value of a stored key as the store holds it, or [ErrNotFound]. The value is the caller's.
func (tx *Tx) Stored(key []byte) ([]byte, error) {
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
	if err := tx.remember(func(r *Reads) { r.Keys = append(r.Keys, key) }); err != nil {
		return nil, err
	}
	value, err := tx.snap.Get(tx.ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		tx.err = err
	}
	return value, err
}

// PutStored sets the value of a stored key to one as the store holds it. A malformed key or value is remembered and ends the transaction.
func (tx *Tx) PutStored(key, value []byte) {
	tx.batch.putStored(tx.db, key, value)
	if tx.batch.err == nil {
		tx.own.put(bytes.Clone(key), bytes.Clone(value), false)
	}
}

// DeleteStored removes a stored key.
func (tx *Tx) DeleteStored(key []byte) {
	tx.batch.deleteStored(tx.db, key)
	if tx.batch.err == nil {
		tx.own.put(bytes.Clone(key), nil, true)
	}
}

// PutStored is as [Tx.PutStored].
func (c *Chain) PutStored(key, value []byte) {
	refs := c.batch.proposal.Blobs
	c.batch.putStored(c.batch.db, key, value)
	if c.batch.proposal.Blobs > refs && !c.blobs {
		c.blobs = true
		c.flush() // from now on the engine knows that blobs may be needed
		return
	}
	c.stageSome()
}

// DeleteStored is as [Tx.DeleteStored].
func (c *Chain) DeleteStored(key []byte) {
	c.batch.deleteStored(c.batch.db, key)
	c.stageSome()
}

// Depends has the commit of the chain fail with [ErrConflict], at once, if what r says was read has been written since. It can't be used beside copies.
func (c *Chain) Depends(r *Reads) { c.reads = r }

func (b *Batch) putStored(db *DB, key, value []byte) {
	s, k, err := db.SplitStored(key)
	if err != nil {
		b.fail(err)
		return
	}
	_, ref, err := ParseValue(value)
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
	s, k, err := db.SplitStored(key)
	if err != nil {
		b.fail(err)
		return
	}
	b.add(OpDelete, s, k, nil)
}

// SplitStored is the space of a stored key, and the key in it, which shares its memory.
func (db *DB) SplitStored(key []byte) (*Space, Key, error) {
	path, k, err := SplitKey(key)
	if err != nil {
		return nil, nil, err
	}
	s, err := db.spaceOf(path)
	return s, Key(k), err
}
