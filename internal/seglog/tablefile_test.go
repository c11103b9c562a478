package seglog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var testHead = tableHead{database: segment.UUID{7}, id: segment.UUID{1, 2, 3}, number: 4}

// docOf is what the manifest says of f.
func docOf(f *tableFile) tableDoc {
	return tableDoc{Table: tableName(f.head.number), ID: hex.EncodeToString(f.head.id[:]), Snapshot: f.snapshot}
}

func contentOfTable(t *testing.T, fs vfs.FS) []byte {
	t.Helper()
	b, err := disk.ReadFile(fs, tableName(testHead.number))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// segsOf is a table as plain values.
func segsOf(tab *table) (segs []seg) {
	for s := range tab.segs.all() {
		segs = append(segs, *s)
	}
	return segs
}

// rolls is the edits of that many segments that are begun and fill up.
func rolls(from, count int) (edits []edit) {
	for i := range count {
		first := batchlog.ID(from+i)*10 + 1
		edits = append(edits, edit{
			{kind: kindFull, seg: seg{first: first, last: first + 9, end: 5000, oldest: 1, newest: 2, begun: 3, ended: 4}},
			{kind: kindBegin, seg: seg{first: first + 10, tag: segTag{byte(i), 7}, size: 1 << 20}},
		})
	}
	return edits
}

// applied is tab after some edits, each of which was written to f.
func applied(t *testing.T, tab *table, f *tableFile, edits ...edit) *table {
	t.Helper()
	for _, e := range edits {
		next, err := tab.apply(e)
		if err != nil {
			t.Fatal(err)
		}
		if f != nil {
			if spoilt, err := f.append(appendEdit(nil, e)); err != nil {
				t.Fatal(spoilt, err)
			}
		}
		tab = next
	}
	return tab
}

func newTableFile(t *testing.T, fs vfs.FS, tab *table) *tableFile {
	t.Helper()
	f, err := createTable(fs, "", testHead, tab.snapshot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.file.Close() })
	return f
}

// A table comes back as it was with its snapshot, its edits and the last mark, and goes on where it was.
func TestTableFile(t *testing.T) {
	fs := vfs.NewMem()
	tab := applied(t, &table{}, nil, edit{{kind: kindBegin, seg: seg{first: 1}}})
	tab = applied(t, tab, nil, rolls(0, 3)...)
	f := newTableFile(t, fs, tab)
	for round := range 3 {
		tab = applied(t, tab, f, rolls(3+round*5, 5)...)
		for i := range 3 { // only the last one counts
			if err := f.mark(mark{tab.active().first, int64(4096 + i), 7}); err != nil {
				t.Fatal(err)
			}
		}
		at := f.at
		r, err := parseTable(contentOfTable(t, fs), "t", docOf(f))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(segsOf(r.table), segsOf(tab)) || r.table.mark != (mark{tab.active().first, 4098, 7}) || r.at != at || r.last == 0 {
			t.Fatalf("%+v\nmark %+v, at %d of %d, want %+v", segsOf(r.table), r.table.mark, r.at, at, segsOf(tab))
		}
		if f, err = openTable(fs, "", r); err != nil {
			t.Fatal(err)
		}
		defer f.file.Close()
		tab = r.table
	}
}

// A record whose sync did not return is no edit, whatever of it came to the disk. Everything before it that is changed is found, wherever that is: what is read is what was written, or an error.
func TestTableFileDamage(t *testing.T) {
	fs := vfs.NewMem()
	tab := applied(t, &table{}, nil, edit{{kind: kindBegin, seg: seg{first: 1}}})
	tab = applied(t, tab, nil, rolls(0, 3)...)
	f := newTableFile(t, fs, tab)
	tab = applied(t, tab, f, rolls(3, 3)...)
	durable := f.at
	before := segsOf(tab)
	last := rolls(6, 1)[0]
	applied(t, tab, f, last)
	end := durable + recordHead + int64(len(appendEdit(nil, last))) // what follows it up to a multiple of eight means nothing
	doc, good := docOf(f), contentOfTable(t, fs)
	read := func(b []byte) (*readTable, error) { return parseTable(b, "t", doc) }

	for n := durable; n < end; n++ { // torn, with zeros or something else in place of the rest
		for _, rest := range []byte{0, 0xaa} {
			b := bytes.Clone(good)
			copy(b[n:f.at], bytes.Repeat([]byte{rest}, int(f.at-n)))
			if bytes.Equal(b[:end], good[:end]) {
				continue
			}
			if r, err := read(b); err != nil || !reflect.DeepEqual(segsOf(r.table), before) || r.at != durable {
				t.Fatalf("torn at %d: %v", n, err)
			}
		}
	}
	if err := f.mark(mark{first: 71, end: 5000}); err != nil {
		t.Fatal(err)
	}
	good = contentOfTable(t, fs)
	all, err := read(good)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good[:f.at] { // a mark behind an edit says that it was durable
		for _, x := range []byte{1, 0x80} {
			b := bytes.Clone(good)
			b[i] ^= x
			r, err := read(b)
			padding := err == nil && reflect.DeepEqual(segsOf(r.table), segsOf(all.table))
			if !padding && !errors.Is(err, batchlog.ErrCorrupt) && !errors.Is(err, batchlog.ErrUnsupported) {
				t.Fatalf("byte %d ^ %#x: %v", i, x, err)
			}
		}
	}
	for n := range f.at {
		if r, err := read(good[:n]); err == nil && (n < doc.Snapshot || len(segsOf(r.table)) > len(before)) || err != nil && !errors.Is(err, batchlog.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, f.at, err)
		}
	}
	other := doc
	other.ID = strings.Repeat("0", 32)
	if _, err := parseTable(good, "t", other); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Errorf("a table of another time: %v", err)
	}
}

// With the disk full nothing has happened, and the next edit is written over what there is of it. Any other failure of a write or a sync is the
// end of the file.
func TestTableFileFails(t *testing.T) {
	var fault error
	var op errorfs.OpKind
	mem := vfs.NewMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(o errorfs.Op) error {
		if fault != nil && o.Kind == op {
			return fault
		}
		return nil
	}))
	tab := applied(t, &table{}, nil, edit{{kind: kindBegin, seg: seg{first: 1}}})
	f := newTableFile(t, fs, tab)
	big := edit{{kind: kindMoving, seg: seg{first: 1, dir: strings.Repeat("d", 300)}}}
	for _, c := range []struct {
		op     errorfs.OpKind
		fault  error
		spoilt bool
	}{
		{errorfs.OpFileWriteAt, syscall.ENOSPC, false},
		{errorfs.OpFileWriteAt, syscall.EDQUOT, false},
		{errorfs.OpFileWriteAt, syscall.EIO, true},
		{errorfs.OpFileSyncData, syscall.ENOSPC, true},
		{errorfs.OpFileSyncData, syscall.EIO, true},
	} {
		op, fault = c.op, c.fault
		spoilt, err := f.append(appendEdit(nil, big))
		if spoilt != c.spoilt || !errors.Is(err, c.fault) {
			t.Errorf("%v, %v: spoilt %t, %v", c.op, c.fault, spoilt, err)
		}
		fault = nil
		tab = applied(t, tab, f, rolls(tab.segs.len()-1, 1)...)
		b, err := disk.ReadFile(mem, tableName(testHead.number))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := parseTable(b, "t", docOf(f)); err != nil || !reflect.DeepEqual(segsOf(r.table), segsOf(tab)) {
			t.Errorf("%v, %v: then %v", c.op, c.fault, err)
		}
	}
}

// largeTable is a table of that many sealed segments, a hundred times as many commits, and an active one.
func largeTable(t testing.TB, count int) *table {
	var e edit
	for i := range count {
		first := batchlog.ID(i)*100 + 1
		e = append(e, change{kind: kindWhole, seg: seg{
			first: first, last: first + 99, tag: segTag{byte(i), byte(i >> 8), 7, 8}, state: sealed, dir: []string{"", "/disks/two/of/them"}[i%2], end: 60 << 20,
			size: 64 << 20, oldest: 1_700_000_000_000_000 + int64(i)*60e6, newest: 1_700_000_000_000_000 + int64(i)*60e6 + 59e6, hash: [32]byte{byte(i), byte(i >> 8), 1, 2, 3},
		}})
	}
	e = append(e, change{kind: kindBegin, seg: seg{first: batchlog.ID(count)*100 + 1}})
	tab, err := (&table{}).apply(e)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// An edit writes as many bytes at a hundred thousand segments as at ten, and takes hardly more memory; what it costs to write another file now
// and then is in proportion to the edits.
func TestEditCost(t *testing.T) {
	cost := func(segments int) (written []int64, allocated uint64) {
		tab := largeTable(t, segments)
		f := newTableFile(t, vfs.NewMem(), tab)
		first := batchlog.ID(segments)*100 + 1
		middle := batchlog.ID(segments/2)*100 + 1
		before := f.at
		for _, e := range []edit{
			{{kind: kindFull, seg: seg{first: first, last: first + 99}}, {kind: kindBegin, seg: seg{first: first + 100}}},
			{{kind: kindSealed, seg: seg{first: first}}},
			{{kind: kindMoving, seg: seg{first: middle, dir: "/warm"}}},
			{{kind: kindMoved, seg: seg{first: middle}}},
			{{kind: kindDropped, seg: seg{last: 100}}},
			{{kind: kindRemoved, low: 0, high: 1}},
		} {
			var a, b runtime.MemStats
			runtime.ReadMemStats(&a)
			next, err := tab.apply(e)
			runtime.ReadMemStats(&b)
			allocated = max(allocated, b.TotalAlloc-a.TotalAlloc)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.append(appendEdit(nil, e)); err != nil {
				t.Fatal(err)
			}
			written = append(written, (f.at-before+15)&^15) // ids take some bytes more
			before, tab = f.at, next
		}
		return written, allocated
	}
	small, _ := cost(10)
	large, allocated := cost(100_000)
	for i := range small {
		if large[i] > small[i]+16 {
			t.Errorf("edit %d writes %d bytes at 10 segments, %d at 100,000", i, small[i], large[i])
		}
	}
	if allocated > 64<<10 {
		t.Errorf("an edit at 100,000 segments allocates %d bytes", allocated)
	}

	tab := largeTable(t, 0) // amortized: all that is written while a table grows to so many segments
	f := newTableFile(t, vfs.NewMem(), tab)
	total, edits := f.size, int64(0)
	for i := range 20_000 {
		first := batchlog.ID(i)*10 + 1
		for _, e := range []edit{
			{{kind: kindFull, seg: seg{first: first, last: first + 9}}, {kind: kindBegin, seg: seg{first: first + 10}}},
			{{kind: kindSealed, seg: seg{first: first, hash: [32]byte{1}}}},
		} {
			before := f.at
			tab = applied(t, tab, f, e)
			edits += f.at - before
			if f.worn() {
				f = newTableFile(t, vfs.NewMem(), tab)
				total += f.snapshot
			}
		}
	}
	if total += edits; total > 4*edits {
		t.Errorf("%d bytes of edits took %d bytes of writes", edits, total)
	}
}

// A table of a hundred thousand segments is read in less than a second of CPU, and takes less than 400 bytes a segment.
func TestLargeTable(t *testing.T) {
	fs := vfs.NewMem()
	f := newTableFile(t, fs, largeTable(t, 100_000))
	b := contentOfTable(t, fs)
	doc := docOf(f)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := cpu(t)
	r, err := parseTable(b, "t", doc)
	took := cpu(t) - start
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d bytes of file, %d bytes in memory, %v of CPU", len(b), held, took)
	if took > time.Second && !raceEnabled || held > 400*100_000 || r.table.segs.len() != 100_001 {
		t.Errorf("%d segments took %v of CPU and hold %d bytes", r.table.segs.len(), took, held)
	}
}

// cpu is the time that this process has computed.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var update = flag.Bool("update", false, "write golden files that are not there")

// The format of today is read for ever: the file of a table, as it was first written.
func TestTableGolden(t *testing.T) {
	tab := applied(t, &table{}, nil, edit{{kind: kindBegin, seg: seg{first: 1}}})
	tab = applied(t, tab, nil, rolls(0, 3)...)
	tab = applied(t, tab, nil, edit{{kind: kindDropped, seg: seg{last: 10}}})
	fs := vfs.NewMem()
	f := newTableFile(t, fs, tab)
	tab = applied(t, tab, f, rolls(3, 2)...)
	tab = applied(t, tab, f,
		edit{{kind: kindSealed, seg: seg{first: 11, size: 6000, hash: [32]byte{1, 2}, oldest: 1, newest: 2}}},
		edit{{kind: kindSealed, seg: seg{first: 21, size: 6000, hash: [32]byte{3, 4}, oldest: 2, newest: 3}}},
		edit{{kind: kindMoving, seg: seg{first: 11, dir: "/warm/uuid"}}, {kind: kindMoving, seg: seg{first: 21, dir: "/warm/uuid"}}},
		edit{{kind: kindMoved, seg: seg{first: 11}}, {kind: kindRemoved, low: 0, high: 0}},
	)
	if err := f.mark(mark{51, 4500, 5}); err != nil {
		t.Fatal(err)
	}
	b := contentOfTable(t, fs)[:f.at+64]
	for name, content := range map[string][]byte{"table-v1": b, "manifest-v2": f.doc()} {
		name := filepath.Join("testdata", name)
		golden, err := os.ReadFile(name)
		if *update && errors.Is(err, os.ErrNotExist) {
			golden, err = content, os.WriteFile(name, content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(golden, content) {
			t.Errorf("%s: the format has changed: it needs a new version, and a reader of this one", name)
		}
	}
	r, err := parseTable(b, "t", docOf(f))
	if err != nil {
		t.Fatal(err)
	}
	wantLimbo := []string{fmt.Sprint(1, place{"", segmentName(11, segTag{0, 7})})}
	var limbo []string
	for g := range r.table.limbo.all() {
		limbo = append(limbo, fmt.Sprint(g.n, g.place))
	}
	if !reflect.DeepEqual(segsOf(r.table), segsOf(tab)) || !slices.Equal(limbo, wantLimbo) || r.table.mark.end != 4500 {
		t.Errorf("%+v\nlimbo %v", segsOf(r.table), limbo)
	}
}
