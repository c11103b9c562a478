package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog/local"
)

type benchFlags struct {
	duration duration
	writers  []int
	ops      []int
}

func newBench(a *app) *cobra.Command {
	flags := benchFlags{duration: duration(2 * time.Second), writers: []int{1, 16, 64, 256}, ops: []int{1, 10}}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the engine on this disk",
		Long: `Durable commits per second, acknowledged and applied, with so many writers at once and so many ops a batch (keys of 16 bytes, values
of 100); then the time a get takes, how long after its acknowledgement a commit reaches a live follower, and how fast the log is read from its beginning.
It works in a temporary directory beside that of --db, on the same disk, and removes it.`,
		Example: `  batchlog bench --duration 100ms
  batchlog bench --duration 100ms --writers 1,16 --ops 1 --json`,
		Args: takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error { return a.bench(ctx, flags) }),
	}
	cmd.Flags().Var(&flags.duration, "duration", "how long each figure is measured")
	cmd.Flags().IntSliceVar(&flags.writers, "writers", flags.writers, "numbers of writers")
	cmd.Flags().IntSliceVar(&flags.ops, "ops", flags.ops, "numbers of ops a batch")
	return cmd
}

// A benchResult is what bench measures. Times are in microseconds, rates per second.
type benchResult struct {
	Machine  string        `json:"machine"`
	Disk     string        `json:"disk"` // the directory that was measured in
	Writes   []writeResult `json:"writes"`
	Get      latency       `json:"get"`      // nothing to wait for
	GetOwn   latency       `json:"getOwn"`   // of a key right after it was written
	Tail     latency       `json:"tail"`     // from acknowledgement to arrival
	CatchUp  float64       `json:"catchUp"`  // commits read per second, with their ops
	Filtered float64       `json:"filtered"` // commits passed over per second by a follower of a space in 1% of them
}

// A writeResult is one row: so many writers, so many ops a batch.
type writeResult struct {
	Writers      int     `json:"writers"`
	Ops          int     `json:"ops"`
	Acknowledged float64 `json:"acknowledged"` // commits per second
	Applied      float64 `json:"applied"`      // commits per second, the last one's application included
	Latency      latency `json:"latency"`      // of a write
}

// A latency is the spread of some times, in microseconds.
type latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (a *app) bench(ctx context.Context, flags benchFlags) (err error) {
	if flags.duration <= 0 {
		return usagef("--duration %s: more than nothing", &flags.duration)
	}
	for _, n := range append(append([]int{}, flags.writers...), flags.ops...) {
		if n < 1 || n > 10000 {
			return usagef("%d: writers and ops are from 1 to 10000", n)
		}
	}
	beside, err := filepath.Abs(a.dir)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(beside), "batchlog-bench-")
	if err != nil {
		return fmt.Errorf("directory to measure in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &benchmark{dir: dir, duration: time.Duration(flags.duration)}
	b.open = func(dir string) (*local.DB, error) { return a.openDB(dir, true) }
	b.say = func(text string) {
		if a.errTerm {
			fmt.Fprintf(a.err, "\r\x1b[K%s", text)
		}
	}
	r, err := b.run(ctx, flags)
	b.say("")
	if err != nil {
		return interruption(ctx, err)
	}
	r.Machine = fmt.Sprintf("%s/%s, %s", runtime.GOOS, runtime.GOARCH, counted(runtime.GOMAXPROCS(0), "core"))
	r.Disk = filepath.Dir(dir)
	if a.json {
		return a.printJSON(r)
	}
	_, err = a.out.WriteString(r.text())
	return err
}

// run measures all figures, each on a database of its own.
func (b *benchmark) run(ctx context.Context, flags benchFlags) (*benchResult, error) {
	r := &benchResult{}
	for _, ops := range flags.ops {
		for _, writers := range flags.writers {
			b.say(fmt.Sprintf("write: %s, %s a batch", counted(writers, "writer"), counted(ops, "op")))
			var w writeResult
			err := b.fresh(func(db *local.DB) (err error) {
				w, err = b.writes(ctx, db, writers, ops)
				return err
			})
			if err != nil {
				return nil, err
			}
			r.Writes = append(r.Writes, w)
		}
	}
	for _, part := range []struct {
		name    string
		measure func(ctx context.Context, db *local.DB, r *benchResult) error
	}{
		{"get", b.gets}, {"get own writes", b.getsOwn}, {"follow live", b.follow}, {"catch up", b.catchUp},
	} {
		b.say(part.name)
		if err := b.fresh(func(db *local.DB) error { return part.measure(ctx, db, r) }); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return r, nil
}

// text is r for people.
func (r *benchResult) text() string {
	rows := [][]string{{"WRITERS", "OPS", "ACKNOWLEDGED/S", "APPLIED/S", "P50", "P99", "MAX"}}
	for _, w := range r.Writes {
		l := w.Latency
		rows = append(rows, []string{strconv.Itoa(w.Writers), strconv.Itoa(w.Ops), rateText(w.Acknowledged), rateText(w.Applied), micros(l.P50), micros(l.P99), micros(l.Max)})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, in %s; durable commits, keys of %d bytes, values of %d\n\n%s\n", r.Machine, r.Disk, benchKeyBytes, benchValueBytes, aligned(rows, 0, 1, 2, 3, 4, 5, 6))
	b.WriteString(aligned([][]string{
		{"", "P50", "P99", "MAX"},
		{"get, nothing to wait for", micros(r.Get.P50), micros(r.Get.P99), micros(r.Get.Max)},
		{"get right after the own write", micros(r.GetOwn.P50), micros(r.GetOwn.P99), micros(r.GetOwn.Max)},
		{"follower, after acknowledgement", micros(r.Tail.P50), micros(r.Tail.P99), micros(r.Tail.Max)},
	}, 1, 2, 3))
	fmt.Fprintf(&b, "\ncatch up: %s commits/s read with their ops; %s commits/s passed over where 1%% match, in stretches\n", rateText(r.CatchUp), rateText(r.Filtered))
	return b.String()
}

func micros(us float64) string { return durationText(time.Duration(us * float64(time.Microsecond))) }
