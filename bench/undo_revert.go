package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// reverts are keys a second, from the begin of a chain until a held read shows what was there before.
type reverts struct {
	Chain   spread `json:"chain"`   // of what one chain has changed
	Commits spread `json:"commits"` // of what commits of revertBatch ops have changed
}

// revertBatch is how many ops the commits have whose changes are reverted.
const revertBatch = 100

// measureReverts changes all keys of a space and brings them back, by turns from a chain and from commits.
func (o *undoOptions) measureReverts(ctx context.Context, e *env) (_ reverts, err error) {
	db, err := local.Open(filepath.Join(e.dir, "revert"), &local.Options{Log: batchlog.LogConfig{Undo: true}})
	if err != nil {
		return reverts{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	e.tell("undo: fill %d keys", o.revertKeys)
	s := benchSpace(db)
	if err := o.change(ctx, db, s, true, 0); err != nil {
		return reverts{}, err
	}
	rates := map[bool][]float64{}
	for round := range o.revertRounds {
		for _, chain := range []bool{round%2 == 0, round%2 != 0} {
			to, err := db.Head(ctx)
			if err != nil {
				return reverts{}, err
			}
			if err := o.change(ctx, db, s, chain, byte(round)+1); err != nil {
				return reverts{}, err
			}
			took, err := o.revert(ctx, db, s, to)
			if err != nil {
				return reverts{}, err
			}
			by := map[bool]string{true: "a chain", false: "commits"}[chain]
			e.tell("undo: round %d: revert of what %s changed: %s", round+1, by, seconds(took))
			rates[chain] = append(rates[chain], float64(o.revertKeys)/took.Seconds())
		}
	}
	return reverts{Chain: spreadOf(rates[true]), Commits: spreadOf(rates[false])}, nil
}

// change gives all keys a value that ends with this byte, in random order, in one chain or in commits.
func (o *undoOptions) change(ctx context.Context, db *local.DB, s *batchlog.Space, chain bool, last byte) (err error) {
	pairs := newPairs(o.revertKeys)
	key, value := make([]byte, keyBytes), make([]byte, valueBytes)
	fill := func(i uint64) {
		pairs.fill(pairs.shuffled(i), key, value)
		value[valueBytes-1] = last
	}
	if chain {
		c, err := db.Chain(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		for i := range pairs.n {
			fill(i)
			c.Put(s, key, value)
		}
		_, err = c.Commit(ctx)
		return err
	}
	var b batchlog.Batch
	for i := uint64(0); i < pairs.n; {
		b.Reset()
		for ; i < pairs.n && b.Len() < revertBatch; i++ {
			fill(i)
			b.Put(s, key, value)
		}
		if _, err := db.Write(ctx, &b); err != nil {
			return err
		}
	}
	return nil
}

// revert brings the space back to a commit and says how long that took. Whether all keys are as they were is looked at afterwards.
func (o *undoOptions) revert(ctx context.Context, db *local.DB, s *batchlog.Space, to batchlog.ID) (_ time.Duration, err error) {
	if err := db.Flush(ctx); err != nil {
		return 0, err
	}
	settle(ctx, 100*time.Millisecond)
	pairs := newPairs(o.revertKeys)
	key, value := make([]byte, keyBytes), make([]byte, valueBytes)
	start := time.Now()
	c, err := db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Revert(s, to); err != nil {
		return 0, err
	}
	if _, err := c.Commit(ctx); err != nil {
		return 0, err
	}
	pairs.fill(pairs.n-1, key, value)
	if _, err := s.Get(ctx, key); err != nil {
		return 0, err
	}
	took := time.Since(start)
	n := uint64(0)
	for entry, err := range s.Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return 0, err
		}
		pairs.fill(n, key, value)
		value[valueBytes-1] = 0 // as it was filled in
		if !bytes.Equal(entry.Key, key) || !bytes.Equal(entry.Value, value) {
			return 0, fmt.Errorf("key %d of %d is not as it was: %w", n, o.revertKeys, errWrongValue)
		}
		n++
	}
	if n != o.revertKeys {
		return 0, fmt.Errorf("%d keys after a revert, of %d", n, o.revertKeys)
	}
	return took, nil
}

func (r reverts) table(o *undoOptions) table {
	t := table{
		title: fmt.Sprintf("Chain.Revert of %s keys, until a held read shows them as they were (median [min-max] of %d rounds)", figure(float64(o.revertKeys)), o.revertRounds),
		head:  []string{"changed by", "keys/s"},
	}
	t.add("a chain", r.Chain.String())
	t.add("commits of "+countOf(revertBatch, "op"), r.Commits.String())
	return t
}
