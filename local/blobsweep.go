package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/blob"
)

// A BlobSweep is what a sweep of blobs has found.
type BlobSweep struct {
	Blobs   int64 // that are referred to, or may be
	Bytes   int64 // of these
	Removed int64 // that nothing refers to
	Freed   int64 // bytes of these
}

// SweepBlobs removes the blobs that nothing refers to any more: neither a key of the store, nor an open view, nor a commit that the log still has, or that is under way. What was stored
// but not committed, by a process that ended or changed its mind, is removed if it is at least that old. This is done in the background as well, with an
// hour, some at a time. From a failed sync until the DB is opened again it is an ErrReadOnly.
func (db *DB) SweepBlobs(ctx context.Context, age time.Duration) (BlobSweep, error) {
	if db.engine.closed.Load() {
		return BlobSweep{}, batchlog.ErrClosed
	}
	return db.engine.sweepBlobs(ctx, age, true)
}

// blobSweeps is how far sweeps of blobs have come. Its holder alone looks at it.
type blobSweeps struct {
	dead    map[blob.Hash]batchlog.ID // that nothing refers to, and since when; views from before may
	next    blob.Hash                 // where the next one that is not about all goes on
	some    int                       // of the blobs that the store knows such a one looks at, beside those that were found dead
	orphans time.Time                 // when files were looked for last that the store doesn't know
}

// sweepSome is blobSweeps.some: a sweep in the background takes some 100 ms then, however many blobs there are.
const sweepSome = 10_000

var errSweepOver = errors.New("enough for one sweep")

// sweepBlobs is SweepBlobs, for all or some of the blobs.
func (e *engine) sweepBlobs(ctx context.Context, age time.Duration, all bool) (s BlobSweep, err error) {
	if err := e.log.Failed(); err != nil {
		return s, err // see SweepChains
	}
	e.sweeping.Lock()
	defer e.sweeping.Unlock()
	now := time.Now()
	e.recent.expire(e.store.Applied())
	p := blobPass{e: e, age: age, oldest: e.log.Kept(), view: e.store.OldestSnapshot(), found: &s}
	if all {
		err = e.store.Blobs(blob.Hash{}, func(h [32]byte, size int64, last batchlog.ID) error { return p.look(ctx, h, size, last) })
	} else {
		err = p.lookAtSome(ctx)
	}
	if err != nil {
		return s, fmt.Errorf("sweep blobs: %w", err)
	}
	return s, e.sweepOrphans(ctx, now.Add(-age), age, &s)
}

// A blobPass is one sweep of the blobs that the store knows.
type blobPass struct {
	e            *engine
	age          time.Duration
	oldest, view batchlog.ID // the oldest commit that the log has, and that a view may show
	found        *BlobSweep
}

// lookAtSome looks at those that were found dead, and at the next ones in the order of hashes.
func (p *blobPass) lookAtSome(ctx context.Context) error {
	sweeps := &p.e.sweeps
	for _, h := range slices.Collect(maps.Keys(sweeps.dead)) {
		size, last, err := p.e.store.Blob(h)
		if err == nil && last == 0 {
			delete(sweeps.dead, h)
			continue
		}
		if err == nil {
			err = p.look(ctx, h, size, last)
		}
		if err != nil {
			return err
		}
	}
	n := 0
	err := p.e.store.Blobs(sweeps.next, func(h [32]byte, size int64, last batchlog.ID) error {
		if n == sweeps.some {
			sweeps.next = h
			return errSweepOver
		}
		n++
		return p.look(ctx, h, size, last)
	})
	if errors.Is(err, errSweepOver) {
		return nil
	}
	sweeps.next = blob.Hash{} // from the first one on again
	return err
}

// look removes a blob, whose newest reference was put by commit last, if it is dead.
func (p *blobPass) look(ctx context.Context, h blob.Hash, size int64, last batchlog.ID) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	e, dead := p.e, p.e.sweeps.dead
	used := last >= p.oldest
	if !used {
		var err error
		if used, err = e.store.BlobUsed(h); err != nil {
			return err
		}
	}
	if used {
		delete(dead, h)
	} else if _, seen := dead[h]; !seen {
		dead[h] = e.store.Applied()
	}
	if used || p.view < dead[h] { // a view may still show a reference
		p.found.Blobs++
		p.found.Bytes += size
		return nil
	}
	removed, err := e.removeBlob(h, last, p.age, func() error {
		return errors.Join(e.blobs.Remove(h), e.store.ForgetBlob(h))
	})
	if err != nil {
		return blobError(err)
	}
	if removed {
		delete(dead, h)
		p.found.Removed++
		p.found.Freed += size
	}
	return nil
}

// removeBlob calls remove if still no commit after last refers to the blob, or may be about to, and nobody was handed it within age.
func (e *engine) removeBlob(h blob.Hash, last batchlog.ID, age time.Duration, remove func() error) (removed bool, err error) {
	applied := e.store.Applied() // before the store is asked: it knows what these refer to
	if applied < e.opened {
		return false, nil // writers of the process before may have referred to it
	}
	done, ok := e.recent.remove(h, age, applied)
	if !ok {
		return false, nil // the next sweep comes
	}
	defer done()
	_, now, err := e.store.Blob(h)
	if err != nil || now != last {
		return false, err
	}
	return true, remove()
}

// sweepOrphans removes files that no commit has ever referred to, if they are old enough.
func (e *engine) sweepOrphans(ctx context.Context, before time.Time, age time.Duration, s *BlobSweep) error {
	if age >= sweepAge && time.Since(e.sweeps.orphans) < sweepAge {
		return nil // to list all files takes a while
	}
	for info, err := range e.blobs.All() {
		if err != nil {
			return fmt.Errorf("sweep blobs: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if info.Modified.After(before) {
			continue
		}
		_, last, err := e.store.Blob(info.Hash)
		removed := false
		if err == nil && last == 0 {
			removed, err = e.removeBlob(info.Hash, 0, age, func() error { return e.blobs.Remove(info.Hash) })
		}
		if err != nil {
			return fmt.Errorf("sweep blobs: %w", err)
		}
		if removed {
			s.Removed++
			s.Freed += info.Bytes
		}
	}
	_, _, err := e.blobs.Sweep(before)
	if err != nil {
		return fmt.Errorf("sweep blobs: %w", err)
	}
	e.sweeps.orphans = time.Now()
	return nil
}
