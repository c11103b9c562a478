package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// The file of a chain is laid out as an active segment: a header and groups, each chained to the one before. A group holds ops
// instead of records, and its first is the place of its first op in the chain, from 1 on. The header's first commit is 0, as
// none begins here. The record of the commit says where the last group ends and has its sum, so a file that is cut, longer or another one
// is found out.
//
//	 0        HeaderSize                                 end
//	+--------+--------+--------+-----+--------+---------------+
//	| header | group  | group  | ... | group  | not the chain |
//	+--------+--------+--------+-----+--------+---------------+

// A ChainWriter writes the file of a chain. It is not safe for concurrent use.
type ChainWriter struct {
	file   io.WriterAt
	salt   uint32
	buf    []byte
	offset int64
	at     ChainMark
}

// A ChainMark is how far a chain's file is written.
type ChainMark struct {
	Sum   uint32 // of the last group, or what the first one names
	Count int    // of the ops
	Bytes int64  // of the ops
	End   int64  // offset behind the last group
}

// NewChainWriter begins the file of a chain.
func NewChainWriter(file io.WriterAt, h Header) (*ChainWriter, error) {
	if _, err := file.WriteAt(AppendHeader(nil, h), 0); err != nil {
		return nil, fmt.Errorf("write header of a chain: %w", err)
	}
	return &ChainWriter{file: file, salt: h.Salt(), offset: HeaderSize, at: ChainMark{Sum: h.Chain(), End: HeaderSize}}, nil
}

// Add appends ops as one group. More than [MaxGroupBytes] of them are a *batchlog.LimitError.
func (w *ChainWriter) Add(ops []byte, count int) error {
	w.buf = append(append(w.buf[:0], make([]byte, GroupHead)...), ops...)
	g := Group{Offset: w.offset, Size: len(ops), Count: count, Prev: w.at.Sum, First: batchlog.ID(w.at.Count + 1)}
	sum, err := PutGroup(w.buf, g, w.salt)
	if err != nil {
		return fmt.Errorf("write %d ops to a chain: %w", count, err)
	}
	if _, err := w.file.WriteAt(w.buf, w.offset); err != nil {
		return fmt.Errorf("write %d ops to a chain: %w", count, err)
	}
	if cap(w.buf) > chainBufMax {
		w.buf = nil
	}
	w.at = ChainMark{Sum: sum, Count: w.at.Count + count, Bytes: w.at.Bytes + int64(len(ops)), End: g.End()}
	w.offset = Align(g.End())
	return nil
}

// chainBufMax is up to what size the buffer of a group is kept for the next.
const chainBufMax = 1 << 20

// Mark is how far the file is written.
func (w *ChainWriter) Mark() ChainMark { return w.at }

// A ChainReader reads the ops of a chain.
type ChainReader struct {
	scan  Scanner
	sum   uint32
	count int // of the ops that the commit says
	id    batchlog.ID
	path  []byte // closed, of the space of the last key
}

var (
	errChainEnd   = errors.New("the file does not end with the group that the commit names")
	errChainCount = errors.New("the file has another number of ops than the commit says")
	errChainRange = errors.New("range delete that is empty or leaves the own keys of its space")
)

// NewChainReader returns a reader of the chain that ref is about; file is to be closed by the caller.
func NewChainReader(file io.ReaderAt, h Header, name string, ref *wire.ChainRef) *ChainReader {
	return &ChainReader{
		scan: Scanner{
			File: file, Name: name, Salt: h.Salt(), Next: HeaderSize, End: ref.End, ID: 1, Chain: h.Chain(), Chained: true, most: maxChainGroupBytes,
		},
		sum:   ref.Sum,
		count: ref.Count,
		id:    ref.ID,
	}
}

// Next is as wire.OpReader says. That sums hold says only that these bytes were written: what they say is checked as well, so that nobody who is
// handed ops meets one that no space has.
func (r *ChainReader) Next() (ops []byte, count int, err error) {
	read := int(r.scan.ID) - 1
	g, ops, err := r.scan.Group()
	var damage *batchlog.CorruptError
	switch {
	case errors.Is(err, io.EOF):
		switch {
		case r.scan.Chain != r.sum:
			return nil, 0, r.damaged(r.scan.End, errChainEnd)
		case read != r.count:
			return nil, 0, r.damaged(r.scan.End, errChainCount)
		}
		return nil, 0, err
	case errors.As(err, &damage):
		damage.ID = r.id // the scanner takes ops for commits
		return nil, 0, err
	case err != nil:
		return nil, 0, err
	case g.Count > r.count-read:
		return nil, 0, r.damaged(g.Offset, errChainCount)
	}
	rest := ops
	for range g.Count {
		next, err := r.check(rest)
		if err != nil {
			return nil, 0, r.damaged(g.Offset+GroupHead+int64(len(ops)-len(rest)), err)
		}
		rest = next
	}
	if len(rest) > 0 {
		return nil, 0, r.damaged(g.Offset+GroupHead+int64(len(ops)-len(rest)), errGroupCount)
	}
	return ops, g.Count, nil
}

// check makes sure that ops begin with one on a key of a space, and returns what is behind it.
func (r *ChainReader) check(ops []byte) (rest []byte, err error) {
	kind, key, value, rest, err := wire.NextOp(ops)
	if err != nil {
		return nil, err
	}
	if len(r.path) == 0 || !bytes.HasPrefix(key, r.path) { // a closed path is the start of no other
		path, _, err := wire.SplitKey(key)
		if err != nil {
			return nil, err
		}
		r.path = append(r.path[:0], path...)
	}
	if kind != batchlog.OpDeleteRange {
		return rest, nil
	}
	end := len(r.path) - 1 // behind the own keys comes the path with another end
	after := len(value) == len(r.path) && bytes.Equal(value[:end], r.path[:end]) && value[end] == r.path[end]+1
	if !after && !bytes.HasPrefix(value, r.path) || bytes.Compare(key, value) >= 0 {
		return nil, errChainRange
	}
	return rest, nil
}

func (r *ChainReader) damaged(offset int64, err error) error {
	return &batchlog.CorruptError{File: r.scan.Name, Offset: offset, ID: r.id, Err: err}
}
