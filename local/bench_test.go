package local_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// Durable commits of 16-byte keys and 100-byte values, on the disk of the temporary directory.
func BenchmarkWrite(b *testing.B) {
	for _, ops := range []int{1, 10} {
		for _, writers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("ops=%d/writers=%d", ops, writers), func(b *testing.B) { benchmarkWrite(b, ops, writers) })
		}
	}
}

func benchmarkWrite(b *testing.B, ops, writers int) {
	db := openBench(b)
	s := db.Space("bench")
	value := make([]byte, 100)
	if _, err := rand.Read(value); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range writers {
		wg.Go(func() {
			var batch batchlog.Batch
			key := make(batchlog.Key, 16)
			binary.BigEndian.PutUint64(key[8:], uint64(w))
			for next.Add(1) <= int64(b.N) {
				batch.Reset()
				for range ops {
					binary.BigEndian.PutUint64(key, uint64(next.Load())*0x9e3779b97f4a7c15)
					key[15]++
					batch.Put(s, key, value)
				}
				if _, err := db.Write(context.Background(), &batch); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

func openBench(b *testing.B) *local.DB {
	b.Helper()
	db, err := local.Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

// Blind commits in a space without a hook, while so many other spaces have one: they are to cost the same.
func BenchmarkWriteBesideHooks(b *testing.B) {
	for _, hooks := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("hooks=%d", hooks), func(b *testing.B) {
			db := openBench(b)
			for i := range hooks {
				db.PreCommit(db.Space("hooked", i), func(*batchlog.Tx, []batchlog.Op) error {
					b.Error("called")
					return nil
				})
			}
			s := db.Space("bench")
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range 64 {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if _, err := s.Put(context.Background(), batchlog.K(uint64(n)), nil); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// A get with nothing to wait for.
func BenchmarkGet(b *testing.B) {
	ctx := context.Background()
	db := openBench(b)
	s := db.Space("bench")
	var batch batchlog.Batch
	for i := range 10_000 {
		batch.Put(s, batchlog.K(i), make([]byte, 100))
	}
	if _, err := db.Write(ctx, &batch); err != nil {
		b.Fatal(err)
	}
	k := batchlog.K(777)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(ctx, k); err != nil {
			b.Fatal(err)
		}
	}
}

// Catching up from files: commits of one op with 100 bytes, all ops read; all of them, and those of a space that every
// hundredth commit is in.
func BenchmarkTail(b *testing.B) {
	ctx := context.Background()
	db := openBench(b)
	common, rare := db.Space("common"), db.Space("rare")
	const n, every = 1_000_000, 100
	var wg sync.WaitGroup
	for w := range 256 {
		wg.Go(func() {
			for i := w; i < n; i += 256 {
				s := common
				if i%every == 0 {
					s = rare
				}
				if _, err := s.Put(ctx, batchlog.K(i), make([]byte, 100)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.Run("all", func(b *testing.B) { benchmarkTail(b, db, n, n) })
	b.Run("rare", func(b *testing.B) { benchmarkTail(b, db, n, n/every, rare) })
}

func benchmarkTail(b *testing.B, db *local.DB, until, want int, spaces ...*batchlog.Space) {
	b.ReportAllocs()
	for b.Loop() {
		seen := 0
		for c, err := range db.Tail(context.Background(), batchlog.TailOptions{Until: batchlog.ID(until), Spaces: spaces}) {
			if err != nil {
				b.Fatal(err)
			}
			for _, err := range c.Ops() {
				if err != nil {
					b.Fatal(err)
				}
			}
			seen++
		}
		if seen != want {
			b.Fatal(seen)
		}
	}
	b.ReportMetric(float64(until)*float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}
