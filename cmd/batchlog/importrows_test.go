package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bytespace/batchlog"
)

// file writes a file and returns its name.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// gzipped is s, compressed.
func gzipped(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// loads runs an import with --json.
func (c *cli) loads(args ...string) (r loadResult) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.must(append([]string{"--json", "import"}, args...)...)), &r); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// Rows become keys and values, in each of the ways that there are.
func TestImportRows(t *testing.T) {
	for _, c := range []struct {
		name   string
		format string
		args   string
		in     string
		want   string // scan --json
	}{
		{"ndjson", "ndjson", "--key id", "{\"id\":\"b\", \"n\": [1, 2] }\n{\"id\":\"a\"}\n", `{"key":"a","value":"{\"id\":\"a\"}"}` + "\n" + `{"key":"b","value":"{\"id\":\"b\",\"n\":[1,2]}"}`},
		{"no line end", "ndjson", "--key id", `{"id":1}`, `{"key":1,"value":"{\"id\":1}"}`},
		{"line ends, empty lines, BOM", "ndjson", "--key id", "\ufeff{\"id\":1}\r\n\r\n \n{\"id\":2}\r\n", `{"key":1,"value":"{\"id\":1}"}` + "\n" + `{"key":2,"value":"{\"id\":2}"}`},
		{"kinds of keys", "ndjson", "--key k --value v", `{"k":null,"v":1}
{"k":false,"v":2}
{"k":-1.5e3,"v":3}
{"k":["a",[1,null]],"v":4}
{"k":{"$date":"2026-11-22T18:45:53Z"},"v":5}
{"k":"\u0061\n","v":6}`, `{"key":null,"value":"1"}
{"key":false,"value":"2"}
{"key":-1500,"value":"3"}
{"key":{"$date":"2026-11-22T18:45:53Z"},"value":"5"}
{"key":"a\n","value":"6"}
{"key":["a",[1,null]],"value":"4"}`},
		{"several fields", "ndjson", "--key a,b.c --key b.d", `{"a":1,"b":{"c":"x","d":["y"]}}`, `{"key":[1,"x",["y"]],"value":"{\"a\":1,\"b\":{\"c\":\"x\",\"d\":[\"y\"]}}"}`},
		{"odd names", "ndjson", `--key ["a.b,c"] --value ["","."]`, `{"a.b,c":1,"":{".":"v"}}`, `{"key":1,"value":"v"}`},
		{"value of a field", "ndjson", "--key id --value v.w", `{"id":1,"v":{"w":"é\n\u0000"}}` + "\n" + `{"id":2,"v":{"w":{"x" : [ ] }}}`, `{"key":1,"value":"é\n\u0000"}` + "\n" + `{"key":2,"value":"{\"x\":[]}"}`},
		{"escapes stay", "ndjson", "--key id", `{"id":1,"v":"\u0061\/<"}`, `{"key":1,"value":"{\"id\":1,\"v\":\"\\u0061\\/<\"}"}`},
		{"the last one wins", "ndjson", "--key id --value v --batch 1", `{"id":1,"v":"a"}` + "\n" + `{"id":1,"v":"b"}` + "\n" + `{"id":1,"v":"c"}`, `{"key":1,"value":"c"}`},
		{"from line", "ndjson", "--key id --value id --from-line 3", "{\"id\":1}\nnonsense\n{\"id\":3}\n{\"id\":4}\n", `{"key":3,"value":"3"}` + "\n" + `{"key":4,"value":"4"}`},
		{"nothing", "ndjson", "--key id", "\n\n", ``},
		{"csv", "csv", "--key id", "id,name\n7,alice\n8,\"bob, \"\"the\"\" second\"\r\n", `{"key":"7","value":"{\"id\":\"7\",\"name\":\"alice\"}"}` + "\n" + `{"key":"8","value":"{\"id\":\"8\",\"name\":\"bob, \\\"the\\\" second\"}"}`},
		{"csv BOM, line ends, empty lines", "csv", "--key id --value v", "\ufeffid,v\r\n\r\n1,a\r\n\n2,\"b\r\nc\"\r\n3,\"\"\r\n4,\n", `{"key":"1","value":"a"}
{"key":"2","value":"b\r\nc"}
{"key":"3","value":""}
{"key":"4","value":""}`},
		{"csv keys", "csv", "--key b,a --value c", "a,b,c\n1,2,3\n", `{"key":["2","1"],"value":"3"}`},
		{"csv comma", "csv", `--key id --value v --comma ;`, "id;v\n1;a,b\n", `{"key":"1","value":"a,b"}`},
		{"csv tab", "csv", `--key id --value v --comma \t`, "id\tv\n1\ta\n", `{"key":"1","value":"a"}`},
		{"csv wide comma", "csv", `--key id --value v --comma →`, "id→v\n1→a\n\"2\"→\"b\"\n", `{"key":"1","value":"a"}` + "\n" + `{"key":"2","value":"b"}`},
		{"csv header given", "csv", `--key id --header id,"v,w" --value v,w`, "1,a\n", `{"key":"1","value":"a"}`},
		{"csv no header", "csv", "--key 2 --no-header", "a,b\n", `{"key":"b","value":"{\"1\":\"a\",\"2\":\"b\"}"}`},
		{"csv from line", "csv", "--key id --from-line 4", "id\n\"1\n2\"\n3\n", `{"key":"3","value":"{\"id\":\"3\"}"}`},
		{"csv one column", "csv", "--key id --value id", "id\na\n\"\"\n", `{"key":"","value":""}` + "\n" + `{"key":"a","value":"a"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, mode := range []string{"", "--atomic", "gzip", "stdin"} {
				cli := newCLI(t)
				if mode == "--atomic" && strings.Contains(c.args, "--batch") {
					continue
				}
				args := append([]string{"import", c.format, file(t, "in", c.in), "--space", "s/t"}, strings.Fields(c.args)...)
				in := ""
				switch mode {
				case "--atomic":
					args = append(args, mode)
				case "gzip":
					args[2] = file(t, "in.gz", gzipped(t, c.in))
				case "stdin":
					args[2], in = "-", c.in
				}
				if r := cli.feed(in, args...); r.code != 0 {
					t.Fatalf("%s%s", r.out, r.err)
				}
				equal(t, mode, strings.TrimSuffix(cli.must("scan", "s/t", "--json"), "\n"), c.want)
			}
		})
	}
}

func TestImportRowsRefuses(t *testing.T) {
	c := newCLI(t)
	good := file(t, "in", `{"id":1}`)
	for _, u := range []struct{ args, says string }{
		{"ndjson", "an argument is missing"},
		{"ndjson IN --key id", "--space is missing"},
		{"ndjson IN --space s", "--key is missing"},
		{"ndjson IN --space s --key id --batch 0", "--batch 0 is less than 1"},
		{"ndjson IN --space s --key id --from-line 0", "--from-line 0 is less than 1"},
		{"ndjson IN --space s --key id --atomic --batch 5", "exclude each other"},
		{"ndjson IN --space s --key a..b", "empty part"},
		{"ndjson IN --space s --key id,", "empty part"},
		{"ndjson IN --space s --key []", "names nothing"},
		{"ndjson IN --space s --key [1]", "is no name"},
		{"ndjson IN --space s --key id --label x", "write NAME=VALUE"},
		{"ndjson IN --space a//b --key id", "empty part"},
		{"csv IN --space s --key id --comma xx", "is not one character"},
		{`csv IN --space s --key id --comma "`, "is not one character"},
		{"csv IN --space s --key id --header id --no-header", "exclude each other"},
		{"csv IN --space s --key id --header a,b", `there is no column "id"; there are a, b`},
		{"csv IN --space s --key a --header a,a", `the header has column "a" twice`},
		{`csv IN --space s --key ["a","b"]`, "CSV has none of"},
	} {
		c.fails(exitUsage, []string{u.says}, append([]string{"import"}, strings.Fields(strings.Replace(u.args, "IN", good, 1))...)...)
	}
	c.fails(exitError, []string{"no such file"}, "import", "ndjson", good+"x", "--space", "s", "--key", "id")
	c.fails(exitError, []string{"is a directory"}, "import", "ndjson", t.TempDir(), "--space", "s", "--key", "id")
	c.fails(exitError, []string{"gzip: invalid header"}, "import", "ndjson", file(t, "in.gz", "this is no gzip at all"), "--space", "s", "--key", "id")
	if _, err := os.Stat(c.db); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused import has made a database: %v", err)
	}
	z := gzipped(t, strings.Repeat(`{"id":1}`+"\n", 1000))
	c.fails(exitError, []string{"unexpected EOF", "read line"}, "import", "ndjson", file(t, "in.gz", z[:len(z)-12]), "--space", "s", "--key", "id")
}

// What is wrong with a line is said, with its number and where it begins.
func TestBadRows(t *testing.T) {
	long := strings.Repeat("k", batchlog.MaxKeyBytes)
	for _, c := range []struct{ format, args, in, says string }{
		{"ndjson", "--key id", "{\"id\":1}\n{\"id\":}\n", "line 2, byte 9: not JSON at byte 7"},
		{"ndjson", "--key id", "\ufeff{\"id\":1}\r\n\r\n[]\n", "line 3, byte 15: an array where an object should be"},
		{"ndjson", "--key id", "{}\n", `line 1, byte 0: field "id" is missing`},
		{"ndjson", "--key a.b", "{\"a\":{}}\n", `line 1, byte 0: field "a.b" is missing`},
		{"ndjson", "--key a.b", "{\"a\":7}\n", `line 1, byte 0: a: a number where an object should be`},
		{"ndjson", "--key id --value v", "{\"id\":1}\n", `line 1, byte 0: field "v" is missing`},
		{"ndjson", "--key id", `{"id":{"a":1}}`, `a JSON object is no key`},
		{"ndjson", "--key id", `{"id":9007199254740993}`, `is not exact as a float64`},
		{"ndjson", "--key id", `{"id":1,"id":2}`, `field "id" twice`},
		{"ndjson", "--key id", `{"id":"\ud800"}`, `half of a surrogate pair`},
		{"ndjson", "--key id", "{\"id\":\"\xff\"}", `line 1, byte 0: not UTF-8`},
		{"ndjson", "--key id", `{"id":1} {"id":2}`, `line 1, byte 0: not JSON at byte 10`},
		{"ndjson", "--key id", `{"id":"` + long + `"}`, `key too large`},
		{"csv", "--key id", "id,v\n1,2\n3\n", "line 3, byte 9: 1 column, where there should be 2"},
		{"csv", "--key id", "id,v\n1,a\"b\n", "line 2, byte 5: a quote within a column"},
		{"csv", "--key id", "id,v\n1,\"a\"b\n", "line 2, byte 5: text behind a closing quote"},
		{"csv", "--key id", "id\n\"a\nb\"x\n", "line 2, byte 3: text behind a closing quote"},
		{"csv", "--key id", "id\n\xff\n", "line 2, byte 3: not UTF-8"},
	} {
		cli := newCLI(t)
		args := append([]string{"import", c.format, file(t, "in", c.in), "--space", "s"}, strings.Fields(c.args)...)
		r := cli.run(args...)
		if r.code != exitError || !strings.Contains(r.err, c.says) || !strings.Contains(r.err, "--skip-bad") {
			t.Errorf("%q: exit code %d\n%swant %s", clipped(c.in, 100, "…"), r.code, r.err, c.says)
		}
		r = cli.run(append(args, "--skip-bad")...)
		if r.code != 0 || !strings.Contains(r.err, c.says) || !strings.Contains(r.err, "passed over") || !strings.Contains(r.out, "passed over 1 row that can't be read") {
			t.Errorf("%q --skip-bad: exit code %d\n%s%s", clipped(c.in, 100, "…"), r.code, r.out, r.err)
		}
	}
	// What leaves nothing to go on with can't be passed over.
	for _, c := range []struct{ args, in, says string }{
		{"--key id", "id\n1\n\"2\n3\n4\n", "line 3, byte 5: a quote is never closed; lines 2 to 2 are in (id 1); go on with --from-line 3"},
		{"--key id", "", "the file is empty: there is no header"},
		{"--key id", "a,b\n1,2\n", `line 1, byte 0: there is no column "id"; there are a, b`},
		{"--key id", "a,a\n1,2\n", `column "a" twice`},
		{"--key id", "a\"\n1,2\n", `a quote within a column`},
		{"--key 3 --no-header", "a,b\n1,2,3\n", `there is no column "3"; there are 1, 2`},
	} {
		cli := newCLI(t)
		r := cli.run(append([]string{"import", "csv", file(t, "in", c.in), "--space", "s", "--skip-bad"}, strings.Fields(c.args)...)...)
		if r.code != exitError || !strings.Contains(r.err, c.says) {
			t.Errorf("%q: exit code %d\n%swant %s", c.in, r.code, r.err, c.says)
		}
	}
}

// A row as large as a value may be is loaded, a larger one is told.
func TestLargestRow(t *testing.T) {
	if testing.Short() {
		t.Skip("some hundred megabytes")
	}
	row := func(id, size int) string {
		head := fmt.Sprintf(`{"id":%d,"v":"`, id)
		return head + strings.Repeat("v", size-len(head)-2) + "\"}\n"
	}
	in := row(1, batchlog.MaxValueBytes) + row(2, batchlog.MaxValueBytes+1) + row(3, 100)
	c := newCLI(t)
	name := file(t, "in", in)
	c.fails(exitError, []string{"line 2, byte " + strconv.Itoa(batchlog.MaxValueBytes+1) + ": longer than ", "lines 1 to 1 are in"}, "import", "ndjson", name, "--space", "s", "--key", "id")
	r := c.loads("ndjson", name, "--space", "s", "--key", "id", "--skip-bad")
	if r.Rows != 2 || r.Bad != 1 || r.Commits != 2 {
		t.Errorf("%+v", r)
	}
	if got := c.must("get", "s", "1"); got+"\n" != row(1, batchlog.MaxValueBytes) {
		t.Errorf("%d bytes came back", len(got))
	}
}

// numbers is n lines with the keys from 1 on.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"id\":%d,\"v\":\"value %d\"}\n", i+1, i+1)
	}
	return b.String()
}

// An import that stops says what is in and how to go on, and what goes on there completes it.
func TestImportGoesOn(t *testing.T) {
	lines := strings.SplitAfter(numbers(250), "\n")
	lines[122] = "{\"id\":123\n"
	broken, mended := file(t, "in", strings.Join(lines, "")), file(t, "in", numbers(250))
	c := newCLI(t)
	args := []string{"--space", "s", "--key", "id", "--batch", "50", "--label", "why=test"}
	c.fails(exitError, []string{"line 123, byte ", "lines 1 to 122 are in (ids 1 to 3); go on with --from-line 123", "--skip-bad"}, append([]string{"import", "ndjson", broken}, args...)...)
	r := c.loads(append([]string{"ndjson", mended, "--from-line", "123"}, args...)...)
	if r.Rows != 128 || r.Commits != 3 || r.First != 4 || r.Last != 6 || r.Bad != 0 {
		t.Errorf("%+v", r)
	}
	equal(t, "keys", strings.Count(c.must("scan", "s"), "\n"), 250)
	if text := c.must("tail", "--until", "1"); !strings.Contains(text, `"labels":{"why":"test"}`) {
		t.Error(text[:100])
	}
	d := newCLI(t)
	run := d.run(append([]string{"import", "ndjson", broken, "--skip-bad"}, args...)...)
	d.check(run, 0, []string{"line 123, byte "})
	if !strings.Contains(run.out, "imported 249 rows") || !strings.Contains(run.out, "ids 1 to 5") || !strings.Contains(run.out, "passed over 1 row") {
		t.Error(run.out)
	}
	many := d.run("import", "ndjson", file(t, "in", strings.Repeat("x\n", 100)+`{"id":1}`), "--space", "s", "--key", "id", "--skip-bad")
	d.check(many, 0, []string{"line 20, byte 38: ", "more of them are only counted"})
	equal(t, "lines on stderr", strings.Count(many.err, "\n"), badShown+1)
	if !strings.Contains(many.out, "passed over 100 rows") {
		t.Error(many.out)
	}
}

// With a token, an import that is run again writes nothing twice, and never takes one stretch of the file for another.
func TestImportToken(t *testing.T) {
	c := newCLI(t)
	args := []string{"--space", "s", "--key", "id", "--batch", "50", "--token", "t"}
	first := file(t, "in", numbers(120))
	r := c.loads(append([]string{"ndjson", first}, args...)...)
	if r.Rows != 120 || r.Already != 0 || r.Last != 3 {
		t.Errorf("%+v", r)
	}
	r = c.loads(append([]string{"ndjson", first}, args...)...)
	if r.Rows != 120 || r.Already != 120 || r.Last != 3 || headOf(t, c) != 3 {
		t.Errorf("%+v", r)
	}
	// The file has grown.
	r = c.loads(append([]string{"ndjson", file(t, "in", numbers(180))}, args...)...)
	if r.Rows != 180 || r.Already != 100 || r.Last != 5 {
		t.Errorf("%+v", r)
	}
	// Larger batches are others.
	args[5] = "100"
	r = c.loads(append([]string{"ndjson", file(t, "in", numbers(200))}, args...)...)
	if r.Rows != 200 || r.Already != 0 {
		t.Errorf("%+v", r)
	}
	equal(t, "keys", strings.Count(c.must("scan", "s"), "\n"), 200)
	if text := c.must(append([]string{"import", "ndjson", first}, append(args, "--batch", "50")...)...); !strings.Contains(text, "120 of them were in already") {
		t.Error(text)
	}
}

// A stalling is a reader that hangs after its text.
type stalling struct {
	io.Reader
	reached func()
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if n == 0 {
		s.reached()
		select {}
	}
	return n, err
}

// Ctrl-C ends an import even while its input hangs; what is in is told.
func TestImportRowsInterrupted(t *testing.T) {
	for _, mode := range []string{"--batch=10", "--atomic"} {
		c := newCLI(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		in := &stalling{strings.NewReader(numbers(100)), func() { cancel(&interruptError{signal: syscall.SIGINT}) }}
		r := c.runWith(ctx, in, "import", "ndjson", "-", "--space", "s", "--key", "id", mode)
		c.check(r, 130, []string{"interrupted; "})
		if mode == "--atomic" {
			c.check(r, 130, []string{"nothing was written"})
			equal(t, "head", headOf(t, c), 0)
			if left := c.must("chain", "ls"); left != "no chains\n" {
				t.Error(left)
			}
		}
	}
}

// Any CSV comes back as it was written, by a writer of its own.
func TestCSVRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "b", ",", "\"", "\n", "\r\n", " ", "é", ";", "\\", "'"}
	text := func() string {
		s := ""
		for range random.IntN(6) {
			s += letters[random.IntN(len(letters))]
		}
		return s
	}
	quote := func(s string) string {
		if strings.ContainsAny(s, ",\"\r\n") || random.IntN(4) == 0 {
			return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
		}
		return s
	}
	var in, want strings.Builder
	in.WriteString("id,a,\"b\r\nc\"\n")
	for i := range 500 {
		a, b := text(), text()
		fmt.Fprintf(&in, "%04d,%s,%s%s", i, quote(a), quote(b), []string{"\n", "\r\n"}[random.IntN(2)])
		value, err := json.Marshal(map[string]string{"a": a, "b\r\nc": b, "id": fmt.Sprintf("%04d", i)})
		if err != nil {
			t.Fatal(err)
		}
		want.Write(append(value, '\n'))
	}
	c := newCLI(t)
	r := c.loads("csv", file(t, "in", in.String()), "--space", "s", "--key", "id")
	equal(t, "rows", r.Rows, 500)
	var got strings.Builder
	c.open(func(db *batchlog.DB) {
		for e, err := range db.Space("s").Scan(t.Context(), batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			var v map[string]string
			if err := json.Unmarshal(e.Value, &v); err != nil {
				t.Fatal(err)
			}
			value, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			got.Write(append(value, '\n'))
		}
	})
	equal(t, "rows", got.String(), want.String())
}

// However CSV is, it is rows or an error as encoding/csv has them.
func FuzzCSV(f *testing.F) {
	f.Add("a,b\n1,\"2\n3\"\n")
	f.Add("\"\"\"\",\r\n\n\"\"\r\n")
	f.Add("a\"b,c\n\"a\"b\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		p := &csvParser{comma: []byte(","), numbered: true, value: -1}
		for l := range strings.SplitSeq(text, "\n") {
			wasQuoted := p.quoted
			done, err := p.feed([]byte(l))
			if err != nil {
				p.quoted = false
			}
			if done == p.quoted {
				t.Fatalf("%q: done %t, in a quote %t after %v", l, done, p.quoted, err)
			}
			if wasQuoted || p.quoted || l == "" || strings.Contains(l, "\r") {
				continue
			}
			std, stdErr := csv.NewReader(strings.NewReader(l)).Read()
			if (stdErr == nil) != (err == nil) {
				t.Fatalf("%q: %v; encoding/csv says %v", l, err, stdErr)
			}
			for i := range std {
				if err != nil {
					break
				}
				if len(std) != len(p.ends) || string(p.column(i)) != std[i] {
					t.Fatalf("%q: %q in columns %v; encoding/csv has %q", l, p.text, p.ends, std)
				}
			}
		}
	})
}
