package subprocess_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/bytespace/batchlog/task/subprocess"
)

// large writes some commits around one whose line is longer than what is held of a line, and returns the last one's id.
func large(t *testing.T, db *local.DB) batchlog.ID {
	t.Helper()
	fill(t, db, 3)
	var b batchlog.Batch
	value := bytes.Repeat([]byte("v"), 1000)
	for i := range 12_000 {
		b.Put(db.Space("source"), batchlog.K("large", i), value)
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return fill(t, db, 3)
}

// A window whose line is streamed comes to the worker as any other.
func TestStreamedWindow(t *testing.T) {
	db := mem(t)
	last := large(t, db)
	run(t, db, pool(t, db, options(t, "chain")), task.Task{Window: task.Limit{Commits: 3}}, last)
	checkChain(t, db, last)
}

// So does the commit of a chain.
func TestStreamedChain(t *testing.T) {
	db := mem(t)
	fill(t, db, 3)
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("v"), 1000)
	for i := range 12_000 {
		c.Put(db.Space("source"), batchlog.K("large", i), value)
	}
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	last := fill(t, db, 3)
	run(t, db, pool(t, db, options(t, "chain")), task.Task{Window: task.Limit{Commits: 3}}, last)
	checkChain(t, db, last)
}

// A line above the limit is refused before any of it is sent.
func TestStreamedWindowTooLong(t *testing.T) {
	db := mem(t)
	last := large(t, db)
	o := options(t, "chain")
	o.MaxLine = 10 << 20
	p := pool(t, db, o)
	var failed atomic.Pointer[subprocess.Error]
	runHandle(t, db, func(ctx context.Context, w *task.Window) error {
		err := p.Handle(ctx, w)
		var e *subprocess.Error
		if errors.As(err, &e) {
			failed.Store(e)
			return nil // the task is to go on
		}
		return err
	}, last)
	if e := failed.Load(); e == nil || e.Kind != subprocess.KindLongLine || !strings.Contains(e.Error(), "10485760 are allowed") {
		t.Errorf("%v", e)
	}
}
