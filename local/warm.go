package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
)

// warm moves sealed segments that are past their time in the database's directory to warm ones, with what their commits have overwritten. Nobody who needs the
// log is in the way: whoever follows it finds them there.
func (e *engine) warm(ctx context.Context, now time.Time) error {
	c := e.config()
	var errs []error
	if len(c.Warm) > 0 {
		_, _, last := e.log.Expired(now, c.HotTTL)
		if err := e.moveSegments(ctx, last); err != nil {
			errs = append(errs, fmt.Errorf("move the log to warm directories: %w", err))
		}
	}
	if err := e.moveInverses(ctx); err != nil {
		errs = append(errs, fmt.Errorf("move what was overwritten to warm directories: %w", err))
	}
	return errors.Join(errs...)
}

// moveSegments moves segments up to commit last, none that the store might yet read to apply it.
func (e *engine) moveSegments(ctx context.Context, last batchlog.ID) error {
	flushed, err := e.store.Flushed()
	if err != nil {
		return err
	}
	n, err := e.log.Warm(ctx, min(last, flushed))
	if n > 0 {
		e.opts.Logger.Info("segments went warm", "segments", n)
	}
	return err
}

// moveInverses moves the inverses of commits in warm segments beside these: of segments that have just been moved, and those that a backfill has made
// since. Those whose directory can't be changed now stay in the store.
func (e *engine) moveInverses(ctx context.Context) error {
	asked := map[string]error{} // directories, and why they can't be changed
	newest := e.log.LastWarm()
	var errs []error
	for next := e.log.Oldest(); next <= newest; {
		id, err := e.store.FirstInverse(next)
		if err != nil || id == 0 || id > newest {
			return errors.Join(append(errs, err)...)
		}
		commits, file := e.log.Beside(id)
		if err := e.mayMoveTo(file, asked); err != nil {
			file = ""
			if !slices.Contains(errs, err) {
				errs = append(errs, err)
			}
		}
		if file != "" {
			e.backfill.inverses.Lock()
			err = e.store.MoveInverses(ctx, commits, file)
			e.backfill.inverses.Unlock()
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
		next = max(next, commits.Last) + 1
	}
	return errors.Join(errs...)
}

// mayMoveTo returns nil if a file in a warm directory may be written. asked has what was answered so far.
func (e *engine) mayMoveTo(file string, asked map[string]error) error {
	if file == "" {
		return nil
	}
	dir := filepath.Dir(file)
	err, known := asked[dir]
	if !known {
		err = e.places.changeFile(file)
		asked[dir] = err
	}
	return err
}
