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
	for e.trimWait(ctx) {
		if err := e.trim(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("log not trimmed; it will be tried again", "err", err)
		}
		if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("chains and blobs not swept; it will be tried again", "err", err)
		}
		if err := e.clock.tend(e.opts.FS, e.dir, keepTTL(e.config())); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("clock not written down; it will be tried again", "err", err)
		}
		e.restoreBallast()
	}
}

// trimWait waits until it is time to trim, and reports false when ctx has ended. On a full disk it is soon.
func (e *engine) trimWait(ctx context.Context) bool {
	for began := time.Now(); ; {
		interval := trimInterval(e.config().HotTTL, e.noSpace())
		left := interval - time.Since(began)
		if left <= 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(left, trimLook)):
		}
	}
}

// trimLook is how often to look whether the disk is full.
const trimLook = 5 * time.Second

func trimInterval(ttl time.Duration, full bool) time.Duration {
	if full {
		return time.Second
	}
	if ttl == 0 {
		return time.Minute
	}
	return min(max(ttl/10, time.Second), time.Minute)
}

// noSpace reports whether something waits for space on the disk.
func (e *engine) noSpace() bool { return e.store.NoSpace() || e.log.NoSpace() }

// trim moves and drops the sealed segments that are past their time, never one that the store has not durably applied. What fails does not stop what
// comes after it.
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
	err := e.retain(ctx)
	if ctx.Err() == nil {
		e.trimmed.Store(&err)
	}
	return err
}

// retain is trim for one who trims alone.
func (e *engine) retain(ctx context.Context) error {
	e.places.refresh()
	c := e.config()
	now := e.clock.time()
	e.log.RollIfOlder(now, c.HotTTL)
	last, err := e.expired(ctx, now, keepTTL(c))
	// What may go as it is goes at once: it makes room for all that follows, and what is dropped need not be moved before.
	before := e.log.Oldest()
	errs := []error{err, e.drop(last)}
	flush := last
	if len(c.Warm) > 0 {
		_, _, hot := e.log.Expired(now, c.HotTTL)
		flush = max(flush, hot)
	}
	if flush > 0 {
		errs = append(errs, e.flushForTrim(ctx, flush), e.drop(last))
	}
	errs = append(errs, e.warm(ctx, now))
	if e.store.NoSpace() && e.log.Oldest() == before {
		e.ballast.lend() // there is nothing left to drop: what may still free space is a compaction
	}
	return errors.Join(errs...)
}

// keepTTL is how long the log keeps a segment, wherever it is; 0: for ever.
func keepTTL(c batchlog.LogConfig) time.Duration {
	if len(c.Warm) > 0 && c.HotTTL > 0 {
		return c.WarmTTL
	}
	return c.HotTTL
}

// expired is the last commit up to which segments are older than that, but those that are needed.
func (e *engine) expired(ctx context.Context, now time.Time, ttl time.Duration) (batchlog.ID, error) {
	_, _, last := e.log.Expired(now, ttl)
	if last == 0 {
		return 0, nil
	}
	held, err := e.held(ctx)
	if err != nil {
		return 0, fmt.Errorf("trim the log: %w", err)
	}
	return min(last, held-1, e.chainHold()-1, batchlog.ID(e.backfill.hold.Load())-1), nil
}

// drop drops the segments up to commit last that the store has durably applied.
func (e *engine) drop(last batchlog.ID) error {
	if last == 0 {
		return nil
	}
	flushed, err := e.store.Flushed()
	if err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	n := 0
	if err = e.essential(func() error {
		more, err := e.log.Trim(min(last, flushed))
		n += more
		return err
	}); err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	if n == 0 {
		return nil
	}
	oldest := e.log.Oldest()
	e.opts.Logger.Info("log trimmed", "segments", n, "oldest", oldest)
	return errors.Join(e.store.ForgetTokens(oldest), e.store.ForgetInverses(oldest))
}

// flushForTrim makes the store durable up to a commit. On a full disk the ballast is given up for it, and it does not wait for ever for more space than that.
func (e *engine) flushForTrim(ctx context.Context, id batchlog.ID) error {
	if flushed, err := e.store.Flushed(); err != nil || flushed >= id {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for waited := time.Duration(0); waited < trimPatience; waited += flushPoll {
			select {
			case <-done:
				return
			case <-time.After(flushPoll):
			}
			if !e.noSpace() || e.ballast.release() {
				waited = 0
			}
		}
		stop(fmt.Errorf("flush the store: %w", batchlog.ErrNoSpace))
	}()
	err := e.flush(ctx, id)
	e.restoreBallast()
	return err
}

// trimPatience is how long a trim waits for space.
const trimPatience = time.Second

// sweep removes what crashes have left behind of chains and blobs, and the blobs that nothing refers to any more.
func (e *engine) sweep(ctx context.Context) error {
	if e.readOnly() {
		return nil
	}
	_, _, err := e.SweepChains(ctx, sweepAge)
	_, blobs := e.sweepBlobs(ctx, sweepAge, false)
	return errors.Join(err, blobs)
}

// readOnly reports whether the log takes nothing any more.
func (e *engine) readOnly() bool { return e.log.Failed() != nil }

// held is the first commit that the log is kept for, by tasks: what they have yet to handle. Without one it is the
// highest id there may be.
func (e *engine) held(ctx context.Context) (batchlog.ID, error) {
	first := batchlog.ID(math.MaxUint64)
	for entry, err := range e.db.Inside().System().Space("holds").Scan(ctx, batchlog.Range{}) {
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
			// A store that lost its disk is told that all goes well; see package store.
			if err := e.store.Failed(); err != nil {
				return fmt.Errorf("flush the store: %w", err)
			}
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
