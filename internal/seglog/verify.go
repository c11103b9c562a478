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
// index against the groups, each hash against the next segment and the table. Every fault it finds goes to report; it
// goes on with the next segment. One that was noted as damaged and is not is sealed. Of chains only the ends of their files are looked at. progress, if not nil, is told how many bytes of how many it has read.
func (l *Log) Verify(ctx context.Context, progress func(done, total int64), report func(error)) error {
	t := l.table.Load()
	total := int64(0)
	for s := range t.segs.all() {
		total += l.readBytes(s)
	}
	var before *segment.Index
	done := int64(0)
	for s := range t.segs.all() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		x, err := l.verifySegment(s, before)
		var gone *batchlog.GapError
		switch {
		case errors.As(err, &gone): // dropped since this began
		case err != nil:
			report(err)
		case l.wellAgain(s):
			poke(l.sealWanted)
		}
		before = x
		for _, c := range l.chainsOf(s) {
			if err := l.verifyChainEnd(c); err != nil {
				report(err)
			}
		}
		done += l.readBytes(s)
		if progress != nil {
			progress(min(done, total), total)
		}
	}
	return nil
}

// readBytes is how much of s there is to read.
func (l *Log) readBytes(s *seg) int64 { return l.view(s).end + chainBytes(l.chainsOf(s)) }

func (l *Log) chainsOf(s *seg) []segChain {
	if s.state == active && s.live != nil {
		_, chains := s.live.groups()
		return chains
	}
	return s.chains
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
func (l *Log) verifySegment(s *seg, before *segment.Index) (*segment.Index, error) {
	v := l.view(s)
	if v.state == active && v.end == segment.HeaderSize {
		return nil, nil // there is nothing in it, and maybe not even its name yet
	}
	r, err := l.openAt(s.first, true)
	if err != nil {
		return nil, err
	}
	defer r.f.Close()
	name := r.scan.Name
	h, err := l.headerOf(r.f, s)
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
		return nil, wrong("segment is not the one that the table names")
	case v.state == sealed && s.last != x.Last:
		return nil, wrong(fmt.Sprintf("segment ends with commit %d, in the table with %d", x.Last, s.last))
	case before != nil && x.Prev != [32]byte{} && before.Hash != x.Prev: // zero: it was sealed when that one could not be
		return nil, wrong("segment does not follow the one before it")
	}
	return x, nil
}
