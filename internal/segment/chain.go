package segment

import (
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
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

// Add appends ops as one group.
func (w *ChainWriter) Add(ops []byte, count int) error {
	w.buf = append(append(w.buf[:0], make([]byte, GroupHead)...), ops...)
	g := Group{Offset: w.offset, Size: len(ops), Count: count, Prev: w.at.Sum, First: batchlog.ID(w.at.Count + 1)}
	sum := PutGroup(w.buf, g, w.salt)
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

// Back takes back what was added since m.
func (w *ChainWriter) Back(m ChainMark) { w.at, w.offset = m, Align(m.End) }

// A ChainReader reads the ops of a chain.
type ChainReader struct {
	scan Scanner
	sum  uint32
	id   batchlog.ID
}

var errChainEnd = errors.New("the file does not end with the group that the commit names")

// NewChainReader returns a reader of the chain that ref is about; file is to be closed by the caller.
func NewChainReader(file io.ReaderAt, h Header, name string, ref *batchlog.ChainRef) *ChainReader {
	return &ChainReader{
		scan: Scanner{File: file, Name: name, Salt: h.Salt(), Next: HeaderSize, End: ref.End, ID: 1, Chain: h.Chain(), Chained: true},
		sum:  ref.Sum,
		id:   ref.ID,
	}
}

// Next is as batchlog.OpReader says.
func (r *ChainReader) Next() (ops []byte, count int, err error) {
	g, ops, err := r.scan.Group()
	if errors.Is(err, io.EOF) && r.scan.Chain != r.sum {
		return nil, 0, &batchlog.CorruptError{File: r.scan.Name, Offset: r.scan.End, ID: r.id, Err: errChainEnd}
	}
	var damage *batchlog.CorruptError
	if errors.As(err, &damage) {
		damage.ID = r.id // the scanner takes ops for commits
	}
	return ops, g.Count, err
}
