package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// goldenChain is the chain in testdata/chain-v1.bin: two groups, in two stretches, with every kind of op; and how a record refers to it.
func goldenChain(t *testing.T) (file []byte, h Header, ref *wire.ChainRef) {
	t.Helper()
	h = Header{
		Version: 1, Epoch: 2,
		Database: UUID{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x46, 0x17, 0x98, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f},
		Segment:  UUID{0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x46, 0x37, 0x98, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x01},
	}
	var f memory
	w, err := NewChainWriter(&f, h)
	if err != nil {
		t.Fatal(err)
	}
	users, eu := path("users"), path("users", "eu")
	ops := wire.AppendOp(nil, batchlog.OpDeleteRange, users, append(bytes.Clone(users[:len(users)-1]), 1))
	ops = wire.AppendOp(ops, batchlog.OpPut, append(bytes.Clone(users), "alice"...), []byte("1"))
	ops = wire.AppendOp(ops, batchlog.OpDelete, append(bytes.Clone(eu), "bob"...), nil)
	second := wire.AppendOp(nil, batchlog.OpPut, append(bytes.Clone(users), "alice"...), []byte("2"))
	if err := errors.Join(w.Add(ops, 3), w.Add(second, 1)); err != nil {
		t.Fatal(err)
	}
	m := w.Mark()
	ref = &wire.ChainRef{
		File: h.Segment, Sum: m.Sum, Count: m.Count, Bytes: m.Bytes, End: m.End, ID: 7,
		Spans: []wire.KeyRange{{Low: users, High: append(bytes.Clone(users[:len(users)-1]), 1)}, {Low: eu, High: append(bytes.Clone(eu), 'c')}},
	}
	return f, h, ref
}

// A memory is a file.
type memory []byte

func (m *memory) WriteAt(b []byte, offset int64) (int, error) {
	if more := int(offset) + len(b) - len(*m); more > 0 {
		*m = append(*m, make([]byte, more)...)
	}
	return copy((*m)[offset:], b), nil
}

// readChain is the ops of a chain, as text.
func readChain(b []byte, h Header, ref *wire.ChainRef) (text string, err error) {
	r := NewChainReader(bytes.NewReader(b), h, "chain", ref)
	for {
		ops, count, err := r.Next()
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return text, err
		}
		if err := wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
			text += fmt.Sprintf("%s %q %q\n", kind, key, value)
			return nil
		}); err != nil {
			return text, err
		}
	}
}

// The file that version 1 made once is read for ever, and today's writer still makes the same; so it is with its record.
func TestGoldenChain(t *testing.T) {
	file, h, ref := goldenChain(t)
	record, _ := AppendRecord(nil, wire.Record{ID: 7, Time: 1_794_000_000_000_000, Count: 5, Chain: ref, Meta: []byte("\x01\x05token"),
		Ops: wire.AppendOp(nil, batchlog.OpPut, path("late"), []byte("x"))})
	for name, made := range map[string][]byte{"testdata/chain-v1.bin": file, "testdata/chain-record-v1.bin": record} {
		if *update {
			if err := os.WriteFile(name, made, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(b, made) {
			t.Errorf("%s: the writer makes another one, or %v", name, err)
		}
	}
	text, err := readChain(file, h, ref)
	want := "delRange \"\\xa0pusers\\x00\\x00\" \"\\xa0pusers\\x00\\x01\"\nput \"\\xa0pusers\\x00\\x00alice\" \"1\"\n" +
		"del \"\\xa0pusers\\x00peu\\x00\\x00bob\" \"\"\nput \"\\xa0pusers\\x00\\x00alice\" \"2\"\n"
	if err != nil || text != want {
		t.Errorf("%s, %v; want\n%s", text, err, want)
	}
	var got wire.Record
	if rest, err := ParseRecord(record, &got); err != nil || len(rest) > 0 || got.Count != 5 || len(got.Ops) == 0 || fmt.Sprint(got.Chain) != fmt.Sprint(ref) {
		t.Errorf("record %+v with %+v, %v; want %+v", got, got.Chain, err, ref)
	}
}

// Every change of one byte of a chain's file is found, but in what means nothing; a file that is cut is, too, and that of another chain.
func TestChainFlips(t *testing.T) {
	file, h, ref := goldenChain(t)
	want, err := readChain(file, h, ref)
	if err != nil {
		t.Fatal(err)
	}
	first, err := parseGroup(file[HeaderSize:], HeaderSize, h.Salt(), MaxGroupBytes)
	if err != nil {
		t.Fatal(err)
	}
	for i := HeaderSize; i < len(file); i++ {
		b := bytes.Clone(file)
		b[i] ^= 1 << (i % 8)
		text, err := readChain(b, h, ref)
		if gap := int64(i) >= first.End() && int64(i) < Align(first.End()); gap {
			if err != nil || text != want {
				t.Fatalf("byte %d, which means nothing: %s, %v", i, text, err)
			}
			continue
		}
		var damage *batchlog.CorruptError
		if !errors.As(err, &damage) || damage.ID != 7 {
			t.Fatalf("byte %d: %s, %v", i, text, err)
		}
	}
	for end := HeaderSize; end < len(file); end++ {
		if _, err := readChain(file[:end], h, ref); !errors.Is(err, batchlog.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", end, err)
		}
	}
	other := *ref
	other.Sum++
	if _, err := readChain(file, h, &other); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Errorf("another sum: %v", err)
	}
	shorter := *ref
	shorter.End = HeaderSize
	if _, err := readChain(file, h, &shorter); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Errorf("another end: %v", err)
	}
}

// A writer makes no group that a reader refuses. Groups that are somewhat larger, as they were written once, are read; no others.
func TestChainGroupLimit(t *testing.T) {
	_, h, _ := goldenChain(t)
	key := append(path("s"), 'k')
	op := func(size int) []byte {
		around := len(wire.AppendOp(nil, batchlog.OpPut, key, make([]byte, 16<<20))) - 16<<20 // the length of the value takes four bytes, as below
		return wire.AppendOp(nil, batchlog.OpPut, key, make([]byte, size-around))
	}
	var limit *batchlog.LimitError
	for _, c := range []struct {
		size          int
		written, read bool
	}{
		{MaxGroupBytes - 1, true, true},
		{MaxGroupBytes, true, true},
		{MaxGroupBytes + 1, false, true},
		{maxChainGroupBytes, false, true},
		{maxChainGroupBytes + 1, false, false},
	} {
		var f memory
		w, err := NewChainWriter(&f, h)
		if err != nil {
			t.Fatal(err)
		}
		ops := op(c.size)
		err = w.Add(ops, 1)
		if c.written != (err == nil) || err != nil && (!errors.As(err, &limit) || limit.Limit != MaxGroupBytes || limit.Size != int64(c.size)) {
			t.Errorf("%d bytes: written: %v", c.size, err)
		}
		// As it would be, had it been written.
		g := Group{Offset: HeaderSize, Size: len(ops), Count: 1, Prev: h.Chain(), First: 1}
		b := append(make([]byte, GroupHead), ops...)
		sum := putGroup(b, g, h.Salt())
		if _, err := f.WriteAt(b, HeaderSize); err != nil {
			t.Fatal(err)
		}
		ref := &wire.ChainRef{Sum: sum, Count: 1, Bytes: int64(len(ops)), End: g.End(), ID: 7}
		r := NewChainReader(bytes.NewReader(f), h, "chain", ref)
		got, n, err := r.Next()
		if c.read != (err == nil) || err == nil && (n != 1 || !bytes.Equal(got, ops)) || err != nil && !errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("%d bytes: read: %d ops, %v", c.size, n, err)
		}
	}
}

// Ops that no batch makes are damage, though the sums hold: the place is that of the op.
func TestChainMalformedOps(t *testing.T) {
	_, h, _ := goldenChain(t)
	users, other := path("users"), path("users", "eu")
	good := wire.AppendOp(nil, batchlog.OpPut, append(bytes.Clone(users), 'k'), []byte("v"))
	for name, c := range map[string]struct {
		ops   []byte
		count int
		says  int // ops, by the commit; 0: count
		at    int // where in ops the damage is; -1: at the group or the end
	}{
		"no key":             {wire.AppendOp(bytes.Clone(good), batchlog.OpPut, nil, nil), 2, 0, len(good)},
		"no key, first":      {wire.AppendOp(nil, batchlog.OpDelete, nil, nil), 1, 0, 0},
		"no space":           {wire.AppendOp(nil, batchlog.OpPut, []byte("abc"), nil), 1, 0, 0},
		"half a path":        {wire.AppendOp(nil, batchlog.OpPut, users[:len(users)-1], nil), 1, 0, 0},
		"no kind":            {append(bytes.Clone(good), 99, 1, 1), 2, 0, len(good)},
		"early end":          {good[:len(good)-1], 1, 0, 0},
		"more bytes":         {append(bytes.Clone(good), 1), 1, 0, len(good)},
		"empty range":        {wire.AppendOp(nil, batchlog.OpDeleteRange, users, users), 1, 0, 0},
		"range over spaces":  {wire.AppendOp(nil, batchlog.OpDeleteRange, users, append(bytes.Clone(other), 0xff)), 1, 0, 0},
		"range without end":  {wire.AppendOp(nil, batchlog.OpDeleteRange, users, nil), 1, 0, 0},
		"more ops than said": {bytes.Repeat(good, 2), 2, 1, -1},
		"fewer than said":    {good, 1, 2, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var f memory
			w, err := NewChainWriter(&f, h)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Add(good, 1), w.Add(c.ops, c.count)); err != nil {
				t.Fatal(err)
			}
			m := w.Mark()
			ref := &wire.ChainRef{Sum: m.Sum, Count: m.Count, Bytes: m.Bytes, End: m.End, ID: 7}
			if c.says > 0 {
				ref.Count = 1 + c.says
			}
			_, err = readChain(f, h, ref)
			var damage *batchlog.CorruptError
			if !errors.As(err, &damage) || damage.ID != 7 || damage.File != "chain" {
				t.Fatalf("%v, want a *CorruptError of commit 7", err)
			}
			second := Align(HeaderSize + GroupHead + int64(len(good)))
			if c.at >= 0 && damage.Offset != second+GroupHead+int64(c.at) || damage.Offset < second {
				t.Errorf("damage at byte %d, want %d", damage.Offset, second+GroupHead+int64(c.at))
			}
		})
	}
}
