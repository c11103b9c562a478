package bytewise_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/bytespace/batchlog/bytewise"
)

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		hex    string
		offset int
	}{
		{"", 0}, {"00", 0}, {"ff", 0}, {"30", 0}, {"b000", 0},
		{"1010", 1}, {"a00000", 2}, {"42000000000000000042", 9},
		{"42", 1}, {"4200000000000000", 8}, {"a042000000", 5}, {"a0", 1}, {"a0a000", 3}, {"a07061", 3}, {"a06061", 3},
		{"41ffffffffffffffff", 0}, // -0
		{"418000000000000000", 0}, // magnitude with a sign
		{"41800fffffffffffff", 0}, // -Infinity in the wrong place
		{"427ff0000000000000", 0}, {"427ff8000000000000", 0}, {"428000000000000000", 0},
		{"51ffffffffffffffff", 0}, {"523fe0000000000000", 0}, {"52433eb208c2dc0001", 0}, {"51bcc14df73d23fffe", 0},
		{"70ff", 1}, {"7061eda080", 2}, {"a07061ff00", 3}, {"a07061ff0000", 3}, {"a010 70 61 c3 00 00", 4},
		{"a07001010200", 6}, {"a0706101030000", 3}, {"a07001000000", 2}, {"a070010000", 2}, {"a07001000110", 2},
		{"a060fe0000", 2}, {"a060feff0000", 2}, {"a060ff0000", 2}, {"a06001ff0000", 2}, {"a060fefcfe0000", 2},
		{"a0990000", 1}, {"a0ff0000", 1}, {"a0a0b0000000", 2},
	} {
		b := unhex(t, string(bytes.ReplaceAll([]byte(c.hex), []byte(" "), nil)))
		v, err := bytewise.Decode(b)
		var syntaxErr *bytewise.SyntaxError
		if !errors.As(err, &syntaxErr) || v != nil || syntaxErr.Reason == "" {
			t.Errorf("Decode(%s) = %#v, %v", c.hex, v, err)
		} else if syntaxErr.Offset != c.offset {
			t.Errorf("Decode(%s): %v, want offset %d", c.hex, err, c.offset)
		}
	}
}

// What Decode returns is the caller's: it shares no memory with the input.
func TestDecodeCopies(t *testing.T) {
	for _, v := range []any{[]byte("abc"), "abc", []any{[]byte("abc"), "abc", []byte{1}}} {
		b := encode(t, v)
		got, err := bytewise.Decode(b)
		clear(b)
		if err != nil || compare(got, v) != 0 {
			t.Errorf("%#v became %#v, %v", v, got, err)
		}
	}
}

func TestDecodeDatesAreUTC(t *testing.T) {
	v, err := bytewise.Decode(encode(t, time.Now().Truncate(time.Millisecond)))
	if err != nil || v.(time.Time).Location() != time.UTC {
		t.Errorf("%v, %v", v, err)
	}
}

// Each byte cut from the end of an array is missed, and each byte after it is left alone.
func TestArrayPrefix(t *testing.T) {
	for _, v := range append(generateMany(t, 500), []any{}, []any{"users", 42.}) {
		array, ok := v.([]any)
		if !ok {
			continue
		}
		b := encode(t, array)
		for _, key := range []string{"", "\x00", "\xff\xff", "k"} {
			checkArrayPrefix(t, append(bytes.Clone(b), key...), array, len(b))
		}
		for n := range b {
			if size, err := bytewise.ArrayLen(b[:n]); err == nil || size != 0 {
				t.Errorf("ArrayLen(%x) = %d, %v", b[:n], size, err)
			}
			if v, size, err := bytewise.DecodeArrayPrefix(b[:n]); err == nil || size != 0 || v != nil {
				t.Errorf("DecodeArrayPrefix(%x) = %v, %d, %v", b[:n], v, size, err)
			}
		}
	}
}

// checkArrayPrefix fails unless all that reads arrays finds array and its size at the start of b, and the same elements.
func checkArrayPrefix(t *testing.T, b []byte, array []any, size int) {
	t.Helper()
	if got, err := bytewise.ArrayLen(b); err != nil || got != size {
		t.Errorf("ArrayLen(%x) = %d, %v, want %d", b, got, err, size)
	}
	got, gotSize, err := bytewise.DecodeArrayPrefix(b)
	if err != nil || gotSize != size || compare(got, array) != 0 {
		t.Errorf("DecodeArrayPrefix(%x) = %#v, %d, %v, want %#v, %d", b, got, gotSize, err, array, size)
	}
	offset := 1
	for _, e := range array {
		element, err := bytewise.AppendElement(nil, e)
		if err != nil || !bytes.HasPrefix(b[offset:], element) {
			t.Errorf("AppendElement(%#v) = %x, %v, is not in %x at %d", e, element, err, b, offset)
		}
		n, err := bytewise.ElementLen(b[offset:])
		if err != nil || n != len(element) {
			t.Errorf("ElementLen(%x) = %d, %v, want %d", b[offset:], n, err, len(element))
		}
		offset += n
	}
	if b[offset] != bytewise.TagEnd || offset+1 != size {
		t.Errorf("elements of %x end at %d, the array at %d", b, offset, size)
	}
}

// Sizes are of structure: not of what Decode checks, but tags and ends must be there.
func TestLenRefuses(t *testing.T) {
	for _, h := range []string{"", "00", "ff", "b000", "42", "a0", "a0a000", "a07061", "a0ff00", "a0420000"} {
		var syntaxErr *bytewise.SyntaxError
		if n, err := bytewise.ArrayLen(unhex(t, h)); !errors.As(err, &syntaxErr) || n != 0 {
			t.Errorf("ArrayLen(%s) = %d, %v", h, n, err)
		}
		if n, err := bytewise.ElementLen(unhex(t, h)); !errors.As(err, &syntaxErr) || n != 0 {
			t.Errorf("ElementLen(%s) = %d, %v", h, n, err)
		}
	}
	if n, err := bytewise.ArrayLen(unhex(t, "70610000")); err == nil {
		t.Errorf("ArrayLen of a string is %d", n)
	}
	if n, err := bytewise.ArrayLen(unhex(t, "a070ff0105000042")); err != nil || n != 7 {
		t.Errorf("ArrayLen = %d, %v, want 7", n, err)
	}
}

// A mebibyte of open arrays is refused at MaxDepth, before it costs anything.
func TestDepthBomb(t *testing.T) {
	bomb := bytes.Repeat([]byte{bytewise.TagArray}, 1<<20)
	start := time.Now()
	for range 1000 {
		if _, err := bytewise.Decode(bomb); err == nil {
			t.Fatal("Decode accepts it")
		}
		if _, _, err := bytewise.DecodeArrayPrefix(bomb); err == nil {
			t.Fatal("DecodeArrayPrefix accepts it")
		}
		if _, err := bytewise.ArrayLen(bomb); err == nil {
			t.Fatal("ArrayLen accepts it")
		}
		if _, err := bytewise.ElementLen(bomb); err == nil {
			t.Fatal("ElementLen accepts it")
		}
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("refused a thousand times in %v", d)
	}
}

func TestLenDoesNotAllocate(t *testing.T) {
	b := append(encode(t, []any{"users", 42, []any{[]byte{0, 1}}, nil}), "key"...)
	got := testing.AllocsPerRun(100, func() {
		if _, err := bytewise.ArrayLen(b); err != nil {
			t.Fatal(err)
		}
		if _, err := bytewise.ElementLen(b[1:]); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}
