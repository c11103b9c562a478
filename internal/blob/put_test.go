package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// sizes are those where something about chunks or buffers changes.
var sizes = []int{
	0, 1, 100, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 17,
	bufferBytes - 1, bufferBytes, bufferBytes + 1, 2*bufferBytes + chunkBytes, 3*bufferBytes + 5,
}

func TestPut(t *testing.T) {
	for _, size := range sizes {
		fs := &watch{FS: vfs.NewMem()}
		s := open(t, fs, dir)
		content := random(1, size)
		var told []int64
		ref, err := s.Put(t.Context(), iotest.HalfReader(bytes.NewReader(content)), func(n int64) { told = append(told, n) })
		if err != nil {
			t.Fatal(err)
		}
		if want := (Ref{sha256.Sum256(content), int64(size)}); ref != want {
			t.Fatalf("put %d bytes as %v, want %v", size, ref, want)
		}
		if !slices.IsSorted(told) || size > 0 && told[len(told)-1] != int64(size) {
			t.Errorf("progress %v of %d bytes", told, size)
		}
		wantBlob(t, s, ref, content)
		all := blobs(t, s)
		if len(all) != 1 || all[0].Hash != ref.Hash || all[0].Bytes != fileSize(ref.Size) || time.Since(all[0].Modified).Abs() > time.Minute {
			t.Errorf("blobs %v, want one", all)
		}
		if temp := parts(t, s); len(temp) > 0 {
			t.Errorf("left behind: %v", temp)
		}
		if got := readFile(t, fs, fmt.Sprintf("%s/%s/%s.blob", dir, ref.Hash.String()[:2], ref.Hash)); !bytes.HasPrefix(got, content) {
			t.Error("file does not begin with the content")
		}
	}
}

func TestPutAgain(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs, dir)
	content := random(1, 2*chunkBytes)
	ref := put(t, s, content)
	name := s.path(ref.Hash)
	whole := readFile(t, fs, name)

	before := blobs(t, s)[0].Modified
	if again := put(t, s, content); again != ref {
		t.Fatalf("put again as %v, want %v", again, ref)
	}
	if after := blobs(t, s)[0].Modified; after != before {
		t.Error("file that was whole was replaced")
	}

	mends := map[string][]byte{"cut": whole[:len(whole)-1], "footer": append(bytes.Clone(whole[:len(whole)-1]), 0), "empty": nil, "content": append([]byte{^whole[0]}, whole[1:]...)}
	for what, b := range mends {
		writeFile(t, fs, name, b)
		if has, err := s.Has(ref.Hash); has != (what == "content") || err != nil { // which only a read of it tells
			t.Errorf("%s: has it: %v, %v", what, has, err)
		}
		put(t, s, content)
		wantBlob(t, s, ref, content)
		if has, err := s.Has(ref.Hash); !has || err != nil {
			t.Errorf("%s: has it: %v, %v", what, has, err)
		}
	}

	writeFile(t, fs, name, newerVersion(whole))
	var newer *VersionError
	if _, err := s.Put(t.Context(), bytes.NewReader(content), nil); !errors.As(err, &newer) || *newer != (VersionError{name, version + 1, version}) {
		t.Errorf("put over a newer version: %v", err)
	}
	if _, err := s.Has(ref.Hash); !errors.As(err, &newer) {
		t.Errorf("has a newer version: %v", err)
	}
	if !bytes.Equal(readFile(t, fs, name), newerVersion(whole)) || len(parts(t, s)) > 0 {
		t.Error("file of a newer version was replaced, or a temporary file left")
	}
}

// All who put the same content at once get the same reference, to one file.
func TestPutAtOnce(t *testing.T) {
	s := open(t, vfs.NewMem(), dir)
	contents := [][]byte{random(1, bufferBytes+99), random(2, 5)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for _, content := range contents {
				ref, err := s.Put(t.Context(), bytes.NewReader(content), nil)
				if err != nil || ref.Hash != sha256.Sum256(content) {
					t.Errorf("put %d: %v, %v", i, ref, err)
				}
				if err := s.Verify(t.Context(), ref); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(blobs(t, s)); n != len(contents) || len(parts(t, s)) > 0 {
		t.Errorf("%d blobs, and %v", n, parts(t, s))
	}
}

// A Put that does not come to its end leaves nothing, whoever ends it.
func TestPutEnds(t *testing.T) {
	broken := errors.New("connection reset")
	for _, size := range []int64{0, 10, bufferBytes, 4 * bufferBytes} {
		s := open(t, vfs.NewMem(), dir)
		for _, readErr := range []error{broken, io.ErrUnexpectedEOF, fmt.Errorf("stream: %w", io.EOF)} {
			r := io.MultiReader(newRepeat(size), iotest.ErrReader(readErr))
			if ref, err := s.Put(t.Context(), r, nil); !errors.Is(err, readErr) || ref != (Ref{}) {
				t.Errorf("reader that fails after %d: %v, %v", size, ref, err)
			}
			wantEmpty(t, s)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		r := io.MultiReader(newRepeat(size), readerFunc(func([]byte) (int, error) { cancel(broken); return 0, nil }))
		if _, err := s.Put(ctx, r, nil); !errors.Is(err, broken) {
			t.Errorf("canceled after %d: %v", size, err)
		}
		wantEmpty(t, s)

		for _, panics := range []io.Reader{newRepeat(bufferBytes), readerFunc(func([]byte) (int, error) { panic(broken) })} {
			func() {
				defer func() {
					if got := recover(); got != any(broken) {
						t.Errorf("panic %v", got)
					}
				}()
				_, _ = s.Put(t.Context(), io.MultiReader(newRepeat(size), panics), func(int64) { panic(broken) })
			}()
			wantEmpty(t, s)
		}
	}
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// Any operation that fails has Put return the error, and leave nothing but what it can't remove.
func TestPutFaults(t *testing.T) {
	content := random(1, bufferBytes+10)
	for _, here := range []string{"nothing", "whole", "damaged"} {
		for at := 1; ; at++ {
			fs := &watch{FS: vfs.NewMem()}
			s := open(t, fs, dir)
			if here != "nothing" {
				ref := put(t, s, content)
				if here == "damaged" {
					writeFile(t, fs, s.path(ref.Hash), content)
				}
			}
			failed := ""
			fs.listen(func(n int, op string) error {
				if n != at {
					return nil
				}
				failed = op
				return failAt(at, "", syscall.ENOSPC)(n, op)
			})
			ref, err := s.Put(t.Context(), bytes.NewReader(content), nil)
			fs.listen(nil)
			if failed == "" {
				if err != nil || at < 10 {
					t.Fatalf("%d operations: %v", at-1, err)
				}
				break
			}
			// Before it makes the file its own Put looks at what is here; that it can't is as if there were nothing.
			looked := strings.HasSuffix(failed, suffix) && !strings.HasPrefix(failed, "rename")
			tidied := strings.HasPrefix(failed, "remove") // the blob is whole: the rest is for Sweep
			if err == nil && !looked && !tidied || err != nil && (looked || !errors.Is(err, syscall.ENOSPC)) {
				t.Errorf("%s is here, %s fails: %v", here, failed, err)
			}
			if err == nil {
				wantBlob(t, s, ref, content)
			} else if here == "nothing" {
				wantEmpty(t, s)
			}
			if temp := parts(t, s); len(temp) > 0 && !tidied {
				t.Errorf("%s is here, %s fails: left behind %v", here, failed, temp)
			}
			if here == "whole" {
				wantBlob(t, s, Ref{sha256.Sum256(content), int64(len(content))}, content)
			}
			wantBlob(t, s, put(t, s, content), content)
		}
	}
}

// When the disk is full for everything but removing, nothing is left.
func TestDiskFull(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "mkdir", "rename"} {
		fs := &watch{FS: vfs.NewMem()}
		s := open(t, fs, dir)
		fs.listen(failAt(0, op, syscall.ENOSPC))
		_, err := s.Put(t.Context(), newRepeat(3*bufferBytes), nil)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("no space to %s: %v", op, err)
		}
		fs.listen(nil)
		wantEmpty(t, s)
	}
}

// A temporary file that can't be removed is in the error, and is swept later.
func TestPutCannotRemove(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	s := open(t, fs, dir)
	fs.listen(failAt(0, "remove", errDisk))
	if _, err := s.Put(t.Context(), iotest.ErrReader(io.ErrNoProgress), nil); !errors.Is(err, io.ErrNoProgress) || !errors.Is(err, errDisk) {
		t.Error(err)
	}
	fs.listen(nil)
	if n, _, err := s.Sweep(later()); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	wantEmpty(t, s)
}

// A crash at any operation of a Put leaves a whole blob or none, and temporary files at most. What Put returned for stays.
func TestPutCrash(t *testing.T) {
	mem := crashfs.New()
	fs := &watch{FS: mem}
	contents := map[Hash][]byte{}
	var kept []Ref // what Put has returned for
	crash := func(n int, op string) error {
		for seed, percent := range []int{0, 50, 50, 100} {
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(n), uint64(seed)))})
			t.Logf("crash before %d, %s, with %d %% of what is not synced", n, op, percent)
			wantAfterCrash(t, clone, contents, kept)
		}
		return nil
	}
	s := open(t, fs, dir)
	fs.listen(crash)
	for _, content := range [][]byte{random(1, chunkBytes+5), random(2, bufferBytes+chunkBytes+5), random(1, chunkBytes+5)} {
		contents[sha256.Sum256(content)] = content
		kept = append(kept, put(t, s, content))
		_ = crash(0, "the next")
	}
}

func wantAfterCrash(t *testing.T, mem *crashfs.FS, contents map[Hash][]byte, kept []Ref) {
	t.Helper()
	s := open(t, mem, dir)
	for _, b := range blobs(t, s) {
		if err := s.Verify(t.Context(), Ref{b.Hash, int64(len(contents[b.Hash]))}); err != nil {
			t.Fatal(err)
		}
	}
	for _, ref := range kept {
		wantBlob(t, s, ref, contents[ref.Hash])
	}
	n := len(parts(t, s))
	if removed, _, err := s.Sweep(later()); removed != n || err != nil {
		t.Fatalf("swept %d of %d, %v", removed, n, err)
	}
	if left := parts(t, s); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
	for _, content := range contents {
		put(t, s, content)
	}
}

// A file that is found is durable when Put returns, also if the process that renamed it ended before it synced the names.
func TestPutAgainCrash(t *testing.T) {
	mem := crashfs.New()
	fs := &watch{FS: mem}
	s := open(t, fs, dir)
	content := random(1, 10)
	renamed := false
	fs.listen(func(_ int, op string) error { // nothing is done after the rename
		if renamed {
			return errDisk
		}
		renamed = strings.HasPrefix(op, "rename")
		return nil
	})
	if _, err := s.Put(t.Context(), bytes.NewReader(content), nil); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	fs.listen(nil)
	if len(blobs(t, s)) != 1 {
		t.Fatal("no blob is there")
	}
	ref := put(t, s, content)
	wantBlob(t, open(t, mem.CrashClone(vfs.CrashCloneCfg{}), dir), ref, content)
}
