package main

import (
	"context"
	"errors"
	"flag"
	"path/filepath"
	"runtime"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2"
)

// allocsFloor bounds the allocations of a write of one op.
const allocsFloor = 6

type allocsOptions struct{ writes int }

// allocsMode counts the allocations of the whole process, those of the goroutines behind the write included, for each write.
func allocsMode(fs *flag.FlagSet) runner {
	o := &allocsOptions{}
	fs.IntVar(&o.writes, "writes", 10_000, "writes of each way")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// An allocsResult is for each write.
type allocsResult struct {
	Way    string  `json:"way"`
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
}

func (o *allocsOptions) run(ctx context.Context, e *env) (_ *report, err error) {
	db, err := local.Open(filepath.Join(e.dir, ours), nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	peer, err := pebble.Open(filepath.Join(e.dir, "pebble"), pebbleAsOurs())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, peer.Close()) }()
	s := benchSpace(db)
	ways := []struct {
		name  string
		floor bool
		write writer
	}{
		{"Write of a Batch that is used again", true, (&batchlogTarget{db: db}).writer(0)},
		{"Space.Put", true, func(ctx context.Context, ops []op) error {
			_, err := s.Put(ctx, batchlog.Key(ops[0].key), ops[0].value)
			return err
		}},
		{"pebble", false, (&pebbleTarget{db: peer}).writer(0)},
	}
	r := &report{}
	t := table{title: "Allocations a write of 1 op, of the whole process", head: []string{"way", "allocations", "bytes"}}
	var results []allocsResult
	for _, way := range ways {
		result, err := countAllocs(ctx, o.writes, way.write)
		if err != nil {
			return nil, err
		}
		result.Way = way.name
		results = append(results, result)
		t.add(way.name, figure(result.Allocs), figure(result.Bytes))
		if way.floor {
			r.Checks = append(r.Checks, atMost("allocations, "+way.name, result.Allocs, allocsFloor, ""))
		}
	}
	r.Results, r.tables = results, []table{t}
	return r, nil
}

// countAllocs is what a write allocates, on average, after some that are not counted.
func countAllocs(ctx context.Context, writes int, write writer) (allocsResult, error) {
	g := newGenerator(1, 1)
	for range writes/10 + 1 {
		if err := write(ctx, g.next()); err != nil {
			return allocsResult{}, err
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range writes {
		if err := write(ctx, g.next()); err != nil {
			return allocsResult{}, err
		}
	}
	runtime.ReadMemStats(&after)
	n := float64(writes)
	return allocsResult{Allocs: float64(after.Mallocs-before.Mallocs) / n, Bytes: float64(after.TotalAlloc-before.TotalAlloc) / n}, nil
}
