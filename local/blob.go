package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/blob"
	"github.com/bytespace/batchlog/internal/disk"
)

// recentBlobs are the blobs that somebody was handed of late, who may yet put a reference to them.
type recentBlobs struct {
	mu sync.Mutex // held while a blob is removed: who keeps one after that finds that it is gone
	at map[blob.Hash]time.Time
}

// keep keeps a blob from being swept for a while.
func (r *recentBlobs) keep(h blob.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at[h] = time.Now()
}

// expire forgets what was kept long enough.
func (r *recentBlobs) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h, at := range r.at {
		if time.Since(at) > sweepAge {
			delete(r.at, h)
		}
	}
}

// removeBlob calls remove if still no commit after last refers to the blob, or may be about to, and nobody was handed it within age.
func (e *engine) removeBlob(h blob.Hash, last batchlog.ID, age time.Duration, remove func() error) (removed bool, err error) {
	e.recent.mu.Lock()
	defer e.recent.mu.Unlock()
	if at, kept := e.recent.at[h]; kept && time.Since(at) < age {
		return false, nil
	}
	if e.blobCommits.Load() > 0 || e.chainsWithBlobs() || e.store.Applied() < e.log.Head() {
		return false, nil // the store doesn't know yet what they refer to; the next sweep comes
	}
	now, err := e.store.BlobLast(h)
	if err != nil || now != last {
		return false, err
	}
	return true, remove()
}

// StoreBlob is as batchlog.Blobber says.
func (e *engine) StoreBlob(ctx context.Context, r io.Reader, progress func(bytes int64)) (batchlog.BlobRef, error) {
	if e.closed.Load() {
		return batchlog.BlobRef{}, batchlog.ErrClosed
	}
	if err := e.failed(); err != nil {
		return batchlog.BlobRef{}, err
	}
	ref, err := e.blobs.Put(ctx, r, progress)
	if err != nil {
		return batchlog.BlobRef{}, fmt.Errorf("store a blob: %w", chainError(err))
	}
	return batchlog.BlobRef{Hash: ref.Hash, Size: ref.Size}, nil
}

// OpenBlob is as batchlog.Blobber says.
func (e *engine) OpenBlob(_ context.Context, ref batchlog.BlobRef) (batchlog.BlobReader, error) {
	if e.closed.Load() {
		return nil, batchlog.ErrClosed
	}
	f, err := e.blobs.Open(blob.Ref{Hash: ref.Hash, Size: ref.Size})
	if err != nil {
		return nil, blobError(err)
	}
	return blobReader{f}, nil
}

// blobError is an error of package blob in our words.
func blobError(err error) error {
	var damage *blob.DamageError
	var version *blob.VersionError
	switch {
	case errors.As(err, &damage):
		return &batchlog.CorruptError{File: damage.File, Offset: damage.Offset, Err: damage.Err}
	case errors.As(err, &version):
		return &batchlog.VersionError{What: version.File, Version: version.Version, Known: version.Known}
	case disk.NotExist(err):
		return fmt.Errorf("blob: %w", batchlog.ErrNotFound)
	default:
		return err
	}
}

// A blobReader reads a blob, with errors in our words.
type blobReader struct{ file *blob.File }

func (r blobReader) ReadAt(p []byte, offset int64) (int, error) {
	n, err := r.file.ReadAt(p, offset)
	return n, blobError(err)
}

// CopyTo copies n bytes from offset on to w, and reads ahead.
func (r blobReader) CopyTo(ctx context.Context, w io.Writer, offset, n int64) (int64, error) {
	written, err := r.file.CopyTo(ctx, w, offset, n)
	return written, blobError(err)
}

func (r blobReader) Close() error { return r.file.Close() }

// convertValues makes blobs of the values in ops that are large enough. Without any it returns ops.
func (e *engine) convertValues(ctx context.Context, ops []byte, count int) (converted []byte, blobs int, err error) {
	least := e.blobBytes.Load()
	if least == 0 || int64(len(ops)) < least {
		return ops, 0, nil
	}
	large := func(kind batchlog.OpKind, value []byte) bool {
		if kind != batchlog.OpPut || int64(len(value)) < least {
			return false
		}
		_, ref, err := batchlog.ParseValue(value)
		return err == nil && ref == nil
	}
	found := false
	err = batchlog.EachOp(ops, count, func(kind batchlog.OpKind, _, value []byte) error {
		found = found || large(kind, value)
		return nil
	})
	if err != nil || !found {
		return ops, 0, err
	}
	err = batchlog.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
		if large(kind, value) {
			plain, _, err := batchlog.ParseValue(value)
			if err != nil {
				return err
			}
			ref, err := e.StoreBlob(ctx, bytes.NewReader(plain), nil)
			if err != nil {
				return err
			}
			value = batchlog.AppendBlobRef(nil, ref)
			blobs++
		}
		converted = batchlog.AppendOp(converted, kind, key, value)
		return nil
	})
	return converted, blobs, err
}

// keepBlobs makes sure that the blobs which ops refer to are there, in the size that they say, and stay until the store knows of the references.
func (e *engine) keepBlobs(ops []byte, count int) error {
	return batchlog.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
		if kind != batchlog.OpPut {
			return nil
		}
		_, ref, err := batchlog.ParseValue(value)
		if ref == nil || err != nil {
			return err
		}
		e.recent.keep(ref.Hash)
		size, there, err := e.blobs.Size(ref.Hash)
		switch {
		case err != nil:
			return blobError(err)
		case !there:
			return e.refError(key, *ref, -1)
		case size != ref.Size:
			return e.refError(key, *ref, size)
		}
		return nil
	})
}

// refError says that a reference refers to nothing, as what has the hash has that size.
func (e *engine) refError(key []byte, ref batchlog.BlobRef, size int64) error {
	path, own, err := batchlog.SplitKey(key)
	if err != nil {
		return err
	}
	s, err := e.db.SpaceAt(path)
	if err != nil {
		return err
	}
	return &batchlog.BlobRefError{Ref: ref, Space: s, Key: bytes.Clone(own), Size: size}
}

// A BlobSweep is what a sweep of blobs has found.
type BlobSweep struct {
	Blobs   int64 // that are referred to, or may be
	Bytes   int64 // of these
	Removed int64 // that nothing refers to
	Freed   int64 // bytes of these
}

// SweepBlobs removes the blobs that nothing refers to any more: neither a key of the store, nor an open view, nor a commit that the log still has. What was stored
// but not committed, by a process that ended or changed its mind, is removed if it is at least that old. This is done in the background as well, with an
// hour. From a failed sync until the DB is opened again it is an ErrReadOnly.
func (db *DB) SweepBlobs(ctx context.Context, age time.Duration) (BlobSweep, error) {
	if db.engine.closed.Load() {
		return BlobSweep{}, batchlog.ErrClosed
	}
	return db.engine.sweepBlobs(ctx, age)
}

// sweepBlobs is SweepBlobs.
func (e *engine) sweepBlobs(ctx context.Context, age time.Duration) (s BlobSweep, err error) {
	if err := e.log.Failed(); err != nil {
		return s, err // see SweepChains
	}
	e.sweeping.Lock()
	defer e.sweeping.Unlock()
	now := time.Now()
	e.recent.expire()
	known := map[blob.Hash]bool{}
	oldest, view := e.log.Kept(), e.store.OldestSnapshot()
	err = e.store.Blobs(func(h [32]byte, size int64, last batchlog.ID) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		known[h] = true
		used := last >= oldest
		if !used {
			if used, err = e.store.BlobUsed(h); err != nil {
				return err
			}
		}
		if used {
			delete(e.deadBlobs, h)
			s.Blobs++
			s.Bytes += size
			return nil
		}
		since, seen := e.deadBlobs[h]
		if !seen {
			since = e.store.Applied()
			e.deadBlobs[h] = since
		}
		if view < since { // may still show a reference
			s.Blobs++
			s.Bytes += size
			return nil
		}
		removed, err := e.removeBlob(h, last, age, func() error {
			return errors.Join(e.blobs.Remove(h), e.store.ForgetBlob(h))
		})
		if err != nil {
			return blobError(err)
		}
		if removed {
			delete(e.deadBlobs, h)
			s.Removed++
			s.Freed += size
		}
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("sweep blobs: %w", err)
	}
	return s, e.sweepOrphans(ctx, now.Add(-age), age, known, &s)
}

// sweepOrphans removes files that no commit has ever referred to, if they are old enough.
func (e *engine) sweepOrphans(ctx context.Context, before time.Time, age time.Duration, known map[blob.Hash]bool, s *BlobSweep) error {
	if age >= sweepAge && time.Since(e.orphansSwept) < sweepAge {
		return nil // to list all files takes a while
	}
	for info, err := range e.blobs.All() {
		if err != nil {
			return fmt.Errorf("sweep blobs: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if known[info.Hash] || info.Modified.After(before) {
			continue
		}
		removed, err := e.removeBlob(info.Hash, 0, age, func() error { return e.blobs.Remove(info.Hash) })
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
	e.orphansSwept = time.Now()
	return nil
}

// chainsWithBlobs reports whether a chain under way refers to blobs.
func (e *engine) chainsWithBlobs() bool {
	e.chains.mu.Lock()
	defer e.chains.mu.Unlock()
	for g := range e.chains.stages {
		if g.hasBlobs.Load() {
			return true
		}
	}
	return false
}
