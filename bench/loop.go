package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A cellSpec says what one run measures: one peer, one number of writers, one size of batch.
type cellSpec struct {
	Peer     string        `json:"peer"`
	Writers  int           `json:"writers"` // in a closed loop: each writes its next batch when the last is acknowledged
	Ops      int           `json:"ops"`     // in a batch
	Keys     uint64        `json:"keys"`    // that are overwritten; 0: each op is on a new one
	Warmup   time.Duration `json:"warmup"`
	Duration time.Duration `json:"duration"` // measured, after the warm-up
	Seed     uint64        `json:"seed"`
	Dir      string        `json:"dir"`     // does not exist yet
	Profile  string        `json:"profile"` // file for a CPU profile; "": none
}

// A cell is what one run measured. Rates are batches a second.
type cell struct {
	Acked   float64       `json:"acked"`   // acknowledged in the measured time
	Applied float64       `json:"applied"` // applied from its start until all that was acknowledged is applied
	P50     time.Duration `json:"p50"`     // of a write in the measured time, building the batch included
	P99     time.Duration `json:"p99"`
	CPU     time.Duration `json:"cpu"`     // that the process used for each batch that was acknowledged in the measured time
	Lag     uint64        `json:"lag"`     // batches acknowledged and not applied when the last writer ended
	Drain   time.Duration `json:"drain"`   // how long these took
	PeakRSS int64         `json:"peakRSS"` // bytes, of the process, the peer's and the benchmark's
}

// The phases of a run, as its writers see them.
const (
	warming int32 = iota
	measuring
	ending
)

// A run is a cell under way.
type run struct {
	spec  cellSpec
	phase atomic.Int32
	total atomic.Uint64 // acknowledged in all, counted as writers end

	mu struct {
		sync.Mutex
		acked uint64 // while measuring
		hist  histogram
		err   error // the first failure; it ends the run
	}
}

// runCell measures one cell, in this process, on a fresh directory, which it removes.
func runCell(ctx context.Context, spec cellSpec) (_ cell, err error) {
	peers, err := selectPeers(spec.Peer)
	if err != nil {
		return cell{}, err
	}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return cell{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(spec.Dir)) }()
	t, err := peers[0].open(spec.Dir, spec.Writers)
	if err != nil {
		return cell{}, fmt.Errorf("open %s: %w", spec.Peer, err)
	}
	defer func() { err = errors.Join(err, t.close()) }()
	stop, err := startProfile(spec.Profile)
	if err != nil {
		return cell{}, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	r := &run{spec: spec}
	return r.measure(ctx, t)
}

func (r *run) measure(ctx context.Context, t target) (cell, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range r.spec.Writers {
		write := t.writer(i)
		wg.Go(func() {
			if err := r.writeLoop(ctx, i, write); err != nil {
				r.fail(err)
				cancel()
			}
		})
	}
	sleep(ctx, r.spec.Warmup)
	lagging, _ := t.(lagger)
	var before uint64
	if lagging != nil {
		var err error
		if before, err = lagging.applied(ctx); err != nil {
			r.fail(err)
			cancel()
		}
	}
	start, cpu := time.Now(), cpuTime()
	r.phase.Store(measuring)
	sleep(ctx, r.spec.Duration)
	r.phase.Store(ending)
	measured, used := time.Since(start), cpuTime()-cpu
	wg.Wait()
	if r.mu.err == nil {
		r.mu.err = ctx.Err()
	}
	if r.mu.err != nil {
		return cell{}, r.mu.err
	}
	c := cell{
		Acked: float64(r.mu.acked) / measured.Seconds(),
		P50:   r.mu.hist.percentile(0.5), P99: r.mu.hist.percentile(0.99),
		CPU: used / time.Duration(max(1, r.mu.acked)),
	}
	c.Applied = c.Acked
	if lagging != nil {
		if err := r.drain(ctx, lagging, before, start, &c); err != nil {
			return cell{}, err
		}
	}
	c.PeakRSS = peakRSS()
	return c, nil
}

// drain sets what c says of applying: all that was applied since the start of the measured time, in all the time that took.
func (r *run) drain(ctx context.Context, t lagger, before uint64, start time.Time, c *cell) error {
	ended := time.Now()
	at, err := t.applied(ctx)
	if err != nil {
		return err
	}
	all, err := t.drain(ctx)
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	if all != r.total.Load() {
		return fmt.Errorf("%d batches were acknowledged, %d are applied", r.total.Load(), all)
	}
	c.Lag, c.Drain = all-at, time.Since(ended)
	c.Applied = float64(all-before) / time.Since(start).Seconds()
	return nil
}

func (r *run) writeLoop(ctx context.Context, i int, write writer) error {
	g := newGenerator(r.spec.Seed<<16+uint64(i), r.spec.Ops)
	g.keys = r.spec.Keys
	var hist histogram
	var acked, total uint64
	for phase := warming; phase != ending; {
		ops := g.next()
		start := time.Now()
		if err := write(ctx, ops); err != nil {
			return err
		}
		took := time.Since(start)
		total++
		if phase = r.phase.Load(); phase == measuring {
			acked++
			hist.add(took)
		}
	}
	r.total.Add(total)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.acked += acked
	r.mu.hist.merge(&hist)
	return nil
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err == nil {
		r.mu.err = err
	}
	r.phase.Store(ending)
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
