package store

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// A chainGate keeps readers from seeing half of a chain, without holding them up. A chain is applied in two steps, tables first, then the mark with what
// came too late for them. From the first step to the second readers are given a snapshot from before. turn is odd meanwhile; whoever finds
// that it has changed while he was reading reads again. Where the second step fails readers see the store from before until it is opened again.
type chainGate struct {
	turn   atomic.Uint64
	mu     sync.Mutex
	before *shared // while turn is odd
}

// A shared is a snapshot of Pebble with several users; the last one closes it.
type shared struct {
	store *Store
	snap  *pebble.Snapshot
	refs  atomic.Int64
}

func (s *Store) newShared() *shared {
	n := &shared{store: s, snap: s.db.NewSnapshot()}
	n.refs.Store(1)
	return n
}

func (s *shared) release() error {
	if s.refs.Add(-1) > 0 {
		return nil
	}
	// Pebble may take the lock of its manifest for that, which who waits for space may hold. Nobody else need wait.
	if store := s.store; store.NoSpace() && store.use.enter() {
		go func() {
			defer store.use.leave()
			_ = s.snap.Close() // should that fail the store has failed, and says so
		}()
		return nil
	}
	return s.snap.Close()
}

// enter returns the turn, and, while a chain is being taken in, the snapshot to read, which the caller must release.
func (g *chainGate) enter() (turn uint64, before *shared) {
	for {
		turn = g.turn.Load()
		if turn%2 == 0 {
			return turn, nil
		}
		g.mu.Lock()
		if before = g.before; before != nil {
			before.refs.Add(1)
			g.mu.Unlock()
			return turn, before
		}
		g.mu.Unlock() // it has just ended
	}
}

// still reports whether no chain was taken in since enter returned that turn.
func (g *chainGate) still(turn uint64) bool { return g.turn.Load() == turn }

// share is a snapshot of the store between two commits.
func (s *Store) share() *shared {
	for {
		turn, before := s.chain.enter()
		if before != nil {
			return before
		}
		now := s.newShared()
		if s.chain.still(turn) {
			return now
		}
		_ = now.release() // of a snapshot without readers it can't fail
	}
}

// beginChain begins to take in a chain: readers see the store as it is now until endChain.
func (s *Store) beginChain() (*shared, error) {
	before := s.newShared()
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	if s.chain.before != nil {
		return nil, errors.Join(errors.New("batchlog: bug: two chains at once"), before.release())
	}
	s.chain.before = before
	s.chain.turn.Add(1)
	return before, nil
}

// abandonChain lets go of the snapshot of a chain that could not be taken in, when nobody reads any more.
func (s *Store) abandonChain() error {
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	if s.chain.before == nil {
		return nil
	}
	before := s.chain.before
	s.chain.before = nil
	return before.release()
}

func (s *Store) endChain(before *shared) {
	s.chain.mu.Lock()
	s.chain.before = nil
	s.chain.turn.Add(1)
	s.chain.mu.Unlock()
	_ = before.release() // should that fail the store is closing, or has failed and says so
}
