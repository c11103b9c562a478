package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2"
)

// The names of Pebble's files in the directory of a store.
const (
	formatMarker = "marker.format-version"
	tableSuffix  = ".sst"
)

// readError is an error of Pebble in our words.
func readError(err error) error {
	switch {
	case err == nil || errors.Is(err, batchlog.ErrCorrupt):
		return err
	case errors.Is(err, pebble.ErrNotFound):
		return batchlog.ErrNotFound
	case !pebble.IsCorruptionError(err): // a mark, that errors.Is does not see
		return err
	}
	if at := pebble.ExtractDataCorruptionInfo(err); at != nil {
		return &batchlog.CorruptError{File: at.Path, Offset: blockOffset(err), Err: firstLine{err}}
	}
	return fmt.Errorf("store: %w: %w", batchlog.ErrCorrupt, err)
}

// In the text of an error of Pebble, where it has no more to say what it is about: a block by its offset and length, a file by its name or its number.
var (
	blockText  = regexp.MustCompile(`block (\d+)/\d+`)
	fileText   = regexp.MustCompile(`\b(?:MANIFEST-\d{6,}|OPTIONS-\d{6,}|\d{6,}\.sst)\b`)
	numberText = regexp.MustCompile(`\b\d{6,}\b`)
)

func blockOffset(err error) int64 {
	if m := blockText.FindStringSubmatch(err.Error()); m != nil {
		if at, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			return at
		}
	}
	return 0
}

// A firstLine is an error of Pebble without the lines that carry more about it.
type firstLine struct{ error }

func (e firstLine) Error() string {
	first, _, _ := strings.Cut(e.error.Error(), "\n")
	return first
}

func (e firstLine) Unwrap() error { return e.error }

// checkFiles makes sure that there is a store if there are tables of one. Without the marker that names the manifest Pebble would begin an empty store, and remove them.
func (s *Store) checkFiles() error {
	names, err := s.fs.List(s.opts.Dir)
	if err != nil {
		return err
	}
	tables := false
	for _, name := range names {
		if strings.HasPrefix(name, manifestMarker) {
			return nil
		}
		tables = tables || strings.HasSuffix(name, tableSuffix)
	}
	if tables {
		return &batchlog.CorruptError{File: filepath.Join(s.opts.Dir, strings.TrimSuffix(manifestMarker, ".")), Err: errors.New("missing, but there are tables")}
	}
	return nil
}

// openFailed is why a store can't be opened. Of what is not the disk's fault the files are: Pebble marks just some of that as damage.
func (s *Store) openFailed(err error) error {
	if err = readError(err); errors.Is(err, batchlog.ErrCorrupt) && errors.As(err, new(*batchlog.CorruptError)) {
		return err
	}
	var errno syscall.Errno
	switch {
	case disk.Full(err):
		return openError(err)
	case errors.As(err, &errno) && !disk.NotExist(err), s.Failed() != nil, s.fs.failedOpening(err):
		return err
	case strings.Contains(err.Error(), "unknown format major version"):
		return fmt.Errorf("%w: written by a newer version: %w", batchlog.ErrUnsupported, err)
	}
	return &batchlog.CorruptError{File: filepath.Join(s.opts.Dir, s.fileOf(err)), Offset: blockOffset(err), Err: err}
}

// fileOf is the file that an error of opening Pebble is about.
func (s *Store) fileOf(err error) string {
	text := err.Error()
	if strings.Contains(text, "not pristine") { // the format is unknown, and a manifest there
		return formatMarker
	}
	if name := fileText.FindString(text); name != "" {
		return name
	}
	if number := numberText.FindString(text); number != "" {
		return number + tableSuffix
	}
	return filepath.Base(s.fs.lastRead())
}
