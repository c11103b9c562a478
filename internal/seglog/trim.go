package seglog

import (
	"math"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
)

// The age of a segment is told by Options.Passed, not by the times of its commits: those are what the machine's clock said, and as they
// never go back one moment of a clock that was ahead stands in all commits after it.

// passed is the time by which segments age.
func (l *Log) passed() int64 {
	if l.opts.Passed == nil {
		return l.tail.lastTime
	}
	return l.opts.Passed()
}

// aged is when s began and ended by the clock that segments age by. The active one may have had its last commit at any time until now.
func (l *Log) aged(s *seg) (begun, ended int64) {
	switch {
	case l.opts.Passed == nil && s.state == active:
		return s.firstTime(), math.MaxInt64
	case l.opts.Passed == nil:
		return s.oldest, s.newest
	case s.live != nil && s.state == active:
		return s.live.begun.Load(), s.live.ended.Load()
	default:
		return s.begun, s.ended
	}
}

// dateSegments finds when segments began and ended of which the table doesn't say. One that an older version wrote ended with its last commit, but not
// after the next one began, nor after now.
func (l *Log) dateSegments() {
	if l.opts.Passed == nil {
		return
	}
	t := l.table.Load()
	known := t.active().live.begun.Load()
	for s := range t.segs.all() {
		known = max(known, s.begun, s.ended)
	}
	l.opts.Started(known, l.tail.lastTime)
	now := l.opts.Passed()
	until := now
	dated := make([]*seg, 0, t.segs.len())
	changed := false
	for s := range t.segs.backward() {
		begun, ended := l.aged(s)
		if s.state == active {
			ended = now
			// When it began can't be told by its commits' times if they are of a clock that was ahead. The next one's beginning will be known.
			l.rollSoon.Store(begun == 0 && s.firstTime() > now)
		}
		if ended == 0 {
			ended = min(s.newest, until)
		}
		if begun == 0 {
			begun = min(s.firstTime(), ended)
		}
		until = min(until, ended)
		if begun != 0 {
			until = min(until, begun)
		}
		if s.state == active {
			s.live.begun.Store(begun)
			s.live.ended.Store(ended)
		} else if begun != s.begun || ended != s.ended {
			next := *s
			next.begun, next.ended = begun, ended
			s, changed = &next, true
		}
		dated = append(dated, s)
	}
	if changed {
		slices.Reverse(dated)
		next := *t
		next.segs = list[*seg]{}.with(dated...)
		l.table.Store(&next)
	}
}

// Expired is how much of the log is past its time: the number of segments at its beginning whose last commit is
// older than ttl, the active one left out, their size, and that last commit. A ttl of 0 expires nothing. now is by Options.Passed.
func (l *Log) Expired(now time.Time, ttl time.Duration) (segments int, bytes int64, last batchlog.ID) {
	if ttl <= 0 {
		return 0, 0, 0
	}
	before := now.Add(-ttl).UnixMicro()
	for s := range l.table.Load().segs.all() {
		if _, ended := l.aged(s); s.state == active || ended >= before {
			break
		}
		segments++
		bytes += s.bytes()
		last = s.last
	}
	return segments, bytes, last
}

// BytesAfter is how many bytes of commits there are in segments with commits behind id.
func (l *Log) BytesAfter(id batchlog.ID) (bytes int64) {
	for s := range l.table.Load().segs.backward() {
		if s.state != active && s.last <= id {
			break
		}
		bytes += l.readBytes(s)
	}
	return bytes
}

// RollIfOlder has the active segment end with the next group if its first commit is older than ttl, so that it can expire
// although nothing fills it. now is by Options.Passed.
func (l *Log) RollIfOlder(now time.Time, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	s := l.table.Load().active()
	if begun, _ := l.aged(s); s.firstTime() != 0 && begun < now.Add(-ttl).UnixMicro() {
		l.rollSoon.Store(true)
	}
}

// Trim drops the segments whose commits are all at or before last, but the active one: also those that could not be sealed. It returns how many it
// dropped. Their files are removed after that; nobody waits for it.
func (l *Log) Trim(last batchlog.ID) (n int, err error) {
	var dropped []*seg
	err = l.edit(func(t *table) edit {
		for s := range t.segs.all() {
			if s.state == active || s.last > last {
				break
			}
			dropped = append(dropped, s)
		}
		if len(dropped) == 0 {
			return nil
		}
		return edit{{kind: kindDropped, seg: seg{last: last}}}
	})
	if err != nil {
		return 0, err
	}
	for _, s := range dropped {
		if f := s.live.takeFile(); f != nil {
			_ = f.Close() // the sealer has not come by
		}
	}
	return len(dropped), nil
}
