package seglog

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A power cut loses what no sync has kept, in any mixture: what was acknowledged is there, the rest whole or not at all, and the
// log goes on behind it.
func TestPowerCuts(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 5))
		mem := crashfs.New()
		if err := errors.Join(mem.MkdirAll(dir, 0o755), disk.SyncDir(mem, "/")); err != nil {
			t.Fatal(err)
		}
		w := begin(t, options(mem, batchlog.MinSegmentBytes))
		for range 3 {
			acknowledged, under := w.cutPower(r)
			head := int(w.log.Head())
			if head < acknowledged || head > len(w.all)+len(under) {
				t.Fatalf("seed %d: head %d, acknowledged %d, %d under way", seed, head, acknowledged, len(under))
			}
			if head == 0 {
				w.all = nil
				continue
			}
			got, err := read(t, w.log, batchlog.LogOptions{Until: w.log.Head()})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for i := range got {
				want := append(w.all, under...)[i]
				want.ID, want.Time = batchlog.ID(i+1), got[i].Time
				if !same(&got[i], &want) {
					t.Fatalf("seed %d: commit %d is another one than was written", seed, i+1)
				}
			}
			w.all = got
		}
		w.fill(w.log.Status().Segments+2, 2000)
		w.sealed()
		w.verify()
		w.wantRead(batchlog.First(), w.all)
	}
}

// cutPower writes until the power goes at a random operation, and opens what the disk has then. It returns how many commits
// had been acknowledged, and those of the last group, which was under way or came right after.
func (w *world) cutPower(r *rand.Rand) (acknowledged int, under []wire.Record) {
	w.t.Helper()
	mem := w.opts.FS.(*crashfs.FS)
	fs := &watch{FS: mem}
	if err := w.log.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.opts.FS = fs
	w.open()
	var done atomic.Int64
	var crashed atomic.Pointer[crashfs.FS]
	done.Store(int64(len(w.all)))
	var mu sync.Mutex // the hook's
	crash := r.IntN(150)
	clone := vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(r.Uint64(), 0))}
	fs.on(func(op, _ string, _ int64) error {
		mu.Lock()
		defer mu.Unlock()
		if crashed.Load() != nil {
			return errDisk
		}
		if crash--; op == "read" || crash >= 0 {
			return nil
		}
		acknowledged = int(done.Load())
		crashed.Store(mem.CrashClone(clone))
		return errDisk
	})
	for crashed.Load() == nil {
		under = nil
		for range 1 + r.IntN(3) {
			under = append(under, put(r.IntN(5000), "a", r.IntN(1000)))
		}
		before := len(w.all)
		if err := w.tryWrite(under...); err != nil {
			if crashed.Load() == nil {
				w.t.Fatal(err)
			}
			under = under[len(w.all)-before:]
		} else {
			under = nil
		}
		done.Store(int64(len(w.all)))
	}
	w.log.Close()
	fs.on(nil)
	mu.Lock()
	defer mu.Unlock()
	w.opts.FS = crashed.Load()
	w.open()
	w.time = max(w.time, w.log.LastTime())
	return acknowledged, under
}
