package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// openSmall is a database whose chains leave memory early, and are taken in as tables.
func openSmall(t *testing.T) *local.DB {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), ChainBytes: 16 << 10, MemTableBytes: 64 << 10, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func newChain(t *testing.T, db *local.DB) *batchlog.Chain {
	t.Helper()
	c, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func wantClean(t *testing.T, db *local.DB) {
	t.Helper()
	r, err := db.Verify(t.Context(), local.VerifyOptions{})
	if err != nil || len(r.Problems) > 0 {
		t.Errorf("verify: %v, %v", err, r.Problems)
	}
}

func count(t *testing.T, s *batchlog.Space) (n int) {
	t.Helper()
	for _, err := range s.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

var hookedSizes = []int{3, 2000}

// An index that a hook keeps is right after a chain, whether that is small or taken in as tables; deletes and range deletes of the chain are shown to the hook.
func TestChainHookIndex(t *testing.T) {
	for _, n := range hookedSizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			db := openSmall(t)
			users, index := db.Space("users"), db.Space("index")
			if _, err := users.Put(t.Context(), batchlog.K("old"), []byte("old")); err != nil {
				t.Fatal(err)
			}
			if _, err := index.Put(t.Context(), batchlog.K("old"), nil); err != nil {
				t.Fatal(err)
			}
			calls, before := 0, ""
			db.PreCommit(users, func(tx *batchlog.Tx, ops []batchlog.Op) error {
				calls++
				for _, op := range ops {
					switch op.Kind {
					case batchlog.OpPut:
						tx.Put(index, batchlog.K(string(op.Value)), op.Key)
						if got, err := tx.Get(users, op.Key); err != nil || !bytes.Equal(got, op.Value) {
							t.Errorf("the hook reads %q, %v of a put of the chain", got, err)
						}
					case batchlog.OpDelete:
						old, err := tx.Before(users, op.Key)
						if err != nil {
							return err
						}
						before = string(old)
						tx.Delete(index, batchlog.K(before))
						if _, err := tx.Get(users, op.Key); !errors.Is(err, batchlog.ErrNotFound) {
							t.Errorf("the hook reads a key that the chain deletes: %v", err)
						}
					case batchlog.OpDeleteRange:
						t.Errorf("range delete of %s", op.Key)
					}
				}
				return nil
			})
			c := newChain(t, db)
			c.Delete(users, batchlog.K("old"))
			for i := range n {
				c.Put(users, batchlog.K(i), fmt.Append(nil, "name ", i, strings.Repeat("n", 20)))
				c.Put(db.Space("elsewhere"), batchlog.K(i), nil)
			}
			id, err := c.Commit(t.Context())
			if err != nil || id != 3 {
				t.Fatalf("commit %d, %v", id, err)
			}
			if calls != 1 || before != "old" {
				t.Errorf("%d calls, value before %q", calls, before)
			}
			if got := count(t, index); got != n {
				t.Errorf("%d names in the index, want %d", got, n)
			}
			for e, err := range index.Scan(t.Context(), batchlog.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				name, err := users.Get(t.Context(), e.Value)
				if err != nil || batchlog.K(string(name)).String() != e.Key.String() {
					t.Fatalf("index has %s=%s, which is %q, %v", e.Key, batchlog.Key(e.Value), name, err)
				}
			}
			for commit, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(3), Until: 3}) {
				if err != nil {
					t.Fatal(err)
				}
				ops := 0
				for _, err := range commit.Ops() {
					if err != nil {
						t.Fatal(err)
					}
					ops++
				}
				if len(commit.Hooks) != 1 || !commit.Hooks[0].Equal(users) || ops != 1+2*n+n+1 || commit.Len() != ops {
					t.Errorf("commit passed %v, %d ops, Len %d", commit.Hooks, ops, commit.Len())
				}
			}
			wantClean(t, db)
		})
	}
}

// A hook refuses a chain as a whole; without it the same chain is committed. What it replaces is replaced; it can drop nothing of a chain that is no batch.
func TestChainHookRefuses(t *testing.T) {
	for _, n := range hookedSizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			db := openSmall(t)
			s := db.Space("s")
			c := newChain(t, db)
			for i := range n {
				c.Put(s, batchlog.K(i), []byte(strings.Repeat("v", 50)))
			}
			remove := db.PreCommit(s, func(tx *batchlog.Tx, ops []batchlog.Op) error {
				tx.Put(db.Space("other"), batchlog.K("added"), nil)
				return batchlog.Refuse(ops[1], "not this one")
			})
			_, err := c.Commit(t.Context())
			var refused *batchlog.HookError
			if !errors.As(err, &refused) || refused.Reason != "not this one" || !refused.Space.Equal(s) || refused.Key == nil || !errors.Is(err, batchlog.ErrPermission) {
				t.Errorf("commit: %v, want a *HookError", err)
			}
			if head, err := db.Head(t.Context()); err != nil || head != 0 || count(t, s) != 0 || count(t, db.Space("other")) != 0 {
				t.Errorf("head is %d, %v", head, err)
			}
			remove()
			remove = db.PreCommit(s, func(tx *batchlog.Tx, ops []batchlog.Op) error {
				if n < 100 {
					return tx.Replace(ops[0], []byte("replaced"))
				}
				if err := tx.Drop(ops[0]); !errors.Is(err, batchlog.ErrUnsupported) {
					t.Errorf("drop: %v, want ErrUnsupported", err)
				}
				return tx.Replace(ops[0], []byte("replaced"))
			})
			id, err := c.Commit(t.Context())
			if err != nil || id != 1 {
				t.Fatalf("commit %d, %v", id, err)
			}
			remove()
			replaced := 0
			for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				if string(e.Value) == "replaced" {
					replaced++
				}
			}
			if replaced != 1 || count(t, s) != n {
				t.Errorf("%d values are replaced, %d keys", replaced, count(t, s))
			}
			wantClean(t, db)
		})
	}
}

// A hook whose reads others have changed by the time the chain is to get its id is called again.
func TestChainHookConflict(t *testing.T) {
	db := openSmall(t)
	s, limit := db.Space("s"), db.Space("limit")
	calls := 0
	db.PreCommit(s, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		calls++
		seen, err := tx.Get(limit, batchlog.K("k"))
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			return err
		}
		if calls == 1 {
			if _, err := limit.Put(t.Context(), batchlog.K("k"), []byte("changed")); err != nil {
				return err
			}
		}
		tx.Put(limit, batchlog.K("seen"), seen)
		return nil
	})
	c := newChain(t, db)
	for i := range 2000 {
		c.Put(s, batchlog.K(i), []byte(strings.Repeat("v", 50)))
	}
	id, err := c.Commit(t.Context())
	if err != nil || id != 2 || calls != 2 {
		t.Errorf("commit %d, %v, %d calls; want 2, and 2 calls", id, err, calls)
	}
	if got, err := limit.Get(t.Context(), batchlog.K("seen")); err != nil || string(got) != "changed" {
		t.Errorf("the hook has seen %q, %v", got, err)
	}
	wantClean(t, db)
}

// Above MaxHookedChainBytes of ops in their spaces, hooks refuse a chain with a *LimitError; streamed ones are called with all of it, in pieces and in order, and
// see what they have added before.
func TestChainHookLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("not in short runs")
	}
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const size, n = 256 << 10, batchlog.MaxHookedChainBytes/(256<<10) + 4
	s, sums := db.Space("large"), db.Space("sums")
	c := newChain(t, db)
	for i := range n {
		c.Put(s, batchlog.K(i), make([]byte, size))
	}
	remove := db.PreCommit(s, func(*batchlog.Tx, []batchlog.Op) error {
		t.Error("a hook that can't have it all is called")
		return nil
	})
	_, err = c.Commit(t.Context())
	var limit *batchlog.LimitError
	if !errors.As(err, &limit) || limit.Limit != batchlog.MaxHookedChainBytes || limit.Hint == "" {
		t.Errorf("commit: %v, want a *LimitError", err)
	}
	remove()
	if head, err := db.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("head is %d, %v", head, err)
	}
	var last batchlog.Key
	calls, ops := 0, 0
	remove = db.PreCommitStreamed(s, func(tx *batchlog.Tx, piece []batchlog.Op) error {
		bytes := 0
		for _, op := range piece {
			if string(op.Key) <= string(last) {
				t.Errorf("%s comes behind %s", op.Key, last)
			}
			last = append(last[:0], op.Key...)
			bytes += len(op.Value)
		}
		if bytes > batchlog.MaxHookedChainBytes+size {
			t.Errorf("%d bytes at once", bytes)
		}
		before, err := tx.Get(sums, batchlog.K("ops"))
		if calls == 0 != errors.Is(err, batchlog.ErrNotFound) {
			t.Errorf("call %d reads %q, %v of what the call before has put", calls, before, err)
		}
		calls++
		ops += len(piece)
		tx.Put(sums, batchlog.K("ops"), fmt.Append(nil, ops))
		return nil
	})
	id, err := c.Commit(t.Context())
	if err != nil || id != 1 {
		t.Fatalf("commit %d, %v", id, err)
	}
	remove()
	if calls < 2 || ops != n {
		t.Errorf("%d calls with %d ops, want several with %d", calls, ops, n)
	}
	if got, err := sums.Get(t.Context(), batchlog.K("ops")); err != nil || string(got) != fmt.Sprint(n) {
		t.Errorf("sum is %q, %v", got, err)
	}
	if got := count(t, s); got != n {
		t.Errorf("%d keys, want %d", got, n)
	}
	wantClean(t, db)
}

// What a streamed hook reads of keys that it is given, or has written so far, is what the commit has in the end, whatever the chain says of them in a later call: what
// hooks write comes behind the ops of the chain.
func TestChainHookShowsOutcome(t *testing.T) {
	if testing.Short() {
		t.Skip("not in short runs")
	}
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const size, n = 64 << 10, batchlog.MaxHookedChainBytes/(64<<10) + 400
	s := db.Space("s")
	value := func(i int, what string) []byte {
		return append([]byte(fmt.Sprint(what, i, " ")), make([]byte, size)...)
	}
	c := newChain(t, db)
	for i := range n {
		if i%10 == 9 {
			c.Delete(s, batchlog.K(i))
		} else {
			c.Put(s, batchlog.K(i), value(i, "chain"))
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	calls, written := 0, map[int]bool{}
	shown := map[int]string{}
	defer db.PreCommitStreamed(s, func(tx *batchlog.Tx, piece []batchlog.Op) error {
		calls++
		look := map[int]bool{}
		for _, op := range piece {
			k, err := op.Key.Decode()
			if err != nil {
				return err
			}
			look[int(k.(float64))] = true
			if op.Kind == batchlog.OpPut && rng.IntN(20) == 0 {
				if err := tx.Replace(op, []byte("replaced "+fmt.Sprint(calls, k))); err != nil {
					return err
				}
			}
		}
		ofChain := slices.ContainsFunc(piece, func(op batchlog.Op) bool { return bytes.HasPrefix(op.Value, []byte("chain")) })
		if ofChain { // not for what it has added itself
			for range 200 {
				switch i := rng.IntN(n); rng.IntN(4) {
				case 0:
					tx.Delete(s, batchlog.K(i))
					written[i] = true
				case 1:
					tx.DeleteRange(s, batchlog.Between(batchlog.K(i), batchlog.K(i+2)))
					written[i], written[i+1] = true, true
				default:
					tx.Put(s, batchlog.K(i), fmt.Append(nil, "hook ", calls, i))
					written[i] = true
				}
			}
		}
		for i := range written {
			look[i] = true
		}
		for i := range look {
			got, err := tx.Get(s, batchlog.K(i))
			if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			shown[i] = string(got)
		}
		return nil
	})()
	if _, err := c.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if calls < 4 {
		t.Errorf("%d calls: the test shows nothing", calls)
	}
	wrong := 0
	for i, want := range shown {
		got, err := s.Get(t.Context(), batchlog.K(i))
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			t.Fatal(err)
		}
		if string(got) != want {
			if wrong++; wrong < 10 {
				t.Errorf("key %d: the hook was shown %.20q, the commit has %.20q", i, want, got)
			}
		}
	}
	t.Logf("%d calls, %d keys compared, %d wrong", calls, len(shown), wrong)
	wantClean(t, db)
}
