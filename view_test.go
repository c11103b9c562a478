package batchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// Copies are what was copied, whatever the slab or the holder of another copy does later.
func TestSlab(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	var s slab
	var copies, want [][]byte
	shared := 0
	for range 3000 {
		b := make([]byte, []int{0, 1, r.IntN(50), r.IntN(300), r.IntN(slabBytes / 2)}[r.IntN(5)])
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		got := s.copy(b)
		if got == nil || cap(got) != len(got) && len(got) <= slabBytes/4 {
			t.Fatalf("copy of %d bytes: nil %v, cap %d", len(b), got == nil, cap(got))
		}
		copies, want = append(copies, got), append(want, bytes.Clone(b))
		for i := range b {
			b[i] = 0
		}
		if cap(s.free) > slabBytes {
			t.Fatalf("a piece of %d bytes", cap(s.free))
		}
		if len(b) > 0 && len(b) <= slabBytes/4 {
			shared++
		}
	}
	for i, c := range copies {
		if !bytes.Equal(c, want[i]) {
			t.Fatalf("copy %d has changed", i)
		}
		_ = append(c, "overrun"...)
		if i%3 == 0 {
			for j := range c {
				c[j] = 0xee
			}
		}
	}
	for i, c := range copies {
		if i%3 != 0 && !bytes.Equal(c, want[i]) {
			t.Fatalf("copy %d was changed through another one", i)
		}
	}
	if allocs := testing.AllocsPerRun(10, func() {
		var s slab
		for range 1000 {
			s.copy([]byte("0123456789abcdef"))
		}
	}); allocs > 10 {
		t.Errorf("1000 small copies take %v allocations, of %d", allocs, shared)
	}
}

// Entries are safe to keep, keys are relative, and the empty key is one: not nil, which as a bound would mean none.
func TestViewScan(t *testing.T) {
	store := &mapStore{}
	db := newMapDB(store)
	s := db.Space("s")
	var b Batch
	want := []string{"", "\x00", "a", "b", "\xff", "\xff\xff"}
	for _, k := range want {
		b.Put(s, Key(k), []byte("value of "+k))
		b.Put(db.Root(), Key(k), nil)
		b.Put(db.Space("s", "within"), Key(k), nil)
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	v, err := db.View(t.Context())
	if err != nil || v.ID() != 1 {
		t.Fatal(v, err)
	}
	for _, reverse := range []bool{false, true} {
		var opts []ReadOption
		if reverse {
			opts = append(opts, ScanReverse())
			slices.Reverse(want)
		}
		var got []Entry
		for e, err := range v.Scan(s, Range{}, opts...) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Key == nil || e.Value == nil {
				t.Errorf("entry %q: nil", e)
			}
			got = append(got, e)
		}
		for i, e := range got {
			if len(got) != len(want) || string(e.Key) != want[i] || string(e.Value) != "value of "+want[i] {
				t.Fatalf("scan %q, want %q", got, want)
			}
		}
	}
	n := 0
	for _, err := range v.Scan(s, Between(Key("a"), Key("\xff"))) {
		if n++; n == 1 {
			break
		}
		t.Error("it goes on", err)
	}
	for e, err := range v.Scan(s, Between(Key("b"), Key("a"))) {
		t.Error("an upside down range has keys", e, err)
	}
	if got, err := v.Get(s, Key("a")); err != nil || string(got) != "value of a" {
		t.Error(got, err)
	}
	if _, err := v.Get(s, Key("zz")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, foreign := range []*Space{nil, New(nil).Root(), db.Space(struct{}{})} {
		if _, err := v.Get(foreign, nil); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("get in %v: %v", foreign, err)
		}
		errs := 0
		for _, err := range v.Scan(foreign, Range{}) {
			if err != nil {
				errs++
			}
		}
		if errs != 1 {
			t.Errorf("scan of %v: %d errors", foreign, errs)
		}
	}
	if err := v.Close(); err != nil || store.open.Load() != 0 {
		t.Errorf("%d snapshots and cursors are open: %v", store.open.Load(), err)
	}
}

// A scan of a space has its own view and closes it, however it ends; the end of ctx ends it.
func TestSpaceScan(t *testing.T) {
	store := &mapStore{}
	db := newMapDB(store)
	s := db.Space("s")
	var b Batch
	for i := range 1000 {
		b.Put(s, K(i), nil)
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	count := func(ctx context.Context, stop int) (n int, last error) {
		for _, err := range s.Scan(ctx, Range{}) {
			if err != nil {
				last = err
				continue
			}
			if n++; n == stop {
				break
			}
		}
		if open := store.open.Load(); open != 0 {
			t.Errorf("%d snapshots and cursors are open", open)
		}
		return n, last
	}
	if n, err := count(t.Context(), 0); n != 1000 || err != nil {
		t.Error(n, err)
	}
	if n, err := count(t.Context(), 10); n != 10 || err != nil {
		t.Error(n, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	n := 0
	var last error
	for _, err := range s.Scan(ctx, Range{}) {
		if n++; n == 300 {
			cancel(errBroken)
		}
		last = err
	}
	if n > 600 || !errors.Is(last, errBroken) || store.open.Load() != 0 {
		t.Errorf("%d entries after the context ended at 300, %v", n, last)
	}
	store.fail = errBroken
	if n, err := count(t.Context(), 0); n != 0 || !errors.Is(err, errBroken) {
		t.Error(n, err)
	}
	// Without a Getter a single read takes a view.
	if _, err := s.Get(t.Context(), K(1)); !errors.Is(err, errBroken) || store.open.Load() != 0 {
		t.Error(err)
	}
}

// The options of a read come to the engine as they were given.
func TestReadOptions(t *testing.T) {
	var got ReadOptions
	db := New(&stub{view: func(_ context.Context, o ReadOptions) (waist.Snapshot, error) {
		got = o
		return nil, errBroken
	}})
	for _, c := range []struct {
		opts []ReadOption
		want ReadOptions
	}{
		{nil, ReadOptions{}},
		{[]ReadOption{Stale()}, ReadOptions{Stale: true}},
		{[]ReadOption{AtLeast(7), MaxWait(3)}, ReadOptions{AtLeast: 7, MaxWait: 3}},
	} {
		if _, err := db.View(t.Context(), c.opts...); !errors.Is(err, errBroken) || got != c.want {
			t.Errorf("view: %+v, want %+v", got, c.want)
		}
		if _, err := db.Root().Get(t.Context(), nil, c.opts...); !errors.Is(err, errBroken) || got != c.want {
			t.Errorf("get: %+v, want %+v", got, c.want)
		}
		for _, err := range db.Root().Scan(t.Context(), Range{}, c.opts...) {
			c.want.Only = string(wire.RootPath)
			if !errors.Is(err, errBroken) || got != c.want {
				t.Errorf("scan: %+v, want %+v", got, c.want)
			}
		}
	}
}

// What an engine can't do is said, and the rest is done without.
func TestNarrowEngine(t *testing.T) {
	db := New(&stub{})
	if err := db.Configure(t.Context(), LogConfig{}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := db.PlanConfigure(t.Context(), LogConfig{}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if st, err := db.Status(t.Context()); err != nil || st.Head != 7 {
		t.Error(st, err)
	}
	if head, err := db.Head(t.Context()); err != nil || head != 7 {
		t.Error(head, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(db.Root()) != "/" {
		t.Error(db.Root())
	}
}
