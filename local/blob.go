package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/blob"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/wire"
)

// StoreBlob is as batchlog.Blobber says.
func (e *engine) StoreBlob(ctx context.Context, r io.Reader, progress func(bytes int64)) (batchlog.BlobRef, error) {
	if e.closed.Load() {
		return batchlog.BlobRef{}, batchlog.ErrClosed
	}
	return e.storeBlob(ctx, r, progress, e.recent.keep)
}

// storeBlob is StoreBlob for who keeps the blob, or claims it.
func (e *engine) storeBlob(ctx context.Context, r io.Reader, progress func(bytes int64), claim func(h blob.Hash)) (batchlog.BlobRef, error) {
	if err := e.failed(); err != nil {
		return batchlog.BlobRef{}, err
	}
	ref, err := e.blobs.PutClaimed(ctx, r, progress, claim)
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

// convertValues makes blobs, which w claims, of the values in ops that are large enough. Without any it returns ops.
func (e *engine) convertValues(ctx context.Context, w *blobWriter, ops []byte, count int) (converted []byte, blobs int, err error) {
	least := e.blobBytes.Load()
	if least == 0 || int64(len(ops)) < least {
		return ops, 0, nil
	}
	large := func(kind batchlog.OpKind, value []byte) bool {
		if kind != batchlog.OpPut || int64(len(value)) < least {
			return false
		}
		_, ref, err := wire.ParseValue(value)
		return err == nil && ref == nil
	}
	found := false
	err = wire.EachOp(ops, count, func(kind batchlog.OpKind, _, value []byte) error {
		found = found || large(kind, value)
		return nil
	})
	if err != nil || !found {
		return ops, 0, err
	}
	err = wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
		if large(kind, value) {
			plain, _, err := wire.ParseValue(value)
			if err != nil {
				return err
			}
			ref, err := e.storeBlob(ctx, bytes.NewReader(plain), nil, func(h blob.Hash) { e.recent.claim(w, h) })
			if err != nil {
				return err
			}
			value = wire.AppendBlobRef(nil, wire.BlobRef(ref))
			blobs++
		}
		converted = wire.AppendOp(converted, kind, key, value)
		return nil
	})
	return converted, blobs, err
}

// keepBlobs makes sure that the blobs which ops refer to are there, in the size that they say, and stay until the store knows of the references.
func (e *engine) keepBlobs(w *blobWriter, ops []byte, count int) error {
	return wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
		if kind != batchlog.OpPut {
			return nil
		}
		_, ref, err := wire.ParseValue(value)
		if ref == nil || err != nil {
			return err
		}
		e.recent.claim(w, ref.Hash)
		size, there, err := e.blobs.Size(ref.Hash)
		switch {
		case err != nil:
			return blobError(err)
		case !there:
			return e.refError(key, batchlog.BlobRef(*ref), -1)
		case size != ref.Size:
			return e.refError(key, batchlog.BlobRef(*ref), size)
		}
		return nil
	})
}

// refError says that a reference refers to nothing, as what has the hash has that size.
func (e *engine) refError(key []byte, ref batchlog.BlobRef, size int64) error {
	path, own, err := wire.SplitKey(key)
	if err != nil {
		return err
	}
	s, err := e.db.Inside().SpaceAt(path)
	if err != nil {
		return err
	}
	return &batchlog.BlobRefError{Ref: ref, Space: s, Key: bytes.Clone(own), Size: size}
}
