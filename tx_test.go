package batchlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A txStep is one call of a transaction.
type txStep struct {
	kind    int // of txKinds
	space   int
	key     Key
	r       Range
	reverse bool
	stop    int    // entries after which a scan is broken off; 0: none
	within  []step // writes that are made while a scan runs, after its first entry
	value   string
}

type step struct {
	kind  OpKind
	space int
	key   Key
	r     Range
}

const (
	txGet = iota
	txScan
	txPut
	txDelete
	txDeleteRange
	txKinds
)

// A txWorld is what the random programs are about: spaces that lie within and beside one another, and keys that collide.
type txWorld struct {
	r      *rand.Rand
	db     *DB
	spaces []*Space
}

func newTxWorld(seed uint64, db *DB) *txWorld {
	return &txWorld{
		r: rand.New(rand.NewPCG(seed, 0)), db: db,
		spaces: []*Space{db.Root(), db.Space("a"), db.Space("a", "b"), db.Space("ab")},
	}
}

func (w *txWorld) key() Key {
	k := make(Key, w.r.IntN(3))
	for i := range k {
		k[i] = []byte{0, 1, 'a', 'b', 0xff}[w.r.IntN(5)]
	}
	return k
}

func (w *txWorld) keyRange() Range {
	r := Range{w.key(), w.key()}
	if w.r.IntN(3) == 0 {
		r.Low = nil
	}
	if w.r.IntN(3) == 0 {
		r.High = nil
	}
	return r
}

// base is keys and values that are there before.
func (w *txWorld) base() map[string]string {
	keys := map[string]string{}
	for range w.r.IntN(40) {
		keys[string(w.spaces[w.r.IntN(len(w.spaces))].storedKey(w.key()))] = fmt.Sprint("base ", w.r.IntN(9))
	}
	return keys
}

func (w *txWorld) program() []txStep {
	steps := make([]txStep, 1+w.r.IntN(12))
	for i := range steps {
		s := txStep{kind: w.r.IntN(txKinds), space: w.r.IntN(len(w.spaces)), key: w.key(), r: w.keyRange(), reverse: w.r.IntN(2) == 0, value: fmt.Sprint("own ", i)}
		if s.kind == txScan && w.r.IntN(2) == 0 {
			s.stop = 1 + w.r.IntN(4)
		}
		if s.kind == txScan && w.r.IntN(3) == 0 {
			for range 2 {
				s.within = append(s.within, step{[]OpKind{OpPut, OpDelete, OpDeleteRange}[w.r.IntN(3)], s.space, w.key(), w.keyRange()})
			}
		}
		steps[i] = s
	}
	return steps
}

func (w *txWorld) write(tx *Tx, s step, value string) {
	switch s.kind {
	case OpPut:
		tx.Put(w.spaces[s.space], s.key, []byte(value))
	case OpDelete:
		tx.Delete(w.spaces[s.space], s.key)
	case OpDeleteRange:
		tx.DeleteRange(w.spaces[s.space], s.r)
	}
}

// run runs a program in tx and returns what it saw.
func (w *txWorld) run(tx *Tx, program []txStep) (seen []string) {
	for _, s := range program {
		space := w.spaces[s.space]
		switch s.kind {
		case txGet:
			v, err := tx.Get(space, s.key)
			seen = append(seen, fmt.Sprintf("%s %v", v, err))
		case txScan:
			var opts []ReadOption
			if s.reverse {
				opts = append(opts, ScanReverse())
			}
			n := 0
			for e, err := range tx.Scan(space, s.r, opts...) {
				seen = append(seen, fmt.Sprintf("%x=%s %v", e.Key, e.Value, err))
				if n++; n == 1 {
					for _, in := range s.within {
						w.write(tx, in, s.value)
					}
				}
				if n == s.stop {
					break
				}
			}
			seen = append(seen, "end")
		case txPut:
			w.write(tx, step{OpPut, s.space, s.key, s.r}, s.value)
		case txDelete:
			w.write(tx, step{OpDelete, s.space, s.key, s.r}, s.value)
		case txDeleteRange:
			w.write(tx, step{OpDeleteRange, s.space, s.key, s.r}, s.value)
		}
	}
	return seen
}

// model is what a program must see on base, by a map that is sorted for each scan. It returns the map at the end.
func (w *txWorld) model(base map[string]string, program []txStep) (seen []string, end map[string]string) {
	keys := maps.Clone(base)
	write := func(s step, value string) {
		prefix := string(w.spaces[s.space].prefix)
		switch s.kind {
		case OpPut:
			keys[prefix+string(s.key)] = value
		case OpDelete:
			delete(keys, prefix+string(s.key))
		case OpDeleteRange:
			maps.DeleteFunc(keys, func(k, _ string) bool {
				rest, ok := strings.CutPrefix(k, prefix)
				return ok && s.r.Contains(Key(rest))
			})
		}
	}
	for _, s := range program {
		prefix := string(w.spaces[s.space].prefix)
		switch s.kind {
		case txGet:
			if v, ok := keys[prefix+string(s.key)]; ok {
				seen = append(seen, fmt.Sprintf("%s %v", v, nil))
			} else {
				seen = append(seen, fmt.Sprintf("%s %v", "", ErrNotFound))
			}
		case txScan:
			var found []string
			for k := range keys {
				if rest, ok := strings.CutPrefix(k, prefix); ok && s.r.Contains(Key(rest)) {
					found = append(found, rest)
				}
			}
			slices.Sort(found)
			if s.reverse {
				slices.Reverse(found)
			}
			then := maps.Clone(keys)
			for i, k := range found {
				seen = append(seen, fmt.Sprintf("%x=%s %v", Key(k), then[prefix+k], nil))
				if i == 0 {
					for _, in := range s.within {
						write(in, s.value)
					}
				}
				if i+1 == s.stop {
					break
				}
			}
			seen = append(seen, "end")
		case txPut:
			write(step{OpPut, s.space, s.key, s.r}, s.value)
		case txDelete:
			write(step{OpDelete, s.space, s.key, s.r}, s.value)
		case txDeleteRange:
			write(step{OpDeleteRange, s.space, s.key, s.r}, s.value)
		}
	}
	return seen, keys
}

// begin is a transaction on base.
func (w *txWorld) begin(ctx context.Context, base map[string]string) *Tx {
	store := &mapStore{keys: base}
	snap, _ := store.View(ctx, ReadOptions{})
	return &Tx{ctx: ctx, db: w.db, snap: snap}
}

// A transaction reads its base with its own writes on top, and what it writes makes of the base what it saw.
func TestTxModel(t *testing.T) {
	for seed := range uint64(3000) {
		w := newTxWorld(seed, New(nil))
		base, program := w.base(), w.program()
		tx := w.begin(t.Context(), base)
		got := w.run(tx, program)
		want, end := w.model(base, program)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %+v on %q\nsaw  %q\nwant %q", seed, program, base, got, want)
		}
		store := &mapStore{keys: maps.Clone(base)}
		store.apply(&tx.batch.proposal)
		if !maps.Equal(store.keys, end) {
			t.Fatalf("seed %d: %+v on %q\nleft %q\nwant %q", seed, program, base, store.keys, end)
		}
	}
}

// What a transaction has read is remembered: if another commit changes a key, and with it anything that the transaction
// saw, the key is among its reads. And if no key of its reads changes, it sees the same.
func TestTxReads(t *testing.T) {
	changes, hits := 0, 0
	for seed := range uint64(3000) {
		w := newTxWorld(seed, New(nil))
		base, program := w.base(), w.program()
		tx := w.begin(t.Context(), base)
		before := w.run(tx, program)
		for range 20 {
			changed := maps.Clone(base)
			key := string(w.spaces[w.r.IntN(len(w.spaces))].storedKey(w.key()))
			if _, ok := changed[key]; ok && w.r.IntN(2) == 0 {
				delete(changed, key)
			} else {
				changed[key] = "changed"
			}
			changes++
			read := slices.ContainsFunc(tx.reads.Keys, func(k []byte) bool { return string(k) == key }) ||
				slices.ContainsFunc(tx.reads.Ranges, func(r wire.KeyRange) bool { return string(r.Low) <= key && key < string(r.High) })
			if read {
				hits++
				continue
			}
			if after := w.run(w.begin(t.Context(), changed), program); !slices.Equal(before, after) {
				t.Fatalf("seed %d: %+v on %q read keys %q, ranges %q; with %q changed\nit saw  %q\nbefore %q", seed, program, base, tx.reads.Keys, tx.reads.Ranges, key, after, before)
			}
		}
	}
	if hits == 0 || hits > changes*2/3 {
		t.Errorf("%d of %d changes were to what was read", hits, changes)
	}
}

// What a transaction hands out is its reader's, not the transaction's own.
func TestTxCopies(t *testing.T) {
	w := newTxWorld(1, New(nil))
	s := w.spaces[1]
	tx := w.begin(t.Context(), map[string]string{string(s.storedKey(Key("a"))): "base"})
	value := []byte("own")
	tx.Put(s, Key("b"), value)
	value[0] = 'X'
	for range 2 {
		v, err := tx.Get(s, Key("b"))
		if err != nil || string(v) != "own" {
			t.Fatal(string(v), err)
		}
		v[0] = 'Y'
		var kept []Entry
		for e, err := range tx.Scan(s, Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, e)
		}
		if len(kept) != 2 || string(kept[0].Value) != "base" || string(kept[1].Value) != "own" || string(kept[0].Key) != "a" {
			t.Fatalf("%q", kept)
		}
		kept[0].Value[0], kept[1].Value[0] = 'Z', 'Z'
	}
}

// Reads are bounded, and a transaction with a read that failed can't be committed, also if its function did not mind.
func TestTxFailedRead(t *testing.T) {
	written := false
	store := &mapStore{fail: errBroken}
	db := New(&stub{view: store.View, commit: func(context.Context, *waist.Proposal) (ID, error) {
		written = true
		return 1, nil
	}})
	s := db.Space("s")
	limited := &Tx{ctx: t.Context(), db: db, reads: waist.Reads{Keys: make([][]byte, MaxTxReads)}}
	if _, err := limited.Get(s, nil); !errors.Is(err, ErrTooLarge) || !errors.Is(limited.err, ErrTooLarge) {
		t.Errorf("one read too many: %v, %v", err, limited.err)
	}
	for name, read := range map[string]func(tx *Tx) error{
		"get": func(tx *Tx) error {
			_, err := tx.Get(s, nil)
			return err
		},
		"scan": func(tx *Tx) (last error) {
			for _, err := range tx.Scan(s, Range{}) {
				last = err
			}
			return last
		},
		"get after a scan": func(tx *Tx) error {
			for _, err := range tx.Scan(s, Range{}) {
				if err == nil {
					t.Error("an entry of a broken store")
				}
			}
			store.fail = nil
			defer func() { store.fail = errBroken }()
			_, err := tx.Get(s, nil)
			return err
		},
	} {
		id, err := db.Update(t.Context(), func(tx *Tx) error {
			tx.Put(s, Key("own"), nil)
			if err := read(tx); !errors.Is(err, errBroken) {
				t.Errorf("%s: %v", name, err)
			}
			return nil
		})
		if id != 0 || !errors.Is(err, errBroken) || written || store.open.Load() != 0 {
			t.Errorf("%s: %d, %v, written %v, %d open", name, id, err, written, store.open.Load())
		}
	}
	// The scan broke in the middle.
	store.fail = nil
	store.apply(&waist.Proposal{Ops: wire.AppendOp(nil, OpPut, s.storedKey(nil), nil), Count: 1})
	snap, _ := store.View(t.Context(), ReadOptions{})
	tx := &Tx{ctx: t.Context(), db: db, snap: brokenSnapshot{snap}}
	var errs []error
	for _, err := range tx.Scan(s, Range{}) {
		errs = append(errs, err)
	}
	if len(errs) != 2 || errs[0] != nil || !errors.Is(errs[1], errBroken) || !errors.Is(tx.err, errBroken) {
		t.Errorf("scan: %v, transaction: %v", errs, tx.err)
	}
	// A limit of the batch is the commit's error, whatever the function returns.
	_, err := db.Update(t.Context(), func(tx *Tx) error {
		tx.Put(s, make(Key, MaxKeyBytes), nil)
		return nil
	})
	if !errors.Is(err, ErrTooLarge) || written {
		t.Error(err)
	}
}

// brokenSnapshot's scans fail after their first entry.
type brokenSnapshot struct{ waist.Snapshot }

func (s brokenSnapshot) Scan(ctx context.Context, low, high []byte, reverse bool) (waist.Cursor, error) {
	c, err := s.Snapshot.Scan(ctx, low, high, reverse)
	c.(*mapCursor).failAfter = 2
	return c, err
}

// The end of the context ends a scan.
func TestTxCanceled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	w := newTxWorld(1, New(nil))
	s := w.spaces[1]
	base := map[string]string{}
	for i := range 1000 {
		base[string(s.storedKey(K(i)))] = ""
	}
	tx := w.begin(ctx, base)
	n := 0
	var last error
	for _, err := range tx.Scan(s, Range{}) {
		if n++; n == 10 {
			cancel(errBroken)
		}
		last = err
	}
	if n > 300 || !errors.Is(last, errBroken) {
		t.Error(n, last)
	}
}

// A transaction has no business with spaces of other databases, nor with those that can't be.
func TestTxForeign(t *testing.T) {
	w := newTxWorld(1, New(nil))
	for _, s := range []*Space{nil, New(nil).Root(), w.db.Space(struct{}{})} {
		tx := w.begin(t.Context(), nil)
		if _, err := tx.Get(s, nil); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("get in %v: %v", s, err)
		}
		for _, err := range tx.Scan(s, Range{}) {
			if err == nil {
				t.Errorf("scan of %v", s)
			}
		}
		tx.DeleteRange(s, Range{})
		tx.Put(s, nil, nil)
		tx.Delete(s, nil)
		if _, err := tx.batch.seal(w.db); err == nil {
			t.Errorf("write to %v: accepted", s)
		}
	}
}
