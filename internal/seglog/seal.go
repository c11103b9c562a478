package seglog

import (
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// sealLoop seals segments that are full.
func (l *Log) sealLoop() {
	for {
		select {
		case <-l.done:
			return
		case <-l.sealWanted:
		}
		l.sealFull()
	}
}

// sealFull seals the segments that are full, the oldest first, as each holds the hash of the one before it. One that can't be sealed is noted and passed
// over.
func (l *Log) sealFull() {
	for s := range l.table.Load().segs.all() {
		if s.state != full {
			continue
		}
		select {
		case <-l.done:
			return
		default:
		}
		if n, ok := l.noted(s.first); ok && !n.again {
			continue
		}
		err := l.seal(s)
		var failed *sealError
		switch {
		case err == nil:
			l.wellAgain(s)
		case errors.Is(err, batchlog.ErrClosed):
			return
		case errors.Is(err, batchlog.ErrCorrupt):
			l.note(s, note{why: err.Error()})
			l.opts.Logger.Error("segment is damaged and cannot be sealed; what is good of it is served", "segment", s.name(), "err", err)
		case errors.As(err, &failed):
			l.note(s, note{why: err.Error(), again: !failed.sync})
			fallthrough
		default: // with the next one that is full, or when the database is opened
			l.opts.Logger.Warn("segment cannot be sealed now", "segment", s.name(), "err", err)
		}
	}
}

// A sealError is a failure to read or write a segment that is to be sealed.
type sealError struct {
	err  error
	sync bool // nobody knows what the index is on the disk; the groups are durable whatever becomes of it
}

func (e *sealError) Error() string { return e.err.Error() }
func (e *sealError) Unwrap() error { return e.err }

// seal reads s once more, writes its index, and makes it immutable.
func (l *Log) seal(s *seg) (err error) {
	f, err := l.openFull(s)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); closeErr != nil {
			l.opts.Logger.Warn("close segment", "segment", s.name(), "err", closeErr)
		}
	}()
	name := l.path(s.dir, s.name())
	h, err := l.headerOf(f, s)
	if err != nil {
		return unread(err)
	}
	var prev [32]byte
	if before := l.table.Load().find(s.first - 1); before != nil {
		prev = before.hash
	}
	x, err := segment.Build(f, h, name, s.end, prev)
	if err != nil {
		return unread(err)
	}
	if x.Last != s.last {
		return &batchlog.CorruptError{File: name, Offset: x.End, ID: x.Last + 1, Err: fmt.Errorf("segment ends before commit %d", s.last)}
	}
	offset, b := segment.Seal(x, h.Salt())
	size := offset + int64(len(b))
	if _, err := f.WriteAt(b, offset); err != nil {
		return unread(fmt.Errorf("write index: %w", err))
	}
	if err := cut(f, size); err != nil {
		return unread(fmt.Errorf("cut segment %s: %w", name, err))
	}
	if err := f.Sync(); err != nil {
		return &sealError{fmt.Errorf("sync index: %w", err), true}
	}
	return l.edit(func(t *table) edit {
		if now, ok := t.segs.get(s.key()); !ok || now.state != full || now.tag != s.tag {
			return nil // dropped meanwhile
		}
		return edit{{kind: kindSealed, seg: seg{first: s.first, size: size, oldest: x.FirstTime, newest: x.LastTime, hash: x.Hash}}}
	})
}

// unread is err as a failure of the disk, unless it says that the segment is damaged.
func unread(err error) error {
	if errors.Is(err, batchlog.ErrCorrupt) || noSpace(err) {
		return err
	}
	return &sealError{err: err}
}

// openFull is the file of a full segment, for writing.
func (l *Log) openFull(s *seg) (vfs.File, error) {
	if f := s.live.takeFile(); f != nil {
		return f, nil
	}
	name := l.path(s.dir, s.name())
	if err := l.mayKeep(s.dir); err != nil {
		return nil, unread(l.missing(s.dir, name, err))
	}
	if _, err := l.opts.FS.Stat(name); disk.NotExist(err) { // opened for writing it would be made
		return nil, &batchlog.CorruptError{File: name, ID: s.first, Err: errors.New("segment is missing")}
	}
	f, err := l.opts.FS.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, unread(err)
	}
	return f, nil
}

// cut has a file end where what is in it does. On a file system that can't, what follows stays and means nothing: the table says how long a sealed segment is.
func cut(f vfs.File, size int64) error {
	if t, ok := f.(interface{ Truncate(size int64) error }); ok {
		return t.Truncate(size)
	}
	return nil
}
