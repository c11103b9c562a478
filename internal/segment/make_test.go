package segment

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

// testHeader is that of the segments which the tests make.
var testHeader = Header{
	Version:  Version,
	Database: UUID{0: 1, 15: 2},
	Segment:  UUID{0: 3, 15: 4},
	Epoch:    1,
	First:    1,
}

// A maker writes a segment as a log does.
type maker struct {
	h      Header
	b      []byte // the file so far
	groups []Group
	chain  uint32
	next   batchlog.ID
	time   int64
	first  []wire.Record // of each group
	all    []wire.Record
}

func newMaker(h Header) *maker {
	return &maker{h: h, b: AppendHeader(nil, h), chain: h.Chain(), next: h.First, time: 1_000_000}
}

// end is the offset behind the last group.
func (m *maker) end() int64 {
	if len(m.groups) == 0 {
		return HeaderSize
	}
	return m.groups[len(m.groups)-1].End()
}

// add writes records as one group, gives them ids and the next time, and returns the group.
func (m *maker) add(records ...wire.Record) Group {
	g, b := m.group(m.end(), records...)
	m.b = append(append(m.b, make([]byte, g.Offset-int64(len(m.b)))...), b...)
	m.groups = append(m.groups, g)
	m.chain = g.Sum
	m.first = append(m.first, records[0])
	m.all = append(m.all, records...)
	m.next += batchlog.ID(len(records))
	return g
}

// group is the group that the records would be, were it written now.
func (m *maker) group(durable int64, records ...wire.Record) (Group, []byte) {
	b := make([]byte, GroupHead)
	m.time += 1000
	for i := range records {
		records[i].ID, records[i].Time = m.next+batchlog.ID(i), m.time
		b, _ = AppendRecord(b, records[i])
	}
	g := Group{Offset: Align(int64(len(m.b))), Size: len(b) - GroupHead, Count: len(records), Prev: m.chain, First: m.next, Durable: durable}
	g.Sum = putGroup(b, g, m.h.Salt())
	g.body = le.Uint32(b[groupBody:])
	return g, b
}

// scanner reads what m has written.
func (m *maker) scanner(b []byte) *Scanner {
	return &Scanner{
		File: bytes.NewReader(b), Name: "x.seg", Salt: m.h.Salt(), Next: HeaderSize, End: m.end(),
		ID: m.h.First, Chain: m.h.Chain(), Chained: true,
	}
}

// path is the closed path of a space.
func path(parts ...any) []byte {
	b, err := bytewise.Encode(parts)
	if err != nil {
		panic(err)
	}
	return b
}

// put is a commit that puts one key into the space with that closed path.
func put(path []byte, key, value string) wire.Record {
	return wire.Record{Count: 1, Ops: wire.AppendOp(nil, batchlog.OpPut, append(bytes.Clone(path), key...), []byte(value))}
}

// sized is a commit whose ops take about n bytes.
func sized(n int) wire.Record { return put(path("a"), "k", string(make([]byte, n))) }

// randomPath is the closed path of one of some hundred spaces.
func randomPath(r *rand.Rand) []byte {
	parts := make([]any, r.IntN(5))
	for i := range parts {
		switch r.IntN(5) {
		case 0:
			parts[i] = r.IntN(3)
		case 1:
			parts[i] = []byte{0, byte(r.IntN(3)), 0xff}
		case 2:
			parts[i] = []any{"x", r.IntN(2)}
		case 3:
			parts[i] = "a\x00"[:1+r.IntN(2)]
		default:
			parts[i] = nil
		}
	}
	if r.IntN(8) == 0 {
		return append([]byte{systemTag}, path(parts...)...)
	}
	return path(parts...)
}

// systemTag stands in front of the paths of the system's spaces: see batchlog.DB.System.
const systemTag = 0x01

// randomRecord is any commit.
func randomRecord(r *rand.Rand) wire.Record {
	var rec wire.Record
	if r.IntN(3) == 0 {
		rec.Meta = append([]byte{1, 3}, "tok"...)
	}
	rec.Count = r.IntN(4)
	if r.IntN(20) == 0 {
		rec.Count += 200
	}
	for range rec.Count {
		p := randomPath(r)
		key := append(bytes.Clone(p), make([]byte, r.IntN(20))...)
		switch r.IntN(4) {
		case 0:
			rec.Ops = wire.AppendOp(rec.Ops, batchlog.OpDelete, key, nil)
		case 1:
			rec.Ops = wire.AppendOp(rec.Ops, batchlog.OpDeleteRange, key, append(bytes.Clone(p[:len(p)-1]), 1))
		case 2:
			rec.Ops = wire.AppendOp(rec.Ops, batchlog.OpPut, []byte{0, 'x'}, nil) // the system's own
		default:
			rec.Ops = wire.AppendOp(rec.Ops, batchlog.OpPut, key, make([]byte, r.IntN(300)))
		}
	}
	return rec
}

// random is a segment with that many groups.
func random(seed uint64, groups int) *maker {
	r := rand.New(rand.NewPCG(seed, 0))
	m := newMaker(testHeader)
	for range groups {
		records := make([]wire.Record, 1+r.IntN(4))
		for i := range records {
			records[i] = randomRecord(r)
		}
		m.add(records...)
	}
	return m
}

// sameRecord reports whether two commits are the same; nil and empty bytes are.
func sameRecord(a, b *wire.Record) bool {
	return a.ID == b.ID && a.Time == b.Time && a.Count == b.Count && bytes.Equal(a.Meta, b.Meta) && bytes.Equal(a.Ops, b.Ops)
}

// readAll returns the commits that s finds, and the error that ends them; nil at the end.
func readAll(t *testing.T, s *Scanner) ([]wire.Record, error) {
	t.Helper()
	var all []wire.Record
	err := eachGroup(s, func(g Group, records []byte) {
		if _, err := CheckRecords(g, records, 0, func(r *wire.Record) error {
			all = append(all, *r)
			return nil
		}); err != nil {
			t.Fatalf("group of commit %d: %v", g.First, err)
		}
	})
	return all, err
}

// wantRecords fails t unless got is want, or with prefix the beginning of it.
func wantRecords(t *testing.T, got, want []wire.Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d commits, want %d", len(got), len(want))
	}
	for i := range got {
		if !sameRecord(&got[i], &want[i]) {
			t.Fatalf("commit %+v, want %+v", got[i], want[i])
		}
	}
}

// damage is err as the damage that it must be.
func damage(t *testing.T, err error) *batchlog.CorruptError {
	t.Helper()
	var damage *batchlog.CorruptError
	if !errors.As(err, &damage) || !errors.Is(err, batchlog.ErrCorrupt) {
		t.Fatalf("error %v, want a CorruptError", err)
	}
	return damage
}

// crcOf is the sum of b without salt.
func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func crcUpdate(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// failingReader is a disk that can't be read from some byte on.
type failingReader struct {
	io.ReaderAt
	from int64
	err  error
}

var errDisk = errors.New("input/output error")

func (r *failingReader) ReadAt(b []byte, offset int64) (int, error) {
	if n := r.from - offset; n < int64(len(b)) {
		m, err := r.ReaderAt.ReadAt(b[:max(0, n)], offset)
		if err == nil {
			err = r.err
		}
		return m, err
	}
	return r.ReaderAt.ReadAt(b, offset)
}
