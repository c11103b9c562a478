package seglog

import (
	"time"

	"github.com/bytespace/batchlog"
)

// Expired is how much of the log is past its time: the number of sealed segments at its beginning whose last commit is
// older than ttl, their size, and that last commit. A ttl of 0 expires nothing.
func (l *Log) Expired(now time.Time, ttl time.Duration) (segments int, bytes int64, last batchlog.ID) {
	if ttl <= 0 {
		return 0, 0, 0
	}
	before := now.Add(-ttl).UnixMicro()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.mu.segments {
		if s.state != sealed || s.newest >= before {
			break
		}
		segments++
		bytes += s.size + s.chainBytes()
		last = s.last
	}
	return segments, bytes, last
}

// RollIfOlder has the active segment end with the next group if its first commit is older than ttl, so that it can expire
// although nothing fills it.
func (l *Log) RollIfOlder(now time.Time, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	l.mu.Lock()
	oldest := l.active().oldest
	l.mu.Unlock()
	if oldest != 0 && oldest < now.Add(-ttl).UnixMicro() {
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
	if n == 0 {
		l.mu.Unlock()
		return 0, nil
	}
	l.mu.segments = before[n:]
	l.mu.limbo = append(l.mu.limbo, before[:n]...)
	l.mu.trimmed = max(l.mu.trimmed, before[n-1].newest)
	m := l.tableLocked()
	l.mu.Unlock()
	if _, err := l.replaceManifest(m); err != nil {
		// Whatever manifest a crash would find, its files are there. Followers have been told of a gap that
		// is none yet; they will be told of it again.
		return 0, err
	}
	return n, nil
}
