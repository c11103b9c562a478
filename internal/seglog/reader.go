package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/segment"
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
	found  []batchlog.Record
	closed bool
}

// Reader returns a reader of the commits that o asks for.
func (l *Log) Reader(o batchlog.LogOptions) (batchlog.LogReader, error) {
	next, err := o.From.Resolve(l.Oldest(), l.Head(), l.since)
	if err != nil {
		return nil, err
	}
	r := &reader{log: l, next: next, until: o.Until, within: o.Within}
	for _, open := range o.Within {
		r.hashes = append(r.hashes, segment.SpaceHash(open))
	}
	if oldest := l.Oldest(); next < oldest {
		return nil, &batchlog.GapError{From: next, Oldest: oldest}
	}
	l.followers.Add(1)
	return r, nil
}

// Next is as batchlog.LogReader says.
func (r *reader) Next(ctx context.Context) ([]batchlog.Record, batchlog.ID, error) {
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

// Close is as batchlog.LogReader says.
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
		f, err := r.log.openAt(r.next)
		if err != nil {
			return err
		}
		r.file = f
	}
	return r.readFile()
}

// readFile takes some groups of the file that is being read.
func (r *reader) readFile() error {
	f := r.file
	for bytes := 0; bytes < stretchBytes && len(r.found) < stretchCommits; {
		if len(r.hashes) > 0 {
			if next := f.skip(r.hashes); next > r.next {
				r.next = next
			}
		}
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
	}
	return nil
}

// take looks at the records of a group.
func (r *reader) take(records []byte, count int) error {
	for range count {
		var rec batchlog.Record
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
		if len(r.within) == 0 {
			r.found = append(r.found, rec)
			continue
		}
		ok, err := touches(&rec, r.within)
		if err != nil {
			return err
		}
		if ok {
			r.found = append(r.found, rec)
		}
	}
	return nil
}

// touches reports whether an op of rec is within one of the spaces.
func touches(rec *batchlog.Record, within [][]byte) (bool, error) {
	ops := rec.Ops
	for range rec.Count {
		_, key, _, rest, err := batchlog.NextOp(ops)
		if err != nil {
			return false, err
		}
		if batchlog.HasAnyPrefix(key, within) {
			return true, nil
		}
		ops = rest
	}
	return false, nil
}

// A fileReader reads one segment.
type fileReader struct {
	f     vfs.File
	scan  segment.Scanner
	index *segment.Index // of a sealed segment
	block int            // of index, that scan is in or before
	last  batchlog.ID    // of the segment, 0 while it is active
}

// over reports whether commit id can't be in what f was opened for.
func (f *fileReader) over(id batchlog.ID) bool {
	return f.scan.Next >= f.scan.End || f.last != 0 && id > f.last
}

// skip leaves out blocks that have nothing in spaces with these hashes, and returns the first commit that is not left out.
func (f *fileReader) skip(hashes []uint32) batchlog.ID {
	if f.index == nil || f.block >= len(f.index.Blocks) || f.scan.Next < f.index.Blocks[f.block].Offset {
		return 0
	}
	for ; f.block < len(f.index.Blocks); f.block++ {
		b := &f.index.Blocks[f.block]
		if b.MayTouch(hashes) {
			if f.scan.Next < b.Offset {
				f.scan.SkipTo(b.Offset, b.First)
			}
			f.block++ // look again when the next one begins
			return b.First
		}
	}
	f.scan.SkipTo(f.scan.End, 0)
	return f.last + 1
}

// openAt opens the segment that holds commit id, at the block that holds it.
func (l *Log) openAt(id batchlog.ID) (*fileReader, error) {
	for {
		s, view, err := l.find(id)
		if err != nil {
			return nil, err
		}
		f, err := l.opts.FS.Open(l.path(s.dir, s.name))
		if err == nil {
			r, err := l.newFileReader(f, s, view, id)
			if err != nil {
				_ = f.Close() // the error says more
				return nil, err
			}
			return r, nil
		}
		if !isNotExist(err) {
			return nil, fmt.Errorf("open segment: %w", err)
		}
		if again, _, findErr := l.find(id); findErr != nil || again == s {
			if findErr != nil {
				return nil, findErr // dropped meanwhile
			}
			return nil, &batchlog.CorruptError{File: l.path(s.dir, s.name), ID: id, Err: errors.New("segment is missing")}
		}
	}
}

// A segView is what a reader needs to know of a segment at one moment.
type segView struct {
	state  state
	last   batchlog.ID
	end    int64
	size   int64
	blocks []segment.Block
}

// find is the segment that holds commit id.
func (l *Log) find(id batchlog.ID) (*seg, segView, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	segs := l.mu.segments
	if id < segs[0].first {
		return nil, segView{}, &batchlog.GapError{From: id, Oldest: segs[0].first}
	}
	low, high := 0, len(segs) // the last one whose first commit is not after id
	for high-low > 1 {
		if mid := (low + high) / 2; segs[mid].first <= id {
			low = mid
		} else {
			high = mid
		}
	}
	s := segs[low]
	return s, segView{s.state, s.last, s.end.Load(), s.size, s.blocks}, nil
}

func (l *Log) newFileReader(f vfs.File, s *seg, v segView, id batchlog.ID) (*fileReader, error) {
	name := l.path(s.dir, s.name)
	h, err := readHeader(f, name)
	if err != nil {
		return nil, err
	}
	if h.Database != l.opts.Database || h.First != s.first {
		return nil, &batchlog.CorruptError{File: name, ID: s.first, Err: errors.New("segment of another database or place")}
	}
	r := &fileReader{f: f, last: v.last}
	r.scan = segment.Scanner{File: f, Name: name, Salt: h.Salt(), Next: segment.HeaderSize, End: v.end, ID: h.First, Chain: h.Chain(), Chained: true}
	blocks := v.blocks
	if v.state == sealed {
		if r.index, err = segment.ReadIndex(f, v.size, name, h.Salt()); err != nil {
			return nil, err
		}
		r.scan.End = r.index.End
		blocks = r.index.Blocks
	}
	x := segment.Index{Blocks: blocks}
	if at := x.Find(id); at > 0 {
		r.block = at
		r.scan.SkipTo(blocks[at].Offset, blocks[at].First)
	}
	return r, nil
}

// since is the first commit that is not older than t, head+1 if there is none.
func (l *Log) since(t time.Time) (batchlog.ID, error) {
	micros := t.UnixMicro()
	if t.After(time.UnixMicro(micros)) {
		micros++
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
	l.mu.Lock()
	segs := l.mu.segments
	s := segs[0]
	for _, later := range segs[1:] { // the last one that may begin before
		if later.oldest == 0 || later.oldest >= micros {
			break
		}
		s = later
	}
	first, st, blocks := s.first, s.state, s.blocks
	l.mu.Unlock()
	if st == sealed {
		r, err := l.openAt(first)
		if err != nil {
			return 0, err
		}
		blocks = r.index.Blocks
		if err := r.f.Close(); err != nil {
			return 0, err
		}
	}
	if len(blocks) == 0 {
		return first, nil
	}
	x := segment.Index{Blocks: blocks}
	return x.Blocks[x.FindTime(micros)].First, nil
}
