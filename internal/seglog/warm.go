package seglog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

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
// WARM is one of LogConfig.Warm, UUID that of the database. The table says that it moves; then it is copied, synced, read back and named; then the
// table says where the segment is now, and lets go of the files that it was copied from. Wherever that is interrupted, the table names files that are
// there, and what else there is. Followers that have the old file open read on in it.
const (
	copySuffix     = ".part" // a copy that is not whole yet
	inversesSuffix = ".inverses"

	copyBytes = 256 << 10 // copied at once
)

// Warm moves the sealed segments whose commits are all at or before last to a warm directory, the oldest first, and returns how many it has
// moved. One that turns out to be damaged, is missing, or can't be read now, is noted and stays where it is. One that can't be moved does not stop those behind it, unless several in a row can't.
func (l *Log) Warm(ctx context.Context, last batchlog.ID) (moved int, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(l.life, func() { stop(batchlog.ErrClosed) })()
	l.moving.Lock()
	defer l.moving.Unlock()
	if err := l.undoMoves(); err != nil {
		return 0, err
	}
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
			failures = append(failures, fmt.Errorf("move segment %s: %w", s.name(), err))
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
func (l *Log) nextWarm(from, last batchlog.ID) (next *seg, turn int) {
	for s := range l.table.Load().segs.all() {
		if s.state == active || s.last > last {
			break
		}
		if n, noted := l.noted(s.first); s.state == sealed && !s.warm && (!noted || n.again) && s.first >= from {
			return s, turn
		}
		turn++
	}
	return nil, 0
}

// warm moves a segment to the first of the warm directories that takes it; whose turn it is comes first.
func (l *Log) warm(ctx context.Context, s *seg, turn int) (moved bool, err error) {
	dirs := l.settings().Warm
	errs := []error{errors.New("no warm directory is configured")}
	for i := range dirs {
		moved, err := l.warmTo(ctx, s, dirs[(turn+i)%len(dirs)])
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

// warmTo moves a segment to a directory. The table says so before anything is there.
func (l *Log) warmTo(ctx context.Context, s *seg, dir string) (moved bool, err error) {
	if err := l.mayChange(dir); err != nil {
		return false, err
	}
	if err := l.freePlaces(ctx, s, dir); err != nil {
		return false, err
	}
	in := func(t *table, moving string) bool {
		now, ok := t.segs.get(s.key())
		return ok && now.tag == s.tag && now.moving == moving && !now.warm
	}
	begun := false
	if err := l.edit(func(t *table) edit {
		if begun = in(t, ""); !begun {
			return nil // dropped meanwhile
		}
		return edit{{kind: kindMoving, seg: seg{first: s.first, dir: dir}}}
	}); err != nil || !begun {
		return false, err
	}
	defer func() {
		if !moved {
			err = errors.Join(err, l.edit(func(t *table) edit {
				if !in(t, dir) {
					return nil
				}
				return edit{{kind: kindUnmoved, seg: seg{first: s.first}}}
			}))
		}
	}()
	err = l.copySegment(ctx, s, dir)
	var bad *sourceError
	switch {
	case errors.As(err, &bad) && ctx.Err() == nil:
		damaged := errors.Is(err, batchlog.ErrCorrupt) || disk.NotExist(err)
		l.note(s, note{why: fmt.Sprintf("does not go warm: %s", err), again: !damaged})
		if damaged {
			l.opts.Logger.Error("segment is damaged and stays where it is", "segment", s.name(), "err", err)
		} else {
			l.opts.Logger.Warn("segment cannot be read and stays where it is for now", "segment", s.name(), "err", err)
		}
		return false, nil
	case err != nil:
		return false, err
	}
	err = l.edit(func(t *table) edit {
		if !in(t, dir) {
			return nil
		}
		moved = true
		return edit{{kind: kindMoved, seg: seg{first: s.first}}}
	})
	if moved = moved && err == nil; moved {
		l.wellAgain(s)
	}
	return moved, err
}

// freePlaces makes sure that nothing is still to be removed where s would go, and that nothing is there which the table does not know: from the moment that the table
// says that s moves, what is there is taken for its copy.
func (l *Log) freePlaces(ctx context.Context, s *seg, dir string) error {
	taken := func() bool {
		for _, f := range s.files() {
			if t := l.table.Load(); t.inLimbo(place{dir, f.name}) || t.inLimbo(place{dir, f.name + copySuffix}) {
				return true
			}
		}
		return false
	}
	if taken() {
		if err := l.Swept(ctx); err != nil {
			return err
		}
	}
	if taken() {
		return errors.New("what an earlier move has left there cannot be removed")
	}
	for i, f := range s.files() {
		if err := l.mayReplace(ctx, l.path(f.dir, f.name), l.path(dir, f.name), s.fileSize(i)); err != nil {
			return err
		}
	}
	return nil
}

// fileSize is how much of the i-th of the files of s is copied; below zero: all of it.
func (s *seg) fileSize(i int) int64 {
	if i == 0 {
		return s.size // what follows on a file system that can't cut files means nothing
	}
	return -1
}

// A sourceError says that what was to be copied can't be read, or is damaged.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// copySegment copies the files of s, durably, and checks the copy.
func (l *Log) copySegment(ctx context.Context, s *seg, dir string) error {
	for i, f := range s.files() {
		if err := l.copyFile(ctx, l.path(f.dir, f.name), l.path(dir, f.name), s.fileSize(i)); err != nil {
			return err
		}
	}
	if err := l.checkSealed(l.path(dir, s.name()), l.path(s.dir, s.name()), s); err != nil {
		if errors.Is(err, batchlog.ErrCorrupt) {
			return &sourceError{err} // the copy is what was there: it is the segment that is damaged. It is served as far as it is good
		}
		return err
	}
	return disk.SyncDir(l.opts.FS, l.path(dir, ""))
}

// copyFile makes a copy of a file, of its first size bytes if that is not below zero, that is durable and was read back, but for its name.
func (l *Log) copyFile(ctx context.Context, from, to string, size int64) error {
	f, err := l.opts.FS.Open(from)
	if err != nil {
		return &sourceError{err}
	}
	defer f.Close()
	var source io.Reader = f
	if size >= 0 {
		source = io.LimitReader(f, size)
	}
	part := to + copySuffix
	out, err := l.opts.FS.Create(part, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	out = &steadyFile{File: out}
	written, read := sha256.New(), sha256.New()
	at := int64(0)
	var target error // of a write: else the source has failed
	err = eachPiece(ctx, source, written, func(piece []byte) error {
		var n int
		n, target = out.WriteAt(piece, at)
		at += int64(n)
		return target
	})
	if err != nil && target == nil && ctx.Err() == nil {
		err = &sourceError{err}
	}
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = l.readBack(ctx, part, -1, read)
	}
	if err == nil && !bytes.Equal(written.Sum(nil), read.Sum(nil)) {
		err = &batchlog.CorruptError{File: part, Err: errors.New("the copy reads otherwise than it was written")}
	}
	if err == nil {
		err = l.opts.FS.Rename(part, to)
	}
	return err // what there is of it is in the table
}

// mayReplace returns nil if there is no file with that name, or the copy that would take its place is the same. Any other one the table does not know: it is of another line of
// history, and stays.
func (l *Log) mayReplace(ctx context.Context, from, to string, size int64) error {
	if _, err := l.opts.FS.Stat(to); err != nil {
		if disk.NotExist(err) {
			return nil
		}
		return err
	}
	mine, theirs := sha256.New(), sha256.New()
	if err := l.readBack(ctx, from, size, mine); err != nil {
		return err
	}
	if err := l.readBack(ctx, to, size, theirs); err != nil {
		return err
	}
	if !bytes.Equal(mine.Sum(nil), theirs.Sum(nil)) {
		return fmt.Errorf("%s is there, and another one: what the log does not know it leaves alone", to)
	}
	return nil
}

// readBack sums up a file, of which its first size bytes if that is not below zero.
func (l *Log) readBack(ctx context.Context, name string, size int64, sum hash.Hash) error {
	f, err := l.opts.FS.Open(name)
	if err != nil {
		return err
	}
	var content io.Reader = f
	if size >= 0 {
		content = io.LimitReader(f, size)
	}
	return errors.Join(eachPiece(ctx, content, sum, func([]byte) error { return nil }), f.Close())
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

// checkSealed reads the copy of a segment as Verify does: it is the one that the table names, and every commit is good. Errors name what it was copied from.
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
		return &batchlog.CorruptError{File: name, Offset: x.End, ID: s.first, Err: errors.New("segment is not the one that the table names")}
	}
	return nil
}

// Beside is which commits are in the segment that holds commit id, and, if that is warm, the name of the file beside it for what they have
// overwritten; else file is "". Without such a segment commits is zero.
func (l *Log) Beside(id batchlog.ID) (commits batchlog.IDRange, file string) {
	s := l.table.Load().find(id)
	if s == nil || s.state == active {
		return batchlog.IDRange{}, ""
	}
	commits = batchlog.IDRange{First: s.first, Last: s.last}
	if s.warm {
		file = l.path(s.dir, inversesName(s.name()))
	}
	return commits, file
}

// LastWarm is the newest commit in a warm segment, 0 without one.
func (l *Log) LastWarm() batchlog.ID {
	t := l.table.Load()
	if t.warm == 0 {
		return 0
	}
	for s := range t.segs.backward() {
		if s.warm {
			return s.last
		}
	}
	return 0
}
