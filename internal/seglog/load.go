package seglog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// create begins a log: a first segment, and the table that names it. It is begun only where there are no signs of one.
func (l *Log) create(durable batchlog.ID) error {
	if durable > 0 || l.opts.Begun {
		return &batchlog.CorruptError{File: l.path("", manifestName), ID: 1, Err: errors.New(
			"the file is missing, but the log was begun: its directory is gone, or its disk is not there. Restore it")}
	}
	if err := l.beginPlaces(nil); err != nil {
		return err
	}
	v, err := l.survey(nil, "", false)
	if err != nil {
		return err
	}
	p, err := l.prepare(min(firstSegmentBytes, l.settings().segmentBytes()), 0)
	if err != nil {
		return fmt.Errorf("first segment: %w", err)
	}
	begin, err := l.prepareBegin(p, 1, 0)
	if err != nil {
		p.remove(l)
		return fmt.Errorf("first segment: %w", err)
	}
	t, err := (&table{}).apply(edit{begin})
	if err != nil {
		panic("batchlog: bug: first edit of a table of segments: " + err.Error())
	}
	t.mark = l.durableEnd(t)
	l.table.Store(t)
	if err := l.replaceTable(t); err != nil {
		return err // the file is swept when the log is begun again, or it is the first segment
	}
	s := t.active()
	l.ring.next = 1
	l.tail = appender{seg: s, file: p.file, offset: segment.HeaderSize, chain: s.live.header.Chain(), nextID: 1}
	l.dateSegments()
	if err := l.finishName(s); err != nil {
		return err
	}
	l.clear(v)
	return nil
}

// load takes over the table that the manifest names, finds where the active segment ends, and sees to what a crash has left. Only then
// is anything written.
func (l *Log) load(m *manifestDoc, durable batchlog.ID) error {
	t, r, err := l.readTable(m)
	if err != nil {
		return err
	}
	if err := l.beginPlaces(t); err != nil {
		return err
	}
	l.table.Store(t)
	if err := l.reopen(t); err != nil {
		return err
	}
	l.dateSegments()
	t = l.table.Load()
	if head := l.Head(); head < durable {
		return &batchlog.CorruptError{File: l.path("", manifestName), ID: head + 1,
			Err: fmt.Errorf("the log ends at commit %d, the store is at %d: files of the log are missing or from an older copy; restore them", head, durable)}
	}
	for s := range t.segs.all() {
		for _, c := range s.chains {
			l.mu.chains[c.file] = c.id
		}
	}
	for g := range t.limbo.all() {
		if file, ok := chainFile(g.name); ok {
			l.mu.chains[file] += 0 // it is known, also if its commit was dropped
		}
	}
	v, err := l.survey(t, m.Table, m.legacy != nil)
	if err != nil {
		return err
	}
	if r == nil {
		err = l.convert(t, v)
	} else {
		l.keep.number = r.head.number
		l.keep.file, err = openTable(l.opts.FS, l.opts.Dir, r)
	}
	if err != nil {
		return err
	}
	if err := l.undoMoves(); err != nil && !noSpace(err) { // else it will be done before segments are moved again
		return err
	}
	// What the names are now, that of the manifest first of all, may be known to memory only: who gave them may have been killed before their sync.
	if err := disk.SyncDir(l.opts.FS, l.opts.Dir); err != nil {
		return err
	}
	l.clear(v)
	return nil
}

// readTable is the table that the manifest names. r is nil if it is the manifest.
func (l *Log) readTable(m *manifestDoc) (t *table, r *readTable, err error) {
	if m.legacy != nil {
		t, err = m.legacy.table(l.path("", manifestName))
		return t, nil, err
	}
	name := l.path("", m.Table)
	b, err := disk.ReadFile(l.opts.FS, name)
	if disk.NotExist(err) {
		return nil, nil, &batchlog.CorruptError{File: name, Err: errors.New("the table of segments is missing, or the manifest is from an older copy: restore both from the same one")}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read table of segments %s: %w", name, err)
	}
	if r, err = parseTable(b, name, m.tableDoc); err != nil {
		return nil, nil, err
	}
	if r.head.database != l.opts.Database {
		return nil, nil, &batchlog.CorruptError{File: name, Err: errors.New("the table of segments of another database")}
	}
	return r.table, r, nil
}

// convert writes a table that was read from a manifest of version 1 as it is written today. A crash finds the one or the other.
func (l *Log) convert(t *table, v *survey) error {
	next := *t
	next.letGo(v.legacy)
	l.keep.number = 0
	if err := l.replaceTable(&next); err != nil {
		return fmt.Errorf("convert the table of segments: %w", err)
	}
	l.table.Store(&next)
	return nil
}

// undoMoves lets go of what moves to warm directories have left that a crash, or a Close, has ended.
func (l *Log) undoMoves() error {
	return l.edit(func(t *table) (e edit) {
		for s := range t.segs.all() {
			if s.moving != "" {
				e = append(e, change{kind: kindUnmoved, seg: seg{first: s.first}})
			}
		}
		return e
	})
}

// reopen takes up the active segment. Start-up costs the tail, not the history: the others are looked at when they are read.
func (l *Log) reopen(t *table) error {
	s := t.active()
	name := l.path(s.dir, s.name())
	if err := l.mayKeep(s.dir); err != nil {
		return l.missing(s.dir, name, err)
	}
	if err := l.finishName(s); err != nil {
		return err
	}
	f, err := l.opts.FS.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	next := *s
	next.live = &live{}
	next.live.mu.file = f
	set := *t
	set.segs = t.segs.set(&next)
	l.table.Store(&set)
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	next.size = info.Size()
	if next.live.header, err = l.headerOf(f, &next); err != nil {
		return err
	}
	durable := int64(0)
	next.live.begun.Store(s.begun)
	if t.mark.first == s.first {
		durable = t.mark.end
		next.live.begun.Store(cmp.Or(t.mark.begun, s.begun))
	}
	tail, err := segment.Recover(f, next.live.header, name, next.size, durable)
	if err != nil {
		return err
	}
	if err := l.confirm(f, tail); err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	if verdict, why := segment.Judge(tail.Ending); verdict == segment.VerdictCut {
		l.opts.Logger.Info("cut the end of the log that was never acknowledged", "segment", name, "offset", tail.End, "next", tail.Next, "why", why)
	}
	return l.takeUp(&set, &next, tail)
}

// takeUp has the log go on where the groups of its active segment end.
func (l *Log) takeUp(t *table, s *seg, tail segment.Tail) error {
	for _, c := range tail.Chains {
		chain := segChain{file: c.Ref.File, id: c.ID, size: c.Ref.End}
		if err := l.checkChain(chain); err != nil {
			return err
		}
		s.live.mu.chains = append(s.live.mu.chains, chain)
		l.mu.chains[chain.file] = chain.id
	}
	s.live.end.Store(tail.End)
	s.live.mu.marks = tail.Marks
	if len(tail.Marks) > 0 {
		s.live.oldest.Store(tail.Marks[0].Time)
	}
	l.head.Store(uint64(tail.Next - 1))
	l.ring.next = tail.Next
	l.tail = appender{seg: s, file: s.live.mu.file, offset: segment.Align(tail.End), chain: tail.Chain, nextID: tail.Next, lastTime: tail.Time}
	if n := len(tail.Marks); n > 0 {
		l.tail.marked = tail.Marks[n-1].Offset
	}
	if tail.Time == 0 {
		l.tail.lastTime = t.trimmed
		if before := t.find(s.first - 1); before != nil {
			l.tail.lastTime = max(t.trimmed, before.newest)
		}
	}
	return nil
}

// finishName gives the active segment its name, which a crash may have come before. The name that it was prepared under was durable before the table
// named it, so it is under the one or the other. When this returns the name is durable, also if somebody else gave it, and did not come to its sync: nobody looks
// for it under the other one when it is no longer active.
func (l *Log) finishName(s *seg) error {
	fs, name := l.opts.FS, l.path(s.dir, s.name())
	_, err := fs.Stat(name)
	if err == nil {
		return disk.SyncDir(fs, filepath.Dir(name))
	}
	if !disk.NotExist(err) {
		return err
	}
	prepared := l.path(s.dir, preparedName(s.tag))
	if _, err := fs.Stat(prepared); err != nil {
		return &batchlog.CorruptError{File: name, ID: s.first, Err: errors.New("segment is missing")}
	}
	if err := fs.Rename(prepared, name); err != nil {
		return fmt.Errorf("name segment: %w", err)
	}
	return disk.SyncDir(fs, filepath.Dir(name))
}

// headerOf is the header of the file of s, if it is that.
func (l *Log) headerOf(f io.ReaderAt, s *seg) (segment.Header, error) {
	name := l.path(s.dir, s.name())
	h, err := readHeader(f, name)
	if err == nil && (h.Database != l.opts.Database || h.First != s.first || tagOf(h.Segment) != s.tag) {
		err = &batchlog.CorruptError{File: name, ID: s.first, Err: fmt.Errorf("segment %x of database %s that begins with commit %d", h.Segment[:4], h.Database, h.First)}
	}
	return h, err
}

func readHeader(f io.ReaderAt, name string) (segment.Header, error) {
	page := make([]byte, segment.HeaderSize)
	n, err := f.ReadAt(page, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return segment.Header{}, fmt.Errorf("read header of %s: %w", name, err)
	}
	return segment.ParseHeader(page[:n], name)
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
