package batchlog

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A stub is an engine whose answers a test makes. What is not set is ErrUnsupported.
type stub struct {
	commit func(ctx context.Context, p *waist.Proposal) (ID, error)
	view   func(ctx context.Context, o ReadOptions) (waist.Snapshot, error)
	log    func(ctx context.Context, o LogOptions) (waist.LogReader, error)
}

func (e *stub) Commit(ctx context.Context, p *waist.Proposal) (ID, error) {
	if e.commit == nil {
		return 0, ErrUnsupported
	}
	return e.commit(ctx, p)
}

func (e *stub) View(ctx context.Context, o ReadOptions) (waist.Snapshot, error) {
	if e.view == nil {
		return nil, ErrUnsupported
	}
	return e.view(ctx, o)
}

func (e *stub) Log(ctx context.Context, o LogOptions) (waist.LogReader, error) {
	if e.log == nil {
		return nil, ErrUnsupported
	}
	return e.log(ctx, o)
}

func (e *stub) Head(context.Context) (ID, error) { return 7, nil }
func (e *stub) Close() error                     { return nil }

// A mapStore is keys and values in memory, with snapshots.
type mapStore struct {
	mu   sync.Mutex
	keys map[string]string // stored keys
	id   ID
	open atomic.Int64 // snapshots and cursors
	fail error        // of every read
}

func (m *mapStore) View(context.Context, ReadOptions) (waist.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open.Add(1)
	return &mapSnapshot{store: m, keys: maps.Clone(m.keys), id: m.id}, nil
}

// apply commits the ops of p.
func (m *mapStore) apply(p *waist.Proposal) ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		m.keys = map[string]string{}
	}
	ops := p.Ops
	for range p.Count {
		kind, key, value, rest, err := wire.NextOp(ops)
		if err != nil {
			panic(err)
		}
		ops = rest
		switch kind {
		case OpPut:
			m.keys[string(key)] = string(value)
		case OpDelete:
			delete(m.keys, string(key))
		case OpDeleteRange:
			maps.DeleteFunc(m.keys, func(k, _ string) bool { return k >= string(key) && k < string(value) })
		}
	}
	m.id++
	return m.id
}

type mapSnapshot struct {
	store  *mapStore
	keys   map[string]string
	id     ID
	closed bool
}

func (s *mapSnapshot) ID() ID { return s.id }

func (s *mapSnapshot) Get(_ context.Context, key []byte) ([]byte, error) {
	if s.store.fail != nil {
		return nil, s.store.fail
	}
	if v, ok := s.keys[string(key)]; ok {
		return []byte(v), nil
	}
	return nil, ErrNotFound
}

func (s *mapSnapshot) Scan(_ context.Context, low, high []byte, reverse bool) (waist.Cursor, error) {
	if s.store.fail != nil {
		return nil, s.store.fail
	}
	var keys []string
	for k := range s.keys {
		if k >= string(low) && k < string(high) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if reverse {
		slices.Reverse(keys)
	}
	s.store.open.Add(1)
	return &mapCursor{snap: s, keys: keys}, nil
}

func (s *mapSnapshot) Close() error {
	if s.closed {
		return errors.New("closed twice")
	}
	s.closed = true
	s.store.open.Add(-1)
	return nil
}

// A mapCursor hands out memory that it overwrites with the next call, as the contract lets it.
type mapCursor struct {
	snap       *mapSnapshot
	keys       []string
	key, value []byte
	failAfter  int // calls of Next until store.fail; 0: never
}

func (c *mapCursor) Next() (key, value []byte, err error) {
	for i := range c.key {
		c.key[i] = '!'
	}
	for i := range c.value {
		c.value[i] = '!'
	}
	if c.failAfter > 0 {
		if c.failAfter--; c.failAfter == 0 {
			return nil, nil, errBroken
		}
	}
	if len(c.keys) == 0 {
		return nil, nil, io.EOF
	}
	c.key = append(c.key[:0], c.keys[0]...)
	c.value = append(c.value[:0], c.snap.keys[c.keys[0]]...)
	c.keys = c.keys[1:]
	return c.key, c.value, nil
}

func (c *mapCursor) Close() error {
	c.snap.store.open.Add(-1)
	return nil
}

var errBroken = errors.New("broken")

// newMapDB is a database over store, whose commits always succeed.
func newMapDB(store *mapStore) *DB {
	return New(&stub{view: store.View, commit: func(_ context.Context, p *waist.Proposal) (ID, error) { return store.apply(p), nil }})
}

// A sliceReader yields stretches of a log.
type sliceReader struct {
	stretches [][]wire.Record
	scanned   []ID
	end       error
	closed    *atomic.Int64
}

func (r *sliceReader) Next(context.Context) ([]wire.Record, ID, error) {
	if len(r.stretches) == 0 {
		return nil, 0, r.end
	}
	records, scanned := r.stretches[0], r.scanned[0]
	r.stretches, r.scanned = r.stretches[1:], r.scanned[1:]
	return records, scanned, nil
}

func (r *sliceReader) Close() error {
	if r.closed != nil {
		r.closed.Add(1)
	}
	return nil
}
