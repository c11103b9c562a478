package segment

import (
	"bytes"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

var update = flag.Bool("update", false, "write the golden file anew; one that was released stays as it is for ever")

// golden is the segment in testdata/segment-v1.bin: two blocks, every kind of op, meta, and a gap before the footer.
func golden(t *testing.T) (m *maker, x *Index, sealed []byte) {
	t.Helper()
	m = newMaker(Header{
		Version: 1, Epoch: 2, First: 41,
		Database: UUID{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x46, 0x17, 0x98, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f},
		Segment:  UUID{0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x46, 0x27, 0x98, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f},
	})
	m.time = 1_794_000_000_000_000
	users, eu, deep := path("users"), path("users", "eu"), path(1, nil, true, []any{"x"}, []byte{0})
	ops := wire.AppendOp(nil, batchlog.OpPut, append(bytes.Clone(users), "alice"...), []byte("1"))
	ops = wire.AppendOp(ops, batchlog.OpDelete, append(bytes.Clone(eu), "bob"...), nil)
	ops = wire.AppendOp(ops, batchlog.OpDeleteRange, eu, append(bytes.Clone(eu[:len(eu)-1]), 1))
	ops = wire.AppendOp(ops, batchlog.OpPut, deep, nil)
	m.add(wire.Record{Count: 4, Ops: ops, Meta: []byte("\x01\x05token\x02\x08\x05actorme")}, wire.Record{})
	m.add(put(users, "long", strings.Repeat("0123456789abcdef", 1<<10)))
	m.add(put(eu, "", ""), put(path(), "\xff\xff", "root"), wire.Record{Meta: []byte("\x03\x01\x00")})
	x = build(t, m, [32]byte{0: 0xaa, 31: 0xbb})
	m.b = append(m.b, make([]byte, Align(m.end())-m.end())...)
	return m, x, seal(x, m, Align(m.end())+1000)
}

// The file that version 1 made once is read for ever, and today's writer still makes the same.
func TestGolden(t *testing.T) {
	const name = "testdata/segment-v1.bin"
	m, x, sealed := golden(t)
	if *update {
		if err := os.WriteFile(name, sealed, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseHeader(b, name)
	if err != nil || h != m.h {
		t.Fatalf("header %+v, %v, want %+v", h, err, m.h)
	}
	got, err := ReadIndex(bytes.NewReader(b), int64(len(b)), name, h.Salt())
	if err != nil || !reflect.DeepEqual(got, x) {
		t.Fatalf("index %+v, %v, want %+v", got, err, x)
	}
	all, err := readAll(t, m.scanner(b))
	if err != nil {
		t.Fatal(err)
	}
	wantRecords(t, all, m.all)
	rebuilt, err := Build(bytes.NewReader(b), h, name, got.End, got.Prev)
	if err != nil || !reflect.DeepEqual(rebuilt, got) {
		t.Fatalf("index built anew %+v, %v", rebuilt, err)
	}
	if !bytes.Equal(sealed, b) {
		at := 0
		for at < min(len(b), len(sealed)) && b[at] == sealed[at] {
			at++
		}
		t.Errorf("the writer makes another file: %d bytes, was %d, different from byte %d on", len(sealed), len(b), at)
	}
}

// Every change of one byte of a sealed file is found, or it is in a place that means nothing: the rest of the header's
// page, the gaps between groups, and the zeros before the footer. What is before the end of the groups the hash knows even so.
func TestGoldenFlips(t *testing.T) {
	m, want, b := golden(t)
	index := Align(want.End)
	zeros := index + int64(len(want.Append(nil)))
	found, harmless := 0, 0
	for i := range int64(len(b)) {
		if i > HeaderSize+400 && i < HeaderSize+16<<10 && i%61 != 0 || i > headerEnd && i < HeaderSize && i%13 != 0 {
			continue // the middle of the long value
		}
		b[i] ^= 1 << (i % 8)
		if m.finds(b, want) {
			found++
		} else {
			harmless++
			all, _ := readAll(t, m.scanner(b))
			wantRecords(t, all, m.all)
			built, err := Build(bytes.NewReader(b), m.h, "x.seg", want.End, want.Prev)
			if err != nil || (built.Hash == want.Hash) != (i >= want.End) {
				t.Fatalf("byte %d: hash %x, %v", i, built.Hash, err)
			}
		}
		b[i] ^= 1 << (i % 8)
	}
	gaps := int64(1) // the byte behind the header, and every 13th up to the groups
	for i := headerEnd + 1; i < HeaderSize; i++ {
		if i%13 == 0 {
			gaps++
		}
	}
	for i, g := range m.groups {
		next := index
		if i+1 < len(m.groups) {
			next = m.groups[i+1].Offset
		}
		gaps += next - g.End()
	}
	gaps += int64(len(b)) - FooterSize - zeros
	if int64(harmless) != gaps || found == 0 {
		t.Errorf("%d flips were harmless, want %d; %d were found", harmless, gaps, found)
	}
}

// finds reports whether something refuses b, a sealed file. What isn't refused must be the same as ever.
func (m *maker) finds(b []byte, want *Index) bool {
	h, err := ParseHeader(b, "x.seg")
	if err != nil {
		return true
	}
	x, err := ReadIndex(bytes.NewReader(b), int64(len(b)), "x.seg", m.h.Salt())
	if err != nil {
		return true
	}
	if h != m.h || !reflect.DeepEqual(x, want) {
		panic("another header or index, and nobody minds")
	}
	return eachGroup(m.scanner(b), func(Group, []byte) {}) != nil
}
