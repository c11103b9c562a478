package seglog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A sealed segment that is old enough leaves the database's directory for a warm one, and what belongs to it goes along:
//
//	WARM/UUID/00000000000000000001-5a1b2c3d.seg       the segment, byte for byte
//	WARM/UUID/chain-….ops                             the chains whose records are in it
//	WARM/UUID/00000000000000000001-5a1b2c3d.inverses  what its commits have overwritten: see package store
//
// WARM is one of LogConfig.Warm, UUID that of the database. A move is copied, synced, read back and named; then the manifest says where the
// segment is now; then the files that it was copied from go. Wherever that is interrupted, the manifest names files that are there, and
// doing it again is safe. Followers that have the old file open read on in it.
const (
	copySuffix     = ".part" // a copy that is not whole yet
	inversesSuffix = ".inverses"

	copyBytes = 256 << 10 // copied at once
)

// inversesName is that of the file beside the segment with that name.
func inversesName(segment string) string {
	return strings.TrimSuffix(segment, segmentSuffix) + inversesSuffix
}

// Warm moves the sealed segments whose commits are all at or before last to a warm directory, the oldest first, and returns how many it has
// moved. One that turns out to be damaged stays where it is. One that can't be moved does not stop those behind it, unless several in a row can't.
func (l *Log) Warm(ctx context.Context, last batchlog.ID) (moved int, err error) {
	var failures []error
	for from, inRow := batchlog.ID(1), 0; inRow < warmFailures; {
		s, turn := l.nextWarm(from, last)
		if s == nil {
			break
		}
		from = s.last + 1
		ok, err := l.warm(ctx, s, turn)
		if ctx.Err() != nil {
			return moved, errors.Join(append(failures, context.Cause(ctx))...)
		}
		inRow++
		if err != nil {
			failures = append(failures, fmt.Errorf("move segment %s: %w", s.name, err))
			continue
		}
		if inRow = 0; ok {
			moved++
		}
	}
	return moved, errors.Join(failures...)
}

// warmFailures is after how many failures in a row it is not one segment that can't be moved, but all.
const warmFailures = 3

// nextWarm is the oldest segment from commit from on that can be moved, and how many were before it.
func (l *Log) nextWarm(from, last batchlog.ID) (s *seg, turn int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.mu.segments {
		if s.state != sealed || s.last > last {
			break
		}
		if !s.warm && s.broken == "" && s.first >= from {
			return s, i
		}
	}
	return nil, 0
}

// warm moves a segment to the first of the warm directories that takes it; whose turn it is comes first.
func (l *Log) warm(ctx context.Context, s *seg, turn int) (moved bool, err error) {
	dirs := l.settings().Warm
	errs := []error{errors.New("no warm directory is configured")}
	for i := range dirs {
		moved, err := l.warmTo(ctx, s, l.warmDir(dirs[(turn+i)%len(dirs)]))
		if err == nil {
			return moved, nil
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		err = fmt.Errorf("to %s: %w", dirs[(turn+i)%len(dirs)], err)
		if noSpace(err) {
			err = fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs[min(len(dirs), 1):]...)
}

// warmDir is where in a configured warm directory the segments of this database are.
func (l *Log) warmDir(dir string) string { return filepath.Join(dir, l.opts.Database.String()) }

// warmTo moves a segment to a directory.
func (l *Log) warmTo(ctx context.Context, s *seg, dir string) (moved bool, err error) {
	if err := l.makeDirs([]string{dir}); err != nil {
		return false, err
	}
	l.mu.Lock()
	files := l.filesLocked(s)
	l.mu.Unlock()
	var copies []string
	defer func() {
		if !moved && copies != nil {
			err = errors.Join(err, l.removeAll(copies))
		}
	}()
	for _, name := range files {
		to := l.path(dir, filepath.Base(name))
		if err := l.copyFile(ctx, name, to); err != nil {
			return false, err
		}
		copies = append(copies, to)
	}
	if err := l.checkSealed(copies[0], files[0], s); err != nil {
		if !errors.Is(err, batchlog.ErrCorrupt) {
			return false, err
		}
		// The copy is what was there: it is the segment that is damaged. It is served as far as it is good.
		l.mu.Lock()
		s.broken = fmt.Sprintf("does not go warm: %s", err)
		l.mu.Unlock()
		l.opts.Logger.Error("segment is damaged and stays where it is", "segment", s.name, "err", err)
		return false, nil
	}
	if err := disk.SyncDir(l.opts.FS, l.path(dir, "")); err != nil {
		return false, err
	}
	if moved, err = l.place(s, dir); !moved || err != nil {
		if err != nil {
			copies = nil // a crash may find the manifest that names them
		}
		return false, err
	}
	if err := l.removeAll(files); err != nil {
		l.opts.Logger.Warn("segment that was moved cannot be removed; it will be when the database is opened", "segment", s.name, "err", err)
	}
	return true, nil
}

// place says in the manifest that a segment is in that warm directory, unless it was dropped meanwhile.
func (l *Log) place(s *seg, dir string) (placed bool, err error) {
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.mu.Lock()
	if !slices.Contains(l.mu.segments, s) {
		l.mu.Unlock()
		return false, nil
	}
	before := s.dir
	s.dir, s.warm = dir, true
	m := l.tableLocked()
	l.mu.Unlock()
	if _, err := l.replaceManifest(m); err != nil {
		l.mu.Lock()
		s.dir, s.warm = before, false
		l.mu.Unlock()
		return false, fmt.Errorf("write manifest: %w", err)
	}
	return true, nil
}

// filesLocked are the files of a segment: its own, then those of its chains.
func (l *Log) filesLocked(s *seg) []string {
	files := []string{l.path(s.dir, s.name)}
	for _, c := range s.chains {
		files = append(files, l.path(s.chainDir(), chainName(c.file)))
	}
	return files
}

// chainDir is where the chains of a segment are: beside it when it is warm, else in the log's own directory.
func (s *seg) chainDir() string {
	if s.warm {
		return s.dir
	}
	return ""
}

// removeAll removes files that may be there.
func (l *Log) removeAll(names []string) error {
	var errs []error
	for _, name := range names {
		if err := l.opts.FS.Remove(name); err != nil && !disk.NotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// copyFile makes a copy of a file that is durable and was read back, but for its name.
func (l *Log) copyFile(ctx context.Context, from, to string) error {
	f, err := l.opts.FS.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	part := to + copySuffix
	out, err := l.opts.FS.Create(part, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	out = &steadyFile{File: out}
	written, read := sha256.New(), sha256.New()
	at := int64(0)
	err = eachPiece(ctx, f, written, func(piece []byte) error {
		n, err := out.WriteAt(piece, at)
		at += int64(n)
		return err
	})
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = l.readBack(ctx, part, read)
	}
	if err == nil && !bytes.Equal(written.Sum(nil), read.Sum(nil)) {
		err = &batchlog.CorruptError{File: part, Err: errors.New("the copy reads otherwise than it was written")}
	}
	if err == nil {
		err = l.opts.FS.Rename(part, to)
	}
	if err != nil {
		return errors.Join(err, l.removeAll([]string{part}))
	}
	return nil
}

func (l *Log) readBack(ctx context.Context, name string, sum hash.Hash) error {
	f, err := l.opts.FS.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(eachPiece(ctx, f, sum, func([]byte) error { return nil }), f.Close())
}

// eachPiece reads a file piece by piece, and sums it up.
func eachPiece(ctx context.Context, f io.Reader, sum hash.Hash, visit func([]byte) error) error {
	buf := make([]byte, copyBytes)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if n > 0 {
			if err := visit(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// checkSealed reads the copy of a segment as Verify does: it is the one that the manifest names, and every commit is good. Errors name what it was copied from.
func (l *Log) checkSealed(copied, name string, s *seg) error {
	f, err := l.opts.FS.Open(copied)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := readHeader(f, name)
	if err != nil {
		return err
	}
	index, err := segment.ReadIndex(f, s.size, name, h.Salt())
	if err != nil {
		return err
	}
	x, err := segment.Build(f, h, name, index.End, index.Prev)
	if err != nil {
		return err
	}
	if x.Hash != s.hash || x.Last != s.last {
		return &batchlog.CorruptError{File: name, Offset: x.End, ID: s.first, Err: errors.New("segment is not the one that the manifest names")}
	}
	return nil
}

// Beside is which commits are in the segment that holds commit id, and, if that is warm, the name of the file beside it for what they have
// overwritten; else file is "". Without such a segment commits is zero.
func (l *Log) Beside(id batchlog.ID) (commits batchlog.IDRange, file string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.segmentLocked(id)
	if s == nil || s.state == active {
		return batchlog.IDRange{}, ""
	}
	commits = batchlog.IDRange{First: s.first, Last: s.last}
	if s.warm {
		file = l.path(s.dir, inversesName(s.name))
	}
	return commits, file
}

// LastWarm is the newest commit in a warm segment, 0 without one.
func (l *Log) LastWarm() batchlog.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range slices.Backward(l.mu.segments) {
		if s.warm {
			return s.last
		}
	}
	return 0
}
