package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/seglog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The file "settings" says how the commits of a database are kept; see [disk.AppendDocument]:
//
//	batchlog settings 1 5d1c9a3f
//	{ "logs": [ { "name": "main", "hotTTL": 3600000000000, "warm": [ "/mnt/large" ] } ], "places": [ { "dir": "/mnt/large", "accepts": [ "…" ] } ] }
//
// It is there before the log is, and before any directory of the log outside of the database's own is made use of. Databases of before it have their settings in the
// manifest of the log, in its first version: the first to open one writes the file, and the next manifest no longer holds them.
const (
	settingsName   = "settings"
	settingsKind   = "settings"
	settingsNewest = 1
)

type settings struct {
	Logs []batchlog.LogConfig `json:"logs"` // in this version one, main
	// Fresh says that no directory outside has been given a mark yet: the database has just been made, or is of before there were any.
	Fresh bool `json:"fresh,omitempty"`
	// Places are all directories outside that the database has used.
	Places []place `json:"places,omitempty"`
	// Moved says where directories outside are now, by what the table of segments calls them.
	Moved map[string]string `json:"moved,omitempty"`
}

// clone is a copy that may be changed.
func (s settings) clone() settings {
	s.Logs, s.Places, s.Moved = slices.Clone(s.Logs), slices.Clone(s.Places), maps.Clone(s.Moved)
	return s
}

// A settingsFile is the settings as they are, and the file that has them.
type settingsFile struct {
	fs   vfs.FS
	name string

	writing sync.Mutex // held while the file is replaced: whoever has something to change waits for the disk anyway

	mu struct {
		sync.Mutex
		now settings
		// unsettled says that the file may hold other settings than now after a crash: those that somebody tried to write last.
		unsettled bool
	}
}

// openSettings reads the settings of the database. One that is being made is given them, and so is one that has them in the manifest of its log.
func (e *engine) openSettings() error {
	s := &settingsFile{fs: e.opts.FS, name: filepath.Join(e.dir, settingsName)}
	e.settings, e.places = s, newPlaces(e, s)
	text, err := disk.ReadFile(s.fs, s.name)
	if err == nil {
		return s.parse(text)
	}
	if !disk.NotExist(err) {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	c, old, err := seglog.LegacyConfig(s.fs, e.logDir())
	if errors.Is(err, seglog.ErrNoConfig) && !e.adopting {
		return &batchlog.CorruptError{File: s.name, Err: errors.New("the file is missing, but there is a log: restore it from a copy, or have batchlog adopt make another one")}
	}
	if errors.Is(err, seglog.ErrNoConfig) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("settings of the log: %w", err)
	}
	if !old {
		c = e.opts.Log
		for _, dir := range slices.Concat(c.Dirs, c.Warm) {
			if err := disk.MakeDir(s.fs, e.places.at(e.places.within(dir))); err != nil {
				return fmt.Errorf("directory of segments: %w", err)
			}
		}
	}
	if c.Name == "" {
		c.Name = batchlog.DefaultLog
	}
	s.mu.now = settings{Logs: []batchlog.LogConfig{c}, Fresh: true}
	if _, err := s.write(s.mu.now); err != nil {
		return fmt.Errorf("write %s: %w", s.name, err)
	}
	return nil
}

func (s *settingsFile) parse(text []byte) error {
	damaged := func(err error) error { return &batchlog.CorruptError{File: s.name, Err: err} }
	version, body, err := disk.ParseDocument(text, settingsKind)
	if err != nil {
		return damaged(err)
	}
	if version > settingsNewest {
		return &batchlog.VersionError{What: s.name, Version: version, Known: settingsNewest}
	}
	if err := json.Unmarshal(body, &s.mu.now); err != nil {
		return damaged(err)
	}
	if logs := s.mu.now.Logs; len(logs) != 1 || logs[0].Name != batchlog.DefaultLog {
		return damaged(fmt.Errorf("settings of %d logs: this version has one, %s", len(logs), batchlog.DefaultLog))
	}
	return nil
}

// write makes next the content of the file. If it fails, uncertain says that a crash may find that all the same.
func (s *settingsFile) write(next settings) (uncertain bool, err error) {
	body, err := json.MarshalIndent(next, "", " ")
	if err != nil {
		return false, err
	}
	uncertain, err = disk.ReplaceFile(s.fs, s.name, disk.AppendDocument(nil, settingsKind, settingsNewest, body))
	if disk.Full(err) {
		err = fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
	}
	return uncertain, err
}

// set makes c the settings of the log, as update says.
func (s *settingsFile) set(c batchlog.LogConfig) error {
	return s.update(func(next *settings) { next.Logs = []batchlog.LogConfig{c} })
}

// update changes the settings, durably. If it fails all is as before; only if it can't be said which settings a crash would find is the error an ErrUncertain.
func (s *settingsFile) update(change func(next *settings)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	before, unsettled := s.now(), s.unsettled()
	next := before.clone()
	change(&next)
	now := before
	uncertain, err := s.write(next)
	switch {
	case err == nil:
		now, unsettled = next, false
	case uncertain:
		_, again := s.write(before) // a file and a name of their own: they are durable, whatever became of the first
		unsettled = again != nil
		err = errors.Join(err, again)
	}
	s.mu.Lock()
	s.mu.now, s.mu.unsettled = now, unsettled
	s.mu.Unlock()
	if err != nil && unsettled {
		return fmt.Errorf("write %s: %w: these settings or those from before hold when the database is opened next, those from before until then: %w", s.name, batchlog.ErrUncertain, err)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.name, err)
	}
	return nil
}

// now is the settings as they are. They are never changed in place.
func (s *settingsFile) now() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.now
}

func (s *settingsFile) unsettled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.unsettled
}

// config is the settings of the log.
func (s *settingsFile) config() batchlog.LogConfig { return s.now().Logs[0] }

// config is the settings of the log.
func (e *engine) config() batchlog.LogConfig { return e.settings.config() }

// logDir is the directory of the log, from which on relative ones of its settings count.
func (e *engine) logDir() string { return filepath.Join(e.dir, logsName, batchlog.DefaultLog) }
