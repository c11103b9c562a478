package store

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Inverses that are taken over again after a crash, from a store that was brought up anew, with other commits together in a block, take the place of what
// was left of the first time.
func TestCopyInversesAgain(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 9))
		maker := &inverseMaker{rng: rng, next: 1, chains: map[[16]byte][]stretch{}, large: 40}
		states := []model{{}}
		var records []wire.Record
		for range 60 {
			r := maker.record()
			records = append(records, r)
			state := maps.Clone(states[len(states)-1])
			state.applyTo(t, r)
			states = append(states, state)
		}
		sizes := inverseSizes{block: 300, part: 100, inline: 200, memory: 400, latest: 1000}
		brought := func() *Store {
			s := openUndo(t, vfs.NewMem(), sizes)
			for int(s.Applied()) < len(records) {
				apply(t, s, records[s.Applied():][:min(1+rng.IntN(20), len(records)-int(s.Applied()))]...)
			}
			return s
		}
		s := open(t, vfs.NewMem(), 0)
		apply(t, s, records...)
		take := func(from *Store, first, last batchlog.ID) {
			if err := s.CopyInverses(t.Context(), from, batchlog.IDRange{First: first, Last: last}); err != nil {
				t.Fatal(err)
			}
		}
		from := brought()
		take(from, 1, 60)
		if err := s.db.Delete(inverseRowKey(1), pebble.NoSync); err != nil { // it was interrupted right before the last write
			t.Fatal(err)
		}
		again := brought()
		end := blockEnd(t, again, 30)
		take(again, 1, end)
		take(again, end+1, 60)
		for id := batchlog.ID(1); id <= 60; id++ {
			got, err := readInverse(s, id)
			if want := wantInverse(states[id-1], states[id]); err != nil || !slices.Equal(got, want) {
				t.Fatalf("seed %d: inverse of commit %d: %s, %v", seed, id, difference(got, want), err)
			}
		}
		for range 30 {
			mustUndoAll(t, s, states, rng)
		}
		for _, s := range []*Store{s, from, again} {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// blockEnd is the last commit of the block that a commit is in.
func blockEnd(t *testing.T, s *Store, id batchlog.ID) batchlog.ID {
	t.Helper()
	it, err := s.inverseIter(id)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	it.First()
	b, err := iterBlock(it)
	if err != nil {
		t.Fatal(err)
	}
	return b.first + batchlog.ID(len(b.inverses)) - 1
}

// Of commits that are forgotten nothing stays but what is in a block with others.
func TestForgetInverses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 11))
	maker := &inverseMaker{rng: rng, next: 1, chains: map[[16]byte][]stretch{}, large: 300}
	s := openUndo(t, vfs.NewMem(), inverseSizes{block: 300, part: 100, inline: 200, memory: 400, latest: 1000})
	s.opts.InverseLimit = 2000
	for range 100 {
		apply(t, s, maker.record())
	}
	count := func(from, to batchlog.ID) (n int) {
		for _, r := range [][2][]byte{
			{inverseKey(from), inverseKey(to)}, {inversePartKey(from, 0), inversePartKey(to, 0)}, {tooLargeKey(from), tooLargeKey(to)}, {inverseRowKey(from), inverseRowKey(to)},
		} {
			it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: r[0], UpperBound: r[1]})
			if err != nil {
				t.Fatal(err)
			}
			for ok := it.First(); ok; ok = it.Next() {
				n++
			}
			if err := it.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	before, later := count(0, 60), count(60, 101)
	if err := s.ForgetInverses(60); err != nil {
		t.Fatal(err)
	}
	if early := count(0, 60); before < 20 || early != 1 || count(60, 101) != later { // the row goes on
		t.Errorf("of %d keys %d are left; later ones %d, were %d", before, early, count(60, 101), later)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What a backfill has made of a commit counts, also where its neighbours, and that it was too large before, are in the file beside the segment.
func TestCopyInversesMoved(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 13))
	maker := &inverseMaker{rng: rng, next: 1, chains: map[[16]byte][]stretch{}, large: 300}
	fs := vfs.NewMem()
	limited := testOptions(fs, 0)
	all := batchlog.IDRange{First: 1, Last: 60}
	limited.InverseLimit = 200
	limited.Beside = func(batchlog.ID) (batchlog.IDRange, string) { return all, "segment.inverses" }
	s, err := Open(limited)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetUndo(true)
	whole := openUndo(t, vfs.NewMem(), defaultInverseSizes)
	states := []model{{}}
	for range 60 {
		r := maker.record()
		state := maps.Clone(states[len(states)-1])
		state.applyTo(t, r)
		states = append(states, state)
		apply(t, s, r)
		apply(t, whole, r)
	}
	large, err := s.TooLarge()
	if err != nil || len(large) < 3 {
		t.Fatal(large, err)
	}
	if err := s.MoveInverses(t.Context(), all, "segment.inverses"); err != nil {
		t.Fatal(err)
	}
	for i, id := range large {
		if i%2 == 0 || i == len(large)-1 {
			alone := batchlog.IDRange{First: id, Last: id}
			if err := s.CopyInverses(t.Context(), whole, alone); err != nil {
				t.Fatal(err)
			}
		}
	}
	left, err := s.TooLarge()
	if err != nil || len(left) == 0 || len(left) == len(large) {
		t.Fatal(left, err)
	}
	for high := batchlog.ID(60); high > 0; high-- {
		low := high - 1
		for low > 0 && !slices.Contains(left, low) {
			low--
		}
		if slices.Contains(left, high) {
			continue
		}
		m := maps.Clone(states[high])
		err := s.EachInverse(t.Context(), low, high, func(_ batchlog.ID, ops []byte, count int) error {
			m.apply(t, wire.Record{Ops: ops, Count: count})
			return nil
		})
		if err != nil || !slices.Equal(m.in(keyPrefix, "\xff"), states[low].in(keyPrefix, "\xff")) {
			t.Fatalf("from %d back to %d: %v", high, low, err)
		}
	}
}
