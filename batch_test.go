package batchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// What is written is what was added, in its order, with labels sorted and the token in front.
func TestBatch(t *testing.T) {
	var got waist.Proposal
	db := New(&stub{commit: func(_ context.Context, p *waist.Proposal) (ID, error) {
		got = *p
		got.Ops, got.Meta = bytes.Clone(p.Ops), bytes.Clone(p.Meta)
		return 7, nil
	}})
	a, eu := db.Space("a"), db.Space("users", "eu")
	var b Batch
	for round := range 2 {
		key, value := Key("key"), []byte("value")
		b.Put(a, key, value)
		b.Delete(eu, K(1))
		b.DeleteRange(a, Range{Low: Key("b")})
		b.DeleteRange(a, Between(Key("b"), Key("c")))
		b.DeleteRange(a, Between(Key("c"), Key("b"))) // has no keys
		b.DeleteRange(a, Between(nil, Key{}))
		key[0], value[0] = 'X', 'X' // were copied
		b.Token, b.Labels = "token", map[string]string{"b": "2", "a": "1"}
		if b.Len() != 4 || b.Size() != len(b.proposal.Ops) {
			t.Errorf("%d ops, %d bytes", b.Len(), b.Size())
		}
		id, err := db.Write(t.Context(), &b)
		if id != 7 || err != nil {
			t.Fatal(id, err)
		}
		ops, rest, err := decodeOps(got.Ops, got.Count)
		want := []decodedOp{
			{OpPut, string(a.prefix) + "key", "value"},
			{OpDelete, string(eu.storedKey(K(1))), ""},
			{OpDeleteRange, string(a.prefix) + "b", string(wire.AfterOwn(a.prefix))},
			{OpDeleteRange, string(a.prefix) + "b", string(a.prefix) + "c"},
		}
		if err != nil || len(rest) > 0 || fmt.Sprint(ops) != fmt.Sprint(want) {
			t.Errorf("round %d: ops %v, rest %x, %v", round, ops, rest, err)
		}
		m, err := wire.DecodeMeta(got.Meta)
		if err != nil || m.Token != "token" || !maps.Equal(m.Labels, map[string]string{"a": "1", "b": "2"}) || got.Token != "token" || got.Reads != nil || got.Ticket != 0 {
			t.Errorf("round %d: meta %+v, %v of %+v", round, m, err, got)
		}
		want2 := wire.AppendLabel(wire.AppendLabel(wire.AppendToken(nil, "token"), "a", "1"), "b", "2")
		if !bytes.Equal(got.Meta, want2) {
			t.Errorf("round %d: meta %x, want %x", round, got.Meta, want2)
		}
		// Written again, it is the same.
		first := got
		if _, err := db.Write(t.Context(), &b); err != nil || !bytes.Equal(got.Ops, first.Ops) || !bytes.Equal(got.Meta, first.Meta) {
			t.Errorf("round %d: written again it is %+v, %v", round, got, err)
		}
		b.Reset()
		if b.Len() != 0 || b.Size() != 0 || b.Token != "" || b.Labels != nil {
			t.Errorf("after Reset: %+v", b)
		}
		if _, err := db.Write(t.Context(), &b); err != nil || got.Count != 0 || len(got.Ops) != 0 || len(got.Meta) != 0 || got.Token != "" {
			t.Errorf("an empty batch is written as %+v, %v", got, err)
		}
	}
}

// Limits hold to the byte.
func TestBatchLimits(t *testing.T) {
	db := New(&stub{commit: func(context.Context, *waist.Proposal) (ID, error) { return 1, nil }})
	s := db.Space("s")
	room := MaxKeyBytes - len(s.prefix)
	text := func(n int) string { return strings.Repeat("x", n) }
	value := make([]byte, MaxValueBytes+1)
	put := func(k Key, v []byte) func(b *Batch) { return func(b *Batch) { b.Put(s, k, v) } }
	// fill makes the ops take exactly so many bytes.
	fill := func(size int) func(b *Batch) {
		return func(b *Batch) {
			b.Put(s, nil, value[:MaxValueBytes])
			rest := size - b.Size()
			b.Put(s, nil, value[:rest-len(s.prefix)-2-3])
			if b.Size() != size {
				t.Errorf("filled to %d, want %d", b.Size(), size)
			}
		}
	}
	for _, c := range []struct {
		name string
		make func(b *Batch)
		what string // of the LimitError; "": none
		over int64
	}{
		{"key", put(make(Key, room), nil), "", 0},
		{"key + 1", put(make(Key, room+1), nil), "key", 1},
		{"delete", func(b *Batch) { b.Delete(s, make(Key, room)) }, "", 0},
		{"delete + 1", func(b *Batch) { b.Delete(s, make(Key, room+1)) }, "key", 1},
		{"low of a range", func(b *Batch) { b.DeleteRange(s, Range{Low: make(Key, room)}) }, "", 0},
		{"low of a range + 1", func(b *Batch) { b.DeleteRange(s, Range{Low: make(Key, room+1)}) }, "key", 1},
		{"high of a range", func(b *Batch) { b.DeleteRange(s, Range{High: make(Key, room)}) }, "", 0},
		{"high of a range + 1", func(b *Batch) { b.DeleteRange(s, Range{High: make(Key, room+1)}) }, "key", 1},
		{"value", put(nil, value[:MaxValueBytes]), "", 0},
		{"value + 1", put(nil, value), "value", 1},
		{"largest value at the largest key with the most meta", func(b *Batch) {
			b.Put(s, make(Key, room), value[:MaxValueBytes])
			b.Labels = map[string]string{"l": text(MaxMetaBytes - 1 - 3 - 2)}
		}, "", 0},
		{"token", func(b *Batch) { b.Token = text(MaxTokenBytes) }, "", 0},
		{"token + 1", func(b *Batch) { b.Token = text(MaxTokenBytes + 1) }, "token", 1},
		{"labels", func(b *Batch) { b.Labels = map[string]string{"l": text(MaxMetaBytes - 1 - 3 - 2)} }, "", 0},
		{"labels + 1", func(b *Batch) { b.Labels = map[string]string{"l": text(MaxMetaBytes - 1 - 3 - 2 + 1)} }, "labels", 1},
		{"token and labels", func(b *Batch) {
			b.Token, b.Labels = text(MaxTokenBytes), map[string]string{"l": text(MaxMetaBytes - 1 - 3 - 2 - MaxTokenBytes - 3)}
		}, "", 0},
		{"token and labels + 1", func(b *Batch) {
			b.Token, b.Labels = text(MaxTokenBytes), map[string]string{"l": text(MaxMetaBytes - 1 - 3 - 2 - MaxTokenBytes - 3 + 1)}
		}, "labels", 1},
		{"batch", fill(MaxBatchBytes), "", 0},
		{"batch + 1", fill(MaxBatchBytes - 3), "", 0},
		{"batch with a token", func(b *Batch) {
			fill(MaxBatchBytes - 3)(b)
			b.Token = "t"
		}, "", 0},
		{"batch with a token + 1", func(b *Batch) {
			fill(MaxBatchBytes - 2)(b)
			b.Token = "t"
		}, "batch", 1},
	} {
		var b Batch
		c.make(&b)
		_, err := db.Write(t.Context(), &b)
		var limit *LimitError
		switch {
		case c.what == "":
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		case !errors.As(err, &limit) || !errors.Is(err, ErrTooLarge):
			t.Errorf("%s: %v", c.name, err)
		case limit.What != c.what || limit.Size != limit.Limit+c.over:
			t.Errorf("%s: %+v", c.name, limit)
		}
	}
}

// A batch that went over its limit lets go of its memory, takes nothing more, and is good again after Reset.
func TestBatchTooLarge(t *testing.T) {
	db := New(&stub{commit: func(context.Context, *waist.Proposal) (ID, error) { return 1, nil }})
	s := db.Space("s")
	var b Batch
	value := make([]byte, 16<<20)
	for range 5 {
		b.Put(s, nil, value)
	}
	b.Put(s, nil, nil)
	if cap(b.proposal.Ops) > 0 || b.Len() != 0 {
		t.Errorf("it keeps %d bytes", cap(b.proposal.Ops))
	}
	var limit *LimitError
	if _, err := db.Write(t.Context(), &b); !errors.As(err, &limit) || limit.What != "batch" {
		t.Errorf("error %v", err)
	}
	b.Reset()
	b.Put(s, nil, nil)
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Error(err)
	}
}

// The first mistake is the one that is told, and nothing is written.
func TestBatchMistakes(t *testing.T) {
	db := New(&stub{commit: func(context.Context, *waist.Proposal) (ID, error) { return 1, errors.New("written") }})
	other := New(nil)
	bad := db.Space(struct{}{})
	for name, c := range map[string]struct {
		make func(b *Batch)
		want error // nil: any
	}{
		"nil space":             {func(b *Batch) { b.Put(nil, nil, nil) }, nil},
		"bad space":             {func(b *Batch) { b.DeleteRange(bad, Range{}) }, bad.err},
		"space of another":      {func(b *Batch) { b.Put(db.Root(), nil, nil); b.Put(other.Root(), nil, nil) }, ErrPermission},
		"all of another":        {func(b *Batch) { b.Put(other.Root(), nil, nil) }, ErrPermission},
		"token not UTF-8":       {func(b *Batch) { b.Token = "\xff" }, nil},
		"label not UTF-8":       {func(b *Batch) { b.Labels = map[string]string{"a": "\xff"} }, nil},
		"label's name not UTF8": {func(b *Batch) { b.Labels = map[string]string{"\xff": ""} }, nil},
		"first of two": {func(b *Batch) {
			b.Delete(other.Root(), nil)
			b.Put(other.Root(), make(Key, MaxKeyBytes), nil)
			b.Put(db.Root(), nil, nil)
		}, ErrTooLarge},
	} {
		var b Batch
		c.make(&b)
		id, err := db.Write(t.Context(), &b)
		if id != 0 || err == nil || err.Error() == "written" || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v", name, id, err)
		}
	}
}
