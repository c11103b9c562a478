package task_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/bytespace/batchlog/task"
)

// A countingEngine counts the bytes of the commits that followers have read.
type countingEngine struct {
	batchlog.Engine
	bytes atomic.Int64
}

func (e *countingEngine) Log(ctx context.Context, o batchlog.LogOptions) (waist.LogReader, error) {
	r, err := e.Engine.Log(ctx, o)
	return countingReader{r, e}, err
}

type countingReader struct {
	waist.LogReader
	engine *countingEngine
}

func (r countingReader) Next(ctx context.Context) ([]wire.Record, batchlog.ID, error) {
	records, scanned, err := r.LogReader.Next(ctx)
	for i := range records {
		r.engine.bytes.Add(int64(records[i].Size()))
	}
	return records, scanned, err
}

// A task reads ahead as many bytes as a window has, not as many commits as it may have, of whatever size.
func TestReadsAheadBytes(t *testing.T) {
	db := mem(t)
	const size, commits, windowBytes = 64 << 10, 400, 1 << 20
	source := db.Space("source")
	for i := range commits {
		put(t, source, i, string(make([]byte, size)))
	}
	e := &countingEngine{Engine: db.Inside().Engine()}
	ctx, cancel := context.WithCancel(t.Context())
	began, handled := make(chan struct{}), 0
	done := make(chan error, 1)
	counted := batchlog.New(e)
	go func() {
		done <- task.Run(ctx, counted, task.Task{
			Name: "slow", Source: []*batchlog.Space{counted.Space("source")}, Window: task.Limit{Bytes: windowBytes},
			Handle: func(ctx context.Context, w *task.Window) error {
				if handled == 0 {
					close(began)
					time.Sleep(time.Second) // as long as nothing else happens it must not read on
					// The window, the one that is collected, what is read ahead, and a read of the log under way.
					if n := e.bytes.Load(); n > 5*windowBytes {
						t.Errorf("%d bytes were read for windows of %d", n, windowBytes)
					}
				}
				if handled += w.Len(); handled == commits {
					cancel()
				}
				return nil
			},
		})
	}()
	select {
	case <-began:
	case err := <-done:
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not go on")
	}
	if handled != commits {
		t.Errorf("%d commits were handled", handled)
	}
	cancel()
}

// Commits larger than a window are read one at a time.
func TestReadsAheadLarge(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	for i := range 20 {
		put(t, source, i, string(make([]byte, 5000)))
	}
	k := derive("large", source, out)
	k.Window.Bytes = 1
	run(t, db, k)
	until(t, "all handled", func() bool {
		s, err := task.Get(t.Context(), db.DB, "large")
		return err == nil && s.Cursor >= 20
	})
}
