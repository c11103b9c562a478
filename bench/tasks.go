package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc64"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

const (
	taskFloor       = 300e3 // commits a second through a trivial handler, windows of 1000
	taskGroupFloor  = 3.0   // windows committed by each sync when many tasks run
	taskScaleFloor  = 1.7   // concurrency 2 to 1 with a handler that computes, on two cores
	derivedGetFloor = time.Millisecond
)

type tasksOptions struct {
	commits, many, rounds, gets int
}

// tasksMode measures tasks: how fast they pass through a log, how they share syncs, what concurrency brings, and how long a read of a derived
// space is held.
func tasksMode(fs *flag.FlagSet) runner {
	o := &tasksOptions{}
	fs.IntVar(&o.commits, "commits", 500_000, "commits of one op in the log")
	fs.IntVar(&o.many, "many", 32, "tasks that run together")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds")
	fs.IntVar(&o.gets, "gets", 2000, "writes, each followed by a read of what is derived")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A tasksResult has rates in commits a second and times in microseconds, over rounds.
type tasksResult struct {
	Trivial   spread `json:"trivial"`
	Groups    spread `json:"groups"` // windows a sync
	ManyTotal spread `json:"manyTotal"`
	Busy1     spread `json:"busy1"`
	Busy2     spread `json:"busy2"`
	Scale     spread `json:"scale"`
	GetP50    spread `json:"getP50"`
	GetP99    spread `json:"getP99"`
	WriteP50  spread `json:"writeP50"`
}

func (o *tasksOptions) run(ctx context.Context, e *env) (_ *report, err error) {
	dir := filepath.Join(e.dir, "tasks")
	e.tell("tasks: fill %d commits", o.commits)
	if err := fill(ctx, dir, uint64(o.commits), 256, nil); err != nil {
		return nil, err
	}
	db, err := local.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir)) }()
	head, err := db.Head(ctx)
	if err != nil {
		return nil, err
	}
	var trivial, groups, total, busy1, busy2, scale, get50, get99, write50 []float64
	for round := range o.rounds {
		rate, _, err := through(ctx, db, head, fmt.Sprint("trivial ", round), 1, 1, count)
		if err != nil {
			return nil, err
		}
		trivial = append(trivial, rate)
		all, each, err := through(ctx, db, head, fmt.Sprint("many ", round), o.many, 1, count)
		if err != nil {
			return nil, err
		}
		total, groups = append(total, all), append(groups, each)
		one, _, err := through(ctx, db, head, fmt.Sprint("busy alone ", round), 1, 1, compute)
		if err != nil {
			return nil, err
		}
		two, _, err := through(ctx, db, head, fmt.Sprint("busy together ", round), 1, 2, compute)
		if err != nil {
			return nil, err
		}
		busy1, busy2, scale = append(busy1, one), append(busy2, two), append(scale, two/one)
		times, err := o.derived(ctx, filepath.Join(e.dir, "derived"))
		if err != nil {
			return nil, err
		}
		get50, get99, write50 = append(get50, micros(times.get50)), append(get99, micros(times.get99)), append(write50, micros(times.write50))
		e.tell("tasks: round %d: trivial %s/s, %d together %s/s and %.1f windows a sync, busy %s/s and %s/s, derived get p50 %.0f µs",
			round+1, figure(rate), o.many, figure(all), each, figure(one), figure(two), micros(times.get50))
	}
	result := tasksResult{
		Trivial: spreadOf(trivial), Groups: spreadOf(groups), ManyTotal: spreadOf(total), Busy1: spreadOf(busy1), Busy2: spreadOf(busy2), Scale: spreadOf(scale),
		GetP50: spreadOf(get50), GetP99: spreadOf(get99), WriteP50: spreadOf(write50),
	}
	pass := table{title: fmt.Sprintf("Tasks through a log of %s commits, windows of 1000 (median [min-max] of %d rounds)", figure(float64(head)), o.rounds), head: []string{"", "commits/s", ""}}
	pass.add("one task, the handler counts ops", result.Trivial.String(), "")
	pass.add(fmt.Sprintf("%d such tasks together", o.many), result.ManyTotal.String(), result.Groups.String()+" windows a sync")
	pass.add("one task, the handler computes", result.Busy1.String(), "")
	pass.add("the same, concurrency 2", result.Busy2.String(), result.Scale.String()+" ×")
	held := table{title: "Get in a derived space right after a write to its source, µs", head: []string{"Get p50", "Get p99", "write p50"}}
	held.add(result.GetP50.String(), result.GetP99.String(), result.WriteP50.String())
	return &report{Results: result, tables: []table{pass, held}, Checks: []check{
		atLeast("task with a trivial handler, windows of 1000", result.Trivial.Median, taskFloor, "/s"),
		atLeast(fmt.Sprintf("windows a sync, %d tasks", o.many), result.Groups.Median, taskGroupFloor, ""),
		atLeast("concurrency 2 to 1, handler that computes", result.Scale.Median, taskScaleFloor, "×"),
		atMost("Get in a derived space right after a write, p50", result.GetP50.Median, micros(derivedGetFloor), "µs"),
	}}, nil
}

// count is a handler that does next to nothing.
func count(out *batchlog.Space) func(context.Context, *task.Window) error {
	return func(_ context.Context, w *task.Window) error {
		n := uint64(0)
		for c, err := range w.Commits() {
			if err != nil {
				return err
			}
			for _, err := range c.Ops() {
				if err != nil {
					return err
				}
				n++
			}
		}
		w.Put(out, batchlog.K(uint64(w.First)), binary.AppendUvarint(nil, n))
		return nil
	}
}

// compute is a handler that is busy with what it is given: some ten microseconds for each op.
func compute(out *batchlog.Space) func(context.Context, *task.Window) error {
	table := crc64.MakeTable(crc64.ECMA)
	return func(_ context.Context, w *task.Window) error {
		sum := uint64(0)
		for c, err := range w.Commits() {
			if err != nil {
				return err
			}
			for op, err := range c.Ops() {
				if err != nil {
					return err
				}
				for range 100 {
					sum = crc64.Update(sum, table, op.Value)
				}
			}
		}
		w.Put(out, batchlog.K(uint64(w.First)), binary.LittleEndian.AppendUint64(nil, sum))
		return nil
	}
}

// through runs so many tasks from the first commit to head, and returns how many commits a second they passed in all, and how many windows were
// committed by a sync.
func through(ctx context.Context, db *local.DB, head batchlog.ID, name string, tasks, concurrency int, handler func(out *batchlog.Space) func(context.Context, *task.Window) error) (rate, perSync float64, err error) {
	before, err := db.Status(ctx)
	if err != nil {
		return 0, 0, err
	}
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range tasks {
		own := fmt.Sprint(name, " ", i)
		wg.Go(func() {
			err := task.Run(running, db.DB, task.Task{
				Name: own, Source: []*batchlog.Space{benchSpace(db)}, Concurrency: concurrency, Handle: handler(db.Space("out", own)),
			})
			if running.Err() == nil {
				stop(err)
			}
		})
	}
	for i := range tasks {
		for {
			s, err := task.Get(ctx, db.DB, fmt.Sprint(name, " ", i))
			if err == nil && s.Cursor >= head {
				break
			}
			if err != nil && !errors.Is(err, task.ErrUnknown) {
				return 0, 0, err
			}
			if running.Err() != nil {
				return 0, 0, context.Cause(running)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	took := time.Since(began)
	after, err := db.Status(ctx)
	if err != nil {
		return 0, 0, err
	}
	stop(nil)
	wg.Wait()
	for i := range tasks {
		if err := task.Drop(ctx, db.DB, fmt.Sprint(name, " ", i)); err != nil {
			return 0, 0, err
		}
	}
	commits := float64(head) * float64(tasks)
	return commits / took.Seconds(), float64(after.Head-before.Head) / float64(after.Logs[0].Syncs-before.Logs[0].Syncs), nil
}

// derived measures reads of a derived space, each right after a write to its source.
func (o *tasksOptions) derived(ctx context.Context, dir string) (_ rywTimes, err error) {
	db, err := local.Open(dir, nil)
	if err != nil {
		return rywTimes{}, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir)) }()
	source, out := db.Space("source"), db.Space("out")
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- task.Run(running, db.DB, task.Task{
			Name: "copy", Source: []*batchlog.Space{source}, Derives: []*batchlog.Space{out},
			Handle: func(_ context.Context, w *task.Window) error {
				for c, err := range w.Commits() {
					if err != nil {
						return err
					}
					for op, err := range c.Ops() {
						if err != nil {
							return err
						}
						w.Put(out, op.Key, op.Value)
					}
				}
				return nil
			},
		})
	}()
	defer func() {
		stop()
		<-ended
	}()
	for { // it is registered a moment later
		if _, err := task.Get(ctx, db.DB, "copy"); err == nil {
			break
		} else if !errors.Is(err, task.ErrUnknown) {
			return rywTimes{}, err
		}
		time.Sleep(time.Millisecond)
	}
	var writes, gets histogram
	g := newGenerator(1, 1)
	for range o.gets {
		op := g.next()[0]
		t0 := time.Now()
		if _, err := source.Put(ctx, op.key, op.value); err != nil {
			return rywTimes{}, err
		}
		t1 := time.Now()
		value, err := out.Get(ctx, op.key)
		if err == nil && string(value) != string(op.value) {
			err = errWrongValue
		}
		if err != nil {
			return rywTimes{}, err
		}
		writes.add(t1.Sub(t0))
		gets.add(time.Since(t1))
	}
	return rywTimes{get50: gets.percentile(0.5), get99: gets.percentile(0.99), write50: writes.percentile(0.5)}, nil
}
