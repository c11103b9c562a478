package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A clock counts the time that passes, for retention: what is dropped can't be brought back, so its age is not believed to a clock that
// anybody may set. While the machine runs, a clock that nobody sets says how much has passed; over a restart of the machine, and where there is no
// such clock, the clock on the wall is believed if it went on by no more than a machine may have been off for.
// What is not believed is not counted, and told of, until an operator says that the wall is right. So nothing is dropped before its time, and everything is at most
// its time after the clock is right again; see docs/design/0014-clocks.md.
//
// The count begins as the time on the wall, in microseconds since 1970, and is the wall's as long as that never jumps.
type clock struct {
	now    func() time.Time
	uptime func() (boot string, up time.Duration) // boot "": not known
	most   time.Duration                          // that is believed of the wall alone
	logger *slog.Logger

	mu struct {
		sync.Mutex
		count count
		saved count // as the file has it
	}
}

// A count is a clock's state, and its file's; see [disk.AppendDocument]:
//
//	batchlog clock 1 5d1c9a3f
//	{ "passed": 1784937600000000, "wall": 1784937600000000, "boot": "…", "up": 86400000000 }
//
// The file is only ever behind: if it is lost or old, time that has passed may not be counted, never the other way round.
type count struct {
	Passed int64  `json:"passed"`          // what was counted
	Wall   int64  `json:"wall"`            // the time on the wall when it was counted last
	Boot   string `json:"boot,omitempty"`  // names the run of the machine that Up is of
	Up     int64  `json:"up,omitempty"`    // the clock that nobody sets, then
	Off    int64  `json:"off,omitempty"`   // how far the wall went otherwise than what was counted; 0: the clock is not in doubt
	Since  int64  `json:"since,omitempty"` // by Passed: when it came into doubt
}

const (
	clockName    = "clock"
	clockKind    = "clock"
	clockVersion = 1

	// clockSlack is how far two clocks may be apart that agree.
	clockSlack = time.Minute
	// offMost is how long a machine is believed to have been off.
	offMost = 30 * 24 * time.Hour
	// givenMost is how far a clock that is given alone is believed to go on between two looks at it: databases in tests live through years.
	givenMost = 5 * 365 * 24 * time.Hour
	// clockSave is after how long the count is written down again.
	clockSave = time.Hour
	// doubtLeast is how long a doubt is told of at least, unless it is cleared.
	doubtLeast = 24 * time.Hour
)

// look counts what has passed until a look at the clocks, and returns by how much the wall jumped.
func (c *count) look(wall int64, boot string, up int64, most time.Duration) (jumped time.Duration) {
	went, passed := wall-c.Wall, int64(0)
	switch {
	case boot != "" && boot == c.Boot && up >= c.Up:
		passed = up - c.Up
	case went >= 0 && went <= most.Microseconds():
		passed = max(went+min(c.Off, 0), 0) // a wall that had gone back may be right again
	}
	c.Passed, c.Wall, c.Boot, c.Up = c.Passed+passed, wall, boot, up
	off := went - passed
	jump := abs(off) > clockSlack.Microseconds()
	if jump && c.Off == 0 {
		c.Since = c.Passed
	}
	if jump || c.Off != 0 {
		c.Off += off
	}
	if abs(c.Off) <= clockSlack.Microseconds() {
		c.Off, c.Since = 0, 0 // they agree again
	}
	if !jump {
		return 0
	}
	return time.Duration(off) * time.Microsecond
}

// outlive ends a doubt that matters no more: all that was there when it came has been counted to be older than ttl.
func (c *count) outlive(ttl time.Duration) (ended bool) {
	if c.Off == 0 || c.Passed-c.Since <= max(ttl, doubtLeast).Microseconds() {
		return false
	}
	c.Off, c.Since = 0, 0
	return true
}

// trust counts what was in doubt.
func (c *count) trust() {
	c.Passed += max(c.Off, 0)
	c.Off, c.Since = 0, 0
}

func abs(n int64) int64 { return max(n, -n) }

// newClock is the clock that options ask for.
func newClock(o *Options) *clock {
	c := &clock{now: o.Now, uptime: o.Uptime, most: offMost, logger: o.Logger}
	if c.uptime == nil {
		c.uptime, c.most = func() (string, time.Duration) { return "", 0 }, givenMost
	}
	return c
}

// open goes on with the count of the database in dir.
func (c *clock) open(fs vfs.FS, dir string) {
	saved, err := readCount(fs, filepath.Join(dir, clockName))
	if err != nil && !disk.NotExist(err) {
		c.logger.Warn("how much time has passed is not known; it is counted from the newest segment on", "err", err)
	}
	c.mu.count, c.mu.saved = saved, saved
}

// start is told, before anything is asked, what the log knows to have passed, 0 if nothing, and the time of its newest commit.
func (c *clock) start(known, newest int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.now().UnixMicro()
	boot, up := c.uptime()
	if c.mu.count == (count{}) { // no file: it is a new database, an old one, or the file was lost
		from := known
		if from == 0 && newest <= wall {
			from = newest
		}
		if c.mu.count = (count{Passed: from, Wall: from}); from == 0 {
			c.mu.count = count{Passed: wall, Wall: wall, Boot: boot, Up: up.Microseconds()}
		}
	}
	c.lookLocked(wall, boot, up)
	c.mu.count.Passed = max(c.mu.count.Passed, known)
}

// passed is what has passed until now.
func (c *clock) passed() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.now().UnixMicro() // under the lock: looks come in their order
	boot, up := c.uptime()
	c.lookLocked(wall, boot, up)
	return c.mu.count.Passed
}

func (c *clock) lookLocked(wall int64, boot string, up time.Duration) {
	if jumped := c.mu.count.look(wall, boot, up.Microseconds(), c.most); jumped != 0 {
		c.logger.Warn("the clock has jumped, or the machine was off for very long; retention does not count that, unless it is told to trust the clock",
			"by", jumped, "to", time.UnixMicro(wall).UTC())
	}
}

// time is what has passed until now, as a time.
func (c *clock) time() time.Time { return time.UnixMicro(c.passed()) }

// tend is called now and then: it ends doubts, and writes the count down if that is long ago or if it has changed otherwise than with time.
func (c *clock) tend(fs vfs.FS, dir string, ttl time.Duration) error {
	c.passed()
	c.mu.Lock()
	if c.mu.count.outlive(ttl) {
		c.logger.Info("all that was there when the clock jumped is past its time by now, or old enough not to matter; the clock is taken as it is")
	}
	now, saved := c.mu.count, c.mu.saved
	c.mu.Unlock()
	if now.Boot == saved.Boot && now.Off == saved.Off && now.Passed-saved.Passed < clockSave.Microseconds() {
		return nil
	}
	return c.save(fs, dir)
}

// save writes the count down.
func (c *clock) save(fs vfs.FS, dir string) error {
	c.passed()
	c.mu.Lock()
	now, saved := c.mu.count, c.mu.saved
	c.mu.Unlock()
	if now == saved {
		return nil
	}
	body, err := json.Marshal(now)
	if err == nil {
		_, err = disk.ReplaceFile(fs, filepath.Join(dir, clockName), disk.AppendDocument(nil, clockKind, clockVersion, body))
	}
	if err != nil {
		return fmt.Errorf("write down how much time has passed: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.saved = now
	return nil
}

// trust counts what was in doubt: the wall is right.
func (c *clock) trust() {
	c.passed()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.count.trust()
}

// status says what is in doubt; nil: nothing is.
func (c *clock) status() *batchlog.ClockStatus {
	c.passed()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &c.mu.count
	if n.Off == 0 {
		return nil
	}
	return &batchlog.ClockStatus{Off: time.Duration(n.Off) * time.Microsecond, For: time.Duration(n.Passed-n.Since) * time.Microsecond}
}

// readCount reads a count back.
func readCount(fs vfs.FS, name string) (count, error) {
	var n count
	text, err := disk.ReadFile(fs, name)
	if err != nil {
		return n, err
	}
	version, body, err := disk.ParseDocument(text, clockKind)
	if err == nil && version > clockVersion {
		err = &batchlog.VersionError{What: name, Version: version, Known: clockVersion}
	}
	if err == nil {
		err = json.Unmarshal(body, &n)
	}
	if err == nil && (n.Up < 0 || n.Off == 0 && n.Since != 0) {
		err = errors.New("count that can't be")
	}
	if err != nil {
		return count{}, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}
