package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/bytespace/batchlog"
)

// trimLoop moves to warm directories what is past its time, and drops what the log need not keep any more.
func (e *engine) trimLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(trimInterval(e.config().HotTTL)):
		}
		if err := e.trim(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("log not trimmed; it will be tried again", "err", err)
		}
		if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("chains and blobs not swept; it will be tried again", "err", err)
		}
	}
}

func trimInterval(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return time.Minute
	}
	return min(max(ttl/10, time.Second), time.Minute)
}

// trim moves and drops the sealed segments that are past their time, never one that the store has not durably applied.
func (e *engine) trim(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(e.ctx, func() { stop(batchlog.ErrClosed) })()
	select {
	case e.trimming <- struct{}{}:
		defer func() { <-e.trimming }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e.readOnly() {
		return nil // nothing more is written, the table of segments included
	}
	c := e.config()
	e.log.RollIfOlder(e.clock.time(), c.HotTTL)
	return errors.Join(e.warm(ctx), e.drop(ctx, keepTTL(c)))
}

// keepTTL is how long the log keeps a segment, wherever it is; 0: for ever.
func keepTTL(c batchlog.LogConfig) time.Duration {
	if len(c.Warm) > 0 && c.HotTTL > 0 {
		return c.WarmTTL
	}
	return c.HotTTL
}

// drop drops segments that are older than that, but those that are needed.
func (e *engine) drop(ctx context.Context, ttl time.Duration) error {
	_, _, last := e.log.Expired(e.clock.time(), ttl)
	held, err := e.held(ctx)
	if err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	if last = min(last, held-1, e.chainHold()-1, batchlog.ID(e.backfill.hold.Load())-1); last == 0 {
		return nil
	}
	if err := e.flush(ctx, last); err != nil {
		return err
	}
	flushed, err := e.store.Flushed()
	if err != nil {
		return err
	}
	n, err := e.log.Trim(min(last, flushed))
	if err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	if n == 0 {
		return nil
	}
	oldest := e.log.Oldest()
	e.opts.Logger.Info("log trimmed", "segments", n, "oldest", oldest)
	return errors.Join(e.store.ForgetTokens(oldest), e.store.ForgetInverses(oldest))
}

// sweep removes what crashes have left behind of chains and blobs, and the blobs that nothing refers to any more.
func (e *engine) sweep(ctx context.Context) error {
	if e.readOnly() {
		return nil
	}
	_, _, err := e.SweepChains(ctx, sweepAge)
	if err == nil {
		_, err = e.sweepBlobs(ctx, sweepAge)
	}
	return err
}

// readOnly reports whether the log takes nothing any more.
func (e *engine) readOnly() bool { return e.log.Failed() != nil }

// held is the first commit that the log is kept for, by tasks: what they have yet to handle. Without one it is the
// highest id there may be.
func (e *engine) held(ctx context.Context) (batchlog.ID, error) {
	first := batchlog.ID(math.MaxUint64)
	for entry, err := range e.db.System().Space("holds").Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return 0, err
		}
		id, err := strconv.ParseUint(string(entry.Value), 10, 64)
		if err != nil || id == 0 {
			return 0, fmt.Errorf("hold of %s is %q, not an id", entry.Key, entry.Value)
		}
		first = min(first, batchlog.ID(id))
	}
	return first, nil
}

// flush makes the store durable up to id at least.
func (e *engine) flush(ctx context.Context, id batchlog.ID) error {
	select {
	case e.flushing <- struct{}{}:
		defer func() { <-e.flushing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	flushed, err := e.store.Flushed()
	if err != nil || flushed >= id {
		return err
	}
	trouble := e.store.Trouble()
	var done <-chan struct{}
	begun := make(chan flushBegun, 1)
	go func() { // when the store fails under it this may never return
		done, err := e.store.Flush()
		begun <- flushBegun{done, err}
	}()
	for {
		select {
		case f := <-begun:
			if f.err != nil {
				return fmt.Errorf("flush the store: %w", f.err)
			}
			done = f.done
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(flushPoll):
			if err := e.store.Failed(); err != nil {
				return fmt.Errorf("flush the store: %w", err)
			}
			if now := e.store.Trouble(); now != trouble {
				// Pebble tries again for as long as it takes; whoever waits here need not.
				return fmt.Errorf("flush the store: %w", *now)
			}
			if e.closed.Load() && e.store.NoSpace() {
				return fmt.Errorf("flush the store: %w", batchlog.ErrNoSpace)
			}
		}
	}
}

// flushBegun is what the store says when a flush has begun.
type flushBegun struct {
	done <-chan struct{}
	err  error
}

// flushPoll is how often a flush that takes its time is asked whether it can still end.
const flushPoll = 20 * time.Millisecond
