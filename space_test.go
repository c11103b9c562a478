package batchlog

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

func TestSpaceString(t *testing.T) {
	db := New(nil)
	for _, c := range []struct {
		path []any
		want string
	}{
		{nil, "/"},
		{[]any{"a"}, "a"},
		{[]any{"a", "b c"}, `["a","b c"]`},
		{[]any{"users", "eu"}, "users/eu"},
		{[]any{"ключ", "💩"}, "ключ/💩"},
		{[]any{"a/b"}, `["a/b"]`},
		{[]any{""}, `[""]`},
		{[]any{"[x"}, `["[x"]`},
		{[]any{"x["}, `x[`},
		{[]any{"\x00"}, `["\u0000"]`},
		{[]any{"\x7f"}, "[\"\x7f\"]"},
		{[]any{"7"}, "7"}, // 7 the number is [7]
		{[]any{7}, "[7]"},
		{[]any{"users", 7}, `["users",7]`},
		{[]any{nil, true}, "[null,true]"},
		{[]any{[]any{}}, "[[]]"},
		{[]any{math.Inf(1)}, "0xa04300"},
	} {
		s := db.Space(c.path...)
		if got := s.String(); got != c.want {
			t.Errorf("%v is %s, want %s", c.path, got, c.want)
		}
		if got := fmt.Sprintf("%v", s); got != c.want {
			t.Errorf("%v is printed %s", c.path, got)
		}
		if got := s.Path(); !db.Space(got...).Equal(s) || len(got) != len(c.path) {
			t.Errorf("%v has the path %v", c.path, got)
		}
	}
}

// Two spaces are in one another if one's path begins with the other's, and equal if it is the same; how they were made does not
// matter, the database does.
func TestSpaceContains(t *testing.T) {
	db, other := New(nil), New(nil)
	paths := [][]any{
		{}, {"a"}, {"a", "b"}, {"a", "b", 1}, {"ab"}, {"a", "bc"}, {[]any{"a"}}, {[]any{"a", "b"}}, {[]any{"a"}, "b"}, {nil}, {nil, nil},
		{""}, {"", ""}, {"a\x00"}, {"a\x00b"}, {"\xef\xbf\xbf"}, {[]byte("a")}, {[]byte{0xff}}, {1}, {1.5}, {bytewise.Undefined}, {[]any{}}, {[]any{}, "a"},
	}
	text := func(path []any) string { return fmt.Sprintf("%#v", append([]any{}, path...)) }
	begins := func(path, with []any) bool { return len(path) >= len(with) && text(path[:len(with)]) == text(with) }
	for _, p := range paths {
		s := db.Space(p...)
		for _, q := range paths {
			u := db.Space(q...)
			if got, want := s.Contains(u), begins(q, p); got != want {
				t.Errorf("%v contains %v: %v", p, q, got)
			}
			if got, want := s.Equal(u), text(p) == text(q); got != want {
				t.Errorf("%v equals %v: %v", p, q, got)
			}
			if within := s.Space(q...); !within.Equal(db.Space(append(append([]any{}, p...), q...)...)) || !s.Contains(within) {
				t.Errorf("%v within %v is %v", q, p, within)
			}
			if s.Contains(other.Space(q...)) || s.Equal(other.Space(p...)) {
				t.Errorf("%v is a space of another database", p)
			}
			if op := (Op{Space: u}); op.In(s) != s.Contains(u) {
				t.Errorf("op in %v is in %v: %v", q, p, op.In(s))
			}
		}
	}
	if db.Root().Space() != db.Root() || db.Space().String() != "/" {
		t.Error("a space with no more parts is another one")
	}
}

// A path that can't be makes a space whose every use says so, and which is nowhere.
func TestSpaceBad(t *testing.T) {
	db := New(nil)
	deep := make([]any, MaxPathDepth+1)
	for name, s := range map[string]*Space{
		"too deep":          db.Space(deep...),
		"too deep in steps": db.Space(deep[:20]...).Space(deep[20:]...),
		"too long":          db.Space(strings.Repeat("x", MaxKeyBytes-3)),
		"not a number":      db.Space("a", math.NaN()),
		"a struct":          db.Space(struct{}{}),
		"within a bad one":  db.Space(math.NaN()).Space("a"),
	} {
		large := strings.HasPrefix(name, "too")
		if s.err == nil || errors.Is(s.err, ErrTooLarge) != large {
			t.Errorf("%s: %v", name, s.err)
			continue
		}
		if s.Path() != nil || s.String() != s.err.Error() || s.Equal(s) || s.Contains(s) || db.Root().Contains(s) || s.Contains(db.Root()) {
			t.Errorf("%s: %v", name, s)
		}
		if _, err := s.Get(t.Context(), nil); !errors.Is(err, s.err) {
			t.Errorf("%s: get: %v", name, err)
		}
		if _, err := s.Put(t.Context(), nil, nil); !errors.Is(err, s.err) {
			t.Errorf("%s: put: %v", name, err)
		}
		if _, err := s.Delete(t.Context(), nil); !errors.Is(err, s.err) {
			t.Errorf("%s: delete: %v", name, err)
		}
		for _, err := range s.Tail(t.Context(), TailOptions{}) {
			if !errors.Is(err, s.err) {
				t.Errorf("%s: tail: %v", name, err)
			}
		}
	}
	if s := db.Space(deep[1:]...); s.err != nil || len(s.Path()) != MaxPathDepth {
		t.Errorf("as deep as may be: %v", s.err)
	}
	if s := db.Space(strings.Repeat("x", MaxKeyBytes-4)); s.err != nil || len(s.prefix) != MaxKeyBytes {
		t.Errorf("as long as may be: %v, %d", s.err, len(s.prefix))
	}
}

// The own keys of a space are what lies between its bounds: none of them is in another space, whatever the key.
func TestSpaceRanges(t *testing.T) {
	db := New(nil)
	r := rand.New(rand.NewPCG(3, 3))
	spaces := []*Space{db.Root(), db.Space("a"), db.Space("a", "b"), db.Space("ab"), db.Space(nil), db.Space("a", nil), db.Space([]any{"a"}), db.Space("a", bytewise.Undefined)}
	keys := []Key{{}, {0}, {1}, {0xff}, {0xff, 0xff}, {0xa0}, {0x70}, {0x10, 0}, K("a"), K("a", "b")}
	for range 100 {
		k := make(Key, r.IntN(6))
		for i := range k {
			k[i] = []byte{0, 1, 2, 0x10, 0x70, 0xa0, 0xf0, 0xff}[r.IntN(8)]
		}
		keys = append(keys, k)
	}
	for _, s := range spaces {
		for range 100 {
			rg := Range{keys[r.IntN(len(keys))], keys[r.IntN(len(keys))]}
			if r.IntN(3) == 0 {
				rg.Low = nil
			}
			if r.IntN(3) == 0 {
				rg.High = nil
			}
			low, high, empty := s.storedRange(rg)
			for _, u := range spaces {
				for _, k := range keys {
					stored := u.storedKey(k)
					in := !empty && bytes.Compare(low, stored) <= 0 && bytes.Compare(stored, high) < 0
					if want := s.Equal(u) && rg.Contains(k); in != want {
						t.Fatalf("key %x of %s in %x-%x of %s: %v", k, u, rg.Low, rg.High, s, in)
					}
				}
			}
		}
	}
}

// A spaceRow is a line of testdata/bytespace.jsonl, made by running the npm package bytespace 0.11.0.
type spaceRow struct {
	Kind, Key, Hex string
	Path           tagged
	Opts           map[string]any
	Out            map[string]string
}

type tagged struct {
	T, MS, Hex string
	V          json.RawMessage
}

func (v tagged) value(t *testing.T) any {
	t.Helper()
	var text string
	var list []tagged
	switch v.T {
	case "array":
		check(t, json.Unmarshal(v.V, &list))
		values := []any{}
		for _, e := range list {
			values = append(values, e.value(t))
		}
		return values
	case "string", "number":
		check(t, json.Unmarshal(v.V, &text))
	case "null":
		return nil
	case "undefined":
		return bytewise.Undefined
	case "boolean":
		return string(v.V) == "true"
	case "buffer":
		return []byte(unhex(t, v.Hex))
	case "date":
		ms, err := strconv.ParseInt(v.MS, 10, 64)
		check(t, err)
		return time.UnixMilli(ms)
	default:
		t.Fatalf("value %+v", v)
	}
	if v.T == "string" {
		return text
	}
	f, err := strconv.ParseFloat(text, 64)
	check(t, err)
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) string {
	t.Helper()
	b, err := hex.DecodeString(s)
	check(t, err)
	return string(b)
}

func spaceRows(t *testing.T, kind string, want int) []spaceRow {
	t.Helper()
	f, err := os.Open("testdata/bytespace.jsonl")
	check(t, err)
	defer f.Close()
	var rows []spaceRow
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r spaceRow
		check(t, json.Unmarshal(lines.Bytes(), &r))
		if r.Kind == kind {
			rows = append(rows, r)
		}
	}
	if len(rows) != want {
		t.Fatalf("%d rows of kind %s, want %d", len(rows), kind, want)
	}
	return rows
}

// Keys are stored as npm stores them.
func TestVectorsKeys(t *testing.T) {
	db := New(nil)
	for _, r := range spaceRows(t, "key", 128) {
		s := db.Space(r.Path.value(t).([]any)...)
		stored := unhex(t, r.Hex)
		if got := s.storedKey(Key(unhex(t, r.Key))); string(got) != stored {
			t.Errorf("key %s of %s is stored as %x, want %s", r.Key, s, got, r.Hex)
		}
		path, key, err := wire.SplitKey([]byte(stored))
		if err != nil || string(path) != string(s.prefix) || string(key) != unhex(t, r.Key) {
			t.Errorf("%s is split into %x and %x, %v", r.Hex, path, key, err)
		}
	}
}

// Ranges are npm's where a bound is given. Where none is, npm leaves out the empty key and keys that begin with ff; ours hold all
// keys of the space.
func TestVectorsRanges(t *testing.T) {
	db := New(nil)
	wider := 0
	for _, r := range spaceRows(t, "range", 240) {
		s := db.Space(r.Path.value(t).([]any)...)
		reverse := r.Opts["reverse"] == true
		var rg Range
		for name, bound := range r.Opts {
			text, _ := bound.(string)
			k := Key(unhex(t, text))
			switch {
			case name == "reverse":
			case name == "gte", name == "min", name == "start" && !reverse, name == "end" && reverse:
				if r.Opts["gt"] == nil { // npm takes gt where both are given
					rg.Low = k
				}
			case name == "gt":
				rg.Low = append(k, 0)
			case name == "lte", name == "max", name == "end" && !reverse, name == "start" && reverse:
				if r.Opts["lt"] == nil {
					rg.High = append(k, 0)
				}
			case name == "lt":
				rg.High = k
			default:
				t.Fatalf("option %s", name)
			}
		}
		npmLow, npmHigh := npmRange(t, r.Out)
		low, high, _ := s.storedRange(rg)
		if rg.Low != nil && string(low) != npmLow || rg.High != nil && string(high) != npmHigh {
			t.Errorf("%v of %s: %x-%x, npm has %x-%x", r.Opts, s, low, high, npmLow, npmHigh)
		}
		for _, k := range []string{"", "\x00", "a", "b", "bb", "c", "m", "m\x00", "n", "\xfe", "\xff", "\xff\x00", "\xff\xff"} {
			stored := string(s.storedKey(Key(k)))
			ours := string(low) <= stored && stored < string(high)
			npm := npmLow <= stored && stored < npmHigh
			left := rg.Low == nil && k == "" || rg.High == nil && strings.HasPrefix(k, "\xff")
			if ours != rg.Contains(Key(k)) || npm && !ours || ours && !npm && !left {
				t.Errorf("%v of %s: key %x: %v, npm %v", r.Opts, s, k, ours, npm)
			}
			if ours && !npm {
				wider++
			}
		}
	}
	if wider == 0 {
		t.Error("npm's faults are not in the vectors")
	}
}

// npmRange is npm's bounds as a half-open range.
func npmRange(t *testing.T, out map[string]string) (low, high string) {
	t.Helper()
	for name, text := range out {
		bound := unhex(t, text)
		switch name {
		case "gte":
			low = bound
		case "gt":
			low = bound + "\x00"
		case "lt":
			high = bound
		case "lte":
			high = bound + "\x00"
		default:
			t.Fatalf("bound %s", name)
		}
	}
	return low, high
}
