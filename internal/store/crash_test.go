package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// After a loss of power at any moment, whatever of what was not synced is left, the store is what the log adds up to at its mark,
// which is not before what it said was flushed, and replay from there makes it whole.
func TestCrash(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			records := newMaker(seed).records(900, 600)
			fs := crashfs.New()
			if err := fs.MkdirAll("store", 0o755); err != nil {
				t.Fatal(err)
			}
			syncRoot(t, fs)
			for range 4 {
				o := testOptions(fs, 0)
				o.MemTableBytes = smallMemTable << rng.IntN(3)
				s, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				at := s.Applied()
				mustBe(t, s, at, fold(t, records, at))
				last := at + (900-at)/2
				some := 1 + rng.IntN(30)
				fs = crashWhile(t, s, fs, rng, func() { applyAfter(t, s, records[:last], some) })
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			s := open(t, fs, 0)
			mustBe(t, s, s.Applied(), fold(t, records, s.Applied()))
			applyAfter(t, s, records, 20)
			mustBe(t, s, 900, fold(t, records, 900))
		})
	}
}

func syncRoot(t *testing.T, fs vfs.FS) {
	t.Helper()
	dir, err := fs.OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
}

// crashWhile lets the power fail again and again while work is done, opens what is left of some of that, and returns one of them.
func crashWhile(t *testing.T, s *Store, fs *crashfs.FS, rng *rand.Rand, work func()) *crashfs.FS {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(work)
	var left []*crashfs.FS
	for range 4 {
		flushed, err := s.Flushed()
		if err != nil {
			t.Error(err)
		}
		percent := []int{0, 50, 100, rng.IntN(101)}[rng.IntN(4)]
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
		left = append(left, clone)
		if rng.IntN(2) == 0 {
			done, err := s.Flush()
			if err != nil {
				t.Error(err)
			}
			<-done
		}
		// What is opened is changed by it: look at a clone of the clone.
		after, err := Open(testOptions(clone.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0}), 0))
		if err != nil {
			t.Errorf("opened after a crash: %v", err)
			continue
		}
		if after.Applied() < flushed {
			t.Errorf("at %d after a crash, %d was said to be flushed", after.Applied(), flushed)
		}
		if err := after.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	return left[rng.IntN(len(left))]
}
