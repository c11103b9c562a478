package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A stretch that a reader returns ends when it has this many bytes or commits.
const (
	stretchBytes   = 256 << 10
	stretchCommits = 1024
)

// A reader follows the log: through the files first, then in memory.
type reader struct {
	log    *Log
	next   batchlog.ID // to look at
	until  batchlog.ID // 0: no end
	within [][]byte
	hashes []uint32 // of within, as blocks know them

	file   *fileReader // nil: in memory, or not yet begun
	groups []ringGroup
	found  []wire.Record
	brief  bool   // what is returned need not stay valid
	shared bool   // what is read will be overwritten: what is found must be copied, unless that is meant to be
	kept   []byte // the memory that copies are made in
	closed bool
}

// Reader returns a reader of the commits that o asks for.
func (l *Log) Reader(o batchlog.LogOptions) (waist.LogReader, error) {
	next, err := o.From.Resolve(l.Oldest(), l.Head(), l.since)
	if err != nil {
		return nil, err
	}
	r := &reader{log: l, next: next, until: o.Until, within: wire.SortedPrefixes(o.Within), brief: o.Brief}
	for _, open := range r.within {
		r.hashes = append(r.hashes, segment.SpaceHash(open))
	}
	if oldest := l.Oldest(); next < oldest {
		return nil, &batchlog.GapError{From: next, Oldest: oldest}
	}
	l.followers.Add(1)
	return r, nil
}

// Next is as waist.LogReader says.
func (r *reader) Next(ctx context.Context) ([]wire.Record, batchlog.ID, error) {
	for {
		select {
		case <-r.log.done:
			return nil, 0, batchlog.ErrClosed
		default:
		}
		if r.closed {
			return nil, 0, batchlog.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return nil, 0, context.Cause(ctx)
		}
		if r.until > 0 && r.next > r.until {
			return nil, 0, io.EOF
		}
		from := r.next
		r.found = r.found[:0]
		err := r.read()
		if r.until > 0 && r.next > r.until {
			r.next = r.until + 1 // blocks that were left out may go beyond
		}
		if r.next > from {
			return r.found, r.next - 1, nil // an error comes again with the next call
		}
		if err != nil {
			return nil, 0, err
		}
		r.log.ring.wait(ctx, r.next, r.log.done)
	}
}

// Close is as waist.LogReader says.
func (r *reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.log.followers.Add(-1)
	return r.leave()
}

// leave closes the file that is being read.
func (r *reader) leave() error {
	if r.file == nil {
		return nil
	}
	err := r.file.f.Close()
	r.file = nil
	return err
}

// read looks at some commits from r.next on, or at none if there are no more yet.
func (r *reader) read() error {
	groups, ok := r.log.ring.from(r.groups[:0], r.next, stretchBytes)
	r.groups = groups
	// With a filter most of what is read is left out: reading into the same memory is cheaper.
	r.shared = !ok && (len(r.within) > 0 || r.brief)
	if ok {
		if err := r.leave(); err != nil {
			return err
		}
		for i := range groups {
			g := &groups[i]
			if err := r.take(g.records, g.count); err != nil {
				return fmt.Errorf("commit %d in memory: %w", r.next, err)
			}
			*g = ringGroup{} // do not hold its memory until the next call
		}
		return nil
	}
	if r.file == nil || r.file.over(r.next) {
		if err := r.leave(); err != nil {
			return err
		}
		f, err := r.log.openAt(r.next, len(r.hashes) > 0)
		if err != nil {
			return err
		}
		f.scan.Reuse = r.shared
		if f.index != nil {
			f.touch = f.index.Positions(r.hashes)
		}
		r.file = f
	}
	return r.readFile()
}

// readFile takes some groups, or blocks, of the file that is being read.
func (r *reader) readFile() error {
	f := r.file
	if f.index != nil && len(r.hashes) > 0 {
		return r.readBlocks()
	}
	for bytes := 0; bytes < stretchBytes && len(r.found) < stretchCommits; {
		if r.until > 0 && r.next > r.until {
			return nil
		}
		g, records, err := f.scan.Group()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		bytes += len(records)
		if g.First+batchlog.ID(g.Count) <= r.next {
			continue
		}
		if err := r.take(records, g.Count); err != nil {
			return &batchlog.CorruptError{File: f.scan.Name, Offset: g.Offset, ID: r.next, Err: err}
		}
		if r.brief && len(r.found) > 0 && !f.scan.Buffered() {
			return nil // the next group would overwrite what was found
		}
	}
	return nil
}

// readBlocks takes some of the blocks of a sealed segment that may have something for r, and leaves out the others.
func (r *reader) readBlocks() error {
	f := r.file
	blocks := f.index.Blocks
	for bytes := 0; bytes < stretchBytes && len(r.found) < stretchCommits; f.block++ {
		for f.block < len(blocks) && !blocks[f.block].MayTouch(f.touch) {
			f.block++
		}
		if f.block == len(blocks) {
			r.next = f.last + 1
			return nil
		}
		b := &blocks[f.block]
		r.next = max(r.next, b.First)
		if r.until > 0 && r.next > r.until {
			return nil
		}
		records, err := f.readBlock(b)
		if err != nil {
			return err
		}
		bytes += len(records)
		if err := r.take(records, b.Count); err != nil {
			return &batchlog.CorruptError{File: f.scan.Name, Offset: b.Offset, ID: r.next, Err: err}
		}
	}
	return nil
}

// take looks at the records of a group.
func (r *reader) take(records []byte, count int) error {
	for range count {
		var rec wire.Record
		rest, err := segment.ParseRecord(records, &rec)
		if err != nil {
			return err
		}
		records = rest
		if rec.ID < r.next {
			continue // the group began before the position asked for
		}
		if rec.ID != r.next {
			return fmt.Errorf("commit %d where %d belongs", rec.ID, r.next)
		}
		if r.until > 0 && rec.ID > r.until {
			return nil
		}
		r.next++
		if rec.Chain != nil {
			rec.Chain.Source = r.log
		}
		if len(r.within) == 0 {
			r.found = append(r.found, rec)
			continue
		}
		ok, err := touches(&rec, r.within)
		if err != nil {
			return err
		}
		if ok {
			r.found = append(r.found, r.keep(rec))
		}
	}
	return nil
}

// keep returns rec as it may be handed out.
func (r *reader) keep(rec wire.Record) wire.Record {
	if !r.shared {
		return rec
	}
	if size := rec.Size(); size > cap(r.kept)-len(r.kept) {
		r.kept = make([]byte, 0, max(size, keptBytes))
	}
	start := len(r.kept)
	r.kept = append(append(r.kept, rec.Meta...), rec.Ops...)
	meta, end := start+len(rec.Meta), len(r.kept)
	rec.Meta, rec.Ops = r.kept[start:meta:meta], r.kept[meta:end:end]
	if rec.Chain != nil {
		c := *rec.Chain
		c.Spans = slices.Clone(c.Spans)
		for i := range c.Spans {
			c.Spans[i] = wire.KeyRange{Low: bytes.Clone(c.Spans[i].Low), High: bytes.Clone(c.Spans[i].High)}
		}
		rec.Chain = &c
	}
	return rec
}

// keptBytes is the size of the pieces of memory that found commits are copied to.
const keptBytes = 16 << 10

// touches reports whether an op of rec is within one of the spaces.
func touches(rec *wire.Record, within [][]byte) (bool, error) {
	inline := rec.Count
	if rec.Chain != nil {
		if ok, err := chainTouches(rec.Chain, within); ok || err != nil {
			return ok, err
		}
		inline -= rec.Chain.Count
	}
	ops := rec.Ops
	for range inline {
		_, key, _, rest, err := wire.NextOp(ops)
		if err != nil {
			return false, err
		}
		if wire.HasSortedPrefix(key, within) {
			return true, nil
		}
		ops = rest
	}
	return false, nil
}

var errTouches = errors.New("an op was found")

// chainTouches needs the spans of the chain alone, as each begins with an op, unless they are coarse.
func chainTouches(c *wire.ChainRef, within [][]byte) (bool, error) {
	for _, s := range c.Spans {
		if wire.HasSortedPrefix(s.Low, within) {
			return true, nil
		}
	}
	if !c.Coarse {
		return false, nil
	}
	chain := wire.Record{Chain: c, Count: c.Count}
	err := chain.EachOp(func(_ batchlog.OpKind, key, _ []byte) error {
		if wire.HasSortedPrefix(key, within) {
			return errTouches
		}
		return nil
	})
	if errors.Is(err, errTouches) {
		return true, nil
	}
	return false, err
}

// A fileReader reads one segment: group by group, or, where it is sealed and there is a filter, single blocks.
type fileReader struct {
	f     vfs.File
	salt  uint32
	scan  segment.Scanner
	last  batchlog.ID    // of the segment, 0 while it is active
	index *segment.Index // of a sealed segment
	block int            // of index, to look at next
	touch []uint32       // where in index.Spaces the reader's spaces are
	buf   []byte         // of the block that was read last
}

// over reports whether commit id can't be in what f was opened for.
func (f *fileReader) over(id batchlog.ID) bool {
	return f.scan.Next >= f.scan.End || f.last != 0 && id > f.last
}

// readBlock reads the records of a block and checks their sum. They are valid until the next call.
func (f *fileReader) readBlock(b *segment.Block) ([]byte, error) {
	if cap(f.buf) < b.Size {
		f.buf = make([]byte, max(b.Size, 2*segment.BlockBytes))
	}
	records := f.buf[:b.Size]
	damaged := func(what string) ([]byte, error) {
		return nil, &batchlog.CorruptError{File: f.scan.Name, Offset: b.Offset, ID: b.First, Err: errors.New(what)}
	}
	switch n, err := f.f.ReadAt(records, b.Offset); {
	case n == len(records):
	case errors.Is(err, io.EOF):
		return damaged("block goes beyond the end of the file")
	default:
		return nil, fmt.Errorf("read segment %s at byte %d: %w", f.scan.Name, b.Offset, err)
	}
	if !b.Holds(records, f.salt) {
		return damaged("block does not match its sum")
	}
	return records, nil
}

// openAt opens the segment that holds commit id, at the group that holds it. It reads the index of a sealed one if that is asked for, or
// needed to find the group.
func (l *Log) openAt(id batchlog.ID, indexed bool) (*fileReader, error) {
	for {
		s, view, err := l.find(id)
		if err != nil {
			return nil, err
		}
		f, err := l.opts.FS.Open(view.file)
		if err == nil {
			r, err := l.newFileReader(f, s, view, id, indexed)
			if err != nil {
				_ = f.Close() // the error says more
				var damage *batchlog.CorruptError
				if errors.As(err, &damage) && damage.ID == 0 {
					damage.ID = id
				}
				return nil, err
			}
			return r, nil
		}
		if !disk.NotExist(err) {
			return nil, l.missing(s.dir, view.file, fmt.Errorf("open segment: %w", err))
		}
		_, again, err := l.find(id)
		if err != nil {
			return nil, err // dropped meanwhile
		}
		if again.file == view.file && again.state == view.state {
			return nil, l.missing(s.dir, view.file, &batchlog.CorruptError{File: view.file, ID: id, Err: errors.New("segment is missing")})
		}
	}
}

// A segView is what a reader needs to know of a segment at one moment.
type segView struct {
	state state
	last  batchlog.ID
	end   int64
	size  int64
	marks []segment.Mark
	file  string
}

// view is how a segment is now.
func (l *Log) view(s *seg) segView {
	v := segView{state: s.state, last: s.last, end: s.end, size: s.size, file: l.path(s.dir, s.name())}
	if s.live != nil {
		v.end = s.live.end.Load()
		v.marks, _ = s.live.groups()
	}
	return v
}

// find is the segment that holds commit id.
func (l *Log) find(id batchlog.ID) (*seg, segView, error) {
	t := l.table.Load()
	s := t.find(id)
	if s == nil {
		return nil, segView{}, &batchlog.GapError{From: id, Oldest: t.oldest()}
	}
	return s, l.view(s), nil
}

func (l *Log) newFileReader(f vfs.File, s *seg, v segView, id batchlog.ID, indexed bool) (*fileReader, error) {
	name := v.file
	h, err := l.headerOf(f, s)
	if err != nil {
		return nil, err
	}
	r := &fileReader{f: f, last: v.last, salt: h.Salt()}
	r.scan = segment.Scanner{File: f, Name: name, Salt: h.Salt(), Next: segment.HeaderSize, End: v.end, ID: h.First, Chain: h.Chain(), Chained: true}
	if v.state == sealed && (id > h.First || indexed) {
		if r.index, err = segment.ReadIndex(f, v.size, name, h.Salt()); err != nil {
			return nil, err
		}
		r.scan.End = r.index.End
		r.block = r.index.Find(id)
		if offset, first := r.index.Group(r.block); first > h.First {
			r.scan.SkipTo(offset, first)
		}
		return r, nil
	}
	at := sort.Search(len(v.marks), func(i int) bool { return v.marks[i].First > id }) - 1
	if at > 0 {
		r.scan.SkipTo(v.marks[at].Offset, v.marks[at].First)
	}
	return r, nil
}

// since is the first commit that is not older than t, head+1 if there is none, a *batchlog.GapError if one was dropped.
func (l *Log) since(t time.Time) (batchlog.ID, error) {
	micros := t.UnixMicro()
	if t.After(time.UnixMicro(micros)) {
		micros++
	}
	now := l.table.Load()
	trimmed, oldest := now.trimmed, now.oldest()
	if trimmed != 0 && micros <= trimmed {
		return 0, &batchlog.GapError{From: oldest - 1, Oldest: oldest} // the last one that was dropped is not older
	}
	head := l.Head()
	start, err := l.blockSince(micros)
	if err != nil {
		return 0, err
	}
	r, err := l.Reader(batchlog.LogOptions{From: batchlog.At(start), Until: head})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for start <= head {
		records, scanned, err := r.Next(context.Background())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		for i := range records {
			if records[i].Time >= micros {
				return records[i].ID, nil
			}
		}
		start = scanned + 1
	}
	return head + 1, nil
}

// blockSince is the first commit of the block that holds the first commit at that time or later.
func (l *Log) blockSince(micros int64) (batchlog.ID, error) {
	s := l.table.Load().before(micros)
	first, v := s.first, l.view(s)
	if v.state != sealed {
		at := sort.Search(len(v.marks), func(i int) bool { return v.marks[i].Time >= micros }) - 1
		if at > 0 {
			return v.marks[at].First, nil
		}
		return first, nil
	}
	r, err := l.openAt(first, true)
	if err != nil {
		return 0, err
	}
	if err := r.f.Close(); err != nil {
		return 0, err
	}
	return r.index.Blocks[r.index.FindTime(micros)].First, nil
}
