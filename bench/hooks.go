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
	hookFloor     = 0.6  // a commit with one hook that reads one key, to an Update that reads it by hand
	unhookedFloor = 0.95 // writes beside a hook, to writes without: what can be told from noise here
)

type hooksOptions struct {
	writers  int
	duration time.Duration
	rounds   int
}

// hooksMode measures what pre-commit hooks cost, hooked commits and the others.
func hooksMode(fs *flag.FlagSet) runner {
	o := &hooksOptions{}
	fs.IntVar(&o.writers, "writers", 64, "goroutines that commit")
	fs.DurationVar(&o.duration, "duration", 2*time.Second, "measured time of each")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds, in which the ways take turns")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A way is one kind of commit: it puts key n, and reads another one or not.
type way struct {
	name string
	hook bool // a hook that reads one key is bound to space "a"
	to   string
	read bool // by hand
}

// The ways, in the order of their rows.
func ways() []way {
	return []way{
		{name: "Write", to: "b"},
		{name: "Write beside a hooked space", hook: true, to: "b"},
		{name: "Update that reads a key", to: "a", read: true},
		{name: "Write, a hook reads a key", hook: true, to: "a"},
	}
}

// A hooksResult is in commits a second, over rounds.
type hooksResult struct {
	Way     string `json:"way"`
	Commits spread `json:"commits"`
}

func (o *hooksOptions) run(ctx context.Context, e *env) (*report, error) {
	rates := make([][]float64, len(ways()))
	for round := range o.rounds {
		for i, w := range ways() {
			rate, err := o.measure(ctx, filepath.Join(e.dir, "hooks"), w)
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], rate)
			e.tell("hooks: round %d, %s: %s/s", round+1, w.name, figure(rate))
		}
	}
	ratio := func(a, b int) spread {
		var list []float64
		for i := range rates[a] {
			list = append(list, rates[a][i]/rates[b][i])
		}
		return spreadOf(list)
	}
	beside, hooked := ratio(1, 0), ratio(3, 2)
	r := &report{Checks: []check{
		atLeast("writes beside a hooked space, to writes without hooks", beside.Median, unhookedFloor, "×"),
		atLeast("commits with a hook that reads a key, to Updates that read it", hooked.Median, hookFloor, "×"),
	}}
	t := table{title: fmt.Sprintf("Commits of one op, %d writers, by way (median [min-max] of %d rounds)", o.writers, o.rounds), head: []string{"way", "commits/s", "ratio"}}
	var results []hooksResult
	for i, w := range ways() {
		result := hooksResult{Way: w.name, Commits: spreadOf(rates[i])}
		results = append(results, result)
		note := ""
		switch i {
		case 1:
			note = beside.String() + " × the first"
		case 3:
			note = hooked.String() + " × the Update"
		}
		t.add(w.name, result.Commits.String(), note)
	}
	r.Results, r.tables = results, []table{t}
	return r, nil
}

// measure is how many commits a second are made in that way, on a fresh database.
func (o *hooksOptions) measure(ctx context.Context, dir string, w way) (_ float64, err error) {
	db, err := local.Open(dir, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir)) }()
	looked := db.Space("looked at")
	const keys = 1000
	var b batchlog.Batch
	for i := range keys {
		b.Put(looked, batchlog.K(i), make([]byte, valueBytes))
	}
	if _, err := db.Write(ctx, &b); err != nil {
		return 0, err
	}
	var asked atomic.Uint64
	look := func(tx *batchlog.Tx) error {
		_, err := tx.Get(looked, batchlog.K(asked.Add(1)%keys))
		return err
	}
	if w.hook {
		db.PreCommit(db.Space("a"), func(tx *batchlog.Tx, _ []batchlog.Op) error { return look(tx) })
	}
	s := db.Space(w.to)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Uint64
	var phase atomic.Int32
	var wg sync.WaitGroup
	for i := range o.writers {
		wg.Go(func() {
			g := newGenerator(uint64(i), 1)
			for phase.Load() != ending && ctx.Err() == nil {
				op := g.next()[0]
				var err error
				if w.read {
					_, err = db.Update(ctx, func(tx *batchlog.Tx) error {
						tx.Put(s, op.key, op.value)
						return look(tx)
					})
				} else {
					_, err = s.Put(ctx, op.key, op.value)
				}
				if err != nil {
					cancel(err)
					return
				}
				if phase.Load() == measuring {
					done.Add(1)
				}
			}
		})
	}
	time.Sleep(o.duration / 4)
	phase.Store(measuring)
	began := time.Now()
	time.Sleep(o.duration)
	phase.Store(ending)
	took := time.Since(began)
	n := done.Load()
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	return float64(n) / took.Seconds(), nil
}
