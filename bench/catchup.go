package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

const (
	catchupFloor  = 5e6 // commits a second, read with their ops
	filteredFloor = 5.0 // times that, in commits passed over

	rareShare = 100 // one commit in so many is in the space that is followed alone

	// commitBytes is what a commit of one op takes in a segment: 24 of header, 1 of count, 1 of meta length; the op's
	// kind, length of the key, key with the path of a space of one letter (5), length of the value, value. The header of a group (40 bytes for
	// all commits of one sync) comes on top.
	commitBytes = 24 + 1 + 1 + 1 + 1 + 5 + keyBytes + 1 + valueBytes
)

type catchupOptions struct {
	commits, writers, rounds, jetstream int
}

// catchupMode fills a log, opens it again, and reads it from its first commit on.
func catchupMode(fs *flag.FlagSet) runner {
	o := &catchupOptions{}
	fs.IntVar(&o.commits, "commits", 3_000_000, "commits of one op in the log")
	fs.IntVar(&o.writers, "writers", 256, "writers that fill it")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds of reading, after one that is not counted: the files are in the page cache")
	fs.IntVar(&o.jetstream, "jetstream", 0, "read so many from a JetStream consumer as well")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A layout says which commits are in the rare space.
type layout struct {
	name string
	rare func(n, commits uint64) bool // n counts from 0
}

func layouts() []layout {
	return []layout{
		{"spread evenly", func(n, _ uint64) bool { return n%rareShare == 0 }},
		{"in one stretch", func(n, commits uint64) bool { return n >= commits/2 && n < commits/2+commits/rareShare }},
	}
}

// A catchupResult is in commits a second, read or passed over, over rounds.
type catchupResult struct {
	Layout      string  `json:"layout"`
	Commits     uint64  `json:"commits"`
	CommitBytes float64 `json:"commitBytes"` // on disk, headers of groups and indexes included
	All         spread  `json:"all"`
	Brief       spread  `json:"brief"` // all, with TailOptions.Brief
	Filtered    spread  `json:"filtered"`
	Found       uint64  `json:"found"` // commits that the filter lets through
	Ratio       spread  `json:"ratio"` // filtered to all, in the same round
}

func (o *catchupOptions) run(ctx context.Context, e *env) (*report, error) {
	r := &report{}
	t := table{
		title: fmt.Sprintf("Tail from the first commit to the last, files in the page cache: commits/s (median [min-max] of %d rounds)", o.rounds),
		head:  []string{"1 % of the commits are", "commits", "bytes each", "all, ops read", "the same, Brief", "filtered, passed over", "filtered to all"},
		note: fmt.Sprintf("A commit is %d bytes: %d of header, the op with a key of %d+5 and a value of %d bytes. \"bytes each\" is what it takes on disk,\n"+
			"headers of groups and indexes included. Every op is iterated, in all columns. Brief commits are not kept, the memory is used again.", commitBytes, 26, keyBytes, valueBytes),
	}
	var results []catchupResult
	for _, l := range layouts() {
		result, err := o.layout(ctx, e, l)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
		t.add(l.name, figure(float64(result.Commits)), figure(result.CommitBytes), result.All.String(), result.Brief.String(), result.Filtered.String(), result.Ratio.String()+" ×")
		r.Checks = append(r.Checks,
			atLeast("catch-up, all commits with their ops, Brief, rare ones "+l.name, result.Brief.Median, catchupFloor, "/s"),
			atLeast("catch-up, filtered at 1 % "+l.name+", passed over: all", result.Ratio.Median, filteredFloor, "×"))
	}
	r.Results, r.tables = results, []table{t}
	if o.jetstream > 0 {
		rate, err := jetstreamCatchup(ctx, filepath.Join(e.dir, "jetstream"), o.jetstream)
		if err != nil {
			return nil, err
		}
		r.tables = append(r.tables, table{title: "JetStream, push consumer over loopback", head: []string{"commits", "commits/s"}, rows: [][]string{{figure(float64(o.jetstream)), figure(rate)}}})
	}
	return r, nil
}

func (o *catchupOptions) layout(ctx context.Context, e *env, l layout) (_ catchupResult, err error) {
	dir := filepath.Join(e.dir, "catchup")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e.tell("catchup: fill %d commits, rare ones %s", o.commits, l.name)
	if err := fill(ctx, dir, uint64(o.commits), o.writers, l.rare); err != nil {
		return catchupResult{}, err
	}
	db, err := local.Open(dir, nil) // what a log that was just opened has in memory is nothing: all comes from files
	if err != nil {
		return catchupResult{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	st, err := db.Status(ctx)
	if err != nil {
		return catchupResult{}, err
	}
	result := catchupResult{Layout: l.name, Commits: uint64(st.Head), CommitBytes: float64(st.Logs[0].Bytes) / float64(st.Head)}
	if result.Commits != uint64(o.commits) {
		return result, fmt.Errorf("wrote %d commits, head is %d", o.commits, st.Head)
	}
	var all, brief, filtered, ratios []float64
	for round := range o.rounds + 1 {
		one, read, err := catchUp(ctx, db, tailAll(st.Head))
		if err != nil {
			return result, err
		}
		if read.commits != result.Commits || read.ops != result.Commits || read.bytes != result.Commits*(keyBytes+valueBytes) {
			return result, fmt.Errorf("tail of %d commits: %+v", result.Commits, read)
		}
		again, read, err := catchUp(ctx, db, batchlog.TailOptions{Until: st.Head, Brief: true})
		if err != nil {
			return result, err
		}
		if read.commits != result.Commits || read.ops != result.Commits || read.bytes != result.Commits*(keyBytes+valueBytes) {
			return result, fmt.Errorf("brief tail of %d commits: %+v", result.Commits, read)
		}
		two, read, err := catchUp(ctx, db, batchlog.TailOptions{Until: st.Head, Spaces: []*batchlog.Space{rareSpace(db)}})
		if err != nil {
			return result, err
		}
		result.Found = read.commits
		if want := rareCount(l, result.Commits); read.commits != want || read.ops != want {
			return result, fmt.Errorf("tail of the rare space: %+v, want %d commits", read, want)
		}
		e.tell("catchup: rare ones %s, round %d: all %s, brief %s, filtered %s", l.name, round, figure(float64(st.Head)/one.Seconds()), figure(float64(st.Head)/again.Seconds()), figure(float64(st.Head)/two.Seconds()))
		if round > 0 {
			all = append(all, float64(st.Head)/one.Seconds())
			brief = append(brief, float64(st.Head)/again.Seconds())
			filtered = append(filtered, float64(st.Head)/two.Seconds())
			ratios = append(ratios, one.Seconds()/two.Seconds())
		}
	}
	result.All, result.Brief, result.Filtered, result.Ratio = spreadOf(all), spreadOf(brief), spreadOf(filtered), spreadOf(ratios)
	return result, nil
}

// rareSpace is where one commit in [rareShare] goes.
func rareSpace(db *local.DB) *batchlog.Space { return db.Space("b") }

func rareCount(l layout, commits uint64) (count uint64) {
	for n := range commits {
		if l.rare(n, commits) {
			count++
		}
	}
	return count
}

// tailAll is the tail of all commits up to head.
func tailAll(head batchlog.ID) batchlog.TailOptions { return batchlog.TailOptions{Until: head} }

// catchUp tails as o says, to its end.
func catchUp(ctx context.Context, db *local.DB, o batchlog.TailOptions) (time.Duration, reading, error) {
	var read reading
	start := time.Now()
	for c, err := range db.Tail(ctx, o) {
		if err == nil {
			err = read.add(c)
		}
		if err != nil {
			return 0, read, err
		}
	}
	return time.Since(start), read, nil
}

// fill makes a database with so many commits of one op and closes it. rare, if not nil, says which go to [rareSpace]; the n-th
// commit is n give or take the number of writers.
func fill(ctx context.Context, dir string, commits uint64, writers int, rare func(n, commits uint64) bool) error {
	db, err := local.Open(dir, nil)
	if err != nil {
		return err
	}
	return errors.Join(fillOpen(ctx, db, commits, writers, rare), db.Close())
}

func fillOpen(ctx context.Context, db *local.DB, commits uint64, writers int, rare func(n, commits uint64) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			g := newGenerator(uint64(i), 1)
			common, other := benchSpace(db), rareSpace(db)
			var b batchlog.Batch
			for n := next.Add(1) - 1; n < commits && ctx.Err() == nil; n = next.Add(1) - 1 {
				s := common
				if rare != nil && rare(n, commits) {
					s = other
				}
				o := g.next()[0]
				b.Reset()
				b.Put(s, o.key, o.value)
				if _, err := db.Write(ctx, &b); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
