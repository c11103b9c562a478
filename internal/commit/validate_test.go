package commit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// reading is a proposal that has read keys and ranges, "low-high", at base.
func reading(base batchlog.ID, keys []string, ranges ...[2]string) *waist.Proposal {
	p := propose(put("own"))
	p.Reads = &waist.Reads{Base: base}
	for _, k := range keys {
		p.Reads.Keys = append(p.Reads.Keys, []byte(k))
	}
	for _, r := range ranges {
		p.Reads.Ranges = append(p.Reads.Ranges, wire.KeyRange{Low: []byte(r[0]), High: []byte(r[1])})
	}
	return p
}

// many is many keys, with key among them.
func many(key string) []string {
	var keys []string
	for i := range 16 {
		keys = append(keys, fmt.Sprint("many", i))
	}
	return append(keys, key)
}

// conflicts is which ops change what was read.
var conflicts = []struct {
	name     string
	keys     []string
	ranges   [][2]string
	op       op
	conflict bool
}{
	{"key, put", []string{"k"}, nil, put("k"), true},
	{"key, put of another", []string{"k"}, nil, put("k0"), false},
	{"key, put of one shorter", []string{"kk"}, nil, put("k"), false},
	{"key, delete", []string{"k"}, nil, del("k"), true},
	{"key, delete of another", []string{"k"}, nil, del("j"), false},
	{"key, range delete around it", []string{"k"}, nil, delRange("j", "l"), true},
	{"key, range delete from it on", []string{"k"}, nil, delRange("k", "l"), true},
	{"key, range delete up to it", []string{"k"}, nil, delRange("j", "k"), false},
	{"key, range delete behind it", []string{"k"}, nil, delRange("k\x00", "l"), false},
	{"second key, put", []string{"a", "k"}, nil, put("k"), true},
	{"many keys, put", many("k"), nil, put("k"), true},
	{"many keys, put of another", many("k"), nil, put("many"), false},
	{"many keys, delete", many("k"), nil, del("many3"), true},
	{"many keys, range delete", many("k"), nil, delRange("j", "l"), true},
	{"many keys, range delete between", many("k"), nil, delRange("k\x00", "many"), false},
	{"many keys and a range, put in it", many("k"), [][2]string{{"p", "q"}}, put("pp"), true},
	{"range, put in it", nil, [][2]string{{"c", "f"}}, put("d"), true},
	{"range, put at low", nil, [][2]string{{"c", "f"}}, put("c"), true},
	{"range, put at high", nil, [][2]string{{"c", "f"}}, put("f"), false},
	{"range, put before", nil, [][2]string{{"c", "f"}}, put("b\xff"), false},
	{"range, put just below high", nil, [][2]string{{"c", "f"}}, put("e\xff"), true},
	{"range, delete in it", nil, [][2]string{{"c", "f"}}, del("d"), true},
	{"range, delete at high", nil, [][2]string{{"c", "f"}}, del("f"), false},
	{"range, range delete inside", nil, [][2]string{{"c", "f"}}, delRange("d", "e"), true},
	{"range, range delete around", nil, [][2]string{{"c", "f"}}, delRange("a", "z"), true},
	{"range, the same range delete", nil, [][2]string{{"c", "f"}}, delRange("c", "f"), true},
	{"range, range delete over low", nil, [][2]string{{"c", "f"}}, delRange("b", "c\x00"), true},
	{"range, range delete over high", nil, [][2]string{{"c", "f"}}, delRange("e", "z"), true},
	{"range, range delete up to low", nil, [][2]string{{"c", "f"}}, delRange("a", "c"), false},
	{"range, range delete from high on", nil, [][2]string{{"c", "f"}}, delRange("f", "z"), false},
	{"second range, put", nil, [][2]string{{"a", "b"}, {"c", "f"}}, put("d"), true},
	{"two ranges, put between", nil, [][2]string{{"a", "b"}, {"c", "f"}}, put("b"), false},
	{"nothing read", nil, nil, put("k"), false},
}

// A transaction conflicts with a commit that has changed what it read: one in the window, one that is only in the log, one that
// came after the check in its caller, one of the same group, and none at or before its view.
func TestConflict(t *testing.T) {
	for _, test := range conflicts {
		t.Run(test.name, func(t *testing.T) {
			want := func(how string, err error) {
				t.Helper()
				if errors.Is(err, batchlog.ErrConflict) != test.conflict || err != nil && !test.conflict {
					t.Errorf("%s: %v", how, err)
				}
			}
			// The op is the second of its commit, so all ops are looked at.
			change := propose(put("~else"), test.op)
			tx := func(base batchlog.ID) *waist.Proposal { return reading(base, test.keys, test.ranges...) }
			bubble(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				p := newLine(t, l, s)
				mustCommit(t, p, propose(put("k")))
				mustCommit(t, p, change)
				_, err := p.Commit(t.Context(), tx(1))
				want("in the window", err)
				if _, err := p.Commit(t.Context(), tx(2)); err != nil {
					t.Errorf("at the view: %v", err)
				}
			})
			bubble(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				l.fill(propose(put("k")), change)
				s.mu.applied = 2
				p := newLine(t, l, s)
				_, err := p.Commit(t.Context(), tx(1))
				want("in the log", err)
			})
			bubble(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				b := newBlocker()
				l.syncing = b.wait
				p := newLine(t, l, s)
				first := p.commit(t.Context(), change)
				<-b.entered
				later := p.commit(t.Context(), tx(0)) // checked by its caller before the first is durable
				synctest.Wait()
				b.release()
				check(t, "first", <-first, result{1, nil})
				want("in the group before", (<-later).err)
			})
			bubble(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				b := newBlocker()
				l.syncing = b.wait
				p := newLine(t, l, s)
				first := p.commit(t.Context(), propose(put("first")))
				<-b.entered
				before := p.commit(t.Context(), change)
				synctest.Wait()
				same := p.commit(t.Context(), tx(0))
				synctest.Wait()
				b.release()
				check(t, "first", <-first, result{1, nil})
				check(t, "before", <-before, result{2, nil})
				want("in the same group", (<-same).err)
				check(t, "groups", len(l.groups()), 2)
			})
		})
	}
}

// A transaction that conflicts leaves no hole, and does not make another one conflict.
func TestConflictLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		p := newLine(t, l, s)
		first := p.commit(t.Context(), propose(put("k")))
		<-b.entered
		var txs []<-chan result
		for _, key := range []string{"k", "own", "free", "own"} { // all put "own"
			txs = append(txs, p.commit(t.Context(), reading(0, []string{key})))
			synctest.Wait()
		}
		b.release()
		<-first
		var got []any
		for _, tx := range txs {
			r := <-tx
			got = append(got, r.id, errors.Is(r.err, batchlog.ErrConflict))
		}
		check(t, "answers", got, []any{0, true, 2, false, 3, false, 0, true})
		check(t, "log", firstKeys(l.durable()), "[k own own]")
	})
}

// A transaction whose view is older than the window is checked against the log, as far as that goes back.
func TestOldBase(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	l.stretch = 3
	p := newLine(t, l, s)
	mustCommit(t, p, propose(put("old")))
	for range windowBytes>>20 + 4 {
		mustCommit(t, p, large(1<<20))
	}
	mustCommit(t, p, propose(put("new")))
	if p.recent.bytes > windowBytes || p.recent.groups[0][0].ID < 4 {
		t.Errorf("%d bytes in the window, from %d on", p.recent.bytes, p.recent.groups[0][0].ID)
	}
	readers := func() int { return l.mu.readers }
	if _, err := p.Commit(t.Context(), reading(0, []string{"free"})); err != nil || readers() != 1 {
		t.Errorf("free: %v, %d readers", err, readers())
	}
	for _, key := range []string{"old", "k", "new"} {
		_, err := p.Commit(t.Context(), reading(0, []string{key}))
		wantErr(t, key, err, batchlog.ErrConflict)
	}
	if _, err := p.Commit(t.Context(), reading(1, []string{"old"})); err != nil {
		t.Error(err)
	}
	before := readers()
	if _, err := p.Commit(t.Context(), reading(l.Head()-2, []string{"free"})); err != nil || readers() != before {
		t.Errorf("in the window: %v, %d readers", err, readers()-before)
	}
	l.trim(3)
	_, err := p.Commit(t.Context(), reading(1, []string{"free"}))
	wantErr(t, "trimmed", err, batchlog.ErrConflict, batchlog.ErrGap)
	if _, err := p.Commit(t.Context(), reading(2, []string{"free"})); err != nil {
		t.Error(err)
	}
	check(t, "open readers", l.mu.open, 0)
}

// What the log can't say ends the transaction: damage with its own error, what is trimmed under way as a conflict.
func TestOldBaseErrors(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	l.fill(propose(put("a")), propose(put("b")))
	s.mu.applied = 2
	p := newLine(t, l, s)
	damaged := &batchlog.CorruptError{File: "f"}
	for _, test := range []struct {
		name    string
		opening error
		reading error
		want    error
	}{
		{"reader", damaged, nil, damaged},
		{"next", nil, damaged, damaged},
		{"trimmed", &batchlog.GapError{From: 1, Oldest: 2}, nil, batchlog.ErrConflict},
		{"trimmed under way", nil, &batchlog.GapError{From: 1, Oldest: 2}, batchlog.ErrConflict},
	} {
		l.opening = func(batchlog.LogOptions) error { return test.opening }
		l.reading = func(batchlog.ID) error { return test.reading }
		_, err := p.Commit(t.Context(), reading(0, []string{"free"}))
		wantErr(t, test.name, err, test.want)
	}
	l.opening, l.reading = nil, nil
	ctx, cancel := context.WithCancel(t.Context())
	l.opening = func(batchlog.LogOptions) error { cancel(); return nil }
	_, err := p.Commit(ctx, reading(0, []string{"free"}))
	wantErr(t, "context", err, context.Canceled)
	check(t, "head", l.Head(), 2)
	check(t, "open readers", l.mu.open, 0)
}

// Ops that can't be decoded are an error, not a pass.
func TestMalformedOps(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	p := newLine(t, l, s)
	mustCommit(t, p, &waist.Proposal{Count: 1, Ops: []byte{77}})
	if _, err := p.Commit(t.Context(), reading(0, []string{"k"})); err == nil {
		t.Error("validated against what can't be read")
	}
}

// More than the window holds came between the caller's check and the write loop's: the caller looks at it in the log.
func TestTooMuchSinceChecked(t *testing.T) {
	for key, want := range map[string]error{"free": nil, "k": batchlog.ErrConflict} {
		bubble(t, func(t *testing.T) {
			l, s := newFakeLog(t), newFakeStore(t)
			p := newLine(t, l, s)
			_, release := p.protect(t, 0, "own")
			late := p.commit(t.Context(), reading(0, []string{key}))
			synctest.Wait()
			for range windowBytes>>20 + 4 {
				mustCommit(t, p, large(1<<20))
			}
			release()
			if err := (<-late).err; !errors.Is(err, want) {
				t.Error(key, err)
			}
		})
	}
}

// A transaction that is handed back each time ends as a conflict.
func TestHandedBackTooOften(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	p := newLine(t, l, s)
	r := p.request()
	r.prop, r.round = reading(0, []string{"k"}), checkRounds
	err := p.prepare(t.Context(), r)
	wantErr(t, "prepare", err, batchlog.ErrConflict)
	var lost *batchlog.ConflictError
	if !errors.As(err, &lost) || lost.Reads != r.prop.Reads {
		t.Error(err)
	}
}
