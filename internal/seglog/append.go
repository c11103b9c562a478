package seglog

import (
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
)

const (
	// groupBytes is the size at which a group takes no further record: one write and one sync of that size cost
	// little more than those of a page.
	groupBytes = 1 << 20
	// chunkBytes is the memory that groups are built in, one behind the other. A chunk is written once and then shared by
	// the disk, the applier, and all followers; nothing is copied again.
	chunkBytes = 1 << 20
	// chunkRest is the rest of a chunk in which no group is begun any more.
	chunkRest = 128 << 10
)

// An appender is where the log grows. Only the goroutine that appends touches it.
type appender struct {
	seg      *seg
	offset   int64  // where the next group goes
	chain    uint32 // sum of the group before
	nextID   batchlog.ID
	lastTime int64

	chunk []byte // all groups in it so far, the one that is being built last
	start int    // where that begins
	count int    // records in it

	chains []segChain // whose records are in it
}

// Add appends r to the group that the next [Log.Sync] writes, and returns it as it stands there. If added is false
// the group has no room for it: sync first. An error means that r is nowhere: ErrNoSpace while the disk
// is full, ErrReadOnly after a failed sync. The id of r must be the next one, its time not before the last.
func (l *Log) Add(r batchlog.Record) (stored batchlog.Record, added bool, err error) {
	t := &l.tail
	size := segment.RecordSize(&r)
	if t.count > 0 && !t.fits(size) {
		return r, false, nil
	}
	if t.count == 0 {
		if err := l.begin(size); err != nil {
			return r, false, err
		}
	}
	if r.ID != t.nextID || r.Time < t.lastTime {
		panic(fmt.Sprintf("batchlog: bug: commit %d at %d where %d at %d or later belongs", r.ID, r.Time, t.nextID, t.lastTime))
	}
	t.chunk, stored = segment.AppendRecord(t.chunk, r)
	if c := r.Chain; c != nil {
		t.chains = append(t.chains, segChain{file: c.File, id: r.ID, size: c.End})
	}
	t.count++
	t.nextID++
	t.lastTime = r.Time
	return stored, true, nil
}

// fits reports whether a record of that size can join the group.
func (t *appender) fits(size int) bool {
	group := len(t.chunk) - t.start + size
	return group <= groupBytes && len(t.chunk)+size <= cap(t.chunk) && t.offset+int64(group) <= t.seg.size
}

// begin makes room in file and memory for a group whose first record has that size.
func (l *Log) begin(size int) error {
	if err := l.Failed(); err != nil {
		return err
	}
	t := &l.tail
	group := segment.GroupHead + size
	full := t.offset+int64(group) > t.seg.size
	if full || l.rollSoon.Load() && t.offset > segment.HeaderSize {
		err := l.roll(int64(group))
		if err != nil && (full || l.Failed() != nil) {
			return err
		}
		if err == nil {
			l.rollSoon.Store(false)
		}
	}
	if rest := cap(t.chunk) - len(t.chunk); rest < max(group, chunkRest) {
		t.chunk = make([]byte, 0, max(group, chunkBytes))
	}
	t.start = len(t.chunk)
	t.chunk = t.chunk[:t.start+segment.GroupHead]
	return nil
}

// Sync writes the group, makes it durable and shows it to followers. If it fails none of its records exists:
// with ErrNoSpace the log goes on when there is space, with ErrUncertain nothing is appended any more, as
// nobody can say what is on the disk. Without a group it does nothing.
func (l *Log) Sync() error {
	t := &l.tail
	if t.count == 0 {
		return nil
	}
	b := t.chunk[t.start:len(t.chunk):len(t.chunk)]
	g := segment.Group{
		Offset: t.offset, Size: len(b) - segment.GroupHead, Count: t.count,
		Prev: t.chain, First: t.nextID - batchlog.ID(t.count), Durable: t.seg.end.Load(),
	}
	var err error
	if g.Sum, err = segment.PutGroup(b, g, t.seg.header.Salt()); err != nil {
		t.abandon(g.First)
		return err
	}
	if _, err := t.seg.file.WriteAt(b, g.Offset); err != nil {
		err = fmt.Errorf("write %d commits to segment %s: %w", g.Count, t.seg.name, err)
		t.abandon(g.First)
		if noSpace(err) {
			return fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
		}
		return l.failSync(err)
	}
	if err := t.seg.file.SyncData(); err != nil {
		err = fmt.Errorf("sync segment %s: %w", t.seg.name, err)
		t.abandon(g.First)
		return l.failSync(err)
	}
	l.syncs.Add(1)
	l.publish(g, b[segment.GroupHead:])
	return nil
}

// publish makes a durable group part of the log.
func (l *Log) publish(g segment.Group, records []byte) {
	t := &l.tail
	s := t.seg
	passed := l.passed()
	l.mu.Lock()
	if s.ended = passed; s.oldest == 0 {
		s.begun = passed
	}
	l.mu.Unlock()
	if n := len(s.marks); n == 0 || g.Offset-s.marks[n-1].Offset >= segment.MarkBytes {
		var first batchlog.Record
		if _, err := segment.ParseRecord(records, &first); err != nil {
			panic("batchlog: bug: wrote a record that cannot be read: " + err.Error())
		}
		l.mu.Lock()
		if n == 0 {
			s.oldest = first.Time
		}
		s.marks = append(s.marks, segment.Mark{Offset: g.Offset, First: g.First, Time: first.Time})
		l.mu.Unlock()
	}
	if len(t.chains) > 0 {
		l.mu.Lock()
		s.chains = append(s.chains, t.chains...)
		l.mu.Unlock()
		t.chains = nil
	}
	t.chain = g.Sum
	t.offset = segment.Align(g.End())
	t.count = 0
	last := t.nextID - 1
	s.end.Store(g.End())
	l.head.Store(uint64(last))
	l.ring.publish(ringGroup{first: g.First, last: last, records: records, count: g.Count})
	if t.offset > s.size/2 {
		l.next.want(l.nextSize(s.size))
	}
}

// abandon forgets the group that was being built.
func (t *appender) abandon(first batchlog.ID) {
	t.chunk = t.chunk[:t.start:t.start] // whoever holds a record of it must not see another one in its place
	t.count, t.chains = 0, nil
	t.nextID = first
}

// failSync ends appending after a write or a sync that failed: what the disk holds is not known, and a second sync
// might return nil without having written anything.
func (l *Log) failSync(err error) error {
	l.fail(fmt.Errorf("%w until the database is opened again: %w", batchlog.ErrReadOnly, err))
	return fmt.Errorf("%w: %w", batchlog.ErrUncertain, err)
}

// roll begins a new segment with room for a group of that size. If it fails with ErrNoSpace all is as before.
func (l *Log) roll(group int64) error {
	p, err := l.next.take(l.nextSize(l.tail.seg.size), segment.HeaderSize+group)
	if err != nil {
		return err
	}
	err = l.rollTo(p)
	l.next.used(err)
	if err != nil {
		if noSpace(err) && l.Failed() == nil {
			return fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
		}
		return err
	}
	l.wantSeal()
	return nil
}

func (l *Log) rollTo(p *prepared) error {
	t := &l.tail
	old := t.seg
	s, err := l.name(p, t.nextID)
	if err != nil {
		p.remove(l)
		return fmt.Errorf("begin segment: %w", err)
	}
	l.manifestMu.Lock()
	defer l.manifestMu.Unlock()
	empty := old.end.Load() == segment.HeaderSize // too small for its first commit: it is replaced
	// The table changes when the manifest has changed: until then old is the active segment, for the sealer most of all.
	l.mu.Lock()
	m := l.tableLocked()
	l.mu.Unlock()
	end := len(m.Segments) - 1
	if empty {
		m.Segments = m.Segments[:end]
	} else {
		m.Segments[end].State, m.Segments[end].Last, m.Segments[end].Newest = stateNames[full], t.nextID-1, t.lastTime
		m.Segments[end].Ended = old.ended
	}
	s.begun = l.passed()
	m.Segments = append(m.Segments, s.manifest())
	if uncertain, err := l.replaceManifest(m); err != nil {
		if uncertain {
			// The old manifest or the new one would be found after a crash; what goes on must be right for both, and
			// nothing is. The commit that needed the segment is in neither.
			_ = l.failSync(fmt.Errorf("write manifest: %w", err))
			_ = p.file.Close() // holds nothing but its header, which is synced
			return l.Failed()
		}
		p.remove(l)
		return fmt.Errorf("write manifest: %w", err)
	}
	l.mu.Lock()
	after := append([]*seg(nil), l.mu.segments...)
	if empty {
		after = after[:end]
	} else {
		old.state, old.last, old.newest = full, t.nextID-1, t.lastTime
	}
	l.mu.segments = append(after, s)
	l.mu.Unlock()
	if empty {
		_ = old.file.Close() // never held anything
		old.file = nil
		l.removeFile(old)
	}
	t.seg, t.offset, t.chain = s, segment.HeaderSize, s.header.Chain()
	return nil
}

// name makes p the segment whose first commit is first. It is durable when it returns.
func (l *Log) name(p *prepared, first batchlog.ID) (*seg, error) {
	s := &seg{
		name: segmentName(first, p.uuid), dir: p.dir, first: first, size: p.size, file: p.file,
		header: segment.Header{
			Version: segment.Version, Database: l.opts.Database, Segment: p.uuid, Epoch: l.opts.Epoch, First: first,
		},
	}
	s.end.Store(segment.HeaderSize)
	if _, err := p.file.WriteAt(segment.AppendHeader(nil, s.header), 0); err != nil {
		return nil, err
	}
	if err := p.file.SyncData(); err != nil {
		return nil, err
	}
	if err := l.opts.FS.Rename(l.path(p.dir, p.name), l.path(p.dir, s.name)); err != nil {
		return nil, err
	}
	p.name = s.name
	return s, disk.SyncDir(l.opts.FS, l.path(p.dir, ""))
}

// create begins a log: a first segment, and the manifest that names it.
func (l *Log) create() error {
	if err := l.checkNew(); err != nil {
		return err
	}
	p, err := l.prepare(min(firstSegmentBytes, l.settings().segmentBytes()), 0)
	if err != nil {
		return fmt.Errorf("first segment: %w", err)
	}
	s, err := l.name(p, 1)
	if err != nil {
		p.remove(l)
		return fmt.Errorf("first segment: %w", err)
	}
	l.mu.segments = []*seg{s}
	l.ring.next = 1
	l.tail = appender{seg: s, offset: segment.HeaderSize, chain: s.header.Chain(), nextID: 1}
	return l.writeManifest()
}

// nextSize is how large the segment after one of that size is: a small database has small files.
func (l *Log) nextSize(size int64) int64 {
	return min(l.settings().segmentBytes(), max(size, firstSegmentBytes)*4)
}

// removeFile removes the file of a segment that is no longer in the table.
func (l *Log) removeFile(s *seg) {
	files := l.filesLocked(s) // it is in no table: nobody changes it any more
	if s.warm {
		files = append(files, l.path(s.dir, inversesName(s.name)))
	}
	if err := l.removeAll(files); err != nil {
		l.opts.Logger.Warn("segment cannot be removed; it will be when the database is opened", "segment", s.name, "err", err)
	}
}
