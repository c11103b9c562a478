package bytewise_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog/bytewise"
)

type (
	id      uint64
	name    string
	flag    bool
	path    []any
	celsius float32
	uuid    [16]byte
	blob    []byte
	loop    []loop
)

// Other Go types encode as the one that Decode returns for them.
func TestAppendGoTypes(t *testing.T) {
	when := time.UnixMilli(1234).UTC()
	for _, c := range []struct{ in, want any }{
		{int(-1), -1.}, {int8(-128), -128.}, {int16(2), 2.}, {int32(3), 3.}, {int64(1 << 53), 0x1p53}, {int64(math.MinInt64), -0x1p63},
		{uint(1), 1.}, {uint8(255), 255.}, {uint16(2), 2.}, {uint32(3), 3.}, {uint64(1 << 63), 0x1p63}, {uintptr(7), 7.},
		{float32(0.1), float64(float32(0.1))}, {float32(math.Inf(-1)), math.Inf(-1)}, {celsius(36.5), 36.5},
		{id(9), 9.}, {time.Second, 1e9}, {name("a"), "a"}, {flag(true), true},
		{[]byte(nil), []byte{}}, {blob{1}, []byte{1}}, {uuid{15: 1}, append(make([]byte, 15), 1)}, {[0]byte{}, []byte{}},
		{[]any(nil), []any{}}, {path{"a", 1, nil}, []any{"a", 1., nil}}, {[1]any{when}, []any{when}},
		{[]string{"a", ""}, []any{"a", ""}}, {[2]id{1, 2}, []any{1., 2.}}, {[][]int{{1}, nil}, []any{[]any{1.}, []any{}}},
		{[]time.Time{when}, []any{when}}, {[][1]time.Time{{when}}, []any{[]any{when}}}, {[]uuid{{}}, []any{make([]byte, 16)}},
		{[]bytewise.UndefinedType{{}}, []any{bytewise.Undefined}}, {loop{{}}, []any{[]any{}}},
		{when.In(time.FixedZone("", 3600)), when}, {time.Time{}, time.Time{}},
	} {
		got, err := bytewise.Decode(encode(t, c.in))
		if err != nil || compare(got, c.want) != 0 {
			t.Errorf("%T %v comes back as %#v, %v, want %#v", c.in, c.in, got, err, c.want)
		}
	}
}

// What would not come back or not sort is refused, and dst stays as it was.
func TestAppendRefuses(t *testing.T) {
	nan := math.NaN()
	cyclic := []any{nil}
	cyclic[0] = cyclic
	cyclicLoop := loop{nil}
	cyclicLoop[0] = cyclicLoop
	cyclicPath := path{nil}
	cyclicPath[0] = cyclicPath
	for _, v := range []any{
		nan, -nan, float32(nan),
		int64(1<<53 + 1), int64(-1<<53 - 1), int64(math.MaxInt64), uint64(math.MaxUint64), id(math.MaxUint64), uint64(1<<63 + 1),
		"\xff", "a\xc3", "\xed\xa0\x80", name("\x80"),
		time.Unix(0, 1), time.Unix(0, 999_999), time.UnixMilli(8_640_000_000_000_001), time.UnixMilli(-8_640_000_000_000_001),
		time.Unix(8_640_000_000_000, 1), time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0), time.Unix(1<<60, 0),
		map[string]int{}, struct{}{}, &struct{}{}, (*int)(nil), new("a"), 1i, func() {}, make(chan int), []error{nil}, []map[int]int{{}},
		[]time.Time{time.Unix(0, 1)}, path{nan}, []any{"a", []any{nan}}, nested(bytewise.MaxDepth + 1), cyclic, cyclicLoop, cyclicPath,
	} {
		for _, appendTo := range []func([]byte, any) ([]byte, error){bytewise.Append, bytewise.AppendElement} {
			dst := append(make([]byte, 0, 64), "dst"...)
			got, err := appendTo(dst, v)
			var valueErr *bytewise.ValueError
			if !errors.As(err, &valueErr) || valueErr.Type == "" || valueErr.Reason == "" {
				t.Errorf("%T %.40v: error %#v, want a *ValueError", v, v, err)
			}
			if string(got) != "dst" || &got[0] != &dst[0] {
				t.Errorf("%T %.40v: dst is now %q", v, v, got)
			}
		}
	}
}

// The error names the type that is at fault, also when it is named or an element.
func TestValueErrorType(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{math.NaN(), "float64"}, {celsius(math.NaN()), "bytewise_test.celsius"}, {name("\x80"), "bytewise_test.name"},
		{id(math.MaxUint64), "bytewise_test.id"}, {[]any{path{"\x80"}}, "string"}, {[]error{nil}, "error"}, {new(1), "*int"},
	} {
		var valueErr *bytewise.ValueError
		if _, err := bytewise.Encode(c.v); !errors.As(err, &valueErr) || valueErr.Type != c.want {
			t.Errorf("%T: %v, want it about %s", c.v, err, c.want)
		}
	}
}

func TestMaxDepth(t *testing.T) {
	deepest := nested(bytewise.MaxDepth)
	b := encode(t, deepest)
	if v, err := bytewise.Decode(b); err != nil || compare(v, deepest) != 0 {
		t.Errorf("depth %d: %v", bytewise.MaxDepth, err)
	}
	if n, err := bytewise.ArrayLen(b); err != nil || n != len(b) {
		t.Errorf("ArrayLen at depth %d: %d, %v", bytewise.MaxDepth, n, err)
	}
	// As an element the array would be one deeper.
	if _, err := bytewise.AppendElement(nil, deepest); err == nil {
		t.Error("AppendElement goes too deep")
	}
	if _, err := bytewise.ElementLen(b); err == nil {
		t.Error("ElementLen goes too deep")
	}
	if _, _, err := bytewise.PrefixRange(deepest); err == nil {
		t.Error("PrefixRange goes too deep")
	}
	b = slices.Concat([]byte{bytewise.TagArray}, b, []byte{bytewise.TagEnd})
	if _, err := bytewise.Decode(b); err == nil {
		t.Error("Decode goes too deep")
	}
	if _, _, err := bytewise.DecodeArrayPrefix(b); err == nil {
		t.Error("DecodeArrayPrefix goes too deep")
	}
	if _, err := bytewise.ArrayLen(b); err == nil {
		t.Error("ArrayLen goes too deep")
	}
}

func nested(depth int) any {
	v := []any{}
	for range depth - 1 {
		v = []any{v}
	}
	return v
}

// The bytes sort as the values do, and come back.
func TestOrderAndRoundTrip(t *testing.T) {
	values := generateMany(t, 1500)
	encoded := make([][]byte, len(values))
	for i, v := range values {
		encoded[i] = encode(t, v)
		got, err := bytewise.Decode(encoded[i])
		if err != nil || compare(got, v) != 0 {
			t.Fatalf("%#v comes back from %x as %#v, %v", v, encoded[i], got, err)
		}
	}
	for i, a := range values {
		for j, b := range values {
			if got, want := bytes.Compare(encoded[i], encoded[j]), compare(a, b); got != want {
				t.Fatalf("%x and %x compare as %d, %#v and %#v as %d", encoded[i], encoded[j], got, a, b, want)
			}
		}
	}
}

// Append extends what is there.
func TestAppendExtends(t *testing.T) {
	b, err := bytewise.Append([]byte("a"), "b")
	if err != nil || string(b) != "apb" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 256)
	s, n := strings.Repeat("users\x00", 3), 1<<40
	run := func(name string, f func() ([]byte, error)) {
		got := testing.AllocsPerRun(100, func() {
			if _, err := f(); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	run("scalars", func() ([]byte, error) {
		b, err := bytewise.Append(dst, s)
		if err != nil {
			return nil, err
		}
		return bytewise.AppendElement(b, n)
	})
	run("array", func() ([]byte, error) { return bytewise.Append(dst, []any{s, n}) })
	run("named", func() ([]byte, error) { return bytewise.Append(dst, []any{name(s), id(n)}) })
}
