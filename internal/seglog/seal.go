package seglog

import (
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/segment"
)

// wantSeal tells sealLoop that there may be a segment to seal.
func (l *Log) wantSeal() {
	select {
	case l.sealWanted <- struct{}{}:
	default:
	}
}

// sealLoop seals segments that are full, in order, as each one holds the hash of the one before it.
func (l *Log) sealLoop() {
	for {
		select {
		case <-l.done:
			return
		case <-l.sealWanted:
		}
		for l.sealNext() {
		}
	}
}

// sealNext seals the oldest segment that is full and reports whether there may be another one.
func (l *Log) sealNext() bool {
	select {
	case <-l.done:
		return false
	default:
	}
	var s *seg
	var prev [32]byte
	l.mu.Lock()
	for _, other := range l.mu.segments {
		if other.state == full && other.broken == "" {
			s = other
			break
		}
		prev = other.hash
	}
	l.mu.Unlock()
	if s == nil {
		return false
	}
	if err := l.seal(s, prev); err != nil {
		if errors.Is(err, batchlog.ErrCorrupt) {
			l.mu.Lock()
			s.broken = err.Error()
			l.mu.Unlock()
			l.opts.Logger.Error("segment is damaged and cannot be sealed; what is good of it is served", "segment", s.name, "err", err)
			return true
		}
		l.opts.Logger.Warn("segment cannot be sealed now", "segment", s.name, "err", err)
		return false // with the next one that is full, or when the database is opened
	}
	return true
}

// seal reads s once more, writes its index, and makes it immutable.
func (l *Log) seal(s *seg, prev [32]byte) error {
	name := l.path(s.dir, s.name)
	x, err := segment.Build(s.file, s.header, name, s.end.Load(), prev)
	if err != nil {
		return err
	}
	if x.Last != s.last {
		return &batchlog.CorruptError{File: name, Offset: x.End, ID: x.Last + 1, Err: fmt.Errorf("segment ends before commit %d", s.last)}
	}
	offset, b := segment.Seal(x, s.size, s.header.Salt())
	if _, err := s.file.WriteAt(b, offset); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		// The groups are durable whatever becomes of the index: the segment stays full, and is sealed anew when the database
		// is opened.
		l.mu.Lock()
		s.broken = "index: " + err.Error()
		l.mu.Unlock()
		return fmt.Errorf("sync index: %w", err)
	}
	l.mu.Lock()
	s.state, s.hash, s.size = sealed, x.Hash, offset+int64(len(b))
	s.oldest, s.newest = x.FirstTime, x.LastTime
	s.marks = nil
	f := s.file
	s.file = nil
	l.mu.Unlock()
	if err := f.Close(); err != nil {
		l.opts.Logger.Warn("close sealed segment", "segment", s.name, "err", err)
	}
	return l.writeManifest()
}
