package seglog

import (
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

// dateSegments finds when segments began and ended of which the table doesn't say. One that an older version wrote ended with its last commit, but not
// after the next one began, nor after now. The active one may have had its last commit at any time until now.
func (l *Log) dateSegments() {
	if l.opts.Passed == nil {
		for _, s := range l.mu.segments {
			s.begun, s.ended = s.oldest, s.newest
		}
		return
	}
	known := int64(0)
	for _, s := range l.mu.segments {
		known = max(known, s.begun, s.ended)
	}
	l.opts.Started(known, l.tail.lastTime)
	now := l.opts.Passed()
	until := now
	for _, s := range slices.Backward(l.mu.segments) {
		if s.state == active {
			s.ended = now
			// When it began can't be told by its commits' times if they are of a clock that was ahead. The next one's beginning will be known.
			l.rollSoon.Store(s.begun == 0 && s.oldest > now)
		}
		if s.ended == 0 {
			s.ended = min(s.newest, until)
		}
		if s.begun == 0 {
			s.begun = min(s.oldest, s.ended)
		}
		until = min(until, s.ended)
		if s.begun != 0 {
			until = min(until, s.begun)
		}
	}
}

// Expired is how much of the log is past its time: the number of sealed segments at its beginning whose last commit is
// older than ttl, their size, and that last commit. A ttl of 0 expires nothing. now is by Options.Passed.
func (l *Log) Expired(now time.Time, ttl time.Duration) (segments int, bytes int64, last batchlog.ID) {
	if ttl <= 0 {
		return 0, 0, 0
	}
	before := now.Add(-ttl).UnixMicro()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.mu.segments {
		if s.state != sealed || s.ended >= before {
			break
		}
		segments++
		bytes += s.size + s.chainBytes()
		last = s.last
	}
	return segments, bytes, last
}

// BytesAfter is how many bytes of commits there are in segments with commits behind id.
func (l *Log) BytesAfter(id batchlog.ID) (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range slices.Backward(l.mu.segments) {
		if s.state != active && s.last <= id {
			break
		}
		bytes += s.end.Load() + s.chainBytes()
	}
	return bytes
}

// RollIfOlder has the active segment end with the next group if its first commit is older than ttl, so that it can expire
// although nothing fills it. now is by Options.Passed.
func (l *Log) RollIfOlder(now time.Time, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	l.mu.Lock()
	s := l.active()
	old := s.oldest != 0 && s.begun < now.Add(-ttl).UnixMicro()
	l.mu.Unlock()
	if old {
		l.rollSoon.Store(true)
	}
}

// Trim drops the sealed segments whose commits are all at or before last. First the manifest forgets them, then
// their files go. It returns how many it dropped.
func (l *Log) Trim(last batchlog.ID) (int, error) {
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.mu.Lock()
	before := l.mu.segments
	n := 0
	for before[n].state == sealed && before[n].last <= last {
		n++
	}
	l.mu.segments = before[n:]
	l.mu.limbo = append(l.mu.limbo, before[:n]...)
	if n > 0 {
		l.mu.trimmed = max(l.mu.trimmed, before[n-1].newest)
	}
	if n = len(l.mu.limbo); n == 0 { // nor is there any of a Trim before that has failed
		l.mu.Unlock()
		return 0, nil
	}
	m := l.tableLocked()
	l.mu.Unlock()
	if _, err := l.replaceManifest(m); err != nil {
		// Whatever manifest a crash would find, its files are there. Followers have been told of a gap that
		// is none yet; they will be told of it again.
		return 0, err
	}
	return n, nil
}
