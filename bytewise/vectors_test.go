package bytewise_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/bytespace/batchlog/bytewise"
)

// npm's bytes both ways, and no two alike.
func TestVectors(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range readRows(t, "testdata/bytewise.jsonl") {
		v, want := r.JSON.value(t), unhex(t, r.Hex)
		if got := encode(t, v); !bytes.Equal(got, want) {
			t.Errorf("Encode(%#v) = %x, want %x", v, got, want)
		}
		got, err := bytewise.Decode(want)
		if err != nil || compare(got, v) != 0 {
			t.Errorf("Decode(%x) = %#v, %v, want %#v", want, got, err, v)
		}
		if seen[r.Hex] {
			t.Errorf("%s stands twice", r.Hex)
		}
		seen[r.Hex] = true
	}
	if len(seen) != 614 {
		t.Errorf("%d vectors, want 614", len(seen))
	}
}

// npm's bytes sort, over all pairs, as the package doc says the values do.
func TestVectorsOrder(t *testing.T) {
	rows := readRows(t, "testdata/bytewise.jsonl")
	values := make([]any, len(rows))
	for i, r := range rows {
		values[i] = r.JSON.value(t)
	}
	for i, a := range rows {
		for j, b := range rows {
			if got, want := strings.Compare(a.Hex, b.Hex), compare(values[i], values[j]); got != want {
				t.Errorf("%s and %s compare as %d, %#v and %#v as %d", a.Hex, b.Hex, got, values[i], values[j], want)
			}
		}
	}
}

// What npm encodes and cannot decode again: -0 we encode, too, as it is equal to +0; a lone surrogate is not UTF-8.
func TestVectorsEncodeOnly(t *testing.T) {
	for _, r := range extraRows(t, "encode-only", 7) {
		if r.JSON.T == "utf16" {
			if got := unhex(t, r.Hex); string(got[1:]) != string(utf16.Decode(r.JSON.Units)) {
				t.Errorf("%s is not what Go makes of %x", r.Hex, r.JSON.Units)
			}
			continue
		}
		v := r.JSON.value(t)
		if got := encode(t, v); !bytes.Equal(got, unhex(t, r.Hex)) {
			t.Errorf("Encode(%#v) = %x, want %s", v, got, r.Hex)
		}
	}
	minusZero := math.Copysign(0, -1)
	if got := encode(t, minusZero); !bytes.Equal(got, encode(t, 0)) {
		t.Errorf("-0 is %x", got)
	}
}

// Of what npm decodes, we accept what it encodes back to the same bytes.
func TestVectorsDecode(t *testing.T) {
	accepted := 0
	for _, r := range extraRows(t, "decode", 40) {
		want := r.OK && r.Reencodes == r.Hex
		v, err := bytewise.Decode(unhex(t, r.Hex))
		if (err == nil) != want {
			t.Errorf("Decode(%s) = %#v, %v; npm: ok %v, reencodes %q", r.Hex, v, err, r.OK, r.Reencodes)
		} else if err == nil {
			accepted++
			if compare(v, r.JSON.value(t)) != 0 {
				t.Errorf("Decode(%s) = %#v", r.Hex, v)
			}
		}
	}
	if accepted != 2 {
		t.Errorf("accepted %d, want 2", accepted)
	}
}

// Where npm's bounds are right, ours are the same bytes.
func TestVectorsBounds(t *testing.T) {
	checked := map[string]int{}
	for _, r := range extraRows(t, "bound", 38) {
		if r.Spec.Prefix == nil {
			continue // 00 and ff, around everything
		}
		var low, high []byte
		var err error
		switch prefix := r.Spec.Prefix.value(t).(type) {
		case []any:
			low, high, err = bytewise.PrefixRange(prefix...)
		case string:
			low, high = bytewise.StringPrefixRange(prefix)
		case []byte:
			low, high = bytewise.BinaryPrefixRange(prefix)
		case float64:
			continue // a single number, which needs no range
		}
		got := low
		if r.Spec.Bound == "upper" {
			got = high
		}
		if err != nil {
			t.Fatal(err)
		}
		wrong := r.Spec.Sort == "binary" && r.Spec.Bound == "upper" // misses what goes on with ff
		if bytes.Equal(got, unhex(t, r.Hex)) == wrong {
			t.Errorf("%s bound of %#v is %x, npm's %s", r.Spec.Bound, r.Spec.Prefix.value(t), got, r.Hex)
		}
		checked[r.Spec.Sort]++
	}
	if checked["array"] != 20 || checked["string"] != 8 || checked["binary"] != 4 {
		t.Errorf("checked %v", checked)
	}
}

// npm's bounds of a whole type are below all its values, so hold none. Ours hold all of it and no more.
func TestVectorsBoundBugs(t *testing.T) {
	arraysLow, arraysHigh, err := bytewise.PrefixRange()
	if err != nil {
		t.Fatal(err)
	}
	stringsLow, stringsHigh := bytewise.StringPrefixRange("")
	binaryLow, binaryHigh := bytewise.BinaryPrefixRange(nil)
	ranges := map[string]struct {
		low, high []byte
		rank      int
	}{
		"boolean": {[]byte{bytewise.TagFalse}, []byte{bytewise.TagTrue + 1}, rank(false)},
		"number":  {[]byte{bytewise.TagNegInf}, []byte{bytewise.TagPosInf + 1}, rank(0.)},
		"date":    {[]byte{bytewise.TagDateBefore}, []byte{bytewise.TagDateAfter + 1}, 3},
		"binary":  {binaryLow, binaryHigh, rank([]byte{})},
		"string":  {stringsLow, stringsHigh, rank("")},
		"array":   {arraysLow, arraysHigh, rank([]any{})},
	}
	checked := 0
	for _, r := range extraRows(t, "bound-bug", 14) {
		ours, ok := ranges[r.Spec.Sort]
		if !ok {
			continue // bounds within arrays, which we do not offer
		}
		checked++
		got := ours.low
		if r.Spec.Bound == "upper" {
			got = ours.high
		}
		if bytes.Equal(got, unhex(t, r.Hex)) {
			t.Errorf("%s has npm's wrong bound %x", r.Spec.Sort, got)
		}
		for _, w := range readRows(t, "testdata/bytewise.jsonl") {
			v := w.JSON.value(t)
			if within(encode(t, v), ours.low, ours.high) != (rank(v) == ours.rank) {
				t.Errorf("%s: %#v in [%x, %x)", r.Spec.Sort, v, ours.low, ours.high)
			}
		}
	}
	if checked != 12 {
		t.Errorf("checked %d", checked)
	}
}

func extraRows(t *testing.T, kind string, want int) []row {
	t.Helper()
	var rows []row
	for _, r := range readRows(t, "testdata/bytewise-extra.jsonl") {
		if r.Kind == kind {
			rows = append(rows, r)
		}
	}
	if len(rows) != want {
		t.Fatalf("%d rows of kind %s, want %d", len(rows), kind, want)
	}
	return rows
}

func within(b, low, high []byte) bool {
	return bytes.Compare(low, b) <= 0 && bytes.Compare(b, high) < 0
}
