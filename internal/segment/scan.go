package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// readAhead is how much a [Scanner] reads at once, in bytes, when it goes on; a first read is smaller.
const (
	readAhead  = 512 << 10
	readFirst  = 32 << 10
	readGrowth = 4
)

// A Scanner reads the groups of one segment in order and checks all sums. What it hands out stays valid, as each read goes into
// memory of its own, unless Reuse is set.
type Scanner struct {
	File io.ReaderAt
	Name string // for errors
	Salt uint32
	// Next is the offset of the next group; End is that behind the last one, which must be there.
	Next, End int64
	// ID is that of the next record, 0: not known. Every record must have the one that follows.
	ID batchlog.ID
	// Chain is the sum of the group before, to be checked if Chained.
	Chain   uint32
	Chained bool
	// Reuse has what is handed out be valid only until the next call that is not Buffered.
	Reuse bool

	most  int    // bytes of a group; 0: MaxGroupBytes
	buf   []byte // read but not handed out; its first byte is at Next
	mem   []byte // that buf is part of, to be used again if Reuse
	ahead int
}

// Group returns the next group and its records, or io.EOF at End. What is damaged is a *batchlog.CorruptError.
func (s *Scanner) Group() (Group, []byte, error) {
	if s.Next >= s.End {
		return Group{}, nil, io.EOF
	}
	if err := s.fill(GroupHead); err != nil {
		return Group{}, nil, s.damaged(err)
	}
	g, err := parseGroup(s.buf, s.Next, s.Salt, cmp.Or(s.most, MaxGroupBytes))
	if err != nil {
		return Group{}, nil, s.damaged(err)
	}
	if g.End() > s.End {
		return Group{}, nil, s.damaged(errGroupEnd)
	}
	if s.Chained && g.Prev != s.Chain {
		return Group{}, nil, s.damaged(errGroupChain)
	}
	if s.ID != 0 && g.First != s.ID {
		return Group{}, nil, s.damaged(errGroupID)
	}
	if err := s.fill(GroupHead + g.Size); err != nil {
		return Group{}, nil, s.damaged(err)
	}
	records := s.buf[GroupHead : GroupHead+g.Size : GroupHead+g.Size]
	if !g.holds(records, s.Salt) {
		return Group{}, nil, s.damaged(errGroupBody)
	}
	s.skipTo(Align(g.End()))
	s.ID = g.First + batchlog.ID(g.Count)
	s.Chain, s.Chained = g.Sum, true
	return g, records, nil
}

// Buffered reports whether the next call of Group needs no read, so that what was handed out before stays valid also if Reuse is set.
func (s *Scanner) Buffered() bool {
	if len(s.buf) < GroupHead {
		return false
	}
	g, err := parseGroup(s.buf, s.Next, s.Salt, cmp.Or(s.most, MaxGroupBytes))
	return err == nil && len(s.buf) >= GroupHead+g.Size
}

// SkipTo goes on with the group at offset, whose first record has that id.
func (s *Scanner) SkipTo(offset int64, id batchlog.ID) {
	s.skipTo(offset)
	s.ID, s.Chained = id, false
}

func (s *Scanner) skipTo(offset int64) {
	if n := offset - s.Next; n >= 0 && n <= int64(len(s.buf)) {
		s.buf = s.buf[n:]
	} else {
		s.buf = nil
	}
	s.Next = offset
}

// fill makes buf hold at least n bytes.
func (s *Scanner) fill(n int) error {
	if len(s.buf) >= n {
		return nil
	}
	s.ahead = min(readAhead, max(readFirst, s.ahead*readGrowth))
	size := min(int64(max(n, s.ahead)), s.End-s.Next)
	if size < int64(n) {
		return errGroupEnd
	}
	buf := s.mem
	if !s.Reuse || int64(cap(buf)) < size {
		buf = make([]byte, size)
		s.mem = buf
	}
	buf = buf[:size]
	have := copy(buf, s.buf) // moves it to the front of the same memory if Reuse
	m, err := s.File.ReadAt(buf[have:], s.Next+int64(have))
	s.buf = buf[:have+m]
	switch {
	case len(s.buf) >= n: // what was read ahead and could not be had shows when it is needed
		return nil
	case err == nil, errors.Is(err, io.EOF):
		return errGroupEnd
	default:
		return &readError{err}
	}
}

// A readError is a failure of the disk to say what it holds, which is not damage.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// damaged is err with the place where it is.
func (s *Scanner) damaged(err error) error {
	var failed *readError
	if errors.As(err, &failed) {
		return fmt.Errorf("read segment %s at byte %d: %w", s.Name, s.Next, failed.err)
	}
	return &batchlog.CorruptError{File: s.Name, Offset: s.Next, ID: s.ID, Err: err}
}

// CheckRecords calls visit for the records of g, in order, and makes sure that they are what g says.
// lastTime is the time of the record before.
func CheckRecords(g Group, records []byte, lastTime int64, visit func(r *wire.Record) error) (newest int64, err error) {
	var r wire.Record
	for i := range g.Count {
		if records, err = ParseRecord(records, &r); err != nil {
			return 0, err
		}
		if r.ID != g.First+batchlog.ID(i) {
			return 0, errGroupID
		}
		if r.Time < lastTime {
			return 0, errGroupTime
		}
		lastTime = r.Time
		if err := visit(&r); err != nil {
			return 0, err
		}
	}
	if len(records) != 0 {
		return 0, errGroupCount
	}
	return lastTime, nil
}
