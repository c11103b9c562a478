package chainsort

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A faultyFS fails some of the operations that are given in ops. A write that fails has written half.
type faultyFS struct {
	vfs.FS
	ops   string // of "create write close remove open read"
	count int    // operations so far
	from  int    // the first one that fails; 0: none does
	times int    // how many fail from there on
	hit   bool
}

func (f *faultyFS) fault(op string) error {
	if !strings.Contains(f.ops, op) {
		return nil
	}
	f.count++
	if f.from > 0 && f.count >= f.from && f.count < f.from+f.times {
		f.hit = true
		return syscall.ENOSPC
	}
	return nil
}

func (f *faultyFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.fault("create"); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return &faultyFile{file, f}, err
}

func (f *faultyFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if err := f.fault("open"); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name, o...)
	return &faultyFile{file, f}, err
}

func (f *faultyFS) Remove(name string) error {
	if err := f.fault("remove"); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

type faultyFile struct {
	vfs.File
	fs *faultyFS
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.fs.fault("write"); err != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

func (f *faultyFile) ReadAt(b []byte, offset int64) (int, error) {
	if err := f.fs.fault("read"); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, offset)
}

func (f *faultyFile) Close() error {
	return errors.Join(f.File.Close(), f.fs.fault("close"))
}

// faultySteps are enough for runs of both lanes, long values and merges.
func faultySteps() model {
	r := maker{rand.New(rand.NewPCG(5, 5)), 4, 20}
	var m model
	for range 400 {
		m = append(m, r.step())
	}
	return m
}

// TestFaults has each operation on the disk fail in turn, for a moment or for a while, and tries again what returned an error.
func TestFaults(t *testing.T) {
	steps := faultySteps()
	want := steps.net(nil, nil)
	for _, ops := range []string{"create write close", "open read", "remove", "create write close remove open read"} {
		for _, times := range []int{1, 7} {
			fs := &faultyFS{FS: vfs.NewMem(), ops: ops, times: times}
			stride := 1
			if times > 1 || strings.Contains(ops, "create write close remove") {
				stride = 7
			}
			for from := 1; ; from += stride {
				reserved := int64(0)
				fs.count, fs.from, fs.hit = 0, from, false
				s := newSorter(t, fs, 4<<10)
				s.opts.Reserve = func(n int64) error { reserved += n; return nil }
				again := func(do func() error) {
					t.Helper()
					for range 50 {
						err := do()
						if err == nil {
							return
						}
						if !fs.hit || !errors.Is(err, syscall.ENOSPC) {
							t.Fatalf("%s fails from %d: %v", ops, from, err)
						}
					}
					t.Fatalf("%s fails from %d: never works again", ops, from)
				}
				for i, st := range steps {
					again(func() error { return give(s, st) })
					if i == len(steps)/2 {
						again(func() error { _, err := net(s, nil, nil); return err })
					}
				}
				var got []string
				again(func() error { var err error; got, err = net(s, nil, nil); return err })
				if !slices.Equal(got, want) {
					t.Fatalf("%s fails from %d: net effect differs", ops, from)
				}
				again(s.Close)
				if left := files(t, fs.FS); len(left) > 0 || reserved != 0 || s.onDisk != 0 {
					t.Fatalf("%s fails from %d: left over %v, reserved %d, on disk %d", ops, from, left, reserved, s.onDisk)
				}
				if !fs.hit {
					if from < 30 {
						t.Fatalf("%s: only %d operations", ops, from)
					}
					break
				}
			}
		}
	}
}

// TestReserve refuses space in turn and holds what is reserved against the files.
func TestReserve(t *testing.T) {
	steps := faultySteps()
	want := steps.net(nil, nil)
	full := errors.New("full")
	for from := 1; ; from += 3 {
		fs := vfs.NewMem()
		s := newSorter(t, fs, 4<<10)
		reserved, calls := int64(0), 0
		s.opts.Reserve = func(n int64) error {
			if n > 0 {
				if calls++; calls == from || calls == from+1 {
					return full
				}
			}
			reserved += n
			return nil
		}
		for _, st := range steps {
			for i := 0; ; i++ {
				err := give(s, st)
				if err == nil {
					break
				}
				if !errors.Is(err, full) || i > 3 {
					t.Fatalf("refused from %d: %v", from, err)
				}
			}
			size := int64(0)
			for _, name := range files(t, fs) {
				info, err := fs.Stat(fs.PathJoin(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				size += info.Size()
			}
			if _, _, disk := s.Size(); disk != size || reserved != size {
				t.Fatalf("%d bytes reserved, %d said, %d in files", reserved, disk, size)
			}
		}
		got, err := net(s, nil, nil)
		for errors.Is(err, full) {
			got, err = net(s, nil, nil)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("refused from %d: %v, or the net effect differs", from, err)
		}
		if err := s.Close(); err != nil || reserved != 0 {
			t.Fatalf("refused from %d: %v, %d bytes still reserved", from, err, reserved)
		}
		if calls < from {
			return
		}
	}
}

// TestDamage flips bits in each block and each long value, and cuts files.
func TestDamage(t *testing.T) {
	fs := vfs.NewMem()
	s := newSorter(t, fs, 8<<10)
	for i := range 300 {
		st := step{kind: put, key: fmt.Appendf(stored("k"), "%d", i), value: []byte("v")}
		switch i % 20 {
		case 0:
			st.value = []byte(strings.Repeat("long", 100))
		case 1:
			st.kind, st.high = delRange, append(slices.Clone(st.key), 'x')
		}
		if err := give(s, st); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := net(s, nil, nil); err != nil {
		t.Fatal(err)
	}
	blocks := 0
	kinds := map[string]bool{}
	for _, name := range files(t, fs) {
		_, lane, _ := strings.Cut(name, ".")
		kinds[lane] = true
		b, err := fs.UnsafeGetFileDataBuffer(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		starts := []int{0}
		if lane != "values" {
			for at := 0; at < len(b); at = starts[len(starts)-1] {
				starts = append(starts, at+blockHeader+int(binary.LittleEndian.Uint32(b[at+sizeAt:])))
			}
			starts = starts[:len(starts)-1]
		}
		blocks += len(starts)
		for i, start := range starts {
			end := len(b)
			if i+1 < len(starts) {
				end = starts[i+1]
			}
			for at := start; at < end; at++ {
				if at >= start+2*blockHeader && (at-start)%37 != 0 && at != end-1 {
					continue
				}
				b[at] ^= 1 << (at % 8)
				_, err := net(s, nil, nil)
				b[at] ^= 1 << (at % 8)
				var corrupt *batchlog.CorruptError
				if !errors.As(err, &corrupt) || !errors.Is(err, batchlog.ErrCorrupt) || corrupt.File != name ||
					lane != "values" && corrupt.Offset != int64(start) || corrupt.Offset > int64(at) {
					t.Fatalf("%s at %d in the block at %d: %v", name, at, start, err)
				}
			}
		}
	}
	if len(kinds) != 3 || blocks < 10 {
		t.Fatalf("%d blocks in files of the kinds %v: the test tests little", blocks, kinds)
	}
	for _, name := range files(t, fs) {
		path := fs.PathJoin(dir, name)
		b, err := fs.UnsafeGetFileDataBuffer(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 5, len(b) - 1} {
			f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(slices.Clone(b[:size])); err != nil {
				t.Fatal(err)
			}
			if _, err := net(s, nil, nil); !errors.Is(err, batchlog.ErrCorrupt) {
				t.Fatalf("%s cut to %d bytes: %v", name, size, err)
			}
		}
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(b)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := net(s, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// TestMemory sorts 64 MB in 1 MiB.
func TestMemory(t *testing.T) {
	const memory = 1 << 20
	s := New(Options{FS: vfs.Default, Dir: t.TempDir(), MemoryBytes: memory})
	defer s.Close()
	r := rand.New(rand.NewPCG(6, 6))
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	measure := func() {
		runtime.GC()
		runtime.ReadMemStats(&now)
		peak = max(peak, now.HeapAlloc-min(before.HeapAlloc, now.HeapAlloc))
	}
	value, key, ops := make([]byte, 100), []byte(nil), []byte(nil)
	const count = 500_000
	for i := range count {
		key = binary.BigEndian.AppendUint64(append(key[:0], paths[1]...), r.Uint64())
		ops = wire.AppendOp(ops[:0], batchlog.OpPut, key, value)
		if err := s.Add(uint64(i), ops, 1); err != nil {
			t.Fatal(err)
		}
		if i%20_000 == 0 {
			measure()
		}
	}
	if _, size, _ := s.Size(); size < 55<<20 || s.made < 64 {
		t.Fatalf("%d bytes in %d runs: the test tests nothing", size, s.made)
	}
	seen := 0
	err := s.Net(context.Background(), nil, nil, func(Net) error {
		if seen++; seen%20_000 == 0 {
			measure()
		}
		return nil
	})
	if err != nil || seen != count {
		t.Fatalf("%v, %d of %d", err, seen, count)
	}
	runtime.ReadMemStats(&now)
	t.Logf("%d KiB at most, %d KiB allocated in all, %d runs", peak>>10, (now.TotalAlloc-before.TotalAlloc)>>10, s.made)
	if peak > memory*9/8 { // what is beside pages, refs and marks is small and not counted
		t.Errorf("%d bytes are held, of %d allowed", peak, memory)
	}
	if all := now.TotalAlloc - before.TotalAlloc; all > 4*memory {
		t.Errorf("%d bytes are allocated in all", all)
	}
}
