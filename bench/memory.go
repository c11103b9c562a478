package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

const (
	// memorySlack is how much more the larger database may take: what is in flight differs from run to run.
	memorySlack = 16 << 20

	// Memtables and block cache are small here, so that what grows with the log is not hidden behind what settings allow.
	memoryMemTable = 4 << 20
	memoryCache    = 8 << 20

	childMemory = "memory"
)

type memoryOptions struct {
	commits, factor uint64
	writers         int
}

// memoryMode measures the memory of a follower and of a scan, in databases of two sizes.
func memoryMode(fs *flag.FlagSet) runner {
	o := &memoryOptions{}
	fs.Uint64Var(&o.commits, "commits", 250_000, "commits of one op in the smaller database")
	fs.Uint64Var(&o.factor, "factor", 4, "times as many in the larger one")
	fs.IntVar(&o.writers, "writers", 256, "writers that fill them")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

type memorySpec struct {
	Dir     string `json:"dir"`
	Commits uint64 `json:"commits"`
	Writers int    `json:"writers"`
}

// A memoryUse is the most bytes that were taken beyond what the open database had when it was idle.
type memoryUse struct {
	RSS  int64 `json:"rss"`
	Heap int64 `json:"heap"` // live objects and those not collected yet
}

// A memoryResult is that of one database.
type memoryResult struct {
	Commits uint64               `json:"commits"`
	Idle    memoryUse            `json:"idle"` // of the process, all in all
	Uses    map[string]memoryUse `json:"uses"`
}

// The uses that are measured.
const (
	useFollower = "follower from the first commit"
	useScan     = "scan of all keys"
	useReverse  = "scan of all keys, descending"
	useStalled  = "follower that stands still while as many are written"
)

func (o *memoryOptions) run(ctx context.Context, e *env) (*report, error) {
	var results []memoryResult
	for _, commits := range []uint64{o.commits, o.commits * o.factor} {
		e.tell("memory: fill %d commits, follow, scan, stand still", commits)
		dir := filepath.Join(e.dir, fmt.Sprint(commits))
		result, err := runChild[memoryResult](ctx, childMemory, memorySpec{dir, commits, o.writers})
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	small, large := results[0], results[1]
	r := &report{Results: results}
	t := table{
		title: "Memory, MB beyond that of the idle database (peak of the process, sampled peak of the heap)",
		head:  []string{"use", fmt.Sprintf("%s commits: RSS", figure(float64(small.Commits))), "heap", fmt.Sprintf("%s commits: RSS", figure(float64(large.Commits))), "heap"},
		note: fmt.Sprintf("Idle: RSS %s and %s MB. Cache and memtables, whose sizes are settings, are small (%d and %d MiB) and were filled before.",
			megabytes(small.Idle.RSS), megabytes(large.Idle.RSS), memoryCache>>20, memoryMemTable>>20),
	}
	for _, use := range []string{useFollower, useScan, useReverse, useStalled} {
		s, l := small.Uses[use], large.Uses[use]
		t.add(use, megabytes(s.RSS), megabytes(s.Heap), megabytes(l.RSS), megabytes(l.Heap))
		r.Checks = append(r.Checks, atMost(fmt.Sprintf("memory, %s: more with %d× the commits", use, o.factor), float64(l.RSS-s.RSS)/1e6, memorySlack/1e6, "MB"))
	}
	r.tables = []table{t}
	return r, nil
}

func megabytes(n int64) string { return figure(float64(n) / 1e6) }

// measureMemory is a child: its memory is its own.
func measureMemory(ctx context.Context, spec memorySpec) (_ memoryResult, err error) {
	if err := fill(ctx, spec.Dir, spec.Commits, spec.Writers, nil); err != nil {
		return memoryResult{}, err
	}
	db, err := local.Open(spec.Dir, &local.Options{MemTableBytes: memoryMemTable, CacheBytes: memoryCache})
	if err != nil {
		return memoryResult{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	result := memoryResult{Commits: spec.Commits, Uses: map[string]memoryUse{}}
	uses := []struct {
		name string
		do   func(context.Context, *local.DB, memorySpec) error
	}{{useFollower, followAll}, {useScan, scanAll}, {useReverse, scanAll}, {useStalled, stallAndFollow}}
	for _, use := range uses {
		if use.name == useStalled {
			// Once without being measured: the memtables and the ring are as large as they get.
			err = fillOpen(ctx, db, spec.Commits, spec.Writers, nil)
		} else {
			err = use.do(ctx, db, spec)
		}
		if err != nil {
			return result, err
		}
		used, idle, err := measureUse(func() error { return use.do(ctx, db, spec) })
		if err != nil {
			return result, fmt.Errorf("%s: %w", use.name, err)
		}
		result.Uses[use.name] = used
		if use.name == useFollower {
			result.Idle = idle
		}
	}
	return result, nil
}

// measureUse is the most memory that do takes, beyond what there is before.
func measureUse(do func() error) (used, idle memoryUse, err error) {
	debug.FreeOSMemory()
	if err := resetPeakRSS(); err != nil {
		return used, idle, err
	}
	idle = memoryUse{RSS: nowRSS(), Heap: heapBytes()}
	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		most := heapBytes()
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(10 * time.Millisecond):
				most = max(most, heapBytes())
			}
		}
	}()
	err = do()
	close(stop)
	used = memoryUse{RSS: peakRSS() - idle.RSS, Heap: <-peak - idle.Heap}
	return used, idle, err
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func followAll(ctx context.Context, db *local.DB, spec memorySpec) error {
	head, err := db.Head(ctx)
	if err != nil {
		return err
	}
	_, read, err := catchUp(ctx, db, tailAll(head))
	if err == nil && read.commits < spec.Commits {
		err = fmt.Errorf("followed %d commits of %d", read.commits, spec.Commits)
	}
	return err
}

func scanAll(ctx context.Context, db *local.DB, spec memorySpec) error {
	n := uint64(0)
	for entry, err := range benchSpace(db).Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return err
		}
		if len(entry.Value) == valueBytes {
			n++
		}
	}
	if n < spec.Commits {
		return fmt.Errorf("scanned %d keys of %d", n, spec.Commits)
	}
	return nil
}

// stallAndFollow is a follower that takes one commit, stands still while others write, and then reads on to the head.
func stallAndFollow(ctx context.Context, db *local.DB, spec memorySpec) error {
	from, err := db.Head(ctx)
	if err != nil {
		return err
	}
	n := uint64(0)
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(from), Until: from + batchlog.ID(spec.Commits)}) {
		if err != nil {
			return err
		}
		if n++; n == 1 {
			if err := fillOpen(ctx, db, spec.Commits, spec.Writers, nil); err != nil {
				return err
			}
		}
		if c.ID != from+batchlog.ID(n)-1 {
			return fmt.Errorf("commit %d where %d belongs", c.ID, from+batchlog.ID(n)-1)
		}
	}
	if n != spec.Commits+1 {
		return fmt.Errorf("followed %d commits of %d", n, spec.Commits+1)
	}
	return nil
}
