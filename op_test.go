package batchlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/bytespace/batchlog/bytewise"
)

// A decodedOp is an op as NextOp returns it.
type decodedOp struct {
	kind       OpKind
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
			op := decodedOp{[]OpKind{OpPut, OpDelete, OpDeleteRange}[r.IntN(3)], text(300), text(300)}
			if op.kind == OpDelete {
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
	if _, _, _, _, err := NextOp(nil); !errors.Is(err, errOpTruncated) {
		t.Error(err)
	}
	for kind := range 256 {
		_, _, _, _, err := NextOp([]byte{byte(kind), 0, 0})
		known := kind == 0 || kind == 1 || kind == 15 // the numbers of the format, whatever the constants say
		if (err == nil) != known || !known && !errors.Is(err, errOpKind) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

// The parts of an op don't reach into what is behind them.
func TestOpCapped(t *testing.T) {
	ops := AppendOp(nil, OpPut, []byte("key"), []byte("value"))
	ops = AppendOp(ops, OpPut, bytes.Repeat([]byte("k"), 200), bytes.Repeat([]byte("v"), 200))
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
	for kind, want := range map[OpKind]string{OpPut: "put", OpDelete: "del", OpDeleteRange: "delRange", 7: "OpKind(7)"} {
		if kind.String() != want {
			t.Errorf("%d is %s", uint8(kind), kind)
		}
	}
}

func closedPath(parts ...any) []byte {
	b, err := bytewise.Encode(parts)
	if err != nil {
		panic(err)
	}
	return b
}

func TestCheckOps(t *testing.T) {
	a := closedPath("a")
	key := func(path []byte, k string) []byte { return append(bytes.Clone(path), k...) }
	deep := make([]any, MaxPathDepth+1)
	good := AppendOp(nil, OpPut, key(a, "k"), nil)
	for _, c := range []struct {
		name  string
		ops   []byte
		count int
		want  error // nil: accepted
	}{
		{"none", nil, 0, nil},
		{"put", good, 1, nil},
		{"two", append(bytes.Clone(good), good...), 2, nil},
		{"empty key", AppendOp(nil, OpPut, a, nil), 1, nil},
		{"delete", AppendOp(nil, OpDelete, key(a, "\xff"), nil), 1, nil},
		{"range", AppendOp(nil, OpDeleteRange, key(a, "a"), key(a, "b")), 1, nil},
		{"range without a bound", AppendOp(nil, OpDeleteRange, a, afterOwn(a)), 1, nil},
		{"range over the root's own keys", AppendOp(nil, OpDeleteRange, rootPrefix, []byte{0xa0, 1}), 1, nil},
		{"as deep as may be", AppendOp(nil, OpPut, closedPath(deep[1:]...), nil), 1, nil},
		{"largest key", AppendOp(nil, OpPut, key(a, strings.Repeat("k", MaxKeyBytes-len(a))), nil), 1, nil},

		{"fewer than said", good, 2, errOpTruncated},
		{"more than said", append(bytes.Clone(good), good...), 1, errAny},
		{"a count below zero", nil, -1, errAny},
		{"unknown kind", []byte{2, 0}, 1, errOpKind},
		{"key too large", AppendOp(nil, OpPut, key(a, strings.Repeat("k", MaxKeyBytes-len(a)+1)), nil), 1, ErrTooLarge},
		{"bound too large", AppendOp(nil, OpDeleteRange, a, key(a, strings.Repeat("k", MaxKeyBytes-len(a)+1))), 1, ErrTooLarge},
		{"value too large", AppendOp(nil, OpPut, a, make([]byte, MaxValueBytes+1)), 1, ErrTooLarge},
		{"too deep", AppendOp(nil, OpPut, closedPath(deep...), nil), 1, ErrTooLarge},
		{"key of no space", AppendOp(nil, OpPut, []byte{0, 'a'}, nil), 1, errOpKey},
		{"empty stored key", AppendOp(nil, OpPut, nil, nil), 1, errOpKey},
		{"path without an end", AppendOp(nil, OpPut, []byte{0xa0, 0x70, 'a', 0}, nil), 1, errOpKey},
		{"path of what Append does not write", AppendOp(nil, OpPut, []byte{0xa0, 0x70, 1, 7, 0, 0}, nil), 1, errOpKey},
		{"range out of its space", AppendOp(nil, OpDeleteRange, a, key(closedPath("b"), "k")), 1, errOpKey},
		{"range into the spaces within", AppendOp(nil, OpDeleteRange, a, key(open(a), "\xff")), 1, errOpKey},
		{"range to the end of all", AppendOp(nil, OpDeleteRange, a, []byte{0xff}), 1, errOpKey},
		{"range without a high", AppendOp(nil, OpDeleteRange, a, nil), 1, errOpKey},
		{"range upside down", AppendOp(nil, OpDeleteRange, key(a, "b"), key(a, "a")), 1, errOpKey},
		{"range without keys", AppendOp(nil, OpDeleteRange, key(a, "b"), key(a, "b")), 1, errOpKey},
	} {
		err := CheckOps(c.ops, c.count)
		if c.want == nil && err != nil || c.want != nil && (err == nil || !errors.Is(c.want, errAny) && !errors.Is(err, c.want)) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// errAny stands for any error.
var errAny = errors.New("any error")

// Ops in two forms of the same commit: as a batch encodes them and with the system's own among them.
func opSeeds() [][]byte {
	a, root := closedPath("a", 1), rootPrefix
	ops := AppendOp(nil, OpPut, append(bytes.Clone(a), 'k'), []byte("value"))
	ops = AppendOp(ops, OpDelete, append(bytes.Clone(root), 0xff), nil)
	ops = AppendOp(ops, OpDeleteRange, a, afterOwn(a))
	ops = AppendOp(ops, OpDeleteRange, a, append(bytes.Clone(a), 'z'))
	return [][]byte{nil, ops, AppendOp(bytes.Clone(ops), OpPut, []byte{0, 'x'}, []byte("y")), {15, 2, 0xa0, 0, 2, 0xa0, 1}, {1, 0x80, 0}, {7}}
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

// What CheckOps accepts can be gone through: every op has a space with a path, and a space that was written there by a
// batch would hold the same.
func FuzzCheckOps(f *testing.F) {
	for _, ops := range opSeeds() {
		for count := range 5 {
			f.Add(ops, count)
		}
	}
	f.Fuzz(func(t *testing.T, ops []byte, count int) {
		if CheckOps(ops, count) != nil {
			return
		}
		db := New(nil)
		var b Batch
		c := Commit{count: count, ops: ops, lens: &lens{db: db}}
		for op, err := range c.Ops() {
			if err != nil {
				t.Fatal(err)
			}
			if op.Space.String() == "" || !db.Root().Contains(op.Space) || !op.In(db.Space(op.Space.Path()...)) {
				t.Fatalf("op %+v", op)
			}
			switch op.Kind {
			case OpPut:
				b.Put(op.Space, op.Key, op.Value)
			case OpDelete:
				b.Delete(op.Space, op.Key)
			case OpDeleteRange:
				b.DeleteRange(op.Space, Range{op.Key, op.High})
			}
		}
		if b.err != nil || b.Len() != count {
			t.Fatalf("a batch of the same ops has %d of %d: %v", b.Len(), count, b.err)
		}
		want, _, err := decodeOps(ops, count)
		got, rest, err2 := decodeOps(b.proposal.Ops, count)
		if err != nil || err2 != nil || len(rest) > 0 || !reflect.DeepEqual(got, want) {
			t.Fatalf("a batch of the same ops holds %+v, want %+v", got, want)
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

// A reference with a size that no blob has is refused where it is put: the log would not read it back.
func TestPutRefLimit(t *testing.T) {
	db := New(nil)
	for _, size := range []int64{-1, math.MinInt64, MaxBlobBytes + 1, math.MaxInt64} {
		var b Batch
		b.PutRef(db.Space("a"), K("the key"), BlobRef{Size: size})
		_, err := db.Write(t.Context(), &b)
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Size != size || !strings.Contains(err.Error(), "the key") || errors.Is(err, ErrCorrupt) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	for _, size := range []int64{0, MaxBlobBytes} {
		_, ref, err := ParseValue(AppendBlobRef(nil, BlobRef{Size: size}))
		if err != nil || ref.Size != size {
			t.Errorf("size %d is read back as %+v, %v", size, ref, err)
		}
	}
}
