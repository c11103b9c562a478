package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

var batchTests = []test{
	{"OneCommit", testBatchOneCommit},
	{"LaterOpsWin", testBatchLaterOpsWin},
	{"Random", testBatchRandom},
	{"Empty", testBatchEmpty},
	{"Labels", testBatchLabels},
	{"CopiesKeysAndValues", testBatchCopies},
	{"Reuse", testBatchReuse},
	{"IDsDense", testIDsDense},
	{"IDsDenseOverReopen", testIDsDenseOverReopen},
	{"TimesNeverGoBack", testTimesNeverGoBack},
	{"CancelledWrite", testCancelledWrite},
	{"AtomicToReaders", testAtomicToReaders},
}

// A batch over several spaces is one commit with one id, its ops in the order they were added.
func testBatchOneCommit(t *testing.T, open Open) {
	db := plain(t, open)
	a, b := db.Space("a"), db.Space("b", "c")
	var batch batchlog.Batch
	batch.Put(a, batchlog.K("k"), []byte("1"))
	batch.Put(b, batchlog.K("k"), []byte("2"))
	batch.Delete(a, batchlog.K("x"))
	batch.DeleteRange(b, batchlog.Between(batchlog.K("x"), batchlog.K("z")))
	batch.DeleteRange(a, batchlog.Range{Low: batchlog.K("x")})
	if id := write(t, db, &batch); id != 1 {
		t.Fatalf("first commit is %d", id)
	}
	wantValue(t, a, batchlog.K("k"), "1")
	wantValue(t, b, batchlog.K("k"), "2")
	c := follow(t, db, batchlog.TailOptions{}, 1)[0]
	want := []string{
		fmt.Sprintf("put a %q %q", string(batchlog.K("k")), "1"),
		fmt.Sprintf("put b/c %q %q", string(batchlog.K("k")), "2"),
		fmt.Sprintf("del a %q", string(batchlog.K("x"))),
		fmt.Sprintf("delRange b/c %q %q", string(batchlog.K("x")), string(batchlog.K("z"))),
		fmt.Sprintf("delRange a %q -", string(batchlog.K("x"))),
	}
	if got := describe(t, c); c.ID != 1 || c.Len() != len(want) || !slices.Equal(got, want) {
		t.Errorf("commit %d has %d ops: %q, want %q", c.ID, c.Len(), got, want)
	}
}

// The last op on a key wins, range deletes included: what is put after one stays, what was put before goes.
func testBatchLaterOpsWin(t *testing.T, open Open) {
	s := "s"
	k, other := batchlog.K("k"), batchlog.K("other")
	all, around := batchlog.Range{}, batchlog.Between(batchlog.K("a"), batchlog.K("l"))
	for _, c := range []struct {
		name string
		fill func(b *batchlog.Batch, s *batchlog.Space)
		want string // of k; "" for none
	}{
		{"PutPut", func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, k, []byte("1")); b.Put(s, k, []byte("2")) }, "2"},
		{"PutDelete", func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, k, []byte("1")); b.Delete(s, k) }, ""},
		{"DeletePut", func(b *batchlog.Batch, s *batchlog.Space) { b.Delete(s, k); b.Put(s, k, []byte("1")) }, "1"},
		{"RangePut", func(b *batchlog.Batch, s *batchlog.Space) { b.DeleteRange(s, all); b.Put(s, k, []byte("1")) }, "1"},
		{"PutRange", func(b *batchlog.Batch, s *batchlog.Space) { b.Put(s, k, []byte("1")); b.DeleteRange(s, around) }, ""},
		{"PutRangePut", func(b *batchlog.Batch, s *batchlog.Space) {
			b.Put(s, k, []byte("1"))
			b.DeleteRange(s, all)
			b.Put(s, k, []byte("2"))
		}, "2"},
		{"RangePutRange", func(b *batchlog.Batch, s *batchlog.Space) {
			b.DeleteRange(s, all)
			b.Put(s, k, []byte("1"))
			b.DeleteRange(s, around)
		}, ""},
		{"RangePutDeletePut", func(b *batchlog.Batch, s *batchlog.Space) {
			b.DeleteRange(s, around)
			b.Put(s, k, []byte("1"))
			b.Delete(s, k)
			b.Put(s, k, []byte("3"))
		}, "3"},
		{"TwoRanges", func(b *batchlog.Batch, s *batchlog.Space) {
			b.Put(s, k, []byte("1"))
			b.DeleteRange(s, batchlog.Between(nil, batchlog.K("b")))
			b.DeleteRange(s, batchlog.Range{Low: batchlog.K("z")})
		}, "1"},
		{"RangeExcludesHigh", func(b *batchlog.Batch, s *batchlog.Space) {
			b.Put(s, k, []byte("1"))
			b.DeleteRange(s, batchlog.Between(nil, k))
		}, "1"},
		{"RangeIncludesLow", func(b *batchlog.Batch, s *batchlog.Space) {
			b.Put(s, k, []byte("1"))
			b.DeleteRange(s, batchlog.Range{Low: k})
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := plain(t, open)
			s := db.Space(s)
			for _, before := range []string{"", "old"} { // with and without a value from an earlier commit
				if before != "" {
					put(t, s, k, before)
					put(t, db.Space("elsewhere"), k, before)
				}
				var b batchlog.Batch
				c.fill(&b, s)
				write(t, db, &b)
				if c.want == "" {
					wantAbsent(t, s, k)
				} else {
					wantValue(t, s, k, c.want)
					wantPairs(t, "scan", scan(t, s, batchlog.Range{}), []pair{{string(k), c.want}})
				}
				wantAbsent(t, s, other)
			}
			wantValue(t, db.Space("elsewhere"), k, "old")
		})
	}
}

// Random batches over some spaces leave what they leave in a map.
func testBatchRandom(t *testing.T, open Open) {
	db := plain(t, open)
	rng := rand.New(rand.NewPCG(7, 8))
	spaces := []*batchlog.Space{db.Root(), db.Space("a"), db.Space("a", "b"), db.Space("b")}
	m := newModel()
	for n := range 120 {
		var b batchlog.Batch
		for range rng.IntN(12) {
			randomOp(rng, &b, m, spaces)
		}
		write(t, db, &b)
		s := spaces[rng.IntN(len(spaces))]
		wantPairs(t, fmt.Sprintf("space %s after %d batches", s, n+1), scan(t, s, batchlog.Range{}), m.scan(s, batchlog.Range{}, false))
	}
}

// writer is a batch or a transaction.
type writer interface {
	Put(s *batchlog.Space, k batchlog.Key, value []byte)
	Delete(s *batchlog.Space, k batchlog.Key)
	DeleteRange(s *batchlog.Space, r batchlog.Range)
}

// randomOp adds an op to w and does it to m.
func randomOp(rng *rand.Rand, w writer, m *model, spaces []*batchlog.Space) {
	s, key := spaces[rng.IntN(len(spaces))], randomKey(rng)
	switch rng.IntN(7) {
	case 0:
		r := randomRange(rng)
		w.DeleteRange(s, r)
		m.deleteRange(s, r)
	case 1, 2:
		w.Delete(s, key)
		m.delete(s, key)
	default:
		v := fmt.Sprint(rng.Uint32())
		w.Put(s, key, []byte(v))
		m.put(s, key, v)
	}
}

// A batch without ops is a commit too.
func testBatchEmpty(t *testing.T, open Open) {
	db := plain(t, open)
	if id := write(t, db, &batchlog.Batch{}); id != 1 {
		t.Errorf("empty batch is commit %d", id)
	}
	if id := write(t, db, &batchlog.Batch{Labels: map[string]string{"reason": "none"}}); id != 2 {
		t.Errorf("empty batch with a label is commit %d", id)
	}
	commits := follow(t, db, batchlog.TailOptions{}, 2)
	if commits[0].Len() != 0 || len(describe(t, commits[0])) != 0 || commits[1].Labels["reason"] != "none" {
		t.Errorf("commits come as %+v and %+v", commits[0], commits[1])
	}
}

// Labels come with the commit, and so do none.
func testBatchLabels(t *testing.T, open Open) {
	db := plain(t, open)
	labels := map[string]string{"actor": "eve", "": "empty name", "empty": "", "ünï": "cødé", "long": string(make([]byte, 1000))}
	b := batchlog.Batch{Labels: labels, Token: "not a label"}
	b.Put(db.Space("s"), batchlog.K("k"), nil)
	write(t, db, &b)
	put(t, db.Space("s"), batchlog.K("k"), "")
	commits := follow(t, db, batchlog.TailOptions{}, 2)
	if got := commits[0].Labels; len(got) != len(labels) {
		t.Errorf("labels %q, want %q", got, labels)
	}
	for name, value := range labels {
		if commits[0].Labels[name] != value {
			t.Errorf("label %q is %q, want %q", name, commits[0].Labels[name], value)
		}
	}
	if commits[1].Labels != nil {
		t.Errorf("commit without labels has %q", commits[1].Labels)
	}
}

// Keys and values are copied when they are added: what the caller does with them then changes nothing.
func testBatchCopies(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	key, value := []byte("key"), []byte("value")
	var b batchlog.Batch
	b.Put(s, key, value)
	copy(key, "xxx")
	copy(value, "xxxxx")
	write(t, db, &b)
	wantPairs(t, "scan", scan(t, s, batchlog.Range{}), []pair{{"key", "value"}})
}

// A batch that was written can be written again, as another commit, and after Reset be filled anew.
func testBatchReuse(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	var b batchlog.Batch
	b.Put(s, batchlog.K("a"), []byte("1"))
	if one, two := write(t, db, &b), write(t, db, &b); one != 1 || two != 2 {
		t.Errorf("the same batch is commits %d and %d", one, two)
	}
	b.Token, b.Labels = "t", map[string]string{"l": "v"}
	b.Reset()
	if b.Len() != 0 || b.Size() != 0 || b.Token != "" || b.Labels != nil {
		t.Errorf("after Reset the batch is %+v", b)
	}
	b.Put(s, batchlog.K("b"), []byte("2"))
	write(t, db, &b)
	commits := follow(t, db, batchlog.TailOptions{}, 3)
	for i, want := range []string{"a", "a", "b"} {
		if got := describe(t, commits[i]); len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("put s %q", string(batchlog.K(want)))) {
			t.Errorf("commit %d is %q", i+1, got)
		}
	}
	wantValue(t, s, batchlog.K("a"), "1")
	wantValue(t, s, batchlog.K("b"), "2")
}

// Many writers get the ids 1, 2, 3 … between them, each once, and a writer's ids ascend.
func testIDsDense(t *testing.T, open Open) {
	db := plain(t, open)
	const writers, each = 16, 30
	got := make([][]batchlog.ID, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			s := db.Space("w", w)
			for n := range each {
				id, err := s.Put(within(t), batchlog.K(n), nil)
				if err != nil {
					t.Error(err)
					return
				}
				got[w] = append(got[w], id)
			}
		})
	}
	wg.Wait()
	var all []batchlog.ID
	for w, list := range got {
		if !slices.IsSorted(list) {
			t.Errorf("ids of writer %d do not ascend: %d", w, list)
		}
		all = append(all, list...)
	}
	slices.Sort(all)
	if !slices.Equal(all, span(1, writers*each)) {
		t.Errorf("ids are not 1 to %d: %d", writers*each, all)
	}
	commits, err := until(t, db, batchlog.TailOptions{Until: writers * each})
	check(t, err)
	if !slices.Equal(ids(commits), all) {
		t.Errorf("a tail yields ids %d", ids(commits))
	}
}

// Ids go on where they were when the database was closed.
func testIDsDenseOverReopen(t *testing.T, open Open) {
	sub := open(t, Options{})
	if sub.Reopen == nil {
		t.Skip("the engine keeps nothing")
	}
	db := sub.DB
	for n := range 4 {
		for i := range 5 {
			if id := put(t, db.Space("s"), batchlog.K(n, i), "v"); id != batchlog.ID(5*n+i+1) {
				t.Fatalf("commit %d of opening %d has id %d", i+1, n+1, id)
			}
		}
		db = sub.Reopen(t)
		if got, want := head(t, db), batchlog.ID(5*n+5); got != want {
			t.Fatalf("head is %d after reopening, was %d", got, want)
		}
		if got := len(scan(t, db.Space("s"), batchlog.Range{})); got != 5*n+5 {
			t.Fatalf("%d keys after reopening, want %d", got, 5*n+5)
		}
	}
}

// A commit is never older than the one before it, though the clock may go back, also over a reopen.
func testTimesNeverGoBack(t *testing.T, open Open) {
	var mu sync.Mutex
	now := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	set := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	sub := open(t, Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	db := sub.DB
	start := now
	n := 0
	for _, step := range []time.Duration{0, time.Hour, -2 * time.Hour, time.Second, -24 * time.Hour, 48 * time.Hour, 0, 1} {
		set(step)
		put(t, db.Space("s"), batchlog.K(n), "v")
		n++
		if sub.Reopen != nil && step < 0 {
			db = sub.Reopen(t)
		}
	}
	commits := follow(t, db, batchlog.TailOptions{}, n)
	if !commits[0].Time.Equal(start) || !commits[1].Time.Equal(start.Add(time.Hour)) {
		t.Errorf("commits at %s and an hour later have times %s and %s", start, commits[0].Time, commits[1].Time)
	}
	for i := 1; i < n; i++ {
		if commits[i].Time.Before(commits[i-1].Time) {
			t.Errorf("commit %d is of %s, before commit %d of %s", i+1, commits[i].Time, i, commits[i-1].Time)
		}
	}
	if want := start.Add(23*time.Hour + time.Second); !commits[5].Time.Equal(want) {
		t.Errorf("commit 6 is of %s, want %s, as the clock was ahead again", commits[5].Time, want)
	}
}

// A write whose context has ended is either there as a whole, and said so, or not at all.
func testCancelledWrite(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	var wg sync.WaitGroup
	acked := make([]batchlog.ID, 64)
	for n := range acked {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if n%4 == 0 {
				cancel()
			} else {
				time.AfterFunc(time.Duration(n)*10*time.Microsecond, cancel)
			}
			id, err := s.Put(ctx, batchlog.K(n), []byte("v"))
			cancel()
			switch {
			case err == nil:
				acked[n] = id
			case !errors.Is(err, context.Canceled):
				t.Errorf("cancelled write: %v", err)
			}
		})
	}
	wg.Wait()
	count := 0
	for n, id := range acked {
		if id == 0 {
			wantAbsent(t, s, batchlog.K(n))
			continue
		}
		count++
		wantValue(t, s, batchlog.K(n), "v")
	}
	if got := head(t, db); got != batchlog.ID(count) {
		t.Errorf("head is %d with %d acknowledged commits", got, count)
	}
}

// Whoever reads sees all of a batch or nothing of it, in one space or in many.
func testAtomicToReaders(t *testing.T, open Open) {
	db := plain(t, open)
	a, b := db.Space("a"), db.Space("b")
	ctx, stop := context.WithCancel(within(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop()
		for n := range 200 {
			var batch batchlog.Batch
			v := fmt.Append(nil, n)
			batch.Put(a, batchlog.K(1), v)
			batch.DeleteRange(b, batchlog.Range{})
			batch.Put(b, batchlog.K(n%7), v)
			if _, err := db.Write(t.Context(), &batch); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			for last := batchlog.ID(0); ctx.Err() == nil; {
				v, err := db.View(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				one, _ := collect(v.Scan(a, batchlog.Range{}))
				two, _ := collect(v.Scan(b, batchlog.Range{}))
				id := v.ID()
				if err := v.Close(); err != nil {
					t.Error(err)
				}
				if id < last || len(one) != len(two) || len(one) == 1 && (one[0].value != two[0].value || one[0].value != fmt.Sprint(id-1)) {
					t.Errorf("view at %d shows %v and %v", id, one, two)
					return
				}
				last = id
			}
		})
	}
	wg.Wait()
}
