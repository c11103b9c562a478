package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A stored is a state: values by stored key.
type stored map[string]string

// apply does an op to s.
func (s stored) apply(op batchlog.Op) {
	prefix := string(op.Space.Stored())
	switch op.Kind {
	case batchlog.OpPut:
		s[prefix+string(op.Key)] = string(op.Value)
	case batchlog.OpDelete:
		delete(s, prefix+string(op.Key))
	default:
		r := batchlog.Range{Low: op.Key, High: op.High}
		maps.DeleteFunc(s, func(k, _ string) bool {
			own, in := strings.CutPrefix(k, prefix)
			return in && r.Contains(batchlog.Key(own))
		})
	}
}

// A rangeCopy is a copy as a test asks for it, and what it should do.
type rangeCopy struct {
	dst, src   *batchlog.Space
	r          batchlog.Range
	tree, move bool
}

func (c rangeCopy) String() string {
	verb := "copy"
	if c.move {
		verb = "move"
	}
	if c.tree {
		return fmt.Sprintf("%s tree %s to %s", verb, c.src, c.dst)
	}
	return fmt.Sprintf("%s %q-%q of %s to %s", verb, string(c.r.Low), string(c.r.High), c.src, c.dst)
}

// add adds c to a chain.
func (c rangeCopy) add(chain *batchlog.Chain) error {
	switch {
	case c.tree && c.move:
		return chain.MoveTree(c.dst, c.src)
	case c.tree:
		return chain.CopyTree(c.dst, c.src)
	case c.move:
		return chain.MoveRange(c.dst, c.src, c.r)
	default:
		return chain.CopyRange(c.dst, c.src, c.r)
	}
}

// run does c by itself.
func (c rangeCopy) run(ctx context.Context, db *batchlog.DB) (batchlog.ID, error) {
	switch {
	case c.tree && c.move:
		return db.MoveTree(ctx, c.dst, c.src)
	case c.tree:
		return db.CopyTree(ctx, c.dst, c.src)
	case c.move:
		return db.MoveRange(ctx, c.dst, c.src, c.r)
	default:
		return db.CopyRange(ctx, c.dst, c.src, c.r)
	}
}

// apply makes of out, which is base with what the chain did before, what the copy makes of it.
func (c rangeCopy) apply(base, out stored) {
	from, to := string(c.src.Stored()), string(c.dst.Stored())
	if from == to {
		return
	}
	if c.tree {
		from, to = from[:len(from)-1], to[:len(to)-1]
	}
	spaces := map[string]bool{} // of the source that have keys
	has := func(k string) (rest string, in bool) {
		rest, in = strings.CutPrefix(k, from)
		return rest, in && (c.tree || c.r.Contains(batchlog.Key(rest)))
	}
	for k := range base {
		if _, in := has(k); in {
			path, _, err := wire.SplitKey([]byte(k))
			if err != nil {
				panic("model with a key that is none: " + err.Error())
			}
			spaces[string(path)] = true
		}
	}
	if c.move {
		maps.DeleteFunc(out, func(k, _ string) bool {
			if _, in := has(k); !in {
				return false
			}
			path, _, _ := wire.SplitKey([]byte(k))
			return !c.tree || spaces[string(path)]
		})
	}
	for k, v := range base {
		if rest, in := has(k); in {
			out[to+rest] = v
		}
	}
}

// A logFold is what the log adds up to, read on as it grows.
type logFold struct {
	db    *batchlog.DB
	at    batchlog.ID
	state stored
}

// to is what the log up to id adds up to, which is not before what it was asked for last.
func (f *logFold) to(t *testing.T, id batchlog.ID) stored {
	t.Helper()
	if f.state == nil {
		f.state = stored{}
	}
	if id <= f.at {
		return f.state
	}
	for c, err := range f.db.Tail(within(t), batchlog.TailOptions{From: batchlog.After(f.at), Until: id}) {
		check(t, err)
		for op, err := range c.Ops() {
			check(t, err)
			f.state.apply(op)
		}
	}
	f.at = id
	return f.state
}

// now is what the log adds up to.
func (f *logFold) now(t *testing.T) stored {
	t.Helper()
	return f.to(t, head(t, f.db))
}

// shown is what the store has in these spaces.
func shown(t *testing.T, db *batchlog.DB, spaces []*batchlog.Space) stored {
	t.Helper()
	v, err := db.View(within(t))
	check(t, err)
	defer v.Close()
	s := stored{}
	for _, space := range spaces {
		for e, err := range v.Scan(space, batchlog.Range{}) {
			check(t, err)
			s[string(space.Stored())+string(e.Key)] = string(e.Value)
		}
	}
	return s
}

// wantStored fails t unless got is want.
func wantStored(t *testing.T, what string, got, want stored) {
	t.Helper()
	n := 0
	complain := func(format string, args ...any) {
		t.Helper()
		if n++; n < 5 {
			t.Errorf("%s: %s", what, fmt.Sprintf(format, args...))
		}
	}
	for k, v := range got {
		if w, ok := want[k]; !ok {
			complain("%q=%q is too much", k, short([]byte(v)))
		} else if v != w {
			complain("%q=%q, want %q", k, short([]byte(v)), short([]byte(w)))
		}
	}
	for k, w := range want {
		if _, ok := got[k]; !ok {
			complain("%q=%q is missing", k, short([]byte(w)))
		}
	}
	if n > 0 {
		t.Errorf("%s: %d keys, want %d; %d differ", what, len(got), len(want), n)
	}
}

// copyWorld is some spaces, each within and beside others.
func copyWorld(db *batchlog.DB) []*batchlog.Space {
	var spaces []*batchlog.Space
	for _, path := range [][]any{{"d"}, {"s"}, {"s", "a"}, {"s", "a", "b"}, {"s", 1}, {"sa"}} {
		spaces = append(spaces, db.Space(path...))
	}
	return spaces
}

// spacesOf is all spaces that states have keys in.
func spacesOf(t *testing.T, db *batchlog.DB, states ...stored) []*batchlog.Space {
	t.Helper()
	var spaces []*batchlog.Space
	seen := map[string]bool{}
	for _, s := range states {
		for k := range s {
			path, _, err := wire.SplitKey([]byte(k))
			check(t, err)
			if seen[string(path)] {
				continue
			}
			seen[string(path)] = true
			space, err := db.Inside().SpaceAt(path)
			check(t, err)
			spaces = append(spaces, space)
		}
	}
	return spaces
}

// fillSpaces puts keys that meet into all spaces.
func fillSpaces(t *testing.T, db *batchlog.DB, spaces []*batchlog.Space, each, valueBytes int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(each)))
	var b batchlog.Batch
	for n, s := range spaces {
		for i := range each {
			if rng.IntN(3) > 0 {
				b.Put(s, batchlog.K(i), fmt.Append(nil, n, ":", i, strings.Repeat("v", rng.IntN(valueBytes))))
			}
		}
	}
	write(t, db, &b)
}

// clearSpaces deletes all keys.
func clearSpaces(t *testing.T, log *logFold) {
	t.Helper()
	var b batchlog.Batch
	for _, s := range spacesOf(t, log.db, log.now(t)) {
		b.DeleteRange(s, batchlog.Range{})
	}
	write(t, log.db, &b)
}

// Ranges and trees are copied and moved as a model does it: beside one another, onto themselves, into what is within, and out of it.
func testCopies(t *testing.T, open Open) {
	for _, size := range []int{20, 400} {
		for n := range 4 {
			move, tree := n&1 > 0, n&2 > 0
			t.Run(fmt.Sprintf("%d,move=%t,tree=%t", size, move, tree), func(t *testing.T) {
				db := plain(t, open)
				chain(t, db) // or skip
				spaces, log := copyWorld(db), logFold{db: db}
				at := func(path ...any) *batchlog.Space { return db.Space(path...) }
				ranges := []batchlog.Range{{}}
				if !tree {
					ranges = append(ranges, batchlog.Between(batchlog.K(size/4), batchlog.K(size/2)), batchlog.Range{Low: batchlog.K(size / 2)},
						batchlog.Range{High: batchlog.K(size / 2)}, batchlog.Range{Low: batchlog.K(5), High: batchlog.K(5)}, batchlog.Range{Low: batchlog.K(size + 1)})
				}
				for _, p := range [][2]*batchlog.Space{
					{at("d"), at("s")}, {at("s"), at("s")}, {at("s", "a"), at("s")}, {at("s"), at("s", "a")}, {at("s", "a", "b"), at("s")},
					{at("s", "a", "b"), at("s", "a")}, {db.Root(), at("s")}, {at("sa"), at("s", "a")}, {at("d"), at("nothing")}, {at("s", 1), at("s", "a")},
				} {
					for _, r := range ranges {
						c := rangeCopy{p[0], p[1], r, tree, move}
						clearSpaces(t, &log)
						fillSpaces(t, db, spaces, size, 50)
						before := maps.Clone(log.now(t))
						id, err := c.run(within(t), db)
						if err != nil {
							t.Fatalf("%s: %v", c, err)
						}
						if h := head(t, db); id != h {
							t.Fatalf("%s: commit %d, head %d", c, id, h)
						}
						want := maps.Clone(before)
						c.apply(before, want)
						wantStored(t, c.String()+": log", log.to(t, id), want)
						wantStored(t, c.String()+": store", shown(t, db, spacesOf(t, db, before, want)), want)
						if t.Failed() {
							return
						}
					}
				}
			})
		}
	}
}

// Followers are handed a copy as the ops that it comes to, in the spaces that they are in.
func testCopyLooksLikeOps(t *testing.T, open Open) {
	db := plain(t, open)
	chain(t, db) // or skip
	put(t, db.Space("s"), batchlog.K(1), "one")
	put(t, db.Space("s", "in"), batchlog.K(2), "two")
	id, err := db.MoveTree(within(t), db.Space("d"), db.Space("s"))
	check(t, err)
	commits, err := until(t, db, batchlog.TailOptions{Spaces: []*batchlog.Space{db.Space("d")}, Until: id})
	check(t, err)
	want := []string{
		fmt.Sprintf("put d %q %q", string(batchlog.K(1)), "one"),
		fmt.Sprintf("put d/in %q %q", string(batchlog.K(2)), "two"),
	}
	if len(commits) != 1 || commits[0].ID != id || fmt.Sprint(describe(t, commits[0])) != fmt.Sprint(want) {
		t.Fatalf("tail of the target yields %d commits, want %q", len(commits), want)
	}
	commits, err = until(t, db, batchlog.TailOptions{From: batchlog.At(id), Spaces: []*batchlog.Space{db.Space("s")}, Until: id})
	check(t, err)
	if len(commits) != 1 || len(describe(t, commits[0])) == 0 {
		t.Errorf("tail of the source yields %d commits", len(commits))
	}
	wantPairs(t, "source", scan(t, db.Space("s"), batchlog.Range{}), nil)
	wantPairs(t, "within the source", scan(t, db.Space("s", "in"), batchlog.Range{}), nil)
}

// A program is what a chain is made of, in order: ops, and copies.
type program []any // batchlog.Op or rangeCopy

// randomProgram is ops and copies on keys that meet.
func randomProgram(rng *rand.Rand, spaces []*batchlog.Space, steps, keys int) program {
	var p program
	space := func() *batchlog.Space { return spaces[rng.IntN(len(spaces))] }
	bounds := func() (low, high batchlog.Key) {
		a, b := rng.IntN(keys), rng.IntN(keys)
		return batchlog.K(min(a, b)), batchlog.K(max(a, b) + 1)
	}
	for range steps {
		switch n := rng.IntN(12); {
		case n < 3:
			c := rangeCopy{dst: space(), src: space(), tree: rng.IntN(2) == 0, move: rng.IntN(2) == 0}
			if !c.tree && rng.IntN(2) == 0 {
				c.r.Low, c.r.High = bounds()
			}
			p = append(p, c)
		case n < 4:
			o := batchlog.Op{Kind: batchlog.OpDeleteRange, Space: space()}
			o.Key, o.High = bounds()
			p = append(p, o)
		case n < 6:
			p = append(p, batchlog.Op{Kind: batchlog.OpDelete, Space: space(), Key: batchlog.K(rng.IntN(keys))})
		default:
			for range 1 + rng.IntN(30) {
				p = append(p, batchlog.Op{Kind: batchlog.OpPut, Space: space(), Key: batchlog.K(rng.IntN(keys)), Value: fmt.Append(nil, "own ", rng.Uint64())})
			}
		}
	}
	return p
}

// addOp adds an op to w.
func addOp(w writer, op batchlog.Op) {
	switch op.Kind {
	case batchlog.OpPut:
		w.Put(op.Space, op.Key, op.Value)
	case batchlog.OpDelete:
		w.Delete(op.Space, op.Key)
	default:
		w.DeleteRange(op.Space, batchlog.Range{Low: op.Key, High: op.High})
	}
}

// fill fills c with the program.
func (p program) fill(c *batchlog.Chain) error {
	for _, step := range p {
		switch step := step.(type) {
		case rangeCopy:
			if err := step.add(c); err != nil {
				return fmt.Errorf("%s: %w", step, err)
			}
		case batchlog.Op:
			addOp(c, step)
		}
	}
	return c.Err()
}

// apply is what the program makes of base.
func (p program) apply(base stored) stored {
	out := maps.Clone(base)
	for _, step := range p {
		switch step := step.(type) {
		case rangeCopy:
			step.apply(base, out)
		case batchlog.Op:
			out.apply(step)
		}
	}
	return out
}

func (p program) String() string {
	var b strings.Builder
	for _, step := range p {
		switch step := step.(type) {
		case rangeCopy:
			fmt.Fprintln(&b, step)
		case batchlog.Op:
			fmt.Fprintln(&b, line(step))
		}
	}
	return b.String()
}

// Chains of random ops and copies, on the same keys, do what a model does.
func testCopyRandom(t *testing.T, open Open) {
	db := plain(t, open)
	chain(t, db) // or skip
	spaces := []*batchlog.Space{db.Space("d"), db.Space("s"), db.Space("s", "a"), db.Space("s", "a", "b")}
	rng, log := rand.New(rand.NewPCG(17, 4)), logFold{db: db}
	for round := range 60 {
		var b batchlog.Batch // also takes away what copies have led elsewhere
		before := maps.Clone(log.now(t))
		for k := range before {
			path, own, err := wire.SplitKey([]byte(k))
			check(t, err)
			s, err := db.Inside().SpaceAt(path)
			check(t, err)
			if len(s.Path()) > 4 || rng.IntN(4) == 0 {
				b.Delete(s, batchlog.Key(own))
			}
		}
		write(t, db, &b)
		fillSpaces(t, db, spaces, []int{10, 100}[round%2], 20)
		before = maps.Clone(log.now(t))
		p := randomProgram(rng, spaces, 2+rng.IntN(8), 12)
		c := chain(t, db)
		check(t, p.fill(c))
		id := commit(t, c)
		want := p.apply(before)
		wantStored(t, fmt.Sprintf("round %d: log", round), log.to(t, id), want)
		wantStored(t, fmt.Sprintf("round %d: store", round), shown(t, db, spacesOf(t, db, before, want)), want)
		if t.Failed() {
			t.Fatalf("the chain was:\n%.3000s", p)
		}
	}
}

// Ops of the chain before a copy lose to it, ops after it win, and it copies nothing that the chain has put.
func testCopyOwnOps(t *testing.T, open Open) {
	for _, size := range []int{10, 5000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			db := plain(t, open)
			chain(t, db) // or skip
			s, d := db.Space("s"), db.Space("d")
			var b batchlog.Batch
			for i := range size {
				b.Put(s, batchlog.K(i), fmt.Append(nil, "source ", i))
			}
			b.Put(d, batchlog.K("kept"), []byte("kept"))
			write(t, db, &b)
			c := chain(t, db)
			c.Put(d, batchlog.K(0), []byte("before"))
			c.Put(d, batchlog.K("before"), []byte("before"))
			c.Put(s, batchlog.K("own"), []byte("own"))
			c.Delete(d, batchlog.K(1))
			check(t, c.CopyRange(d, s, batchlog.Range{}))
			c.Put(d, batchlog.K(2), []byte("after"))
			c.Delete(d, batchlog.K(3))
			c.DeleteRange(d, batchlog.Between(batchlog.K(4), batchlog.K(6)))
			commit(t, c)
			for key, want := range map[any]string{0: "source 0", "before": "before", 1: "source 1", 2: "after", 6: "source 6", "kept": "kept"} {
				wantValue(t, d, batchlog.K(key), want)
			}
			for _, key := range []any{"own", 3, 4, 5} {
				wantAbsent(t, d, batchlog.K(key))
			}
			wantValue(t, s, batchlog.K("own"), "own")
			if n := len(scan(t, d, batchlog.Range{})); n != size-3+2 {
				t.Errorf("%d keys, want %d", n, size-1)
			}
		})
	}
}

// A copy of what others write meanwhile, with ops of its own on the same keys, is of the state at the id before its own.
func testCopyBusy(t *testing.T, open Open) {
	db := plain(t, open)
	chain(t, db) // or skip
	spaces := []*batchlog.Space{db.Space("d"), db.Space("s"), db.Space("s", "a")}
	fillSpaces(t, db, spaces, 1500, 50)
	ctx, stop := context.WithCancel(within(t))
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(11, uint64(w)))
			for ctx.Err() == nil {
				var b batchlog.Batch
				for range 1 + rng.IntN(10) {
					addOp(&b, randomProgram(rng, spaces, 1, 1500).ops(rng, spaces))
				}
				if _, err := db.Write(ctx, &b); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	chains := map[batchlog.ID]program{}
	rng := rand.New(rand.NewPCG(12, 12))
	for n := range 16 {
		p := program{rangeCopy{dst: spaces[0], src: spaces[1], tree: n%2 == 0, move: n%4 == 3}}
		if n%3 > 0 {
			for range 20 {
				p = append(p, batchlog.Op{Kind: batchlog.OpPut, Space: spaces[0], Key: batchlog.K(rng.IntN(1500)), Value: fmt.Append(nil, "after ", n)})
			}
		}
		if n%3 > 1 {
			p = append(program{batchlog.Op{Kind: batchlog.OpDeleteRange, Space: spaces[0]}}, p...)
		}
		c, err := db.Chain(ctx)
		check(t, err)
		check(t, p.fill(c))
		id, err := c.Commit(ctx)
		if err == nil {
			chains[id] = p
		} else if !errors.Is(err, batchlog.ErrConflict) { // that it lost all its tries is an answer
			t.Errorf("chain %d: %v", n, err)
		}
		check(t, c.Close())
	}
	stop()
	wg.Wait()
	if len(chains) < 8 {
		t.Errorf("%d of 16 chains were committed", len(chains))
	}
	state := stored{}
	for c, err := range db.Tail(within(t), batchlog.TailOptions{Until: head(t, db)}) {
		check(t, err)
		p := chains[c.ID]
		var want stored
		if p != nil {
			want = p.apply(state)
		}
		for op, err := range c.Ops() {
			check(t, err)
			state.apply(op)
		}
		if p != nil {
			wantStored(t, fmt.Sprintf("commit %d", c.ID), state, want)
		}
	}
	wantStored(t, "store", shown(t, db, append(spaces, db.Space("d", "a"))), state)
}

// ops is an op of p, or another.
func (p program) ops(rng *rand.Rand, spaces []*batchlog.Space) batchlog.Op {
	for _, step := range p {
		if op, ok := step.(batchlog.Op); ok {
			return op
		}
	}
	return batchlog.Op{Kind: batchlog.OpDelete, Space: spaces[rng.IntN(len(spaces))], Key: batchlog.K(rng.IntN(1500))}
}

// Nothing is copied from one database to another.
func testCopyOtherDatabase(t *testing.T, open Open) {
	db, other := plain(t, open), plain(t, open)
	chain(t, db) // or skip
	put(t, other.Space("s"), batchlog.K(1), "v")
	_, err := db.CopyRange(within(t), db.Space("d"), other.Space("s"), batchlog.Range{})
	wantErr(t, "copy from another database", err, batchlog.ErrPermission)
	_, err = db.MoveTree(within(t), other.Space("d"), db.Space("s"))
	wantErr(t, "move to another database", err, batchlog.ErrPermission)
	if head(t, db) != 0 || head(t, other) != 1 {
		t.Error("something was written")
	}
}

// A tree whose copy would nest too deep, or have keys that are too long, is refused as a whole.
func testCopyTooDeep(t *testing.T, open Open) {
	db := plain(t, open)
	chain(t, db) // or skip
	var path []any
	for i := range batchlog.MaxPathDepth {
		path = append(path, i)
	}
	put(t, db.Space(path...), batchlog.K(1), "deep")
	put(t, db.Space("s"), batchlog.K(1), "v")
	before := len((&logFold{db: db}).to(t, 2))
	if id, err := db.CopyTree(within(t), db.Space("d"), db.Space(0)); err != nil {
		t.Errorf("copy to the same depth: %d, %v", id, err)
	}
	_, err := db.CopyTree(within(t), db.Space("d", "e"), db.Space(0))
	wantErr(t, "copy beyond MaxPathDepth", err, batchlog.ErrTooLarge)
	long := strings.Repeat("k", batchlog.MaxKeyBytes-prefixBytes(t, "s"))
	put(t, db.Space("s"), batchlog.Key(long), "v")
	_, err = db.MoveRange(within(t), db.Space("longer"), db.Space("s"), batchlog.Range{})
	wantErr(t, "move to keys beyond MaxKeyBytes", err, batchlog.ErrTooLarge)
	wantValue(t, db.Space("s"), batchlog.K(1), "v")
	if got := (&logFold{db: db}).now(t); len(got) != before+2 {
		t.Errorf("%d keys, want %d", len(got), before+2)
	}
}
