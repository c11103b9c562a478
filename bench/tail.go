package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// tailFloor: the median from acknowledge to delivery at a live follower in the process.
const tailFloor = 30 * time.Microsecond

type tailOptions struct {
	commits, rounds int
	pause           time.Duration
	writers         string
}

// tailMode measures how long after Write returned a commit comes to a follower: 0 or less when it was there before.
func tailMode(fs *flag.FlagSet) runner {
	o := &tailOptions{}
	fs.IntVar(&o.commits, "commits", 3000, "commits of each round of the paced writer; others write 30 times as many")
	fs.DurationVar(&o.pause, "pause", 500*time.Microsecond, "between the writes of the paced writer")
	fs.StringVar(&o.writers, "writers", "16,256", "numbers of writers without pauses, for information")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A tailResult is in microseconds, over rounds.
type tailResult struct {
	Load     string `json:"load"`
	AckP50   spread `json:"ackP50"` // acknowledge to delivery
	AckP99   spread `json:"ackP99"`
	StartP50 spread `json:"startP50"` // start of the write to delivery
	StartP99 spread `json:"startP99"`
	WriteP50 spread `json:"writeP50"`
}

func (o *tailOptions) run(ctx context.Context, e *env) (*report, error) {
	writers, err := numbers(o.writers)
	if err != nil {
		return nil, err
	}
	r := &report{}
	t := table{
		title: "A live follower in the process, µs (median [min-max] of rounds)",
		head:  []string{"writers", "ack to delivery p50", "p99", "start to delivery p50", "p99", "write p50"},
		note:  "Below 0: the follower had the commit before Write returned. The follower iterates the ops of every commit.",
	}
	var results []tailResult
	for i, n := range append([]int{1}, writers...) {
		name, commits, pause := fmt.Sprintf("%d, no pause", n), 30*o.commits, time.Duration(0)
		if i == 0 {
			name, commits, pause = fmt.Sprintf("1, pause %s", o.pause), o.commits, o.pause
		}
		var rounds []tailTimes
		for round := range o.rounds {
			times, err := tailRound(ctx, filepath.Join(e.dir, fmt.Sprintf("tail-%d-%d", i, round)), n, commits, pause)
			if err != nil {
				return nil, err
			}
			rounds = append(rounds, times)
			e.tell("tail: %s, round %d", name, round+1)
		}
		result := tailResult{
			Load:     name,
			AckP50:   spreadOf(each(rounds, func(t tailTimes) float64 { return percentile(t.ack, 0.5) })),
			AckP99:   spreadOf(each(rounds, func(t tailTimes) float64 { return percentile(t.ack, 0.99) })),
			StartP50: spreadOf(each(rounds, func(t tailTimes) float64 { return percentile(t.start, 0.5) })),
			StartP99: spreadOf(each(rounds, func(t tailTimes) float64 { return percentile(t.start, 0.99) })),
			WriteP50: spreadOf(each(rounds, func(t tailTimes) float64 { return percentile(t.write, 0.5) })),
		}
		results = append(results, result)
		t.add(name, result.AckP50.String(), result.AckP99.String(), result.StartP50.String(), result.StartP99.String(), result.WriteP50.String())
		if i == 0 {
			r.Checks = append(r.Checks, atMost("live follower, acknowledge to delivery, p50", result.AckP50.Median, micros(tailFloor), "µs"))
		}
	}
	r.Results, r.tables = results, []table{t}
	return r, nil
}

// tailTimes are those of each commit of a round, sorted.
type tailTimes struct{ ack, start, write []time.Duration }

// moments are when things happened to each commit, by id, since the round began.
type moments struct{ started, acked, delivered []time.Duration }

func tailRound(ctx context.Context, dir string, writers, commits int, pause time.Duration) (_ tailTimes, err error) {
	db, err := local.Open(dir, nil)
	if err != nil {
		return tailTimes{}, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &moments{make([]time.Duration, commits+1), make([]time.Duration, commits+1), make([]time.Duration, commits+1)}
	began := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	note := func(e error) {
		if e != nil {
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, e)
			cancel()
		}
	}
	wg.Go(func() { note(m.follow(ctx, db, began, batchlog.ID(commits))) })
	var left atomic.Int64
	left.Store(int64(commits))
	for i := range writers {
		wg.Go(func() { note(m.write(ctx, db, began, newGenerator(uint64(i), 1), &left, pause)) })
	}
	wg.Wait()
	if err != nil {
		return tailTimes{}, err
	}
	var t tailTimes
	for id := 1 + commits/10; id <= commits; id++ { // the first tenth is for warming up
		t.ack = append(t.ack, m.delivered[id]-m.acked[id])
		t.start = append(t.start, m.delivered[id]-m.started[id])
		t.write = append(t.write, m.acked[id]-m.started[id])
	}
	slices.Sort(t.ack)
	slices.Sort(t.start)
	slices.Sort(t.write)
	return t, nil
}

func (m *moments) follow(ctx context.Context, db *local.DB, began time.Time, until batchlog.ID) error {
	next := batchlog.ID(1)
	var all reading
	for c, err := range db.Tail(ctx, batchlog.TailOptions{Until: until}) {
		if err != nil {
			return err
		}
		m.delivered[c.ID] = time.Since(began)
		if err := all.add(c); err != nil {
			return err
		}
		if c.ID != next {
			return fmt.Errorf("tail: commit %d where %d belongs", c.ID, next)
		}
		next++
	}
	if next != until+1 {
		return fmt.Errorf("tail ended before commit %d, not behind %d", next, until)
	}
	return nil
}

func (m *moments) write(ctx context.Context, db *local.DB, began time.Time, g *generator, left *atomic.Int64, pause time.Duration) error {
	s := benchSpace(db)
	var b batchlog.Batch
	for left.Add(-1) >= 0 {
		o := g.next()[0]
		b.Reset()
		b.Put(s, o.key, o.value)
		started := time.Since(began)
		id, err := db.Write(ctx, &b)
		acked := time.Since(began)
		if err != nil {
			return err
		}
		m.started[id], m.acked[id] = started, acked
		if pause > 0 {
			time.Sleep(pause)
		}
	}
	return nil
}

// A reading is what a follower has read.
type reading struct {
	commits, ops, bytes uint64 // bytes of keys and values
	fold                byte   // of the ends of all of them: what is not looked at is not read
}

// add reads the ops of a commit.
func (r *reading) add(c *batchlog.Commit) error {
	r.commits++
	for o, err := range c.Ops() {
		if err != nil {
			return err
		}
		r.ops++
		r.bytes += uint64(len(o.Key) + len(o.Value))
		if len(o.Key) > 0 && len(o.Value) > 0 {
			r.fold ^= o.Key[0] ^ o.Value[len(o.Value)-1]
		}
	}
	return nil
}

// percentile is that of sorted durations, in microseconds.
func percentile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return micros(sorted[min(len(sorted)-1, int(share*float64(len(sorted))))])
}
