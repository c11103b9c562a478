package seglog

import (
	"fmt"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
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
	file     vfs.File // of seg
	unnamed  bool     // its file has not got its name yet
	offset   int64    // where the next group goes
	chain    uint32   // sum of the group before
	marked   int64    // where the last of its marks is
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
func (l *Log) Add(r wire.Record) (stored wire.Record, added bool, err error) {
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
	if t.unnamed {
		err := l.nameActive()
		l.next.used(err) // as roll does, which could not do it
		if noSpace(err) {
			return fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
		}
		if err != nil {
			return err
		}
	}
	group := segment.GroupHead + size
	full := t.offset+int64(group) > t.seg.size
	over := t.seg.live.header.Epoch != l.opts.Epoch // a segment is of one line of history
	if full || over || l.rollSoon.Load() && t.offset > segment.HeaderSize {
		err := l.roll(int64(group), full)
		if err != nil && (full || over || t.unnamed || l.Failed() != nil) {
			return err
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
		Prev: t.chain, First: t.nextID - batchlog.ID(t.count), Durable: t.seg.live.end.Load(),
	}
	var err error
	if g.Sum, err = segment.PutGroup(b, g, t.seg.live.header.Salt()); err != nil {
		t.abandon(g.First)
		return err
	}
	if _, err := t.file.WriteAt(b, g.Offset); err != nil {
		err = fmt.Errorf("write %d commits to segment %s: %w", g.Count, t.seg.name(), err)
		t.abandon(g.First)
		if noSpace(err) {
			return fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
		}
		return l.failSync(err)
	}
	if err := t.file.SyncData(); err != nil {
		err = fmt.Errorf("sync segment %s: %w", t.seg.name(), err)
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
	v := t.seg.live
	passed := l.passed()
	if v.ended.Store(passed); v.empty() {
		v.begun.Store(passed)
	}
	if at := t.marked; at == 0 || g.Offset-at >= segment.MarkBytes {
		var first wire.Record
		if _, err := segment.ParseRecord(records, &first); err != nil {
			panic("batchlog: bug: wrote a record that cannot be read: " + err.Error())
		}
		if v.empty() {
			v.oldest.Store(first.Time)
		}
		v.mu.Lock()
		v.mu.marks = append(v.mu.marks, segment.Mark{Offset: g.Offset, First: g.First, Time: first.Time})
		v.mu.Unlock()
		t.marked = g.Offset
	}
	if len(t.chains) > 0 {
		v.mu.Lock()
		v.mu.chains = append(v.mu.chains, t.chains...)
		v.mu.Unlock()
		l.mu.Lock()
		for _, c := range t.chains {
			l.mu.chains[c.file] = c.id
		}
		l.mu.Unlock()
		t.chains = nil
	}
	t.chain = g.Sum
	t.offset = segment.Align(g.End())
	t.count = 0
	last := t.nextID - 1
	v.end.Store(g.End())
	l.head.Store(uint64(last))
	l.ring.publish(ringGroup{first: g.First, last: last, records: records, count: g.Count})
	poke(l.markWanted)
	if t.offset > t.seg.size/2 {
		l.next.want(l.nextSize(true))
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

// roll begins a new segment with room for a group of that size; filled says that the one before has none. If it fails with ErrNoSpace all is as before.
func (l *Log) roll(group int64, filled bool) error {
	p, err := l.next.take(l.nextSize(filled), segment.HeaderSize+group)
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
	poke(l.sealWanted)
	return nil
}

// rollTo has the log go on in p. The table names it first, and it is written to only when it has its name: so a crash finds it under the one name or the other, and
// never a segment that no table knows.
func (l *Log) rollTo(p *prepared) error {
	t := &l.tail
	begin, err := l.prepareBegin(p, t.nextID, l.passed())
	if err != nil {
		p.remove(l)
		return fmt.Errorf("begin segment: %w", err)
	}
	old := t.seg
	err = l.edit(func(*table) edit {
		if old.live.empty() { // too small for its first commit: it is replaced
			return edit{begin}
		}
		_, chains := old.live.groups()
		return edit{{kind: kindFull, seg: seg{
			first: old.first, last: t.nextID - 1, end: old.live.end.Load(), oldest: old.live.oldest.Load(), newest: t.lastTime, begun: old.live.begun.Load(), ended: old.live.ended.Load(),
			chains: slices.Clone(chains),
		}}, begin}
	})
	switch {
	case err != nil && l.Failed() != nil:
		// It may be in the table that a crash would find. The commit that needed it is in neither.
		_ = begin.seg.live.takeFile().Close() // holds nothing but its header, which is synced
		return err
	case err != nil:
		p.remove(l)
		return fmt.Errorf("begin segment: %w", err)
	}
	if old.live.empty() {
		_ = old.live.takeFile().Close() // never held anything
	}
	*t = appender{
		seg: l.table.Load().active(), file: p.file, unnamed: true, offset: segment.HeaderSize, chain: begin.seg.live.header.Chain(),
		nextID: t.nextID, lastTime: t.lastTime, chunk: t.chunk,
	}
	l.rollSoon.Store(false)
	return l.nameActive()
}

// nameActive gives the active segment its name. Until it has that nothing is written to it.
func (l *Log) nameActive() error {
	if err := l.finishName(l.tail.seg); err != nil {
		return err
	}
	l.tail.unnamed = false
	return nil
}

// prepareBegin makes p ready to be the segment whose first commit is first, and is the change that says so.
func (l *Log) prepareBegin(p *prepared, first batchlog.ID, begun int64) (change, error) {
	v := &live{header: segment.Header{
		Version: segment.Version, Database: l.opts.Database, Segment: p.uuid, Epoch: l.opts.Epoch, First: first,
	}}
	v.end.Store(segment.HeaderSize)
	v.begun.Store(begun)
	v.mu.file = p.file
	if _, err := p.file.WriteAt(segment.AppendHeader(nil, v.header), 0); err != nil {
		return change{}, err
	}
	if err := p.file.SyncData(); err != nil {
		return change{}, err
	}
	return change{kind: kindBegin, seg: seg{first: first, tag: tagOf(p.uuid), dir: p.dir, size: p.size, begun: begun, live: v}}, nil
}

// nextSize is how large the segment after the active one is: a small database has small files. They grow when they are filled, and only then; one that
// ended for its age, and took little, is followed by a smaller one.
func (l *Log) nextSize(filled bool) int64 {
	size, limit := l.tail.seg.size, l.settings().segmentBytes()
	switch {
	case filled:
		size = max(size, firstSegmentBytes) * 4
	case l.tail.offset < size/4:
		size = min(size, max(size/4, firstSegmentBytes))
	}
	return min(size, limit)
}
