package batchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// tailOf is a database whose log is these stretches.
func tailOf(end error, closed *atomic.Int64, asked *LogOptions, scanned []ID, stretches ...[]wire.Record) *DB {
	return New(&stub{log: func(_ context.Context, o LogOptions) (waist.LogReader, error) {
		*asked = o
		return &sliceReader{stretches: stretches, scanned: scanned, end: end, closed: closed}, nil
	}})
}

func recordOf(id ID, spaces ...*Space) wire.Record {
	r := wire.Record{ID: id, Time: int64(id) * 1000}
	for _, s := range spaces {
		r.Ops = wire.AppendOpIn(r.Ops, OpPut, s.prefix, K("k"), []byte("v"))
		r.Count++
	}
	return r
}

// A tail yields the commits of its reader, whose ops are shown through the tail's spaces; bookmarks only if it asks for them.
func TestTail(t *testing.T) {
	paths := New(nil) // for the bytes; which database a space is of does not show in them
	a, within, b := paths.Space("a"), paths.Space("a", "b"), paths.Space("b")
	labelled := recordOf(5, b)
	labelled.Meta = wire.AppendHook(wire.AppendLabel(wire.AppendToken(nil, "t"), "who", "me"), a.prefix)
	stretches := [][]wire.Record{{recordOf(1, a, b, within), recordOf(2, b)}, {}, {labelled}}
	scanned := []ID{2, 4, 6}
	for _, c := range []struct {
		name string
		o    func(db *DB) TailOptions
		want []string
	}{
		{"all", func(*DB) TailOptions { return TailOptions{} }, []string{"1: a a/b b", "2: b", "5: b"}},
		{
			"with bookmarks", func(*DB) TailOptions { return TailOptions{Bookmarks: true} },
			[]string{"1: a a/b b", "2: b", "bookmark 4", "5: b", "bookmark 6"},
		},
		{"a", func(db *DB) TailOptions { return TailOptions{Spaces: []*Space{db.Space("a")}} }, []string{"1: a a/b", "2: ", "5: "}},
		{"two", func(db *DB) TailOptions { return TailOptions{Spaces: []*Space{db.Space("a", "b"), db.Space("b")}} }, []string{"1: a/b b", "2: b", "5: b"}},
	} {
		var closed atomic.Int64
		var asked LogOptions
		db := tailOf(io.EOF, &closed, &asked, scanned, stretches...)
		o := c.o(db)
		o.From, o.Until = After(0), 9
		var got []string
		for commit, err := range db.Tail(t.Context(), o) {
			if err != nil {
				t.Fatal(err)
			}
			if commit.Bookmark() {
				got = append(got, fmt.Sprintf("bookmark %d", commit.ID))
				for op, err := range commit.Ops() {
					t.Error("a bookmark has ops", op, err)
				}
				continue
			}
			var spaces []string
			for op, err := range commit.Ops() {
				if err != nil || op.Kind != OpPut || op.Key.String() != `"k"` || string(op.Value) != "v" || op.Space.db != db {
					t.Fatal(op, err)
				}
				spaces = append(spaces, op.Space.String())
			}
			slices.Sort(spaces)
			got = append(got, fmt.Sprintf("%d: %s", commit.ID, strings.Join(spaces, " ")))
			if !commit.Time.Equal(time.UnixMicro(int64(commit.ID) * 1000)) {
				t.Errorf("commit %d at %v", commit.ID, commit.Time)
			}
			if commit.ID == 5 && (len(commit.Labels) != 1 || commit.Labels["who"] != "me" || len(commit.Hooks) != 1 || !commit.Hooks[0].Equal(db.Space("a"))) {
				t.Errorf("commit %+v", commit)
			}
		}
		if !slices.Equal(got, c.want) || closed.Load() != 1 {
			t.Errorf("%s: %q, want %q; reader closed %d times", c.name, got, c.want, closed.Load())
		}
		if asked.From != After(0) || asked.Until != 9 || len(asked.Within) != len(o.Spaces) {
			t.Errorf("%s: engine was asked for %+v", c.name, asked)
		}
		for i, s := range o.Spaces {
			if string(asked.Within[i]) != string(wire.Open(s.prefix)) {
				t.Errorf("%s: engine was asked for %x", c.name, asked.Within[i])
			}
		}
	}
}

// A commit is whole whatever becomes of the tail: what has been yielded is safe to keep, and reads the same again.
func TestTailKeeps(t *testing.T) {
	s := New(nil).Space("s")
	var records []wire.Record
	for id := range ID(100) {
		records = append(records, recordOf(id+1, s))
	}
	var closed atomic.Int64
	var asked LogOptions
	db := tailOf(io.EOF, &closed, &asked, []ID{100}, records)
	var kept []*Commit
	for c, err := range db.Tail(t.Context(), TailOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, c)
	}
	clear(records) // the engine's slice, which it may use again
	for range 2 {
		for i, c := range kept {
			n := 0
			for op, err := range c.Ops() {
				if err != nil || !op.Space.Equal(db.Space("s")) {
					t.Fatal(op, err)
				}
				n++
			}
			if c.ID != ID(i+1) || n != 1 || c.Len() != 1 || c.Size() == 0 {
				t.Fatalf("commit %+v with %d ops", c, n)
			}
		}
	}
}

// Errors end a tail: of the engine, of the reader behind what it has given, of a commit that makes no sense.
func TestTailErrors(t *testing.T) {
	s := New(nil).Space("s")
	bad := recordOf(2, s)
	bad.Meta = []byte{99}
	for name, c := range map[string]struct {
		records []wire.Record
		end     error
		commits int
		want    error
	}{
		"reader": {[]wire.Record{recordOf(1, s)}, errBroken, 1, errBroken},
		"gap":    {nil, &GapError{From: 1, Oldest: 5}, 0, ErrGap},
		"meta":   {[]wire.Record{recordOf(1, s), bad, recordOf(3, s)}, io.EOF, 1, wire.ErrMeta},
	} {
		var closed atomic.Int64
		var asked LogOptions
		db := tailOf(c.end, &closed, &asked, []ID{9}, c.records)
		commits, errs := 0, []error(nil)
		for commit, err := range db.Tail(t.Context(), TailOptions{}) {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if commits++; commit.ID != ID(commits) {
				t.Errorf("%s: commit %d", name, commit.ID)
			}
		}
		if commits != c.commits || len(errs) != 1 || !errors.Is(errs[0], c.want) || closed.Load() != 1 {
			t.Errorf("%s: %d commits, %v, reader closed %d times", name, commits, errs, closed.Load())
		}
	}
	db := New(&stub{log: func(context.Context, LogOptions) (waist.LogReader, error) { return nil, errBroken }})
	for _, err := range db.Tail(t.Context(), TailOptions{}) {
		if !errors.Is(err, errBroken) {
			t.Error(err)
		}
	}
}

// A loop that is broken off closes the reader, wherever it was.
func TestTailBreak(t *testing.T) {
	s := New(nil).Space("s")
	for stop := 1; stop <= 4; stop++ {
		var closed atomic.Int64
		var asked LogOptions
		db := tailOf(io.EOF, &closed, &asked, []ID{2, 4}, []wire.Record{recordOf(1, s), recordOf(2, s)}, []wire.Record{recordOf(3, s)})
		n := 0
		for _, err := range db.Tail(t.Context(), TailOptions{Bookmarks: true}) {
			if err != nil {
				t.Error(err)
			}
			if n++; n == stop {
				break
			}
		}
		if n != stop || closed.Load() != 1 {
			t.Errorf("stop at %d: %d yielded, reader closed %d times", stop, n, closed.Load())
		}
	}
}

// A tail is about spaces of its database, and that of a space about none outside of it.
func TestTailCapability(t *testing.T) {
	db := New(&stub{log: func(context.Context, LogOptions) (waist.LogReader, error) {
		return &sliceReader{end: io.EOF}, nil
	}})
	s := db.Space("a")
	for name, c := range map[string]struct {
		tail    func() error
		refused bool
	}{
		"within":           {func() error { return tailError(s, s.Space("b")) }, false},
		"itself":           {func() error { return tailError(s, s) }, false},
		"nothing named":    {func() error { return tailError(s) }, false},
		"around":           {func() error { return tailError(s, db.Root()) }, true},
		"beside":           {func() error { return tailError(s, s.Space("b"), db.Space("ab")) }, true},
		"system":           {func() error { return tailError(db.Root(), db.Inside().System()) }, true},
		"another database": {func() error { return tailError(s, New(nil).Space("a")) }, true},
		"another, of a DB": {func() error { return firstError(db.Tail(t.Context(), TailOptions{Spaces: []*Space{New(nil).Root()}})) }, true},
		"nil, of a DB":     {func() error { return firstError(db.Tail(t.Context(), TailOptions{Spaces: []*Space{nil}})) }, true},
		"bad one, of a DB": {func() error {
			return firstError(db.Tail(t.Context(), TailOptions{Spaces: []*Space{db.Space(struct{}{})}}))
		}, true},
		"system, of the DB": {func() error {
			return firstError(db.Tail(t.Context(), TailOptions{Spaces: []*Space{db.Inside().System()}}))
		}, false},
	} {
		if err := c.tail(); (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func tailError(s *Space, spaces ...*Space) error {
	return firstError(s.Tail(context.Background(), TailOptions{Spaces: spaces}))
}

func firstError(seq func(yield func(*Commit, error) bool)) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// The table of spaces that ops are in stays bounded, and a space is the same before and after it starts anew.
func TestSpacesKnown(t *testing.T) {
	db := New(nil)
	before, err := db.spaceOf(db.Space(1).prefix)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * spacesKnown {
		s, err := db.spaceOf(db.Space(i).prefix)
		if err != nil || !s.Equal(db.Space(i)) {
			t.Fatal(s, err)
		}
		if n := len(db.spaces.known); n > spacesKnown {
			t.Fatalf("%d spaces are known", n)
		}
	}
	if after, err := db.spaceOf(db.Space(1).prefix); err != nil || !after.Equal(before) {
		t.Error(after, err)
	}
}

// A tail over more spaces than are remembered makes some of them anew, not all; and after a while it remembers those that it meets now.
func TestManySpaces(t *testing.T) {
	db := New(nil)
	path := func(i int) []byte { return db.Space("many", i).prefix }
	cycle := func(first, count int) (hits int) {
		for i := range count {
			p := path(first + i)
			if db.spaces.known[string(p)] != nil {
				hits++
			}
			if s, err := db.spaceOf(p); err != nil || string(s.prefix) != string(p) {
				t.Fatal(s, err)
			}
		}
		return hits
	}
	for _, count := range []int{spacesKnown + 1, spacesKnown * 5 / 4, 2 * spacesKnown} {
		cycle(0, count)
		hits := 0
		for range 3 {
			hits += cycle(0, count)
		}
		if share, least := float64(hits)/float64(3*count), 0.8*spacesKnown/float64(count); share < least {
			t.Errorf("of %d spaces in turn %.0f%% are remembered, not %.0f%%", count, 100*share, 100*least)
		}
		if n := len(db.spaces.known); n > spacesKnown {
			t.Errorf("%d spaces are remembered", n)
		}
	}
	for range 60 {
		cycle(1_000_000, spacesKnown/2)
	}
	if hits := cycle(1_000_000, spacesKnown/2); hits < spacesKnown*4/10 {
		t.Errorf("%d of %d spaces that are met again and again are remembered", hits, spacesKnown/2)
	}
	long := db.Space(strings.Repeat("x", 10_000)).prefix
	if s, err := db.spaceOf(long); err != nil || string(s.prefix) != string(long) || db.spaces.known[string(long)] != nil {
		t.Error("a long path is remembered, or not found", err)
	}
}

// A filter finds the same whether it has few spaces or many, and looks at few of them for each key.
func TestSortedPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	word := func() []byte {
		b := make([]byte, r.IntN(5))
		for i := range b {
			b[i] = byte(r.IntN(3)) + 254*byte(r.IntN(2))
		}
		return b
	}
	for range 500 {
		prefixes := make([][]byte, r.IntN(60))
		for i := range prefixes {
			prefixes[i] = append(word(), word()...)
			if len(prefixes[i]) == 0 && r.IntN(10) > 0 {
				prefixes[i] = []byte{1}
			}
		}
		given := slices.Clone(prefixes)
		sorted := wire.SortedPrefixes(prefixes)
		if !slices.EqualFunc(given, prefixes, bytes.Equal) || !slices.IsSortedFunc(sorted, bytes.Compare) {
			t.Fatal("not sorted, or the argument changed")
		}
		for range 50 {
			key := append(word(), word()...)
			if got, want := wire.HasSortedPrefix(key, sorted), wire.HasAnyPrefix(key, prefixes); got != want {
				t.Fatalf("%x within %x: %v, want %v", key, prefixes, got, want)
			}
		}
	}
}
