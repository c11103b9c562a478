package seglog

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
)

// A manifest of version 1 is the table itself, and was replaced whole whenever that changed. It is read, and the table written in the form of
// today, when such a log is opened:
//
//	batchlog manifest 1 9ae0daaf
//	{ "config": { … }, "segments": [ … ] }
type legacyManifest struct {
	Config   *batchlog.LogConfig `json:"config,omitempty"`  // see [LegacyConfig]
	Trimmed  int64               `json:"trimmed,omitempty"` // time of the newest commit that was dropped
	Segments []legacySegment     `json:"segments"`
}

type legacySegment struct {
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
	Begun  int64       `json:"begun,omitempty"` // by Options.Passed, as Ended: older programs have written neither
	Ended  int64       `json:"ended,omitempty"` // but for the active one
	Hash   string      `json:"hash,omitempty"`  // SHA-256 of a sealed one
	// Chains are those whose records are in the segment; of the active one only some, as its records say which.
	Chains []legacyChain `json:"chains,omitempty"`
}

type legacyChain struct {
	File string      `json:"file"`
	ID   batchlog.ID `json:"id"`
	Size int64       `json:"size"` // of the file
}

var legacyStates = map[string]state{"active": active, "full": full, "sealed": sealed}

func parseLegacy(body []byte, name string) (*legacyManifest, error) {
	var m legacyManifest
	err := json.Unmarshal(body, &m)
	if err == nil && len(m.Segments) == 0 {
		err = errors.New("manifest without segments")
	}
	if err != nil {
		return nil, &batchlog.CorruptError{File: name, Err: err}
	}
	return &m, nil
}

// table is what m says. name is the file's, for errors.
func (m *legacyManifest) table(name string) (*table, error) {
	e := edit{{kind: kindBase, seg: seg{newest: m.Trimmed}}}
	for i := range m.Segments {
		ms := &m.Segments[i]
		damaged := func(err error) (*table, error) {
			return nil, &batchlog.CorruptError{File: name, ID: ms.First, Err: err}
		}
		s, err := ms.seg()
		if err != nil {
			return damaged(err)
		}
		if last := i == len(m.Segments)-1; last != (s.state == active) || i > 0 && s.first != m.Segments[i-1].Last+1 {
			return damaged(errors.New("segments that do not follow one another"))
		}
		if s.state == active {
			e = append(e, change{kind: kindMark, seg: seg{first: s.first, end: ms.End, begun: s.begun}})
		}
		e = append(e, change{kind: kindWhole, seg: s})
	}
	t, err := (&table{}).apply(e)
	if err != nil {
		return nil, &batchlog.CorruptError{File: name, Err: err}
	}
	return t, nil
}

func (m *legacySegment) seg() (s seg, err error) {
	s = seg{first: m.First, dir: m.Dir, warm: m.Warm, size: m.Size, begun: m.Begun}
	first, tag, ok := parseSegmentName(m.Name)
	if !ok || first != m.First {
		return s, fmt.Errorf("segment with the name %q", m.Name)
	}
	s.tag = tag
	if s.state, ok = legacyStates[m.State]; !ok {
		return s, fmt.Errorf("segment in the state %q", m.State)
	}
	if s.state == sealed {
		hash, err := hex.DecodeString(m.Hash)
		if err != nil || len(hash) != len(s.hash) {
			return s, fmt.Errorf("segment with the hash %q", m.Hash)
		}
		copy(s.hash[:], hash)
	}
	if s.state == active {
		return s, nil
	}
	s.last, s.end, s.oldest, s.newest, s.ended = m.Last, m.End, m.Oldest, m.Newest, m.Ended
	for _, c := range m.Chains {
		b, err := hex.DecodeString(c.File)
		if err != nil || len(b) != 16 {
			return s, fmt.Errorf("chain with the name %q", c.File)
		}
		s.chains = append(s.chains, segChain{file: [16]byte(b), id: c.ID, size: c.Size})
	}
	return s, nil
}

// legacyLimbo is what of the files in a directory programs that wrote version 1 took for leftovers, and would have removed when the log was opened:
// dropped segments and copies, which no table of theirs named any more. From now on the table does.
func (l *Log) legacyLimbo(t *table, dir string, warm bool, names []string) (limbo []place) {
	for _, name := range names {
		if l.legacyLeftover(t, place{dir, name}, warm) {
			limbo = append(limbo, place{dir, name})
		}
	}
	return limbo
}

func (l *Log) legacyLeftover(t *table, p place, warm bool) bool {
	if strings.HasSuffix(p.name, copySuffix) {
		name := strings.TrimSuffix(p.name, copySuffix)
		_, _, isSegment := parseSegmentName(name)
		_, isChain := chainFile(name)
		return isSegment || isChain
	}
	segmentName := p.name
	if stem, ok := strings.CutSuffix(p.name, inversesSuffix); ok && warm {
		segmentName = stem + segmentSuffix
	}
	if first, tag, ok := parseSegmentName(segmentName); ok {
		s, named := t.segs.get(uint64(first))
		switch {
		case first < t.oldest():
			return true
		case !named || s.tag != tag:
			return segmentName == p.name && l.emptySegment(p) == nil // what a crash left that came before the manifest
		default:
			return s.dir != p.dir && l.exists(place{s.dir, s.name()}) // the other one, unless that is not there: then this may be the only one
		}
	}
	if file, ok := chainFile(p.name); ok {
		id := l.mu.chains[file]
		if id == 0 {
			return warm // else it may be one that is not committed: see SweepChains
		}
		at := t.find(id).chainDir()
		return at != p.dir && l.exists(place{at, p.name})
	}
	return false
}

func (l *Log) exists(p place) bool {
	_, err := l.opts.FS.Stat(l.path(p.dir, p.name))
	return err == nil
}

// manifestDoc is what the manifest says: where the table is, or, in its first version, the table.
type manifestDoc struct {
	tableDoc
	legacy *legacyManifest // nil: not of version 1
}

// readManifest is the manifest as it was last written. Without one the error is fs.ErrNotExist.
func (l *Log) readManifest() (*manifestDoc, error) {
	name := l.path("", manifestName)
	text, err := disk.ReadFile(l.opts.FS, name)
	if disk.NotExist(err) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	version, body, err := disk.ParseDocument(text, manifestName)
	if err != nil {
		return nil, &batchlog.CorruptError{File: name, Err: err}
	}
	var m manifestDoc
	switch version {
	case 1:
		m.legacy, err = parseLegacy(body, name)
	case manifestVersion:
		if err = json.Unmarshal(body, &m.tableDoc); err == nil {
			if _, ok := tableNumber(m.Table); !ok || filepath.Base(m.Table) != m.Table {
				err = fmt.Errorf("table with the name %q", m.Table)
			}
		}
		if err != nil {
			err = &batchlog.CorruptError{File: name, Err: err}
		}
	default:
		err = &batchlog.VersionError{What: name, Version: version, Known: manifestVersion}
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}
