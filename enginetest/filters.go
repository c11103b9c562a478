package enginetest

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
)

var filterTests = []test{
	{"Filtered", testTailFiltered},
	{"OpsFiltered", testTailOpsFiltered},
	{"SpaceTail", testTailOfSpace},
	{"Bookmarks", testTailBookmarks},
	{"BookmarksLive", testTailBookmarksLive},
}

// filterWorld writes random commits over some spaces and returns, for each commit, its ops as text by space.
func filterWorld(t *testing.T, db *batchlog.DB, n int) (spaces []*batchlog.Space, ops [][]batchlog.Op) {
	t.Helper()
	rng := rand.New(rand.NewPCG(15, 16))
	for _, path := range [][]any{{"a"}, {"a", "x"}, {"a", "x", 1}, {"a\x00"}, {"ab"}, {"b"}, {"b", "x"}, {}} {
		spaces = append(spaces, db.Space(path...))
	}
	for i := range n {
		var b batchlog.Batch
		var list []batchlog.Op
		for range rng.IntN(4) {
			s := spaces[rng.IntN(len(spaces))]
			key, value := randomKey(rng), []byte(strings.Repeat("v", rng.IntN(400)))
			switch rng.IntN(5) {
			case 0:
				b.Delete(s, key)
				list = append(list, batchlog.Op{Kind: batchlog.OpDelete, Space: s, Key: key})
			case 1:
				b.DeleteRange(s, batchlog.Range{Low: key})
				list = append(list, batchlog.Op{Kind: batchlog.OpDeleteRange, Space: s, Key: key})
			default:
				b.Put(s, key, value)
				list = append(list, batchlog.Op{Kind: batchlog.OpPut, Space: s, Key: key, Value: value})
			}
		}
		if id := write(t, db, &b); id != batchlog.ID(i+1) {
			t.Fatalf("commit %d", id)
		}
		ops = append(ops, list)
	}
	return spaces, ops
}

// wantFiltered fails t unless got is the commits with ops in one of spaces, and of each only those ops.
func wantFiltered(t *testing.T, what string, got []*batchlog.Commit, ops [][]batchlog.Op, spaces []*batchlog.Space) {
	t.Helper()
	at := 0
	for i, list := range ops {
		var want []string
		for _, op := range list {
			if len(spaces) == 0 || slices.ContainsFunc(spaces, op.In) {
				want = append(want, line(op))
			}
		}
		if len(want) == 0 && len(spaces) > 0 {
			continue
		}
		if at >= len(got) || got[at].ID != batchlog.ID(i+1) {
			t.Errorf("%s: commit %d is missing", what, i+1)
			return
		}
		if lines := describe(t, got[at]); !slices.Equal(lines, want) {
			t.Errorf("%s: commit %d has ops %q, want %q", what, i+1, lines, want)
		}
		at++
	}
	if at != len(got) {
		t.Errorf("%s: commit %d is too much", what, got[at].ID)
	}
}

// A tail of some spaces yields the commits with ops in their subtrees, from memory and from files alike.
func testTailFiltered(t *testing.T, open Open) {
	sub := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}})
	db := sub.DB
	const n = 300
	spaces, ops := filterWorld(t, db, n)
	check := func(db *batchlog.DB, when string) {
		t.Helper()
		sets := [][]*batchlog.Space{nil, {db.Space("a"), db.Space("b")}, {db.Space("a"), db.Space("a", "x")}, {db.Space("nobody")}, {db.Space("nobody"), db.Space("b", "x")}}
		for _, s := range spaces {
			sets = append(sets, []*batchlog.Space{db.Space(s.Path()...)})
		}
		for _, set := range sets {
			got, err := until(t, db, batchlog.TailOptions{Spaces: set, Until: n})
			if err != nil {
				t.Errorf("%s: tail of %v: %v", when, set, err)
			}
			var same []*batchlog.Space // the spaces that ops are in belong to the database that wrote them
			for _, s := range set {
				same = append(same, sub.DB.Space(s.Path()...))
			}
			wantFiltered(t, fmt.Sprintf("%s: tail of %v", when, set), got, ops, same)
		}
	}
	check(db, "just written")
	if sub.Reopen != nil {
		check(sub.Reopen(t), "reopened")
	}
}

// A commit of a filtered tail shows only the ops there, with keys relative to the space that each is in.
func testTailOpsFiltered(t *testing.T, open Open) {
	db := plain(t, open)
	a, x, b := db.Space("a"), db.Space("a", "x"), db.Space("b")
	var batch batchlog.Batch
	batch.Put(b, batchlog.Key("1"), nil)
	batch.Put(a, batchlog.Key("2"), nil)
	batch.Put(x, batchlog.Key("3"), nil)
	batch.Delete(b, batchlog.Key("4"))
	batch.DeleteRange(x, batchlog.Between(batchlog.Key("5"), batchlog.Key("6")))
	write(t, db, &batch)
	for _, c := range []struct {
		spaces []*batchlog.Space
		want   []string
	}{
		{[]*batchlog.Space{a}, []string{`put a "2" ""`, `put a/x "3" ""`, `delRange a/x "5" "6"`}},
		{[]*batchlog.Space{x}, []string{`put a/x "3" ""`, `delRange a/x "5" "6"`}},
		{[]*batchlog.Space{b}, []string{`put b "1" ""`, `del b "4"`}},
		{[]*batchlog.Space{b, x}, []string{`put b "1" ""`, `put a/x "3" ""`, `del b "4"`, `delRange a/x "5" "6"`}},
	} {
		commit := follow(t, db, batchlog.TailOptions{Spaces: c.spaces}, 1)[0]
		if got := describe(t, commit); !slices.Equal(got, c.want) {
			t.Errorf("tail of %v: %q, want %q", c.spaces, got, c.want)
		}
		for op, err := range commit.Ops() {
			if err != nil || !slices.ContainsFunc(c.spaces, op.In) {
				t.Errorf("tail of %v: op in %s, %v", c.spaces, op.Space, err)
			}
		}
	}
}

// The tail of a space is about its subtree, and can be narrowed to spaces within, not widened.
func testTailOfSpace(t *testing.T, open Open) {
	db := plain(t, open)
	a, x, b := db.Space("a"), db.Space("a", "x"), db.Space("b")
	put(t, a, nil, "1")
	put(t, b, nil, "2")
	put(t, x, nil, "3")
	for _, c := range []struct {
		of     *batchlog.Space
		spaces []*batchlog.Space
		want   []batchlog.ID
	}{
		{a, nil, []batchlog.ID{1, 3}}, {x, nil, []batchlog.ID{3}}, {b, nil, []batchlog.ID{2}}, {db.Root(), nil, span(1, 3)},
		{a, []*batchlog.Space{x}, []batchlog.ID{3}}, {a, []*batchlog.Space{a}, []batchlog.ID{1, 3}},
	} {
		commits, err := drain(c.of.Tail(within(t), batchlog.TailOptions{Spaces: c.spaces, Until: 3}))
		if err != nil || !slices.Equal(ids(commits), c.want) {
			t.Errorf("tail of %s, %v: %d, %v; want %d", c.of, c.spaces, ids(commits), err, c.want)
		}
	}
	_, err := drain(x.Tail(within(t), batchlog.TailOptions{Spaces: []*batchlog.Space{a}, Until: 3}))
	wantErr(t, "tail of a space around", err, batchlog.ErrPermission)
}

// wantBookmarked fails t unless every bookmark stands where all before it has come and nothing after it is older.
func wantBookmarked(t *testing.T, marks []*batchlog.Commit) (last batchlog.ID) {
	t.Helper()
	for i, c := range marks {
		if c.ID < last || c.ID == last && !c.Bookmark() {
			t.Fatalf("item %d is commit %d (bookmark %t) after %d", i, c.ID, c.Bookmark(), last)
		}
		if c.Bookmark() {
			if n := len(describe(t, c)); n != 0 || !c.Time.IsZero() {
				t.Errorf("bookmark %d has %d ops and time %s", c.ID, n, c.Time)
			}
		}
		last = c.ID
	}
	return last
}

// A tail whose filter matches nothing still says how far it has looked: to the end of what was asked for.
func testTailBookmarks(t *testing.T, open Open) {
	db := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}}).DB
	const n = 200
	filterWorld(t, db, n)
	for _, set := range [][]*batchlog.Space{{db.Space("nobody")}, {db.Space("b", "x")}, nil} {
		items, err := until(t, db, batchlog.TailOptions{Spaces: set, Until: n, Bookmarks: true})
		check(t, err)
		if last := wantBookmarked(t, items); last != n {
			t.Errorf("tail of %v has come to %d, want %d", set, last, n)
		}
		without, err := until(t, db, batchlog.TailOptions{Spaces: set, Until: n})
		check(t, err)
		commits := slices.DeleteFunc(slices.Clone(items), (*batchlog.Commit).Bookmark)
		if !slices.Equal(ids(commits), ids(without)) {
			t.Errorf("tail of %v: %d with bookmarks, %d without", set, ids(commits), ids(without))
		}
		if slices.ContainsFunc(without, (*batchlog.Commit).Bookmark) {
			t.Errorf("tail of %v: bookmarks that nobody asked for", set)
		}
	}
}

// The same at the head: whoever waits for a match that doesn't come is told that time goes on.
func testTailBookmarksLive(t *testing.T, open Open) {
	db := plain(t, open)
	next, stop := iter.Pull2(db.Tail(within(t), batchlog.TailOptions{Spaces: []*batchlog.Space{db.Space("quiet")}, Bookmarks: true}))
	defer stop()
	for round := range 5 {
		id := put(t, db.Space("busy"), batchlog.K(round), "v")
		for at := batchlog.ID(0); at < id; {
			c, err, ok := next()
			if !ok || err != nil || !c.Bookmark() {
				t.Fatalf("%+v, %v", c, err)
			}
			at = c.ID
		}
	}
	id := put(t, db.Space("quiet"), batchlog.K(1), "v")
	for {
		c, err, ok := next()
		if !ok || err != nil {
			t.Fatal(err)
		}
		if c.Bookmark() {
			continue
		}
		if c.ID != id {
			t.Errorf("commit %d, want %d", c.ID, id)
		}
		return
	}
}
