package blob

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	suffix     = ".blob"
	tempPrefix = "tmp-"
	tempSuffix = ".part"
)

// tempName is the name of the nth temporary file, begun at that time.
func tempName(begun time.Time, random [4]byte, n uint64) string {
	return fmt.Sprintf("%s%d-%x-%d%s", tempPrefix, begun.UnixMicro(), random, n, tempSuffix)
}

// tempTime is when the temporary file of that name was begun.
func tempTime(name string) (begun time.Time, ok bool) {
	stem, isTemp := strings.CutPrefix(name, tempPrefix)
	stem, isPart := strings.CutSuffix(stem, tempSuffix)
	digits, _, _ := strings.Cut(stem, "-")
	micros, err := strconv.ParseInt(digits, 10, 64)
	return time.UnixMicro(micros), isTemp && isPart && err == nil
}

// blobHash is which blob the file of that name in that folder holds.
func blobHash(folder, name string) (h Hash, ok bool) {
	digits, isBlob := strings.CutSuffix(name, suffix)
	n, err := hex.Decode(h[:], []byte(digits[:min(len(digits), 2*len(h))]))
	return h, isBlob && err == nil && n == len(h) && h.String() == digits && folder == digits[:2]
}

// Info is what is known of a blob without opening it.
type Info struct {
	Hash     Hash
	Bytes    int64     // of the file, which is larger than the content
	Modified time.Time // when it was put, first or to mend it
}

// All yields the blobs that are here, whole or damaged, in order of their hashes; nothing else that is in the directory. A blob
// that is put or removed meanwhile may be among them or not. An error stands for a folder or a file that could not be
// looked at; the rest follows it.
func (s *Store) All() iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		folders, err := s.list(s.opts.Dir)
		if err != nil {
			yield(Info{}, err)
			return
		}
		for _, folder := range folders {
			if first, err := hex.DecodeString(folder); err != nil || len(first) != 1 {
				continue
			}
			names, err := s.list(filepath.Join(s.opts.Dir, folder))
			if err != nil && !yield(Info{}, err) {
				return
			}
			for _, name := range names {
				hash, ok := blobHash(folder, name)
				if !ok {
					continue
				}
				stat, err := s.opts.FS.Stat(s.path(hash))
				switch {
				case errors.Is(err, fs.ErrNotExist): // removed since it was listed
					continue
				case err != nil:
					err = fmt.Errorf("list blobs: %w", err)
					stat = nil
				}
				info := Info{Hash: hash}
				if stat != nil {
					info.Bytes, info.Modified = stat.Size(), stat.ModTime()
				}
				if !yield(info, err) {
					return
				}
			}
		}
	}
}

// list is the names in a directory, sorted.
func (s *Store) list(dir string) ([]string, error) {
	names, err := s.opts.FS.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// Sweep removes the temporary files that a crash left behind: those begun before that time that no Put of this store is
// writing. It returns how many it removed and how many bytes they had. Nothing depends on them, so no directory is synced:
// after a crash they may be there again. A file that can't be removed does not keep the others.
func (s *Store) Sweep(before time.Time) (removed int, bytes int64, err error) {
	names, err := s.list(s.opts.Dir)
	if err != nil {
		return 0, 0, err
	}
	var errs []error
	for _, name := range names {
		begun, ok := tempTime(name)
		if !ok || !begun.Before(before) || s.isWriting(name) {
			continue
		}
		path := filepath.Join(s.opts.Dir, name)
		size := int64(0)
		if stat, err := s.opts.FS.Stat(path); err == nil {
			size = stat.Size()
		}
		switch err := s.opts.FS.Remove(path); {
		case err == nil:
			removed, bytes = removed+1, bytes+size
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("sweep blobs: %w", err))
		}
	}
	return removed, bytes, errors.Join(errs...)
}

// isWriting reports whether a Put is writing the temporary file of that name.
func (s *Store) isWriting(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.mu.writing[name]
	return ok
}
