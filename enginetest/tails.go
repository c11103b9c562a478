package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

var tailTests = []test{
	{"Positions", testTailPositions},
	{"Now", testTailNow},
	{"SinceTime", testTailSince},
	{"Until", testTailUntil},
	{"Live", testTailLive},
	{"Resume", testTailResume},
	{"SlowFollower", testTailSlow},
	{"ManyFollowers", testTailMany},
	{"ContextEnds", testTailContext},
	{"OverReopen", testTailOverReopen},
	{"Brief", testTailBrief},
	{"OnlyDurable", testTailOnlyAcknowledged},
}

// A tail begins where it is told to: at the first commit, the oldest, an id, behind an id, now.
func testTailPositions(t *testing.T, open Open) {
	db := plain(t, open)
	for n := range 10 {
		put(t, db.Space("s"), batchlog.K(n), "v")
	}
	for _, c := range []struct {
		from batchlog.Position
		want []batchlog.ID
	}{
		{batchlog.Position{}, span(1, 10)}, {batchlog.First(), span(1, 10)}, {batchlog.Oldest(), span(1, 10)}, {batchlog.At(0), span(1, 10)},
		{batchlog.At(1), span(1, 10)}, {batchlog.At(4), span(4, 10)}, {batchlog.At(10), span(10, 10)}, {batchlog.At(11), nil},
		{batchlog.After(0), span(1, 10)}, {batchlog.After(4), span(5, 10)}, {batchlog.After(10), nil}, {batchlog.Now(), nil},
	} {
		commits, err := until(t, db, batchlog.TailOptions{From: c.from, Until: 10})
		if err != nil || !slices.Equal(ids(commits), c.want) {
			t.Errorf("from %s: %d, %v; want %d", c.from, ids(commits), err, c.want)
		}
	}
	// What is yet to come is waited for: nothing before it comes.
	for _, from := range []batchlog.Position{batchlog.At(13), batchlog.After(12)} {
		next, stop := iter.Pull2(db.Tail(within(t), batchlog.TailOptions{From: from}))
		for range 5 {
			put(t, db.Space("s"), batchlog.K(1), "v")
		}
		if c, err, ok := next(); !ok || err != nil || c.ID != 13 {
			t.Errorf("from %s: %+v, %v; want commit 13", from, c, err)
		}
		stop()
	}
}

// A tail from now on yields nothing that was there before, and all that comes after.
func testTailNow(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 10 {
		put(t, s, batchlog.K(n), "v")
	}
	ctx, stop := context.WithCancel(within(t))
	var wg sync.WaitGroup
	wg.Go(func() { // for as long as it takes the tail to begin
		for ctx.Err() == nil {
			if _, err := s.Put(t.Context(), batchlog.K("more"), nil); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	var got []batchlog.ID
	for c, err := range db.Tail(within(t), batchlog.TailOptions{From: batchlog.Now()}) {
		if err != nil {
			t.Error(err)
			break
		}
		if got = append(got, c.ID); len(got) == 20 {
			break
		}
	}
	stop()
	wg.Wait()
	if len(got) != 20 || got[0] <= 10 || !slices.Equal(got, span(got[0], got[0]+19)) {
		t.Errorf("ids are %d", got)
	}
}

// A tail since a time begins with the first commit of that time or later.
func testTailSince(t *testing.T, open Open) {
	var mu sync.Mutex
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	set := func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		now = at
	}
	db := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}}).DB
	start := now
	const n = 200 // several segments, three commits of each time
	for i := range n {
		set(start.Add(time.Duration(i/3) * time.Second))
		put(t, db.Space("s"), batchlog.K(i), strings.Repeat("v", 500))
	}
	since := func(at time.Time, want batchlog.ID) {
		t.Helper()
		commits, err := until(t, db, batchlog.TailOptions{From: batchlog.Since(at), Until: n})
		if err != nil || !slices.Equal(ids(commits), span(want, n)) {
			first := batchlog.ID(0)
			if len(commits) > 0 {
				first = commits[0].ID
			}
			t.Errorf("since %s: %d commits from %d on, %v; want them from %d on", at.Sub(start), len(commits), first, err, want)
		}
	}
	since(start.Add(-time.Hour), 1)
	since(start, 1)
	since(time.Time{}, 1)
	for second := 1; second < n/3; second += 7 {
		at := start.Add(time.Duration(second) * time.Second)
		since(at, batchlog.ID(3*second+1))
		since(at.Add(-1), batchlog.ID(3*second+1))
		since(at.Add(1), batchlog.ID(3*second+4))
		since(at.Add(time.Microsecond), batchlog.ID(3*second+4))
	}
	since(start.Add(time.Hour), n+1)
}

// A tail with an end ends there; one that is behind its end before it begins is empty.
func testTailUntil(t *testing.T, open Open) {
	db := plain(t, open)
	for n := range 10 {
		put(t, db.Space("s"), batchlog.K(n), "v")
	}
	for first := batchlog.ID(1); first <= 10; first++ {
		for last := batchlog.ID(1); last <= 10; last++ {
			commits, err := until(t, db, batchlog.TailOptions{From: batchlog.At(first), Until: last})
			if err != nil || !slices.Equal(ids(commits), span(first, last)) {
				t.Errorf("%d to %d: %d, %v", first, last, ids(commits), err)
			}
		}
	}
	// An end that is yet to come is waited for.
	done := make(chan []batchlog.ID, 1)
	go func() {
		commits, err := until(t, db, batchlog.TailOptions{From: batchlog.At(9), Until: 12})
		if err != nil {
			t.Error(err)
		}
		done <- ids(commits)
	}()
	for range 5 {
		put(t, db.Space("s"), batchlog.K("more"), "v")
	}
	if got := <-done; !slices.Equal(got, span(9, 12)) {
		t.Errorf("9 to 12: %d", got)
	}
}

// A tail goes on with what is written while it runs, in order, each commit once, none left out.
func testTailLive(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	const n = 500
	var wg sync.WaitGroup
	for w := range 5 {
		wg.Go(func() {
			for i := range n / 5 {
				if _, err := s.Put(t.Context(), batchlog.K(w, i), fmt.Append(nil, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	commits := follow(t, db, batchlog.TailOptions{}, n)
	wg.Wait()
	if !slices.Equal(ids(commits), span(1, n)) {
		t.Errorf("ids are %d", ids(commits))
	}
	seen := map[string]bool{}
	for _, c := range commits {
		for _, l := range describe(t, c) {
			if seen[l] {
				t.Errorf("%s comes twice", l)
			}
			seen[l] = true
		}
	}
	if len(seen) != n {
		t.Errorf("%d different ops, want %d", len(seen), n)
	}
}

// A tail that is broken off anywhere goes on behind its last commit or bookmark as if it had not been.
func testTailResume(t *testing.T, open Open) {
	db := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}}).DB
	const n = 150
	spaces, _ := filterWorld(t, db, n)
	rng := rand.New(rand.NewPCG(17, 18))
	for range 30 {
		o := batchlog.TailOptions{Until: n, Bookmarks: rng.IntN(2) == 0}
		if rng.IntN(3) > 0 {
			o.Spaces = []*batchlog.Space{spaces[rng.IntN(len(spaces))]}
		}
		whole, err := until(t, db, batchlog.TailOptions{Until: n, Spaces: o.Spaces})
		check(t, err)
		var got []batchlog.ID
		for done := false; !done; {
			left := 1 + rng.IntN(40)
			done = true
			for c, err := range db.Tail(within(t), o) {
				check(t, err)
				o.From = batchlog.After(c.ID)
				if !c.Bookmark() {
					got = append(got, c.ID)
				}
				if left--; left == 0 {
					done = false
					break
				}
			}
		}
		if !slices.Equal(got, ids(whole)) {
			t.Fatalf("in pieces %d, whole %d", got, ids(whole))
		}
	}
}

// A follower that falls far behind holds up nobody and loses nothing.
func testTailSlow(t *testing.T, open Open) {
	db := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}}).DB
	s := db.Space("s")
	value := strings.Repeat("v", 1000)
	put(t, s, batchlog.K(0), value)
	next, stop := iter.Pull2(db.Tail(within(t), batchlog.TailOptions{}))
	defer stop()
	pull := func(want batchlog.ID) {
		t.Helper()
		c, err, ok := next()
		if !ok || err != nil || c.ID != want || len(describe(t, c)) != 1 {
			t.Fatalf("%+v, %v; want commit %d", c, err, want)
		}
	}
	pull(1)
	const n = 400
	for i := 1; i < n; i++ { // the follower stands still meanwhile
		put(t, s, batchlog.K(i), value)
	}
	for id := batchlog.ID(2); id <= n; id++ {
		pull(id)
		if id%100 == 0 {
			put(t, s, batchlog.K("more"), value)
		}
	}
	for id := batchlog.ID(n + 1); id <= n+4; id++ {
		pull(id)
	}
	put(t, s, batchlog.K("live"), value)
	pull(n + 5)
}

// Many followers, with and without filters, some slow, all see what they should.
func testTailMany(t *testing.T, open Open) {
	db := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}}).DB
	const n, followers = 300, 12
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			if _, err := db.Space("s", i%3).Put(t.Context(), batchlog.K(i), make([]byte, 200)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for f := range followers {
		wg.Go(func() {
			o := batchlog.TailOptions{Until: n}
			if f%4 > 0 {
				o.Spaces = []*batchlog.Space{db.Space("s", f%4-1)}
			}
			count := 0
			for c, err := range db.Tail(within(t), o) {
				if err != nil {
					t.Error(err)
					return
				}
				want := batchlog.ID(count + 1)
				if f%4 > 0 {
					want = batchlog.ID(3*count + f%4)
				}
				if c.ID != want {
					t.Errorf("follower %d: commit %d, want %d", f, c.ID, want)
					return
				}
				count++
				if f >= followers/2 && count%50 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			if want := n / min(3, 1+2*(f%4)); count != want {
				t.Errorf("follower %d: %d commits, want %d", f, count, want)
			}
		})
	}
	wg.Wait()
}

// A tail ends with its context, while it waits and before it begins.
func testTailContext(t *testing.T, open Open) {
	db := plain(t, open)
	put(t, db.Space("s"), nil, "v")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	n := 0
	for c, err := range db.Tail(ctx, batchlog.TailOptions{}) {
		if last = err; err != nil {
			break
		}
		if n++; c.ID == 1 {
			time.AfterFunc(time.Millisecond, cancel)
		}
	}
	wantErr(t, "tail", last, context.Canceled)
	if n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
	for _, err := range db.Tail(ctx, batchlog.TailOptions{}) {
		wantErr(t, "tail with a context that has ended", err, context.Canceled)
	}
	ours := errors.New("ours")
	ctx, cancelCause := context.WithCancelCause(t.Context())
	defer cancelCause(nil)
	time.AfterFunc(time.Millisecond, func() { cancelCause(ours) })
	for _, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.Now()}) {
		wantErr(t, "tail with a cause", err, ours)
	}
}

// What was written before the database was closed can be followed after: ids, times, ops and labels as they were.
func testTailOverReopen(t *testing.T, open Open) {
	sub := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}})
	if sub.Reopen == nil {
		t.Skip("the engine keeps nothing")
	}
	for i := range 100 {
		b := batchlog.Batch{Labels: map[string]string{"i": fmt.Sprint(i)}}
		b.Put(sub.DB.Space("s", i%4), batchlog.K(i), make([]byte, 10*i))
		b.Delete(sub.DB.Root(), batchlog.K(i))
		write(t, sub.DB, &b)
	}
	before := follow(t, sub.DB, batchlog.TailOptions{}, 100)
	db := sub.Reopen(t)
	after := follow(t, db, batchlog.TailOptions{}, 100)
	for i, c := range before {
		d := after[i]
		if c.ID != d.ID || !c.Time.Equal(d.Time) || c.Labels["i"] != d.Labels["i"] || !slices.Equal(describe(t, c), describe(t, d)) {
			t.Fatalf("commit %d: %s %q %q, then %s %q %q", c.ID, c.Time, c.Labels, describe(t, c), d.Time, d.Labels, describe(t, d))
		}
	}
}

// Brief commits, looked at one after the other, are what ordinary ones are: from files and live, with a filter and without.
func testTailBrief(t *testing.T, open Open) {
	for _, size := range []int64{batchlog.MinSegmentBytes, 1 << 20} { // small enough to be read at once, and not
		tailBrief(t, open, size)
	}
}

func tailBrief(t *testing.T, open Open, segmentBytes int64) {
	t.Helper()
	sub := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: segmentBytes}})
	db := sub.DB
	const n = 600
	for i := range n {
		b := batchlog.Batch{Labels: map[string]string{"i": fmt.Sprint(i)}}
		if i%3 == 0 {
			b.Labels = nil
		}
		for j := range i % 4 {
			b.Put(db.Space("s", (i+j)%5), batchlog.K(i, j), bytes.Repeat([]byte{byte(i)}, 7*(i%100)))
		}
		write(t, db, &b)
	}
	if sub.Reopen != nil {
		db = sub.Reopen(t)
	}
	for _, spaces := range [][]*batchlog.Space{nil, {db.Space("s", 1)}, {db.Space("s", 0), db.Space("s", 3)}} {
		for _, from := range []batchlog.ID{1, 2, 300, n} {
			o := batchlog.TailOptions{From: batchlog.At(from), Until: n, Spaces: spaces}
			var want []*batchlog.Commit
			for c, err := range db.Tail(within(t), o) {
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, c)
			}
			o.Brief = true
			i := 0
			for c, err := range db.Tail(within(t), o) {
				if err != nil {
					t.Fatal(err)
				}
				if i == len(want) || c.ID != want[i].ID || !c.Time.Equal(want[i].Time) || c.Labels["i"] != want[i].Labels["i"] ||
					!slices.Equal(describe(t, c), describe(t, want[i])) {
					t.Fatalf("brief commit %d is %d %q %q", i, c.ID, c.Labels, describe(t, c))
				}
				i++
			}
			if i != len(want) {
				t.Fatalf("%d brief commits, want %d", i, len(want))
			}
		}
	}
}

// A follower never sees a commit before it is durable: what it sees is at or below head.
func testTailOnlyAcknowledged(t *testing.T, open Open) {
	db := plain(t, open)
	const n = 200
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for range n / 4 {
				if _, err := db.Space("s").Put(t.Context(), batchlog.K(w), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for c, err := range db.Tail(within(t), batchlog.TailOptions{Until: n}) {
		if err != nil {
			t.Error(err)
			break
		}
		if h := head(t, db); c.ID > h {
			t.Errorf("commit %d comes while head is %d", c.ID, h)
		}
	}
	wg.Wait()
}
