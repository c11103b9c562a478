//go:build linux

package simtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// A real disk that is full refuses writes, loses none, and goes on with reads; with space again writes go on by themselves.
func TestFullDisk(t *testing.T) {
	t.Run("StoreFirst", func(t *testing.T) { testFullDisk(t, 1<<20) })
	t.Run("LogFirst", func(t *testing.T) { testFullDisk(t, 32<<10) })
}

// testFullDisk is it with segments of a size: the log runs out of prepared space sooner or later than the store.
func testFullDisk(t *testing.T, segmentBytes int64) {
	m := newMount(t, 48<<20)
	dir, filler := filepath.Join(m.dir, "db"), filepath.Join(m.dir, "filler")
	o := realOptions(t)
	o.Log.SegmentBytes = segmentBytes
	db, err := local.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fullDisk{t: t, db: db, acked: map[work]batchlog.ID{}}
	closeDB := sync.OnceValue(db.Close)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() {
		stop()
		f.wg.Wait()
		if err := closeDB(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	f.wg.Go(func() { f.followLoop(ctx) })
	for worker := range fullDiskWorkers {
		f.wg.Go(func() { f.writeLoop(ctx, worker) })
	}
	f.await("writes", func() bool { return f.progress(0, 100) })
	fill(t, filler)
	states := map[string]int{}
	f.await("refusals", func() bool { return f.refused.Load() >= 20 })
	for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(50 * time.Millisecond) {
		f.readAcked()
		status, err := db.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		states[status.State]++
	}
	f.await("the follower", f.followed)
	if states["no space"] == 0 {
		t.Errorf("a database on a full disk is %v, refuses with %v", states, f.reason.Load())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mark := f.count()
	begin := time.Now()
	f.await("writes with space again", func() bool { return f.progress(mark, 200) })
	t.Logf("%d commits before, %d refusals; 200 writes %s after there was space", mark, f.refused.Load(), time.Since(begin).Round(time.Millisecond))
	f.await("the follower", f.followed)
	stop()
	f.wg.Wait()
	h := ledger{acked: f.acked}
	h.checkOpen(t, db)
	if err := closeDB(); err != nil {
		t.Errorf("close: %v", err)
	}
	h.check(t, dir, false)
}

const fullDiskWorkers = 4

// A fullDisk is a database on a disk that fills up.
type fullDisk struct {
	t       *testing.T
	db      *local.DB
	wg      sync.WaitGroup
	refused atomic.Int64
	reason  atomic.Value  // the last error
	seen    atomic.Uint64 // the last id that the follower saw

	mu    sync.Mutex
	acked map[work]batchlog.ID
	last  batchlog.ID
}

// writeLoop writes as one worker, and each write again until it is taken.
func (f *fullDisk) writeLoop(ctx context.Context, worker int) {
	w := work{0, worker, 0}
	for ctx.Err() == nil {
		id, err := f.db.Write(context.Background(), w.batch(f.db.DB))
		switch {
		case err == nil:
			f.mu.Lock()
			f.acked[w] = id
			f.last = max(f.last, id)
			f.mu.Unlock()
			w.n++
		case errors.Is(err, batchlog.ErrNoSpace) && !errors.Is(err, batchlog.ErrUncertain) && id == 0:
			f.refused.Add(1)
			f.reason.Store(err.Error())
			time.Sleep(5 * time.Millisecond)
		default:
			f.t.Errorf("write %s: commit %d, %v", w, id, err)
			return
		}
		time.Sleep(500 * time.Microsecond) // so that the disk is filled by the filler
	}
}

// followLoop follows the log. Every commit must come, in its order.
func (f *fullDisk) followLoop(ctx context.Context) {
	for c, err := range f.db.Tail(ctx, batchlog.TailOptions{}) {
		if err != nil {
			if ctx.Err() == nil {
				f.t.Errorf("follower behind commit %d: %v", f.seen.Load(), err)
			}
			return
		}
		if _, err := sameWork(f.db.DB, c); err != nil || uint64(c.ID) != f.seen.Load()+1 {
			f.t.Errorf("follower: commit %d behind %d: %v", c.ID, f.seen.Load(), err)
			return
		}
		f.seen.Store(uint64(c.ID))
	}
}

func (f *fullDisk) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked)
}

func (f *fullDisk) progress(from, more int) bool { return f.count() >= from+more }

// followed says whether the follower has all that was acknowledged by now.
func (f *fullDisk) followed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen.Load() >= uint64(f.last)
}

func (f *fullDisk) await(what string, done func() bool) {
	f.t.Helper()
	for begin := time.Now(); !done(); time.Sleep(5 * time.Millisecond) {
		if f.t.Failed() {
			f.t.FailNow()
		}
		if time.Since(begin) > 15*time.Second {
			f.t.Fatalf("waited 15 s for %s: %d acknowledged, %d refused, followed to %d", what, f.count(), f.refused.Load(), f.seen.Load())
		}
	}
}

// readAcked reads, by key, by scan and from the log, what was acknowledged to worker 0.
func (f *fullDisk) readAcked() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	f.mu.Lock()
	n, last := 0, f.last
	for ; f.acked[work{0, 0, n}] != 0; n++ {
	}
	f.mu.Unlock()
	users := f.db.Space(workSpaces[0]...)
	newest := work{0, 0, n - 1}.puts()[0]
	if v, err := users.Get(ctx, newest.key); err != nil || string(v) != newest.value {
		f.t.Errorf("get on a full disk: %.40q, %v", v, err)
	}
	keys := 0
	for _, err := range users.Scan(ctx, batchlog.Prefix(0, 0)) {
		if err != nil {
			f.t.Errorf("scan on a full disk: %v", err)
			break
		}
		keys++
	}
	if keys < n {
		f.t.Errorf("scan on a full disk: %d keys of %d", keys, n)
	}
	commits := batchlog.ID(0)
	for _, err := range f.db.Tail(ctx, batchlog.TailOptions{Until: last}) {
		if err != nil {
			f.t.Errorf("tail on a full disk: %v", err)
			break
		}
		commits++
	}
	if commits != last {
		f.t.Errorf("tail on a full disk: %d commits of %d", commits, last)
	}
}

// fill makes a file that takes all the space that is left.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; {
		_, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
}

// From the first sync of commits that the kernel fails nothing is acknowledged, writers are told, and what was acknowledged before is there. Before it the
// sync of a new segment may fail, which holds nothing yet and is made anew: that is an error of the write that needed it, which is in no log.
func TestSyncFails(t *testing.T) {
	if testing.Short() {
		t.Skip("not in short runs")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip(err)
	}
	for _, after := range []string{"12", "60"} { // counted in each thread; opening takes some
		t.Run(after, func(t *testing.T) {
			dir := t.TempDir()
			p := startWriter(t, orders{Dir: dir, Workers: 4, Errors: 5}, strace, "-f", "-qq", "-o", os.DevNull,
				"-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when="+after+"+")
			err := p.wait(t)
			if strings.Contains(p.stderr.String(), "strace:") {
				t.Skipf("strace: %s", p.stderr.String())
			}
			if err != nil || !strings.HasPrefix(p.end, "close: ") {
				t.Errorf("the writer ended with %v, %q, %q, %s", err, p.end, p.other, p.stderr.String())
			}
			uncertain, unbegun := 0, 0
			for _, e := range p.errs {
				switch kind := strings.Fields(e)[2]; {
				case kind == "uncertain:":
					uncertain++
				case kind == "read-only:":
				case strings.Contains(e, "begin segment") || strings.Contains(e, "make a segment"):
					unbegun++
				default:
					t.Errorf("a write failed with %s", e)
				}
			}
			if uncertain+unbegun == 0 || uncertain > 4 || len(p.errs) != 4*5 || len(p.acked) == 0 {
				t.Errorf("%d writes acknowledged, %d failed, %d of them uncertain: %.100q", len(p.acked), len(p.errs), uncertain, p.errs)
			}
			var h ledger
			h.add(t, p)
			h.check(t, dir, true)
			t.Logf("%d acknowledged, %d uncertain, %d found; end: %s", len(p.acked), uncertain, len(h.log), p.end)
		})
	}
}
