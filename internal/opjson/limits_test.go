package opjson

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// members is an object with n members.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":""`, i)
	}
	return "{" + b.String()[min(1, b.Len()):] + "}"
}

// list is an array of n times the item.
func list(n int, item string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
}

func put(members string) string { return `{"ops":[{"put":{"space":"a",` + members + `}}]}` }

// constructs are lines that have something n times, as large as they come.
var constructs = []struct {
	name string
	n    int // a quarter of the largest number of times
	line func(n int) string
	want string // part of the error for the largest; "" is none
}{
	{"labels", 20_000, func(n int) string { return `{"ops":[],"labels":` + members(n) + `}` }, "labels too large"},
	{"one label", 1 << 20, func(n int) string { return `{"ops":[],"labels":{"a":"` + strings.Repeat("x", n) + `"}}` }, "labels too large"},
	{"token", 1 << 20, func(n int) string { return `{"ops":[],"token":"` + strings.Repeat("x", n) + `"}` }, "token too large"},
	{"ops", 20_000, func(n int) string { return `{"ops":` + list(n, `{"del":{"space":"a","key":1}}`) + `}` }, ""},
	{"spaces", 5000, func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,{"del":{"space":["a",%d],"key":1}}`, i)
		}
		return `{"ops":[` + b.String()[1:] + `]}`
	}, ""},
	{"value", 1 << 20, func(n int) string { return put(`"key":1,"value":"` + strings.Repeat("x", n) + `"`) }, ""},
	{"escaped value", 1 << 18, func(n int) string { return put(`"key":1,"value":"` + strings.Repeat(`\u00e9`, n) + `"`) }, ""},
	{"base64 value", 1 << 20, func(n int) string { return put(`"key":1,"value":{"$base64":"` + strings.Repeat("AAAA", n/4) + `"}`) }, ""},
	{"key of one string", 1 << 20, func(n int) string { return put(`"value":"","key":"` + strings.Repeat("x", n) + `"`) }, "key: key"},
	{"key of many parts", 1 << 18, func(n int) string { return put(`"value":"","key":` + list(n, "0")) }, "key: key"},
	{"deep key", 1 << 18, func(n int) string { return put(`"value":"","key":` + strings.Repeat("[", n) + strings.Repeat("]", n)) }, "not JSON"},
	{"long number", 1 << 18, func(n int) string { return put(`"value":"","key":1` + strings.Repeat("0", n)) }, "key: key"},
	{"long fraction", 1 << 18, func(n int) string { return put(`"value":"","key":0.` + strings.Repeat("1", n)) }, ""},
	{"raw key", 1 << 20, func(n int) string { return put(`"value":"","key":{"$raw":"` + strings.Repeat("ff", n/2) + `"}`) }, "key: key"},
	{"key of many members", 20_000, func(n int) string { return put(`"value":"","key":` + members(n)) }, "no key"},
	{"path of words", 1 << 18, func(n int) string { return `{"ops":[{"del":{"key":1,"space":"a` + strings.Repeat("/a", n) + `"}}]}` }, "path depth too large"},
	{"path as an array", 1 << 18, func(n int) string { return `{"ops":[{"del":{"key":1,"space":` + list(n, `"a"`) + `}}]}` }, "path as JSON too large"},
	{"path in white space", 1 << 18, func(n int) string { return `{"ops":[{"del":{"key":1,"space":[` + strings.Repeat(" ", n) + `"a"]}}]}` }, ""},
	{"unknown field", 1 << 20, func(n int) string { return `{"` + strings.Repeat("x", n) + `":1}` }, "unknown field"},
	{"unknown fields", 20_000, members, "unknown field"},
	{"field again and again", 20_000, func(n int) string { return "{" + strings.Repeat(`"ops":[],`, n) + `"ops":[]}` }, "twice"},
	{"empty ops", 1 << 18, func(n int) string { return `{"ops":` + list(n, "{}") + `}` }, "empty object"},
	{"depth", 1 << 18, func(n int) string { return strings.Repeat(`{"ops":[`, n) }, "not JSON"},
	{"white space", 1 << 20, func(n int) string { return `{"ops":[` + strings.Repeat(" ", n) + `]}` }, ""},
	{"size", 1 << 18, func(n int) string { return put(`"key":1,"blob":{"size":` + strings.Repeat("9", n) + `}`) }, "size"},
	{"hash", 1 << 20, func(n int) string { return put(`"key":1,"blob":{"size":1,"sha256":"` + strings.Repeat("9", n) + `"}`) }, "hex digits"},
}

// work is what f takes: bytes of memory, and time of the processor.
func work(t *testing.T, f func()) (bytes int64, cpu time.Duration) {
	t.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := used()
	f()
	cpu = used() - began
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc), cpu
}

// Whatever a line has much of, it takes work in proportion to its length, and its error has no more than a part of it.
func TestWork(t *testing.T) {
	for _, c := range constructs {
		t.Run(c.name, func(t *testing.T) {
			var bytes [2]int64
			var cpu [2]time.Duration
			for i, n := range []int{c.n, 4 * c.n} {
				line := []byte(c.line(n))
				var err error
				bytes[i], cpu[i] = work(t, func() { err = NewParser(batchlog.New(nil)).Batch(line, new(batchlog.Batch)) })
				if err != nil && len(err.Error()) > 2000 {
					t.Errorf("an error of %d bytes: %.300s", len(err.Error()), err)
				}
				if i == 1 && (c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want))) {
					t.Errorf("error %v, want %q", err, c.want)
				}
				if limit := int64(100*len(line) + 1<<20); bytes[i] > limit {
					t.Errorf("a line of %d bytes takes %d bytes of memory, more than %d", len(line), bytes[i], limit)
				}
			}
			if bytes[1] > 6*bytes[0]+1<<20 {
				t.Errorf("memory grows from %d to %d bytes with a line four times as long", bytes[0], bytes[1])
			}
			if cpu[1] > 8*cpu[0]+time.Second {
				t.Errorf("time of the processor grows from %v to %v with a line four times as long", cpu[0], cpu[1])
			}
		})
	}
}

// An object takes work in proportion to its members also where their number has no limit.
func TestMembersWork(t *testing.T) {
	text := []byte(members(200_000))
	_, cpu := work(t, func() {
		if err := EachMember(text, func(string, []byte) error { return nil }); err != nil {
			t.Error(err)
		}
	})
	if cpu > 5*time.Second {
		t.Errorf("200,000 members took %v of the processor", cpu)
	}
	twice := []byte(members(200_000)[:1] + `"199999":1,` + members(200_000)[1:])
	if err := EachMember(twice, func(string, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), `"199999" twice`) {
		t.Error(err)
	}
}

// What is too large for a batch is said while the line is read, with the place.
func TestLineLimits(t *testing.T) {
	hash := strings.Repeat("00", 32)
	for _, c := range []struct{ line, place string }{
		{put(`"key":1,"blob":{"sha256":"` + hash + `","size":9223372036854775807}`), "op 1: put: blob: size: "},
		{put(`"key":1,"blob":{"sha256":"` + hash + `","size":99999999999999999999}`), "op 1: put: blob: size: "},
		{put(`"key":1,"blob":{"sha256":"` + hash + `","size":-1}`), "op 1: put: blob: size: "},
		{`{"ops":[],"labels":{"a":"` + strings.Repeat("x", batchlog.MaxMetaBytes) + `"}}`, "labels: "},
		{`{"ops":[],"token":"` + strings.Repeat("x", batchlog.MaxTokenBytes+1) + `"}`, "token: "},
		{put(`"value":"","key":"` + strings.Repeat("x", 4<<20) + `"`), "op 1: put: key: "},
		{`{"ops":[{"del":{"key":1,"space":"` + strings.Repeat("a/", 40) + `a"}}]}`, "op 1: del: space: "},
	} {
		err := NewParser(batchlog.New(nil)).Batch([]byte(c.line), new(batchlog.Batch))
		if err == nil || !strings.HasPrefix(err.Error(), c.place) || errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("%.80s: %v, want %s", c.line, err, c.place)
			continue
		}
		if !strings.Contains(c.line, "-1") && !errors.Is(err, batchlog.ErrTooLarge) {
			t.Errorf("%.80s: %v is no ErrTooLarge", c.line, err)
		}
	}
	// As large as they may be they are taken.
	line := `{"ops":[],"token":"` + strings.Repeat("x", batchlog.MaxTokenBytes) + `","labels":{"a":"` + strings.Repeat("x", batchlog.MaxMetaBytes-600) + `"}}`
	if err := NewParser(batchlog.New(nil)).Batch([]byte(line), new(batchlog.Batch)); err != nil {
		t.Error(err)
	}
}
