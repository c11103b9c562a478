package batchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog/internal/wire"
)

// A Blobber is an engine that keeps blobs.
type Blobber interface {
	// StoreBlob stores what r yields and returns when it is durable. progress, if not nil, is told how many bytes have been read.
	StoreBlob(ctx context.Context, r io.Reader, progress func(bytes int64)) (BlobRef, error)
	// OpenBlob opens a blob. Without it the error is an ErrNotFound; damage, found then or by a read, is an ErrCorrupt.
	OpenBlob(ctx context.Context, ref BlobRef) (BlobReader, error)
}

// A BlobReader reads a blob. Every byte that it returns has been checked. ReadAt may be called at once.
type BlobReader interface {
	io.ReaderAt
	io.Closer
}

// A Blob is a value that is open for reading: one that is kept outside of log and store, or any other. It stays readable
// when the key is overwritten or deleted meanwhile. It is not safe for concurrent use but for ReadAt.
type Blob struct {
	in     BlobReader
	ref    BlobRef
	isBlob bool
	offset int64
	where  string // which value it is, for errors
}

var _ io.ReadSeekCloser = (*Blob)(nil)

// Size is the size of the value in bytes.
func (b *Blob) Size() int64 { return b.ref.Size }

// Ref is the reference to the blob, with which it can be put under other keys ([Batch.PutRef]) without being read. ok is false for
// a value that is no blob.
func (b *Blob) Ref() (ref BlobRef, ok bool) { return b.ref, b.isBlob }

// Read is as io.Reader says. Damage is an [ErrCorrupt] that names space and key.
func (b *Blob) Read(p []byte) (int, error) {
	if b.offset >= b.ref.Size {
		return 0, io.EOF
	}
	n, err := b.ReadAt(p, b.offset)
	b.offset += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt is as io.ReaderAt says.
func (b *Blob) ReadAt(p []byte, offset int64) (int, error) {
	n, err := b.in.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", b.where, err)
	}
	return n, err
}

// blobCopyBytes is the buffer with which a blob is copied.
const blobCopyBytes = 1 << 20

// WriteTo is as io.WriterTo says: it copies what is left of the blob to w.
func (b *Blob) WriteTo(w io.Writer) (int64, error) {
	if b.offset >= b.ref.Size {
		return 0, nil
	}
	if c, ok := b.in.(interface {
		CopyTo(ctx context.Context, w io.Writer, offset, n int64) (int64, error)
	}); ok {
		n, err := c.CopyTo(context.Background(), w, b.offset, max(0, b.ref.Size-b.offset))
		b.offset += n
		if err != nil {
			err = fmt.Errorf("%s: %w", b.where, err)
		}
		return n, err
	}
	written := int64(0)
	buf := make([]byte, min(blobCopyBytes, max(1, b.ref.Size-b.offset)))
	for {
		n, err := b.Read(buf)
		if n > 0 {
			m, werr := w.Write(buf[:n])
			if werr == nil && m != n {
				werr = io.ErrShortWrite
			}
			written += int64(max(0, min(m, n)))
			if werr != nil {
				return written, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// Seek is as io.Seeker says.
func (b *Blob) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.offset
	case io.SeekEnd:
		offset += b.ref.Size
	case io.SeekStart:
	default:
		return b.offset, fmt.Errorf("seek from %d: no place that io.Seeker knows", whence)
	}
	if offset < 0 {
		return b.offset, fmt.Errorf("seek to %d: before the beginning", offset)
	}
	b.offset = offset
	return offset, nil
}

// Close lets go of the blob.
func (b *Blob) Close() error { return b.in.Close() }

// PutBlob sets the value of k in s to what r yields, which may be larger than memory: it is streamed past log and store into a
// file of its own, named by the hash of its content, and is durable before the commit that refers to it. The same content is stored
// once. If r fails, or the commit, nothing is there; what was stored by then is swept later. Get and Scan
// load a blob as they do any value, up to [MaxValueBytes]; [Space.Blob] reads one of any size.
//
// Other errors are those of [DB.Write].
func (s *Space) PutBlob(ctx context.Context, k Key, r io.Reader) (ID, error) {
	if s.err != nil {
		return 0, s.err
	}
	ref, err := s.db.StoreBlob(ctx, r)
	if err != nil {
		return 0, err
	}
	var b Batch
	b.PutRef(s, k, ref)
	return s.db.Write(ctx, &b)
}

// StoreBlob stores what r yields and returns the reference to it, durable, to be put into batches, transactions and chains with PutRef.
// Until a commit refers to it, it is sure to be there for an hour; then it may be swept.
func (db *DB) StoreBlob(ctx context.Context, r io.Reader) (BlobRef, error) {
	return db.StoreBlobProgress(ctx, r, nil)
}

// StoreBlobProgress is [DB.StoreBlob] that tells progress how many bytes it has taken; nil: nobody.
func (db *DB) StoreBlobProgress(ctx context.Context, r io.Reader, progress func(bytes int64)) (BlobRef, error) {
	if r == nil {
		return BlobRef{}, errors.New("blob without a reader")
	}
	e, ok := db.engine.(Blobber)
	if !ok {
		return BlobRef{}, fmt.Errorf("blobs on this engine: %w", ErrUnsupported)
	}
	return e.StoreBlob(ctx, r, progress)
}

// Blob opens the value of k in s for reading, however large it is; [ErrNotFound] if there is none. Values that are no blobs can be
// read so as well. Damage is an [ErrCorrupt] that names space and key, now or by the read that meets it; never wrong bytes.
func (s *Space) Blob(ctx context.Context, k Key, opts ...ReadOption) (*Blob, error) {
	if s.err != nil {
		return nil, s.err
	}
	o := readOptions(opts)
	for try := 0; ; try++ {
		stored, err := s.db.getStored(ctx, s, k, o)
		if err != nil {
			return nil, err
		}
		b, err := s.db.openValue(ctx, s, k, stored)
		if err == nil || !errors.Is(err, errBlobGone) || try == blobTries {
			return b, err
		}
		// It was overwritten or deleted after it was looked up, and is gone already: what is there now is the answer.
	}
}

// blobTries bounds how often a blob that is gone when it is opened is looked up again.
const blobTries = 10

// Blob opens the value of k in s at the view's id. See [Space.Blob].
func (v *View) Blob(ctx context.Context, s *Space, k Key) (*Blob, error) {
	if err := v.db.owns(s); err != nil {
		return nil, err
	}
	stored, err := v.snap.Get(ctx, s.storedKey(k))
	if err != nil {
		return nil, err
	}
	return v.db.openValue(ctx, s, k, stored)
}

// OpenBlob opens the blob that ref refers to, whoever has put it; without it the error is an [ErrNotFound]. It is there as long as something refers to it.
func (db *DB) OpenBlob(ctx context.Context, ref BlobRef) (*Blob, error) {
	e, ok := db.engine.(Blobber)
	if !ok {
		return nil, fmt.Errorf("blobs on this engine: %w", ErrUnsupported)
	}
	in, err := e.OpenBlob(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", ref, err)
	}
	return &Blob{in: in, ref: ref, isBlob: true, where: "blob " + ref.String()}, nil
}

// openValue opens what a stored value stands for.
func (db *DB) openValue(ctx context.Context, s *Space, k Key, stored []byte) (*Blob, error) {
	value, ref, err := parseValue(stored)
	if err != nil {
		return nil, valueError(s, k, err)
	}
	b := &Blob{where: fmt.Sprintf("value of %s in space %s", Key(bytes.Clone(k)), s)}
	if ref == nil {
		b.in, b.ref.Size = memoryBlob{bytes.NewReader(value)}, int64(len(value))
		return b, nil
	}
	if b.in, err = db.openBlob(ctx, *ref); err != nil {
		return nil, valueError(s, k, err)
	}
	b.ref, b.isBlob = *ref, true
	return b, nil
}

// A memoryBlob is a value that is no blob.
type memoryBlob struct{ io.ReaderAt }

func (memoryBlob) Close() error { return nil }

// errBlobGone says that a blob that something refers to is not there. Where the reference still stands it is damage.
var errBlobGone = errors.New("the content of the blob is missing")

func (db *DB) openBlob(ctx context.Context, ref BlobRef) (BlobReader, error) {
	e, ok := db.engine.(Blobber)
	if !ok {
		return nil, fmt.Errorf("blobs on this engine: %w", ErrUnsupported)
	}
	in, err := e.OpenBlob(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: %w: %s", ErrCorrupt, errBlobGone, ref)
	}
	return in, err
}

// loadBlob is the content of a blob.
func (db *DB) loadBlob(ctx context.Context, ref BlobRef) (_ []byte, err error) {
	if ref.Size > MaxValueBytes {
		return nil, limitLoad.over(ref.Size)
	}
	in, err := db.openBlob(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	value := make([]byte, ref.Size)
	if n, err := in.ReadAt(value, 0); n < len(value) {
		return nil, err
	}
	return value, nil
}

// PutRef adds: set the value of k in s to the blob that ref refers to. It is a *[BlobRefError] to write a reference to a blob that isn't
// there, or has another size.
func (b *Batch) PutRef(s *Space, k Key, ref BlobRef) {
	if (ref.Size < 0 || ref.Size > MaxBlobBytes) && b.accepts(s) {
		b.fail(&BlobRefError{Ref: ref, Space: s, Key: bytes.Clone(k), Size: -1})
		return
	}
	before := b.proposal.Count
	b.add(OpPut, s, k, appendBlobRef(make([]byte, 0, wire.BlobRefBytes), ref))
	b.proposal.Blobs += b.proposal.Count - before
}

// PutRef sets the value of k in s to the blob that ref refers to. See [Batch.PutRef].
func (tx *Tx) PutRef(s *Space, k Key, ref BlobRef) {
	tx.batch.PutRef(s, k, ref)
	if tx.batch.err == nil {
		tx.own.put(s.storedKey(k), appendBlobRef(nil, ref), false)
	}
}

// Load is the value of a put, read if it is a blob; one above [MaxValueBytes] is a *[LimitError], see [Op.Open].
func (o Op) Load(ctx context.Context) ([]byte, error) {
	if o.Blob == nil {
		return o.Value, nil
	}
	value, err := o.Space.db.loadBlob(ctx, *o.Blob)
	return value, valueError(o.Space, o.Key, err)
}

// Open opens the value of a put for reading. A blob is there for as long as the log keeps the commit.
func (o Op) Open(ctx context.Context) (*Blob, error) {
	stored := wire.StoredValue(o.Value)
	if o.Blob != nil {
		stored = appendBlobRef(nil, *o.Blob)
	}
	return o.Space.db.openValue(ctx, o.Space, o.Key, stored)
}
