package batchlog

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog/internal/wire"
)

// Ops that no batch makes are an error of the commit, not what they seem to be; those before them are yielded.
func TestCommitMalformed(t *testing.T) {
	a, b := closedPath("a"), closedPath("b")
	good := wire.AppendOp(nil, OpPut, a, nil)
	for name, bad := range map[string][]byte{
		"range into another space":       wire.AppendOp(nil, OpDeleteRange, a, b),
		"range over the spaces within":   wire.AppendOp(nil, OpDeleteRange, a, append(bytes.Clone(wire.Open(a)), 0xff)),
		"range without an upper bound":   wire.AppendOp(nil, OpDeleteRange, a, nil),
		"path that has no value":         wire.AppendOp(nil, OpPut, []byte{0xa0, 0x70, 1, 7, 0, 0}, nil),
		"path that is too deep":          wire.AppendOp(nil, OpPut, closedPath(make([]any, MaxPathDepth+1)...), nil),
		"path without an end":            wire.AppendOp(nil, OpPut, []byte{0xa0, 0x70, 'a', 0}, nil),
		"op that ends early":             good[:len(good)-2],
		"op of a kind that is not known": {99},
	} {
		db := New(nil)
		var c Commit
		if err := c.read(&wire.Record{ID: 7, Count: 2, Ops: append(bytes.Clone(good), bad...)}, &lens{db: db}); err != nil {
			t.Fatal(err)
		}
		ops, errs := 0, []error(nil)
		for op, err := range c.Ops() {
			if err != nil {
				errs = append(errs, err)
			} else if ops++; !op.Space.Equal(db.Space("a")) {
				t.Errorf("%s: op %+v", name, op)
			}
		}
		if ops != 1 || len(errs) != 1 {
			t.Errorf("%s: %d ops, errors %v", name, ops, errs)
		}
	}
}

// A commit of any bytes, as a damaged or a hostile engine may hand it out: ops or an error, never a panic, not even from
// what the ops say of themselves.
func FuzzCommit(f *testing.F) {
	for _, ops := range opSeeds() {
		f.Add(ops, 4, []byte(nil), []byte{0xa0})
		f.Add(ops, 1, wire.AppendLabel(nil, "a", "b"), wire.Open(closedPath("a")))
	}
	f.Add(wire.AppendOp(nil, OpPut, []byte{0xa0, 0x70, 1, 7, 0, 0}, nil), 1, []byte{9}, []byte(nil))
	f.Add(wire.AppendOp(nil, OpPut, closedPath(make([]any, 40)...), nil), 1, []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, ops []byte, count int, meta, within []byte) {
		db := New(nil)
		l := &lens{db: db}
		if len(within) > 0 {
			l.opens = [][]byte{within}
		}
		var c Commit
		r := wire.Record{ID: 7, Time: 1 << 50, Count: min(count, 1<<20), Meta: meta, Ops: ops}
		if err := c.read(&r, l); err != nil {
			return
		}
		shown := 0
		for op, err := range c.Ops() {
			if err != nil {
				break
			}
			shown++
			_ = fmt.Sprint(op.Space, op.Space.Path(), op.Key, op.High, op.In(db.Root()))
			if !db.Root().Contains(op.Space) && (len(within) == 0 || !db.Inside().System().Contains(op.Space)) {
				t.Fatalf("op %+v is outside of the root", op)
			}
			if !bytes.HasPrefix(op.Space.storedKey(op.Key), within) {
				t.Fatalf("op %+v is outside of what the tail is about", op)
			}
		}
		if shown > c.Len() && c.Len() >= 0 || c.Size() != len(ops) {
			t.Fatalf("%d ops of %d", shown, c.Len())
		}
	})
}
