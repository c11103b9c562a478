package store

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Use after Close is ErrClosed, that of snapshots and cursors which were open too; closing them then does nothing.
func TestUseAfterClose(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	apply(t, s, newMaker(1).records(50, 10)...)
	snap, other := snapshot(t, s), snapshot(t, s)
	low, high := []byte(keyPrefix), []byte("\xa1")
	c, err := snap.Scan(context.Background(), low, high, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Next()
	wantErr(t, "Next", err, batchlog.ErrClosed)
	_, err = snap.Get(context.Background(), low)
	wantErr(t, "Get of a snapshot", err, batchlog.ErrClosed)
	_, err = other.Scan(context.Background(), low, high, true)
	wantErr(t, "Scan", err, batchlog.ErrClosed)
	_, err = s.Snapshot()
	wantErr(t, "Snapshot", err, batchlog.ErrClosed)
	_, err = s.Get(low)
	wantErr(t, "Get", err, batchlog.ErrClosed)
	wantErr(t, "Apply", s.Apply([]wire.Record{{ID: 51}}), batchlog.ErrClosed)
	_, _, err = s.Token("t")
	wantErr(t, "Token", err, batchlog.ErrClosed)
	wantErr(t, "ForgetTokens", s.ForgetTokens(1), batchlog.ErrClosed)
	_, err = s.Flushed()
	wantErr(t, "Flushed", err, batchlog.ErrClosed)
	_, err = s.Flush()
	wantErr(t, "Flush", err, batchlog.ErrClosed)
	if st := s.Status(); st != (batchlog.StoreStatus{}) {
		t.Errorf("%+v", st)
	}
	for _, closer := range []io.Closer{c, c, snap, snap, s} {
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A snapshot that is closed is so alone, with its cursors.
func TestSnapshotClose(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	apply(t, s, newMaker(1).records(50, 10)...)
	snap, other := snapshot(t, s), snapshot(t, s)
	c, err := snap.Scan(context.Background(), []byte(keyPrefix), []byte("\xa1"), false)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
	}
	_, _, err = c.Next()
	wantErr(t, "Next", err, batchlog.ErrClosed)
	_, err = snap.Get(context.Background(), []byte(counterKey))
	wantErr(t, "Get", err, batchlog.ErrClosed)
	_, err = snap.Scan(context.Background(), nil, nil, false)
	wantErr(t, "Scan", err, batchlog.ErrClosed)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if v, err := other.Get(context.Background(), []byte(counterKey)); err != nil || string(v) != "50" {
		t.Error(v, err)
	}
}

// Close while everything is in use: what is under way ends well or with ErrClosed, and nothing panics.
func TestCloseInUse(t *testing.T) {
	for range 8 {
		s := open(t, vfs.NewMem(), 0)
		records := newMaker(1).records(2000, 200)
		apply(t, s, records[:50]...)
		var wg sync.WaitGroup
		began := make(chan struct{}, 100)
		until := func(step func() error) {
			wg.Go(func() {
				for n := 0; ; n++ {
					if n == 2 {
						began <- struct{}{}
					}
					if err := step(); err != nil {
						wantErr(t, "in use", err, batchlog.ErrClosed)
						return
					}
				}
			})
		}
		next := 50
		until(func() error {
			if next == len(records) {
				return batchlog.ErrClosed
			}
			next++
			return s.Apply(records[next-1 : next])
		})
		for range 2 {
			until(func() error { return walk(s) })
			until(func() error { s.Status(); _, err := s.Flushed(); return err })
			until(func() error { _, err := s.Get([]byte(counterKey)); return err })
			until(func() error { return s.ForgetTokens(1) })
		}
		for range 9 {
			<-began
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

// walk scans a snapshot from two goroutines, and closes it at some time.
func walk(s *Store) error {
	snap, err := s.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	c, err := snap.Scan(context.Background(), []byte(keyPrefix), []byte("\xa1"), snap.ID()%2 == 0)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 200 {
		if _, _, err := c.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}
