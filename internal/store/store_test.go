package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The store is what the commits add up to, however many are applied at once, and after it was closed and opened.
func TestApply(t *testing.T) {
	fs := vfs.NewMem()
	m := newMaker(1)
	var all []wire.Record
	s := open(t, fs, 0)
	for round := range 40 {
		for range m.rng.IntN(30) {
			r := m.record(100)
			if m.rng.IntN(4) == 0 {
				r = withToken(r, fmt.Sprint("token ", r.ID))
			}
			all = append(all, r)
		}
		applyAfter(t, s, all, 1+m.rng.IntN(40))
		want := fold(t, all, batchlog.ID(len(all)))
		mustBe(t, s, batchlog.ID(len(all)), want)
		down := scan(t, snapshot(t, s), keyPrefix, "\xa1", true)
		slices.Reverse(down)
		if up := want.in(keyPrefix, "\xa1"); !slices.Equal(down, up) {
			t.Fatalf("round %d: descending: %s", round, difference(down, up))
		}
		for k, v := range want {
			if got, err := s.Get([]byte(k)); err != nil || string(got) != v {
				t.Fatalf("round %d: %q is %.40q, %v", round, k, got, err)
			}
		}
		if round%10 == 9 {
			flush(t, s)
			if id, err := s.Flushed(); err != nil || id != s.Applied() || mark(t, s) != id {
				t.Fatalf("flushed %d, %v, applied %d", id, err, s.Applied())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, fs, 0)
			mustBe(t, s, batchlog.ID(len(all)), want)
		}
	}
	if st := s.Status(); st.Bytes == 0 || st.MemoryBytes == 0 {
		t.Errorf("status %+v", st)
	}
}

// Ops act in their order, within a commit and across those of one Apply; a range delete takes what was put before it and
// leaves what is put behind it.
func TestApplyOrder(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	r := wire.Record{ID: 1, Count: 6}
	for _, k := range []string{"a", "b", "c"} {
		r.Ops = wire.AppendOp(r.Ops, batchlog.OpPut, key(k), []byte("before"))
	}
	r.Ops = wire.AppendOp(r.Ops, batchlog.OpDeleteRange, key("a"), key("c"))
	r.Ops = wire.AppendOp(r.Ops, batchlog.OpPut, key("b"), []byte("behind"))
	r.Ops = wire.AppendOp(r.Ops, batchlog.OpDelete, key("c"), nil)
	apply(t, s, r, put(2, "d", "1", "d", "2"), put(3, "d", "3"))
	for k, want := range map[string]string{"b": "behind", "d": "3"} {
		if got, err := s.Get(key(k)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", k, got, err, want)
		}
	}
	for _, k := range []string{"a", "c", ""} {
		if got, err := s.Get(key(k)); !errors.Is(err, batchlog.ErrNotFound) {
			t.Errorf("%s is %q, %v", k, got, err)
		}
	}
	if got, err := s.Get(key("b")); err != nil || got == nil {
		t.Error(got, err)
	}
	apply(t, s, put(4, "empty", ""))
	if got, err := s.Get(key("empty")); err != nil || got == nil || len(got) != 0 {
		t.Errorf("an empty value is %v, %v", got, err)
	}
	apply(t, s)
	if s.Applied() != 4 {
		t.Errorf("at %d", s.Applied())
	}
}

// Commits that are larger than a memtable, which Pebble handles in another way, range deletes in them included. Their memory is
// the log's, and may become something else.
func TestApplyLarge(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	m := newMaker(2)
	var all []wire.Record
	for range 12 {
		r := wire.Record{ID: m.next}
		for range 40 {
			one := m.record(10 << 10)
			r.Ops, r.Count = append(r.Ops, one.Ops...), r.Count+one.Count
		}
		m.next = r.ID + 1
		if len(r.Ops) < 2*smallMemTable {
			t.Fatal("not large")
		}
		all = append(all, r)
		given := r
		given.Ops = bytes.Clone(r.Ops)
		apply(t, s, given)
		clear(given.Ops)
		mustBe(t, s, r.ID, fold(t, all, r.ID))
	}
	flush(t, s)
	mustBe(t, s, 12, fold(t, all, 12))
}

// Commits that don't follow on what was applied are our bug.
func TestApplyGap(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	apply(t, s, put(1))
	for _, id := range []batchlog.ID{1, 3} {
		func() {
			defer func() {
				if r, ok := recover().(string); !ok || !strings.HasPrefix(r, "batchlog: bug: ") {
					t.Errorf("commit %d: panic %v", id, r)
				}
			}()
			_ = s.Apply([]wire.Record{put(id)})
			t.Errorf("commit %d was applied", id)
		}()
	}
	within(t, 10*time.Second, "Close", func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An empty store stands where it is told to, and so do its snapshots.
func TestBase(t *testing.T) {
	s := open(t, vfs.NewMem(), 41)
	snap, err := s.Snapshot()
	if err != nil || s.Applied() != 41 || snap.ID() != 41 {
		t.Errorf("at %d, its snapshot at %d, %v", s.Applied(), snap.ID(), err)
	}
	apply(t, s, put(42, "a", "1"))
	after, err := s.Snapshot()
	if err != nil || after.ID() != 42 {
		t.Errorf("snapshot at %d, %v", after.ID(), err)
	}
}

// A snapshot shows one id whatever is applied meanwhile, and says which.
func TestSnapshots(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	m := newMaker(3)
	all := m.records(300, 200)
	var want []model
	for id := range len(all) + 1 {
		want = append(want, fold(t, all, batchlog.ID(id)))
	}
	check := func(snap *Snapshot) {
		if got, want := scan(t, snap, keyPrefix, "\xa1", false), want[snap.ID()].in(keyPrefix, "\xa1"); !slices.Equal(got, want) {
			t.Errorf("snapshot at %d: %s", snap.ID(), difference(got, want))
		}
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for s.Applied() < 300 {
				before := s.Applied()
				snap, err := s.Snapshot()
				if err != nil {
					t.Error(err)
					return
				}
				if snap.ID() < before {
					t.Errorf("snapshot at %d, the store was at %d", snap.ID(), before)
				}
				check(snap)
				if err := errors.Join(snap.Close(), snap.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var kept []*Snapshot
	for rest := all; len(rest) > 0; {
		n := min(1+m.rng.IntN(7), len(rest))
		apply(t, s, rest[:n]...)
		rest = rest[n:]
		if m.rng.IntN(10) == 0 {
			kept = append(kept, snapshot(t, s))
		}
	}
	readers.Wait()
	for _, snap := range kept {
		check(snap)
	}
}

// Cursors go one way, from bound to bound, and are done once.
func TestCursor(t *testing.T) {
	s := open(t, vfs.NewMem(), 0)
	apply(t, s, put(1, "a", "1", "b", "2", "c", "3"))
	snap, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		low, high string
		reverse   bool
		want      string
	}{
		{"a", "c", false, "ab"}, {"a", "c", true, "ba"}, {"b", "z", false, "bc"}, {"", "b", true, "a"}, {"bb", "bc", false, ""}, {"a", "a", false, ""},
	} {
		cur, err := snap.Scan(t.Context(), key(c.low), key(c.high), c.reverse)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for {
			k, _, err := cur.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
			got += string(k[len(k)-1:])
		}
		if got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if _, _, err := cur.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v", err)
		}
		for range 2 {
			if err := cur.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, _, err := cur.Next(); !errors.Is(err, batchlog.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
	cur, err := snap.Scan(t.Context(), key(""), key("z"), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := cur.Next(); !errors.Is(err, batchlog.ErrClosed) {
		t.Errorf("cursor of a closed snapshot: %v", err)
	}
	if err := cur.Close(); err != nil {
		t.Error(err)
	}
	if _, err := snap.Scan(t.Context(), nil, nil, false); !errors.Is(err, batchlog.ErrClosed) {
		t.Errorf("scan of a closed snapshot: %v", err)
	}
	if _, err := snap.Get(t.Context(), key("a")); !errors.Is(err, batchlog.ErrClosed) {
		t.Errorf("get of a closed snapshot: %v", err)
	}
}

// Tokens are known from their commit's application on, until the log has forgotten the commit.
func TestTokens(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs, 0)
	const n = 2500 // more than are forgotten at once
	var records []wire.Record
	for id := batchlog.ID(1); id <= n; id++ {
		records = append(records, withToken(put(id, fmt.Sprint(id), "v"), fmt.Sprint("token ", id)))
	}
	apply(t, s, records[:n/2]...)
	if _, ok, err := s.Token(fmt.Sprint("token ", n)); ok || err != nil {
		t.Errorf("known before it was applied: %v", err)
	}
	apply(t, s, records[n/2:]...)
	longest := strings.Repeat("t", batchlog.MaxTokenBytes)
	apply(t, s, wire.Record{ID: n + 1, Meta: append([]byte{1, 0x80, 2}, longest...)}, withToken(put(n+2), "\x00"))
	known := func(token string, want batchlog.ID) {
		t.Helper()
		if id, ok, err := s.Token(token); err != nil || ok != (want != 0) || id != want {
			t.Errorf("token %.20q: %d, %v, %v, want %d", token, id, ok, err, want)
		}
	}
	check := func(oldest batchlog.ID) {
		t.Helper()
		for id := batchlog.ID(1); id <= n; id += 7 {
			want := id
			if id < oldest {
				want = 0
			}
			known(fmt.Sprint("token ", id), want)
		}
		known(longest, n+1)
		known("\x00", n+2)
		known("", 0)
		known("token", 0)
	}
	check(0)
	for _, oldest := range []batchlog.ID{1, 2, 5, 2001, 2001, 2400} {
		if err := s.ForgetTokens(oldest); err != nil {
			t.Fatal(err)
		}
		check(oldest)
	}
	// The same token again, after its first commit was forgotten: it is the new one's.
	apply(t, s, withToken(put(n+3), "token 1"))
	if err := s.ForgetTokens(2401); err != nil {
		t.Fatal(err)
	}
	known("token 1", n+3)
	if f, err := s.Get(key("1")); err != nil || string(f) != "v" {
		t.Errorf("keys were forgotten: %v", err)
	}
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	own := 0
	for ok := it.First(); ok && it.Key()[0] == 0; ok = it.Next() {
		own++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	if want := 1 + 2*(n-2400+3); own != want {
		t.Errorf("%d keys of the store's own, want %d", own, want)
	}
}

// What a cursor has handed out is valid until its next call, also when the store is closed before that: Pebble's memory is gone
// then, and to look at it may end the process.
func TestCloseKeepsEntry(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		o := testOptions(vfs.NewMem(), 0)
		o.MemTableBytes, o.CacheBytes = 64<<20, 64<<20
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		value := strings.Repeat("v", 8<<20) // of its own mapping in the process
		apply(t, s, put(1, "k", value, "l", value))
		if flushed {
			flush(t, s)
		}
		snap, err := s.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		c, err := snap.Scan(t.Context(), []byte{1}, []byte{0xff}, false)
		if err != nil {
			t.Fatal(err)
		}
		k, v, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k, key("k")) || string(v) != value {
			t.Errorf("flushed %v: the entry has changed", flushed)
		}
		if _, _, err := c.Next(); !errors.Is(err, batchlog.ErrClosed) {
			t.Error(err)
		}
		if err := errors.Join(c.Close(), snap.Close()); err != nil {
			t.Error(err)
		}
	}
}

// A directory is one store's; what it was closed with is there when it is opened, the mark included.
func TestOpen(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs, 0)
	apply(t, s, put(1, "a", "1"))
	if other, err := Open(testOptions(fs, 0)); err == nil {
		other.Close()
		t.Error("two stores in one directory")
	}
	flush(t, s)
	apply(t, s, put(2, "a", "2"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs, 0)
	if v, err := s.Get(key("a")); err != nil || s.Applied() == 0 || string(v) != fmt.Sprint(s.Applied()) {
		t.Errorf("at %d the value is %s, %v", s.Applied(), v, err)
	}
}

func TestGate(t *testing.T) {
	var g gate
	for range 2 {
		if !g.enter() {
			t.Fatal("an open gate lets nobody in")
		}
	}
	if !g.close() {
		t.Fatal("an open gate was closed already")
	}
	if g.enter() || g.close() {
		t.Error("a closed gate lets somebody in")
	}
	asked := 0
	if g.empty(func() bool { asked++; return asked > 3 }) {
		t.Error("empty with two inside")
	}
	g.leave()
	g.leave()
	if !g.empty(func() bool { return true }) {
		t.Error("not empty with nobody inside")
	}
}

// key is a stored key, put a commit that puts keys, given with their values.
func key(k string) []byte { return []byte(keyPrefix + k) }

func put(id batchlog.ID, pairs ...string) wire.Record {
	r := wire.Record{ID: id}
	for i := 0; i < len(pairs); i += 2 {
		r.Ops = wire.AppendOp(r.Ops, batchlog.OpPut, key(pairs[i]), []byte(pairs[i+1]))
		r.Count++
	}
	return r
}
