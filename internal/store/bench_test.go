package store

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkApply applies commits of one op that overwrite a working set in memory, some at a time.
func BenchmarkApply(b *testing.B) {
	for _, undo := range []bool{false, true} {
		for _, group := range []int{1, 16, 1024} {
			b.Run(fmt.Sprintf("undo=%t/group=%d", undo, group), func(b *testing.B) { benchmarkApply(b, undo, group) })
		}
	}
}

func benchmarkApply(b *testing.B, undo bool, group int) {
	s, err := Open(Options{FS: vfs.NewMem(), Dir: "store", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.SetUndo(undo)
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 100)
	records := make([]wire.Record, group)
	key := []byte("\xa0\x70s\x00\x00\x34................")
	b.ReportAllocs()
	done := 0
	for b.Loop() {
		for i := range records {
			binary.BigEndian.PutUint64(key[6:], uint64(rng.IntN(100_000))*0x9e3779b97f4a7c15)
			binary.BigEndian.PutUint64(value, rng.Uint64())
			records[i] = wire.Record{ID: batchlog.ID(done + i + 1), Count: 1, Ops: wire.AppendOp(records[i].Ops[:0], batchlog.OpPut, key, value)}
		}
		if err := s.Apply(records); err != nil {
			b.Fatal(err)
		}
		done += group
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/commit")
}
