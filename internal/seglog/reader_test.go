package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// open is the open path of a space.
func open(path ...any) []byte {
	b, err := bytewise.Encode(path)
	if err != nil {
		panic(err)
	}
	return b[:len(b)-1]
}

// From every commit on, up to every other one, a reader yields what was written: from files and memory, wherever the one ends
// and the other begins.
func TestReaderPositions(t *testing.T) {
	for _, limit := range []int{1, 500, 5000, 40_000, ringBytes} {
		w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
		w.log.ring.limit = limit
		r := rand.New(rand.NewPCG(3, 3))
		for range 30 {
			group := make([]wire.Record, 1+r.IntN(4))
			for i := range group {
				group[i] = put(r.IntN(1000), "a")
			}
			w.write(group...)
		}
		w.sealed()
		n := len(w.all)
		for from := 1; from <= n+1; from++ {
			for _, until := range []int{n, from, from + 1, from + r.IntN(n), from - 1} {
				if until > n || until < 1 {
					continue
				}
				got, err := read(t, w.log, batchlog.LogOptions{From: batchlog.At(batchlog.ID(from)), Until: batchlog.ID(until)})
				if err != nil {
					t.Fatalf("ring of %d: from %d to %d: %v", limit, from, until, err)
				}
				wantRecords(t, got, w.all[min(from-1, until):until])
			}
		}
		if got := w.log.Followers(); got != 0 {
			t.Errorf("%d followers", got)
		}
	}
}

// Followers that begin anywhere, slow ones and fast ones, yield every commit once and in order, while the log grows, is sealed
// and begins new segments.
func TestReaderFollows(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.log.ring.limit = 8 << 10
	const last = 600
	w.write(put(10, "a"))
	all := make(chan []wire.Record, 1)
	var followers sync.WaitGroup
	for i := range 8 {
		followers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			from := batchlog.ID(1 + i*50) // of some that are not there yet
			reader, err := w.log.Reader(batchlog.LogOptions{From: batchlog.At(from), Until: last})
			if err != nil {
				t.Error(err)
				return
			}
			defer reader.Close()
			var got []wire.Record
			for {
				records, _, err := reader.Next(t.Context())
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, records...)
				if i%2 == 0 {
					time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
				}
			}
			want := <-all
			all <- want
			want = want[from-1:]
			for i := range want {
				if i >= len(got) || !same(&got[i], &want[i]) {
					t.Errorf("follower from %d: %d commits, other than was written from %d on", from, len(got), i)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(9, 3))
	for len(w.all) < last {
		group := make([]wire.Record, min(1+r.IntN(4), last-len(w.all)))
		for i := range group {
			group[i] = put(r.IntN(1500), "a")
		}
		w.write(group...)
	}
	all <- w.all
	followers.Wait()
}

// A reader waits at the head until a commit comes, its context ends, or the log is closed; then, and when it is closed
// itself, it says so.
func TestReaderWaits(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), 1<<20))
	w.write(put(1, "a"))
	reader, err := w.log.Reader(batchlog.LogOptions{From: batchlog.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if w.log.Followers() != 1 {
		t.Errorf("%d followers", w.log.Followers())
	}
	next := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() {
			records, scanned, err := reader.Next(ctx)
			if err == nil && (len(records) != 1 || scanned != records[0].ID) {
				err = fmt.Errorf("%d commits up to %d", len(records), scanned)
			}
			done <- err
		}()
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		return done
	}
	done := next(t.Context())
	w.write(put(1, "b"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	done = next(ctx)
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Error(err)
	}
	done = next(t.Context())
	if err := w.log.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, batchlog.ErrClosed) {
		t.Error(err)
	}
	if _, _, err := reader.Next(t.Context()); !errors.Is(err, batchlog.ErrClosed) {
		t.Error(err)
	}
	w.open()
	reader, err = w.log.Reader(batchlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := reader.Next(t.Context()); !errors.Is(err, batchlog.ErrClosed) || w.log.Followers() != 0 {
		t.Errorf("closed: %v, %d followers", err, w.log.Followers())
	}
}

// What a reader has handed out stays as it is, whatever it reads later.
func TestReaderKeeps(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), 64<<10))
	w.log.ring.limit = 1
	r := rand.New(rand.NewPCG(4, 4))
	for range 400 {
		size := r.IntN(1000)
		rec := put(size, "a", r.IntN(3))
		rec.Meta = []byte("\x01\x03tok")
		for i := range size {
			rec.Ops[len(rec.Ops)-size+i] = byte(r.Uint32())
		}
		w.write(rec)
	}
	w.sealed()
	for _, within := range [][][]byte{nil, {open("a", 1)}, {open("a")}} {
		got, err := read(t, w.log, batchlog.LogOptions{Until: w.log.Head(), Within: within})
		if err != nil {
			t.Fatal(err)
		}
		var want []wire.Record
		for _, rec := range w.all {
			if ok, err := touches(&rec, within); err == nil && (ok || within == nil) {
				want = append(want, rec)
			}
		}
		wantRecords(t, got, want)
		for i := range got {
			_, _ = append(got[i].Ops, "overrun"...), append(got[i].Meta, "overrun"...)
		}
		wantRecords(t, got, want)
	}
}

// A segment that is dropped under a reader is read to its end; then it is told of the gap. Nobody else is handed a hole.
func TestReaderTrimmed(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.log.ring.limit = 1
	w.fill(8, 900)
	w.sealed()
	segs := w.segs()
	reader, err := w.log.Reader(batchlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	records, scanned, err := reader.Next(t.Context())
	if err != nil || scanned >= segs[0].last && len(segs) < 3 {
		t.Fatal(scanned, err)
	}
	got := slices.Clone(records)
	if n, err := w.log.Trim(segs[3].last); err != nil || n != 4 {
		t.Fatal(n, err)
	}
	w.swept()
	for _, s := range segs[:4] {
		if _, err := w.opts.FS.Stat(w.path(s)); !disk.NotExist(err) {
			t.Errorf("%s is still there: %v", s.name(), err)
		}
	}
	for err == nil {
		records, _, err = reader.Next(t.Context())
		got = append(got, records...)
	}
	var gap *batchlog.GapError
	if !errors.As(err, &gap) || gap.Oldest != segs[4].first || gap.From != batchlog.ID(len(got)+1) {
		t.Errorf("%v after %d commits", err, len(got))
	}
	wantRecords(t, got, w.all[:len(got)])

	oldest := segs[4].first
	if w.log.Oldest() != oldest {
		t.Errorf("oldest is %d, want %d", w.log.Oldest(), oldest)
	}
	for _, from := range []batchlog.Position{batchlog.First(), batchlog.At(oldest - 1), batchlog.Since(time.UnixMicro(w.all[oldest-2].Time))} {
		_, err := read(t, w.log, batchlog.LogOptions{From: from, Until: w.log.Head()})
		if !errors.As(err, &gap) || gap.Oldest != oldest {
			t.Errorf("from %s: %v", from, err)
		}
	}
	w.wantRead(batchlog.Oldest(), w.all[oldest-1:])
	if n, err := w.log.Trim(segs[3].last); err != nil || n != 0 {
		t.Errorf("trimmed again: %d, %v", n, err)
	}
	if n, err := w.log.Trim(w.log.Head() + 100); err != nil || n != len(segs)-5 {
		t.Errorf("all that is sealed: %d, %v", n, err)
	}
	if states := w.states(); !slices.Equal(states, []state{active}) {
		t.Errorf("states %v", states)
	}
	w.reopen()
	w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
	if w.log.LastTime() != w.all[len(w.all)-1].Time {
		t.Errorf("last time %d", w.log.LastTime())
	}
	w.write(put(1, "a"))
	w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
}

// What of a log can't be read is reported with its place, and what can be read is, from the other side of it.
func TestReaderDamage(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(4, 900)
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	w.cut()
	s := w.segs()[1]
	head := w.log.Head()
	middle := (s.first + s.last) / 2
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte // nil: the file is missing
		from   batchlog.ID           // first commit that is lost, at least
		index  bool                  // only who needs the index finds it
	}{
		{"missing", nil, s.first, false},
		{"header", func(b []byte) []byte { b[20]++; return b }, s.first, false},
		{"index", func(b []byte) []byte { b[endOf(s)+20]++; return b }, s.first, true},
		{"footer", func(b []byte) []byte { b[len(b)-1]++; return b }, s.first, true},
		{"truncated", func(b []byte) []byte { return b[:len(b)-1] }, s.first, true},
		{"body", func(b []byte) []byte {
			for i := range 100 {
				b[(segment.HeaderSize+endOf(s))/2+int64(i)] ^= 0x55
			}
			return b
		}, middle - 1, false},
		{"of another log", func(b []byte) []byte {
			h := w.headerOf(s)
			h.Database[0]++
			return append(segment.AppendHeader(nil, h), b[segment.HeaderSize:]...)
		}, s.first, false},
	} {
		for _, within := range [][][]byte{nil, {open("fill")}} {
			damaged := &world{t: t, opts: w.opts, all: w.all}
			damaged.opts.FS = copyFS(t, w.opts.FS)
			if c.change == nil {
				remove(t, damaged.opts.FS, w.path(s))
			} else {
				rewrite(t, damaged.opts.FS, w.path(s), c.change)
			}
			damaged.open()
			lost := damaged.readDamaged(s, c.index && within == nil, batchlog.LogOptions{Until: head, Within: within})
			if lost != 0 && lost < c.from {
				t.Errorf("%s: commit %d is lost", c.name, lost)
			}
			got, err := read(t, damaged.log, batchlog.LogOptions{From: batchlog.At(s.last + 1), Until: head, Within: within})
			if err != nil {
				t.Errorf("%s: behind it: %v", c.name, err)
			}
			wantRecords(t, got, w.all[s.last:])
		}
	}
}

// readDamaged reads a log of which segment s is damaged from its beginning, or from within s if its beginning does not show
// it, and returns the first commit that is lost. The error comes again with the next call, and again.
func (w *world) readDamaged(s *seg, within bool, o batchlog.LogOptions) (lost batchlog.ID) {
	w.t.Helper()
	first := batchlog.ID(1)
	if within {
		w.wantRead(batchlog.First(), w.all)
		first = s.first + 1
	}
	o.From = batchlog.At(first)
	reader, err := w.log.Reader(o)
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Close()
	var got []wire.Record
	for range 3 {
		for err = nil; err == nil; {
			var records []wire.Record
			records, _, err = reader.Next(w.t.Context())
			got = append(got, records...)
		}
		if d := damage(w.t, err, s.name()); d.ID > s.last || lost != 0 && d.ID != lost {
			w.t.Errorf("damage at commit %d, then at %d", lost, d.ID)
		} else {
			lost = d.ID
		}
	}
	wantRecords(w.t, got, w.all[first-1:lost-1])
	return lost
}

// A file that loses its end while it is read is damage, not the end of the log.
func TestReaderTruncatedUnderway(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, 1<<20))
	w.log.ring.limit = 1
	w.fill(3, 5000)
	w.sealed()
	for _, within := range [][][]byte{nil, {open("fill")}} {
		reader, err := w.log.Reader(batchlog.LogOptions{Within: within})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = reader.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		fs.on(failOn("read", segmentSuffix, io.EOF))
		for err == nil {
			_, _, err = reader.Next(t.Context())
		}
		fs.on(nil)
		if errors.Is(err, io.EOF) || !errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("within %x: %v", within, err)
		}
		reader.Close()
	}
}

// A disk that can't be read says nothing about the log; when it can be, the reader goes on.
func TestReaderDiskError(t *testing.T) {
	fs := &watch{FS: vfs.NewMem()}
	w := begin(t, options(fs, batchlog.MinSegmentBytes))
	w.log.ring.limit = 1
	w.fill(4, 900)
	w.sealed()
	for _, within := range [][][]byte{nil, {open("fill")}} {
		for _, op := range []string{"open", "read"} {
			reader, err := w.log.Reader(batchlog.LogOptions{Until: w.log.Head(), Within: within})
			if err != nil {
				t.Fatal(err)
			}
			var got []wire.Record
			for i := 0; ; i++ {
				if i%2 == 0 {
					fs.on(failOn(op, segmentSuffix, errDisk))
				}
				records, _, err := reader.Next(t.Context())
				fs.on(nil)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil && (!errors.Is(err, errDisk) || errors.Is(err, batchlog.ErrCorrupt)) {
					t.Fatal(err)
				}
				got = append(got, records...)
			}
			wantRecords(t, got, w.all)
			reader.Close()
		}
	}
}

// The first commit at a time or later is the one that a search through all finds.
func TestSince(t *testing.T) {
	for _, step := range []int64{0, 1, 1000} {
		for _, limit := range []int{1, ringBytes} {
			w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
			w.log.ring.limit = limit
			w.step = step
			if id, err := w.log.since(time.UnixMicro(w.time)); err != nil || id != 1 {
				t.Errorf("in an empty log: %d, %v", id, err)
			}
			r := rand.New(rand.NewPCG(8, uint64(step)))
			for i := range 150 {
				if i%10 == 0 {
					w.step = step * int64(r.IntN(3)) // several groups at one time
				}
				w.write(put(r.IntN(1500), "a"), put(r.IntN(100), "b"))
				if i == 70 {
					w.sealed()
					w.reopen()
					w.log.ring.limit = limit
				}
			}
			check := func() {
				t.Helper()
				first, last := w.all[0].Time, w.all[len(w.all)-1].Time
				for micros := first - 2; micros <= last+2; micros += 1 + (last-first)/200 {
					for _, at := range []time.Time{time.UnixMicro(micros), time.UnixMicro(micros).Add(-1), time.UnixMicro(micros).Add(1)} {
						want := batchlog.ID(slices.IndexFunc(w.all, func(r wire.Record) bool { return !time.UnixMicro(r.Time).Before(at) }) + 1)
						if want == 0 {
							want = w.log.Head() + 1
						}
						if got, err := w.log.since(at); err != nil || got != want {
							t.Fatalf("step %d: since %d: %d, %v, want %d", step, at.UnixNano(), got, err, want)
						}
					}
				}
			}
			check()
			w.sealed()
			check()
			w.reopen()
			check()
			if got := w.log.Followers(); got != 0 {
				t.Errorf("%d followers", got)
			}
		}
	}
}

// Reading, writing, trimming and looking at the log at once; run with the race detector.
func TestAtOnce(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.log.ring.limit = 30 << 10
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for i := range 6 {
		others.Go(func() {
			for ctx.Err() == nil {
				switch i {
				case 0:
					if head := w.log.Head(); head > 100 {
						if _, err := w.log.Trim(head - 100); err != nil {
							t.Error(err)
						}
					}
				case 1:
					st := w.log.Status()
					if st.Last > 0 && st.First > st.Last+1 {
						t.Errorf("status %+v", st)
					}
					w.log.Expired(time.Now(), time.Hour)
					w.log.RollIfOlder(time.Now(), 1)
				case 2:
					w.log.Use(Settings{SegmentBytes: batchlog.MinSegmentBytes})
				default:
					o := batchlog.LogOptions{From: []batchlog.Position{batchlog.Oldest(), batchlog.Now(), batchlog.Since(time.UnixMicro(1_050_000))}[i-3]}
					if i == 3 {
						o.Within = [][]byte{open("fill", 1)}
					}
					follow(ctx, t, w.log, o)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	for i := range 400 {
		w.write(put(900, "fill", i%3))
	}
	cancel()
	others.Wait()
	w.sealed()
	w.verify()
	w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
}

// follow reads some stretches and fails t if an id is left out.
func follow(ctx context.Context, t *testing.T, l *Log, o batchlog.LogOptions) {
	t.Helper()
	reader, err := l.Reader(o)
	if errors.Is(err, batchlog.ErrGap) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer reader.Close()
	next := batchlog.ID(0)
	for range 50 {
		records, scanned, err := reader.Next(ctx)
		if errors.Is(err, batchlog.ErrGap) || errors.Is(err, context.Canceled) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		for i := range records {
			if o.Within == nil && next != 0 && records[i].ID != next || records[i].ID < next {
				t.Errorf("commit %d where %d belongs", records[i].ID, next)
			}
			next = records[i].ID + 1
		}
		next = max(next, scanned+1)
	}
}
