package segment

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

func TestRecord(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		want := randomRecord(r)
		want.ID, want.Time = batchlog.ID(r.Uint64()>>r.IntN(64)), int64(r.Uint64()>>r.IntN(64))
		b, stored := AppendRecord([]byte("before"), want)
		if len(b)-6 != RecordSize(&want) {
			t.Fatalf("%d bytes, RecordSize says %d", len(b)-6, RecordSize(&want))
		}
		if !sameRecord(&stored, &want) {
			t.Fatalf("stored as %+v, want %+v", stored, want)
		}
		if len(stored.Ops) > 0 && &stored.Ops[0] != &b[len(b)-len(stored.Ops)] {
			t.Fatal("the record that is returned has ops of its own")
		}
		b = append(b[6:], "rest"...)
		var got wire.Record
		rest, err := ParseRecord(b, &got)
		if err != nil || string(rest) != "rest" || !sameRecord(&got, &want) {
			t.Fatalf("%+v, rest %q, %v, want %+v", got, rest, err, want)
		}
		if cap(got.Ops) != len(got.Ops) || cap(got.Meta) != len(got.Meta) {
			t.Fatal("an append to a record's parts could reach its neighbours")
		}
		for n := range len(b) - len("rest") {
			if _, err := ParseRecord(b[:n], &got); err == nil {
				t.Fatalf("accepted with %d of %d bytes", n, len(b)-4)
			}
		}
	}
}

func TestRecordMalformed(t *testing.T) {
	good, _ := AppendRecord(nil, wire.Record{ID: 1, Time: 2, Count: 300, Meta: []byte("meta"), Ops: []byte("ops")})
	for _, c := range []struct {
		name   string
		change func(b []byte)
		want   error
	}{
		{"another kind", func(b []byte) { b[recordKind] = 2 }, errRecordKind},
		{"larger than what is there", func(b []byte) { le.PutUint32(b, le.Uint32(b)+1) }, errRecordSize},
		{"as large as can be", func(b []byte) { le.PutUint32(b, 1<<32-1) }, errRecordSize},
		{"no room for the count", func(b []byte) { le.PutUint32(b, 0) }, errRecordSize},
		{"more ops than bytes", func(b []byte) { b[recordHead+1] = 0x7f }, errRecordSize},
		{"more meta than bytes", func(b []byte) { b[recordHead+2] = 9 }, errRecordMeta},
		{"no room for the meta's length", func(b []byte) { le.PutUint32(b, 2) }, errRecordSize},
	} {
		b := bytes.Clone(good)
		c.change(b)
		var r wire.Record
		if _, err := ParseRecord(b, &r); !errors.Is(err, c.want) && err == nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestGroup(t *testing.T) {
	m := random(3, 20)
	all, err := readAll(t, m.scanner(m.b))
	if err != nil {
		t.Fatal(err)
	}
	wantRecords(t, all, m.all)
	i := 0
	if err := eachGroup(m.scanner(m.b), func(g Group, _ []byte) {
		if g != m.groups[i] {
			t.Errorf("group %+v, want %+v", g, m.groups[i])
		}
		if g.Offset%groupAlign != 0 {
			t.Errorf("group at %d", g.Offset)
		}
		i++
	}); err != nil {
		t.Fatal(err)
	}
}

func eachGroup(s *Scanner, visit func(g Group, records []byte)) error {
	for {
		g, records, err := s.Group()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		visit(g, records)
	}
}

// Every change of one byte is found in the group where it is, and what is before it is read; between groups it has no meaning.
func TestGroupFlips(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(300), put(path("b", 7), "key", "value"))
	m.add(wire.Record{Meta: []byte("\x01\x03tok")})
	m.add(sized(1), sized(2), sized(3))
	for i := HeaderSize; i < len(m.b); i++ {
		in := -1
		for n, g := range m.groups {
			if int64(i) >= g.Offset && int64(i) < g.End() {
				in = n
			}
		}
		for _, x := range []byte{1, 0x10, 0x80, 0xff} {
			m.b[i] ^= x
			all, err := readAll(t, m.scanner(m.b))
			m.b[i] ^= x
			if in < 0 {
				if err != nil {
					t.Fatalf("byte %d, between groups: %v", i, err)
				}
				continue
			}
			if d := damage(t, err); d.Offset != m.groups[in].Offset || d.ID != m.groups[in].First {
				t.Fatalf("byte %d of group %d: %+v", i, in, d)
			}
			wantRecords(t, all, m.all[:m.groups[in].First-1])
		}
	}
}

// The sums hold, and yet the groups are not those that belong here.
func TestGroupStrangers(t *testing.T) {
	m := random(5, 3)
	scan := func(change func(s *Scanner)) error {
		s := m.scanner(m.b)
		change(s)
		_, err := readAll(t, s)
		return err
	}
	for _, c := range []struct {
		name   string
		change func(s *Scanner)
		want   error
	}{
		{"of another file", func(s *Scanner) { s.Salt++ }, errGroupHead},
		{"behind another one", func(s *Scanner) { s.Chain++ }, errGroupChain},
		{"with another id", func(s *Scanner) { s.ID++ }, errGroupID},
		{"beyond the end", func(s *Scanner) { s.End-- }, errGroupEnd},
		{"that begins behind the end", func(s *Scanner) { s.End = m.groups[2].Offset + GroupHead - 1 }, errGroupEnd},
	} {
		if err := scan(c.change); !errors.Is(err, c.want) || !errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("group %s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A size above the bound is refused before memory is taken for it.
func TestGroupTooLarge(t *testing.T) {
	b := make([]byte, GroupHead)
	putGroup(b, Group{}, 0)
	le.PutUint32(b[groupSize:], MaxGroupBytes+1)
	le.PutUint32(b[groupSum:], crcOf(b[groupSize:GroupHead]))
	if _, err := parseGroup(b, 0, 0, MaxGroupBytes); !errors.Is(err, errGroupHead) {
		t.Error(err)
	}
	le.PutUint32(b[groupSize:], MaxGroupBytes)
	le.PutUint32(b[groupSum:], crcOf(b[groupSize:GroupHead]))
	if g, err := parseGroup(b, 0, 0, MaxGroupBytes); err != nil || g.Size != MaxGroupBytes {
		t.Error(g, err)
	}
	largest := wire.Record{Count: batchlog.MaxBatchBytes, Meta: make([]byte, 1<<20), Ops: make([]byte, batchlog.MaxBatchBytes-1<<20)}
	if n := RecordSize(&largest); n > MaxGroupBytes {
		t.Errorf("the largest batch takes %d bytes, no group takes that", n)
	}
}

func TestCheckRecords(t *testing.T) {
	m := newMaker(testHeader)
	g := m.add(sized(10), sized(20), sized(30))
	records := m.b[g.Offset+GroupHead:]
	check := func(g Group, records []byte, last int64) (newest int64, ids []batchlog.ID, err error) {
		newest, err = CheckRecords(g, records, last, func(r *wire.Record) error {
			ids = append(ids, r.ID)
			return nil
		})
		return newest, ids, err
	}
	if newest, ids, err := check(g, records, m.time); err != nil || newest != m.time || len(ids) != 3 || ids[2] != 3 {
		t.Fatal(newest, ids, err)
	}
	if _, _, err := check(g, records, m.time+1); !errors.Is(err, errGroupTime) {
		t.Errorf("commit before the last: %v", err)
	}
	fewer, more, later := g, g, g
	fewer.Count--
	more.Count++
	later.First++
	if _, ids, err := check(fewer, records, 0); !errors.Is(err, errGroupCount) || len(ids) != 2 {
		t.Errorf("records behind the last: %v", err)
	}
	if _, _, err := check(more, records, 0); !errors.Is(err, errRecordSize) {
		t.Errorf("record too few: %v", err)
	}
	if _, _, err := check(later, records, 0); !errors.Is(err, errGroupID) {
		t.Errorf("other id: %v", err)
	}
	stop := errors.New("stop")
	if _, err := CheckRecords(g, records, 0, func(*wire.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of visit: %v", err)
	}
}

func TestAlign(t *testing.T) {
	for offset, want := range map[int64]int64{0: 0, 1: 8, 7: 8, 8: 8, 9: 16, HeaderSize: HeaderSize} {
		if got := Align(offset); got != want {
			t.Errorf("Align(%d) = %d, want %d", offset, got, want)
		}
	}
}
