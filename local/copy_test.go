package local

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// A copy of a source that is written all the time is the source as of the id before its own; a move leaves nothing behind.
func TestCopyBusy(t *testing.T) {
	for _, move := range []bool{false, true} {
		for _, tree := range []bool{false, true} {
			t.Run(fmt.Sprintf("move=%t,tree=%t", move, tree), func(t *testing.T) {
				c := newCopyCase(t, move, tree)
				ids := c.copyWhileWritten()
				state := c.fold(ids)
				if have := c.store(); !maps.Equal(have, state) {
					t.Errorf("the store is not the fold of the log: %s", difference(have, state))
				}
				verified(t, c.db)
			})
		}
	}
}

// A copyCase is a source and a target that are written while the one is copied to the other.
type copyCase struct {
	t          *testing.T
	db         *DB
	src, dst   *batchlog.Space
	within     []*batchlog.Space // of src, that are written
	move, tree bool
}

func newCopyCase(t *testing.T, move, tree bool) *copyCase {
	db := chainDB(t, Options{})
	c := &copyCase{t: t, db: db, src: db.Space("src"), dst: db.Space("dst"), move: move, tree: tree}
	c.within = []*batchlog.Space{c.src}
	if tree {
		c.within = append(c.within, c.src.Space("a"), c.src.Space("a", "b"))
	}
	for i := range 20 {
		for _, s := range []*batchlog.Space{c.dst, c.dst.Space("a")} {
			if _, err := s.Put(t.Context(), batchlog.K(i), []byte("dst")); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		c.write(r)
	}
	return c
}

// write writes some ops to source and target.
func (c *copyCase) write(r *rand.Rand) {
	var b batchlog.Batch
	for range 1 + r.IntN(20) {
		s := c.within[r.IntN(len(c.within))]
		k := batchlog.K(r.IntN(3000))
		switch n := r.IntN(60); {
		case n == 0:
			b.DeleteRange(s, batchlog.Range{Low: batchlog.K(r.IntN(3000)), High: batchlog.K(r.IntN(3000))})
		case n <= 10:
			b.Delete(s, k)
		default:
			b.Put(s, k, fmt.Append(nil, "src ", r.Uint64()))
		}
	}
	if r.IntN(5) == 0 {
		b.Put(c.dst, batchlog.K(r.IntN(40)), fmt.Append(nil, "dst ", r.Uint64()))
	}
	if r.IntN(20) == 0 {
		b.DeleteRange(c.dst, batchlog.Range{Low: batchlog.K(r.IntN(40)), High: batchlog.K(r.IntN(40))})
	}
	if _, err := c.db.Write(c.t.Context(), &b); err != nil {
		c.t.Error(err)
	}
}

// copyOnce copies the source, or moves it.
func (c *copyCase) copyOnce(ctx context.Context) (batchlog.ID, error) {
	switch {
	case c.move && c.tree:
		return c.db.MoveTree(ctx, c.dst, c.src)
	case c.move:
		return c.db.MoveRange(ctx, c.dst, c.src, batchlog.Range{})
	case c.tree:
		return c.db.CopyTree(ctx, c.dst, c.src)
	default:
		return c.db.CopyRange(ctx, c.dst, c.src, batchlog.Range{})
	}
}

// copyWhileWritten copies some times, and returns the ids of the copies.
func (c *copyCase) copyWhileWritten() (ids []batchlog.ID) {
	stop := make(chan struct{})
	pause := 50 * time.Microsecond
	if testing.Short() { // the race detector slows copies down more than writers
		pause = 2 * time.Millisecond
	}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(w)))
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
					c.write(r)
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for range 6 {
		id, err := c.copyOnce(c.t.Context())
		if err != nil {
			c.t.Error(err)
			return ids
		}
		ids = append(ids, id)
	}
	return ids
}

// fold is the fold of the log, which makes sure that the copies are what a model makes of the state before each.
func (c *copyCase) fold(ids []batchlog.ID) map[string]string {
	state := map[string]string{}
	for commit, err := range c.db.Tail(c.t.Context(), batchlog.TailOptions{Until: head(c.t, c.db)}) {
		if err != nil {
			c.t.Fatal(err)
		}
		var want map[string]string
		if slices.Contains(ids, commit.ID) {
			want = c.copied(state)
		}
		for op, err := range commit.Ops() {
			if err != nil {
				c.t.Fatal(err)
			}
			foldOp(state, op)
		}
		if want != nil && !maps.Equal(state, want) {
			c.t.Fatalf("copy %d: %d keys, want %d: %s", commit.ID, len(state), len(want), difference(state, want))
		}
	}
	return state
}

// copied is state with the copy made by a model.
func (c *copyCase) copied(state map[string]string) map[string]string {
	from, to := string(c.src.Stored()), string(c.dst.Stored())
	if c.tree {
		from, to = from[:len(from)-1], to[:len(to)-1]
	}
	want := maps.Clone(state)
	for k, v := range state {
		if rest, in := strings.CutPrefix(k, from); in {
			if c.move {
				delete(want, k)
			}
			want[to+rest] = v
		}
	}
	return want
}

// store is what the store has.
func (c *copyCase) store() map[string]string {
	v, err := c.db.View(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	defer v.Close()
	have := map[string]string{}
	for _, s := range append([]*batchlog.Space{c.dst, c.dst.Space("a"), c.dst.Space("a", "b")}, c.within...) {
		for e, err := range v.Scan(s, batchlog.Range{}) {
			if err != nil {
				c.t.Fatal(err)
			}
			have[string(s.Stored())+string(e.Key)] = string(e.Value)
		}
	}
	return have
}

// A chain's own puts in a subtree that it then moves go with the spaces that others have put keys into, as MoveTree says.
func TestMoveTreeOwnPuts(t *testing.T) {
	db := chainDB(t, Options{})
	if _, err := db.Space("src", "a").Put(t.Context(), batchlog.K("x"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, s := range []string{"a", "b"} {
		c.Put(db.Space("src", s), batchlog.K("own"), []byte("v"))
	}
	if err := c.MoveTree(db.Space("dst"), db.Space("src")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, path := range [][2]string{{"dst", "a"}, {"dst", "b"}, {"src", "a"}, {"src", "b"}} {
		s := db.Space(path[0], path[1])
		for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, fmt.Sprint(s, " ", e.Key))
		}
	}
	if want := []string{`dst/a "x"`, `src/b "own"`}; !slices.Equal(left, want) {
		t.Errorf("%v, want %v", left, want)
	}
}
