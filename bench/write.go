package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const childCell = "cell"

// writeOptions are the flags of the mode write.
type writeOptions struct {
	peers, writers, ops            string
	rounds                         int
	warmup, duration, slowDuration time.Duration
	settle                         time.Duration
}

// writeMode measures durable writes: every peer in every combination of writers and ops.
func writeMode(fs *flag.FlagSet) runner {
	o := &writeOptions{}
	fs.StringVar(&o.peers, "peers", defaultPeers, "peers to measure, of "+peerNames())
	fs.StringVar(&o.writers, "writers", "1,16,64,256", "numbers of writers")
	fs.StringVar(&o.ops, "ops", "1,10", "ops in a batch")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds of every cell")
	fs.DurationVar(&o.warmup, "warmup", time.Second, "before the measured time")
	fs.DurationVar(&o.duration, "duration", 6*time.Second, "measured time of batchlog and Pebble")
	fs.DurationVar(&o.slowDuration, "slow-duration", 1500*time.Millisecond, "measured time of the other peers, at most -duration")
	fs.DurationVar(&o.settle, "settle", 300*time.Millisecond, "pause between cells, after a sync of all file systems")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A combo is one combination of writers and ops, measured with all peers.
type combo struct {
	Writers int               `json:"writers"`
	Ops     int               `json:"ops"`
	Cells   map[string][]cell `json:"cells"`  // by peer, one a round
	Ratios  map[string]ratio  `json:"ratios"` // batchlog to peer
}

// A ratio is that of rates in the same round.
type ratio struct {
	Acked   spread `json:"acked"`
	Applied spread `json:"applied"`
}

func (o *writeOptions) run(ctx context.Context, e *env) (*report, error) {
	peers, err := selectPeers(o.peers)
	if err != nil {
		return nil, err
	}
	writers, err := numbers(o.writers)
	if err != nil {
		return nil, err
	}
	ops, err := numbers(o.ops)
	if err != nil {
		return nil, err
	}
	steps := e.steps(len(ops) * len(writers) * len(peers) * o.rounds)
	var combos []combo
	for _, n := range ops {
		for _, w := range writers {
			c, err := o.measure(ctx, e, steps, combo{Writers: w, Ops: n, Cells: map[string][]cell{}}, peers)
			if err != nil {
				return nil, err
			}
			combos = append(combos, c)
		}
	}
	return &report{Results: combos, Checks: evaluate(writeFloors(), combos), tables: writeTables(peers, combos)}, nil
}

// measure runs all peers in turn, round after round, each in a process of its own. Every other round goes backwards.
func (o *writeOptions) measure(ctx context.Context, e *env, steps *steps, c combo, peers []peer) (combo, error) {
	for round := range o.rounds {
		order := slices.Clone(peers)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, p := range order {
			spec := cellSpec{
				Peer: p.name, Writers: c.Writers, Ops: c.Ops, Warmup: o.warmup, Duration: o.duration, Seed: uint64(round),
				Dir: filepath.Join(e.dir, "cell"),
			}
			if e.profile != "" {
				spec.Profile = fmt.Sprintf("%s.%s-%d-%d-%d", e.profile, p.name, c.Ops, c.Writers, round+1)
			}
			if p.slow {
				spec.Warmup, spec.Duration = min(o.warmup, 300*time.Millisecond), min(o.duration, o.slowDuration)
			}
			settle(ctx, o.settle)
			measured, err := runChild[cell](ctx, childCell, spec)
			if err != nil {
				return c, errors.Join(fmt.Errorf("%s, %s: %w", p.name, countOf(c.Writers, "writer"), err), os.RemoveAll(spec.Dir))
			}
			c.Cells[p.name] = append(c.Cells[p.name], measured)
			steps.done("%s, %s, round %d, %s: %s batches/s", countOf(c.Ops, "op"), countOf(c.Writers, "writer"), round+1, p.name, figure(measured.Acked))
		}
	}
	c.Ratios = ratios(c.Cells)
	return c, nil
}

// settle lets the disk come to rest: what was written and removed before must not be paid for by what comes now.
func settle(ctx context.Context, pause time.Duration) {
	if pause > 0 {
		runtime.GC()
		syscall.Sync()
		sleep(ctx, pause)
	}
}

// ratios compares round by round, as what disturbs a round is likely to disturb all of it.
func ratios(cells map[string][]cell) map[string]ratio {
	all := map[string]ratio{}
	own := cells[ours]
	for name, theirs := range cells {
		if name == ours {
			continue
		}
		var acked, applied []float64
		for i := range min(len(own), len(theirs)) {
			if theirs[i].Acked > 0 && theirs[i].Applied > 0 {
				acked = append(acked, own[i].Acked/theirs[i].Acked)
				applied = append(applied, own[i].Applied/theirs[i].Applied)
			}
		}
		if len(acked) > 0 {
			all[name] = ratio{Acked: spreadOf(acked), Applied: spreadOf(applied)}
		}
	}
	return all
}

func writeTables(peers []peer, combos []combo) []table {
	var tables []table
	for _, c := range combos {
		t := table{
			title: fmt.Sprintf("Durable writes, %s a batch, %s (median [min-max] of rounds)", countOf(c.Ops, "op"), countOf(c.Writers, "writer")),
			head:  []string{"peer", "acknowledged/s", "applied/s", "p50 µs", "p99 µs", "peak MB", "batchlog is", "applied"},
		}
		for _, p := range peers {
			cells := c.Cells[p.name]
			column := func(f func(cell) float64) spread { return spreadOf(each(cells, f)) }
			row := []string{
				p.name,
				column(func(c cell) float64 { return c.Acked }).String(),
				column(func(c cell) float64 { return c.Applied }).String(),
				figure(column(func(c cell) float64 { return micros(c.P50) }).Median),
				figure(column(func(c cell) float64 { return micros(c.P99) }).Median),
				figure(column(func(c cell) float64 { return float64(c.PeakRSS) / 1e6 }).Median),
			}
			if r, ok := c.Ratios[p.name]; ok {
				row = append(row, r.Acked.String()+" ×", r.Applied.String()+" ×")
			}
			t.add(row...)
		}
		tables = append(tables, t)
	}
	durable := table{title: "Durable by", head: []string{"peer", "a write returns after"}}
	for _, p := range peers {
		durable.add(p.name, p.durable)
	}
	return append(tables, durable)
}

// numbers are those in a list like "1,16".
func numbers(list string) ([]int, error) {
	var all []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q in %q is not a number from 1 on", word, list)
		}
		all = append(all, n)
	}
	return all, nil
}
