package opjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// memDB is a database in memory.
func memDB(t testing.TB) *local.DB {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func TestParsePath(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/", "[]"},
		{"users", `[users]`},
		{"users/eu", `[users eu]`},
		{"/users/eu", `[users eu]`},
		{"users with space", `[users with space]`},
		{`["users",7]`, `[users 7]`},
		{`[]`, `[]`},
		{`["a/b",""]`, `[a/b ]`},
		{"", "empty part"},
		{"users/", "empty part"},
		{"a//b", "empty part"},
		{"//", "empty part"},
		{`["users"`, "space"},
		{`["users",{}]`, "JSON object is no key"},
	} {
		path, err := ParsePath(c.in)
		got := fmt.Sprint(path)
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("ParsePath(%q) = %s, want %s", c.in, got, c.want)
		}
	}
}

// A space's String is the SPACE that means it.
func TestParsePathOfString(t *testing.T) {
	db := batchlog.New(nil)
	for _, s := range []*batchlog.Space{
		db.Root(), db.Space("a"), db.Space("a", "b c", "d"), db.Space("a/b"), db.Space(""), db.Space("[x"), db.Space("a", 7, true, nil), db.Space("é", "\n"), db.Space([]byte{1}),
	} {
		path, err := ParsePath(s.String())
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if back := db.Space(path...); !back.Equal(s) {
			t.Errorf("%s came back as %s", s, back)
		}
	}
}

func TestParseLine(t *testing.T) {
	db := memDB(t)
	p := NewParser(db.DB)
	line := ` {"labels":{"actor":"m\u0065","why":""}, "token":"t", "ops":[
		{"put":{"space":"users/eu","key":"alice","value":"a\n\ud83d\ude00"}},
		{"put":{"value":{"$base64":"AP8="},"key":["a",1],"space":["users",7]}},
		{"put":{"space":"/","key":null,"value":""}},
		{"del":{"space":"users","key":{"$raw":""}}},
		{"delRange":{"space":"users","low":"a","high":"b"}},
		{"delRange":{"space":"users"}} ] }`
	line = strings.ReplaceAll(strings.ReplaceAll(line, "\n", " "), "\t", " ")
	var b batchlog.Batch
	if err := p.Batch([]byte(line), &b); err != nil {
		t.Fatal(err)
	}
	if b.Token != "t" || !reflect.DeepEqual(b.Labels, map[string]string{"actor": "me", "why": ""}) {
		t.Errorf("token %q, labels %v", b.Token, b.Labels)
	}
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: id}) {
		if err != nil {
			t.Fatal(err)
		}
		for op, err := range c.Ops() {
			got = append(got, fmt.Sprintf("%s %s %s..%s %q %v", op.Kind, op.Space, op.Key, op.High, op.Value, err))
		}
	}
	want := []string{
		`put users/eu "alice"..0x "a\n😀" <nil>`,
		`put ["users",7] ["a",1]..0x "\x00\xff" <nil>`,
		`put / null..0x "" <nil>`,
		`del users 0x..0x "" <nil>`,
		`delRange users "a".."b" "" <nil>`,
		`delRange users 0x..0x "" <nil>`,
	}
	equal(t, "ops", strings.Join(got, "\n"), strings.Join(want, "\n"))
}

func TestParseLineRefuses(t *testing.T) {
	p := NewParser(batchlog.New(nil))
	op := func(s string) string { return `{"ops":[` + s + `]}` }
	put := func(s string) string { return op(`{"put":{` + s + `}}`) }
	for _, c := range []struct{ line, want string }{
		{``, "not JSON"},
		{`{`, "not JSON at byte 1"},
		{`{"ops":[]} x`, "not JSON at byte 12"},
		{`[]`, "an array where an object should be"},
		{`7`, "a number where an object should be"},
		{`{}`, `field "ops" is missing`},
		{`{"ops":{}}`, "an object where an array should be"},
		{`{"ops":null}`, "null where an array should be"},
		{`{"Ops":[]}`, `unknown field "Ops"`},
		{`{"ops":[],"lables":{}}`, `unknown field "lables"`},
		{`{"ops":[],"ops":[]}`, `field "ops" twice`},
		{`{"ops":[],"token":7}`, "token: a number where a string should be"},
		{`{"ops":[],"labels":{"a":true}}`, "labels: a: true where a string should be"},
		{`{"ops":[],"labels":[]}`, "labels: an array where an object should be"},
		{op(`7`), "op 1: a number where an object should be"},
		{op(`{}`), "op 1: an empty object"},
		{op(`{"Put":{}}`), `op 1: unknown field "Put"`},
		{op(`{"del":{"space":"a","key":"b"}},{"del":{"space":"a","key":"b"},"put":{}}`), `op 2: "put" is a second op`},
		{put(`"space":"a","key":"b"`), `op 1: put: field "value" is missing`},
		{put(`"space":"a","value":"b"`), `op 1: put: field "key" is missing`},
		{put(`"key":"a","value":"b"`), `op 1: put: field "space" is missing`},
		{put(`"space":"a","key":"b","vlaue":"c"`), `op 1: put: unknown field "vlaue"`},
		{put(`"space":"a","key":"b","value":7`), `op 1: put: value: a number where an object should be`},
		{put(`"space":"a","key":"b","value":{"$base64":"?"}`), `op 1: put: value: illegal base64`},
		{put(`"space":"a","key":"b","value":{}`), `op 1: put: value: field "$base64" is missing`},
		{put(`"space":"a","key":"b","value":{"$hex":""}`), `op 1: put: value: unknown field "$hex"`},
		{put(`"space":"a","key":"b","blob":7`), `op 1: put: blob: a number where an object should be`},
		{put(`"space":"a","key":"b","blob":{}`), `op 1: put: blob: field "sha256" is missing`},
		{put(`"space":"a","key":"b","blob":{"sha256":"` + strings.Repeat("0f", 32) + `"}`), `op 1: put: blob: field "size" is missing`},
		{put(`"space":"a","key":"b","blob":{"sha256":"` + strings.Repeat("0f", 32) + `","size":-1}`), `op 1: put: blob: size: -1 is no number of bytes`},
		{put(`"space":"a","key":"b","blob":{"sha256":"` + strings.Repeat("0f", 32) + `","size":1.5}`), `op 1: put: blob: size: 1.5 is no number of bytes`},
		{put(`"space":"a","key":"b","blob":{"sha256":"0f","size":1}`), `op 1: put: blob: sha256: 2 hex digits, a hash has 64`},
		{put(`"space":"a","key":"b","blob":{"sha256":"` + strings.Repeat("xx", 32) + `","size":1}`), `op 1: put: blob: sha256: encoding/hex`},
		{put(`"space":"a","key":"b","value":"","blob":{"sha256":"` + strings.Repeat("0f", 32) + `","size":1}`), `op 1: put: value and blob exclude each other`},
		{op(`{"del":{"space":"a","key":"b","blob":{}}}`), `op 1: del: unknown field "blob"`},
		{put(`"space":"a","key":{"a":1},"value":""`), `op 1: put: key: `},
		{put(`"space":"a//b","key":"b","value":""`), "empty part"},
		{put(`"space":7,"key":"b","value":""`), "op 1: put: space: a number where a string should be"},
		{put(`"space":"a","key":"b","value":"\ud800"`), "half of a surrogate pair"},
		{put(`"space":"a","key":"b","value":"` + "\xff" + `"`), "not UTF-8"},
		{op(`{"del":{"space":"a","key":"b","value":"c"}}`), `op 1: del: unknown field "value"`},
		{op(`{"del":{"space":"a","low":"b"}}`), `op 1: del: unknown field "low"`},
		{op(`{"delRange":{"space":"a","key":"b"}}`), `op 1: delRange: unknown field "key"`},
	} {
		var b batchlog.Batch
		err := p.Batch([]byte(c.line), &b)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.line, err, c.want)
		}
	}
}

// What tail prints of a commit is what write makes a batch of, byte for byte.
func TestLinesRoundTrip(t *testing.T) {
	db := memDB(t)
	random := rand.New(rand.NewPCG(1, 2))
	const letters = "abc\x00\n\r\t\"\\/{}[],: \x7f\x1f"
	text := func() string {
		b := make([]byte, random.IntN(12))
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b) + []string{"", "é", "😀", "\u2028"}[random.IntN(4)]
	}
	raw := func() []byte {
		b := make([]byte, random.IntN(12))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	key := func() batchlog.Key {
		switch random.IntN(4) {
		case 0:
			return raw()
		case 1:
			return batchlog.K(text())
		case 2:
			return batchlog.K(text(), random.IntN(9), raw(), nil)
		}
		return batchlog.K(random.NormFloat64())
	}
	space := func() *batchlog.Space {
		switch random.IntN(4) {
		case 0:
			return db.Root()
		case 1:
			return db.Space("users", "eu")
		case 2:
			return db.Space(text(), random.IntN(9))
		}
		return db.Space(text(), text())
	}
	parser := NewParser(db.DB)
	for range 500 {
		b := batchlog.Batch{Labels: map[string]string{text(): text(), "b": text()}}
		for range random.IntN(6) {
			switch random.IntN(4) {
			case 0:
				b.Delete(space(), key())
			case 1:
				low, high := key(), key()
				b.DeleteRange(space(), batchlog.Between(low, high))
				b.DeleteRange(space(), batchlog.Range{Low: low})
			case 2:
				b.Put(space(), key(), raw())
			default:
				b.Put(space(), key(), []byte(text()))
			}
		}
		id, err := db.Write(t.Context(), &b)
		if err != nil {
			t.Fatal(err)
		}
		line := lineOf(t, db, id)
		if !json.Valid(line) {
			t.Fatalf("not JSON: %s", line)
		}
		// The commit's own members go; what is left is a batch.
		ops := line[bytes.Index(line, []byte(`,"labels":`))+1:]
		var back batchlog.Batch
		if err := parser.Batch(append([]byte("{"), ops...), &back); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		again, err := db.Write(t.Context(), &back)
		if err != nil {
			t.Fatal(err)
		}
		second := lineOf(t, db, again)
		equal(t, "line", string(second[bytes.Index(second, []byte(`,"labels":`))+1:]), string(ops))
	}
}

// lineOf is commit id as tail prints it.
func lineOf(t *testing.T, db *local.DB, id batchlog.ID) []byte {
	t.Helper()
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(id), Until: id}) {
		if err != nil {
			t.Fatal(err)
		}
		line, err := AppendCommit(nil, c)
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	t.Fatalf("no commit %d", id)
	return nil
}

// A refs notes the blobs that are put.
type refs struct {
	batchlog.Batch
	keys []string
	refs []batchlog.BlobRef
}

func (r *refs) PutRef(s *batchlog.Space, k batchlog.Key, ref batchlog.BlobRef) {
	r.keys = append(r.keys, s.String()+" "+k.String())
	r.refs = append(r.refs, ref)
}

// A reference to a blob is written so that it is read back as the same.
func TestBlobRoundTrip(t *testing.T) {
	db := batchlog.New(nil)
	for _, size := range []int64{0, 1, 1 << 40} {
		ref := batchlog.BlobRef{Size: size}
		for i := range ref.Hash {
			ref.Hash[i] = byte(i * 7)
		}
		op, err := AppendOp(nil, batchlog.Op{Kind: batchlog.OpPut, Space: db.Space("users"), Key: batchlog.K("a"), Blob: &ref})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "op", string(op), fmt.Sprintf(`{"put":{"space":"users","key":"a","blob":{"sha256":"%s","size":%d}}}`, ref, size))
		var back refs
		if err := NewParser(db).Ops(append(append([]byte("["), op...), ']'), &back); err != nil {
			t.Fatal(err)
		}
		if len(back.refs) != 1 || back.refs[0] != ref || back.keys[0] != `users "a"` || back.Len() != 0 {
			t.Errorf("%s came back as %+v", op, back)
		}
		entry, err := AppendEntry(nil, batchlog.Entry{Key: batchlog.K("a"), Blob: &ref})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "entry", string(entry), fmt.Sprintf(`{"key":"a","blob":{"sha256":"%s","size":%d}}`, ref, size))
		loaded, err := AppendEntry(nil, batchlog.Entry{Key: batchlog.K("a"), Value: []byte("v"), Blob: &ref})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "loaded entry", string(loaded), `{"key":"a","value":"v"}`)
	}
}

// A trickle is a writer that notes the largest piece it was given, and fails after some.
type trickle struct {
	bytes.Buffer
	largest, left int
}

var errFull = errors.New("full")

func (p *trickle) Write(b []byte) (int, error) {
	if p.left--; p.left < 0 {
		return 0, errFull
	}
	p.largest = max(p.largest, len(b))
	return p.Buffer.Write(b)
}

// A commit of many ops is written in pieces, and is the same as in one.
func TestWriteCommit(t *testing.T) {
	db := memDB(t)
	b := batchlog.Batch{Labels: map[string]string{"a": "b"}}
	for i := range 100_000 {
		b.Put(db.Space("s", i%3), batchlog.K(i), fmt.Appendf(nil, "value %d", i))
	}
	large := bytes.Repeat([]byte("l"), 5*pieceBytes)
	b.Put(db.Space("s"), batchlog.K("large"), large)
	b.Delete(db.Space("s"), batchlog.K("x"))
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	want := lineOf(t, db, id)
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(id), Until: id}) {
		if err != nil {
			t.Fatal(err)
		}
		w := trickle{left: 1 << 30}
		if err := WriteCommit(&w, c); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(w.Bytes(), want) {
			t.Errorf("%d bytes, which are not the %d of AppendCommit", w.Len(), len(want))
		}
		if w.largest > len(large)+2*pieceBytes {
			t.Errorf("a piece of %d bytes", w.largest)
		}
		short := trickle{left: 3}
		var failed *WriteError
		if err := WriteCommit(&short, c); !errors.As(err, &failed) || !errors.Is(err, errFull) {
			t.Errorf("writer that fails: %v", err)
		}
	}
}

func TestMember(t *testing.T) {
	for _, c := range []struct{ text, path, want string }{
		{`{"a":1,"b":"x"}`, "b", `"x"`},
		{`{ "a" : [1, {"b":2}] , "b" : {"c" : {"d":null} } }`, "b.c.d", `null`},
		{`{"a":{"b":1},"b":{"a":2,"a":3}}`, "a", `{"b":1}`},
		{`{"a":{"b":1},"b":{"a":2,"a":3}}`, "b.a", `b: field "a" twice`},
		{`{"a":1,"a":2}`, "a", `field "a" twice`},
		{`{"a":1,"\u0061":2}`, "a", `field "a" twice`},
		{`{"\u0061":{"}":"{"}}`, "a", `{"}":"{"}`},
		{`{"a":1}`, "b", ``},
		{`{"a":{}}`, "a.b", ``},
		{`{}`, "a.b", ``},
		{`{"a":1}`, "a.b", `a: a number where an object should be`},
		{`{"a":{"b":"x"}}`, "a.b.c", `a.b: a string where an object should be`},
		{`[1]`, "a", `an array where an object should be`},
		{`"x"`, "a", `a string where an object should be`},
	} {
		got, err := Member([]byte(c.text), strings.Split(c.path, ".")...)
		if err != nil {
			got = []byte(err.Error())
		}
		equal(t, c.text+" "+c.path, string(got), c.want)
	}
	whole, err := Member([]byte(`7`))
	if err != nil || string(whole) != "7" {
		t.Errorf("%s, %v", whole, err)
	}
}

func TestAppendString(t *testing.T) {
	for i := range 0x3000 {
		s := "x" + string(rune(i)) + "y"
		text := AppendString(nil, []byte(s))
		var back string
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Fatalf("%q is written as %s and comes back as %q, %v", s, text, back, err)
		}
	}
}

func TestLoneSurrogate(t *testing.T) {
	for in, want := range map[string]bool{
		`"a"`: false, `"\n"`: false, `"\u0041"`: false, `"\ud83d\ude00"`: false, `"\uD83D\uDE00x"`: false, `"\\ud800"`: false, `"\ud7ff"`: false, `"\ue000"`: false,
		`"\ud83d"`: true, `"\ude00"`: true, `"\ud83dx"`: true, `"\ud83d\n"`: true, `"\ud83d\ud83d\ude00"`: true, `"\ud83d\u0041"`: true, `"\ud83d\\ude00"`: true,
	} {
		equal(t, in, loneSurrogate([]byte(in)), want)
	}
}

// Any line is either refused or a batch, and never more than one meaning of it.
func FuzzParseLine(f *testing.F) {
	for _, line := range []string{
		`{"ops":[{"put":{"space":"users/eu","key":"alice","value":"a"}},{"del":{"space":["u",1],"key":{"$raw":"ff"}}}],"token":"t","labels":{"a":"b"}}`,
		`{"ops":[{"delRange":{"space":"/","low":1,"high":{"$date":"2026-11-22T18:45:53Z"}}}]}`,
		`{"ops":[{"put":{"space":"a","key":"b","value":{"$base64":"AP8="}}}]}`,
		`{"ops" : [ ] , "labels" : { "\u0061" : "\ud83d\ude00" } }`,
		`{"ops":[{}]}`, `[[[[`, `{"a":"\"}"}`, ``, `"`, `{"ops":[],"ops":[]}`,
	} {
		f.Add([]byte(line))
	}
	db := batchlog.New(nil)
	f.Fuzz(func(t *testing.T, line []byte) {
		p := NewParser(db)
		var b batchlog.Batch
		err := p.Batch(line, &b)
		var v struct {
			Ops    []json.RawMessage
			Token  string
			Labels map[string]string
		}
		if std := json.Unmarshal(line, &v); std != nil && err == nil {
			t.Fatalf("%q is taken, encoding/json says %v", line, std)
		}
		if err == nil && (b.Token != v.Token || len(b.Labels) != len(v.Labels)) {
			t.Fatalf("%q: token %q, labels %v; encoding/json has %q, %v", line, b.Token, b.Labels, v.Token, v.Labels)
		}
	})
}
