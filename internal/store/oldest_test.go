package store

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A snapshot that is just being taken, and is slow to read which commit it shows, is one of those that OldestSnapshot is about.
func TestOldestSnapshotWhileTaken(t *testing.T) {
	var slow atomic.Bool
	reading, on := make(chan struct{}), make(chan struct{})
	s := open(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, tableSuffix) && slow.CompareAndSwap(true, false) {
			close(reading)
			<-on
		}
		return nil
	})), 0)
	apply(t, s, put(1, "a", "1"))
	flush(t, s) // so that the mark is in a table that nobody has read
	for pending := true; pending; time.Sleep(time.Millisecond) {
		m := s.db.Metrics() // what tables are like is read from them as well
		pending = !m.Table.InitialStatsCollectionComplete || m.Table.PendingStatsCollectionCount > 0
	}
	slow.Store(true)
	taken := make(chan *Snapshot)
	go func() {
		snap, err := s.Snapshot()
		if err != nil {
			t.Error(err)
		}
		taken <- snap
	}()
	<-reading
	apply(t, s, put(2, "a", "2"))
	oldest := s.OldestSnapshot()
	close(on)
	snap := <-taken
	if snap.ID() != 1 || oldest > snap.ID() {
		t.Errorf("the oldest snapshot is said to show commit %d, and one shows %d", oldest, snap.ID())
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	if oldest := s.OldestSnapshot(); oldest != 2 {
		t.Errorf("without a snapshot the oldest one is said to show commit %d", oldest)
	}
}
