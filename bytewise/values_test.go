package bytewise_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog/bytewise"
)

// A row is a line of testdata/*.jsonl, made by running the npm packages.
type row struct {
	Kind, Hex, Note, Reencodes string
	OK                         bool
	JSON                       *tagged
	Spec                       struct {
		Base, Sort, Bound string
		Prefix            *tagged
	}
}

// A tagged is a value as the vectors write it.
type tagged struct {
	T, MS, Hex string
	V          json.RawMessage
	Units      []uint16
}

func readRows(t testing.TB, file string) []row {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []row
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no rows", file)
	}
	return rows
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// value returns the Go value of j.
func (j *tagged) value(t testing.TB) any {
	t.Helper()
	switch j.T {
	case "null":
		return nil
	case "undefined":
		return bytewise.Undefined
	case "boolean":
		return string(j.V) == "true"
	case "buffer":
		return unhex(t, j.Hex)
	case "date":
		ms, err := strconv.ParseInt(j.MS, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.UnixMilli(ms).UTC()
	case "string", "number":
		var s string
		if err := json.Unmarshal(j.V, &s); err != nil {
			t.Fatal(err)
		}
		if j.T == "string" {
			return s
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	case "array":
		var elements []tagged
		if err := json.Unmarshal(j.V, &elements); err != nil {
			t.Fatal(err)
		}
		v := []any{}
		for _, e := range elements {
			v = append(v, e.value(t))
		}
		return v
	}
	t.Fatalf("unknown value %+v", j)
	return nil
}

// rank is the place of v's type in the order.
func rank(v any) int {
	switch v.(type) {
	case nil:
		return 0
	case bool:
		return 1
	case float64:
		return 2
	case time.Time:
		return 3
	case []byte:
		return 4
	case string:
		return 5
	case []any:
		return 6
	case bytewise.UndefinedType:
		return 7
	}
	panic(fmt.Sprintf("no rank for %T", v))
}

// compare orders values as Decode returns them, by the words of the package doc and without encoding them.
func compare(a, b any) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch a := a.(type) {
	case bool:
		if a == b.(bool) {
			return 0
		}
		if a {
			return 1
		}
		return -1
	case float64:
		return cmp.Compare(a, b.(float64))
	case time.Time:
		return a.Compare(b.(time.Time))
	case []byte:
		return bytes.Compare(a, b.([]byte))
	case string:
		return strings.Compare(a, b.(string))
	case []any:
		return slices.CompareFunc(a, b.([]any), compare)
	}
	return 0
}

// generate returns a value made of the bytes that next yields, with arrays at most depth deep. It likes what is special.
func generate(next func() byte, depth int) any {
	kinds := byte(13)
	if depth == 0 {
		kinds = 11
	}
	switch next() % kinds {
	case 0:
		return nil
	case 1:
		return next()&1 == 0
	case 2:
		return float64(int8(next()))
	case 3, 4:
		f := math.Float64frombits(generateUint(next))
		if math.IsNaN(f) {
			return math.Inf(int(int8(next())))
		}
		return f
	case 5:
		return time.UnixMilli(int64(int8(next()))).UTC()
	case 6:
		const limit = 8_640_000_000_000_000
		return time.UnixMilli(int64(generateUint(next)) % (limit + 1)).UTC()
	case 7, 8:
		likely := []byte{0x00, 0x01, 0x02, 0x61, 0xfd, 0xfe, 0xff, 0xff}
		b := make([]byte, next()%5)
		for i := range b {
			if c := next(); c < 0xe0 {
				b[i] = likely[c%8]
			} else {
				b[i] = next()
			}
		}
		return b
	case 9:
		likely := []rune{0, 1, 2, 'a', 'b', 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff}
		s := make([]rune, next()%5)
		for i := range s {
			s[i] = likely[int(next())%len(likely)]
		}
		return string(s)
	case 10:
		return bytewise.Undefined
	}
	v := make([]any, next()%4)
	for i := range v {
		v[i] = generate(next, depth-1)
	}
	return v
}

func generateUint(next func() byte) uint64 {
	var b [8]byte
	for i := range b {
		b[i] = next()
	}
	return binary.BigEndian.Uint64(b[:])
}

// generateMany returns n values and logs the seed they come from.
func generateMany(t testing.TB, n int) []any {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	values := make([]any, n)
	for i := range values {
		values[i] = generate(func() byte { return byte(r.Uint32()) }, 4)
	}
	return values
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := bytewise.Encode(v)
	if err != nil {
		t.Fatalf("Encode(%#v): %v", v, err)
	}
	return b
}
