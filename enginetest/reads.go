package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
)

var readTests = []test{
	{"NotFound", testReadNotFound},
	{"OwnWrites", testReadOwnWrites},
	{"OthersWrites", testReadOthersWrites},
	{"ViewFixed", testViewFixed},
	{"ViewsRandom", testViewsRandom},
	{"ViewClosed", testViewClosed},
	{"ScanRandom", testScanRandom},
	{"ScanMany", testScanMany},
	{"ScanBrokenOff", testScanBrokenOff},
	{"ScanIsOneMoment", testScanIsOneMoment},
	{"ScanCancelled", testScanCancelled},
	{"SafeToKeep", testReadSafeToKeep},
	{"ValuesAreTheCallers", testReadValuesAreTheCallers},
}

// A key without a value is ErrNotFound, in a space that nobody has written to as well.
func testReadNotFound(t *testing.T, open Open) {
	db := plain(t, open)
	wantAbsent(t, db.Space("none"), batchlog.K("k"))
	put(t, db.Space("some"), batchlog.K("k"), "v")
	wantAbsent(t, db.Space("some"), batchlog.K("l"))
	wantAbsent(t, db.Space("none"), batchlog.K("k"))
	v, err := db.View(within(t))
	check(t, err)
	defer v.Close()
	_, err = v.Get(db.Space("some"), batchlog.K("l"))
	wantErr(t, "get of a view", err, batchlog.ErrNotFound)
	if got := scan(t, db.Space("none"), batchlog.Range{}); len(got) != 0 {
		t.Errorf("scan of an empty space yields %q", got)
	}
}

// Whoever reads after a write was acknowledged sees it: by Get, Scan, View and Update, every time.
func testReadOwnWrites(t *testing.T, open Open) {
	db := plain(t, open)
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			s := db.Space("w", w)
			for n := range 40 {
				k, want := batchlog.K(n%3), fmt.Sprint(n)
				id, err := s.Put(t.Context(), k, []byte(want))
				if err != nil {
					t.Error(err)
					return
				}
				if err := seen(t.Context(), db, s, n, k, want, id); err != nil {
					t.Errorf("worker %d, write %d: %v", w, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// seen reads k in one of several ways and says what is wrong with the answer, given that commit id set it to want.
func seen(ctx context.Context, db *batchlog.DB, s *batchlog.Space, way int, k batchlog.Key, want string, id batchlog.ID) error {
	var got []byte
	var err error
	switch way % 5 {
	case 0:
		got, err = s.Get(ctx, k)
	case 1:
		for e, scanErr := range s.Scan(ctx, batchlog.Range{Low: k}) {
			got, err = e.Value, scanErr
			break
		}
	case 2:
		var v *batchlog.View
		if v, err = db.View(ctx); err != nil {
			return err
		}
		defer v.Close()
		if v.ID() < id {
			return fmt.Errorf("view at %d after commit %d", v.ID(), id)
		}
		got, err = v.Get(s, k)
	case 3:
		_, err = db.Update(ctx, func(tx *batchlog.Tx) (err error) {
			got, err = tx.Get(s, k)
			return err
		})
	default:
		got, err = s.Get(ctx, k, batchlog.AtLeast(id))
	}
	if err != nil || string(got) != want {
		return fmt.Errorf("way %d: %q, %w; want %q", way%5, got, err, want)
	}
	return nil
}

// The same for the writes of others, when they have told of them.
func testReadOthersWrites(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	told := make(chan int)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(told)
		for n := range 200 {
			if _, err := s.Put(t.Context(), batchlog.K("k"), fmt.Append(nil, n)); err != nil {
				t.Error(err)
				return
			}
			told <- n
		}
	})
	for n := range told {
		got, err := s.Get(within(t), batchlog.K("k"))
		var now int
		if _, scanErr := fmt.Sscan(string(got), &now); err != nil || scanErr != nil || now < n {
			t.Errorf("after write %d a read yields %q, %v", n, got, err)
			for range told { // let the writer end
				continue
			}
		}
	}
	wg.Wait()
}

// A view shows one state for as long as it is open, whatever is written, and its id says which.
func testViewFixed(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 10 {
		put(t, s, batchlog.K(n), "old")
	}
	v, err := db.View(within(t))
	check(t, err)
	defer v.Close()
	if v.ID() != 10 {
		t.Errorf("view is at %d, want 10", v.ID())
	}
	want, err := collect(v.Scan(s, batchlog.Range{}))
	check(t, err)
	for n := range 20 {
		var b batchlog.Batch
		switch n % 4 {
		case 0:
			b.DeleteRange(s, batchlog.Range{})
		case 1:
			b.Delete(s, batchlog.K(n))
		default:
			b.Put(s, batchlog.K(n), []byte("new"))
		}
		write(t, db, &b)
		got, err := collect(v.Scan(s, batchlog.Range{}))
		check(t, err)
		wantPairs(t, "view", got, want)
		if one, err := v.Get(s, batchlog.K(3)); err != nil || string(one) != "old" {
			t.Errorf("view has %q, %v", one, err)
		}
		if v.ID() != 10 {
			t.Errorf("view is at %d now", v.ID())
		}
	}
	later, err := db.View(within(t))
	check(t, err)
	defer later.Close()
	if later.ID() != 30 {
		t.Errorf("later view is at %d, want 30", later.ID())
	}
}

// Several views at a time, each against the model as it was when the view was taken.
func testViewsRandom(t *testing.T, open Open) {
	db := plain(t, open)
	rng := rand.New(rand.NewPCG(11, 12))
	spaces := []*batchlog.Space{db.Space("a"), db.Space("a", "b"), db.Root()}
	m := newModel()
	type held struct {
		v *batchlog.View
		m *model
	}
	var views []held
	for range 100 {
		var b batchlog.Batch
		for range rng.IntN(6) {
			randomOp(rng, &b, m, spaces)
		}
		id := write(t, db, &b)
		if rng.IntN(4) == 0 {
			v, err := db.View(within(t))
			check(t, err)
			if v.ID() != id {
				t.Fatalf("view at %d, want %d", v.ID(), id)
			}
			views = append(views, held{v, m.clone()})
		}
		if len(views) > 4 {
			i := rng.IntN(len(views))
			check(t, views[i].v.Close())
			views = slices.Delete(views, i, i+1)
		}
		for _, h := range views {
			s, r, reverse := spaces[rng.IntN(len(spaces))], randomRange(rng), rng.IntN(2) == 0
			got, err := collect(h.v.Scan(s, r, direction(reverse)...))
			check(t, err)
			wantPairs(t, fmt.Sprintf("view at %d", h.v.ID()), got, h.m.scan(s, r, reverse))
		}
	}
	for _, h := range views {
		check(t, h.v.Close())
	}
}

// direction is the options of a scan.
func direction(reverse bool) []batchlog.ReadOption {
	if reverse {
		return []batchlog.ReadOption{batchlog.ScanReverse()}
	}
	return nil
}

// A view that is closed says so, and may be closed again; a scan that is under way ends with an error or as it would have.
func testViewClosed(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 50 {
		put(t, s, batchlog.K(n), "v")
	}
	v, err := db.View(within(t))
	check(t, err)
	n := 0
	for _, err := range v.Scan(s, batchlog.Range{}) {
		if err != nil {
			wantErr(t, "scan while the view is closed", err, batchlog.ErrClosed)
			break
		}
		if n++; n == 10 {
			check(t, v.Close())
		}
	}
	_, err = v.Get(s, batchlog.K(1))
	wantErr(t, "get", err, batchlog.ErrClosed)
	_, err = collect(v.Scan(s, batchlog.Range{}))
	wantErr(t, "scan", err, batchlog.ErrClosed)
	if err := v.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	wantValue(t, s, batchlog.K(1), "v")
}

// Scans of random ranges, in both directions, yield what a sorted map would.
func testScanRandom(t *testing.T, open Open) {
	db := plain(t, open)
	rng := rand.New(rand.NewPCG(13, 14))
	spaces := []*batchlog.Space{db.Root(), db.Space("a"), db.Space("a", 1)}
	m := newModel()
	for range 20 {
		var b batchlog.Batch
		for range 30 {
			randomOp(rng, &b, m, spaces)
		}
		write(t, db, &b)
		for range 20 {
			s, r, reverse := spaces[rng.IntN(len(spaces))], randomRange(rng), rng.IntN(2) == 0
			got := scan(t, s, r, direction(reverse)...)
			wantPairs(t, fmt.Sprintf("scan of %s, %q to %q, reverse %t", s, r.Low, r.High, reverse), got, m.scan(s, r, reverse))
		}
	}
}

// A scan of very many keys, larger than any buffer, yields all of them in order.
func testScanMany(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	const keys = 20000
	value := bytes.Repeat([]byte("v"), 100)
	for n := 0; n < keys; n += 1000 {
		var b batchlog.Batch
		for i := range 1000 {
			b.Put(s, batchlog.K(n+i), value)
		}
		write(t, db, &b)
	}
	for _, reverse := range []bool{false, true} {
		n := 0
		for e, err := range s.Scan(within(t), batchlog.Range{}, direction(reverse)...) {
			check(t, err)
			want := n
			if reverse {
				want = keys - 1 - n
			}
			if !bytes.Equal(e.Key, batchlog.K(want)) || !bytes.Equal(e.Value, value) {
				t.Fatalf("reverse %t: entry %d is %s", reverse, n, e.Key)
			}
			n++
		}
		if n != keys {
			t.Errorf("reverse %t: %d keys, want %d", reverse, n, keys)
		}
	}
}

// A scan may be broken off anywhere, and begun again.
func testScanBrokenOff(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 20 {
		put(t, s, batchlog.K(n), "v")
	}
	entries := s.Scan(within(t), batchlog.Range{})
	for stop := range 20 {
		n := 0
		for _, err := range entries {
			check(t, err)
			if n == stop {
				break
			}
			n++
		}
		if n != stop {
			t.Errorf("broken off after %d, want %d", n, stop)
		}
	}
}

// A scan shows one moment: what is written while it runs doesn't show, not even to who writes it.
func testScanIsOneMoment(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 100 {
		put(t, s, batchlog.K(n), "old")
	}
	for round, reverse := range []bool{false, true} {
		want := scan(t, s, batchlog.Range{}, direction(reverse)...)
		var got []pair
		for e, err := range s.Scan(within(t), batchlog.Range{}, direction(reverse)...) {
			check(t, err)
			if n := len(got); n%10 == 0 {
				var b batchlog.Batch
				b.Put(s, batchlog.K(n+5), []byte("new"))
				b.Put(s, batchlog.K(1000*round+1000+n), []byte("new"))
				b.Delete(s, batchlog.K(n+6))
				write(t, db, &b)
			}
			got = append(got, pair{string(e.Key), string(e.Value)})
		}
		wantPairs(t, fmt.Sprintf("reverse %t", reverse), got, want)
	}
}

// A scan ends with its context, in the middle too.
func testScanCancelled(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	var b batchlog.Batch
	for n := range 5000 {
		b.Put(s, batchlog.K(n), nil)
	}
	write(t, db, &b)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, last := 0, error(nil)
	for _, err := range s.Scan(ctx, batchlog.Range{}) {
		if last = err; err != nil {
			break
		}
		if n++; n == 10 {
			cancel()
		}
	}
	wantErr(t, "scan", last, context.Canceled)
	if n > 2000 {
		t.Errorf("%d entries after the cancellation", n)
	}
	for _, err := range s.Scan(ctx, batchlog.Range{}) {
		wantErr(t, "scan with a context that has ended", err, context.Canceled)
	}
	_, err := s.Get(ctx, batchlog.K(1))
	wantErr(t, "get", err, context.Canceled)
	_, err = db.View(ctx)
	wantErr(t, "view", err, context.Canceled)
}

// Keys and values that were handed out stay as they are: those of a scan and of a tail, whatever comes after.
func testReadSafeToKeep(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 300 {
		put(t, s, batchlog.K(n), fmt.Sprintf("value %d", n))
	}
	var entries []batchlog.Entry
	for e, err := range s.Scan(within(t), batchlog.Range{}) {
		check(t, err)
		entries = append(entries, e)
	}
	commits := follow(t, db, batchlog.TailOptions{}, 300)
	var ops []batchlog.Op
	for _, c := range commits {
		for op, err := range c.Ops() {
			check(t, err)
			ops = append(ops, op)
		}
	}
	for n := range 300 { // overwrite everything, and read it all again
		put(t, s, batchlog.K(n), "XXXXXXXXXX")
	}
	scan(t, s, batchlog.Range{})
	follow(t, db, batchlog.TailOptions{}, 600)
	for n := range 300 {
		want := fmt.Sprintf("value %d", n)
		if !bytes.Equal(entries[n].Key, batchlog.K(n)) || string(entries[n].Value) != want {
			t.Fatalf("entry %d is %s=%q now", n, entries[n].Key, entries[n].Value)
		}
		if !bytes.Equal(ops[n].Key, batchlog.K(n)) || string(ops[n].Value) != want {
			t.Fatalf("op %d is %s=%q now", n, ops[n].Key, ops[n].Value)
		}
		if got := describe(t, commits[n]); len(got) != 1 || got[0] != fmt.Sprintf("put s %q %q", string(batchlog.K(n)), want) {
			t.Fatalf("commit %d is %q now", n+1, got)
		}
	}
	// Appending to what was handed out doesn't reach what was handed out after it.
	for i := range entries[:299] {
		_ = append(entries[i].Key, "YYYYYYYYYYYYYYYY"...)
		_ = append(entries[i].Value, "YYYYYYYYYYYYYYYY"...)
		if string(entries[i+1].Value) != fmt.Sprintf("value %d", i+1) {
			t.Fatalf("entry %d is %q now", i+1, entries[i+1].Value)
		}
	}
}

// The value that Get returns is the caller's to change.
func testReadValuesAreTheCallers(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "value")
	v, err := db.View(within(t))
	check(t, err)
	defer v.Close()
	for range 2 {
		one, err := s.Get(within(t), batchlog.K("k"))
		check(t, err)
		two, err := v.Get(s, batchlog.K("k"))
		check(t, err)
		if string(one) != "value" || string(two) != "value" {
			t.Fatalf("values are %q and %q", one, two)
		}
		copy(one, "XXXXX")
		copy(two, "XXXXX")
	}
	_, err = db.Update(within(t), func(tx *batchlog.Tx) error {
		tx.Put(s, batchlog.K("own"), []byte("value"))
		one, err := tx.Get(s, batchlog.K("own"))
		if err != nil {
			return err
		}
		copy(one, "XXXXX")
		return nil
	})
	check(t, err)
	wantValue(t, s, batchlog.K("own"), "value")
}
