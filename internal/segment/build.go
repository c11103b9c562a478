package segment

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
)

// Build reads all groups of a file up to end, checks every sum, id and time, and returns the
// index to seal it with. prev is the hash of the segment before.
func Build(file io.ReaderAt, h Header, name string, end int64, prev [32]byte) (*Index, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(file, 0, end)); err != nil {
		return nil, fmt.Errorf("read segment %s: %w", name, err)
	}
	s := Scanner{File: file, Name: name, Salt: h.Salt(), Next: HeaderSize, End: end, ID: h.First, Chain: h.Chain(), Chained: true}
	x := indexer{index: Index{Prev: prev, End: HeaderSize, First: h.First, Last: h.First - 1}, salt: h.Salt(), hashes: map[uint32]struct{}{}}
	for {
		g, records, err := s.Group()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := x.group(g, records); err != nil {
			return nil, &batchlog.CorruptError{File: name, Offset: g.Offset, ID: g.First, Err: err}
		}
	}
	hash.Sum(x.index.Hash[:0])
	return x.finish(), nil
}
