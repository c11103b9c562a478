package bytewise_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bytespace/batchlog/bytewise"
)

// Whatever Decode accepts, Append writes; nothing panics; and all that reads arrays agrees about them.
func FuzzDecode(f *testing.F) {
	for _, file := range []string{"testdata/bytewise.jsonl", "testdata/bytewise-extra.jsonl"} {
		for _, r := range readRows(f, file) {
			f.Add(unhex(f, r.Hex))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var syntaxErr *bytewise.SyntaxError
		v, err := bytewise.Decode(b)
		if err != nil {
			if !errors.As(err, &syntaxErr) || syntaxErr.Offset < 0 || syntaxErr.Offset > len(b) {
				t.Errorf("error %#v", err)
			}
		} else if got := encode(t, v); !bytes.Equal(got, b) {
			t.Errorf("%x decodes as %#v, which encodes as %x", b, v, got)
		}

		array, size, err := bytewise.DecodeArrayPrefix(b)
		if err == nil {
			checkArrayPrefix(t, b, array, size)
			if got := encode(t, array); !bytes.Equal(got, b[:size]) {
				t.Errorf("%x begins with %#v, which encodes as %x", b, array, got)
			}
		}
		if whole, ok := v.([]any); ok && (err != nil || size != len(b) || compare(whole, array) != 0) {
			t.Errorf("Decode(%x) = %#v, DecodeArrayPrefix = %#v, %d, %v", b, whole, array, size, err)
		}

		for name, sizeOf := range map[string]func([]byte) (int, error){"ArrayLen": bytewise.ArrayLen, "ElementLen": bytewise.ElementLen} {
			n, err := sizeOf(b)
			if n < 0 || n > len(b) || (n == 0) == (err == nil) {
				t.Errorf("%s(%x) = %d, %v", name, b, n, err)
			}
			if err == nil { // what follows does not matter, and all that is there does
				if again, err := sizeOf(b[:n]); again != n || err != nil {
					t.Errorf("%s(%x) = %d, %v, want %d", name, b[:n], again, err, n)
				}
				if _, err := sizeOf(b[:n-1]); err == nil {
					t.Errorf("%s accepts %x", name, b[:n-1])
				}
			}
		}
	})
}

// Two values made of the input come back, and sort as their bytes do.
func FuzzAppend(f *testing.F) {
	for _, r := range readRows(f, "testdata/bytewise.jsonl") {
		f.Add(unhex(f, r.Hex)) // as bytes like others: they steer the generator
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		next := func() byte {
			if len(choices) == 0 {
				return 0
			}
			c := choices[0]
			choices = choices[1:]
			return c
		}
		values := [2]any{generate(next, 5), generate(next, 5)}
		var encoded [2][]byte
		for i, v := range values {
			encoded[i] = encode(t, v)
			got, err := bytewise.Decode(encoded[i])
			if err != nil || compare(got, v) != 0 {
				t.Errorf("%#v comes back from %x as %#v, %v", v, encoded[i], got, err)
			}
			if array, ok := v.([]any); ok {
				checkArrayPrefix(t, encoded[i], array, len(encoded[i]))
			}
		}
		if got, want := bytes.Compare(encoded[0], encoded[1]), compare(values[0], values[1]); got != want {
			t.Errorf("%x and %x compare as %d, %#v and %#v as %d", encoded[0], encoded[1], got, values[0], values[1], want)
		}
	})
}
