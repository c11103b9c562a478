package batchlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A Tx is a [Batch] that can read: what it reads is the store at one id with the transaction's own writes on
// top. It is valid while the function that was given it runs and not safe for concurrent use. Spaces that tasks derive are read as they are, without
// a wait.
type Tx struct {
	ctx   context.Context
	db    *DB
	snap  waist.Snapshot
	batch Batch
	own   overlay // of what is in batch up to the byte shown, and of all that hooks have written
	shown int
	reads waist.Reads
	hooks *hookRun // of a transaction that pre-commit hooks are given
	err   error    // the first failure of a read; the transaction can't be committed with it
}

// Update runs fn and commits what it wrote, so that the outcome is as if all updates had run one after the
// other (strict serializability): what fn read, keys and ranges, found or not, is unchanged when its commit
// gets its id. If it was changed fn runs again, so it must have no effects outside of tx. After some lost tries commits that touch what the last one
// has read wait while fn runs, for some seconds at most; others do not. So nearly all get through; one that has not after [MaxTries], or [MaxTrying],
// ends with a *[ConflictError] that says what it lost to. It returns the commit's id, or 0 if fn wrote nothing.
//
// If fn returns an error nothing is written and the error is returned. fn must not write to the database by other ways than
// tx: it would come before itself, or wait for itself. Other errors are those of [DB.Write].
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) (ID, error) {
	return Persist(ctx, db.engine, func(ticket uint64) (ID, error) { return db.tryUpdate(ctx, fn, ticket) })
}

func (db *DB) tryUpdate(ctx context.Context, fn func(tx *Tx) error, ticket uint64) (ID, error) {
	snap, err := db.engine.View(ctx, ReadOptions{Plain: true})
	if err != nil {
		return 0, err
	}
	defer snap.Close()
	tx := &Tx{ctx: ctx, db: db, snap: snap}
	tx.reads.Base = snap.ID()
	if err := fn(tx); err != nil {
		return 0, err
	}
	if tx.err != nil {
		return 0, tx.err
	}
	if tx.batch.err == nil && tx.batch.Len() == 0 {
		return 0, nil
	}
	p, err := tx.batch.seal(db)
	if err != nil {
		return 0, err
	}
	p.Reads, p.Ticket = &tx.reads, ticket
	id, err := db.engine.Commit(ctx, p)
	return id, Lost(err, &tx.reads)
}

// Get returns the value of k in s, or [ErrNotFound]. The value is the caller's.
func (tx *Tx) Get(s *Space, k Key) ([]byte, error) {
	if err := tx.usable(s); err != nil {
		return nil, err
	}
	if stored, deleted, ok := tx.own.get(s.storedKey(k)); ok {
		if deleted {
			return nil, ErrNotFound
		}
		value, own, err := tx.db.load(tx.ctx, s, k, stored)
		if !own {
			value = bytes.Clone(value)
		}
		return value, err
	}
	return tx.Before(s, k)
}

// Before returns the value that k has in s without the transaction: its own writes do not show, and in a pre-commit hook neither
// do those of the commit. So a hook that keeps an index finds what to take out of it. Else it is like Get.
func (tx *Tx) Before(s *Space, k Key) ([]byte, error) {
	if err := tx.usable(s); err != nil {
		return nil, err
	}
	key := s.storedKey(k)
	if err := tx.remember(func(r *waist.Reads) { r.Keys = append(r.Keys, key) }); err != nil {
		return nil, err
	}
	stored, err := tx.snap.Get(tx.ctx, key)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			tx.err = err
		}
		return nil, err
	}
	value, _, err := tx.db.load(tx.ctx, s, k, stored)
	if err != nil {
		tx.err = err
	}
	return value, err
}

// Scan yields the keys of s in r with their values, own writes included, as they are when it starts; ascending, or
// descending with [ScanReverse]. What it went through is validated, gaps between the keys included.
func (tx *Tx) Scan(s *Space, r Range, opts ...ReadOption) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := tx.usable(s); err != nil {
			yield(Entry{}, err)
			return
		}
		if err := tx.scan(s, r, readOptions(opts).Reverse, yield); err != nil {
			tx.err = err
			yield(Entry{}, err)
		}
	}
}

// Put sets the value of k in s.
func (tx *Tx) Put(s *Space, k Key, value []byte) {
	tx.batch.Put(s, k, value)
	if tx.added() {
		tx.own.put(s.storedKey(k), bytes.Clone(wire.StoredValue(value)), false)
	}
}

// Delete removes k from s.
func (tx *Tx) Delete(s *Space, k Key) {
	tx.batch.Delete(s, k)
	if tx.added() {
		tx.own.put(s.storedKey(k), nil, true)
	}
}

// DeleteRange removes the keys of s that are in r. It reads nothing: keys that others put there
// meanwhile go too.
func (tx *Tx) DeleteRange(s *Space, r Range) {
	tx.batch.DeleteRange(s, r)
	if tx.added() {
		if low, high, empty := s.storedRange(r); !empty {
			tx.own.deleteRange(low, high)
		}
	}
}

// added reports whether what was added to the batch by a hook is to show at once. What others add is looked at when they read.
func (tx *Tx) added() bool {
	if tx.hooks == nil {
		return false
	}
	tx.hooks.bound()
	return tx.batch.err == nil && !tx.hooks.stale
}

// SetLabel sets a label of the commit. See [Batch].
func (tx *Tx) SetLabel(name, value string) {
	if tx.batch.Labels == nil {
		tx.batch.Labels = map[string]string{}
	}
	tx.batch.Labels[name] = value
}

// SetToken names the commit for safe retries. See [Batch].
func (tx *Tx) SetToken(token string) { tx.batch.Token = token }

// Base is the id of the view that tx reads.
func (tx *Tx) Base() ID { return tx.reads.Base }

func (tx *Tx) usable(s *Space) error {
	if tx.err != nil {
		return tx.err
	}
	if tx.hooks != nil {
		tx.hooks.refresh()
	} else if ops := tx.batch.proposal.Ops; tx.shown < len(ops) { // one that only writes does without
		tx.own.applyAll(ops[tx.shown:len(ops):len(ops)])
		tx.shown = len(ops)
	}
	return tx.db.owns(s)
}

func (tx *Tx) remember(add func(r *waist.Reads)) error {
	if err := limitTxReads.Check(len(tx.reads.Keys) + len(tx.reads.Ranges) + 1); err != nil {
		tx.err = err
		return err
	}
	add(&tx.reads)
	return nil
}

// scan merges the snapshot with own writes. Own writes win; what they hide need not be validated but is, as
// part of the range: simpler, and never wrong.
func (tx *Tx) scan(s *Space, r Range, reverse bool, yield func(Entry, error) bool) error {
	low, high, empty := s.storedRange(r)
	if empty {
		return nil
	}
	cursor, err := tx.snap.Scan(tx.ctx, low, high, reverse)
	if err != nil {
		return err
	}
	defer cursor.Close()
	merged := merge{cursor: cursor, own: tx.own.view(low, high, reverse)}

	seen := wire.KeyRange{Low: low, High: high} // narrowed to what was gone through if the loop is broken off
	defer func() {
		if err := tx.remember(func(r *waist.Reads) { r.Ranges = append(r.Ranges, seen) }); err != nil {
			tx.err = err
		}
	}()
	var keep slab
	for n := 0; ; n++ {
		if n%256 == 0 && tx.ctx.Err() != nil {
			return cause(tx.ctx)
		}
		key, value, err := merged.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		stored := keep.copy(key)
		e, err := entry(tx.ctx, s, stored[len(s.prefix):], value, &keep, false)
		if err != nil {
			return err
		}
		if !yield(e, nil) {
			if reverse {
				seen.Low = stored
			} else {
				seen.High = append(bytes.Clone(stored), 0)
			}
			return nil
		}
	}
}
