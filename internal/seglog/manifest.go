package seglog

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The manifest is the table of segments. It is replaced whole, by a rename, whenever the table changes: a segment is begun, sealed or
// dropped; see [disk.AppendDocument]:
//
//	batchlog manifest 1 9ae0daaf
//	{ "segments": [ … ] }
const (
	manifestName    = "manifest"
	manifestVersion = 1
)

type manifest struct {
	Config   *batchlog.LogConfig `json:"config,omitempty"`  // is only read: see [LegacyConfig]
	Trimmed  int64               `json:"trimmed,omitempty"` // time of the newest commit that was dropped
	Segments []manifestSegment   `json:"segments"`
}

type manifestSegment struct {
	Name   string      `json:"name"`
	Dir    string      `json:"dir,omitempty"`
	Warm   bool        `json:"warm,omitempty"` // its chains are beside it
	State  string      `json:"state"`
	First  batchlog.ID `json:"first"`
	Last   batchlog.ID `json:"last,omitempty"` // but for the active one
	End    int64       `json:"end"`            // behind the last group; of the active one, behind one that is durable
	Size   int64       `json:"size"`           // of the file
	Oldest int64       `json:"oldest,omitempty"`
	Newest int64       `json:"newest,omitempty"`
	Begun  int64       `json:"begun,omitempty"` // by Options.Passed, as Ended: a segment of an older version has neither
	Ended  int64       `json:"ended,omitempty"` // but for the active one
	Hash   string      `json:"hash,omitempty"`  // SHA-256 of a sealed one
	Broken string      `json:"broken,omitempty"`
	// Chains are those whose records are in the segment; of the active one only some, as its records say which.
	Chains []manifestChain `json:"chains,omitempty"`
}

type manifestChain struct {
	File string      `json:"file"`
	ID   batchlog.ID `json:"id"`
	Size int64       `json:"size"` // of the file
}

var stateNames = map[state]string{active: "active", full: "full", sealed: "sealed"}

// writeManifest makes the table as it is now durable.
func (l *Log) writeManifest() error {
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	l.mu.Lock()
	m := l.tableLocked()
	l.mu.Unlock()
	if _, err := l.replaceManifest(m); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// tableLocked is the table as the manifest holds it.
func (l *Log) tableLocked() manifest {
	m := manifest{Trimmed: l.mu.trimmed}
	for _, s := range l.mu.segments {
		m.Segments = append(m.Segments, s.manifest())
	}
	return m
}

func (s *seg) manifest() manifestSegment {
	m := manifestSegment{
		Name: s.name, Dir: s.dir, Warm: s.warm, State: stateNames[s.state], First: s.first, Last: s.last, End: s.end.Load(), Size: s.size,
		Oldest: s.oldest, Newest: s.newest, Begun: s.begun, Broken: s.broken, Chains: s.manifestChains(),
	}
	if s.state != active {
		m.Ended = s.ended
	}
	if s.state == sealed {
		m.Hash = hex.EncodeToString(s.hash[:])
	}
	return m
}

// replaceManifest makes m the manifest, and removes the segments that were dropped before. If it fails, uncertain says that a crash may
// find either m or what was there before; else it finds that.
func (l *Log) replaceManifest(m manifest) (uncertain bool, err error) {
	body, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return false, err
	}
	if uncertain, err := disk.ReplaceFile(l.opts.FS, l.path("", manifestName), disk.AppendDocument(nil, manifestName, manifestVersion, body)); err != nil {
		return uncertain, err
	}
	l.mu.Lock()
	dropped := l.mu.limbo
	l.mu.limbo = nil
	l.mu.Unlock()
	for _, s := range dropped {
		l.removeFile(s)
	}
	return false, nil
}

// readManifest is the table as it was last written. Without one the error is fs.ErrNotExist.
func (l *Log) readManifest() (*manifest, error) {
	name := l.path("", manifestName)
	text, err := disk.ReadFile(l.opts.FS, name)
	if disk.NotExist(err) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	damaged := func(err error) (*manifest, error) { return nil, &batchlog.CorruptError{File: name, Err: err} }
	version, body, err := disk.ParseDocument(text, manifestName)
	if err != nil {
		return damaged(err)
	}
	if version > manifestVersion {
		return nil, &batchlog.VersionError{What: name, Version: version, Known: manifestVersion}
	}
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return damaged(err)
	}
	if len(m.Segments) == 0 {
		return damaged(errors.New("manifest without segments"))
	}
	return &m, nil
}

// load takes over the table m, finds where the active segment ends, and removes what a crash left behind.
func (l *Log) load(m *manifest) error {
	l.mu.trimmed = m.Trimmed
	for i, ms := range m.Segments {
		s := &seg{
			name: ms.Name, dir: ms.Dir, warm: ms.Warm, first: ms.First, last: ms.Last, size: ms.Size,
			oldest: ms.Oldest, newest: ms.Newest, begun: ms.Begun, ended: ms.Ended, broken: ms.Broken,
		}
		s.end.Store(ms.End)
		damaged := func(err error) error {
			return &batchlog.CorruptError{File: l.path("", manifestName), ID: ms.First, Err: err}
		}
		known := false
		for st, name := range stateNames {
			if name == ms.State {
				s.state, known = st, true
			}
		}
		if !known {
			return damaged(fmt.Errorf("segment in the state %q", ms.State))
		}
		if s.state == sealed {
			hash, err := hex.DecodeString(ms.Hash)
			if err != nil || len(hash) != len(s.hash) {
				return damaged(fmt.Errorf("segment with the hash %q", ms.Hash))
			}
			copy(s.hash[:], hash)
		}
		if s.state != active {
			if err := s.loadChains(ms.Chains); err != nil {
				return damaged(err)
			}
		}
		last := i == len(m.Segments)-1
		if last != (s.state == active) || i > 0 && ms.First != m.Segments[i-1].Last+1 {
			return damaged(errors.New("segments that do not follow one another"))
		}
		l.mu.segments = append(l.mu.segments, s)
	}
	for _, s := range l.mu.segments {
		if s.state == sealed {
			continue // start-up costs the tail, not the history: sealed segments are looked at when they are read
		}
		if err := l.reopen(s); err != nil {
			return err
		}
	}
	l.sweep()
	return nil
}

// reopen takes up a segment that isn't sealed.
func (l *Log) reopen(s *seg) error {
	name := l.path(s.dir, s.name)
	if _, err := l.opts.FS.Stat(name); disk.NotExist(err) { // opened for writing it would be made
		return &batchlog.CorruptError{File: name, ID: s.first, Err: errors.New("segment is missing")}
	}
	f, err := l.opts.FS.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	s.file = f
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	s.size = info.Size()
	if s.header, err = readHeader(f, name); err != nil {
		return err
	}
	if s.header.Database != l.opts.Database || s.header.First != s.first {
		return &batchlog.CorruptError{File: name, ID: s.first, Err: fmt.Errorf("segment of database %s that begins with commit %d", s.header.Database, s.header.First)}
	}
	if s.state == full {
		s.broken = "" // sealLoop reads it, and sees whether it still is
		return nil
	}
	t, err := segment.Recover(f, s.header, name, s.size, s.end.Load())
	if err != nil {
		return err
	}
	if err := l.confirm(f, t); err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	if verdict, why := segment.Judge(t.Ending); verdict == segment.VerdictCut {
		l.opts.Logger.Info("cut the end of the log that was never acknowledged", "segment", name, "offset", t.End, "next", t.Next, "why", why)
	}
	for _, c := range t.Chains {
		chain := segChain{file: c.Ref.File, id: c.ID, size: c.Ref.End}
		if err := l.checkChain(chain); err != nil {
			return err
		}
		s.chains = append(s.chains, chain)
	}
	s.end.Store(t.End)
	s.marks = t.Marks
	s.newest = t.Time
	if len(t.Marks) > 0 {
		s.oldest = t.Marks[0].Time
	}
	l.head.Store(uint64(t.Next - 1))
	l.ring.next = t.Next
	l.tail = appender{seg: s, offset: segment.Align(t.End), chain: t.Chain, nextID: t.Next, lastTime: t.Time}
	if t.Time == 0 {
		l.tail.lastTime = l.timeBefore(s)
	}
	return nil
}

// timeBefore is the time of the last commit before s.
func (l *Log) timeBefore(s *seg) int64 {
	newest := l.mu.trimmed
	for _, older := range l.mu.segments {
		if older.first < s.first {
			newest = max(newest, older.newest)
		}
	}
	return newest
}

// confirm writes the last group once more and syncs it. It was read, but maybe from memory only: if its sync failed the
// system may have taken the pages for written. All groups before it are durable, as it was written after their sync.
func (l *Log) confirm(f vfs.File, t segment.Tail) error {
	if t.Last.Count == 0 {
		return nil
	}
	b := make([]byte, segment.GroupHead+t.Last.Size)
	if n, err := f.ReadAt(b, t.Last.Offset); n < len(b) {
		return err
	}
	if _, err := f.WriteAt(b, t.Last.Offset); err != nil {
		return fmt.Errorf("write the last group again: %w", err)
	}
	if err := f.SyncData(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// checkNew makes sure that a log without a manifest is new: no segment has commits. One without any is what a
// crash left when the log was to be begun, and is removed.
func (l *Log) checkNew() error {
	names, err := l.opts.FS.List(l.opts.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if first, isSegment := segmentFirst(name); isSegment {
			if err := l.checkEmpty(l.path("", name)); err != nil {
				return &batchlog.CorruptError{File: l.path("", manifestName), ID: first, Err: fmt.Errorf("the file is missing, but there is a segment %s: %w", name, err)}
			}
			if err := l.opts.FS.Remove(l.path("", name)); err != nil {
				return err
			}
		}
	}
	return nil
}

var errNotEmpty = errors.New("it has commits")

// checkEmpty reports why a segment isn't one without commits.
func (l *Log) checkEmpty(name string) error {
	f, err := l.opts.FS.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := readHeader(f, name)
	if err != nil {
		return err
	}
	t, err := segment.Recover(f, h, name, info.Size(), 0)
	if err == nil && (t.Last.Count > 0 || h.First != 1) {
		err = errNotEmpty
	}
	return err
}

func readHeader(f io.ReaderAt, name string) (segment.Header, error) {
	page := make([]byte, segment.HeaderSize)
	n, err := f.ReadAt(page, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return segment.Header{}, fmt.Errorf("read header of %s: %w", name, err)
	}
	return segment.ParseHeader(page[:n], name)
}
