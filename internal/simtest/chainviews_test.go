package simtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Whoever reads while chains are applied sees all of each or nothing, tables and what a hook has added behind them: views with the id that says which,
// stale reads one behind the other.
func TestChainViews(t *testing.T) {
	t.Parallel()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Logger: testLogger(t), CacheBytes: 1 << 20, MemTableBytes: 64 << 10, ChainBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const keys = 150
	a, b, index := db.Space("a"), db.Space("b"), db.Space("index")
	defer db.PreCommit(a, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		round, _, _ := bytes.Cut(ops[len(ops)-1].Value, []byte(" "))
		tx.Put(index, batchlog.K("round"), round)
		return nil
	})()
	var acked atomic.Uint64 // the last chain, which is also its id
	stop := make(chan struct{})
	var wg sync.WaitGroup
	reader := func(read func(done batchlog.ID) error) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := read(batchlog.ID(acked.Load())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	viewed := atomic.Int64{}
	for n := range 2 {
		var opts []batchlog.ReadOption
		if n == 1 {
			opts = append(opts, batchlog.Stale())
		}
		reader(func(done batchlog.ID) error {
			v, err := db.View(t.Context(), opts...)
			if err != nil {
				return err
			}
			defer v.Close()
			if v.ID() < done && n == 0 {
				return fmt.Errorf("a view shows %d, %d was acknowledged", v.ID(), done)
			}
			viewed.Add(1)
			return roundIs(v, a, b, index, keys)
		})
	}
	last := uint64(0)
	reader(func(batchlog.ID) error {
		return staleAscends(t.Context(), []*batchlog.Space{a, index, b, index, a}, index, keys, &last)
	})
	reader(func(done batchlog.ID) error { // a held read shows what was acknowledged
		round, err := roundOf(b.Get(t.Context(), batchlog.K(7)))
		if err == nil && round < uint64(done) {
			err = fmt.Errorf("a get shows chain %d, %d was acknowledged", round, done)
		}
		return err
	})
	rounds := 0
	for began := time.Now(); rounds < 40 && (rounds < 10 || time.Since(began) < 3*time.Second) && !t.Failed(); rounds++ {
		c, err := db.Chain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range keys {
			c.Put(a, batchlog.K(i), fmt.Appendf(nil, "%d %0200d", rounds+1, 0))
			c.Put(b, batchlog.K(i), fmt.Appendf(nil, "%d %0200d", rounds+1, 0))
		}
		id, err := c.Commit(t.Context())
		if err != nil || id != batchlog.ID(rounds+1) {
			t.Fatalf("chain %d: commit %d, %v", rounds+1, id, err)
		}
		acked.Store(uint64(id))
	}
	close(stop)
	wg.Wait()
	t.Logf("%d chains, %d views", rounds, viewed.Load())
}

// roundOf is which chain a value is of; 0: there is none yet.
func roundOf(value []byte, err error) (uint64, error) {
	if errors.Is(err, batchlog.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	text, _, _ := bytes.Cut(value, []byte(" "))
	return strconv.ParseUint(string(text), 10, 64)
}

// staleAscends says where stale reads of these spaces, one behind the other, go back to an older chain.
func staleAscends(ctx context.Context, spaces []*batchlog.Space, index *batchlog.Space, keys int, last *uint64) error {
	for i, s := range spaces {
		k := batchlog.K(i * 31 % keys)
		if s == index {
			k = batchlog.K("round")
		}
		round, err := roundOf(s.Get(ctx, k, batchlog.Stale()))
		if err != nil {
			return err
		}
		if round < *last {
			return fmt.Errorf("a stale get of %s shows chain %d behind %d", s, round, *last)
		}
		*last = round
	}
	return nil
}

// roundIs says what of a view is not of the chain that its id says.
func roundIs(v *batchlog.View, a, b, index *batchlog.Space, keys int) error {
	want := fmt.Append(nil, v.ID())
	if v.ID() == 0 {
		keys = 0
	}
	for _, s := range []*batchlog.Space{a, b} {
		n := 0
		for e, err := range v.Scan(s, batchlog.Range{}) {
			if err != nil {
				return err
			}
			if round, _, _ := bytes.Cut(e.Value, []byte(" ")); !bytes.Equal(round, want) {
				return fmt.Errorf("view at %s: key %s of %s is of chain %s", want, e.Key, s, round)
			}
			n++
		}
		if n != keys {
			return fmt.Errorf("view at %s: %d keys in %s, want %d", want, n, s, keys)
		}
	}
	round, err := v.Get(index, batchlog.K("round"))
	if keys == 0 && errors.Is(err, batchlog.ErrNotFound) {
		return nil
	}
	if err == nil && !bytes.Equal(round, want) {
		err = fmt.Errorf("view at %s: the hook's key is of chain %s", want, round)
	}
	return err
}
