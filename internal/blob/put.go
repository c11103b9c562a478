package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// bufferBytes is what is read, hashed and written at once: whole chunks.
	bufferBytes = 16 * chunkBytes
	// bytesPerSync is how much is written before the disk is set to work on it, so that the last sync finds little left to do,
	// and the syncs of others don't wait for the whole of a large blob. Far less costs throughput: each time, the disk must have
	// finished what it was given the time before.
	bytesPerSync = 16 << 20
	// writeBytes is what is handed to the file system at once. It takes memory in pieces of what it is handed, and large ones are dear where they
	// have to be made, or asked of a host, first: 1 MiB took up to five times as long.
	writeBytes = 256 << 10
)

// Put stores what r has up to its end and returns how to refer to it. When the error is nil, content and name are durable.
// Content that is here already stays as it is if the file's size and footer hold, and is replaced if not.
//
// ctx ends it between reads. progress, if not nil, is told how many bytes of content are written so far, in the calling
// goroutine. Memory is some 3 MiB, and 64 bytes for each further MiB of content.
//
// After an error nothing of the content is left, unless it was here before: not if r or the disk fails, and not if that is
// full, when the error is a syscall.ENOSPC. Only a file that can't be removed stays, for [Store.Sweep]. It is a
// [*VersionError] if the content is here in a file that a newer version wrote.
func (s *Store) Put(ctx context.Context, r io.Reader, progress func(bytes int64)) (ref Ref, err error) {
	return s.PutClaimed(ctx, r, progress, nil)
}

// PutClaimed is Put that tells claim the hash of what it is about to name, or to find here: who removes blobs must leave that one alone. nil: nobody is told.
func (s *Store) PutClaimed(ctx context.Context, r io.Reader, progress func(bytes int64), claim func(h Hash)) (ref Ref, err error) {
	defer func() {
		if err != nil {
			ref, err = Ref{}, fmt.Errorf("put blob: %w", err)
		}
	}()
	w, err := s.begin()
	if err != nil {
		return Ref{}, err
	}
	kept := false
	defer func() { // also when r or progress panics
		if kept {
			return
		}
		if dropErr := w.drop(); err != nil { // else the content is here, and what can't be removed is for Sweep
			err = errors.Join(err, dropErr)
		}
	}()
	if ref, err = w.write(ctx, r, progress); err != nil {
		return Ref{}, err
	}
	kept, err = w.publish(ctx, ref, claim)
	return ref, err
}

// A writer is the temporary file of one Put.
type writer struct {
	store *Store
	name  string
	file  vfs.File // nil when it is closed
}

func (s *Store) begin() (*writer, error) {
	w := &writer{store: s, name: tempName(s.opts.Now(), s.random, s.begun.Add(1))}
	s.mu.Lock()
	s.mu.writing[w.name] = struct{}{}
	s.mu.Unlock()
	var err error
	if w.file, err = s.opts.FS.Create(w.path(), vfs.WriteCategoryUnspecified); err != nil {
		w.forget()
		return nil, err
	}
	return w, nil
}

func (w *writer) path() string { return filepath.Join(w.store.opts.Dir, w.name) }

func (w *writer) forget() {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	delete(w.store.mu.writing, w.name)
}

func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// drop removes the file.
func (w *writer) drop() error {
	defer w.forget()
	err := w.close()
	if removeErr := w.store.opts.FS.Remove(w.path()); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}

// write makes the file a blob of what r has, synced and closed, under its temporary name.
func (w *writer) write(ctx context.Context, r io.Reader, progress func(bytes int64)) (Ref, error) {
	// The wrapper is never closed: that would sync what is to be dropped.
	out := vfs.NewSyncingFile(w.file, vfs.SyncingFileOptions{BytesPerSync: bytesPerSync})
	ref, table, err := w.store.stream(ctx, out, r, progress)
	if err != nil {
		return Ref{}, err
	}
	if _, err := out.Write(makeEnd(table, ref)); err != nil {
		return Ref{}, fmt.Errorf("write %s: %w", w.name, err)
	}
	if err := w.file.Sync(); err != nil {
		return Ref{}, fmt.Errorf("sync %s: %w", w.name, err)
	}
	if err := w.close(); err != nil {
		return Ref{}, fmt.Errorf("close %s: %w", w.name, err)
	}
	return ref, nil
}

// stream writes what r has to out, and returns how to refer to it and the sums of its chunks.
//
// Each buffer is read, then hashed, then written, in that order as a vfs.File may change what it is given to write. A goroutine
// hashes one while the one before it is written and the next one read.
func (s *Store) stream(ctx context.Context, out io.Writer, r io.Reader, progress func(bytes int64)) (Ref, []byte, error) {
	h := newHasher()
	defer h.end()
	size := int64(0)
	write := func(p part) error {
		defer s.buffers.Put(p.buffer)
		if p.len == 0 {
			return nil
		}
		for b := p.bytes(); len(b) > 0; {
			n := min(len(b), writeBytes)
			if _, err := out.Write(b[:n]); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			b = b[n:]
		}
		size += int64(p.len)
		if progress != nil {
			progress(size)
		}
		return nil
	}
	for first, ended := true, false; !ended; first = false {
		p := part{buffer: s.buffers.Get().(*[bufferBytes]byte)}
		var err error
		if p.len, ended, err = fill(ctx, r, p.buffer[:]); err != nil {
			return Ref{}, nil, fmt.Errorf("read content: %w", err)
		}
		h.in <- p
		if first {
			continue
		}
		if err := write(<-h.out); err != nil {
			return Ref{}, nil, err
		}
	}
	if err := write(<-h.out); err != nil {
		return Ref{}, nil, err
	}
	h.end()
	return Ref{Hash(h.hash.Sum(nil)), size}, h.table, nil
}

// A part is a buffer with content, full unless it is the last.
type part struct {
	buffer *[bufferBytes]byte
	len    int
}

func (p part) bytes() []byte { return p.buffer[:p.len] }

// A hasher hashes parts in a goroutine of its own, which ends when end returns. At most one part is on its way when the next
// is handed in, so neither side waits for the other to take one.
type hasher struct {
	in, out chan part
	wg      sync.WaitGroup // counts the goroutine
	hash    hash.Hash      // like table, the goroutine's until it has ended
	table   []byte
	end     func() // may be called again
}

func newHasher() *hasher {
	h := &hasher{in: make(chan part, 1), out: make(chan part, 1), hash: sha256.New()}
	h.wg.Go(h.hashLoop)
	h.end = sync.OnceFunc(func() {
		close(h.in)
		h.wg.Wait()
	})
	return h
}

func (h *hasher) hashLoop() {
	for p := range h.in {
		h.hash.Write(p.bytes())
		for b := p.bytes(); len(b) > 0; {
			n := min(len(b), chunkBytes)
			h.table = le.AppendUint32(h.table, crc32.Checksum(b[:n], castagnoli))
			b = b[n:]
		}
		h.out <- p
	}
}

var errReader = errors.New("reader that does not keep to what io.Reader says")

// emptyReads is how often a reader may return nothing before it is given up.
const emptyReads = 100

// fill reads until b is full or r has ended. Only io.EOF as it is ends r: wrapped in another error it tells of a stream that broke.
func fill(ctx context.Context, r io.Reader, b []byte) (n int, ended bool, err error) {
	for empty := 0; n < len(b); {
		if ctx.Err() != nil {
			return n, false, context.Cause(ctx)
		}
		m, err := r.Read(b[n:])
		if m < 0 || m > len(b)-n {
			return n, false, fmt.Errorf("%w: %d bytes read into %d", errReader, m, len(b)-n)
		}
		n += m
		if empty++; m > 0 {
			empty = 0
		}
		if empty >= emptyReads && err == nil {
			return n, false, io.ErrNoProgress
		}
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

// publish gives the file its name, for good, unless the content is here already. kept says whether it did so.
func (w *writer) publish(ctx context.Context, ref Ref, claim func(h Hash)) (kept bool, err error) {
	s := w.store
	if claim != nil {
		claim(ref.Hash)
	}
	folder := &s.folders[ref.Hash[0]]
	folder.Lock()
	defer folder.Unlock()
	name := s.path(ref.Hash)
	dir := filepath.Dir(name)

	isNew := false
	err = s.Verify(ctx, ref) // all of it: content that nobody can read is not here
	var newer *VersionError
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err == nil:
		// Its name need not be durable: the process that gave it may have ended before the sync.
		return false, s.syncNames(dir)
	case errors.As(err, &newer):
		return false, err
	case errors.Is(err, fs.ErrNotExist):
		isNew = true
	}
	if err := s.opts.FS.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("folder of blobs: %w", err)
	}
	if err := s.opts.FS.Rename(w.path(), name); err != nil {
		return false, fmt.Errorf("rename %s: %w", w.name, err)
	}
	w.forget()
	if err := s.syncNames(dir); err != nil {
		if isNew {
			// A sync of the same names that succeeds later proves nothing: the next Put must find none here, and make its own.
			err = errors.Join(err, s.opts.FS.Remove(name))
		}
		return true, err
	}
	return true, nil
}

// syncNames makes the names in a folder durable, and then that of the folder.
func (s *Store) syncNames(dir string) error {
	if err := s.syncDir(dir); err != nil {
		return err
	}
	return s.syncDir(s.opts.Dir)
}
