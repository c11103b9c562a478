package simtest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// rareEvery is how many commits there are to one in the space that a filter is about.
const rareEvery = 400

// costs is a closed and reopened database of n commits of some 300 bytes in sealed segments, every rareEvery-th of them in space
// "rare", on a disk that counts.
func costs(t *testing.T, n int, segmentBytes int64) (*stage, *disk) {
	t.Helper()
	d := newDisk(nil, 1)
	s := onStage(t, d)
	if err := s.Configure(t.Context(), batchlog.LogConfig{SegmentBytes: segmentBytes, HotTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("v"), 280)
	for i := range n {
		space := s.Space("common", i%5)
		if i%rareEvery == rareEvery/2 {
			space = s.Space("rare", "within")
		}
		s.clock.Add(1)
		if _, err := space.Put(t.Context(), batchlog.K(i), value); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	s.open() // what is read from now on is not in memory
	return s, d
}

// reads is what a tail reads of the segments, in bytes, and how many commits come.
func reads(t *testing.T, s *stage, d *disk, o batchlog.TailOptions) (bytes int64, commits int) {
	t.Helper()
	_, before, _ := d.logReads()
	list, err := tailAll(soon(t), s.DB.DB, o)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := d.logReads()
	return after - before, len(list)
}

// Complaint 35: a filter that lets little through costs more than reading everything. Here blocks without a match are not read.
func TestComplaint35FilterCost(t *testing.T) {
	const n = 6000
	s, d := costs(t, n, 256<<10)
	all, commits := reads(t, s, d, batchlog.TailOptions{Until: n})
	if commits != n {
		t.Fatalf("%d commits, want %d", commits, n)
	}
	rare, commits := reads(t, s, d, batchlog.TailOptions{Until: n, Spaces: []*batchlog.Space{s.Space("rare")}})
	if commits != n/rareEvery {
		t.Fatalf("%d commits, want %d", commits, n/rareEvery)
	}
	none, commits := reads(t, s, d, batchlog.TailOptions{Until: n, Spaces: []*batchlog.Space{s.Space("none")}})
	if commits != 0 {
		t.Fatalf("%d commits, want none", commits)
	}
	t.Logf("bytes read: all %d, one in %d %d, none %d", all, rareEvery, rare, none)
	if rare > all/2 || none > all/4 {
		t.Errorf("of %d bytes a filter reads %d for one commit in %d, and %d for none", all, rare, rareEvery, none)
	}
}

// Complaint 36: to start at a time reads the log from its beginning. Here it costs the same however long the log is.
func TestComplaint36StartByTime(t *testing.T) {
	var costsOf []int64
	for _, n := range []int{1000, 8000} {
		s, d := costs(t, n, 64<<10)
		at := time.Unix(s.clock.Load()-3, 0)
		read, commits := reads(t, s, d, batchlog.TailOptions{From: batchlog.Since(at), Until: batchlog.ID(n)})
		if commits != 4 {
			t.Fatalf("%d commits since %s, want 4", commits, at)
		}
		costsOf = append(costsOf, read)
	}
	t.Logf("bytes read: %d", costsOf)
	if costsOf[1] > 2*costsOf[0]+64<<10 {
		t.Errorf("%d bytes are read of a short log, %d of a long one", costsOf[0], costsOf[1])
	}
}

// Complaint 22: a segment is deleted under who reads it. Here a reader that the log is trimmed under has what it has begun
// to read, and then an error that says which commits are gone; nobody sees a missing file, or damage.
func TestComplaint22TrimUnderReaders(t *testing.T) {
	s, _ := costs(t, 1500, batchlog.MinSegmentBytes)
	ctx, stop := context.WithCancel(soon(t))
	var wg sync.WaitGroup
	gaps := 0
	var mu sync.Mutex
	for reader := range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				o := batchlog.TailOptions{From: batchlog.Oldest(), Until: 1500}
				if reader%2 == 0 {
					o.Spaces = []*batchlog.Space{s.Space("rare")}
				}
				list, err := tailAll(ctx, s.DB.DB, o)
				switch {
				case err == nil:
				case errors.Is(err, batchlog.ErrGap):
					mu.Lock()
					gaps++
					mu.Unlock()
				case ctx.Err() == nil:
					t.Errorf("reader %d: %v after %d commits", reader, err, len(list))
					return
				}
				if reader%2 == 1 && len(list) > 0 {
					if err := idsDense(list, list[0].id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	s.clock.Add(int64(time.Hour/time.Second) - 1500)
	for s.status().Oldest < 1300 { // a little more is past its time at each step
		s.clock.Add(30)
		if err := s.Trim(ctx); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d gaps", gaps)
}
