package batchlog

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

// A decodedOp is an op as NextOp returns it.
type decodedOp struct {
	kind       OpKind
	key, value string
}

func decodeOps(ops []byte, count int) (all []decodedOp, rest []byte, err error) {
	for range count {
		kind, key, value, next, err := wire.NextOp(ops)
		if err != nil {
			return all, ops, err
		}
		all = append(all, decodedOp{kind, string(key), string(value)})
		ops = next
	}
	return all, ops, nil
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
	good := wire.AppendOp(nil, OpPut, key(a, "k"), nil)
	for _, c := range []struct {
		name  string
		ops   []byte
		count int
		want  error // nil: accepted
	}{
		{"none", nil, 0, nil},
		{"put", good, 1, nil},
		{"two", append(bytes.Clone(good), good...), 2, nil},
		{"empty key", wire.AppendOp(nil, OpPut, a, nil), 1, nil},
		{"delete", wire.AppendOp(nil, OpDelete, key(a, "\xff"), nil), 1, nil},
		{"range", wire.AppendOp(nil, OpDeleteRange, key(a, "a"), key(a, "b")), 1, nil},
		{"range without a bound", wire.AppendOp(nil, OpDeleteRange, a, wire.AfterOwn(a)), 1, nil},
		{"range over the root's own keys", wire.AppendOp(nil, OpDeleteRange, wire.RootPath, []byte{0xa0, 1}), 1, nil},
		{"as deep as may be", wire.AppendOp(nil, OpPut, closedPath(deep[1:]...), nil), 1, nil},
		{"largest key", wire.AppendOp(nil, OpPut, key(a, strings.Repeat("k", MaxKeyBytes-len(a))), nil), 1, nil},

		{"fewer than said", good, 2, wire.ErrOpTruncated},
		{"more than said", append(bytes.Clone(good), good...), 1, errAny},
		{"a count below zero", nil, -1, errAny},
		{"unknown kind", []byte{2, 0}, 1, wire.ErrOpKind},
		{"key too large", wire.AppendOp(nil, OpPut, key(a, strings.Repeat("k", MaxKeyBytes-len(a)+1)), nil), 1, ErrTooLarge},
		{"bound too large", wire.AppendOp(nil, OpDeleteRange, a, key(a, strings.Repeat("k", MaxKeyBytes-len(a)+1))), 1, ErrTooLarge},
		{"value too large", wire.AppendOp(nil, OpPut, a, make([]byte, MaxValueBytes+1)), 1, ErrTooLarge},
		{"too deep", wire.AppendOp(nil, OpPut, closedPath(deep...), nil), 1, ErrTooLarge},
		{"key of no space", wire.AppendOp(nil, OpPut, []byte{0, 'a'}, nil), 1, wire.ErrOpKey},
		{"empty stored key", wire.AppendOp(nil, OpPut, nil, nil), 1, wire.ErrOpKey},
		{"path without an end", wire.AppendOp(nil, OpPut, []byte{0xa0, 0x70, 'a', 0}, nil), 1, wire.ErrOpKey},
		{"path of what Append does not write", wire.AppendOp(nil, OpPut, []byte{0xa0, 0x70, 1, 7, 0, 0}, nil), 1, wire.ErrOpKey},
		{"range out of its space", wire.AppendOp(nil, OpDeleteRange, a, key(closedPath("b"), "k")), 1, wire.ErrOpKey},
		{"range into the spaces within", wire.AppendOp(nil, OpDeleteRange, a, key(wire.Open(a), "\xff")), 1, wire.ErrOpKey},
		{"range to the end of all", wire.AppendOp(nil, OpDeleteRange, a, []byte{0xff}), 1, wire.ErrOpKey},
		{"range without a high", wire.AppendOp(nil, OpDeleteRange, a, nil), 1, wire.ErrOpKey},
		{"range upside down", wire.AppendOp(nil, OpDeleteRange, key(a, "b"), key(a, "a")), 1, wire.ErrOpKey},
		{"range without keys", wire.AppendOp(nil, OpDeleteRange, key(a, "b"), key(a, "b")), 1, wire.ErrOpKey},
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
	a, root := closedPath("a", 1), wire.RootPath
	ops := wire.AppendOp(nil, OpPut, append(bytes.Clone(a), 'k'), []byte("value"))
	ops = wire.AppendOp(ops, OpDelete, append(bytes.Clone(root), 0xff), nil)
	ops = wire.AppendOp(ops, OpDeleteRange, a, wire.AfterOwn(a))
	ops = wire.AppendOp(ops, OpDeleteRange, a, append(bytes.Clone(a), 'z'))
	return [][]byte{nil, ops, wire.AppendOp(bytes.Clone(ops), OpPut, []byte{0, 'x'}, []byte("y")), {15, 2, 0xa0, 0, 2, 0xa0, 1}, {1, 0x80, 0}, {7}}
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
		_, ref, err := parseValue(appendBlobRef(nil, BlobRef{Size: size}))
		if err != nil || ref.Size != size {
			t.Errorf("size %d is read back as %+v, %v", size, ref, err)
		}
	}
}
