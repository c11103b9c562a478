package segment

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A record is a commit as a segment holds it. Integers are little-endian.
//
//	 0      4    5      8           16          24                               24+size
//	+------+----+------+-----------+-----------+-------+----------+------+------+
//	| size |kind|  0   |    id     |   time    | count | meta len | meta | ops  |
//	+------+----+------+-----------+-----------+-------+----------+------+------+
//
//	size      of all behind the time, in bytes
//	kind      1: a batch, 2: a chain
//	id        more than in the record before; within the database every id stands in some log
//	time      microseconds since 1970-01-01 UTC, never less than in the record before
//	count     of ops; uvarint
//	meta len  in bytes; uvarint
//	meta      token, labels, logs: see wire.Meta
//	ops       the batch's own bytes: see wire.NextOp. Of a chain: the length of the reference to its file (uvarint), the reference
//	          (see wire.ChainRef), and the ops that come after those in the file
//
// The group around it has the sum.
const (
	recordKind = 4
	recordID   = 8
	recordTime = 16
	recordHead = 24

	kindBatch = 1
	kindChain = 2
)

var (
	errRecordSize  = errors.New("record ends early")
	errRecordKind  = errors.New("record of an unknown kind")
	errRecordMeta  = errors.New("record with more meta than bytes")
	errRecordChain = errors.New("record of a chain with a reference that does not fit")
)

// RecordSize is the bytes that r takes.
func RecordSize(r *wire.Record) int {
	size := len(r.Ops)
	if r.Chain != nil {
		ref := len(wire.AppendChainRef(nil, r.Chain))
		size += uvarintLen(uint64(ref)) + ref
	}
	return recordHead + uvarintLen(uint64(r.Count)) + uvarintLen(uint64(len(r.Meta))) + len(r.Meta) + size
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// AppendRecord appends r and returns it with Meta and Ops as parts of dst.
func AppendRecord(dst []byte, r wire.Record) ([]byte, wire.Record) {
	start := len(dst)
	var head [recordHead]byte
	le.PutUint32(head[:], uint32(RecordSize(&r)-recordHead))
	head[recordKind] = kindBatch
	if r.Chain != nil {
		head[recordKind] = kindChain
	}
	le.PutUint64(head[recordID:], uint64(r.ID))
	le.PutUint64(head[recordTime:], uint64(r.Time))
	dst = append(dst, head[:]...)
	dst = binary.AppendUvarint(dst, uint64(r.Count))
	dst = binary.AppendUvarint(dst, uint64(len(r.Meta)))
	dst = append(dst, r.Meta...)
	ops := len(dst)
	meta := ops - len(r.Meta)
	if meta < start {
		panic("batchlog: bug: record smaller than its parts")
	}
	r.Meta = dst[meta:ops:ops]
	if r.Chain != nil {
		ref := wire.AppendChainRef(nil, r.Chain)
		dst = binary.AppendUvarint(dst, uint64(len(ref)))
		dst = append(dst, ref...)
		ops = len(dst)
	}
	dst = append(dst, r.Ops...)
	end := len(dst)
	r.Ops = dst[ops:end:end]
	return dst, r
}

// ParseRecord decodes the record at the start of b into r, which shares memory with it, and returns what follows.
func ParseRecord(b []byte, r *wire.Record) (rest []byte, err error) {
	if len(b) < recordHead {
		return nil, errRecordSize
	}
	size := int(le.Uint32(b))
	if size > len(b)-recordHead {
		return nil, errRecordSize
	}
	kind := b[recordKind]
	if kind != kindBatch && kind != kindChain {
		return nil, errRecordKind
	}
	r.ID = batchlog.ID(le.Uint64(b[recordID:]))
	r.Time = int64(le.Uint64(b[recordTime:]))
	end := recordHead + size
	body := b[recordHead:end:end]
	r.Chain = nil
	// Nearly all records have fewer than 128 ops and no meta.
	if kind == kindBatch && len(body) >= 2 && body[0] < 0x80 && body[1] == 0 {
		r.Count, r.Meta, r.Ops = int(body[0]), nil, body[2:]
		return b[end:], nil
	}
	count, n := binary.Uvarint(body)
	if n <= 0 || count > uint64(size) && kind == kindBatch || count > math.MaxInt64 {
		return nil, errRecordSize
	}
	body = body[n:]
	meta, n := binary.Uvarint(body)
	if n <= 0 || meta > uint64(len(body)-n) {
		return nil, errRecordMeta
	}
	body = body[n:]
	r.Count, r.Meta, r.Ops = int(count), body[:meta:meta], body[meta:]
	if kind == kindChain {
		ref, n := binary.Uvarint(r.Ops)
		if n <= 0 || ref > uint64(len(r.Ops)-n) {
			return nil, errRecordChain
		}
		if r.Chain, err = wire.ParseChainRef(r.Ops[n : n+int(ref)]); err != nil {
			return nil, err
		}
		r.Chain.ID = r.ID
		r.Ops = r.Ops[n+int(ref):]
		if inline := r.Count - r.Chain.Count; inline < 0 || inline > len(r.Ops) {
			return nil, errRecordChain
		}
	}
	return b[end:], nil
}
