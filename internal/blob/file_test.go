package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Any range reads as it does from the content itself, one after the other and at once.
func TestReadAt(t *testing.T) {
	for _, size := range sizes {
		s := open(t, vfs.NewMem(), dir)
		content := random(1, size)
		f, err := s.Open(put(t, s, content))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := iotest.TestReader(io.NewSectionReader(f, 0, int64(min(size, 4*chunkBytes))), content[:min(size, 4*chunkBytes)]); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
		var wg sync.WaitGroup
		for seed := range uint64(3) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(size)))
				want := bytes.NewReader(content)
				b, c := make([]byte, size+2*chunkBytes), make([]byte, size+2*chunkBytes)
				for range 60 {
					off, n := randomRange(r, size)
					p, q := b[:n], c[:n]
					got, gotErr := f.ReadAt(p, off)
					wanted, wantErr := want.ReadAt(q, off)
					if n == 0 {
						wantErr = nil
					}
					if got != wanted || !errors.Is(gotErr, wantErr) || !bytes.Equal(p[:got], q[:got]) {
						t.Errorf("size %d: %d bytes from %d on: read %d, %v, want %d, %v", size, n, off, got, gotErr, wanted, wantErr)
					}
				}
			})
		}
		wg.Wait()
		if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("read before the beginning")
		}
	}
}

// randomRange begins and ends about chunk boundaries mostly, and may reach beyond the end.
func randomRange(r *rand.Rand, size int) (off int64, n int) {
	at := func() int {
		if r.IntN(3) == 0 {
			return r.IntN(size + 10)
		}
		return max(0, r.IntN(size/chunkBytes+2)*chunkBytes+r.IntN(5)-2)
	}
	a, b := at(), at()
	return int64(min(a, b)), max(a, b) - min(a, b)
}

func TestCopyTo(t *testing.T) {
	for _, size := range sizes {
		s := open(t, vfs.NewMem(), dir)
		content := random(1, size)
		f, err := s.Open(put(t, s, content))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r := rand.New(rand.NewPCG(1, uint64(size)))
		var w bytes.Buffer
		for range 50 {
			off, n := randomRange(r, size)
			w.Reset()
			got, err := f.CopyTo(t.Context(), &w, off, int64(n))
			switch {
			case off+int64(n) > int64(size):
				if err == nil || got != 0 || w.Len() > 0 {
					t.Errorf("size %d: copied %d bytes from %d on, %v", size, n, off, err)
				}
			case err != nil || got != int64(n) || !bytes.Equal(w.Bytes(), content[off:off+int64(n)]):
				t.Errorf("size %d: %d bytes from %d on: copied %d, %v", size, n, off, got, err)
			}
		}
		for _, bad := range [][2]int64{{-1, 0}, {0, -1}, {int64(size) + 1, 0}, {1, 1<<63 - 1}} {
			if n, err := f.CopyTo(t.Context(), io.Discard, bad[0], bad[1]); n != 0 || err == nil {
				t.Errorf("copied %v: %d, %v", bad, n, err)
			}
		}
	}
}

// CopyTo ends when its writer fails or its context is done, and says how far it came.
func TestCopyToEnds(t *testing.T) {
	s := open(t, vfs.NewMem(), dir)
	f, err := s.Open(put(t, s, random(1, 4*bufferBytes)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cause := errors.New("enough")
	for calls := range 4 {
		ctx, cancel := context.WithCancelCause(t.Context())
		called := 0
		canceling := writerFunc(func(b []byte) (int, error) {
			if called++; called > calls {
				cancel(cause)
			}
			return len(b), nil
		})
		if n, err := f.CopyTo(ctx, canceling, 5, f.Size()-5); !errors.Is(err, cause) || n != int64(calls+1)*readBytes-5 {
			t.Errorf("canceled in write %d: %d, %v", calls+1, n, err)
		}
		for want, fail := range map[error]error{cause: cause, io.ErrShortWrite: nil} {
			called = 0
			failing := writerFunc(func(b []byte) (int, error) {
				if called++; called > calls {
					return 3, fail
				}
				return len(b), nil
			})
			n, err := f.CopyTo(t.Context(), failing, 0, f.Size())
			if !errors.Is(err, want) || n != int64(calls)*readBytes+3 {
				t.Errorf("write %d fails: %d, %v", calls+1, n, err)
			}
		}
	}
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestClosed(t *testing.T) {
	s := open(t, vfs.NewMem(), dir)
	f, err := s.Open(put(t, s, random(1, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if _, err := f.CopyTo(t.Context(), io.Discard, 0, 1); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

// Small reads one behind the other read the file once, large ones nothing twice.
func TestReadsOnce(t *testing.T) {
	w := &watch{FS: vfs.NewMem()}
	s := open(t, w, dir)
	f, err := s.Open(put(t, s, random(1, bufferBytes)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size, reads := range map[int]int{100: 16, chunkBytes: 16, bufferBytes: 4} {
		w.listen(nil)
		p := make([]byte, size)
		for off := int64(0); off < f.Size(); off += int64(size) {
			if _, err := f.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		if n := w.count(); n != reads {
			t.Errorf("reads of %d: %d of the file, want %d", size, n, reads)
		}
	}
}

// Disks that fail are no damage, and are told.
func TestReadFaults(t *testing.T) {
	w := &watch{FS: vfs.NewMem()}
	s := open(t, w, dir)
	content := random(1, 2*bufferBytes)
	ref := put(t, s, content)
	for at := 1; ; at++ {
		failed := false
		w.listen(func(n int, op string) error {
			failed = failed || n == at
			return failAt(at, "", errDisk)(n, op)
		})
		err := s.Verify(t.Context(), ref)
		w.listen(nil)
		var d *DamageError
		if !failed {
			if err != nil || at < 10 {
				t.Errorf("%d operations: %v", at-1, err)
			}
			break
		}
		// The last operation closes the file, which was only read.
		if err != nil && (!errors.Is(err, errDisk) || errors.As(err, &d)) || err == nil && at < 12 {
			t.Errorf("operation %d fails: %v", at, err)
		}
		wantBlob(t, s, ref, content)
	}
	f, err := s.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.listen(failAt(0, "read", errDisk))
	for _, size := range []int{1, chunkBytes} {
		if n, err := f.ReadAt(make([]byte, size), 0); n != 0 || !errors.Is(err, errDisk) {
			t.Errorf("%d bytes: %d, %v", size, n, err)
		}
	}
}

// Whatever becomes of a file, each way to read returns what was put, or damage; never other bytes.
func TestDamage(t *testing.T) {
	for _, size := range []int{0, 1, chunkBytes, 2*chunkBytes + 100} {
		mem := vfs.NewMem()
		s := open(t, mem, dir)
		content := random(1, size)
		ref := put(t, s, content)
		other := readFile(t, mem, s.path(put(t, s, random(2, size+1)).Hash))
		whole := readFile(t, mem, s.path(ref.Hash))
		try := func(what string, at int, b []byte) {
			t.Helper()
			writeFile(t, mem, s.path(ref.Hash), b)
			if err := s.Verify(t.Context(), ref); err == nil {
				t.Fatalf("size %d: %s %d is not noticed", size, what, at)
			} else if d := damage(t, err); d.File != s.path(ref.Hash) || d.Offset < 0 || d.Offset > int64(len(b)) {
				t.Fatalf("size %d: %s %d: %v", size, what, at, err)
			}
			wantRightOrDamage(t, s, ref, content)
		}
		for at := range whole {
			inContent := at < size
			if inContent && at > 20 && at < size-20 && at%16381 != 0 {
				continue // like its neighbors
			}
			for bit := range 8 {
				if inContent && bit != at%8 {
					continue // the same sum covers all of them
				}
				b := bytes.Clone(whole)
				b[at] ^= 1 << bit
				try("flipped byte", at, b)
			}
			try("cut at", at, whole[:at])
			try("byte left out", at, append(bytes.Clone(whole[:at]), whole[at+1:]...))
			try("byte put in", at, append(append(bytes.Clone(whole[:at]), 0), whole[at:]...))
		}
		try("longer by", 1, append(bytes.Clone(whole), 0))
		try("twice", 2, append(bytes.Clone(whole), whole...))
		try("other blob", 0, other)
		try("zeros", 0, make([]byte, len(whole)))
	}
}

// wantRightOrDamage reads what can be read of a damaged file.
func wantRightOrDamage(t *testing.T, s *Store, ref Ref, content []byte) {
	t.Helper()
	f, err := s.Open(ref)
	if err != nil {
		_ = damage(t, err)
		return
	}
	defer f.Close()
	for _, size := range []int{1000, chunkBytes, len(content)} {
		p := make([]byte, size)
		for off := 0; off < len(content) && size > 0; off += size {
			n, err := f.ReadAt(p, int64(off))
			if !bytes.Equal(p[:n], content[off:off+n]) {
				t.Fatalf("wrong bytes in %d from %d on", size, off)
			}
			if n < min(size, len(content)-off) {
				_ = damage(t, err)
			}
		}
	}
	var w bytes.Buffer
	n, err := f.CopyTo(t.Context(), &w, 0, f.Size())
	if n != int64(w.Len()) || !bytes.HasPrefix(content, w.Bytes()) {
		t.Fatalf("wrong bytes in the copy")
	}
	if n < f.Size() {
		_ = damage(t, err)
	}
}

// Sums that all hold do not make up for content with another hash, nor a footer with the right hash and another size.
func TestForged(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem, dir)
	content := random(1, chunkBytes+100)
	ref := put(t, s, content)
	table := readFile(t, mem, s.path(ref.Hash))[ref.Size : ref.Size+2*sumBytes]

	ones := bytes.Repeat([]byte{1}, 100)
	forged := append(bytes.Clone(ones), makeEnd(tableOf(ones), Ref{ref.Hash, 100})...)
	writeFile(t, mem, s.path(ref.Hash), forged)
	if _, err := s.Open(ref); damage(t, err).Offset != 100 {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), Ref{ref.Hash, 100}); damage(t, err).Offset != 0 {
		t.Error(err)
	}
	if got := tableOf(content); !bytes.Equal(got, table) {
		t.Errorf("table %x, want %x", table, got)
	}
}

// A file that is cut while it is open is damage where it ends.
func TestCutWhileOpen(t *testing.T) {
	s := open(t, vfs.NewMem(), dir)
	content := random(1, 3*chunkBytes)
	ref := put(t, s, content)
	f, err := s.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.file = vfs.NewMemFile(content[:chunkBytes+5])
	for _, size := range []int{10, chunkBytes} {
		n, err := f.ReadAt(make([]byte, size), chunkBytes)
		if d := damage(t, err); n != 0 || d.Offset != chunkBytes+5 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d, %v", n, err)
		}
	}
}

// Open itself finds out a damaged table, and a blob of the same size in the place of another.
func TestOpenDamaged(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem, dir)
	ref, other := put(t, s, random(1, 100)), put(t, s, random(2, 100))
	b := readFile(t, mem, s.path(ref.Hash))
	b[ref.Size]++
	writeFile(t, mem, s.path(ref.Hash), b)
	if _, err := s.Open(ref); damage(t, err).Offset != ref.Size || !errors.Is(err, errTable) {
		t.Error(err)
	}
	writeFile(t, mem, s.path(ref.Hash), readFile(t, mem, s.path(other.Hash)))
	if _, err := s.Open(ref); damage(t, err).Offset != ref.Size+sumBytes {
		t.Error(err)
	}
}
