package segment

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A header that is accepted is written as it was read.
func FuzzParseHeader(f *testing.F) {
	page := AppendHeader(nil, testHeader)
	f.Add(page[:headerEnd], false)
	f.Add(page, true)
	newer := testHeader
	newer.Version++
	f.Add(AppendHeader(nil, newer)[:headerEnd], true)
	f.Fuzz(func(t *testing.T, b []byte, resum bool) {
		if resum && len(b) >= headerEnd {
			copy(b, headerMagic)
			le.PutUint32(b[headerSum:], crcOf(b[:headerSum]))
		}
		h, err := ParseHeader(b, "x.seg")
		var newer *batchlog.VersionError
		switch {
		case errors.As(err, &newer):
			if newer.Version <= Version {
				t.Errorf("version %d is refused as a newer one", newer.Version)
			}
		case err != nil:
			_ = damage(t, err)
		default:
			got := AppendHeader(nil, h)[:headerEnd]
			copy(got[headerLog+4:headerSum], b[headerLog+4:]) // four bytes that mean nothing
			le.PutUint32(got[headerSum:], crcOf(got[:headerSum]))
			if !bytes.Equal(got, b[:headerEnd]) {
				t.Errorf("%x is read as %+v, which is written as %x", b[:headerEnd], h, got)
			}
		}
	})
}

// A record that is accepted is read as the same when it is written again; nothing reaches beyond it.
func FuzzParseRecord(f *testing.F) {
	for _, r := range random(40, 4).all {
		b, _ := AppendRecord(nil, r)
		f.Add(b)
		f.Add(append(b, b...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again wire.Record
		rest, err := ParseRecord(b, &r)
		if err != nil {
			return
		}
		size := len(b) - len(rest)
		if r.Count < 0 || RecordSize(&r) > size || !bytes.HasSuffix(b, rest) || len(r.Meta)+len(r.Ops) > size-recordHead {
			t.Fatalf("%+v of %d bytes", r, size)
		}
		if r.Count > len(r.Ops) {
			return // nonsense, which the ops show; read anew it may be refused at once
		}
		written, _ := AppendRecord(nil, r)
		if rest, err := ParseRecord(written, &again); err != nil || len(rest) > 0 || !sameRecord(&again, &r) {
			t.Fatalf("%+v is written and read as %+v, %v", r, again, err)
		}
	})
}

// An index that is accepted is read as the same when it is written again.
func FuzzParseIndex(f *testing.F) {
	m := random(41, 4)
	x, err := Build(bytes.NewReader(m.b), m.h, "x.seg", m.end(), [32]byte{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x.Append(nil))
	x.Spaces = []uint32{1, 1 << 31}
	x.End += 1 << 20
	x.Blocks = append(x.Blocks, Block{Offset: x.End - 100, Size: 50, Count: 2, First: x.Last + 1, Time: x.LastTime, Spaces: []uint32{0, 1}})
	f.Add(x.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseIndex(b)
		if err != nil {
			return
		}
		again, err := ParseIndex(x.Append(nil))
		if err != nil || !reflect.DeepEqual(x, again) {
			t.Fatalf("%+v is written and read as %+v, %v", x, again, err)
		}
		x.Find(x.First)
		x.FindTime(x.LastTime)
		touch := x.Positions([]uint32{0, 1, 1 << 31})
		for i := range x.Blocks {
			b := &x.Blocks[i]
			b.MayTouch(touch)
			if offset, _ := x.Group(i); offset < HeaderSize || b.Size < 0 || b.End() > x.End || b.Count < 1 {
				t.Fatalf("block %+v of a group at %d", b, offset)
			}
			for _, p := range b.Spaces {
				if int(p) >= len(x.Spaces) {
					t.Fatalf("block %+v with %d spaces", b, len(x.Spaces))
				}
			}
		}
	})
}

// resum makes the first n groups in body, which begins at HeaderSize, hold: magic, sizes, sums and chain. What else is
// in them stays as it is. Without that a fuzzer would hardly get past a sum.
func resum(h Header, body []byte, n int) {
	chain := h.Chain()
	for at := 0; n > 0 && at+GroupHead <= len(body); n-- {
		b := body[at:]
		size := min(int(le.Uint32(b[groupSize:]))%(1<<16), len(b)-GroupHead)
		g := Group{
			Count: int(le.Uint32(b[groupCount:])), Prev: chain,
			First: batchlog.ID(le.Uint64(b[groupFirst:])), Durable: int64(le.Uint64(b[groupDurable:])),
		}
		chain = putGroup(b[:GroupHead+size], g, h.Salt())
		at = int(Align(int64(at + GroupHead + size)))
	}
}

// seeds are bodies of segments with good groups, torn ones and strangers.
func seeds(f *testing.F) {
	f.Helper()
	m := newMaker(testHeader)
	m.add(sized(20))
	m.add(put(path("b"), "k", "v"), wire.Record{Meta: []byte("\x01\x01t")})
	m.add(sized(3))
	body := m.b[HeaderSize:]
	for _, n := range []uint8{0, 1, 2, 3} {
		f.Add(body, n, int64(0))
		f.Add(append(bytes.Clone(body), make([]byte, 100)...), n, m.end())
	}
	torn := bytes.Clone(body)
	clear(torn[len(torn)-10:])
	f.Add(torn, uint8(0), m.groups[1].End())
	f.Add([]byte{}, uint8(0), int64(0))
}

// A scanner on any bytes ends; the groups that it accepts are written as they were read.
func FuzzScanner(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, body []byte, hold uint8, _ int64) {
		body = bytes.Clone(body)
		resum(testHeader, body, int(hold))
		file := append(AppendHeader(nil, testHeader), body...)
		for _, s := range []*Scanner{
			{ID: 1, Chain: testHeader.Chain(), Chained: true},
			{}, // whatever the ids
		} {
			s.File, s.Name, s.Salt, s.Next, s.End = bytes.NewReader(file), "x.seg", testHeader.Salt(), HeaderSize, int64(len(file))
			offset := s.Next
			err := eachGroup(s, func(g Group, records []byte) {
				if g.Offset < offset || g.Offset%groupAlign != 0 || g.End() > s.End || len(records) != g.Size {
					t.Fatalf("group %+v behind %d", g, offset)
				}
				offset = g.End()
				b := append(make([]byte, GroupHead), records...)
				if sum := putGroup(b, g, s.Salt); sum != g.Sum || !bytes.Equal(b, file[g.Offset:g.End()]) {
					t.Fatalf("group %+v is written otherwise than it was read", g)
				}
				// Whatever is in it, with sums that hold, is taken or refused.
				_, _ = CheckRecords(g, records, 0, func(r *wire.Record) error {
					_ = (&indexer{spaces: map[uint32]struct{}{}}).record(r)
					return nil
				})
			})
			if err != nil {
				_ = damage(t, err)
			}
		}
	})
}

// Recover on any bytes says damage, or where the log goes on: behind groups that a scanner reads, and not before what is known
// to be durable.
func FuzzRecover(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, body []byte, hold uint8, durable int64) {
		body = bytes.Clone(body)
		resum(testHeader, body, int(hold))
		file := append(AppendHeader(nil, testHeader), body...)
		tail, err := Recover(bytes.NewReader(file), testHeader, "x.seg", int64(len(file)), durable)
		if err != nil {
			_ = damage(t, err)
			return
		}
		if tail.End < HeaderSize || tail.End > int64(len(file)) || durable > tail.End {
			t.Fatalf("ends at %d of %d, durable up to %d", tail.End, len(file), durable)
		}
		if verdict, _ := Judge(tail.Ending); verdict == VerdictDamage {
			t.Fatalf("ending %+v", tail.Ending)
		}
		s := Scanner{
			File: bytes.NewReader(file), Name: "x.seg", Salt: testHeader.Salt(), Next: HeaderSize, End: tail.End,
			ID: 1, Chain: testHeader.Chain(), Chained: true,
		}
		if err := eachGroup(&s, func(Group, []byte) {}); err != nil || s.ID != tail.Next && tail.Last != (Group{}) {
			t.Fatalf("the groups before %d: %v", tail.End, err)
		}
		// Cut there, it is the same again.
		clear(file[tail.End:])
		again, err := Recover(bytes.NewReader(file), testHeader, "x.seg", int64(len(file)), tail.End)
		again.Ending = tail.Ending
		if err != nil || !reflect.DeepEqual(again, tail) {
			t.Fatalf("cut: %+v, %v, was %+v", again, err, tail)
		}
	})
}
