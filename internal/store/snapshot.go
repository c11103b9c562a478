package store

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/cockroachdb/pebble/v2"
)

// A Snapshot is the store at one id. It is safe for concurrent use.
type Snapshot struct {
	store *Store
	id    batchlog.ID

	mu sync.Mutex // taken for moments, to open and close cursors
	// snap is nil when the snapshot is closed.
	snap    *shared
	cursors map[*cursor]struct{}
}

// Snapshot returns the store as it is now.
func (s *Store) Snapshot() (*Snapshot, error) {
	if !s.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.use.leave()
	snap := &Snapshot{store: s}
	s.open.Lock()
	snap.id = s.floor() // until it is known: from now on what it may show must stay
	s.open.snapshots[snap] = struct{}{}
	s.open.Unlock()
	snap.snap = s.share()
	id, err := snap.mark()
	s.open.Lock()
	snap.id = id
	if err != nil {
		delete(s.open.snapshots, snap)
	}
	s.open.Unlock()
	if err != nil {
		return nil, errors.Join(err, snap.snap.release())
	}
	return snap, nil
}

// floor is what every snapshot shows at least that is taken from now on.
func (s *Store) floor() batchlog.ID {
	applied := s.Applied()
	if s.chain.turn.Load()%2 == 1 && applied > 0 {
		return applied - 1 // of a chain that is just taken in it may show nothing yet
	}
	return applied
}

// mark is the commit that the snapshot shows. It is read in the snapshot itself: no lock is needed to know it.
func (s *Snapshot) mark() (batchlog.ID, error) {
	value, closer, err := s.snap.snap.Get(appliedKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return s.store.opts.Base, nil
	}
	if err != nil {
		return 0, readError(err)
	}
	return batchlog.ID(binary.BigEndian.Uint64(value)), closer.Close()
}

// ID is the newest commit that the snapshot shows.
func (s *Snapshot) ID() batchlog.ID { return s.id }

// Get is as waist.Snapshot says.
func (s *Snapshot) Get(_ context.Context, key []byte) ([]byte, error) {
	if !s.store.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.store.use.leave()
	s.mu.Lock()
	snap := s.snap
	s.mu.Unlock()
	if snap == nil {
		return nil, batchlog.ErrClosed
	}
	value, closer, err := snap.snap.Get(key)
	if err != nil {
		return nil, readError(err)
	}
	kept := make([]byte, len(value))
	copy(kept, value)
	return kept, closer.Close()
}

// Scan is as waist.Snapshot says.
func (s *Snapshot) Scan(ctx context.Context, low, high []byte, reverse bool) (waist.Cursor, error) {
	if !s.store.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.store.use.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snap == nil {
		return nil, batchlog.ErrClosed
	}
	it, err := s.snap.snap.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return nil, readError(err)
	}
	c := &cursor{snap: s, it: it, reverse: reverse}
	if s.cursors == nil {
		s.cursors = map[*cursor]struct{}{}
	}
	s.cursors[c] = struct{}{}
	return c, nil
}

// Close lets go of the snapshot and of its cursors. A second Close does nothing.
func (s *Snapshot) Close() error {
	if !s.store.use.enter() {
		return nil // the store has closed it
	}
	defer s.store.use.leave()
	s.store.open.Lock()
	delete(s.store.open.snapshots, s)
	s.store.open.Unlock()
	return s.drop()
}

func (s *Snapshot) drop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snap == nil {
		return nil
	}
	var err error
	for c := range s.cursors {
		err = errors.Join(err, c.drop())
	}
	s.cursors = nil
	err = errors.Join(err, s.snap.release())
	s.snap = nil
	return err
}

// A cursor walks over the keys of a snapshot.
type cursor struct {
	snap    *Snapshot
	reverse bool
	begun   bool

	mu sync.Mutex // one Next and a Close of the snapshot may come together
	it *pebble.Iterator

	// What Next returned is copied: Pebble's own memory goes with the store's Close, which may come before the caller
	// has looked at it.
	key, value []byte
}

func (c *cursor) Next() (key, value []byte, err error) {
	if !c.snap.store.use.enter() {
		return nil, nil, batchlog.ErrClosed
	}
	defer c.snap.store.use.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.it == nil {
		return nil, nil, batchlog.ErrClosed
	}
	if !c.step() {
		if err := c.it.Error(); err != nil {
			return nil, nil, readError(err)
		}
		return nil, nil, io.EOF
	}
	if value, err = c.it.ValueAndErr(); err != nil {
		return nil, nil, readError(err)
	}
	c.key, c.value = append(c.key[:0], c.it.Key()...), append(c.value[:0], value...)
	return c.key, c.value, nil
}

func (c *cursor) step() bool {
	switch begun := c.begun; {
	case begun && c.reverse:
		return c.it.Prev()
	case begun:
		return c.it.Next()
	case c.reverse:
		c.begun = true
		return c.it.Last()
	default:
		c.begun = true
		return c.it.First()
	}
}

func (c *cursor) Close() error {
	if !c.snap.store.use.enter() {
		return nil // the store has closed it
	}
	defer c.snap.store.use.leave()
	c.snap.mu.Lock()
	defer c.snap.mu.Unlock()
	delete(c.snap.cursors, c)
	return c.drop()
}

func (c *cursor) drop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.it == nil {
		return nil
	}
	err := c.it.Close()
	c.it = nil
	return err
}
