package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
)

var updateTests = []test{
	{"OwnWrites", testUpdateOwnWrites},
	{"Random", testUpdateRandom},
	{"Labels", testUpdateLabels},
	{"ErrorWritesNothing", testUpdateError},
	{"NothingWritten", testUpdateNothingWritten},
	{"OwnConflictError", testUpdateOwnConflictError},
	{"Cancelled", testUpdateCancelled},
	{"ReadsAreFixed", testUpdateReadsAreFixed},
}

// A transaction reads its own writes: puts, deletes and range deletes, on top of what the store has.
func testUpdateOwnWrites(t *testing.T, open Open) {
	db := plain(t, open)
	s, other := db.Space("s"), db.Space("s", "within")
	for _, k := range []string{"a", "b", "c", "d"} {
		put(t, s, batchlog.Key(k), "old")
	}
	put(t, other, batchlog.Key("b"), "other")
	id, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		see := func(k, want string) {
			t.Helper()
			v, err := tx.Get(s, batchlog.Key(k))
			if want == "" && !errors.Is(err, batchlog.ErrNotFound) || want != "" && (err != nil || string(v) != want) {
				t.Errorf("%s is %q, %v; want %q", k, v, err, want)
			}
		}
		if tx.Base() != 5 {
			t.Errorf("base is %d, want 5", tx.Base())
		}
		see("a", "old")
		tx.Put(s, batchlog.Key("a"), []byte("new"))
		see("a", "new")
		tx.Delete(s, batchlog.Key("a"))
		see("a", "")
		tx.DeleteRange(s, batchlog.Between(batchlog.Key("b"), batchlog.Key("d")))
		see("b", "")
		see("c", "")
		see("d", "old")
		tx.Put(s, batchlog.Key("c"), []byte("again"))
		see("c", "again")
		tx.Put(s, batchlog.Key("e"), []byte("e"))
		if v, err := tx.Get(other, batchlog.Key("b")); err != nil || string(v) != "other" {
			t.Errorf("b within is %q, %v", v, err)
		}
		got, err := collect(tx.Scan(s, batchlog.Range{}))
		wantPairs(t, "scan", got, []pair{{"c", "again"}, {"d", "old"}, {"e", "e"}})
		return err
	})
	if err != nil || id != 6 {
		t.Errorf("update is commit %d, %v", id, err)
	}
	wantPairs(t, "after it", scan(t, s, batchlog.Range{}), []pair{{"c", "again"}, {"d", "old"}, {"e", "e"}})
}

// Random transactions read and leave what they would in a map, scans in both directions over their own writes included.
func testUpdateRandom(t *testing.T, open Open) {
	db := plain(t, open)
	rng := rand.New(rand.NewPCG(9, 10))
	spaces := []*batchlog.Space{db.Root(), db.Space("a"), db.Space("a", "b")}
	m := newModel()
	for n := range 80 {
		keep := rng.IntN(5) > 0
		var inside *model
		stop := errors.New("not this one")
		_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
			inside = m.clone()
			for range rng.IntN(20) {
				switch s := spaces[rng.IntN(len(spaces))]; rng.IntN(4) {
				case 0:
					checkTxGet(t, tx, inside, s, randomKey(rng))
				case 1:
					checkTxScan(t, rng, tx, inside, s)
				default:
					randomOp(rng, tx, inside, spaces)
				}
			}
			if !keep {
				return stop
			}
			return nil
		})
		switch {
		case keep:
			check(t, err)
			m = inside
		case !errors.Is(err, stop):
			t.Fatalf("update returns %v, want the error of its function", err)
		}
		s := spaces[rng.IntN(len(spaces))]
		wantPairs(t, fmt.Sprintf("space %s after %d updates", s, n+1), scan(t, s, batchlog.Range{}), m.scan(s, batchlog.Range{}, false))
	}
}

func checkTxGet(t *testing.T, tx *batchlog.Tx, m *model, s *batchlog.Space, k batchlog.Key) {
	t.Helper()
	got, err := tx.Get(s, k)
	want, ok := m.of(s)[string(k)]
	if ok != (err == nil) || string(got) != want || err != nil && !errors.Is(err, batchlog.ErrNotFound) {
		t.Errorf("get %q of %s: %q, %v; want %q, %t", k, s, got, err, want, ok)
	}
}

// checkTxScan scans a random range in a random direction, sometimes only the beginning.
func checkTxScan(t *testing.T, rng *rand.Rand, tx *batchlog.Tx, m *model, s *batchlog.Space) {
	t.Helper()
	r, reverse := randomRange(rng), rng.IntN(2) == 0
	var opts []batchlog.ReadOption
	if reverse {
		opts = append(opts, batchlog.ScanReverse())
	}
	want := m.scan(s, r, reverse)
	limit := len(want) + 1
	if rng.IntN(3) == 0 {
		limit = 1 + rng.IntN(limit)
	}
	var got []pair
	for e, err := range tx.Scan(s, r, opts...) {
		check(t, err)
		if got = append(got, pair{string(e.Key), string(e.Value)}); len(got) == limit {
			break
		}
	}
	wantPairs(t, fmt.Sprintf("scan of %s, %q to %q, reverse %t", s, r.Low, r.High, reverse), got, want[:min(limit, len(want))])
}

// Labels of a transaction come with its commit.
func testUpdateLabels(t *testing.T, open Open) {
	db := plain(t, open)
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		tx.SetLabel("actor", "eve")
		tx.Put(db.Space("s"), batchlog.K("k"), nil)
		return nil
	})
	check(t, err)
	if c := follow(t, db, batchlog.TailOptions{}, 1)[0]; c.Labels["actor"] != "eve" {
		t.Errorf("labels are %q", c.Labels)
	}
}

// A transaction whose function fails writes nothing, and returns that error.
func testUpdateError(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	ours := errors.New("ours")
	tries := 0
	id, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		tries++
		tx.Put(s, batchlog.K("k"), nil)
		return fmt.Errorf("refused: %w", ours)
	})
	if id != 0 || !errors.Is(err, ours) || tries != 1 {
		t.Errorf("commit %d, %v, %d tries", id, err, tries)
	}
	wantAbsent(t, s, batchlog.K("k"))
	if head(t, db) != 0 {
		t.Errorf("head is %d", head(t, db))
	}
}

// A transaction that writes nothing has no commit and id 0, whatever it has read.
func testUpdateNothingWritten(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "v")
	for name, fn := range map[string]func(tx *batchlog.Tx) error{
		"nothing": func(tx *batchlog.Tx) error { return nil },
		"reads":   func(tx *batchlog.Tx) error { _, err := collect(tx.Scan(s, batchlog.Range{})); return err },
		"label":   func(tx *batchlog.Tx) error { tx.SetLabel("l", "v"); return nil },
	} {
		if id, err := db.Update(within(t), fn); id != 0 || err != nil {
			t.Errorf("%s: commit %d, %v; want 0", name, id, err)
		}
	}
	if got := head(t, db); got != 1 {
		t.Errorf("head is %d, want 1", got)
	}
}

// An ErrConflict that the function returns itself is its own affair: it is handed on, not tried again.
func testUpdateOwnConflictError(t *testing.T, open Open) {
	db := plain(t, open)
	tries := 0
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error { tries++; return batchlog.ErrConflict })
	if !errors.Is(err, batchlog.ErrConflict) || tries != 1 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

// A transaction ends with its context, also one that keeps losing, and writes nothing then.
func testUpdateCancelled(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	ctx, cancel := context.WithCancel(within(t))
	tries := 0
	_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
		if tries++; tries == 3 {
			cancel()
		}
		_, _ = tx.Get(s, batchlog.K("k"))
		if tries <= 4 { // protected, it would wait for itself
			if _, err := s.Put(t.Context(), batchlog.K("k"), nil); err != nil {
				return err
			}
		}
		tx.Put(s, batchlog.K("out"), nil)
		return nil
	})
	cancel()
	wantErr(t, "update", err, context.Canceled)
	if tries != 3 {
		t.Errorf("%d tries, want 3", tries)
	}
	wantAbsent(t, s, batchlog.K("out"))
}

// All that a transaction reads is of one state, commits meanwhile or not.
func testUpdateReadsAreFixed(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "1")
	tries := 0
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		tries++
		before, err := tx.Get(s, batchlog.K("k"))
		if err != nil {
			return err
		}
		if tries == 1 {
			put(t, s, batchlog.K("k"), "2")
		}
		after, err := tx.Get(s, batchlog.K("k"))
		if err != nil {
			return err
		}
		pairs, err := collect(tx.Scan(s, batchlog.Range{}))
		if string(before) != string(after) || len(pairs) != 1 || pairs[0].value != string(before) {
			t.Errorf("reads %q, then %q, then scans %v", before, after, pairs)
		}
		return err
	})
	check(t, err)
}
