package chainsort

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// benchOps are encoded puts of random keys of 16 bytes in a space, with values of 100.
func benchOps(count int) (all [][]byte) {
	r := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 100)
	for range count / 100 {
		var ops []byte
		for range 100 {
			key := append([]byte{}, "\xa0\x70docs\x00\x00"...)
			key = binary.BigEndian.AppendUint64(key, r.Uint64())
			key = binary.BigEndian.AppendUint64(key, r.Uint64())
			ops = wire.AppendOp(ops, batchlog.OpPut, key, value)
		}
		all = append(all, ops)
	}
	return all
}

// BenchmarkSpill adds ops, so that they are sorted and written in runs of 32 MiB, to files of the temporary directory.
//
// Intel Xeon, 2 cores shared, one used: 1.7 million ops/s; 1.5 for 36 million of them, 4.2 GB, in 166 runs
func BenchmarkSpill(b *testing.B) {
	all := benchOps(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		s := New(Options{FS: vfs.Default, Dir: b.TempDir()})
		for i, ops := range all {
			if err := s.Add(uint64(i), ops, 100); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.spill(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(all)*100*b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkMerge yields the net effect of 130 runs.
//
// Intel Xeon, 2 cores shared, one used: 7.3 million ops/s; 4.7 for 36 million of them in 167 runs
func BenchmarkMerge(b *testing.B) {
	all := benchOps(4 << 20)
	s := New(Options{FS: vfs.Default, Dir: b.TempDir()})
	defer s.Close()
	for i, ops := range all {
		if err := s.Add(uint64(i), ops, 100); err != nil {
			b.Fatal(err)
		}
		if i*130/len(all) != (i+1)*130/len(all) {
			if err := s.spill(); err != nil {
				b.Fatal(err)
			}
		}
	}
	count := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Net(context.Background(), nil, nil, func(Net) error { count++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	if len(s.points.runs) != 130 || count != len(all)*100*b.N {
		b.Fatalf("%d runs, %d yielded", len(s.points.runs), count)
	}
	b.ReportMetric(float64(count)/b.Elapsed().Seconds(), "ops/s")
}
