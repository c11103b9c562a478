package main

import (
	"context"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// What Pebble runs with, here and as batchlog's store (package internal/store): the comparison is of the logs, not of settings.
const (
	pebbleMemTableBytes = 64 << 20
	pebbleCacheBytes    = 64 << 20
	pebbleMemTables     = 4
	pebbleL0Compaction  = 4
	pebbleLBaseBytes    = 512 << 20
	pebbleL0Stop        = 1000
	pebbleOpenFiles     = 4096
	pebbleBloomBits     = 10 // per key
)

// pebbleAsOurs are the options of batchlog's store, with Pebble's own log on.
func pebbleAsOurs() *pebble.Options {
	o := pebbleDefaults()
	o.MemTableStopWritesThreshold = pebbleMemTables
	o.CacheSize = pebbleCache(pebbleCacheBytes)
	o.LBaseMaxBytes = pebbleLBaseBytes
	o.L0CompactionThreshold = pebbleL0Compaction
	o.L0StopWritesThreshold = pebbleL0Stop
	o.MaxOpenFiles = pebbleOpenFiles
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(pebbleBloomBits)
	}
	return o
}

// pebbleCache is the size of a cache that has so many bytes beside the memtables, which Pebble takes out of it.
func pebbleCache(bytes int64) int64 { return bytes + pebbleMemTables*pebbleMemTableBytes }

// pebbleDefaults are Pebble's defaults but for the sizes, which are far too small, and the format.
func pebbleDefaults() *pebble.Options {
	return &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       pebbleMemTableBytes,
		CacheSize:          pebbleCacheBytes,
		Logger:             quietPebble{},
	}
}

// quietPebble leaves out what Pebble tells of its work. An error that it cannot go on with is a panic.
type quietPebble struct{}

func (quietPebble) Infof(string, ...any)  {}
func (quietPebble) Errorf(string, ...any) {}
func (quietPebble) Fatalf(format string, args ...any) {
	pebble.DefaultLogger.Fatalf(format, args...)
}

// pebblePeer writes with [pebble.Sync]: Apply returns when the batch is synced in Pebble's log. Others' batches join
// the sync (group commit), as in batchlog.
func pebblePeer(name string, options func() *pebble.Options) peer {
	return peer{name: name, durable: "Apply(batch, pebble.Sync)", open: func(dir string, _ int) (target, error) {
		db, err := pebble.Open(dir, options())
		if err != nil {
			return nil, err
		}
		return &pebbleTarget{db: db}, nil
	}}
}

type pebbleTarget struct{ db *pebble.DB }

func (t *pebbleTarget) writer(int) writer {
	return func(_ context.Context, ops []op) error {
		b := t.db.NewBatch() // from a pool
		for _, o := range ops {
			if err := b.Set(o.key, o.value, nil); err != nil {
				return err
			}
		}
		if err := t.db.Apply(b, pebble.Sync); err != nil {
			return err
		}
		return b.Close()
	}
}

func (t *pebbleTarget) close() error { return t.db.Close() }
