package subprocess

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
)

func TestParseScan(t *testing.T) {
	parser := opjson.NewParser(batchlog.New(nil))
	k := func(parts ...any) batchlog.Key { return batchlog.K(parts...) }
	after := func(key batchlog.Key) batchlog.Key { return append(key, 0) }
	for text, want := range map[string]scanRequest{
		`{"space":"s"}`: {limit: scanLimit},
		`{"space":"s","low":"a","high":"b","limit":3,"reverse":true}`: {keys: batchlog.Between(k("a"), k("b")), limit: 3, reverse: true},
		`{"space":"s","prefix":"a"}`:                                  {keys: batchlog.StringPrefix("a"), limit: scanLimit},
		`{"space":"s","prefix":["a"]}`:                                {keys: batchlog.Prefix("a"), limit: scanLimit},
		`{"space":"s","prefix":"a","after":"ab"}`:                     {keys: batchlog.Range{Low: after(k("ab")), High: batchlog.StringPrefix("a").High}, limit: scanLimit},
		`{"space":"s","prefix":"a","high":"ab"}`:                      {keys: batchlog.Range{Low: batchlog.StringPrefix("a").Low, High: k("ab")}, limit: scanLimit},
		`{"space":"s","high":"z","low":"0","prefix":"a"}`:             {keys: batchlog.StringPrefix("a"), limit: scanLimit},
	} {
		m, err := parseMessage([]byte(`{"scan":`+text+`}`), parser)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := m.scan
		if got.space.String() != "s" || fmt.Sprint(got.keys, got.limit, got.reverse) != fmt.Sprint(want.keys, want.limit, want.reverse) {
			t.Errorf("%s is %v %d %t, want %v %d %t", text, got.keys, got.limit, got.reverse, want.keys, want.limit, want.reverse)
		}
	}
	for text, want := range map[string]string{
		`{"prefix":"a"}`:                     `field "space" is missing`,
		`{"space":"s","low":1,"after":1}`:    "exclude each other",
		`{"space":"s","prefix":7}`:           "prefix: a prefix is a string or an array",
		`{"space":"s","limit":1.5}`:          "limit: ",
		`{"space":"s","reverse":"yes"}`:      "reverse: ",
		`{"space":"s","low":1,"low":2}`:      `field "low" twice`,
		`{"space":"s//t"}`:                   "empty part",
		`{"space":"s","till":1}`:             `unknown field "till"`,
		`{"space":"s","after":{"$raw":"x"}}`: "after: key",
		`[]`:                                 "an array where an object should be",
	} {
		if _, err := parseMessage([]byte(`{"scan":`+text+`}`), parser); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"a\nb\r\n\nc", []string{"a", "b", "", "c: EOF"}},
		{long + "\n" + long + "x\nmore\n", []string{long, long + "x\n: line too long"}},
		{long + "y", []string{long + "y: line too long"}},
		{long, []string{long + ": EOF"}},
		{"", []string{": EOF"}},
	} {
		in := bufio.NewReaderSize(oneByte{strings.NewReader(c.in)}, 16)
		for _, want := range c.want {
			text, err := readLine(in, 100)
			got := string(text)
			if err != nil {
				got += ": " + err.Error()
			}
			if errors.Is(err, errLongLine) && strings.HasPrefix(want, got[:50]) { // where the rest is cut depends on the buffer
				continue
			}
			if got != want {
				t.Errorf("%.20q…: %q, want %q", c.in, got, want)
			}
		}
	}
}

// oneByte reads a byte at a time.
type oneByte struct{ r io.Reader }

// Read reads a byte.
func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:1]) }

func TestStderrTail(t *testing.T) {
	var text tail
	var lines []string
	in := strings.Repeat("a", stderrLine) + "b\n\n" + strings.Repeat("line\r\n", 1000) + "last \xff"
	text.read(strings.NewReader(in), func(l string) { lines = append(lines, l) })
	if len(lines) != 1003 || lines[1] != "b" || lines[1002] != "last \ufffd" {
		t.Errorf("%d lines, %q", len(lines), lines[len(lines)-1])
	}
	if s := text.String(); len(s) > shownStderr+10 || !strings.HasSuffix(s, "line\nlast \ufffd") || !strings.HasPrefix(s, "…") {
		t.Errorf("a tail of %d bytes: %.30q", len(s), s)
	}
}

// Any line is refused or says just one thing, and encoding/json does not see another.
func FuzzMessage(f *testing.F) {
	for _, text := range []string{
		`{"ops":[{"put":{"space":"a","key":"b","value":"c"}}],"first":7}`, `{"error":"no"}`, `{"get":{"space":["a",1],"key":{"$raw":"ff"}}}`,
		`{"scan":{"space":"/","prefix":["a"],"after":["a",1],"limit":10,"reverse":true}}`, `{"scan":{"space":"a","low":1,"high":2}}`,
		` {"ops" : [ ] } `, `{"ops":[],"error":""}`, `{"ops":{}}`, `{"get":{}}`, `{}`, `[`, `{"first":1}`, "{\"error\":\"\xff\"}", `{"ops":[{"del":{"space":"a","key":null}}]}`,
	} {
		f.Add([]byte(text))
	}
	db := batchlog.New(nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		parser := opjson.NewParser(db)
		m, err := parseMessage(text, parser)
		if hello := parseHello(text); hello == nil && err == nil {
			t.Fatalf("%q is both", text)
		}
		if err != nil {
			return
		}
		var b batchlog.Batch
		if m.ops != nil {
			err = parser.Ops(m.ops, &b)
		}
		var v struct {
			Get, Scan *struct{}
			Ops       []json.RawMessage
			Error     *string
			First     uint64
		}
		if std := json.Unmarshal(text, &v); std != nil && err == nil {
			t.Fatalf("%q is taken, encoding/json says %v", text, std)
		}
		if err == nil && ((v.Get != nil) != (m.get != nil) || (v.Scan != nil) != (m.scan != nil) || (v.Ops != nil) != (m.ops != nil) || v.First != uint64(m.first)) {
			t.Fatalf("%q is %+v, and to encoding/json %+v", text, m, v)
		}
		if m.error != nil && *m.error != *v.Error || m.scan != nil && m.scan.limit < 1 {
			t.Fatalf("%q is %+v", text, m)
		}
		if err == nil && m.ops != nil && b.Len() > len(v.Ops) || bytes.ContainsRune(m.ops, '\n') && !bytes.ContainsRune(text, '\n') {
			t.Fatalf("%q: %d ops", text, b.Len())
		}
	})
}
