package seglog

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A reader with a filter yields the commits that touch its spaces, from every position, whether from blocks of sealed segments, full
// ones, the active one or memory.
func TestReaderFilter(t *testing.T) {
	for _, limit := range []int{1, 20_000} {
		w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
		w.log.ring.limit = limit
		r := rand.New(rand.NewPCG(5, 5))
		for range 100 {
			group := make([]wire.Record, 1+r.IntN(3))
			for i := range group {
				path := []any{"common"}
				switch r.IntN(10) {
				case 0:
					path = []any{"rare"}
				case 1:
					path = []any{"rare", "within", r.IntN(3)}
				case 2:
					path = nil
				}
				group[i] = put(r.IntN(1500), path...)
			}
			w.write(group...)
		}
		w.sealed()
		for _, within := range [][][]byte{{open("rare")}, {open("rare", "within", 1)}, {open("nowhere"), open("rare", "within")}, {open()}, {open("nowhere")}} {
			for from := 1; from <= len(w.all); from += 1 + r.IntN(5) {
				until := from + r.IntN(len(w.all)-from+1)
				var want []wire.Record
				for _, rec := range w.all[from-1 : until] {
					if ok, err := touches(&rec, within); err != nil || ok {
						want = append(want, rec)
					}
				}
				got, err := read(t, w.log, batchlog.LogOptions{From: batchlog.At(batchlog.ID(from)), Until: batchlog.ID(until), Within: within})
				if err != nil {
					t.Fatal(err)
				}
				wantRecords(t, got, want)
			}
		}
	}
}

// Blocks without a commit that matches are not read, also where Until lies within them; what is scanned says how far it has looked.
func TestReaderSkips(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, 1<<20))
	w.log.ring.limit = 1
	r := rand.New(rand.NewPCG(6, 6))
	rare := 0
	for w.log.Status().Segments < 3 {
		group := make([]wire.Record, 20)
		for i := range group {
			group[i] = put(200, "common", r.IntN(5))
			if r.IntN(500) == 0 {
				group[i] = put(200, "rare")
				rare++
			}
		}
		w.write(group...)
	}
	w.sealed()
	last := w.segs()[1].last
	bytesOf := func(o batchlog.LogOptions) int64 {
		t.Helper()
		fs.bytesRead()
		got, err := read(t, w.log, o)
		if err != nil {
			t.Fatal(err)
		}
		if o.Within != nil && o.From == batchlog.First() && o.Until == last {
			want := 0
			for _, rec := range w.all[:last] {
				if ok, _ := touches(&rec, o.Within); ok {
					want++
				}
			}
			if len(got) != want {
				t.Errorf("%d commits, want %d", len(got), want)
			}
		}
		return fs.bytesRead()
	}
	all := bytesOf(batchlog.LogOptions{Until: last})
	if all < 1<<20 {
		t.Fatalf("all was read in %d bytes", all)
	}
	index := int64(0) // and headers and footers
	for _, s := range w.segs()[:2] {
		index += s.size - endOf(s) + segment.HeaderSize
	}
	if got := bytesOf(batchlog.LogOptions{Until: last, Within: [][]byte{open("nowhere")}}); got > index {
		t.Errorf("for a space without commits %d bytes were read, the indexes have %d", got, index)
	}
	got := bytesOf(batchlog.LogOptions{Until: last, Within: [][]byte{open("rare")}})
	if most := index + int64(rare)*2*segment.BlockBytes; got > most || got >= all/2 {
		t.Errorf("for %d commits of %d: %d bytes read of %d, at most %d are needed", rare, last, got, all, most)
	}
	if got := bytesOf(batchlog.LogOptions{Until: last / 2, Within: [][]byte{open("nowhere")}}); got > index {
		t.Errorf("up to a commit in a block that is left out: %d bytes", got)
	}
	until := w.segs()[0].last - 7
	reader, err := w.log.Reader(batchlog.LogOptions{From: batchlog.At(until / 3), Until: until, Within: [][]byte{open("nowhere")}})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	scanned := batchlog.ID(0)
	for {
		records, upTo, err := reader.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(records) > 0 || upTo <= scanned {
			t.Fatalf("%d commits up to %d, behind %d: %v", len(records), upTo, scanned, err)
		}
		scanned = upTo
	}
	if scanned != until {
		t.Errorf("looked up to %d, want %d", scanned, until)
	}
}

func TestTouches(t *testing.T) {
	rec := put(1, "a", "b")
	for _, c := range []struct {
		within [][]byte
		want   bool
	}{
		{[][]byte{open("a")}, true}, {[][]byte{open("a", "b")}, true}, {[][]byte{open()}, true}, {[][]byte{open("b"), open("a")}, true},
		{[][]byte{open("a", "b", "c")}, false}, {[][]byte{open("b")}, false}, {[][]byte{open("a", "bb")}, false}, {nil, false},
	} {
		if got, err := touches(&rec, c.within); err != nil || got != c.want {
			t.Errorf("within %x: %v, %v", c.within, got, err)
		}
	}
	rec.Count++
	if _, err := touches(&rec, [][]byte{open("b")}); err == nil || !strings.Contains(err.Error(), "op") {
		t.Errorf("a commit that ends early: %v", err)
	}
}
