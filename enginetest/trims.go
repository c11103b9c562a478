package enginetest

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

var trimTests = []test{
	{"Gap", testTrimGap},
	{"KeepsState", testTrimKeepsState},
	{"KeepsWhatIsYoung", testTrimKeepsYoung},
	{"SlowFollower", testTrimSlowFollower},
	{"SinceTime", testTrimSince},
	{"OverReopen", testTrimOverReopen},
	{"Tokens", testTrimTokens},
}

// A trimmed is a database whose log has lost its beginning.
type trimmed struct {
	Subject
	now    func(add time.Duration) time.Time // moves the clock on and returns it
	oldest batchlog.ID
	n      batchlog.ID // head
	start  time.Time
}

const (
	trimTTL  = time.Hour
	trimStep = time.Second // between commits
)

// openTrimmable opens a database with small segments, whose log keeps an hour, with n commits a second apart.
func openTrimmable(t *testing.T, open Open, n int) *trimmed {
	t.Helper()
	var mu sync.Mutex
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := func(add time.Duration) time.Time {
		mu.Lock()
		defer mu.Unlock()
		at = at.Add(add)
		return at
	}
	tr := &trimmed{now: now, start: at}
	tr.Subject = open(t, Options{
		Now: func() time.Time { return now(0) },
		Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: trimTTL},
	})
	if tr.Trim == nil {
		t.Skip("the engine keeps all")
	}
	tr.fill(t, n)
	return tr
}

// fill writes n commits, a step apart; each puts a key of its own, with its id as the beginning of the value.
func (tr *trimmed) fill(t *testing.T, n int) {
	t.Helper()
	for range n {
		tr.n++
		tr.now(trimStep)
		if id := put(t, tr.DB.Space("s"), batchlog.K(int(tr.n)), fmt.Sprintf("%d %s", tr.n, strings.Repeat("v", 500))); id != tr.n {
			t.Fatalf("commit %d, want %d", id, tr.n)
		}
	}
}

// trim trims until the log has lost its beginning: segments are sealed in the background.
func (tr *trimmed) trim(t *testing.T, want batchlog.ID) {
	t.Helper()
	eventually(t, fmt.Sprintf("commit %d to be trimmed", want), func() bool {
		check(t, tr.Trim(within(t)))
		tr.oldest = status(t, tr.DB).Oldest
		return tr.oldest > want
	})
}

// wantGap fails t unless err says which commits are missing.
func wantGap(t *testing.T, what string, err error, from, oldest batchlog.ID) {
	t.Helper()
	var gap *batchlog.GapError
	if !errors.As(err, &gap) || !errors.Is(err, batchlog.ErrGap) {
		t.Errorf("%s: error %v, want a *GapError", what, err)
		return
	}
	if gap.From != from || gap.Oldest != oldest {
		t.Errorf("%s: gap from %d, oldest %d; want %d and %d", what, gap.From, gap.Oldest, from, oldest)
	}
}

// Who follows from where the log no longer is gets a gap error that says from where it can, never a later start.
func testTrimGap(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 200)
	tr.now(2 * trimTTL)
	tr.fill(t, 20)
	tr.trim(t, 100)
	db := tr.DB
	for _, c := range []struct {
		from batchlog.Position
		id   batchlog.ID
	}{{batchlog.First(), 1}, {batchlog.Position{}, 1}, {batchlog.At(2), 2}, {batchlog.After(5), 6}, {batchlog.At(tr.oldest - 1), tr.oldest - 1}} {
		for _, spaces := range [][]*batchlog.Space{nil, {db.Space("s")}, {db.Space("nobody")}} {
			commits, err := until(t, db, batchlog.TailOptions{From: c.from, Until: tr.n, Spaces: spaces})
			wantGap(t, "from "+c.from.String(), err, c.id, tr.oldest)
			if len(commits) != 0 {
				t.Errorf("from %s: commits %d before the error", c.from, ids(commits))
			}
		}
	}
	for _, from := range []batchlog.Position{batchlog.Oldest(), batchlog.At(tr.oldest), batchlog.After(tr.oldest - 1)} {
		commits, err := until(t, db, batchlog.TailOptions{From: from, Until: tr.n})
		if err != nil || !slices.Equal(ids(commits), span(tr.oldest, tr.n)) {
			t.Errorf("from %s: %d, %v; want from %d on", from, ids(commits), err, tr.oldest)
		}
	}
}

// The store keeps what the log forgets; only whole segments go, and never one that the store could still need.
func testTrimKeepsState(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 150)
	tr.now(2 * trimTTL)
	tr.fill(t, 1)
	tr.trim(t, 100)
	st := status(t, tr.DB)
	if st.Oldest > st.Flushed+1 || st.Oldest > st.Head {
		t.Errorf("oldest is %d, the store has %d for good, head is %d", st.Oldest, st.Flushed, st.Head)
	}
	if got := len(scan(t, tr.DB.Space("s"), batchlog.Range{})); got != int(tr.n) {
		t.Errorf("%d keys, want %d", got, tr.n)
	}
	tr.fill(t, 10)
	if got := len(scan(t, tr.DB.Space("s"), batchlog.Range{})); got != int(tr.n) {
		t.Errorf("%d keys, want %d", got, tr.n)
	}
}

// What is younger than the log's time stays, and with no time everything does.
func testTrimKeepsYoung(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 100)
	check(t, tr.Trim(within(t)))
	if got := status(t, tr.DB).Oldest; got != 1 {
		t.Errorf("oldest is %d, want 1: nothing is an hour old", got)
	}
	tr.now(trimTTL - 50*trimStep) // the first half is past its time
	check(t, tr.Trim(within(t)))
	if got := status(t, tr.DB).Oldest; got > 51 {
		t.Errorf("oldest is %d: commit 51 is not older than an hour", got)
	}
	check(t, tr.DB.Configure(within(t), batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}))
	before := status(t, tr.DB).Oldest
	tr.now(100 * trimTTL)
	tr.fill(t, 10)
	check(t, tr.Trim(within(t)))
	if got := status(t, tr.DB).Oldest; got != before {
		t.Errorf("oldest went from %d to %d without a HotTTL", before, got)
	}
}

// A follower that the log was trimmed under gets what it had begun to read, then a gap error: it never skips.
func testTrimSlowFollower(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 200)
	for _, spaces := range [][]*batchlog.Space{nil, {tr.DB.Space("s")}} {
		oldest := status(t, tr.DB).Oldest
		next, stop := iter.Pull2(tr.DB.Tail(within(t), batchlog.TailOptions{From: batchlog.At(oldest), Spaces: spaces}))
		c, err, ok := next()
		if !ok || err != nil || c.ID != oldest {
			t.Fatalf("%+v, %v", c, err)
		}
		tr.now(2 * trimTTL)
		// More than any buffer holds is written meanwhile, so that the follower can't live from memory.
		tr.fill(t, 10)
		for range 40 {
			tr.n = put(t, tr.DB.Space("s"), batchlog.K("large"), strings.Repeat("v", 1<<20))
		}
		tr.now(2 * trimTTL)
		tr.fill(t, 1)
		tr.trim(t, tr.n-30)
		want := oldest + 1
		for {
			c, err, ok := next()
			if !ok {
				t.Fatal("the tail ended without an error")
			}
			if err != nil {
				wantGap(t, "follower", err, want, status(t, tr.DB).Oldest)
				break
			}
			if c.ID != want {
				t.Fatalf("commit %d, want %d", c.ID, want)
			}
			if want++; want > tr.n {
				t.Log("the follower had all in memory") // not wrong
				break
			}
		}
		stop()
		tr.fill(t, 100)
	}
}

// A tail since a time of which the log may have lost commits is a gap too, not a later start.
func testTrimSince(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 200)
	tr.now(2 * trimTTL)
	tr.fill(t, 20)
	tr.trim(t, 100)
	for _, at := range []time.Time{{}, tr.start, tr.start.Add(trimStep), tr.start.Add(time.Duration(tr.oldest-1) * trimStep)} {
		commits, err := until(t, tr.DB, batchlog.TailOptions{From: batchlog.Since(at), Until: tr.n})
		if !errors.Is(err, batchlog.ErrGap) {
			t.Errorf("since %s: %d commits, %v; want a *GapError, commit %d was of that time or later", at, len(commits), err, tr.oldest-1)
		}
	}
	commits, err := until(t, tr.DB, batchlog.TailOptions{From: batchlog.Since(tr.start.Add(time.Duration(tr.oldest) * trimStep)), Until: tr.n})
	if err != nil || !slices.Equal(ids(commits), span(tr.oldest, tr.n)) {
		t.Errorf("since the time of the oldest commit: %d, %v", ids(commits), err)
	}
}

// What was trimmed stays trimmed, what was kept is there, and ids go on.
func testTrimOverReopen(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 200)
	if tr.Reopen == nil {
		t.Skip("the engine keeps nothing")
	}
	tr.now(2 * trimTTL)
	tr.fill(t, 5)
	tr.trim(t, 100)
	tr.DB = tr.Reopen(t)
	if got := status(t, tr.DB).Oldest; got != tr.oldest {
		t.Errorf("oldest is %d after reopening, was %d", got, tr.oldest)
	}
	commits, err := until(t, tr.DB, batchlog.TailOptions{From: batchlog.Oldest(), Until: tr.n})
	if err != nil || !slices.Equal(ids(commits), span(tr.oldest, tr.n)) {
		t.Errorf("%d, %v", ids(commits), err)
	}
	if got := len(scan(t, tr.DB.Space("s"), batchlog.Range{})); got != int(tr.n) {
		t.Errorf("%d keys, want %d", got, tr.n)
	}
	tr.fill(t, 5)
}

// A token is known for as long as the log has its commit; then the same token is another commit.
func testTrimTokens(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 1)
	old := batchlog.Batch{Token: "old"}
	oldID := write(t, tr.DB, &old)
	tr.n++
	tr.fill(t, 100)
	tr.now(2 * trimTTL)
	tr.fill(t, 5)
	kept := batchlog.Batch{Token: "kept"}
	keptID := write(t, tr.DB, &kept)
	tr.n++
	tr.trim(t, oldID)
	if id := write(t, tr.DB, &kept); id != keptID {
		t.Errorf("token of a commit that is kept: commit %d, want %d", id, keptID)
	}
	if id := write(t, tr.DB, &old); id != tr.n+1 {
		t.Errorf("token of a commit that is gone: commit %d, want %d", id, tr.n+1)
	}
}
