package commit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// Replay applies the commits of log that store doesn't have yet. progress, if not nil, is told how far it is.
func Replay(ctx context.Context, log Log, store Store, progress func(applied, head batchlog.ID)) error {
	head := log.Head()
	if store.Applied() >= head {
		return nil
	}
	r, err := log.Reader(batchlog.LogOptions{From: batchlog.After(store.Applied()), Until: head, Brief: true})
	if err != nil {
		return fmt.Errorf("replay the log: %w", err)
	}
	defer r.Close()
	for store.Applied() < head {
		records, _, err := r.Next(ctx)
		if err == nil {
			err = checkRecords(records)
		}
		if err != nil {
			return fmt.Errorf("replay the log from commit %d: %w", store.Applied()+1, err)
		}
		if err := applyAside(store, records); err != nil {
			return err
		}
		if progress != nil {
			progress(store.Applied(), head)
		}
	}
	return nil
}

// checkRecords makes sure that records have as many ops as they say, before any of them is applied: the store takes them as they are, and could not go on if they had not. The ops of
// a chain are counted where they are read.
func checkRecords(records []wire.Record) error {
	for i := range records {
		r := &records[i]
		inline := r.Count
		if r.Chain != nil {
			inline -= r.Chain.Count
		}
		count := 0
		for ops := r.Ops; len(ops) > 0; count++ {
			var err error
			if _, _, _, ops, err = wire.NextOp(ops); err != nil {
				return fmt.Errorf("commit %d: %w: %w", r.ID, batchlog.ErrCorrupt, err)
			}
		}
		if count != inline {
			return fmt.Errorf("commit %d: %w: %d ops where it says %d", r.ID, batchlog.ErrCorrupt, count, inline)
		}
	}
	return nil
}

// errStopped is what comes of a store that ended the goroutine which it was called in.
var errStopped = errors.New("the store stopped applying")

// applyAside has a store apply records in a goroutine of its own. A store that can't go on ends the goroutine that it runs in, or never returns, and the
// caller's is somebody's who opens a database.
func applyAside(store Store, records []wire.Record) error {
	done := make(chan error, 1)
	go func() {
		err := errStopped
		defer func() { done <- err }()
		err = store.Apply(records)
	}()
	for {
		select {
		case err := <-done:
			if errors.Is(err, errStopped) {
				err = errors.Join(err, store.Failed())
			}
			return err
		case <-time.After(applyPoll):
			if err := store.Failed(); err != nil {
				return err
			}
		}
	}
}

// applyPoll is how often a store that takes its time is asked whether it can go on.
const applyPoll = 20 * time.Millisecond
