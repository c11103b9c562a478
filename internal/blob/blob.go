// Package blob keeps large values in files that are named by their content, for a database whose log and store hold only
// references. Content is streamed in and out in bounded memory, is durable before anything can refer to it, and is checked
// whenever it is read.
//
// A store is a directory. Blobs are in folders by the first byte of their hash; a file that is being written is beside those:
//
//	Dir/ab/abcd….blob                           the blob with the hash abcd…, 64 hex digits
//	Dir/tmp-<microseconds>-<random>-<n>.part    begun at that time since 1970
//
// A file gets the name of a blob only when all of it is synced, so a blob is whole or damaged by other things than a crash.
// What this trusts a file system with: a rename is seen whole or not at all, and the sync of a directory keeps its names.
//
// Which blobs are still referred to is not known here: see [Store.Remove] for what follows from that.
package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Hash is the SHA-256 of a blob's content.
type Hash [sha256.Size]byte

// String is h as 64 hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// A Ref is what log and store hold in place of a value.
type Ref struct {
	Hash Hash
	Size int64 // of the content, in bytes
}

// Options are the parts of a store.
type Options struct {
	FS  vfs.FS
	Dir string // made if it isn't there; one store at a time
	// Now is the clock that says when a temporary file was begun; nil: time.Now.
	Now func() time.Time
}

// A Store is the blobs in a directory. All of its methods may be called at any time, but see [Store.Remove].
type Store struct {
	opts    Options
	random  [4]byte       // in the names of temporary files: a leftover of an earlier run has another
	begun   atomic.Uint64 // temporary files so far
	buffers sync.Pool     // of *[bufferBytes]byte
	// folders are by the first byte of hashes. Each lock is held while a name in the folder is made or removed, and until
	// that is durable: who finds a file there under the lock finds one that stays.
	folders [256]sync.Mutex

	mu struct {
		sync.Mutex
		writing map[string]struct{} // temporary files in use: [Store.Sweep] leaves them alone
	}
}

// Open opens the store in o.Dir, which it makes durable with the directories above it. It doesn't look at what is there.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{opts: o}
	s.buffers.New = func() any { return new([bufferBytes]byte) }
	s.mu.writing = map[string]struct{}{}
	rand.Read(s.random[:]) // never fails
	// The parent is synced also if there is nothing to make: a process that ended early may have made it.
	parents := []string{filepath.Dir(o.Dir)}
	for d := parents[0]; d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := o.FS.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		parents = append(parents, filepath.Dir(d))
	}
	if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("directory of blobs: %w", err)
	}
	for _, parent := range parents {
		if err := s.syncDir(parent); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Has reports whether the content with that hash is here. As for [Store.Put], a file whose size or footer does not hold is
// none: putting the content mends it.
func (s *Store) Has(h Hash) (bool, error) {
	_, ok, err := s.Size(h)
	return ok, err
}

// Size is the size of the content with that hash, in bytes; ok is false if it is not here, as [Store.Has] says.
func (s *Store) Size(h Hash) (size int64, ok bool, err error) {
	f, err := s.open(h)
	var damage *DamageError
	switch {
	case err == nil:
		return f.size, true, f.Close()
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &damage):
		return 0, false, nil
	default:
		return 0, false, err
	}
}

// Open opens a blob for reading. The error is fs.ErrNotExist if it isn't here, a [*DamageError] if the file's size, its
// footer or its table of sums is damaged or does not belong to ref, and a [*VersionError] if a newer version wrote it.
func (s *Store) Open(ref Ref) (*File, error) {
	f, err := s.open(ref.Hash)
	if err == nil && f.size != ref.Size {
		err = errors.Join(&DamageError{File: f.name, Offset: f.size, Err: fmt.Errorf("content of %d bytes, not %d", f.size, ref.Size)}, f.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return f, nil
}

// open opens the blob with that hash, of whatever size.
func (s *Store) open(h Hash) (*File, error) {
	name := s.path(h)
	file, err := s.opts.FS.Open(name)
	if err != nil {
		return nil, err
	}
	f, err := newFile(file, name, h)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return f, nil
}

// Verify reads all of a blob and compares every sum, and the SHA-256 of the content. Errors are those of [Store.Open] and of
// [File.CopyTo].
func (s *Store) Verify(ctx context.Context, ref Ref) error {
	f, err := s.Open(ref)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := f.CopyTo(ctx, hash, 0, f.Size()); err != nil {
		return err
	}
	if got := Hash(hash.Sum(nil)); got != ref.Hash {
		return &DamageError{File: f.name, Err: fmt.Errorf("content has the hash %s", got)}
	}
	return nil
}

// Remove removes the blob with that hash. It is no error if there is none. The name is durably gone when it returns: each
// call syncs one directory.
//
// Put may find the content here and rely on it. So who removes makes sure that no Put of that content has returned whose
// commit is still to come, and none is under way; the age of the file does not tell, as such a Put leaves it as it is.
func (s *Store) Remove(h Hash) error {
	s.folders[h[0]].Lock()
	defer s.folders[h[0]].Unlock()
	name := s.path(h)
	if err := s.opts.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob: %w", err)
	}
	// Also if there was nothing to remove: the sync of an earlier call may have failed.
	if err := s.syncDir(filepath.Dir(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// path is the file of the blob with that hash.
func (s *Store) path(h Hash) string {
	digits := h.String()
	return filepath.Join(s.opts.Dir, digits[:2], digits+suffix)
}

// syncDir makes the names in a directory durable.
func (s *Store) syncDir(dir string) error {
	d, err := s.opts.FS.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
