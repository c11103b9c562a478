package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
)

var chainTests = []test{
	{"LastOpWins", testChainLastOpWins},
	{"Invisible", testChainInvisible},
	{"Sorted", testChainSorted},
	{"Empty", testChainEmpty},
	{"Token", testChainToken},
	{"Labels", testChainLabels},
	{"Limits", testChainLimits},
	{"OtherDatabase", testChainOtherDatabase},
	{"CloseDrops", testChainCloseDrops},
	{"UseAfter", testChainUseAfter},
	{"Cancelled", testChainCancelled},
	{"SideBySide", testChainSideBySide},
	{"Filtered", testChainFiltered},
	{"OverReopen", testChainOverReopen},
	{"Copies", testCopies},
	{"CopyLooksLikeOps", testCopyLooksLikeOps},
	{"CopyRandom", testCopyRandom},
	{"CopyOwnOps", testCopyOwnOps},
	{"CopyBusy", testCopyBusy},
	{"CopyOtherDatabase", testCopyOtherDatabase},
	{"CopyTooDeep", testCopyTooDeep},
}

// chain begins a chain, or skips t if the engine takes none.
func chain(t *testing.T, db *batchlog.DB) *batchlog.Chain {
	t.Helper()
	c, err := db.Chain(within(t))
	if errors.Is(err, batchlog.ErrUnsupported) {
		t.Skip("the engine takes no chains")
	}
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

// commit commits c and fails t if that fails.
func commit(t *testing.T, c *batchlog.Chain) batchlog.ID {
	t.Helper()
	id, err := c.Commit(within(t))
	check(t, err)
	return id
}

// randomOps adds ops to w and does them to m.
func randomOps(rng *rand.Rand, w writer, m *model, spaces []*batchlog.Space, n, valueBytes int) {
	for range n {
		s := spaces[rng.IntN(len(spaces))]
		k := randomKey(rng)
		if n > 100 { // more keys, so that much of a large chain stays
			k = append(k, batchlog.K(rng.IntN(n))...)
		}
		switch rng.IntN(10) {
		case 0:
			w.Delete(s, k)
			m.delete(s, k)
		case 1:
			r := randomRange(rng)
			if n > 100 {
				r = batchlog.Range{Low: k, High: append(slices.Clone(k), 0xff)}
			}
			w.DeleteRange(s, r)
			m.deleteRange(s, r)
		default:
			v := fmt.Sprint(rng.Uint64(), strings.Repeat("v", rng.IntN(valueBytes)))
			w.Put(s, k, []byte(v))
			m.put(s, k, v)
		}
	}
}

// wantModel fails t unless the spaces hold what m holds of them.
func wantModel(t *testing.T, what string, m *model, spaces []*batchlog.Space) {
	t.Helper()
	for _, s := range spaces {
		wantPairs(t, fmt.Sprintf("%s: space %s", what, s), scan(t, s, batchlog.Range{}), m.scan(s, batchlog.Range{}, false))
	}
}

// folded is what the log up to head adds up to.
func folded(t *testing.T, db *batchlog.DB) *model {
	t.Helper()
	m := newModel()
	if head(t, db) == 0 {
		return m
	}
	for c, err := range db.Tail(within(t), batchlog.TailOptions{Until: head(t, db)}) {
		check(t, err)
		check(t, m.apply(c))
	}
	return m
}

// chainSizes are numbers of ops and sizes of values, from what is a batch to what no batch and no memory of a chain would hold.
var chainSizes = []struct {
	ops, valueBytes int
}{{1, 10}, {30, 10}, {1000, 100}, {20_000, 200}}

// The last op on a key wins, whatever the size; the commit is one, and what followers are handed adds up to what the store shows.
func testChainLastOpWins(t *testing.T, open Open) {
	for _, size := range chainSizes {
		t.Run(fmt.Sprint(size.ops), func(t *testing.T) {
			db := plain(t, open)
			rng := rand.New(rand.NewPCG(1, uint64(size.ops)))
			m, spaces := newModel(), []*batchlog.Space{db.Space("a"), db.Space("a", "x"), db.Root(), db.Space("b", 7)}
			var before batchlog.Batch
			randomOps(rng, &before, m, spaces, 300, 20)
			write(t, db, &before)
			c := chain(t, db)
			randomOps(rng, c, m, spaces, size.ops, size.valueBytes)
			if c.Len() > int64(size.ops) || size.ops > 1 && c.Size() < int64(size.ops) {
				t.Errorf("%d ops of %d bytes, %d were added", c.Len(), c.Size(), size.ops)
			}
			if id := commit(t, c); id != 2 {
				t.Errorf("commit %d, want 2", id)
			}
			wantModel(t, "store", m, spaces)
			wantModel(t, "log", folded(t, db), spaces)
			for _, s := range spaces {
				wantPairs(t, "backwards", scan(t, s, batchlog.Range{}, batchlog.ScanReverse()), m.scan(s, batchlog.Range{}, true))
			}
			n := 0
			got := follow(t, db, batchlog.TailOptions{From: batchlog.At(2)}, 1)[0]
			for _, err := range got.Ops() {
				check(t, err)
				n++
			}
			if got.Len() != n {
				t.Errorf("commit says that it has %d ops, it has %d", got.Len(), n)
			}
			put(t, spaces[0], batchlog.K("after"), "1")
			m.put(spaces[0], batchlog.K("after"), "1")
			wantModel(t, "store after the next commit", m, spaces)
		})
	}
}

// Nobody sees anything of a chain before it is committed, and it takes no id until then.
func testChainInvisible(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "old")
	c := chain(t, db)
	for n := range 3000 {
		c.Put(s, batchlog.K(n), []byte(strings.Repeat("v", 100)))
		if n == 1500 {
			if id := put(t, s, batchlog.K("k"), "between"); id != 2 {
				t.Errorf("commit %d, want 2", id)
			}
		}
	}
	c.Delete(s, batchlog.K("k"))
	check(t, c.Err())
	wantPairs(t, "scan", scan(t, s, batchlog.Range{}), []pair{{string(batchlog.K("k")), "between"}})
	if h := head(t, db); h != 2 {
		t.Errorf("head is %d, want 2", h)
	}
	commits, err := until(t, db, batchlog.TailOptions{Until: 2})
	if err != nil || !slices.Equal(ids(commits), span(1, 2)) {
		t.Errorf("commits %d, %v", ids(commits), err)
	}
	list, err := db.Chains(within(t))
	check(t, err)
	if len(list) != 1 || !list[0].Open {
		t.Errorf("chains are %+v, want one that is open", list)
	}
	if id := commit(t, c); id != 3 {
		t.Errorf("commit %d, want 3", id)
	}
	wantAbsent(t, s, batchlog.K("k"))
	if n := len(scan(t, s, batchlog.Range{})); n != 3000 {
		t.Errorf("%d keys, want 3000", n)
	}
	if list, err = db.Chains(within(t)); err != nil || len(list) > 0 {
		t.Errorf("chains are %+v, %v after the commit", list, err)
	}
}

// A commit that says that it is a chain is sorted: range deletes where they begin, then each key once.
func testChainSorted(t *testing.T, open Open) {
	db := plain(t, open)
	rng := rand.New(rand.NewPCG(3, 3))
	m, spaces := newModel(), []*batchlog.Space{db.Space("a"), db.Space("b"), db.Space("a", 1)}
	c := chain(t, db)
	randomOps(rng, c, m, spaces, 30_000, 100)
	commit(t, c)
	got := follow(t, db, batchlog.TailOptions{}, 1)[0]
	if !got.Chained() {
		t.Skip("the engine has room for it in a batch")
	}
	last, put := "", false
	for op, err := range got.Ops() {
		check(t, err)
		at := string(op.Space.Stored()) + string(op.Key)
		isPut := op.Kind != batchlog.OpDeleteRange
		if at < last || at == last && (put || !isPut) {
			t.Fatalf("%s comes behind %q", line(op), last)
		}
		last, put = at, isPut
	}
}

// A chain without ops is a commit without ops, as an empty batch is.
func testChainEmpty(t *testing.T, open Open) {
	db := plain(t, open)
	c := chain(t, db)
	if id := commit(t, c); id != 1 {
		t.Errorf("commit %d, want 1", id)
	}
	c = chain(t, db)
	check(t, c.CopyRange(db.Space("to"), db.Space("from"), batchlog.Range{}))
	if id := commit(t, c); id != 2 {
		t.Errorf("commit %d, want 2", id)
	}
	for _, c := range follow(t, db, batchlog.TailOptions{}, 2) {
		if ops := describe(t, c); len(ops) > 0 || c.Len() != 0 {
			t.Errorf("commit %d has %d ops: %q", c.ID, c.Len(), ops)
		}
	}
}

// A token that the log knows is the commit that it knows, whether that was a chain or a batch; nothing is written.
func testChainToken(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n, size := range []int{10, 20_000} {
		token := fmt.Sprint("token ", n)
		fill := func(value string) *batchlog.Chain {
			c := chain(t, db)
			c.Token = token
			for i := range size {
				c.Put(s, batchlog.K(n, i), []byte(value+strings.Repeat("v", 100)))
			}
			return c
		}
		id := commit(t, fill("first"))
		before := head(t, db)
		if again := commit(t, fill("second")); again != id {
			t.Errorf("%d ops: commit %d, want %d again", size, again, id)
		}
		var b batchlog.Batch
		b.Token = token
		b.Put(s, batchlog.K(n, 0), []byte("third"))
		if again := write(t, db, &b); again != id {
			t.Errorf("%d ops: a batch is commit %d, want %d again", size, again, id)
		}
		b.Reset()
		b.Token = token + " of a batch"
		b.Put(s, batchlog.K("of a batch", n), nil)
		first := write(t, db, &b)
		c := fill("fourth")
		c.Token = b.Token
		if again := commit(t, c); again != first {
			t.Errorf("%d ops: commit %d, want %d, a batch", size, again, first)
		}
		if h := head(t, db); h != before+1 {
			t.Errorf("head is %d, want %d", h, before+1)
		}
		for i := range size {
			wantValue(t, s, batchlog.K(n, i), "first"+strings.Repeat("v", 100))
			if i > 20 {
				break
			}
		}
		list, err := db.Chains(within(t))
		if err != nil || len(list) > 0 {
			t.Errorf("chains are %+v, %v", list, err)
		}
	}
}

// Labels go with a chain as with a batch.
func testChainLabels(t *testing.T, open Open) {
	db := plain(t, open)
	want := map[string]string{"who": "someone", "why": "a reason"}
	for n, size := range []int{1, 20_000} {
		c := chain(t, db)
		c.Labels, c.Token = maps.Clone(want), fmt.Sprint(n)
		for i := range size {
			c.Put(db.Space("s"), batchlog.K(i), []byte(strings.Repeat("v", 100)))
		}
		id := commit(t, c)
		if got := follow(t, db, batchlog.TailOptions{From: batchlog.At(id)}, 1)[0]; !maps.Equal(got.Labels, want) {
			t.Errorf("labels are %q, want %q", got.Labels, want)
		}
	}
}

// What is over a limit is a *LimitError of Commit, which writes nothing then; the limits are those of a batch, but for the whole.
func testChainLimits(t *testing.T, open Open) {
	for name, fill := range map[string]func(c *batchlog.Chain, s *batchlog.Space){
		"Key":          func(c *batchlog.Chain, s *batchlog.Space) { c.Put(s, make(batchlog.Key, batchlog.MaxKeyBytes), nil) },
		"KeyOfADelete": func(c *batchlog.Chain, s *batchlog.Space) { c.Delete(s, make(batchlog.Key, batchlog.MaxKeyBytes)) },
		"Bound": func(c *batchlog.Chain, s *batchlog.Space) {
			c.DeleteRange(s, batchlog.Range{High: make(batchlog.Key, batchlog.MaxKeyBytes)})
		},
		"Value": func(c *batchlog.Chain, s *batchlog.Space) {
			c.Put(s, batchlog.K(1), make([]byte, batchlog.MaxValueBytes+1))
		},
		"Token": func(c *batchlog.Chain, _ *batchlog.Space) { c.Token = strings.Repeat("t", batchlog.MaxTokenBytes+1) },
		"Labels": func(c *batchlog.Chain, _ *batchlog.Space) {
			c.Labels = map[string]string{"l": strings.Repeat("l", batchlog.MaxMetaBytes)}
		},
	} {
		for _, size := range []int{1, 5000} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				db := plain(t, open)
				s := db.Space("s")
				c := chain(t, db)
				for i := range size {
					c.Put(s, batchlog.K(i), []byte(strings.Repeat("v", 100)))
				}
				fill(c, s)
				c.Put(s, batchlog.K("behind"), nil)
				id, err := c.Commit(within(t))
				var limit *batchlog.LimitError
				if id != 0 || !errors.As(err, &limit) || !errors.Is(err, batchlog.ErrTooLarge) {
					t.Errorf("commit %d, %v; want a *LimitError", id, err)
				}
				if h := head(t, db); h != 0 {
					t.Errorf("head is %d", h)
				}
				wantPairs(t, "scan", scan(t, s, batchlog.Range{}), nil)
			})
		}
	}
}

// Spaces of another database are not reached.
func testChainOtherDatabase(t *testing.T, open Open) {
	db, other := plain(t, open), plain(t, open)
	c := chain(t, db)
	c.Put(db.Space("s"), batchlog.K(1), nil)
	c.Put(other.Space("s"), batchlog.K(1), nil)
	wantErr(t, "Err", c.Err(), batchlog.ErrPermission)
	_, err := c.Commit(within(t))
	wantErr(t, "commit", err, batchlog.ErrPermission)
	if head(t, db) != 0 || head(t, other) != 0 {
		t.Error("something was written")
	}
}

// A chain that is closed is gone, whatever its size.
func testChainCloseDrops(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "v")
	for _, size := range chainSizes {
		c := chain(t, db)
		for i := range size.ops {
			c.Put(s, batchlog.K(i), make([]byte, size.valueBytes))
		}
		c.DeleteRange(s, batchlog.Range{})
		check(t, c.CopyRange(db.Space("t"), s, batchlog.Range{}))
		check(t, c.Close())
		check(t, c.Close())
	}
	if h := head(t, db); h != 1 {
		t.Errorf("head is %d, want 1", h)
	}
	wantPairs(t, "scan", scan(t, s, batchlog.Range{}), []pair{{string(batchlog.K("k")), "v"}})
	wantPairs(t, "scan of the target", scan(t, db.Space("t"), batchlog.Range{}), nil)
	list, err := db.Chains(within(t))
	if err != nil || len(list) > 0 {
		t.Errorf("chains are %+v, %v", list, err)
	}
	n, _, err := db.SweepChains(within(t), 0)
	if err != nil || n > 0 {
		t.Errorf("%d chains were left behind, %v", n, err)
	}
}

// A chain that was committed or closed takes nothing any more.
func testChainUseAfter(t *testing.T, open Open) {
	for name, end := range map[string]func(t *testing.T, c *batchlog.Chain){
		"Commit": func(t *testing.T, c *batchlog.Chain) { commit(t, c) },
		"Close":  func(t *testing.T, c *batchlog.Chain) { check(t, c.Close()) },
	} {
		for use, do := range map[string]func(t *testing.T, db *batchlog.DB, c *batchlog.Chain) error{
			"Put": func(t *testing.T, db *batchlog.DB, c *batchlog.Chain) error {
				c.Put(db.Space("s"), batchlog.K(2), nil)
				_, err := c.Commit(within(t))
				return err
			},
			"Commit": func(t *testing.T, _ *batchlog.DB, c *batchlog.Chain) error {
				_, err := c.Commit(within(t))
				return err
			},
			"CopyRange": func(_ *testing.T, db *batchlog.DB, c *batchlog.Chain) error {
				return c.CopyRange(db.Space("t"), db.Space("s"), batchlog.Range{})
			},
			"MoveTree": func(_ *testing.T, db *batchlog.DB, c *batchlog.Chain) error {
				return c.MoveTree(db.Space("t"), db.Space("s"))
			},
		} {
			for _, size := range []int{1, 5000} {
				t.Run(fmt.Sprint(use, "After", name, size), func(t *testing.T) {
					db := plain(t, open)
					c := chain(t, db)
					for i := range size {
						c.Put(db.Space("s"), batchlog.K(i), []byte(strings.Repeat("v", 100)))
					}
					end(t, c)
					before := head(t, db)
					wantErr(t, use+" after "+name, do(t, db, c), batchlog.ErrClosed)
					if head(t, db) != before {
						t.Error("something was written")
					}
				})
			}
		}
	}
}

// The end of a context ends what waits for it: that of the chain the chain, that of a commit the commit, which may be tried again.
func testChainCancelled(t *testing.T, open Open) {
	for _, size := range []int{1, 20_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			db := plain(t, open)
			ctx, cancel := context.WithCancel(within(t))
			chain(t, db) // or skip
			c, err := db.Chain(ctx)
			check(t, err)
			for i := range size {
				c.Put(db.Space("s"), batchlog.K(i), []byte(strings.Repeat("v", 100)))
			}
			check(t, c.Err())
			ended, end := context.WithCancel(within(t))
			end()
			if id, err := c.Commit(ended); id != 0 || !errors.Is(err, context.Canceled) {
				t.Errorf("commit %d, %v; want Canceled", id, err)
			}
			if id := commit(t, c); id != 1 {
				t.Errorf("commit %d, want 1", id)
			}
			if n := len(scan(t, db.Space("s"), batchlog.Range{})); n != size {
				t.Errorf("%d keys, want %d", n, size)
			}
			c, err = db.Chain(ctx)
			check(t, err)
			c.Put(db.Space("s"), batchlog.K("k"), nil)
			cancel()
			c.Put(db.Space("s"), batchlog.K("l"), nil)
			if _, err := c.Commit(within(t)); !errors.Is(err, context.Canceled) {
				t.Errorf("commit of a chain whose context has ended: %v", err)
			}
			check(t, c.Close())
			if _, err := db.Chain(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("chain with a context that has ended: %v", err)
			}
		})
	}
}

// Chains and writes side by side: each is one commit, whole, and the store is what the log adds up to.
func testChainSideBySide(t *testing.T, open Open) {
	db := plain(t, open)
	chain(t, db) // or skip
	ctx := within(t)
	const chains, writes, rounds = 3, 60, 3
	spaces := []*batchlog.Space{db.Space("a"), db.Space("b")}
	var wg sync.WaitGroup
	for w := range chains {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(5, uint64(w)))
			for round := range rounds {
				c, err := db.Chain(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				c.Labels = map[string]string{"chain": fmt.Sprint(w, round)}
				for i := range []int{50, 3000, 12_000}[(w+round)%3] {
					k := batchlog.K(rng.IntN(4000))
					c.Put(spaces[i%2], k, fmt.Appendf(nil, "%d/%d %100d", w, round, i))
				}
				if round%2 == 0 {
					c.DeleteRange(spaces[0], batchlog.Between(batchlog.K(1000), batchlog.K(1500)))
				}
				if _, err := c.Commit(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range writes {
			var b batchlog.Batch
			b.Put(spaces[i%2], batchlog.K(i*7), fmt.Append(nil, "write ", i))
			if _, err := db.Write(ctx, &b); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	commits := follow(t, db, batchlog.TailOptions{}, chains*rounds+writes)
	if !slices.Equal(ids(commits), span(1, chains*rounds+writes)) {
		t.Errorf("ids are %d", ids(commits))
	}
	m := newModel()
	for _, c := range commits {
		from := map[string]bool{}
		for op, err := range c.Ops() {
			check(t, err)
			if op.Kind == batchlog.OpPut && c.Labels != nil {
				who, _, _ := strings.Cut(string(op.Value), " ")
				from[who] = true
			}
		}
		if len(from) > 1 {
			t.Errorf("commit %d has ops of %d chains", c.ID, len(from))
		}
		check(t, m.apply(c))
	}
	wantModel(t, "store", m, spaces)
}

// A tail of some spaces is handed the ops of a chain there, and no commit for a chain without any.
func testChainFiltered(t *testing.T, open Open) {
	db := plain(t, open)
	a, b, in := db.Space("a"), db.Space("b"), db.Space("a", "in")
	for _, size := range []int{10, 10_000} {
		c := chain(t, db)
		for i := range size {
			c.Put(a, batchlog.K(i), []byte(strings.Repeat("v", 100)))
			c.Put(in, batchlog.K(i), []byte(strings.Repeat("v", 100)))
		}
		c.Put(b, batchlog.K(size), nil)
		commit(t, c)
		c = chain(t, db)
		for i := range size {
			c.Put(in, batchlog.K(i), []byte(strings.Repeat("w", 100)))
		}
		commit(t, c)
	}
	for _, w := range []struct {
		space *batchlog.Space
		ids   []batchlog.ID
		ops   []int
	}{{a, []batchlog.ID{1, 2, 3, 4}, []int{20, 10, 20_000, 10_000}}, {in, []batchlog.ID{1, 2, 3, 4}, []int{10, 10, 10_000, 10_000}}, {b, []batchlog.ID{1, 3}, []int{1, 1}}, {db.Space("c"), nil, nil}} {
		commits, err := until(t, db, batchlog.TailOptions{Spaces: []*batchlog.Space{w.space}, Until: 4})
		check(t, err)
		if !slices.Equal(ids(commits), w.ids) {
			t.Fatalf("tail of %s yields %d, want %d", w.space, ids(commits), w.ids)
		}
		for i, c := range commits {
			n := 0
			for op, err := range c.Ops() {
				check(t, err)
				if !op.In(w.space) {
					t.Fatalf("tail of %s yields %s", w.space, line(op))
				}
				n++
			}
			if n != w.ops[i] {
				t.Errorf("tail of %s yields %d ops of commit %d, want %d", w.space, n, c.ID, w.ops[i])
			}
		}
	}
}

// Chains are as durable as commits; what was not committed when the database was closed is gone or swept.
func testChainOverReopen(t *testing.T, open Open) {
	sub := open(t, Options{})
	if sub.Reopen == nil {
		t.Skip("the engine keeps nothing")
	}
	db := sub.DB
	chain(t, db) // or skip
	rng := rand.New(rand.NewPCG(9, 9))
	m := newModel()
	paths := [][]any{{"a"}, {"b"}}
	spaces := func() (list []*batchlog.Space) {
		for _, path := range paths {
			list = append(list, db.Space(path...))
		}
		return list
	}
	for round := range 3 {
		c := chain(t, db)
		randomOps(rng, c, m, spaces(), []int{20_000, 50, 2000}[round], 100)
		commit(t, c)
		left, err := db.Chain(within(t))
		check(t, err)
		for i := range 5000 {
			left.Put(db.Space("a"), batchlog.K("left", i), make([]byte, 100))
		}
		check(t, left.Err())
		db = sub.Reopen(t)
		wantModel(t, "store", m, spaces())
		wantModel(t, "log", folded(t, db), spaces())
		if h := head(t, db); h != batchlog.ID(round+1) {
			t.Errorf("head is %d, want %d", h, round+1)
		}
		_ = left.Close() // of a database that is closed
		_, _, err = db.SweepChains(within(t), 0)
		check(t, err)
		list, err := db.Chains(within(t))
		if err != nil || len(list) > 0 {
			t.Errorf("chains are %+v, %v after a sweep", list, err)
		}
	}
}
