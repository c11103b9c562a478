package seglog

import (
	"errors"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Settings are those of a log that are about its files; see [batchlog.LogConfig]. Whoever opens the log keeps them, and has made the directories.
type Settings struct {
	Dirs, Warm   []string
	SegmentBytes int64 // 0: batchlog.DefaultSegmentBytes
}

// Use has the log go on with other settings.
func (l *Log) Use(s Settings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.settings = s
}

func (l *Log) settings() Settings {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.settings
}

// segmentBytes is the size of a segment.
func (s Settings) segmentBytes() int64 {
	if s.SegmentBytes == 0 {
		return batchlog.DefaultSegmentBytes
	}
	return s.SegmentBytes
}

// ErrNoConfig says that the table of segments holds no settings, as it once did: they are elsewhere.
var ErrNoConfig = errors.New("the table of segments holds no settings")

// LegacyConfig is the settings that the table of the log in dir holds, if it is of a version that held them; else the error is [ErrNoConfig]. Without
// a log ok is false.
func LegacyConfig(fs vfs.FS, dir string) (c batchlog.LogConfig, ok bool, err error) {
	l := &Log{opts: Options{FS: fs, Dir: dir}}
	m, err := l.readManifest()
	if disk.NotExist(err) {
		return c, false, nil
	}
	if err == nil && (m.legacy == nil || m.legacy.Config == nil) {
		err = ErrNoConfig
	}
	if err != nil {
		return c, false, err
	}
	return *m.legacy.Config, true, nil
}
