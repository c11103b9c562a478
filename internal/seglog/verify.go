package seglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
)

// Verify reads all segments and checks them against themselves: headers, sums, ids without holes, times, the
// index against the groups, each hash against the next segment and the manifest. Every fault it finds goes to report; it
// goes on with the next segment. Of chains only the ends of their files are looked at. progress, if not nil, is told how many bytes of how many it has read.
func (l *Log) Verify(ctx context.Context, progress func(done, total int64), report func(error)) error {
	l.mu.Lock()
	segs := append([]*seg(nil), l.mu.segments...)
	views := make([]segView, len(segs))
	chains := make([][]segChain, len(segs))
	total := int64(0)
	for i, s := range segs {
		views[i] = l.viewLocked(s)
		chains[i] = s.chains[:len(s.chains):len(s.chains)]
		total += views[i].end + s.chainBytes()
	}
	l.mu.Unlock()
	var before *segment.Index
	done := int64(0)
	for i, s := range segs {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		x, err := l.verifySegment(s, views[i], before)
		var gone *batchlog.GapError
		if errors.As(err, &gone) {
			err = nil // dropped since this began
		}
		if err != nil {
			report(err)
		}
		before = x
		done += views[i].end
		for _, c := range chains[i] {
			if err := l.verifyChainEnd(c); err != nil {
				report(err)
			}
			done += c.size
		}
		if progress != nil {
			progress(done, total)
		}
	}
	return nil
}

// verifyChainEnd makes sure that the file of a chain ends where its record says. What is behind is read by nobody, and was not written by us. That the
// file is whole up to there is checked by who reads its ops.
func (l *Log) verifyChainEnd(c segChain) error {
	name := l.chainPath(c.file)
	info, err := l.opts.FS.Stat(name)
	if disk.NotExist(err) {
		return nil // gone, or found missing when it is read
	}
	if err != nil {
		return fmt.Errorf("chain of commit %d: %w", c.id, err)
	}
	if more := info.Size() - c.size; more > 0 {
		return &batchlog.CorruptError{File: name, Offset: c.size, ID: c.id, Err: fmt.Errorf("%d bytes behind the end of the chain", more)}
	}
	return nil
}

// verifySegment checks one segment and returns its index, if it has one that holds.
func (l *Log) verifySegment(s *seg, v segView, before *segment.Index) (*segment.Index, error) {
	r, err := l.openAt(s.first, true)
	if err != nil {
		return nil, err
	}
	defer r.f.Close()
	name := r.scan.Name
	h, err := readHeader(r.f, name)
	if err != nil {
		return nil, err
	}
	end := v.end
	var prev [32]byte
	if r.index != nil {
		end, prev = r.index.End, r.index.Prev // it may have grown, and been sealed, since this began
	}
	// Built anew from the groups, the index must come out as it was written: that checks every byte that it was made from.
	x, err := segment.Build(r.f, h, name, end, prev)
	if err != nil {
		return nil, err
	}
	wrong := func(what string) error {
		return &batchlog.CorruptError{File: name, Offset: x.End, ID: s.first, Err: errors.New(what)}
	}
	if r.index == nil {
		return nil, nil
	}
	switch {
	case string(x.Append(nil)) != string(r.index.Append(nil)):
		return nil, wrong("index does not match the commits")
	case v.state == sealed && s.hash != x.Hash:
		return nil, wrong("segment is not the one that the manifest names")
	case v.state == sealed && s.last != x.Last:
		return nil, wrong(fmt.Sprintf("segment ends with commit %d, in the manifest with %d", x.Last, s.last))
	case before != nil && x.Prev != [32]byte{} && before.Hash != x.Prev: // zero: it was sealed when that one could not be
		return nil, wrong("segment does not follow the one before it")
	}
	return x, nil
}
