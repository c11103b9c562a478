package store

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A store that lost its disk is read as before until it is closed: what was in memory then is not taken for written to tables that are not there.
func TestLostIsRead(t *testing.T) {
	var armed atomic.Bool
	var once sync.Once
	reached, goOn := make(chan struct{}), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !armed.Load() || op.Kind != errorfs.OpFileWrite || !strings.Contains(op.Path, "MANIFEST-") {
			return nil
		}
		once.Do(func() { close(reached) })
		<-goOn
		return syscall.EIO
	}))
	s := open(t, fs, 0)
	want := map[string]string{}
	write := func(id batchlog.ID, size int) {
		k, v := fmt.Sprint("key ", id), strings.Repeat(fmt.Sprint(id), size)
		apply(t, s, put(id, k, v))
		want[k] = v
	}
	write(1, 10_000)
	armed.Store(true)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	<-reached
	for id := batchlog.ID(2); id <= 8; id++ { // the next memtable is full, and is to be written when that has failed
		write(id, smallMemTable/6)
	}
	close(goOn)
	for began := time.Now(); s.Failed() == nil && time.Since(began) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	if s.Failed() == nil {
		t.Fatal("the store has not failed")
	}
	for range 50 { // long enough for what would go wrong
		for k, v := range want {
			if got, err := s.Get(key(k)); err != nil || string(got) != v {
				t.Fatalf("%s: %d bytes, %v", k, len(got), err)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
