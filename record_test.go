package batchlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestMeta(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want Meta
		err  bool
	}{
		{"none", nil, Meta{}, false},
		{"token", appendMeta(nil, metaToken, []byte("t")), Meta{Token: "t"}, false},
		{"labels", appendLabel(appendLabel(nil, "a", "1"), "b", ""), Meta{Labels: map[string]string{"a": "1", "b": ""}}, false},
		{"label without a name", appendLabel(nil, "", "x"), Meta{Labels: map[string]string{"": "x"}}, false},
		{"logs", AppendLogs(nil, []uint64{0, 1, 300, 1<<64 - 1}), Meta{Logs: []uint64{0, 1, 300, 1<<64 - 1}}, false},
		{
			"all", AppendLogs(appendLabel(appendMeta(nil, metaToken, []byte("t")), "a", strings.Repeat("x", 300)), []uint64{1}),
			Meta{Token: "t", Labels: map[string]string{"a": strings.Repeat("x", 300)}, Logs: []uint64{1}}, false,
		},
		{"hooks", appendMeta(appendMeta(nil, metaHook, []byte("a")), metaHook, nil), Meta{Hooks: [][]byte{[]byte("a"), {}}}, false},
		{"tag of a later version", appendMeta(nil, 5, nil), Meta{}, true},
		{"two lists of logs", AppendLogs(AppendLogs(nil, nil), nil), Meta{}, true},
		{"tag 0", appendMeta(nil, 0, nil), Meta{}, true},
		{"two tokens", appendMeta(appendMeta(nil, metaToken, []byte("t")), metaToken, []byte("u")), Meta{}, true},
		{"token behind a label", appendMeta(appendLabel(nil, "a", "1"), metaToken, []byte("t")), Meta{}, true},
		{"item that ends early", []byte{metaToken, 5, 'a'}, Meta{}, true},
		{"tag alone", []byte{metaToken}, Meta{}, true},
		{"label whose name ends early", []byte{metaLabel, 2, 9, 'a'}, Meta{}, true},
		{"log that ends early", []byte{metaLogs, 1, 0x80}, Meta{}, true},
	} {
		got, err := DecodeMeta(c.b)
		if (err != nil) != c.err || c.err && !errors.Is(err, errMeta) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
		if r := (&Record{Meta: c.b}); !c.err && r.Token() != c.want.Token {
			t.Errorf("%s: token %q", c.name, r.Token())
		}
	}
	if got := (&Record{Meta: []byte{metaToken, 9}}).Token(); got != "" {
		t.Errorf("token of a damaged record: %q", got)
	}
	if got := (&Record{Meta: []byte("12"), Ops: []byte("345")}).Size(); got != 5 {
		t.Errorf("size %d", got)
	}
}

// Meta that is decoded is encoded to what is decoded as the same.
func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(AppendLogs(appendLabel(appendLabel(appendMeta(nil, metaToken, []byte("t")), "a", "1"), "b", "2"), []uint64{0, 1 << 40}))
	f.Add([]byte{metaLabel, 2, 1, 'a', metaLabel, 2, 1, 'a'})
	f.Add([]byte{metaLogs, 2, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMeta(b)
		token := (&Record{Meta: b}).Token()
		if err != nil {
			if !errors.Is(err, errMeta) {
				t.Fatal(err)
			}
			return
		}
		if token != m.Token {
			t.Fatalf("token %q, %q", token, m.Token)
		}
		var written []byte
		if m.Token != "" {
			written = appendMeta(written, metaToken, []byte(m.Token))
		}
		for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
			written = appendLabel(written, name, m.Labels[name])
		}
		if m.Logs != nil {
			written = AppendLogs(written, m.Logs)
		}
		for _, path := range m.Hooks {
			written = appendMeta(written, metaHook, path)
		}
		again, err := DecodeMeta(written)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v is written and read as %+v, %v", m, again, err)
		}
	})
}

// Ops that no batch makes are an error of the commit, not what they seem to be; those before them are yielded.
func TestCommitMalformed(t *testing.T) {
	a, b := closedPath("a"), closedPath("b")
	good := AppendOp(nil, OpPut, a, nil)
	for name, bad := range map[string][]byte{
		"range into another space":       AppendOp(nil, OpDeleteRange, a, b),
		"range over the spaces within":   AppendOp(nil, OpDeleteRange, a, append(bytes.Clone(open(a)), 0xff)),
		"range without an upper bound":   AppendOp(nil, OpDeleteRange, a, nil),
		"path that has no value":         AppendOp(nil, OpPut, []byte{0xa0, 0x70, 1, 7, 0, 0}, nil),
		"path that is too deep":          AppendOp(nil, OpPut, closedPath(make([]any, MaxPathDepth+1)...), nil),
		"path without an end":            AppendOp(nil, OpPut, []byte{0xa0, 0x70, 'a', 0}, nil),
		"op that ends early":             good[:len(good)-2],
		"op of a kind that is not known": {99},
	} {
		db := New(nil)
		var c Commit
		if err := c.read(&Record{ID: 7, Count: 2, Ops: append(bytes.Clone(good), bad...)}, &lens{db: db}); err != nil {
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
		f.Add(ops, 1, appendLabel(nil, "a", "b"), open(closedPath("a")))
	}
	f.Add(AppendOp(nil, OpPut, []byte{0xa0, 0x70, 1, 7, 0, 0}, nil), 1, []byte{9}, []byte(nil))
	f.Add(AppendOp(nil, OpPut, closedPath(make([]any, 40)...), nil), 1, []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, ops []byte, count int, meta, within []byte) {
		db := New(nil)
		l := &lens{db: db}
		if len(within) > 0 {
			l.opens = [][]byte{within}
		}
		var c Commit
		r := Record{ID: 7, Time: 1 << 50, Count: min(count, 1<<20), Meta: meta, Ops: ops}
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
			if !db.Root().Contains(op.Space) && (len(within) == 0 || !db.System().Contains(op.Space)) {
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
