package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// sweepBatch is how many files are removed before the table is told.
const sweepBatch = 64

// sweepLoop removes files that the log has let go of. Nobody waits for it: a file system may take its time to remove a large file.
func (l *Log) sweepLoop() {
	for {
		var asked chan struct{}
		select {
		case <-l.done:
			return
		case <-l.sweepWanted:
		case asked = <-l.sweepAsked:
		}
		l.sweep()
		if asked != nil {
			close(asked)
		}
	}
}

// Swept waits until the files that the log has let go of so far are removed, or can't be for now.
func (l *Log) Swept(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case l.sweepAsked <- done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.done:
		return batchlog.ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.done:
		return batchlog.ErrClosed
	}
}

// sweep removes the files in limbo, and those that held the table before. What it can't remove stays in limbo, until the next time. Only what the table names is ever
// removed: the look of a name says nothing.
func (l *Log) sweep() {
	l.sweepTables()
	for next := uint64(0); ; {
		var batch []*gone
		for g := range l.table.Load().limbo.from(next) {
			if len(batch) == sweepBatch {
				break
			}
			batch = append(batch, g)
		}
		if len(batch) == 0 {
			return
		}
		next = batch[len(batch)-1].n + 1
		if removed := l.removeGone(batch); removed != nil {
			if err := l.edit(func(*table) edit { return removed }); err != nil {
				if !errors.Is(err, batchlog.ErrClosed) {
					l.opts.Logger.Warn("removed files stay in the table of segments", "err", err)
				}
				return
			}
		}
		select {
		case <-l.done:
			return
		default:
		}
	}
}

// removeGone removes files and makes that durable: a file that came back after the table has forgotten it would be taken for one that it lacks. It
// returns what to tell the table.
func (l *Log) removeGone(files []*gone) (e edit) {
	synced, barred := map[string]error{}, map[string]error{}
	var removed []*gone
	for _, g := range files {
		select {
		case <-l.done:
			return nil // they are removed when the log is opened again
		default:
		}
		why, asked := barred[g.dir]
		if !asked {
			if why = l.mayKeep(g.dir); why != nil {
				l.opts.Logger.Warn("files that the log needs no more are left where they are", "dir", l.path(g.dir, ""), "why", why)
			}
			barred[g.dir] = why
		}
		if anothers(why) {
			e = e.removed(g)
			continue
		}
		if why != nil {
			continue
		}
		if err := disk.Remove(l.opts.FS, l.path(g.dir, g.name)); err != nil {
			l.opts.Logger.Warn("file that the log needs no more cannot be removed now", "file", l.path(g.dir, g.name), "err", err)
			continue
		}
		removed = append(removed, g)
		synced[g.dir] = nil
	}
	for dir := range synced {
		// A directory that is not there, as its disk is not, may come back with the file.
		if synced[dir] = disk.SyncDir(l.opts.FS, l.path(dir, "")); synced[dir] != nil {
			l.opts.Logger.Warn("removed files may come back", "dir", l.path(dir, ""), "err", synced[dir])
		}
	}
	for _, g := range removed {
		if synced[g.dir] == nil {
			e = e.removed(g)
		}
	}
	return e
}

// removed is e, and that g is no more.
func (e edit) removed(g *gone) edit {
	if n := len(e); n > 0 && e[n-1].high+1 == g.n {
		e[n-1].high++
		return e
	}
	return append(e, change{kind: kindRemoved, low: g.n, high: g.n})
}

// sweepTables removes the files that held the table before.
func (l *Log) sweepTables() {
	l.keep.Lock()
	stale := l.keep.stale
	l.keep.stale = nil
	l.keep.Unlock()
	for _, name := range stale {
		if err := disk.Remove(l.opts.FS, l.path("", name)); err != nil {
			l.opts.Logger.Warn("old table of segments cannot be removed; it will be when the database is opened", "file", name, "err", err)
		}
	}
}

// A survey is what there is in the directories of a log beside what its table names.
type survey struct {
	prepared []place  // files that were to become segments
	tables   []string // files of a table, but for the one that the manifest names
	legacy   []place  // see legacyLimbo
	temp     []string // what was to become the manifest
	empty    []place  // segments without commits, where there is no table yet
}

// directories are all of a log's, and whether each is a warm one.
func (l *Log) directories(t *table) map[string]bool {
	dirs := map[string]bool{"": false}
	if t != nil {
		for s := range t.segs.all() {
			dirs[s.dir] = s.warm
		}
	}
	settings := l.settings()
	for _, dir := range settings.Dirs {
		dirs[dir] = false
	}
	for _, dir := range settings.Warm {
		dirs[dir] = true
	}
	return dirs
}

// survey looks through the directories of the log. A segment with commits that the table does not name refuses the opening: the table is older than
// the segments, and would give ids again that were given. Without a table, t is nil, there may be no such segment at all.
func (l *Log) survey(t *table, tableFile string, legacy bool) (*survey, error) {
	var v survey
	limbo := map[place]bool{}
	if t != nil {
		for g := range t.limbo.all() {
			limbo[g.place] = true
		}
	}
	for dir, warm := range l.directories(t) {
		if l.trouble(dir) != nil {
			continue // what is there is not ours to judge, or is not there
		}
		names, err := l.opts.FS.List(l.path(dir, ""))
		if err != nil {
			if dir == "" {
				return nil, fmt.Errorf("directory of the log: %w", err)
			}
			l.opts.Logger.Warn("directory of segments cannot be read", "dir", dir, "err", err)
			continue
		}
		for _, name := range names {
			p := place{dir, name}
			_, isTable := tableNumber(name)
			switch {
			case dir == "" && name == manifestName+disk.TempSuffix:
				v.temp = append(v.temp, name)
			case dir == "" && isTable && name != tableFile:
				v.tables = append(v.tables, name)
			case !warm && l.sole(dir) && strings.HasPrefix(name, preparedPrefix):
				v.prepared = append(v.prepared, p)
			case strings.HasSuffix(name, segmentSuffix) && !limbo[p]:
				if err := l.unnamed(t, p, &v); err != nil {
					return nil, err
				}
			}
		}
		if legacy && (dir == "" || l.opts.Places == nil) { // elsewhere what looks like a leftover may be of a copy of the log, or of a later state
			v.legacy = append(v.legacy, l.legacyLimbo(t, dir, warm, names)...)
		}
	}
	return &v, nil
}

// unnamed refuses a segment that the table should name.
func (l *Log) unnamed(t *table, p place, v *survey) error {
	first, tag, ok := parseSegmentName(p.name)
	if !ok {
		return nil
	}
	if t != nil {
		s, named := t.segs.get(uint64(first))
		switch {
		case named && s.tag == tag && (s.dir == p.dir || s.moving == p.dir):
			return nil
		case named && s.tag == tag, first < t.oldest():
			// A copy, or one whose commits were dropped: its disk was away while it was to be removed, or somebody has put it there.
			l.opts.Logger.Warn("segment that the log needs no more is left alone", "file", l.path(p.dir, p.name))
			return nil
		}
	}
	err := l.emptySegment(p)
	switch {
	case t == nil && err == nil:
		v.empty = append(v.empty, p) // left by a crash when the log was to be begun
	case t == nil && (errors.Is(err, errNotEmpty) || p.dir == ""): // whose should it be?
		return &batchlog.CorruptError{File: l.path("", manifestName), ID: first, Err: fmt.Errorf("the file is missing, but there is a segment %s: %w. Restore it", l.path(p.dir, p.name), err)}
	case errors.Is(err, errNotEmpty):
		return &batchlog.CorruptError{File: l.path(p.dir, p.name), ID: first, Err: fmt.Errorf(
			"segment with commits that the table of segments does not name: %s, and the table that it names, are from an older copy. Restore them; or, to go on without these commits, move the segment to another place", l.path("", manifestName))}
	default:
		l.opts.Logger.Warn("segment that the table does not name is left alone", "file", l.path(p.dir, p.name), "why", err)
	}
	return nil
}

var (
	errNotEmpty = errors.New("it has commits")
	errNotOurs  = errors.New("it is of another database")
	errFormer   = errors.New("it has commits of a former epoch")
)

// emptySegment reports why a file is not a segment of this database without commits.
func (l *Log) emptySegment(p place) error {
	name := l.path(p.dir, p.name)
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
	if h.Database != l.opts.Database {
		return errNotOurs
	}
	t, err := segment.Recover(f, h, name, info.Size(), 0)
	switch {
	case !errors.Is(err, batchlog.ErrCorrupt) && (err != nil || t.Last.Count == 0): // damaged ones are none without them
		return err
	case h.Epoch < l.opts.Epoch:
		return errFormer
	default:
		return errNotEmpty
	}
}

// clear removes what a crash has left beside the table, and only what is seen to be that.
func (l *Log) clear(v *survey) {
	for _, p := range v.empty {
		l.clearFile(p, l.emptySegment(p))
	}
	for _, p := range v.prepared {
		l.clearFile(p, l.leftPrepared(p))
	}
	for _, name := range v.temp {
		l.clearFile(place{"", name}, nil)
	}
	for _, name := range v.tables {
		if name != tableName(l.keep.number) { // else it was written anew
			p := place{"", name}
			l.clearFile(p, l.leftTable(p))
		}
	}
}

func (l *Log) clearFile(p place, why error) {
	name := l.path(p.dir, p.name)
	if why == nil {
		why = l.mayKeep(p.dir)
	}
	if why != nil {
		l.opts.Logger.Warn("file that is none of the log is left alone", "file", name, "why", why)
		return
	}
	if err := disk.Remove(l.opts.FS, name); err != nil {
		l.opts.Logger.Warn("leftover file cannot be removed", "file", name, "err", err)
	}
}

// leftPrepared reports why a file is not one that was to become a segment of this database: nothing but zeros, or our header without commits.
func (l *Log) leftPrepared(p place) error {
	err := l.emptySegment(p)
	if err == nil || errors.Is(err, errNotEmpty) || errors.Is(err, errNotOurs) || errors.Is(err, errFormer) {
		return err
	}
	return l.onlyZeros(l.path(p.dir, p.name))
}

// leftTable reports why a file does not hold, or begin to hold, a table of this database.
func (l *Log) leftTable(p place) error {
	name := l.path(p.dir, p.name)
	head, err := readStart(l.opts.FS, name, tableHeadSize)
	if err != nil {
		return err
	}
	h, _, err := parseTableHead(head, name)
	switch {
	case err == nil && h.database != l.opts.Database:
		return errNotOurs
	case errors.Is(err, batchlog.ErrCorrupt):
		return l.onlyZeros(name) // its header did not come to the disk
	default:
		return err
	}
}

func readStart(fs vfs.FS, name string, size int) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// onlyZeros reports what a file holds beside zeros.
func (l *Log) onlyZeros(name string) error {
	f, err := l.opts.FS.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, copyBytes)
	for {
		n, err := f.Read(buf)
		if slices.ContainsFunc(buf[:n], func(b byte) bool { return b != 0 }) {
			return errors.New("it holds something that is no segment, and no table, of this log")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
