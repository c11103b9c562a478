package enginetest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
)

var keyTests = []test{
	{"AnyBytes", testKeyAnyBytes},
	{"Typed", testKeyTyped},
	{"EmptyValue", testKeyEmptyValue},
	{"SpacesIsolated", testSpacesIsolated},
	{"SpacesRandom", testSpacesRandom},
	{"RangesStayInside", testRangesStayInside},
	{"ForeignSpace", testForeignSpace},
	{"BadSpace", testBadSpace},
	{"SamePathSameSpace", testSamePathSameSpace},
}

// oddKeys are keys that some encoding or other gets wrong.
func oddKeys() []batchlog.Key {
	return []batchlog.Key{
		nil, {0x00}, {0x00, 0x00}, {0x00, 0xff}, {0x01}, {0x10}, {0x70, 'a', 0x00}, {0xa0}, {0xa0, 0x00}, {0xa0, 0x70, 'a', 0x00, 0x00},
		{0xfe, 0xff}, {0xff}, {0xff, 0x00}, {0xff, 0xff}, {0xff, 0xff, 0xff, 0xff}, batchlog.Key("plain"), batchlog.K("plain"), batchlog.K("a", 1),
		bytes.Repeat([]byte{0xff}, 300), bytes.Repeat([]byte{0x00}, 300), batchlog.Key(strings.Repeat("k", 5000)),
	}
}

// A key is any bytes: the empty key, keys that begin with ff or look like paths are keys like all others.
func testKeyAnyBytes(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("odd")
	keys := oddKeys()
	var want []pair
	var b batchlog.Batch
	for i, k := range keys {
		v := fmt.Sprintf("value %d", i)
		b.Put(s, k, []byte(v))
		want = append(want, pair{string(k), v})
	}
	write(t, db, &b)
	for _, p := range want {
		wantValue(t, s, batchlog.Key(p.key), p.value)
	}
	slices.SortFunc(want, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	wantPairs(t, "all keys", scan(t, s, batchlog.Range{}), want)
	slices.Reverse(want)
	wantPairs(t, "all keys in reverse", scan(t, s, batchlog.Range{}, batchlog.ScanReverse()), want)
	for i, k := range keys {
		_, err := s.Delete(within(t), k)
		check(t, err)
		wantAbsent(t, s, k)
		if got := len(scan(t, s, batchlog.Range{})); got != len(keys)-1-i {
			t.Fatalf("%d keys after %d of %d were deleted", got, i+1, len(keys))
		}
	}
}

// Typed keys sort as their values do: null, false, true, numbers, binary, strings, arrays.
func testKeyTyped(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("typed")
	inOrder := []any{nil, false, true, math.Inf(-1), -1e300, -2.5, -1, 0, 1, 2.5, 10, 1e300, math.Inf(1), []byte{}, []byte{0xff}, "", "a", "a\x00", "ab", "b",
		[]any{}, []any{"a"}, []any{"a", 1}, []any{"a", 2}, []any{"b"}}
	var b batchlog.Batch
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(inOrder)) {
		b.Put(s, batchlog.K(inOrder[i]), fmt.Append(nil, i))
	}
	write(t, db, &b)
	for i, p := range scan(t, s, batchlog.Range{}) {
		if p.value != fmt.Sprint(i) {
			t.Fatalf("key %d in order is that of value %s", i, p.value)
		}
	}
	if got := len(scan(t, s, batchlog.Prefix("a"))); got != 3 {
		t.Errorf("%d arrays begin with \"a\", want 3", got)
	}
	if got := len(scan(t, s, batchlog.StringPrefix("a"))); got != 3 {
		t.Errorf("%d strings begin with a, want 3", got)
	}
}

// An empty value is a value.
func testKeyEmptyValue(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "")
	wantValue(t, s, batchlog.K("k"), "")
	var b batchlog.Batch
	b.Put(s, batchlog.K("nil"), nil)
	write(t, db, &b)
	wantPairs(t, "scan", scan(t, s, batchlog.Range{}), []pair{{string(batchlog.K("k")), ""}, {string(batchlog.K("nil")), ""}})
}

// oddPaths are paths whose parts try to look like other paths.
func oddPaths() [][]any {
	return [][]any{
		{}, {""}, {"a"}, {"a", "b"}, {"a", "b", "c"}, {"a/b"}, {"ab"}, {"a\x00"}, {"a\x00b"}, {"a", ""}, {"", "a"}, {"\x00"}, {"\x00\x00"}, {"\x01"}, {"\x7f"},
		{"\u00ff"}, {[]byte{}}, {[]byte{0}}, {[]byte{0xff}}, {[]byte{0xa0, 0x00}}, {[]byte("a")}, {[]any{}}, {[]any{"a"}}, {[]any{"a", "b"}}, {[]any{[]any{"a"}}},
		{nil}, {nil, nil}, {true}, {0}, {1}, {-1}, {"a", nil}, {"a", 0}, {"a", []any{"b"}},
	}
}

// No space reaches another one: not by a key, a scan or a range delete, whatever its path and its keys hold.
func testSpacesIsolated(t *testing.T, open Open) {
	db := plain(t, open)
	paths := oddPaths()
	keys := oddKeys()[:16]
	var b batchlog.Batch
	for i, path := range paths {
		for j, k := range keys {
			b.Put(db.Space(path...), k, fmt.Appendf(nil, "%d.%d", i, j))
		}
	}
	write(t, db, &b)
	alive := slices.Repeat([]bool{true}, len(paths))
	checkAll := func(when string) {
		t.Helper()
		for i, path := range paths {
			want := 0
			if alive[i] {
				want = len(keys)
			}
			got := scan(t, db.Space(path...), batchlog.Range{})
			for _, p := range got {
				if !strings.HasPrefix(p.value, fmt.Sprintf("%d.", i)) {
					t.Fatalf("%s: space %v shows %q=%q", when, path, p.key, p.value)
				}
			}
			if len(got) != want {
				t.Fatalf("%s: space %v has %d keys, want %d", when, path, len(got), want)
			}
		}
	}
	checkAll("at first")
	for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(len(paths)) {
		var b batchlog.Batch
		b.DeleteRange(db.Space(paths[i]...), batchlog.Range{})
		write(t, db, &b)
		alive[i] = false
		checkAll(fmt.Sprintf("with %v emptied", paths[i]))
	}
}

// The same with random paths and keys, against a map for each space.
func testSpacesRandom(t *testing.T, open Open) {
	db := plain(t, open)
	rng := rand.New(rand.NewPCG(5, 6))
	parts := []any{"a", "b", "", "\x00", []byte{0xff}, 1, nil, []any{"a"}, "ab"}
	model := newModel()
	for range 60 {
		var b batchlog.Batch
		for range 1 + rng.IntN(8) {
			path := make([]any, rng.IntN(4))
			for i := range path {
				path[i] = parts[rng.IntN(len(parts))]
			}
			s := db.Space(path...)
			switch key := randomKey(rng); rng.IntN(6) {
			case 0:
				r := randomRange(rng)
				b.DeleteRange(s, r)
				model.deleteRange(s, r)
			case 1:
				b.Delete(s, key)
				model.delete(s, key)
			default:
				v := fmt.Sprint(rng.Uint32())
				b.Put(s, key, []byte(v))
				model.put(s, key, v)
			}
		}
		write(t, db, &b)
	}
	for _, s := range model.spaces {
		wantPairs(t, "space "+s.String(), scan(t, s, batchlog.Range{}), model.scan(s, batchlog.Range{}, false))
	}
}

// A range reaches no further than its space, and one that is empty or upside down has no keys.
func testRangesStayInside(t *testing.T, open Open) {
	db := plain(t, open)
	low, mid, high := db.Space("m", "a"), db.Space("m", "b"), db.Space("m", "c")
	within, parent := db.Space("m", "b", "x"), db.Space("m")
	all := []*batchlog.Space{low, mid, high, within, parent, db.Root()}
	var b batchlog.Batch
	for _, s := range all {
		for _, k := range oddKeys() {
			b.Put(s, k, []byte("v"))
		}
	}
	write(t, db, &b)
	ff := batchlog.Key(bytes.Repeat([]byte{0xff}, 400))
	ranges := []batchlog.Range{
		{}, {Low: batchlog.Key{}}, {Low: ff}, {High: ff}, {Low: batchlog.Key{0xff}, High: ff}, {Low: ff, High: batchlog.Key{0x00}},
		{High: batchlog.Key{}}, {Low: batchlog.Key{5}, High: batchlog.Key{5}}, {Low: batchlog.Key{0x01}, High: batchlog.Key{0xa0, 0x00}},
	}
	for _, r := range ranges {
		want := 0
		for _, k := range oddKeys() {
			if r.Contains(k) {
				want++
			}
		}
		for _, reverse := range []bool{false, true} {
			var opts []batchlog.ReadOption
			if reverse {
				opts = append(opts, batchlog.ScanReverse())
			}
			if got := len(scan(t, mid, r, opts...)); got != want {
				t.Errorf("range %q to %q, reverse %t: %d keys, want %d", short(r.Low), short(r.High), reverse, got, want)
			}
		}
	}
	for _, r := range ranges {
		var b batchlog.Batch
		b.DeleteRange(mid, r)
		write(t, db, &b)
	}
	for _, s := range all {
		want := len(oddKeys())
		if s == mid {
			want = 0
		}
		if got := len(scan(t, s, batchlog.Range{})); got != want {
			t.Errorf("space %s has %d keys after ranges of %s were deleted, want %d", s, got, mid, want)
		}
	}
}

// A space of one database is nothing to another one: a batch that has it is refused as a whole.
func testForeignSpace(t *testing.T, open Open) {
	db, other := plain(t, open), plain(t, open)
	ours, theirs := db.Space("s"), other.Space("s")
	for name, fill := range map[string]func(b *batchlog.Batch){
		"put":         func(b *batchlog.Batch) { b.Put(theirs, batchlog.K("k"), nil) },
		"delete":      func(b *batchlog.Batch) { b.Delete(theirs, batchlog.K("k")) },
		"deleteRange": func(b *batchlog.Batch) { b.DeleteRange(theirs, batchlog.Range{}) },
		"mixed":       func(b *batchlog.Batch) { b.Put(ours, batchlog.K("k"), nil); b.Put(theirs, batchlog.K("k"), nil) },
		"theirsFirst": func(b *batchlog.Batch) { b.Put(theirs, batchlog.K("k"), nil); b.Put(ours, batchlog.K("k"), nil) },
	} {
		var b batchlog.Batch
		fill(&b)
		_, err := db.Write(within(t), &b)
		wantErr(t, "write of "+name, err, batchlog.ErrPermission)
	}
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		_, err := tx.Get(theirs, batchlog.K("k"))
		return err
	})
	wantErr(t, "get in an update", err, batchlog.ErrPermission)
	_, err = db.Update(within(t), func(tx *batchlog.Tx) error {
		tx.Put(theirs, batchlog.K("k"), nil)
		return nil
	})
	wantErr(t, "put in an update", err, batchlog.ErrPermission)
	v, err := db.View(within(t))
	check(t, err)
	defer v.Close()
	_, err = v.Get(theirs, batchlog.K("k"))
	wantErr(t, "get in a view", err, batchlog.ErrPermission)
	_, err = collect(v.Scan(theirs, batchlog.Range{}))
	wantErr(t, "scan of a view", err, batchlog.ErrPermission)
	_, err = until(t, db, batchlog.TailOptions{Spaces: []*batchlog.Space{theirs}, Until: 1})
	wantErr(t, "tail", err, batchlog.ErrPermission)
	_, err = drain(ours.Tail(within(t), batchlog.TailOptions{Spaces: []*batchlog.Space{db.Root()}, Until: 1}))
	wantErr(t, "tail of a space outside of the one tailed", err, batchlog.ErrPermission)
	if head(t, db) != 0 || head(t, other) != 0 {
		t.Errorf("something was written: heads are %d and %d", head(t, db), head(t, other))
	}
}

// A path that no key can hold makes a space whose every use is an error, and writes nothing.
func testBadSpace(t *testing.T, open Open) {
	db := plain(t, open)
	deep := make([]any, batchlog.MaxPathDepth+1)
	for i := range deep {
		deep[i] = "d"
	}
	put(t, db.Space(deep[:batchlog.MaxPathDepth]...), batchlog.K("k"), "v")
	for name, s := range map[string]*batchlog.Space{
		"channel": db.Space(make(chan int)), "NaN": db.Space(math.NaN()), "deep": db.Space(deep...),
		"long": db.Space(strings.Repeat("x", batchlog.MaxKeyBytes)), "within": db.Space("a").Space(math.NaN()).Space("b"),
	} {
		uses := map[string]error{}
		_, uses["get"] = s.Get(within(t), batchlog.K("k"))
		_, uses["put"] = s.Put(within(t), batchlog.K("k"), nil)
		_, uses["delete"] = s.Delete(within(t), batchlog.K("k"))
		_, uses["scan"] = collect(s.Scan(within(t), batchlog.Range{}))
		_, uses["tail"] = until(t, db, batchlog.TailOptions{Spaces: []*batchlog.Space{s}, Until: 1})
		_, uses["update"] = db.Update(within(t), func(tx *batchlog.Tx) error { tx.Put(s, nil, nil); return nil })
		for use, err := range uses {
			if err == nil {
				t.Errorf("%s of a space with a bad path (%s) is no error", use, name)
			}
		}
		if name == "deep" || name == "long" {
			wantErr(t, name, uses["put"], batchlog.ErrTooLarge)
		}
	}
	if got := head(t, db); got != 1 {
		t.Errorf("head is %d, want 1", got)
	}
}

// Spaces with equal paths are the same space, however they were reached.
func testSamePathSameSpace(t *testing.T, open Open) {
	db := plain(t, open)
	put(t, db.Space("a", "b"), batchlog.K("k"), "v")
	for _, s := range []*batchlog.Space{db.Space("a").Space("b"), db.Root().Space("a", "b"), db.Space().Space("a").Space().Space("b")} {
		wantValue(t, s, batchlog.K("k"), "v")
		if !s.Equal(db.Space("a", "b")) {
			t.Errorf("%v is not the space a/b", s.Path())
		}
	}
	wantAbsent(t, db.Space("a"), batchlog.K("k"))
	wantAbsent(t, db.Space([]any{"a", "b"}), batchlog.K("k"))
}
