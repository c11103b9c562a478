package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

// undos are what it takes to take a commit of one op back, beside an Update that reads the key and puts another value.
type undos struct {
	Undo   latency `json:"undo"`
	Update latency `json:"update"`
	Ratio  float64 `json:"ratio"` // of the medians
}

// measureUndos has one writer put, take that back and update, by turns.
func (o *undoOptions) measureUndos(ctx context.Context, e *env) (_ undos, err error) {
	db, err := local.Open(filepath.Join(e.dir, "undos"), &local.Options{Log: batchlog.LogConfig{Undo: true}})
	if err != nil {
		return undos{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := putKeys(ctx, db, o.keys); err != nil {
		return undos{}, err
	}
	s, g := benchSpace(db), newGenerator(1, 1)
	g.keys = o.keys
	var undone, updated besideSeen
	for n := range o.undos {
		op := g.next()[0]
		id, err := s.Put(ctx, op.key, op.value)
		if err != nil {
			return undos{}, err
		}
		for way := range 2 { // every other time the other one first
			seen, do := &undone, func() error {
				_, err := undo.Undo(ctx, db.DB, id, undo.Options{})
				return err
			}
			if way == n%2 {
				next := g.next()[0]
				seen, do = &updated, func() error {
					_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
						if _, err := tx.Get(s, next.key); err != nil {
							return err
						}
						tx.Put(s, next.key, next.value)
						return nil
					})
					return err
				}
			}
			start := time.Now()
			err := do()
			seen.hist.add(time.Since(start))
			if err != nil && !errors.Is(err, batchlog.ErrConflict) { // the update may have been on the same key
				return undos{}, err
			}
		}
	}
	r := undos{Undo: undone.sum(), Update: updated.sum()}
	r.Ratio = float64(r.Undo.P50) / float64(max(1, r.Update.P50))
	e.tell("undo: of a commit %.0f µs, an Update %.0f µs", micros(r.Undo.P50), micros(r.Update.P50))
	return r, nil
}

func (r undos) table() table {
	t := table{title: fmt.Sprintf("Undo of a commit of one op, beside an Update that reads and puts, µs (%d of each)", r.Undo.Count), head: []string{"", "p50", "p99"}}
	t.add("undo.Undo", figure(micros(r.Undo.P50)), figure(micros(r.Undo.P99)))
	t.add("Update", figure(micros(r.Update.P50)), figure(micros(r.Update.P99)))
	return t
}
