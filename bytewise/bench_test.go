package bytewise_test

import (
	"testing"

	"github.com/bytespace/batchlog/bytewise"
)

// Seen with Go 1.26.8 on linux/amd64, 2 shared cores of an AMD EPYC (Turin), in ns/op:
//
//	Append    string 13, number 3.5, path 22, binary 172; no allocations
//	Decode    string 48, number 17, path 117; they allocate the values
//	ArrayLen  8B 6, 17B 9, 30B 19, nested 13; no allocations

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name  string
		value any
	}{
		{"string", "user/0000000042"},
		{"number", 42.},
		{"path", []any{"users", 42}},
		{"binary", []any{make([]byte, 64)}}, // each byte escaped
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			dst := make([]byte, 0, 256)
			for b.Loop() {
				if _, err := bytewise.Append(dst, c.value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name  string
		value any
	}{
		{"string", "user/0000000042"},
		{"number", 42.},
		{"path", []any{"users", 42}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			encoded := encode(b, c.value)
			for b.Loop() {
				if _, err := bytewise.Decode(encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkArrayLen finds the end of a space's path before a key.
func BenchmarkArrayLen(b *testing.B) {
	for _, c := range []struct {
		name string
		path []any
	}{
		{"8B", []any{"users"}},
		{"17B", []any{"users", 42}},
		{"30B", []any{"tenants", "acme", "users", "eu-west"}},
		{"nested", []any{"a", []any{"b", 1}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			full := append(encode(b, c.path), "pkey-0000000042"...)
			for b.Loop() {
				if _, err := bytewise.ArrayLen(full); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
