package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

func TestParseKey(t *testing.T) {
	date := time.Date(2026, 11, 22, 18, 45, 53, 0, time.UTC)
	for _, c := range []struct {
		in   string
		want batchlog.Key
	}{
		{"alice", batchlog.K("alice")},
		{`"alice"`, batchlog.K("alice")},
		{`two words`, batchlog.K("two words")},
		{"", batchlog.K("")},
		{"42", batchlog.K(42)},
		{"-1.5e3", batchlog.K(-1500)},
		{`"42"`, batchlog.K("42")},
		{"true", batchlog.K(true)},
		{"null", batchlog.K(nil)},
		{`["alice",42]`, batchlog.K("alice", 42)},
		{`[]`, batchlog.K()},
		{`{"$date":"2026-11-22T18:45:53Z"}`, batchlog.K(date)},
		{`{"$bytes":"AP8="}`, batchlog.K([]byte{0, 0xff})},
		{`{"$raw":"ff"}`, batchlog.Key{0xff}},
		{`{"$raw":""}`, batchlog.Key{}},
		{"2026-11-22", batchlog.K("2026-11-22")},
	} {
		got, err := parseKey(c.in)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("parseKey(%s) = %x, %v, want %x", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{`["alice",42`, `"alice`, `{alice}`, `{"a":1}`, "9007199254740993", "1e999", "\xff"} {
		_, err := parseKey(in)
		var usage *usageError
		if !errors.As(err, &usage) {
			t.Errorf("parseKey(%s): %v, want a usage error", in, err)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]batchlog.Range{
		"al":          batchlog.StringPrefix("al"),
		`"4"`:         batchlog.StringPrefix("4"),
		`["users"]`:   batchlog.Prefix("users"),
		`["u",4]`:     batchlog.Prefix("u", 4),
		`[]`:          batchlog.Prefix(),
		`"with a \""`: batchlog.StringPrefix(`with a "`),
	} {
		r, err := parsePrefix(in)
		if err != nil || !bytes.Equal(r.Low, want.Low) || !bytes.Equal(r.High, want.High) {
			t.Errorf("parsePrefix(%s) = %v, %v, want %v", in, r, err, want)
		}
	}
	for _, in := range []string{"4", "true", "null", `{"$raw":"ff"}`, `{"$bytes":"AA=="}`} {
		if _, err := parsePrefix(in); err == nil {
			t.Errorf("parsePrefix(%s) is taken", in)
		}
	}
}

func TestParsePosition(t *testing.T) {
	zone := time.FixedZone("there", 2*60*60)
	now := time.Date(2026, 11, 22, 18, 0, 0, 0, zone)
	for in, want := range map[string]batchlog.Position{
		"first":                batchlog.First(),
		"oldest":               batchlog.Oldest(),
		"now":                  batchlog.Now(),
		"7":                    batchlog.At(7),
		"0":                    batchlog.At(1),
		"2026-11-22T16:00:00Z": batchlog.Since(now),
		"2026-11-22T18:00:00":  batchlog.Since(now),
		"2026-11-22 18:00":     batchlog.Since(now),
		"2026-11-22":           batchlog.Since(now.Add(-18 * time.Hour)),
		"90s":                  batchlog.Since(now.Add(-90 * time.Second)),
		"2d":                   batchlog.Since(now.Add(-48 * time.Hour)),
	} {
		p, err := parsePosition("--from", in, now)
		if err != nil || p.String() != want.String() {
			t.Errorf("parsePosition(%s) = %s, %v, want %s", in, p, err, want)
		}
	}
	for _, in := range []string{"", "last", "-1", "-1h", "7.5", "22.11.2026", "18446744073709551615", "99999999999999999999"} {
		if p, err := parsePosition("--from", in, now); err == nil {
			t.Errorf("parsePosition(%s) is %s", in, p)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "1MiB": 1 << 20, "1 MiB": 1 << 20, "64M": 64 << 20, "1K": 1024, "2GiB": 2 << 30, "1MB": 1e6, "3kB": 3000, "5B": 5,
	} {
		if n, err := parseBytes(in); n != want || err != nil {
			t.Errorf("parseBytes(%s) = %d, %v, want %d", in, n, err, want)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "1.5MiB", "1XB", "1 2", "9223372036854775807K"} {
		if n, err := parseBytes(in); err == nil {
			t.Errorf("parseBytes(%s) = %d", in, n)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"90s": 90 * time.Second, "7d": 7 * 24 * time.Hour, "0.5d": 12 * time.Hour, "0s": 0} {
		var d duration
		if err := d.Set(in); err != nil || time.Duration(d) != want {
			t.Errorf("%s is %s, %v, want %s", in, &d, err, want)
		}
	}
	for _, in := range []string{"", "7", "d", "xd", "-1s", "NaNd", "1e99d"} {
		var d duration
		if err := d.Set(in); err == nil {
			t.Errorf("%s is %s", in, &d)
		}
	}
}

func TestParseLabels(t *testing.T) {
	labels, err := parseLabels([]string{"actor=me", "why=a=b", "empty="})
	if err != nil || len(labels) != 3 || labels["actor"] != "me" || labels["why"] != "a=b" || labels["empty"] != "" {
		t.Errorf("labels %v, %v", labels, err)
	}
	for _, bad := range []string{"actor", "=x", ""} {
		if _, err := parseLabels([]string{bad}); err == nil {
			t.Errorf("label %q is taken", bad)
		}
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{"a/b.c": "a/b.c", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "ä": "'ä'", "$x": "'$x'"} {
		equal(t, in, shellWord(in), want)
	}
}

// What a key is printed as is the KEY that means it.
func FuzzParseKey(f *testing.F) {
	for _, text := range []string{"alice", `["alice",42]`, `{"$date":"2026-11-22T18:45:53.123Z"}`, `{"$bytes":"AP8="}`, `[{"$undefined":true},null,true,-0.5,""]`, `{"$raw":"43"}`, "1e999", "[[[["} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseKey(text)
		if err != nil {
			return
		}
		printed, err := k.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseKey(string(printed)); err != nil || !bytes.Equal(back, k) {
			t.Fatalf("%q is %x, printed as %s, which is %x, %v", text, []byte(k), printed, []byte(back), err)
		}
	})
}
