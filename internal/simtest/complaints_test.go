package simtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What users of systems like this one complain about, by the numbers of the collected complaints, and the test that it can't happen
// here. Those that are about what does not exist yet (tiers, erasure) are left out.
//
//	 1      a task is stuck behind what expired         TestHoldsTheLog in package task, TestTaskPrograms
//	 2      windows under way are stuck                 TestTaskPrograms, TestFrozenWorker
//	 3      tasks stop quietly, progress is lost        TestComplaint03Stalled, TestTaskPrograms
//	 4      what is retried moves the cursor            TestPoison in package task, TestTaskPrograms
//	 5      filters that match nothing                  TestComplaint05Bookmarks, TestFilterThatMatchesNothing in package task
//	 6      too many that are set aside are forgotten   TestComplaint06ManyParked
//	 7      cursors expire                              TestComplaint07NothingExpires
//	 8, 9   history is skipped, compacted               trims.go in enginetest
//	10      a slow follower skips                       TestComplaint10SlowFollowers, trims.go in enginetest
//	11      exactly once that was not                   TestTaskPrograms, TestKillTasks, TestStopsAndCrashes in package task
//	12      state that is not as the cursor             TestComplaint12NothingAgain, TestKillTasks
//	13      who lost a job completes it                 TestFrozenWorker, TestTakeover in package task
//	14      poison                                      TestComplaint14ParkedIsKept, TestPoison in package task
//	15      no reading of one's own writes              reads.go in enginetest, TestLinearizable, TestTaskPrograms
//	16      held reads hang                             TestComplaint16HeldReads, waits.go in enginetest
//	22      a segment is deleted under who reads it     TestComplaint22TrimUnderReaders
//	26      a store ahead of its log                    TestComplaint26StoreAhead
//	30, 31  disk full                                   TestComplaint30DiskFull, TestComplaint30TasksOnFullDisk, TestPrograms
//	32, 33  a flipped bit ends the log                  TestComplaint32FlipIsNotTheEnd, TestComplaint33TornTailIs, TestFlips
//	34      slow start                                  TestComplaint34StartCost
//	35, 36  filters, starting at a time cost too much   TestComplaint35FilterCost, TestComplaint36StartByTime
//	37      retention by clients' clocks                TestComplaint37OwnClock
//	38      nobody knows what holds the log             TestHoldsTheLog in package task
//	40      limits that show too late                   limits.go in enginetest

// A stage is a database with small segments and a clock that stands still, for one complaint.
type stage struct {
	*local.DB
	t     *testing.T
	opts  local.Options
	clock atomic.Int64 // seconds
}

func onStage(t *testing.T, fs vfs.FS) *stage {
	t.Helper()
	s := &stage{t: t}
	s.clock.Store(1700000000)
	s.opts = local.Options{
		FS: fs, Logger: testLogger(t), CacheBytes: 1 << 20, MemTableBytes: 64 << 10,
		Now: func() time.Time { return time.Unix(s.clock.Load(), 0) },
		Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour},
	}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *stage) open() {
	s.t.Helper()
	db, err := local.Open("db", &s.opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.DB = db
}

func (s *stage) close() {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
}

// fill writes n commits of some 2 KiB to the space "s" and returns the id of the last.
func (s *stage) fill(n int) (last batchlog.ID) {
	s.t.Helper()
	for i := range n {
		id, err := s.Space("s").Put(s.t.Context(), batchlog.K(i%10), bytes.Repeat([]byte{byte(i)}, 2<<10))
		if err != nil {
			s.t.Fatal(err)
		}
		last = id
	}
	return last
}

func (s *stage) status() batchlog.Status {
	s.t.Helper()
	st, err := s.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func (s *stage) trim() {
	s.t.Helper()
	if err := s.Trim(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// soon is a context that a test which hangs ends with.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A follower whose filter matches nothing comes to the head by its bookmarks, and goes on from there without reading the log again.
func TestComplaint05Bookmarks(t *testing.T) {
	d := newDisk(nil, 1)
	s := onStage(t, d)
	head := s.fill(3000)
	whole := s.status().Logs[0].Bytes
	o := batchlog.TailOptions{Bookmarks: true}
	come := func() (at batchlog.ID) {
		o.Spaces = []*batchlog.Space{s.Space("nobody")}
		for c, err := range s.Tail(soon(t), o) {
			if err != nil || !c.Bookmark() {
				t.Fatalf("%+v: %v", c, err)
			}
			if at = c.ID; at >= head {
				break
			}
		}
		return at
	}
	o.From = batchlog.After(come())
	s.close()
	s.open()
	_, before, _ := d.logReads()
	head = s.fill(1)
	if at := come(); at != head {
		t.Errorf("has come to %d, head is %d", at, head)
	}
	if _, after, _ := d.logReads(); after-before > whole/16 { // some segments may be sealed meanwhile
		t.Errorf("read %d bytes of the log, of %d, to go on at its head", after-before, whole)
	}
	if whole < 8<<20 {
		t.Errorf("the log has only %d bytes: sealing a segment or two would be a large part of it", whole)
	}
}

// A follower and a task that were away for years go on where they were: their place does not expire, and the log is kept for the task.
func TestComplaint07NothingExpires(t *testing.T) {
	s := onStage(t, vfs.NewMem())
	handled := make(chan batchlog.ID, 1000)
	work := func() (stop func()) {
		ctx, cancel := context.WithCancel(soon(t))
		var wg sync.WaitGroup
		wg.Go(func() {
			err := task.Run(ctx, s.DB.DB, task.Task{Name: "away", Source: []*batchlog.Space{s.Space("s")},
				Handle: func(_ context.Context, w *task.Window) error {
					for c, err := range w.Commits() {
						if err != nil {
							return err
						}
						handled <- c.ID
					}
					return nil
				}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("task: %v", err)
			}
		})
		return func() { cancel(); wg.Wait() }
	}
	upTo := func(last batchlog.ID) {
		t.Helper()
		for id := range handled {
			if id == last {
				return
			}
		}
	}
	stop := work()
	first := s.fill(5)
	upTo(first)
	stop()
	next := s.fill(1)
	last := s.fill(60)
	s.clock.Add(5 * 365 * 24 * 3600)
	s.fill(10)
	s.trim()
	s.close()
	s.open()
	s.trim()
	if oldest := s.status().Oldest; oldest > next {
		t.Fatalf("trimmed to %d, the task needs %d", oldest, next)
	}
	follow := next
	for c, err := range s.Tail(soon(t), batchlog.TailOptions{From: batchlog.At(next), Until: last}) {
		if err != nil || c.ID != follow {
			t.Fatalf("%+v: %v, want commit %d", c, err, follow)
		}
		follow++
	}
	stop = work()
	defer stop()
	if id := <-handled; id > next {
		t.Errorf("the task goes on with %d, want %d", id, next)
	}
	upTo(last)
}

// Followers that are slower than what is trimmed end with a gap, which says where they were; none of them ever leaves a commit out.
func TestComplaint10SlowFollowers(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 50 MB, so that not all of it stays in memory")
	}
	s := onStage(t, vfs.NewMem())
	const total = 130
	value := make([]byte, 400<<10) // in all more than is kept in memory for followers
	write := func(n int) {
		for range n {
			if _, err := s.Space("s").Put(t.Context(), batchlog.K("large"), value); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(10)
	var wg sync.WaitGroup
	var gaps atomic.Int32
	for n := range 6 {
		wg.Go(func() {
			want := batchlog.ID(1)
			for c, err := range s.Tail(soon(t), batchlog.TailOptions{Until: total}) {
				var gap *batchlog.GapError
				if errors.As(err, &gap) {
					if gap.From != want || gap.Oldest <= want {
						t.Errorf("follower %d: %v, want the gap to begin with %d", n, gap, want)
					}
					gaps.Add(1)
					return
				}
				if err != nil || c.ID != want {
					t.Errorf("follower %d: %+v, %v; want commit %d", n, c, err, want)
					return
				}
				want++
				time.Sleep(time.Duration(n) * 10 * time.Millisecond)
			}
			if want != total+1 {
				t.Errorf("follower %d ended before commit %d", n, want)
			}
		})
	}
	for range (total - 10) / 10 {
		write(10)
		s.clock.Add(7200)
		s.trim()
	}
	wg.Wait()
	t.Logf("%d of 6 followers fell behind", gaps.Load())
}

// A read that is held because the store is stuck ends when it was to, and says what it waited for; the rest of the database goes on.
func TestComplaint16HeldReads(t *testing.T) {
	fs := gatedFS{vfs.NewMem(), make(chan struct{})}
	s := onStage(t, fs)
	defer close(fs.gate)
	stuck := func() bool { // behind, and not only for a moment
		before := s.status()
		if before.Head < before.Applied+20 {
			return false
		}
		time.Sleep(100 * time.Millisecond)
		return s.status().Applied == before.Applied
	}
	for !stuck() {
		if st := s.status(); st.Head > 2000 {
			t.Fatalf("the store is not stuck: %+v", st)
		}
		s.fill(20)
	}
	head := s.status().Head
	_, err := s.Space("s").Get(soon(t), batchlog.K(1), batchlog.MaxWait(20*time.Millisecond))
	var wait *batchlog.WaitError
	if !errors.As(err, &wait) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want a *WaitError", err)
	}
	if wait.For != head || wait.Applied >= head || wait.Waited < 20*time.Millisecond {
		t.Errorf("%+v, head is %d", wait, head)
	}
	if _, err := s.Space("s").Get(soon(t), batchlog.K(1), batchlog.Stale()); err != nil {
		t.Errorf("stale read: %v", err)
	}
}

// A store that is ahead of its log, because the log's newest files are gone or from an older copy, is refused. Opened, it would give
// ids a second time.
func TestComplaint26StoreAhead(t *testing.T) {
	s := newSample(t)
	older := newSampleFiles(t, s)
	active := s.segments[len(s.segments)-1]
	for name, harm := range map[string]func(fs vfs.FS){
		"newest segment is gone": func(fs vfs.FS) {
			if err := fs.Remove(active); err != nil {
				t.Fatal(err)
			}
		},
		"log of an older copy": func(fs vfs.FS) {
			for name, content := range older {
				flipWrite(t, fs, name, content)
			}
		},
		"log is gone": func(fs vfs.FS) {
			if err := fs.RemoveAll(flipLog); err != nil {
				t.Fatal(err)
			}
		},
	} {
		fs := s.clone()
		harm(fs)
		for range 2 { // and trying again does not help
			if l := s.look(t, fs); l.where != "open" || !errors.Is(l.err, batchlog.ErrCorrupt) {
				t.Errorf("%s: noticed by %q: %v", name, l.where, l.err)
			}
		}
	}
}

// newSampleFiles is the log of s as it is now; s then gets some more commits.
func newSampleFiles(t *testing.T, s *sample) map[string][]byte {
	t.Helper()
	files := flipFiles(t, s.fs)
	db := flipOpen(t, s.fs)
	for i := range 30 {
		if _, err := db.Space("a").Put(t.Context(), batchlog.K(i), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	flipClose(t, db)
	s.segments = flipSegmentsOf(t, s.fs)
	return files
}

// knownDirs lets directories be made that are there, on a full disk, too, as real ones do.
type knownDirs struct{ *disk }

func (d knownDirs) MkdirAll(dir string, perm os.FileMode) error {
	if info, err := d.mem.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	return d.disk.MkdirAll(dir, perm)
}

// A full disk is an error that says so and has no other effect: reads and followers go on, nothing is deleted, at the next start neither,
// and writes are taken again by themselves.
func TestComplaint30DiskFull(t *testing.T) {
	d := newDisk(nil, 1)
	s := onStage(t, knownDirs{d})
	last := s.fill(50)
	d.setFull(true)
	var err error
	for range 100 { // there may be some room that was made before
		if _, err = s.Space("s").Put(soon(t), batchlog.K("more"), make([]byte, 4<<10)); err != nil {
			break
		}
		last++
	}
	if !errors.Is(err, batchlog.ErrNoSpace) {
		t.Fatalf("write on a full disk: %v", err)
	}
	segments := func() []string {
		names, err := d.List(flipLog)
		if err != nil {
			t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".seg") })
		slices.Sort(names)
		return names
	}
	whole := func() {
		t.Helper()
		n := batchlog.ID(0)
		for c, err := range s.Tail(soon(t), batchlog.TailOptions{Until: last}) {
			if n++; err != nil || c.ID != n {
				t.Fatalf("%+v: %v, want commit %d", c, err, n)
			}
		}
		if _, err := s.Space("s").Get(soon(t), batchlog.K(1)); err != nil {
			t.Errorf("read: %v", err)
		}
	}
	whole()
	d.setFull(false)
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err = s.Space("s").Put(soon(t), batchlog.K("again"), nil); err == nil {
			last++
			break
		} else if !errors.Is(err, batchlog.ErrNoSpace) || time.Since(begin) > 10*time.Second {
			t.Fatalf("%s after there was space: %v", time.Since(begin), err)
		}
	}
	whole()
	d.setFull(true)
	if err := s.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close on a full disk: %v", err)
	}
	before := segments()
	if db, err := local.Open("db", &s.opts); err == nil {
		s.DB = db
		whole()
		_ = s.Close() // as above
	} else if t.Logf("start on a full disk: %v", err); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("start on a full disk: %v, which does not say so", err)
	}
	if after := segments(); !slices.Equal(after, before) {
		t.Errorf("segments were %q, are %q after a start on a full disk", before, after)
	}
	d.setFull(false)
	s.open()
	whole()
}

// A flipped bit in the middle of the log that grows is not taken for the log's end, whether it was closed or not.
func TestComplaint32FlipIsNotTheEnd(t *testing.T) {
	mem := crashfs.New()
	db := flipOpen(t, mem)
	for i := range 8 {
		if _, err := db.Space("a").Put(t.Context(), batchlog.K(i), bytes.Repeat([]byte{0x55}, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	fs := (&sample{fs: mem}).clone() // as it is when the process is killed here
	flipClose(t, db)
	segment := flipSegmentsOf(t, fs)[0]
	content := flipRead(t, fs, segment)
	content[bytes.Index(content, bytes.Repeat([]byte{0x55}, 1000))+500] ^= 1
	flipWrite(t, fs, segment, content)
	opts := flipOptions(t, fs)
	var damage *batchlog.CorruptError
	if db, err := local.Open("db", opts); !errors.As(err, &damage) {
		t.Errorf("open: %v, want a *CorruptError", err)
		if err == nil {
			flipClose(t, db)
		}
	} else if damage.ID != 1 || !strings.HasSuffix(segment, damage.File) && damage.File != segment {
		t.Errorf("%+v, want commit 1 in %s", damage, segment)
	}
}

// What a loss of power left of a commit that was never acknowledged is the log's end, and the log goes on there.
func TestComplaint33TornTailIs(t *testing.T) {
	for percent := range 11 {
		d := newDisk(nil, uint64(percent))
		s := onStage(t, d)
		acked := s.fill(4)
		var crashed bool
		for n := 1; n < 20 && !crashed; n++ {
			d.crashIn(1+n%3, percent*10, true)
			if _, err := s.Space("s").Put(soon(t), batchlog.K("torn"), make([]byte, 3000)); err == nil {
				acked++
			}
			crashed = d.crashed()
		}
		_ = s.Close() // the disk is gone, and may say so
		s.opts.FS = d.survivor()
		s.open()
		head, err := s.Head(t.Context())
		if err != nil || head < acked || head > acked+1 {
			t.Errorf("%d%%: head %d, %v; %d were acknowledged", percent*10, head, err, acked)
		}
		if id := s.fill(1); id != head+1 {
			t.Errorf("%d%%: the log goes on with %d, want %d", percent*10, id, head+1)
		}
	}
}

// To start costs the same whatever the history: sealed segments are not opened.
func TestComplaint34StartCost(t *testing.T) {
	cost := func(segments int) (ops, opens int, read int64) {
		d := newDisk(nil, 1)
		s := onStage(t, d)
		for s.status().Logs[0].Segments <= segments {
			s.fill(4)
		}
		flipSealed(t, d)
		s.close()
		s.open() // what is left to do is done
		s.fill(1)
		s.close()
		_, opsBefore := d.count()
		_, readBefore, opensBefore := d.logReads()
		s.open()
		_, ops = d.count()
		_, read, opens = d.logReads()
		t.Logf("%d sealed segments: %d operations, %d segments opened, %d bytes read", segments, ops-opsBefore, opens-opensBefore, read-readBefore)
		return ops - opsBefore, opens - opensBefore, read - readBefore
	}
	fewOps, fewOpens, fewRead := cost(3)
	manyOps, manyOpens, manyRead := cost(60)
	if manyOpens > fewOpens || manyRead > fewRead+2*batchlog.MinSegmentBytes {
		t.Errorf("with 60 segments %d are opened and %d bytes read, with 3 %d and %d", manyOpens, manyRead, fewOpens, fewRead)
	}
	if manyOps > fewOps+40 { // the manifest is longer
		t.Errorf("with 60 segments %d operations, with 3 %d", manyOps, fewOps)
	}
}

// What is kept goes by the database's clock when a commit was made, and by nothing that clients say; a clock that goes back for a while
// neither drops commits early nor keeps them for ever.
func TestComplaint37OwnClock(t *testing.T) {
	s := onStage(t, vfs.NewMem())
	write := func(says time.Time) batchlog.ID {
		b := batchlog.Batch{Labels: map[string]string{"time": says.Format(time.RFC3339)}}
		b.Put(s.Space("s"), batchlog.K(says.Format(time.RFC3339)), make([]byte, 2<<10))
		id, err := s.Write(t.Context(), &b)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	var last batchlog.ID
	for i := range 40 {
		last = write(time.Date(1900+10*i, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	s.clock.Add(-10 * 3600)
	for range 20 {
		last = write(time.Now())
	}
	s.trim()
	if st := s.status(); st.Oldest != 1 {
		t.Errorf("trimmed to %d before the time", st.Oldest)
	}
	s.clock.Add(10*3600 + 3599)
	s.trim()
	if st := s.status(); st.Oldest != 1 {
		t.Errorf("trimmed to %d a second before the time", st.Oldest)
	}
	s.clock.Add(7200)
	s.trim() // the segment that grows is past its time, too: the next commit begins another
	write(time.Time{})
	flipSealed(t, s.opts.FS)
	s.trim()
	if st := s.status(); st.Oldest != last+1 {
		t.Errorf("trimmed to %d after the time, want %d", st.Oldest, last+1)
	}
}
