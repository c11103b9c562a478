package bytewise_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bytespace/batchlog/bytewise"
)

// The arrays that begin with some parts, and no other values, are in the range of these parts.
func TestPrefixRange(t *testing.T) {
	values := generateMany(t, 1000)
	prefixes := [][]any{nil}
	for _, v := range values {
		if array, ok := v.([]any); ok && len(prefixes) < 200 {
			for n := range array {
				prefixes = append(prefixes, array[:n+1])
			}
			values = append(values, append(slices.Clone(array), bytewise.Undefined, 1.), append(slices.Clone(array), nil))
		}
	}
	for _, prefix := range prefixes {
		low, high, err := bytewise.PrefixRange(prefix...)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			array, ok := v.([]any)
			want := ok && len(array) >= len(prefix) && compare(array[:len(prefix)], prefix) == 0
			if b := encode(t, v); within(b, low, high) != want {
				t.Fatalf("%#v is %x, prefix %#v has [%x, %x), want within %v", v, b, prefix, low, high, want)
			}
		}
	}
}

func TestPrefixRangeRefuses(t *testing.T) {
	if low, high, err := bytewise.PrefixRange("a", "\xff"); err == nil || low != nil || high != nil {
		t.Errorf("%x, %x, %v", low, high, err)
	}
}

// The strings that begin with some bytes are in the range of these, also when the bytes end within a character.
func TestStringPrefixRange(t *testing.T) {
	values := append(generateMany(t, 2000), "", "é", "éa", "è", "\U0010ffff\U0010ffff", []any{"é"}, []byte("é"))
	prefixes := []string{"", "\xff", "a\xff", "\xf4", "\x00"}
	for _, v := range values {
		if s, ok := v.(string); ok {
			for n := range len(s) {
				prefixes = append(prefixes, s[:n+1])
			}
		}
	}
	for _, prefix := range prefixes[:min(len(prefixes), 300)] {
		low, high := bytewise.StringPrefixRange(prefix)
		for _, v := range values {
			s, ok := v.(string)
			want := ok && strings.HasPrefix(s, prefix)
			if b := encode(t, v); within(b, low, high) != want {
				t.Fatalf("%#v is %x, prefix %q (UTF-8 %v) has [%x, %x), want within %v", v, b, prefix, utf8.ValidString(prefix), low, high, want)
			}
		}
	}
}

// The binaries that begin with some bytes are in the range of these, also when they go on with ff, which npm misses.
func TestBinaryPrefixRange(t *testing.T) {
	values := append(generateMany(t, 2000), []any{[]byte{0xff}}, "a", "")
	prefixes := [][]byte{nil, {0xff}, {0xff, 0xff}, {0x61, 0xff}, {0x61, 0xfe}, {0x61}}
	for _, p := range prefixes {
		for _, rest := range []string{"", "\x00", "\xff", "\xff\xff\xff\x00", "\xfe\xff"} {
			values = append(values, append(bytes.Clone(p), rest...))
		}
	}
	for _, v := range values {
		if b, ok := v.([]byte); ok {
			prefixes = append(prefixes, b[:len(b)/2], b)
		}
	}
	for _, prefix := range prefixes[:min(len(prefixes), 300)] {
		low, high := bytewise.BinaryPrefixRange(prefix)
		for _, v := range values {
			binary, ok := v.([]byte)
			want := ok && bytes.HasPrefix(binary, prefix)
			if b := encode(t, v); within(b, low, high) != want {
				t.Fatalf("%#v is %x, prefix %x has [%x, %x), want within %v", v, b, prefix, low, high, want)
			}
		}
	}
}

// Bounds share no memory with each other or with what they were made of.
func TestRangesAreApart(t *testing.T) {
	b := append(make([]byte, 0, 16), 0x61, 0xff)
	low, high := bytewise.BinaryPrefixRange(b)
	_, _ = append(low, 0x99), append(high, 0x99)
	low[1] = 0x62
	if b[0] != 0x61 || !bytes.Equal(high, []byte{bytewise.TagBinary, 0x62}) {
		t.Errorf("b %x, high %x", b, high)
	}
}
