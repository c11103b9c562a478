package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

const (
	replayFloor  = 300_000 // commits applied again, a second
	historyFloor = 1.5     // times the time for each commit applied again, with so much more history

	childReplayFill = "replay-fill"
	childReplayOpen = "replay-open"
)

type replayOptions struct {
	tail, history uint64
	factor        uint64
	writers       int
	rounds        int
}

// replayMode kills a process that writes and times the opening of what it left behind.
func replayMode(fs *flag.FlagSet) runner {
	o := &replayOptions{}
	fs.Uint64Var(&o.tail, "tail", 250_000, "commits, or a little more, that the store doesn't have when the writer is killed")
	fs.Uint64Var(&o.history, "history", 300_000, "commits before, at least")
	fs.Uint64Var(&o.factor, "factor", 10, "times as many in the second database")
	fs.IntVar(&o.writers, "writers", 256, "writers")
	fs.IntVar(&o.rounds, "rounds", 3, "openings, each of a copy of what was left behind")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A replaySpec is what a child is to fill: it writes until the store lacks tail commits and the log has history more.
type replaySpec struct {
	Dir     string `json:"dir"`
	Tail    uint64 `json:"tail"`
	History uint64 `json:"history"`
	Writers int    `json:"writers"`
}

// A replayLeft is what the killed writer said last.
type replayLeft struct {
	Head uint64 `json:"head"` // newest commit that it knew to be acknowledged
}

// A replayResult is that of one database, over rounds.
type replayResult struct {
	Head     uint64 `json:"head"`
	Replayed uint64 `json:"replayed"` // commits that had to be applied again
	Open     spread `json:"open"`     // milliseconds, until a read of head has returned
	Rate     spread `json:"rate"`     // commits applied again, a second, all of opening included
}

func (o *replayOptions) run(ctx context.Context, e *env) (*report, error) {
	r := &report{}
	t := table{
		title: fmt.Sprintf("Opening after kill -9 (median [min-max] of %d rounds)", o.rounds),
		head:  []string{"commits in the log", "to apply again", "open and first read, ms", "applied again/s"},
		note:  "The writers are killed while they write. All of opening counts: lock, manifest, Pebble, the search for the log's end, replay.",
	}
	var results []replayResult
	for _, history := range []uint64{o.history, o.history * o.factor} {
		result, err := o.measure(ctx, e, history)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
		t.add(figure(float64(result.Head)), figure(float64(result.Replayed)), result.Open.String(), result.Rate.String())
		r.Checks = append(r.Checks, atLeast(fmt.Sprintf("replay, %s commits in the log", figure(float64(result.Head))), result.Rate.Median, replayFloor, "/s"))
	}
	r.Checks = append(r.Checks, atMost(fmt.Sprintf("opening, for each commit applied again, %d× the history: 1×", o.factor),
		results[0].Rate.Median/results[1].Rate.Median, historyFloor, "×"))
	r.Results, r.tables = results, []table{t}
	return r, nil
}

func (o *replayOptions) measure(ctx context.Context, e *env, history uint64) (_ replayResult, err error) {
	dir := filepath.Join(e.dir, "killed")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e.tell("replay: write %d commits and more, then kill -9", history)
	left, err := killWriter(ctx, replaySpec{Dir: dir, Tail: o.tail, History: history, Writers: o.writers})
	if err != nil {
		return replayResult{}, err
	}
	var result replayResult
	var open, rate []float64
	for round := range o.rounds {
		copied := filepath.Join(e.dir, fmt.Sprintf("copy-%d", round))
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			return result, err
		}
		opened, err := runChild[replayOpened](ctx, childReplayOpen, copied)
		if err = errors.Join(err, os.RemoveAll(copied)); err != nil {
			return result, err
		}
		if opened.Head < left.Head {
			return result, fmt.Errorf("commit %d was acknowledged, after kill -9 head is %d", left.Head, opened.Head)
		}
		if opened.Replayed == 0 {
			return result, fmt.Errorf("nothing to apply again, head %d: the store had written all out; try another -tail", opened.Head)
		}
		result.Head, result.Replayed = opened.Head, opened.Replayed
		open = append(open, float64(opened.Took)/float64(time.Millisecond))
		rate = append(rate, float64(result.Replayed)/opened.Took.Seconds())
		e.tell("replay: round %d: head %d, %d applied again in %s", round+1, opened.Head, result.Replayed, opened.Took.Round(time.Millisecond))
	}
	result.Open, result.Rate = spreadOf(open), spreadOf(rate)
	return result, nil
}

// killWriter runs a writer until it has written enough and kills it.
func killWriter(ctx context.Context, spec replaySpec) (left replayLeft, err error) {
	c, err := startChild(ctx, childReplayFill, spec)
	if err != nil {
		return left, err
	}
	if err := c.read(&left); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return left, errors.Join(fmt.Errorf("writer to be killed: %w", err), c.kill())
	}
	return left, c.kill()
}

// replayFill is the writer to be killed: when enough is written it says so, and goes on writing.
func replayFill(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec replaySpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return err
	}
	db, err := local.Open(spec.Dir, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(fillOpen(ctx, db, 1<<62, spec.Writers, nil)) }()
	// The store writes itself out when it likes. If it does that before the tail is long enough, that is as long as tails get.
	most := spec.History + 20*spec.Tail
	for {
		sleep(ctx, time.Millisecond)
		if err := context.Cause(ctx); err != nil {
			return errors.Join(err, db.Close())
		}
		st, err := db.Status(ctx)
		if err != nil {
			return err
		}
		head, flushed := uint64(st.Head), uint64(st.Flushed)
		if head >= spec.History && head-flushed >= spec.Tail || head >= most {
			if err := json.NewEncoder(out).Encode(replayLeft{head}); err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}
	}
}

// A replayOpened is what an opening came to.
type replayOpened struct {
	Head     uint64        `json:"head"`
	Replayed uint64        `json:"replayed"` // but for the first step, which Progress doesn't tell the size of
	Took     time.Duration `json:"took"`
}

// replayOpen opens the database in dir and reads at its head.
func replayOpen(ctx context.Context, dir string) (replayOpened, error) {
	var first batchlog.ID
	progress := func(applied, _ batchlog.ID) {
		if first == 0 {
			first = applied
		}
	}
	start := time.Now()
	db, err := local.Open(dir, &local.Options{MustExist: true, Progress: progress})
	if err != nil {
		return replayOpened{}, err
	}
	if _, err := benchSpace(db).Get(ctx, batchlog.Key("none")); !errors.Is(err, batchlog.ErrNotFound) {
		return replayOpened{}, errors.Join(fmt.Errorf("get of a key that is not there: %w", err), db.Close())
	}
	took := time.Since(start)
	head, err := db.Head(ctx)
	opened := replayOpened{Head: uint64(head), Took: took}
	if first > 0 {
		opened.Replayed = uint64(head - first)
	}
	return opened, errors.Join(err, db.Close())
}
