package blob

import (
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var benchBytes = flag.Int64("blob.bytes", 64<<20, "size of the blob in benchmarks")

// repeat is content of n bytes that costs nothing to make, made from a random block.
type repeat struct {
	block []byte
	n     int64
}

func newRepeat(n int64) *repeat {
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	block := make([]byte, 1<<20)
	_, _ = r.Read(block)
	return &repeat{block, n}
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), r.n)], r.block)
	r.n -= int64(n)
	return n, nil
}

func BenchmarkPut(b *testing.B) {
	s := open(b, vfs.Default, b.TempDir())
	b.SetBytes(*benchBytes)
	for b.Loop() {
		ref, err := s.Put(b.Context(), newRepeat(*benchBytes), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Remove(ref.Hash); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkRead(b *testing.B) {
	s := open(b, vfs.Default, b.TempDir())
	ref, err := s.Put(b.Context(), newRepeat(*benchBytes), nil)
	if err != nil {
		b.Fatal(err)
	}
	f, err := s.Open(ref)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.Run("CopyTo", func(b *testing.B) {
		b.SetBytes(ref.Size)
		for b.Loop() {
			if _, err := f.CopyTo(b.Context(), io.Discard, 0, ref.Size); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, size := range map[string]int{"4K": 4 << 10, "64K": 64 << 10, "1M": 1 << 20} {
		b.Run("ReadAt"+name, func(b *testing.B) {
			b.SetBytes(ref.Size)
			p := make([]byte, size)
			for b.Loop() {
				for off := int64(0); off < ref.Size; off += int64(size) {
					if _, err := f.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
						b.Fatal(err)
					}
				}
			}
		})
	}
	b.Run("Verify", func(b *testing.B) {
		b.SetBytes(ref.Size)
		for b.Loop() {
			if err := s.Verify(b.Context(), ref); err != nil {
				b.Fatal(err)
			}
		}
	})
}
