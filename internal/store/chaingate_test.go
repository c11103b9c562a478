package store

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Who began to read before a chain was taken in, and ends after, is told to read again; who comes meanwhile is given the store as it was.
func TestChainGate(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	apply(t, s, newMaker(1).records(5, 3)...)
	turn, before := s.chain.enter()
	if before != nil || !s.chain.still(turn) {
		t.Fatal("a chain is taken in, and there is none")
	}
	taken, err := s.beginChain()
	if err != nil {
		t.Fatal(err)
	}
	if s.chain.still(turn) {
		t.Error("a reader from before takes what it read for whole")
	}
	during, before := s.chain.enter()
	if before != taken || during == turn {
		t.Errorf("a reader meanwhile is given %p in turn %d, want %p", before, during, taken)
	}
	if err := before.release(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Set([]byte("\xa0\x00half"), []byte("x"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	snap := snapshot(t, s)
	if _, err := snap.Get(t.Context(), []byte("\xa0\x00half")); err == nil {
		t.Error("a snapshot shows half of a chain")
	}
	if _, err := s.Get([]byte("\xa0\x00half")); err == nil {
		t.Error("a get shows half of a chain")
	}
	if _, err := s.beginChain(); err == nil {
		t.Error("two chains at once")
	}
	s.endChain(taken)
	if s.chain.still(turn) || s.chain.still(during) {
		t.Error("a reader from before takes what it read for whole, when the chain is there")
	}
	if _, err := s.Get([]byte("\xa0\x00half")); err != nil {
		t.Errorf("behind the chain: %v", err)
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
}
