package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/bytespace/batchlog/bytewise"
)

// A decodedOp is an op as NextOp returns it.
type decodedOp struct {
	kind       Kind
	key, value string
}

func decodeOps(ops []byte, count int) (all []decodedOp, rest []byte, err error) {
	for range count {
		kind, key, value, next, err := NextOp(ops)
		if err != nil {
			return all, ops, err
		}
		all = append(all, decodedOp{kind, string(key), string(value)})
		ops = next
	}
	return all, ops, nil
}

func TestOp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(most int) string {
		b := make([]byte, r.IntN(most))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	for range 500 {
		var want []decodedOp
		var ops []byte
		for range r.IntN(5) {
			op := decodedOp{[]Kind{Put, Delete, DeleteRange}[r.IntN(3)], text(300), text(300)}
			if op.kind == Delete {
				op.value = ""
			}
			want = append(want, op)
			ops = AppendOp(ops, op.kind, []byte(op.key), []byte(op.value))
		}
		got, rest, err := decodeOps(ops, len(want))
		if err != nil || len(rest) != 0 || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, rest %x, %v, want %+v", got, rest, err, want)
		}
		for n := range ops {
			if got, rest, err := decodeOps(ops[:n], len(want)); err == nil {
				t.Fatalf("%d of %d bytes are %+v, rest %x", n, len(ops), got, rest)
			}
		}
	}
	if _, _, _, _, err := NextOp(nil); !errors.Is(err, ErrOpTruncated) {
		t.Error(err)
	}
	for kind := range 256 {
		_, _, _, _, err := NextOp([]byte{byte(kind), 0, 0})
		known := kind == 0 || kind == 1 || kind == 15 // the numbers of the format, whatever the constants say
		if (err == nil) != known || !known && !errors.Is(err, ErrOpKind) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

// The parts of an op don't reach into what is behind them.
func TestOpCapped(t *testing.T) {
	ops := AppendOp(nil, Put, []byte("key"), []byte("value"))
	ops = AppendOp(ops, Put, bytes.Repeat([]byte("k"), 200), bytes.Repeat([]byte("v"), 200))
	want := bytes.Clone(ops)
	for rest := ops; len(rest) > 0; {
		_, key, value, next, err := NextOp(rest)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = append(key, "!!!!"...), append(value, "!!!!"...)
		rest = next
	}
	if !bytes.Equal(ops, want) {
		t.Error("an append to a key or a value changed an op")
	}
}

func TestOpKind(t *testing.T) {
	for kind, want := range map[Kind]string{Put: "put", Delete: "del", DeleteRange: "delRange", 7: "OpKind(7)"} {
		if kind.String() != want {
			t.Errorf("%d is %s", uint8(kind), kind)
		}
	}
}

// An op that is decoded is encoded to what is decoded as the same.
func FuzzNextOp(f *testing.F) {
	for _, ops := range opSeeds() {
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		for rest := ops; ; {
			kind, key, value, next, err := NextOp(rest)
			if err != nil {
				return
			}
			if len(next) >= len(rest) || !bytes.HasSuffix(rest, next) {
				t.Fatalf("%x goes on with %x", rest, next)
			}
			written := AppendOp(nil, kind, key, value)
			kind2, key2, value2, none, err := NextOp(written)
			if err != nil || kind2 != kind || !bytes.Equal(key2, key) || !bytes.Equal(value2, value) || len(none) > 0 || len(written) > len(rest)-len(next) {
				t.Fatalf("%x is written %x", rest[:len(rest)-len(next)], written)
			}
			if path, k, err := SplitKey(key); err == nil && (len(path) < 2 || !bytes.Equal(append(path, k...), key)) {
				t.Fatalf("%x is split into %x and %x", key, path, k)
			}
			rest = next
		}
	})
}

// An uvarint may be written in more bytes than it needs; the numbers count.
func TestCutString(t *testing.T) {
	for _, c := range []struct {
		b       string
		s, rest string
		ok      bool
	}{
		{"", "", "", false},
		{"\x00", "", "", true},
		{"\x02abc", "ab", "c", true},
		{"\x03ab", "", "", false},
		{"\x82\x00abc", "ab", "c", true},
		{"\x80", "", "", false},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc", "", "", false},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc", "", "", false},
	} {
		s, rest, ok := cutString([]byte(c.b))
		if string(s) != c.s || string(rest) != c.rest || ok != c.ok {
			t.Errorf("%x is %q, %q, %v", c.b, s, rest, ok)
		}
	}
	long := binary.AppendUvarint(nil, 300)
	if s, rest, ok := cutString(append(long, make([]byte, 301)...)); len(s) != 300 || len(rest) != 1 || !ok {
		t.Error(len(s), len(rest), ok)
	}
}
func closedPath(parts ...any) []byte {
	b, err := bytewise.Encode(parts)
	if err != nil {
		panic(err)
	}
	return b
}

// Ops in two forms of the same commit: as a batch encodes them and with the system's own among them.
func opSeeds() [][]byte {
	a, root := closedPath("a", 1), RootPath
	ops := AppendOp(nil, Put, append(bytes.Clone(a), 'k'), []byte("value"))
	ops = AppendOp(ops, Delete, append(bytes.Clone(root), 0xff), nil)
	ops = AppendOp(ops, DeleteRange, a, AfterOwn(a))
	ops = AppendOp(ops, DeleteRange, a, append(bytes.Clone(a), 'z'))
	return [][]byte{nil, ops, AppendOp(bytes.Clone(ops), Put, []byte{0, 'x'}, []byte("y")), {15, 2, 0xa0, 0, 2, 0xa0, 1}, {1, 0x80, 0}, {7}}
}
