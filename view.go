package batchlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/bytespace/batchlog/internal/waist"
)

// An Entry is a key with its value, in a scan.
type Entry struct {
	Key   Key
	Value []byte   // nil of a blob that was not loaded: one above MaxValueBytes, or any with [BlobRefs]
	Blob  *BlobRef // of a value that is a blob; nil: it is none
}

// A View is the store at one id. It is safe for concurrent use. It keeps old versions of
// keys from being cleaned up: close it.
type View struct {
	db   *DB
	snap waist.Snapshot
}

// View returns the store at one id: by default at head when it was called, or later. See [Stale], [AtLeast] and [MaxWait].
//
// Spaces that tasks derive are as of that id, too: a read there waits, as long as ctx and MaxWait let it, until the task has handled
// all commits up to it, and shows what came of these and of none after. In a Stale view they are as they happen to be.
func (db *DB) View(ctx context.Context, opts ...ReadOption) (*View, error) {
	return db.view(ctx, readOptions(opts))
}

func (db *DB) view(ctx context.Context, o ReadOptions) (*View, error) {
	snap, err := db.engine.View(ctx, o)
	if err != nil {
		return nil, err
	}
	return &View{db: db, snap: snap}, nil
}

// ID is the commit that v shows the effects of, with all before it and none after.
func (v *View) ID() ID { return v.snap.ID() }

// Get returns the value of k in s, or [ErrNotFound]. The value is the caller's.
func (v *View) Get(s *Space, k Key) ([]byte, error) {
	if err := v.db.owns(s); err != nil {
		return nil, err
	}
	stored, err := v.snap.Get(context.Background(), s.storedKey(k))
	if err != nil {
		return nil, err
	}
	value, _, err := v.db.load(context.Background(), s, k, stored)
	return value, err
}

// Scan yields the keys of s in r with their values, ascending, or descending with [ScanReverse]; the other options
// have no meaning here. Memory is bounded whatever the range. An error ends it.
func (v *View) Scan(s *Space, r Range, opts ...ReadOption) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		v.scan(context.Background(), s, r, readOptions(opts), yield)
	}
}

// Close lets go of v. It is safe to call it twice.
func (v *View) Close() error { return v.snap.Close() }

// get is a single read.
func (db *DB) get(ctx context.Context, s *Space, k Key, o ReadOptions) ([]byte, error) {
	for try := 0; ; try++ {
		stored, err := db.getStored(ctx, s, k, o)
		if err != nil {
			return nil, err
		}
		if value, ref, err := parseValue(stored); err == nil && ref == nil {
			return value, nil
		}
		value, _, err := db.load(ctx, s, k, stored)
		if err == nil || !errors.Is(err, errBlobGone) || try == blobTries {
			return value, err
		}
	}
}

// getStored is a single read of a value as the store holds it, without a view where the engine can.
func (db *DB) getStored(ctx context.Context, s *Space, k Key, o ReadOptions) ([]byte, error) {
	if db.getter != nil {
		key := keyBuffers.Get().(*[]byte)
		defer keyBuffers.Put(key)
		*key = append(append((*key)[:0], s.prefix...), k...)
		return db.getter.Get(ctx, *key, o)
	}
	snap, err := db.engine.View(ctx, o)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	return snap.Get(ctx, s.storedKey(k))
}

// keyBuffers is memory for stored keys that are needed during one call.
var keyBuffers = sync.Pool{New: func() any { return new([]byte) }}

func (v *View) scan(ctx context.Context, s *Space, r Range, o ReadOptions, yield func(Entry, error) bool) {
	if err := v.db.owns(s); err != nil {
		yield(Entry{}, err)
		return
	}
	low, high, empty := s.storedRange(r)
	if empty {
		return
	}
	cursor, err := v.snap.Scan(ctx, low, high, o.Reverse)
	if err != nil {
		yield(Entry{}, err)
		return
	}
	defer cursor.Close()
	var keep slab
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			yield(Entry{}, context.Cause(ctx))
			return
		}
		key, value, err := cursor.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		e, err := entry(ctx, s, keep.copy(key[len(s.prefix):]), value, &keep, o.BlobRefs)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if !yield(e, nil) {
			return
		}
	}
}

// entry is what a scan yields for a stored value, which is copied; a blob is loaded unless it is too large, or refs are asked for.
func entry(ctx context.Context, s *Space, k Key, stored []byte, keep *slab, refs bool) (Entry, error) {
	value, ref, err := parseValue(stored)
	if err != nil {
		return Entry{}, valueError(s, k, err)
	}
	if ref == nil {
		return Entry{Key: k, Value: keep.copy(value)}, nil
	}
	e := Entry{Key: k, Blob: ref}
	if refs || ref.Size > MaxValueBytes {
		return e, nil
	}
	e.Value, err = s.db.loadBlob(ctx, *ref)
	return e, valueError(s, k, err)
}

// A slab gives out copies that are small parts of larger pieces of memory: one allocation for many.
type slab struct{ free []byte }

const (
	slabFirst = 256
	slabBytes = 64 << 10
)

func (s *slab) copy(b []byte) []byte {
	if len(b) == 0 {
		return []byte{} // not nil: a nil bound of a range is none
	}
	if len(b) > slabBytes/4 {
		return bytes.Clone(b)
	}
	if len(b) > cap(s.free)-len(s.free) {
		// Pieces grow, so that a scan of three keys does not pay for 64 KiB.
		s.free = make([]byte, 0, max(len(b), min(slabBytes, max(slabFirst, 2*cap(s.free)))))
	}
	start := len(s.free)
	s.free = append(s.free, b...)
	return s.free[start:len(s.free):len(s.free)]
}
