package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2"
)

// rywFloor: the median of a Get right after the own write.
const rywFloor = 30 * time.Microsecond

type rywOptions struct {
	writers  string
	duration time.Duration
	rounds   int
}

// rywMode measures the Get alone, of what was just written, after Write returned: it is held until the commit is applied.
func rywMode(fs *flag.FlagSet) runner {
	o := &rywOptions{}
	fs.StringVar(&o.writers, "writers", "1,16,64", "numbers of goroutines, each writes and then reads; the floor is for 1")
	fs.DurationVar(&o.duration, "duration", 2*time.Second, "measured time of each")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A rywResult is in microseconds, over rounds.
type rywResult struct {
	Peer     string `json:"peer"`
	Writers  int    `json:"writers"`
	GetP50   spread `json:"getP50"`
	GetP99   spread `json:"getP99"`
	WriteP50 spread `json:"writeP50"`
}

func (o *rywOptions) run(ctx context.Context, e *env) (*report, error) {
	writers, err := numbers(o.writers)
	if err != nil {
		return nil, err
	}
	r := &report{}
	t := table{
		title: "Get right after the own write returned, µs (median [min-max] of rounds)",
		head:  []string{"goroutines", "peer", "Get p50", "Get p99", "write p50"},
		note:  "Pebble's write returns when it is applied: its Get has nothing to wait for.",
	}
	var results []rywResult
	for _, n := range writers {
		measured := map[string][]rywTimes{}
		for round := range o.rounds {
			for _, open := range []func(context.Context, string) (rywTarget, error){rywOurs, rywPebble} {
				times, name, err := o.round(ctx, filepath.Join(e.dir, "ryw"), n, uint64(round), open)
				if err != nil {
					return nil, err
				}
				measured[name] = append(measured[name], times)
			}
			e.tell("ryw: %s, round %d", countOf(n, "goroutine"), round+1)
		}
		for _, name := range []string{ours, "pebble"} {
			column := func(f func(*rywTimes) float64) spread {
				return spreadOf(each(measured[name], func(t rywTimes) float64 { return f(&t) }))
			}
			result := rywResult{
				Peer: name, Writers: n,
				GetP50:   column(func(t *rywTimes) float64 { return micros(t.get50) }),
				GetP99:   column(func(t *rywTimes) float64 { return micros(t.get99) }),
				WriteP50: column(func(t *rywTimes) float64 { return micros(t.write50) }),
			}
			results = append(results, result)
			t.add(fmt.Sprint(n), name, result.GetP50.String(), result.GetP99.String(), result.WriteP50.String())
			if name == ours && n == 1 {
				r.Checks = append(r.Checks, atMost("Get right after the own write, p50", result.GetP50.Median, micros(rywFloor), "µs"))
			}
		}
	}
	r.Results, r.tables = results, []table{t}
	return r, nil
}

// A rywTarget writes a key and reads it back.
type rywTarget struct {
	name   string
	writer func() writer
	get    func(key []byte, want []byte) error
	close  func() error
}

func rywOurs(ctx context.Context, dir string) (rywTarget, error) {
	db, err := local.Open(dir, nil)
	if err != nil {
		return rywTarget{}, err
	}
	t := &batchlogTarget{db: db}
	s := benchSpace(db)
	return rywTarget{ours, func() writer { return t.writer(0) }, func(key, want []byte) error {
		v, err := s.Get(ctx, key)
		if err == nil && !bytes.Equal(v, want) {
			err = errWrongValue
		}
		return err
	}, db.Close}, nil
}

var errWrongValue = errors.New("get returned another value than the one just written")

func rywPebble(_ context.Context, dir string) (rywTarget, error) {
	db, err := pebble.Open(dir, pebbleAsOurs())
	if err != nil {
		return rywTarget{}, err
	}
	t := &pebbleTarget{db: db}
	return rywTarget{"pebble", func() writer { return t.writer(0) }, func(key, want []byte) error {
		v, closer, err := db.Get(key)
		if err != nil {
			return err
		}
		if !bytes.Equal(v, want) {
			err = errWrongValue
		}
		return errors.Join(err, closer.Close())
	}, db.Close}, nil
}

// rywTimes are those of one round.
type rywTimes struct{ get50, get99, write50 time.Duration }

func (o *rywOptions) round(
	ctx context.Context, dir string, writers int, seed uint64, open func(context.Context, string) (rywTarget, error),
) (_ rywTimes, name string, err error) {
	dir = filepath.Join(dir, fmt.Sprint(time.Now().UnixNano()))
	t, err := open(ctx, dir)
	if err != nil {
		return rywTimes{}, "", err
	}
	defer func() { err = errors.Join(err, t.close(), os.RemoveAll(dir)) }()
	var ending atomic.Bool
	var mu sync.Mutex
	var gets, writes histogram
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			var g, w histogram
			loopErr := rywLoop(ctx, &ending, t, newGenerator(seed<<16+uint64(i), 1), &g, &w)
			mu.Lock()
			defer mu.Unlock()
			gets.merge(&g)
			writes.merge(&w)
			err = errors.Join(err, loopErr)
		})
	}
	sleep(ctx, o.duration)
	ending.Store(true)
	wg.Wait()
	return rywTimes{get50: gets.percentile(0.5), get99: gets.percentile(0.99), write50: writes.percentile(0.5)}, t.name, err
}

func rywLoop(ctx context.Context, ending *atomic.Bool, t rywTarget, g *generator, gets, writes *histogram) error {
	write := t.writer()
	for !ending.Load() {
		ops := g.next()
		start := time.Now()
		if err := write(ctx, ops); err != nil {
			return err
		}
		written := time.Now()
		if err := t.get(ops[0].key, ops[0].value); err != nil {
			return err
		}
		gets.add(time.Since(written))
		writes.add(written.Sub(start))
	}
	return nil
}
