// Package chainsort sorts the ops of a chain, which may be far more than memory holds, and yields their net effect in the order of keys.
//
// What is added is gathered in memory; when that is full it is sorted and becomes a run, a file. [Sorter.Net] merges the runs. Ops may be
// taken back, and what is added last need not be what counts: order is by seq, and within a seq by when it was added.
//
// Ranges, which are few beside the ops on single keys, are kept in runs of their own: a Net with bounds can go straight to its lowest key
// in the others, but must read all ranges that begin before it.
package chainsort

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	defaultMemory = 32 << 20
	minMemory     = 4 << 10
	maxMemory     = 1 << 31 // so that a place in memory fits 32 bits
	minPage       = 512
	maxPage       = 64 << 10
)

// Options are the parts and the settings of a Sorter.
type Options struct {
	FS vfs.FS
	// Dir is where the runs are; it must exist and be used by this Sorter alone. Files that another one left there are in the way of
	// nobody, and are not removed.
	Dir string
	// MemoryBytes bounds the memory of a Sorter, in bytes, whether it gathers or merges. It may take more only for what alone is larger:
	// one op, and ranges that overlap where Net is at (up to 1 Mi of them with 64 MiB of bounds). 0: 32 MiB; at least 4 KiB.
	MemoryBytes int
	// Reserve is asked before so many bytes more are put on disk; negative: they are free again. Its error
	// is returned as it is. nil: no bound.
	Reserve func(bytes int64) error
}

// A Sorter sorts the ops of one chain. It is not safe for concurrent use, and visit functions may not call it.
//
// An error of the disk or of Reserve leaves it as usable as before: what had been added is still there, and the call can be made
// again. Of an Add that failed some ops may have been added; adding them again changes nothing but the counts.
type Sorter struct {
	opts      Options
	pageBytes int // of a page of memory and of a block of a run

	age    uint64 // of the next item; there is no item of age 0
	points lane   // puts, deletes and retractions of single keys
	ranges lane   // delete ranges and retractions of ranges
	slab   slab   // the items of both lanes that are in no run

	made   int      // runs that were begun: numbers their files
	stale  []stale  // files that could not be removed
	free   [][]byte // pages that are not in use
	pages  int      // that there are, but for those that are larger than pageBytes
	active int      // how many delete ranges may overlap; a test has less than maxActive

	ops, bytes int64
	onDisk     int64 // reserved and not given back
	closed     bool
}

// A lane is a sort of its own: items in memory and runs.
type lane struct {
	name   string
	refs   []ref  // items in the slab
	sorted bool   // refs are in order
	prefix []byte // shared by the keys of all items ever; nil: no item yet
	runs   []*run
}

// A stale file is one that is not needed and could not be removed.
type stale struct {
	name string
	size int64
}

var (
	errCount = errors.New("count of ops is not that of the ops")
	errRange = errors.New("delete range that is empty or leaves the own keys of its space")
)

// New makes a Sorter. It touches the disk only when memory is full.
func New(o Options) *Sorter {
	if o.MemoryBytes == 0 {
		o.MemoryBytes = defaultMemory
	}
	o.MemoryBytes = min(max(o.MemoryBytes, minMemory), maxMemory)
	s := &Sorter{opts: o, age: 1, active: maxActive}
	s.pageBytes = min(max(o.MemoryBytes/64, minPage), maxPage)
	s.points.name, s.ranges.name = "points", "ranges"
	return s
}

// Add adds count encoded ops, which are those of one seq; they are copied. Ops that are malformed are refused whole.
func (s *Sorter) Add(seq uint64, ops []byte, count int) error {
	if s.closed {
		return batchlog.ErrClosed
	}
	if err := check(ops, count); err != nil {
		return err
	}
	for len(ops) > 0 {
		kind, key, value, rest, _ := wire.NextOp(ops) // check has read it
		it := item{kind: kindOf[kind], seq: seq, key: key, value: value}
		if err := s.add(&it); err != nil {
			return err
		}
		s.ops++
		s.bytes += int64(len(ops) - len(rest))
		ops = rest
	}
	return nil
}

// Retract takes back the puts and deletes of key that were added with just that seq.
func (s *Sorter) Retract(seq uint64, key []byte) error {
	if s.closed {
		return batchlog.ErrClosed
	}
	return s.add(&item{kind: retract, seq: seq, key: key})
}

// RetractRange takes back the puts and deletes of the keys from low on and below high that were added with just that seq. Delete ranges
// stay. nil: no bound.
func (s *Sorter) RetractRange(seq uint64, low, high []byte) error {
	if s.closed {
		return batchlog.ErrClosed
	}
	if high != nil && bytes.Compare(low, high) >= 0 {
		return nil
	}
	return s.add(&item{kind: retractRange, seq: seq, key: low, value: high})
}

// Size is how many ops were added, their encoded bytes, and the bytes that the Sorter has on disk.
func (s *Sorter) Size() (ops int64, bytes int64, onDisk int64) { return s.ops, s.bytes, s.onDisk }

// Close removes the files and gives back what was reserved. If that fails, it can be tried again by calling it again.
func (s *Sorter) Close() error {
	s.closed = true
	for _, l := range []*lane{&s.points, &s.ranges} {
		for _, r := range l.runs {
			s.drop(r)
		}
		*l = lane{name: l.name}
	}
	s.slab, s.free = slab{}, nil
	return s.sweepStale()
}

// check reports why ops is not count ops that can be sorted.
func check(ops []byte, count int) error {
	for i := range count {
		kind, key, value, rest, err := wire.NextOp(ops)
		switch {
		case err != nil:
		case len(key) > batchlog.MaxKeyBytes:
			err = batchlog.LimitKey.Check(len(key))
		case kind == batchlog.OpDeleteRange:
			err = checkRange(key, value)
		}
		if err != nil {
			return fmt.Errorf("op %d of %d: %w", i+1, count, err)
		}
		ops = rest
	}
	if len(ops) != 0 || count < 0 {
		return errCount
	}
	return nil
}

// checkRange reports why a delete range is none. That it lies in the own keys of one space is what the merging of ranges stands on.
func checkRange(low, high []byte) error {
	path, _, err := wire.SplitKey(low)
	if err != nil {
		return err
	}
	end := len(path) - 1 // behind the own keys comes the path with another end; see wire.NextOp
	after := len(high) == len(path) && bytes.Equal(high[:end], path[:end]) && high[end] == path[end]+1
	if !after && !bytes.HasPrefix(high, path) || bytes.Compare(low, high) >= 0 {
		return errRange
	}
	return nil
}

// reserve asks for bytes more on disk, or gives them back.
func (s *Sorter) reserve(size int64) error {
	if s.opts.Reserve != nil && size != 0 {
		if err := s.opts.Reserve(size); err != nil {
			return err
		}
	}
	s.onDisk += size
	return nil
}

// remove removes a file, now or, if that fails, later: it is never why something else fails.
func (s *Sorter) remove(name string, size int64) {
	if s.tryRemove(name, size) != nil {
		s.stale = append(s.stale, stale{name, size})
	}
}

func (s *Sorter) tryRemove(name string, size int64) error {
	if err := s.opts.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return s.reserve(-size)
}

// sweepStale tries again to remove what could not be removed.
func (s *Sorter) sweepStale() error {
	old := s.stale
	s.stale = nil
	var errs []error
	for _, f := range old {
		if err := s.tryRemove(f.name, f.size); err != nil {
			s.stale = append(s.stale, f)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
