package wire

import (
	"errors"
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
		{"token", AppendToken(nil, "t"), Meta{Token: "t"}, false},
		{"labels", AppendLabel(AppendLabel(nil, "a", "1"), "b", ""), Meta{Labels: map[string]string{"a": "1", "b": ""}}, false},
		{"label without a name", AppendLabel(nil, "", "x"), Meta{Labels: map[string]string{"": "x"}}, false},
		{"logs", AppendLogs(nil, []uint64{0, 1, 300, 1<<64 - 1}), Meta{Logs: []uint64{0, 1, 300, 1<<64 - 1}}, false},
		{
			"all", AppendLogs(AppendLabel(AppendToken(nil, "t"), "a", strings.Repeat("x", 300)), []uint64{1}),
			Meta{Token: "t", Labels: map[string]string{"a": strings.Repeat("x", 300)}, Logs: []uint64{1}}, false,
		},
		{"hooks", AppendHook(AppendHook(nil, []byte("a")), nil), Meta{Hooks: [][]byte{[]byte("a"), {}}}, false},
		{"tag of a later version", appendMeta(nil, 5, nil), Meta{}, true},
		{"two lists of logs", AppendLogs(AppendLogs(nil, nil), nil), Meta{}, true},
		{"tag 0", appendMeta(nil, 0, nil), Meta{}, true},
		{"two tokens", AppendToken(AppendToken(nil, "t"), "u"), Meta{}, true},
		{"token behind a label", AppendToken(AppendLabel(nil, "a", "1"), "t"), Meta{}, true},
		{"item that ends early", []byte{tagToken, 5, 'a'}, Meta{}, true},
		{"tag alone", []byte{tagToken}, Meta{}, true},
		{"label whose name ends early", []byte{tagLabel, 2, 9, 'a'}, Meta{}, true},
		{"log that ends early", []byte{tagLogs, 1, 0x80}, Meta{}, true},
	} {
		got, err := DecodeMeta(c.b)
		if (err != nil) != c.err || c.err && !errors.Is(err, ErrMeta) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
		if r := (&Record{Meta: c.b}); !c.err && r.Token() != c.want.Token {
			t.Errorf("%s: token %q", c.name, r.Token())
		}
	}
	if got := (&Record{Meta: []byte{tagToken, 9}}).Token(); got != "" {
		t.Errorf("token of a damaged record: %q", got)
	}
	if got := (&Record{Meta: []byte("12"), Ops: []byte("345")}).Size(); got != 5 {
		t.Errorf("size %d", got)
	}
}

// Meta that is decoded is encoded to what is decoded as the same.
func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(AppendLogs(AppendLabel(AppendLabel(AppendToken(nil, "t"), "a", "1"), "b", "2"), []uint64{0, 1 << 40}))
	f.Add([]byte{tagLabel, 2, 1, 'a', tagLabel, 2, 1, 'a'})
	f.Add([]byte{tagLogs, 2, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMeta(b)
		token := (&Record{Meta: b}).Token()
		if err != nil {
			if !errors.Is(err, ErrMeta) {
				t.Fatal(err)
			}
			return
		}
		if token != m.Token {
			t.Fatalf("token %q, %q", token, m.Token)
		}
		var written []byte
		if m.Token != "" {
			written = AppendToken(written, m.Token)
		}
		for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
			written = AppendLabel(written, name, m.Labels[name])
		}
		if m.Logs != nil {
			written = AppendLogs(written, m.Logs)
		}
		for _, path := range m.Hooks {
			written = AppendHook(written, path)
		}
		again, err := DecodeMeta(written)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v is written and read as %+v, %v", m, again, err)
		}
	})
}
