package batchlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog/bytewise"
)

// keyForms are keys with the one JSON form that each has.
var keyForms = []struct {
	key  Key
	json string
}{
	{K("alice"), `"alice"`},
	{K("alice", 42), `["alice",42]`},
	{K(), `[]`},
	{K([]any{}), `[]`},
	{K(""), `""`},
	{K(nil), `null`},
	{K(true), `true`},
	{K(false), `false`},
	{K(0), `0`},
	{K(math.Copysign(0, -1)), `0`},
	{K(-1.5), `-1.5`},
	{K(1e21), `1e+21`},
	{K(1e20), `100000000000000000000`},
	{K(1 << 53), `9007199254740992`},
	{K(5e-324), `5e-324`},
	{K(math.MaxFloat64), `1.7976931348623157e+308`},
	{K("<a>&\u2028\x00\"\\\n"), `"<a>&\u2028\u0000\"\\\n"`},
	{K("ключ💩"), `"ключ💩"`},
	{K([]byte{0, 1, 0xfe, 0xff}), `{"$bytes":"AAH+/w=="}`},
	{K([]byte{}), `{"$bytes":""}`},
	{K(time.UnixMilli(0)), `{"$date":"1970-01-01T00:00:00Z"}`},
	{K(time.UnixMilli(-1)), `{"$date":"1969-12-31T23:59:59.999Z"}`},
	{K(time.Date(2026, 11, 22, 18, 45, 53, 123e6, time.FixedZone("x", 7200))), `{"$date":"2026-11-22T16:45:53.123Z"}`},
	{K(bytewise.Undefined), `{"$undefined":true}`},
	{K([]any{"a", nil}, []byte("b"), bytewise.Undefined), `[["a",null],{"$bytes":"Yg=="},{"$undefined":true}]`},
	{K(math.Inf(1)), `{"$raw":"43"}`},
	{K("a", math.Inf(-1)), `{"$raw":"a07061004000"}`},
	{K(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)), ``},
	{Key{}, `{"$raw":""}`},
	{Key{0xff}, `{"$raw":"ff"}`},
	{Key("plain"), `"lain"`}, // a p is the tag of a string
	{Key("bare"), `{"$raw":"62617265"}`},
	{Key("\x70\xff"), `{"$raw":"70ff"}`},
	{Key("\x70abc"), `"abc"`},
}

// The form of a key is read back to the same bytes.
func TestKeyJSON(t *testing.T) {
	for _, c := range keyForms {
		text, err := json.Marshal(c.key)
		if err != nil || !json.Valid(text) {
			t.Fatalf("%x: %s, %v", c.key, text, err)
		}
		direct, err := c.key.MarshalJSON()
		if err != nil || c.json != "" && string(direct) != c.json {
			t.Errorf("%x is %s, %v, want %s", c.key, direct, err, c.json)
		}
		for _, text := range []string{string(text), string(direct), " \n" + string(direct) + "\t "} {
			got := Key("something else")
			if err := got.UnmarshalJSON([]byte(text)); err != nil || !bytes.Equal(got, c.key) || got == nil {
				t.Errorf("%s is %x, %v, want %x", text, got, err, c.key)
			}
		}
	}
	var pair struct{ A, B Key }
	if err := json.Unmarshal([]byte(`{"A":"x","B":[1,{"$date":"2026-01-01T01:00:00+01:00"}]}`), &pair); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pair.A, K("x")) || !bytes.Equal(pair.B, K(1, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))) {
		t.Errorf("%+v", pair)
	}
}

// Every number that a key can hold comes back, those that JSON writes with more digits than a float64 has included.
func TestKeyJSONNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	check := func(f float64) {
		t.Helper()
		k := K(f)
		text, err := k.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var got Key
		if err := got.UnmarshalJSON(text); err != nil || !bytes.Equal(got, k) {
			t.Fatalf("%v is written %s, which is read as %s, %v", f, text, got, err)
		}
	}
	for e := range 64 {
		for _, d := range []float64{-1, 0, 1} {
			check(math.Ldexp(1, e) + d)
			check(-math.Ldexp(1, e) + d)
		}
	}
	for range 20_000 {
		if f := math.Float64frombits(r.Uint64()); !math.IsNaN(f) && !math.IsInf(f, 0) {
			check(f)
		}
		check(float64(r.Int64()))
		check(float64(r.Uint64()))
	}
}

// What is no key is refused, an integer that would be rounded included.
func TestKeyJSONRefused(t *testing.T) {
	for _, text := range []string{
		``, `x`, `"a" "b"`, `[1,]`, `{}`, `{"a":1}`, `[{"a":1}]`, `{"$date":"yesterday"}`, `{"$date":1}`, `{"$bytes":"?"}`, `{"$bytes":1}`,
		`{"$undefined":false}`, `{"$undefined":true,"a":1}`, `{"$raw":"4"}`, `{"$raw":"zz"}`, `{"$raw":1}`, `{"$raw":null}`, `["a",{"$raw":"43"}]`,
		`{"$raw":"43","$bytes":""}`, `9007199254740993`, `-9007199254740993`, `9223372036854775807`, `18446744073709551617`,
		`123456789012345678901`, `1e400`, `{"$date":"2026-01-01T00:00:00.0001Z"}`,
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
	} {
		k := Key("before")
		if err := k.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%.60s is read as %s", text, k)
		} else if string(k) != "before" {
			t.Errorf("%.60s: refused, and the key is changed to %s", text, k)
		}
	}
}

func FuzzKeyJSON(f *testing.F) {
	for _, c := range keyForms {
		f.Add([]byte(c.key))
		f.Add([]byte(c.json))
	}
	f.Add([]byte(`[9007199254740993, 1152921504606847000]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		// b as a key: what is written is read back.
		text, err := Key(b).MarshalJSON()
		var got Key
		if err != nil || !json.Valid(text) || got.UnmarshalJSON(text) != nil || !bytes.Equal(got, b) {
			t.Fatalf("%x is written %s, which is read as %x, %v", b, text, got, err)
		}
		if s := Key(b).String(); s != string(text) && s != fmt.Sprintf("0x%x", b) {
			t.Fatalf("%x is %s, in JSON %s", b, s, text)
		}
		// b as JSON: what is read is a key that is written, and read again.
		if err := got.UnmarshalJSON(b); err != nil {
			return
		}
		text, err = got.MarshalJSON()
		var again Key
		if err != nil || again.UnmarshalJSON(text) != nil || !bytes.Equal(again, got) {
			t.Fatalf("%s is read as %x, that is written %s and read as %x", b, got, text, again)
		}
	})
}

func TestKeyString(t *testing.T) {
	for _, c := range keyForms {
		want := c.json
		if want == "" || strings.HasPrefix(want, `{"$raw"`) {
			want = fmt.Sprintf("0x%x", []byte(c.key))
		}
		if got := c.key.String(); got != want {
			t.Errorf("%x is %s, want %s", []byte(c.key), got, want)
		}
	}
	if got := fmt.Sprint(K("a", 1)); got != `["a",1]` {
		t.Error(got)
	}
}

func TestKeyOf(t *testing.T) {
	for _, bad := range [][]any{{math.NaN()}, {struct{}{}}, {"a", make(chan int)}, {uint64(1<<53 + 1)}, {"\xff"}} {
		if k, err := KeyOf(bad...); err == nil {
			t.Errorf("%v is %s", bad, k)
		}
		func() {
			defer func() {
				if r, ok := recover().(string); !ok || !strings.HasPrefix(r, "batchlog.K: ") {
					t.Errorf("K(%v): panic %v", bad, r)
				}
			}()
			t.Errorf("K(%v) = %s", bad, K(bad...))
		}()
	}
	k, err := KeyOf("a", 1)
	v, decodeErr := k.Decode()
	if err != nil || decodeErr != nil || fmt.Sprint(v) != "[a 1]" {
		t.Error(k, err, v, decodeErr)
	}
}

// A range holds what its bounds say, and those that are made from parts hold what begins with them.
func TestRange(t *testing.T) {
	keys := []Key{{}, {0}, {1}, K(nil), K(1), K("a"), K("a\x00"), K("ab"), K("b"), K(), K("a", 1), K("a", 1, 2), K("a", "b"), K("a", []any{1}),
		K("ab", 1), K("b", 1), K(bytewise.Undefined), {0xff}, {0xff, 0xff}}
	array := func(k Key, parts ...any) bool {
		v, err := k.Decode()
		list, ok := v.([]any)
		return err == nil && ok && len(list) >= len(parts) && (len(parts) == 0 || fmt.Sprintf("%#v", list[:len(parts)]) == fmt.Sprintf("%#v", parts))
	}
	text := func(k Key, prefix string) bool {
		v, err := k.Decode()
		s, ok := v.(string)
		return err == nil && ok && strings.HasPrefix(s, prefix)
	}
	for _, c := range []struct {
		name  string
		r     Range
		holds func(k Key) bool
	}{
		{"everything", Range{}, func(Key) bool { return true }},
		{"from a", Between(K("a"), nil), func(k Key) bool { return bytes.Compare(k, K("a")) >= 0 }},
		{"below a", Between(nil, K("a")), func(k Key) bool { return bytes.Compare(k, K("a")) < 0 }},
		{"a to b", Between(K("a"), K("b")), func(k Key) bool { return bytes.Compare(k, K("a")) >= 0 && bytes.Compare(k, K("b")) < 0 }},
		{"below the empty key", Range{High: Key{}}, func(Key) bool { return false }},
		{"upside down", Between(K("b"), K("a")), func(Key) bool { return false }},
		{"arrays", Prefix(), func(k Key) bool { return array(k) }},
		{"arrays a…", Prefix("a"), func(k Key) bool { return array(k, "a") }},
		{"arrays a, 1…", Prefix("a", 1.0), func(k Key) bool { return array(k, "a", 1.0) }},
		{"strings", StringPrefix(""), func(k Key) bool { return text(k, "") }},
		{"strings a…", StringPrefix("a"), func(k Key) bool { return text(k, "a") }},
	} {
		for _, k := range keys {
			if got, want := c.r.Contains(k), c.holds(k); got != want {
				t.Errorf("%s: %s (%x): %v, want %v", c.name, k, []byte(k), got, want)
			}
		}
	}
	defer func() {
		if r, ok := recover().(string); !ok || !strings.HasPrefix(r, "batchlog.Prefix: ") {
			t.Errorf("Prefix of what is no key: panic %v", r)
		}
	}()
	Prefix(math.NaN())
}

func TestParsePathJSON(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: "[]", `["a","b"]`: `[]interface {}{"a", "b"}`, `["users",7]`: `[]interface {}{"users", 7}`, `[{"$undefined":true},null]`: "",
	} {
		path, err := ParsePathJSON([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := fmt.Sprintf("%#v", path); want != "" && want != "[]" && got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{`"a"`, `{"$raw":"a000"}`, `1`, `null`, `[`, `[{"a":1}]`, `[{"$raw":"43"}]`} {
		if path, err := ParsePathJSON([]byte(text)); err == nil {
			t.Errorf("%s is the path %v", text, path)
		}
	}
}

func TestPosition(t *testing.T) {
	now := time.Date(2026, 11, 22, 18, 45, 53, 123456000, time.FixedZone("x", 3600))
	asked := errors.New("asked")
	for _, c := range []struct {
		p    Position
		want ID
		text string
	}{
		{Position{}, 1, "first"},
		{First(), 1, "first"},
		{Oldest(), 5, "oldest"},
		{At(0), 1, "1"},
		{At(7), 7, "7"},
		{At(99), 99, "99"},
		{After(0), 1, "1"},
		{After(7), 8, "8"},
		{Now(), 21, "now"},
		{Since(now), 12, "2026-11-22T17:45:53.123456Z"},
	} {
		id, err := c.p.Resolve(5, 20, func(at time.Time) (ID, error) {
			if !at.Equal(now) {
				t.Errorf("asked for %v", at)
			}
			return 12, nil
		})
		if err != nil || id != c.want {
			t.Errorf("%s is %d, %v, want %d", c.p, id, err, c.want)
		}
		if got := c.p.String(); got != c.text {
			t.Errorf("%q, want %q", got, c.text)
		}
	}
	if _, err := Since(now).Resolve(1, 1, func(time.Time) (ID, error) { return 0, asked }); !errors.Is(err, asked) {
		t.Error(err)
	}
}

// Whatever text is taken for a key comes back from the key's own text, and no error is longer than it helps.
func FuzzKeyOfJSON(f *testing.F) {
	for _, text := range []string{`"a"`, ` "a" `, `1`, `-0`, `1e400`, `1 2`, `"a`, `["a",1,{"$date":"2026-01-01T00:00:00Z"}]`, `{"$raw":"ff"}`, `{"$undefined":true}`, "\"\xff\"", "\"\n\"", `"\u0061"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var k, back Key
		if err := k.UnmarshalJSON(text); err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q is taken", text)
		}
		own, err := k.MarshalJSON()
		if err != nil || back.UnmarshalJSON(own) != nil || !bytes.Equal(k, back) {
			t.Fatalf("%q is %x, as text %s, %v, which is %x", text, k, own, err, back)
		}
	})
}
