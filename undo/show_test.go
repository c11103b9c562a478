package undo_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func value(v undo.Value) string {
	switch {
	case v.Unknown:
		return "?"
	case !v.Present:
		return "-"
	case v.Blob != nil:
		return fmt.Sprintf("blob of %d", v.Blob.Size)
	default:
		return string(v.Bytes)
	}
}

func name(s *batchlog.Space, k batchlog.Key) string {
	text := strings.Trim(k.String(), `"`)
	if s.String() != "/" {
		text = s.String() + "/" + text
	}
	return text
}

// diffText is changes as "a 1 → 2 by 3, b..d ? → -".
func diffText(t *testing.T, changes iter.Seq2[*undo.Change, error]) string {
	t.Helper()
	var out []string
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		key := name(c.Space, c.Key)
		if c.Range {
			key += ".." + strings.Trim(c.High.String(), `"`)
		}
		out = append(out, fmt.Sprintf("%s %s → %s by %d", key, value(c.Old), value(c.New), c.ID))
	}
	return strings.Join(out, ", ")
}

func TestShow(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs, local.Options{Log: batchlog.LogConfig{BlobBytes: 1024}})
	blob := strings.Repeat("x", 2000)
	do(t, db, "a=1", "b=1", "c=1", "s/a=1")
	do(t, db, "d=0", "a..c", "d=1", "b=2", "c=1", "s/a="+blob, "e=1", "-e")
	if got, want := diffText(t, undo.Show(t.Context(), db.DB, 2)), "a 1 → - by 2, b 1 → 2 by 2, d - → 1 by 2, s/a 1 → blob of 2000 by 2"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	for change, err := range undo.Show(t.Context(), db.DB, 2) {
		if err != nil || name(change.Space, change.Key) != "a" {
			t.Error(change, err)
		}
		break
	}
	if err := db.Configure(t.Context(), batchlog.LogConfig{BlobBytes: 1024}); err != nil {
		t.Fatal(err)
	}
	do(t, db, "d=0", "a..c", "a..b", "b..f", "d=1", "b=2", "c=1", "c=3", "s/a=5", "e=1", "-e", "z=1")
	want := "a..c ? → - by 3, a..b ? → - by 3, b..f ? → - by 3, b ? → 2 by 3, c ? → 3 by 3, d ? → 1 by 3, e ? → - by 3, z ? → 1 by 3, s/a ? → 5 by 3"
	if got := diffText(t, undo.Show(t.Context(), db.DB, 3)); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	if _, err := undo.Undo(t.Context(), db.DB, 3, undo.Options{}); !errors.Is(err, batchlog.ErrNoInverse) {
		t.Errorf("undo without an inverse: %v", err)
	}
	for _, id := range []batchlog.ID{0, 4} {
		for _, err := range undo.Show(t.Context(), db.DB, id) {
			if !errors.Is(err, batchlog.ErrNotFound) {
				t.Errorf("commit %d: %v", id, err)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	db := mem(t)
	do(t, db, "a=1", "b=1", "s/a=1") // 1
	do(t, db, "a=2", "-b")           // 2
	do(t, db, "a=3", "b=1", "c=1")   // 3
	do(t, db, "a..z", "s/b=1")       // 4
	do(t, db, "a=1")                 // 5
	for _, c := range []struct {
		from, to batchlog.ID
		space    string
		want     string
	}{
		{1, 2, "", "a 1 → 2 by 2, b 1 → - by 2"},
		{1, 3, "", "a 1 → 3 by 3, c - → 1 by 3"},
		{3, 1, "", "a 3 → 1 by 3, c 1 → - by 3"},
		{1, 5, "", "b 1 → - by 4, s/b - → 1 by 4"},
		{1, 5, "s", "s/b - → 1 by 4"},
		{0, 1, "s", "s/a - → 1 by 1"},
		{2, 2, "", ""},
		{0, 0, "", ""},
		{0, 5, "", "a - → 1 by 5, s/a - → 1 by 1, s/b - → 1 by 4"},
	} {
		var spaces []*batchlog.Space
		if c.space != "" {
			spaces = append(spaces, db.Space(c.space))
		}
		if got := diffText(t, undo.Diff(t.Context(), db.DB, c.from, c.to, spaces...)); got != c.want {
			t.Errorf("%d to %d in %q: %s; want %s", c.from, c.to, c.space, got, c.want)
		}
	}
	undo.DiffBound(t, 400)
	for id, want := range map[batchlog.ID]error{5: batchlog.ErrTooLarge, 6: batchlog.ErrNotFound} {
		for _, err := range undo.Diff(t.Context(), db.DB, 0, id) {
			if !errors.Is(err, want) {
				t.Errorf("diff of 0 to %d: %v", id, err)
			}
		}
	}
}

// history is what History says of a key, as "5=x 3- before=y".
func history(t *testing.T, db *local.DB, s *batchlog.Space, k batchlog.Key) string {
	t.Helper()
	var out []string
	for v, err := range undo.History(t.Context(), db.DB, s, k) {
		if err != nil {
			t.Fatal(err)
		}
		text := "before"
		if v.ID != 0 {
			text = v.ID.String()
			if v.Time.IsZero() || v.Labels["n"] != text {
				t.Errorf("version %+v", v)
			}
		}
		out = append(out, text+"="+value(v.Value))
	}
	return strings.Join(out, " ")
}

func TestHistory(t *testing.T) {
	for _, bytes := range []int{16 << 20, 1, 300} { // of values in memory
		undo.Bounds(t, 100, bytes)
		db := mem(t)
		n := 0
		put := func(ops ...string) {
			n++
			doAs(t, db, map[string]string{"n": fmt.Sprint(n)}, ops...)
		}
		if got := history(t, db, db.Root(), batchlog.K("a")); got != "" {
			t.Errorf("without a commit: %s", got)
		}
		for _, ops := range []string{"-a", "a=1", "b=1", "a=1", "a=2", "a..b", "a..b", "-a", "s/a=1", "a=3 a=4", "a=5 a..c", "a=6", "c=1"} {
			put(strings.Fields(ops)...)
		}
		for range 3000 {
			put("d=1")
		}
		put("a=7")
		for key, want := range map[string]string{"a": "3014=7 12=6 11=- 10=4 6=- 5=2 2=1", "s/a": "9=1", "x": "", "c": "13=1", "d": "14=1"} {
			s, k := place(db, key)
			if got := history(t, db, s, k); got != want {
				t.Errorf("%d bytes, %s: %s; want %s", bytes, key, got, want)
			}
		}
		for v, err := range undo.History(t.Context(), db.DB, db.Root(), batchlog.K("a")) {
			if err != nil || v.ID != 3014 {
				t.Error(v, err)
			}
			break
		}
	}
}

// Where the log has lost its oldest commits, what was there before them is told as far as it is known.
func TestHistoryTrimmed(t *testing.T) {
	for _, undoOn := range []bool{true, false} {
		config := batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour, Undo: undoOn}
		var now atomic.Int64
		db := open(t, vfs.NewMem(), local.Options{Log: config, Now: func() time.Time { return time.Unix(now.Load(), 0) }})
		n := 0
		put := func(ops ...string) {
			n++
			doAs(t, db, map[string]string{"n": fmt.Sprint(n)}, ops...)
		}
		put("a=old", "b=old", "c=old", "d=old")
		for range 40 {
			put("x=" + fmt.Sprint(n) + strings.Repeat("x", 1000))
		}
		if err := db.Configure(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		now.Store(10000)
		put("a=new", "b=old", "e=new", "y="+strings.Repeat("x", 20000))
		put("z=1")
		if err := db.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st, err := db.Status(t.Context()); err != nil || st.Oldest < 2 || st.Oldest > 42 {
			t.Fatalf("oldest %d, %v", st.Oldest, err)
		}
		want := map[string]string{"a": "42=new before=old", "b": "before=old", "c": "before=old", "e": "42=new", "q": ""}
		if !undoOn {
			want["a"], want["b"] = "42=new", "42=old"
		}
		for key, want := range want {
			s, k := place(db, key)
			if got := history(t, db, s, k); got != want {
				t.Errorf("undo %t, %s: %s; want %s", undoOn, key, got, want)
			}
		}
		var gone *batchlog.GapError
		if _, err := undo.Undo(t.Context(), db.DB, 1, undo.Options{}); !errors.As(err, &gone) {
			t.Errorf("undo of what is gone: %v", err)
		}
		if u, _, err := undo.Stack(db.DB, "n", "1").Peek(t.Context()); u != 0 || err != nil {
			t.Errorf("stack of what is gone: %d, %v", u, err)
		}
	}
}

// What commits of all kinds have changed, small or in stretches, is what the states before and after say.
func TestShowStates(t *testing.T) {
	db := open(t, vfs.NewMem(), local.Options{ChainBytes: 16 << 10, Log: batchlog.LogConfig{BlobBytes: 1024}})
	w := writer{t: t, db: db, rng: rand.New(rand.NewPCG(1, 2))}
	for range 150 {
		w.write()
	}
	all := states(t, db)
	last := batchlog.ID(len(all) - 1)
	for id := batchlog.ID(1); id <= last; id++ {
		sameChanges(t, undo.Show(t.Context(), db.DB, id), all[id-1], all[id], false)
	}
	for range 40 {
		a, b := batchlog.ID(w.rng.IntN(len(all))), batchlog.ID(w.rng.IntN(len(all)))
		sameChanges(t, undo.Diff(t.Context(), db.DB, a, b), all[a], all[b], false)
	}
	if err := db.Configure(t.Context(), batchlog.LogConfig{BlobBytes: 1024}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		w.write()
	}
	all = states(t, db)
	for id := last + 1; int(id) < len(all); id++ {
		sameChanges(t, undo.Show(t.Context(), db.DB, id), all[id-1], all[id], true)
	}
}

// sameChanges compares changes with two states. Written says that they are what was written, without the old values.
func sameChanges(t *testing.T, changes iter.Seq2[*undo.Change, error], before, after map[string]string, written bool) {
	t.Helper()
	got, last := maps.Clone(before), ""
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		key := string(c.Space.Stored()) + string(c.Key)
		if key < last || key == last && !written {
			t.Errorf("%x after %x", key, last)
		}
		last = key
		if c.Range {
			maps.DeleteFunc(got, func(k, _ string) bool {
				return k >= key && strings.HasPrefix(k, string(c.Space.Stored())) && (c.High == nil || k < string(c.Space.Stored())+string(c.High))
			})
			continue
		}
		old, has := before[key]
		now := stored(c.New)
		if !written && (c.Old.Present != has || stored(c.Old) != old || c.Old.Present == c.New.Present && old == now) || c.Old.Unknown != written {
			t.Errorf("commit %d: %x %s → %s, it had %.20q", c.ID, key, value(c.Old), value(c.New), old)
		}
		if delete(got, key); c.New.Present {
			got[key] = now
		}
	}
	if !maps.Equal(got, after) {
		t.Errorf("changes lead to %d keys, not %d", len(got), len(after))
	}
}

func stored(v undo.Value) string {
	if v.Blob != nil {
		return string(batchlog.AppendBlobRef(nil, *v.Blob))
	}
	return string(v.Bytes)
}

// Whoever breaks off gets no further, and the end of a context ends all of them.
func TestContext(t *testing.T) {
	db := mem(t)
	do(t, db, "a=1")
	do(t, db, "a=2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := map[string]func() error{
		"undo":    func() error { _, err := undo.Undo(ctx, db.DB, 2, undo.Options{}); return err },
		"cascade": func() error { _, err := undo.Undo(ctx, db.DB, 1, undo.Options{Cascade: true}); return err },
		"redo":    func() error { _, err := undo.Redo(ctx, db.DB, 1, undo.Options{}); return err },
		"to":      func() error { _, err := undo.To(ctx, db.DB, 1, undo.Options{}); return err },
		"preview": func() error { _, err := undo.Preview(ctx, db.DB, 2, undo.Options{}); return err },
		"stack":   func() error { _, err := undo.Stack(db.DB, "a", "b").Undo(ctx); return err },
		"show":    func() error { return firstError(undo.Show(ctx, db.DB, 2)) },
		"diff":    func() error { return firstError(undo.Diff(ctx, db.DB, 0, 2)) },
		"history": func() error { return firstError(undo.History(ctx, db.DB, db.Root(), batchlog.K("a"))) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if head, err := db.Head(t.Context()); head != 2 || err != nil {
		t.Errorf("head %d, %v", head, err)
	}
}

func firstError[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		return err
	}
	return nil
}
