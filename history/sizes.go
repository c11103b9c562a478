package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// sizeSpaces is where [Sizes] keeps what it derives.
type sizeSpaces struct {
	all         *batchlog.Space // holds the others
	files       *batchlog.Space // path → bytes
	omitted     *batchlog.Space // path → bytes, of those that the import has left out
	directories *batchlog.Space // path → bytes and files
}

func sizesOf(repo *batchlog.Space) sizeSpaces {
	s := repo.Space("sizes")
	return sizeSpaces{all: s, files: s.Space("files"), omitted: s.Space("omitted"), directories: s.Space("directories")}
}

// Sizes is a task that keeps the size of each directory, all that is below it included, as the newest commit that was imported has it. repo is the
// space of a repository: git/NAME. The numbers are those of git ls-tree -r -l: a symbolic link counts with its target's name, a blob that
// the import has left out counts as well, a submodule does not.
//
//	git/NAME/sizes/directories   path → "BYTES FILES"; "" is the root
//	git/NAME/sizes/files         path → bytes
//	git/NAME/sizes/omitted       path → bytes, of a blob that --max-blob has left out
func Sizes(repo *batchlog.Space) task.Task {
	at := sizesOf(repo)
	files, omitted := repo.Space("files"), repo.Space("omitted")
	return task.Task{
		Name:    at.all.String(),
		Source:  []*batchlog.Space{files, omitted},
		Derives: []*batchlog.Space{at.all},
		Handle: func(_ context.Context, w *task.Window) error {
			return addSizes(w, newSource(files, at.files), newSource(omitted, at.omitted), at)
		},
	}
}

func addSizes(w *task.Window, files, omitted *source, at sizeSpaces) error {
	if err := follow(w, files, omitted); err != nil {
		return err
	}
	directories := newSums(at.directories, 2)
	for _, s := range []struct {
		*source
		size func(value []byte) (int64, error)
	}{{files, func(content []byte) (int64, error) { return int64(len(content)), nil }}, {omitted, omittedSize}} {
		before, err := s.before(w)
		if err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(s.now)) {
			if err := sizeOne(w, s.source, key, before[key], s.size, directories); err != nil {
				return fmt.Errorf("%s %s: %w", s.space, batchlog.Key(key), err)
			}
		}
	}
	return directories.write(w)
}

// sizeOne takes one key of a source over: into what is kept of it, and into the directories that its path is in.
func sizeOne(w *task.Window, s *source, key string, old []byte, size func(value []byte) (int64, error), directories *sums) error {
	var byteCount, fileCount int64 // more than before
	if old != nil {
		n, err := parseNumbers(old, 1)
		if err != nil {
			return err
		}
		byteCount, fileCount = -n[0], -1
	}
	var record []byte
	if v := s.now[key]; !v.gone {
		n, err := size(v.bytes)
		if err != nil {
			return err
		}
		record = formatNumbers([]int64{n})
		byteCount, fileCount = byteCount+n, fileCount+1
	}
	if bytes.Equal(old, record) {
		return nil
	}
	s.keep(w, key, record)
	path, err := Path(batchlog.Key(key))
	if err != nil {
		return err
	}
	for dir := range above(path) {
		directories.add(PathKey(dir), byteCount, fileCount)
	}
	return nil
}

// omittedSize is the size of a blob that the import has left out.
func omittedSize(value []byte) (int64, error) {
	var blob struct{ Size int64 }
	err := json.Unmarshal(value, &blob)
	return blob.Size, err
}

// above yields the directories that a path is in, from the root on.
func above(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield("") {
			return
		}
		for i := range len(path) {
			if path[i] == '/' && !yield(path[:i]) {
				return
			}
		}
	}
}

// A Size is how large a directory is, all that is below it included.
type Size struct {
	Path  string `json:"path"` // "": the root
	Bytes int64  `json:"bytes"`
	Files int64  `json:"files"`
}

// Directory returns the size of a directory; "" or "." is the root. One that has no files is a [batchlog.ErrNotFound], but for the root.
func Directory(ctx context.Context, repo *batchlog.Space, path string, opts ...batchlog.ReadOption) (Size, error) {
	path = strings.TrimSuffix(path, "/")
	if path == "." {
		path = ""
	}
	text, err := sizesOf(repo).directories.Get(ctx, PathKey(path), opts...)
	if path == "" && errors.Is(err, batchlog.ErrNotFound) {
		return Size{}, nil
	}
	if err != nil {
		return Size{}, err
	}
	return sizeFrom(path, text)
}

// LargestDirectories returns the n directories with the most bytes, most first; n < 0: all. The root, which has all, is left out.
func LargestDirectories(ctx context.Context, repo *batchlog.Space, n int, opts ...batchlog.ReadOption) ([]Size, error) {
	var all []Size
	for e, err := range sizesOf(repo).directories.Scan(ctx, batchlog.Range{}, opts...) {
		if err != nil {
			return nil, err
		}
		path, err := Path(e.Key)
		if err != nil {
			return nil, err
		}
		s, err := sizeFrom(path, e.Value)
		if err != nil {
			return nil, err
		}
		if path != "" {
			all = append(all, s)
		}
	}
	return top(all, n, func(x, y Size) int {
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(x.Path, y.Path))
	}), nil
}

func sizeFrom(path string, text []byte) (Size, error) {
	n, err := parseNumbers(text, 2)
	if err != nil {
		return Size{}, fmt.Errorf("size of %q: %w", path, err)
	}
	return Size{Path: path, Bytes: n[0], Files: n[1]}, nil
}
