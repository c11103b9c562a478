package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

var conflictTests = []test{
	{"Conflicts", testUpdateConflicts},
	{"NoConflict", testUpdateNoConflict},
	{"ScanBrokenOff", testUpdateScanBroken},
	{"WriteSkew", testUpdateWriteSkew},
	{"PhantomSkew", testUpdatePhantomSkew},
	{"Counter", testUpdateCounter},
	{"Adversary", testUpdateAdversary},
	{"ManyLosers", testUpdateManyLosers},
	{"SlowLoser", testUpdateSlowLoser},
	{"Ends", testUpdateEnds},
	{"Protects", testProtects},
	{"LoserReadsOther", testUpdateReadsOther},
}

// A transaction runs again when a commit came between that changed what it read: a key that was there, one that was not,
// a range of keys into which one came, from which one went, or out of which all were deleted.
func testUpdateConflicts(t *testing.T, open Open) {
	k, l := batchlog.Key("k"), batchlog.Key("l")
	readKey := func(key batchlog.Key) func(tx *batchlog.Tx, s *batchlog.Space) {
		return func(tx *batchlog.Tx, s *batchlog.Space) { _, _ = tx.Get(s, key) }
	}
	readRange := func(r batchlog.Range, opts ...batchlog.ReadOption) func(tx *batchlog.Tx, s *batchlog.Space) {
		return func(tx *batchlog.Tx, s *batchlog.Space) { _, _ = collect(tx.Scan(s, r, opts...)) }
	}
	for _, c := range []struct {
		name    string
		read    func(tx *batchlog.Tx, s *batchlog.Space)
		between func(b *batchlog.Batch, s *batchlog.Space)
	}{
		{"KeyPut", readKey(k), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, k, []byte("2")) }},
		{"KeyPutSame", readKey(k), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, k, []byte("1")) }},
		{"KeyDeleted", readKey(k), func(b *batchlog.Batch, s *batchlog.Space) { b.Delete(s, k) }},
		{"KeyInDeletedRange", readKey(k), func(b *batchlog.Batch, s *batchlog.Space) { b.DeleteRange(s, batchlog.Range{}) }},
		{"KeyAtLowOfDeletedRange", readKey(k), func(b *batchlog.Batch, s *batchlog.Space) { b.DeleteRange(s, batchlog.Between(k, l)) }},
		{"AbsentKeyPut", readKey(l), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, l, nil) }},
		{"EmptyKeyPut", readKey(nil), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, nil, nil) }},
		{"Phantom", readRange(batchlog.Range{}), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, l, nil) }},
		{"PhantomInEmptyRange", readRange(batchlog.Between(l, batchlog.Key("z"))), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, batchlog.Key("m"), nil) }},
		{"PhantomReverse", readRange(batchlog.Range{}, batchlog.ScanReverse()), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, batchlog.Key("a"), nil) }},
		{"PhantomAtLow", readRange(batchlog.Between(l, batchlog.Key("z"))), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, l, nil) }},
		{"PhantomFF", readRange(batchlog.Range{Low: l}), func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, batchlog.Key{0xff, 0xff}, nil) }},
		{"RangeKeyDeleted", readRange(batchlog.Range{}), func(b *batchlog.Batch, s *batchlog.Space) { b.Delete(s, k) }},
		{"RangeOverRange", readRange(batchlog.Between(k, l)), func(b *batchlog.Batch, s *batchlog.Space) {
			b.DeleteRange(s, batchlog.Between(batchlog.Key("a"), batchlog.Key("kk")))
		}},
		{"RangeInRange", readRange(batchlog.Range{}), func(b *batchlog.Batch, s *batchlog.Space) { b.DeleteRange(s, batchlog.Between(k, l)) }},
		{"LastOfManyOps", readKey(k), func(b *batchlog.Batch, s *batchlog.Space) {
			for n := range 300 {
				b.Put(s, batchlog.K(n), nil)
			}
			b.Delete(s, k)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := plain(t, open)
			s := db.Space("s")
			put(t, s, k, "1")
			tries, id := updateWhile(t, db, s, c.read, c.between)
			if tries != 2 || id != 3 {
				t.Errorf("after %d tries it is commit %d; want 2 tries and commit 3", tries, id)
			}
			wantValue(t, db.Space("out"), batchlog.K("k"), "2")
		})
	}
}

// updateWhile updates a key with how often it has tried, by a transaction that reads s while others write there, and returns that and the commit.
func updateWhile(t *testing.T, db *batchlog.DB, s *batchlog.Space, read func(*batchlog.Tx, *batchlog.Space), between func(*batchlog.Batch, *batchlog.Space)) (tries int, id batchlog.ID) {
	t.Helper()
	id, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		tries++
		read(tx, s)
		if tries == 1 {
			var b batchlog.Batch
			between(&b, s)
			if _, err := db.Write(t.Context(), &b); err != nil {
				return err
			}
		}
		tx.Put(db.Space("out"), batchlog.K("k"), fmt.Append(nil, tries))
		return nil
	})
	check(t, err)
	return tries, id
}

// What a transaction has not read may change under it.
func testUpdateNoConflict(t *testing.T, open Open) {
	k := batchlog.Key("k")
	for _, c := range []struct {
		name    string
		read    func(tx *batchlog.Tx, s *batchlog.Space)
		between func(b *batchlog.Batch, s *batchlog.Space)
	}{
		{"OtherKey", func(tx *batchlog.Tx, s *batchlog.Space) { _, _ = tx.Get(s, k) }, func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, batchlog.Key("l"), nil) }},
		{"OtherSpace", func(tx *batchlog.Tx, s *batchlog.Space) { _, _ = collect(tx.Scan(s, batchlog.Range{})) }, func(b *batchlog.Batch, s *batchlog.Space) {
			b.Put(s.Space("within"), k, nil)
			b.DeleteRange(s.Space("within"), batchlog.Range{})
		}},
		{"BeforeRange", func(tx *batchlog.Tx, s *batchlog.Space) { _, _ = collect(tx.Scan(s, batchlog.Range{Low: k})) }, func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, batchlog.Key("a"), nil) }},
		{"AtHighOfRange", func(tx *batchlog.Tx, s *batchlog.Space) { _, _ = collect(tx.Scan(s, batchlog.Range{High: k})) }, func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, k, nil) }},
		{"AtHighOfDeletedRange", func(tx *batchlog.Tx, s *batchlog.Space) { _, _ = tx.Get(s, k) }, func(b *batchlog.Batch, s *batchlog.Space) { b.DeleteRange(s, batchlog.Range{High: k}) }},
		{"Blind", func(tx *batchlog.Tx, s *batchlog.Space) {}, func(b *batchlog.Batch, s *batchlog.Space) { b.DeleteRange(s, batchlog.Range{}) }},
		{"OwnWriteIsNoRead", func(tx *batchlog.Tx, s *batchlog.Space) { tx.Put(s, k, nil); _, _ = tx.Get(s, k) }, func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, k, []byte("2")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := plain(t, open)
			s := db.Space("s")
			put(t, s, k, "1")
			tries, _ := updateWhile(t, db, s, c.read, c.between)
			if tries != 1 {
				t.Errorf("%d tries, want 1", tries)
			}
		})
	}
}

// A scan that is broken off has read up to there: what changes before conflicts, what changes behind does not.
func testUpdateScanBroken(t *testing.T, open Open) {
	for _, c := range []struct {
		name    string
		reverse bool
		key     string // put between, after two of the keys a c e g were read
		tries   int
	}{
		{"Before", false, "b", 2}, {"LastRead", false, "c", 2}, {"Behind", false, "d", 1}, {"Unread", false, "e", 1},
		{"ReverseBefore", true, "f", 2}, {"ReverseLastRead", true, "e", 2}, {"ReverseBehind", true, "d", 1}, {"ReverseUnread", true, "c", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := plain(t, open)
			s := db.Space("s")
			for _, k := range []string{"a", "c", "e", "g"} {
				put(t, s, batchlog.Key(k), "v")
			}
			var opts []batchlog.ReadOption
			if c.reverse {
				opts = append(opts, batchlog.ScanReverse())
			}
			tries := 0
			_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
				tries++
				read := 0
				for _, err := range tx.Scan(s, batchlog.Range{}, opts...) {
					if err != nil {
						return err
					}
					if read++; read == 2 {
						break
					}
				}
				if tries == 1 {
					if _, err := s.Put(t.Context(), batchlog.Key(c.key), []byte("2")); err != nil {
						return err
					}
				}
				tx.Put(db.Space("out"), nil, nil)
				return nil
			})
			check(t, err)
			if tries != c.tries {
				t.Errorf("%d tries, want %d", tries, c.tries)
			}
		})
	}
}

// Two transactions that read both keys and each write one of them do not both see the old state: no write skew.
func testUpdateWriteSkew(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("oncall")
	for round := range 20 {
		names := []batchlog.Key{batchlog.K(round, "a"), batchlog.K(round, "b")}
		for _, n := range names {
			put(t, s, n, "yes")
		}
		var ready sync.WaitGroup
		ready.Add(2)
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				first := true
				_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
					on := 0
					for _, n := range names {
						v, err := tx.Get(s, n)
						if err != nil {
							return err
						}
						if string(v) == "yes" {
							on++
						}
					}
					if first { // both have read before either commits
						first = false
						ready.Done()
						ready.Wait()
					}
					if on == 2 { // one must stay
						tx.Put(s, names[i], []byte("no"))
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		on := 0
		for _, p := range scan(t, s, batchlog.Prefix(round)) {
			if p.value == "yes" {
				on++
			}
		}
		if on != 1 {
			t.Fatalf("round %d: %d of 2 are left, want 1", round, on)
		}
	}
}

// The same with rows that aren't there yet: each inserts only if it has seen none.
func testUpdatePhantomSkew(t *testing.T, open Open) {
	db := plain(t, open)
	for round := range 20 {
		s := db.Space("booking", round)
		var ready, wg sync.WaitGroup
		const n = 4
		ready.Add(n)
		for i := range n {
			wg.Go(func() {
				first := true
				_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
					got, err := collect(tx.Scan(s, batchlog.Range{}))
					if err != nil {
						return err
					}
					if first {
						first = false
						ready.Done()
						ready.Wait()
					}
					if len(got) == 0 {
						tx.Put(s, batchlog.K(i), nil)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := scan(t, s, batchlog.Range{}); len(got) != 1 {
			t.Fatalf("round %d: %d bookings, want 1", round, len(got))
		}
	}
}

// addOne adds one to a number, in a transaction.
func addOne(ctx context.Context, s *batchlog.Space, db *batchlog.DB, k batchlog.Key) (batchlog.ID, error) {
	return db.Update(ctx, func(tx *batchlog.Tx) error {
		v, err := tx.Get(s, k)
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(v)) // 0 without a value
		tx.Put(s, k, strconv.AppendInt(nil, int64(n)+1, 10))
		return nil
	})
}

// Many who count on one key lose no count.
func testUpdateCounter(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if _, err := addOne(within(t), s, db, batchlog.K("n")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantValue(t, s, batchlog.K("n"), strconv.Itoa(workers*each))
	if got := head(t, db); got != workers*each {
		t.Errorf("%d commits, want %d", got, workers*each)
	}
}

// A transaction ends although somebody changes what it reads, again and again, for as long as it runs.
func testUpdateAdversary(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if _, err := s.Put(t.Context(), batchlog.K(i), strconv.AppendInt(nil, int64(n), 10)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	for round := range 5 {
		tries := 0
		_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
			tries++
			entries, err := collect(tx.Scan(s, batchlog.Range{}))
			if err != nil {
				return err
			}
			// The others come between for certain: this waits until one has, while it may.
			base := tx.Base()
			for range 1000 {
				h, err := db.Head(t.Context())
				if err != nil {
					return err
				}
				if h > base+2 {
					break
				}
			}
			tx.Put(db.Space("out"), batchlog.K(round), fmt.Append(nil, len(entries)))
			return nil
		})
		check(t, err)
		if tries > 20 {
			t.Errorf("%d tries", tries)
		}
	}
}

// Many transactions that all want the same end as well, each once.
func testUpdateManyLosers(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	var wg sync.WaitGroup
	const n = 24
	for i := range n {
		wg.Go(func() {
			_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
				got, err := collect(tx.Scan(s, batchlog.Range{}))
				if err != nil {
					return err
				}
				tx.Put(s, batchlog.K(len(got)), fmt.Append(nil, i))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := scan(t, s, batchlog.Range{})
	seen := map[string]bool{}
	for i, p := range got {
		if p.key != string(batchlog.K(i)) || seen[p.value] {
			t.Errorf("entry %d is %q=%s", i, p.key, p.value)
		}
		seen[p.value] = true
	}
	if len(got) != n {
		t.Errorf("%d entries, want %d", len(got), n)
	}
}

// A transaction that is slow, and reads what others write all the time, gets through in a few tries. Who writes something else is not held back by it: in
// each try such writes come and go while its function waits for them.
func testUpdateSlowLoser(t *testing.T, open Open) {
	db := plain(t, open)
	hot, other, out := db.Space("hot"), db.Space("other"), db.Space("out")
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if _, err := hot.Put(within(t), batchlog.K(i), strconv.AppendInt(nil, int64(n), 10)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	tries := 0
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		if tries++; tries > 12 {
			return errors.New("it takes no end")
		}
		if _, err := collect(tx.Scan(hot, batchlog.Range{})); err != nil {
			return err
		}
		if tries <= 3 { // for certain
			if _, err := hot.Put(within(t), batchlog.K(0), nil); err != nil {
				return err
			}
		}
		for n := range 20 { // by others: this waits for them as for anything outside
			done := make(chan error, 1)
			go func() {
				_, err := other.Put(within(t), batchlog.K(tries, n), nil)
				done <- err
			}()
			if err := <-done; err != nil {
				return err
			}
		}
		tx.Put(out, batchlog.K("k"), nil)
		return nil
	})
	check(t, err)
}

// A transaction whose function itself comes before it each time ends, with an error that says by what it lost and how often it was tried.
func testUpdateEnds(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	tries := 0
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		tries++
		if _, err := tx.Get(s, batchlog.K(tries)); !errors.Is(err, batchlog.ErrNotFound) { // not what was protected
			return fmt.Errorf("key %d is there: %w", tries, err)
		}
		if _, err := s.Put(within(t), batchlog.K(tries), nil); err != nil {
			return err
		}
		tx.Put(s, batchlog.K("out"), nil)
		return nil
	})
	var lost *batchlog.ConflictError
	if !errors.Is(err, batchlog.ErrConflict) || !errors.As(err, &lost) || lost.Tries != tries || tries < 2 || lost.ID != batchlog.ID(tries) {
		t.Errorf("%v, after %d tries", err, tries)
	}
	wantAbsent(t, s, batchlog.K("out"))
}

// What is protected others can't write until that is over, everything else they can; then they come first.
func testProtects(t *testing.T, open Open) {
	db := plain(t, open)
	q, ok := db.Inside().Engine().(batchlog.Queuer)
	if !ok {
		t.Skip("the engine has no tickets")
	}
	s := db.Space("s")
	at := func(key string) []byte { return slices.Concat(s.Stored(), batchlog.K(key)) }
	ticket, release, err := q.Protect(within(t), 0, &waist.Reads{Keys: [][]byte{at("a")}})
	check(t, err)
	put(t, s, batchlog.K("b"), "1")
	held := make(chan error, 1)
	go func() {
		_, err := s.Put(within(t), batchlog.K("a"), nil)
		held <- err
	}()
	low, high := at("m"), at("n")
	again, _, err := q.Protect(within(t), ticket, &waist.Reads{Ranges: []wire.KeyRange{{Low: low, High: high}}})
	if err != nil || again != ticket {
		t.Fatal(again, err)
	}
	put(t, s, batchlog.K("b"), "2")
	select {
	case err := <-held:
		t.Fatalf("written: %v", err)
	default:
	}
	if got := head(t, db); got != 2 {
		t.Errorf("head is %d", got)
	}
	release()
	next, release, err := q.Protect(within(t), ticket, &waist.Reads{Keys: [][]byte{at("a")}})
	if err != nil || next == ticket {
		t.Fatal(next, err)
	}
	release()
	check(t, <-held)
	wantValue(t, s, batchlog.K("a"), "")
}

// A transaction that reads something else at each try, as what it reads says, gets through as well: what it has read stays protected.
func testUpdateReadsOther(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("pointer"), "0")
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for n := w; !stop.Load(); n++ {
				b := &batchlog.Batch{}
				b.Put(s, batchlog.K("pointer"), strconv.AppendInt(nil, int64(n%7), 10))
				b.Put(s, batchlog.K(n%7), nil)
				if _, err := db.Write(within(t), b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	for range 3 {
		_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
			at, err := tx.Get(s, batchlog.K("pointer"))
			if err != nil {
				return err
			}
			base := tx.Base()
			for range 200 { // so that the others come between, while they may
				if h, err := db.Head(t.Context()); err != nil || h > base+1 {
					break
				}
			}
			n, err := strconv.Atoi(string(at))
			if err != nil {
				return err
			}
			if _, err := tx.Get(s, batchlog.K(n)); err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			tx.Put(db.Space("out"), batchlog.K(n), nil)
			return nil
		})
		check(t, err)
	}
}
