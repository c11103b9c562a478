package seglog

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
)

// A tableModel is a table as one would write it who has all the time in the world.
type tableModel struct {
	segs    []seg
	limbo   []gone
	number  uint64
	trimmed int64
}

func (m *tableModel) clone() *tableModel {
	c := *m
	c.segs, c.limbo = slices.Clone(m.segs), slices.Clone(m.limbo)
	return &c
}

func (m *tableModel) letGo(files []place) {
	for _, f := range files {
		m.limbo = append(m.limbo, gone{m.number, f})
		m.number++
	}
}

// wantTable fails t unless tab is what m says, sums included.
func wantTable(t *testing.T, tab *table, m *tableModel) {
	t.Helper()
	var segs []seg
	want := table{}
	for s := range tab.segs.all() {
		segs = append(segs, *s)
		size := int64(0)
		switch s.state {
		case sealed:
			size = s.size
		case full:
			size = s.end
		}
		if s.state != active {
			for _, c := range s.chains {
				size += c.size
			}
		}
		want.bytes += size
		if s.warm {
			want.warm++
			want.warmBytes += size
		}
	}
	var limbo []gone
	for g := range tab.limbo.all() {
		limbo = append(limbo, *g)
	}
	if !reflect.DeepEqual(segs, m.segs) || !slices.Equal(limbo, m.limbo) || tab.number != m.number || tab.trimmed != m.trimmed {
		t.Fatalf("segments %+v\nlimbo %v, number %d, trimmed %d\nwant %+v\n%v, %d, %d", segs, limbo, tab.number, tab.trimmed, m.segs, m.limbo, m.number, m.trimmed)
	}
	if tab.bytes != want.bytes || tab.warm != want.warm || tab.warmBytes != want.warmBytes {
		t.Fatalf("sums %d, %d, %d, want %d, %d, %d", tab.bytes, tab.warm, tab.warmBytes, want.bytes, want.warm, want.warmBytes)
	}
	for i := range m.segs {
		s := &m.segs[i]
		if got := tab.find(s.first + (s.last-s.first)/2*batchlog.ID(min(1, s.state))); got == nil || got.first != s.first {
			t.Fatalf("commit %d is found in %+v", s.first, got)
		}
	}
	if tab.find(m.segs[0].first-1) != nil || tab.active().first != m.segs[len(m.segs)-1].first || tab.oldest() != m.segs[0].first {
		t.Fatalf("from %d to %d", tab.oldest(), tab.active().first)
	}
}

// reencoded is e as it comes out of a file.
func reencoded(t *testing.T, e edit) edit {
	t.Helper()
	got, err := parseEdit(appendEdit(nil, e))
	if err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	return got
}

func newTable(t *testing.T) (*table, *tableModel) {
	t.Helper()
	tab, err := (&table{}).apply(edit{{kind: kindBegin, seg: seg{first: 1, tag: segTag{1}, size: 100}}})
	if err != nil {
		t.Fatal(err)
	}
	return tab, &tableModel{segs: []seg{{first: 1, tag: segTag{1}, size: 100}}}
}

// Edits in any order that makes sense do to a table what they do to a plain slice; a snapshot makes the same table; and no table that
// was ever there is changed by what came later.
func TestTableModel(t *testing.T) {
	type version struct {
		tab   *table
		model *tableModel
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		tab, m := newTable(t)
		versions := []version{{tab, m}}
		for range 200 {
			m = m.clone()
			e := randomEdit(r, m)
			if e == nil {
				continue
			}
			next, err := tab.apply(reencoded(t, e))
			if err != nil {
				t.Fatalf("seed %d: %+v: %v", seed, e, err)
			}
			wantTable(t, next, m)
			tab = next
			versions = append(versions, version{tab, m})
		}
		for _, v := range versions {
			wantTable(t, v.tab, v.model)
		}
		again := &table{}
		for e := range tab.snapshot {
			var err error
			if again, err = again.apply(reencoded(t, e)); err != nil {
				t.Fatal(err)
			}
		}
		wantTable(t, again, m)
	}
}

// randomEdit is an edit that can follow m, and does it to m. It is nil if what it thought of can't.
func randomEdit(r *rand.Rand, m *tableModel) edit {
	at := r.IntN(len(m.segs))
	s := &m.segs[at]
	last := &m.segs[len(m.segs)-1]
	dirs := []string{"", "a", "/b/c"}
	switch op := r.IntN(12); {
	case op == 0: // the active one is too small
		m.letGo(last.leaves())
		*last = seg{first: last.first, tag: segTag{byte(r.Uint32())}, dir: dirs[r.IntN(3)], size: r.Int64N(1 << 40)}
		return edit{{kind: kindBegin, seg: *last}}
	case op < 5:
		last.state, last.last, last.end, last.oldest, last.newest = full, last.first+batchlog.ID(r.IntN(1000)), r.Int64N(1<<40), r.Int64N(1000)-500, r.Int64N(1<<50)
		last.begun, last.ended = r.Int64N(1<<50), r.Int64N(1<<50)
		for range r.IntN(3) {
			last.chains = append(last.chains, segChain{[16]byte{byte(r.Uint32())}, last.last, r.Int64N(1 << 40)})
		}
		ended := *last
		m.segs = append(m.segs, seg{first: last.last + 1, tag: segTag{byte(r.Uint32())}, dir: dirs[r.IntN(3)], size: r.Int64N(1 << 40)})
		return edit{{kind: kindFull, seg: ended}, {kind: kindBegin, seg: m.segs[len(m.segs)-1]}}
	case op < 8 && s.state == full:
		s.state, s.size, s.oldest, s.newest, s.hash = sealed, r.Int64N(1<<40), r.Int64N(1<<50), r.Int64N(1<<50), [32]byte{byte(r.Uint32())}
		return edit{{kind: kindSealed, seg: *s}}
	case op == 8 && s.state == sealed && !s.warm && s.moving == "":
		s.moving = "/warm/" + fmt.Sprint(r.IntN(2))
		return edit{{kind: kindMoving, seg: seg{first: s.first, dir: s.moving}}}
	case op == 9 && s.moving != "":
		if r.IntN(3) == 0 {
			m.letGo(s.copies())
			s.moving = ""
			return edit{{kind: kindUnmoved, seg: *s}}
		}
		m.letGo(s.files())
		s.dir, s.warm, s.moving = s.moving, true, ""
		return edit{{kind: kindMoved, seg: *s}}
	case op == 10 && r.IntN(4) == 0:
		through := s.last
		if s.state == active {
			through = s.first + 5
		}
		for m.segs[0].state != active && m.segs[0].last <= through {
			m.trimmed = max(m.trimmed, m.segs[0].newest)
			m.letGo(m.segs[0].leaves())
			m.segs = m.segs[1:]
		}
		return edit{{kind: kindDropped, seg: seg{last: through}}}
	case op == 11 && len(m.limbo) > 0:
		low := m.limbo[r.IntN(len(m.limbo))].n
		high := low + r.Uint64N(4)
		m.limbo = slices.DeleteFunc(m.limbo, func(g gone) bool { return g.n >= low && g.n <= high })
		return edit{{kind: kindRemoved, low: low, high: high}}
	}
	return nil
}

// An edit that can't follow a table is refused, and the table is as it was: all changes of an edit or none.
func TestTableRefuses(t *testing.T) {
	tab, _ := newTable(t)
	apply := func(e edit) {
		t.Helper()
		next, err := tab.apply(e)
		if err != nil {
			t.Fatal(err)
		}
		tab = next
	}
	begin := func(first batchlog.ID) change { return change{kind: kindBegin, seg: seg{first: first}} }
	on := func(k kind, first batchlog.ID) change {
		return change{kind: k, seg: seg{first: first, last: first + 9, dir: "w"}}
	}
	apply(edit{on(kindFull, 1), begin(11)})
	apply(edit{on(kindFull, 11), begin(21)})
	apply(edit{on(kindSealed, 1)})
	apply(edit{{kind: kindDropped, seg: seg{last: 9}}})
	var segs []seg
	for s := range tab.segs.all() {
		segs = append(segs, *s)
	}
	for name, bad := range map[string]change{
		"begin while one is active":      begin(31),
		"begin behind a hole":            begin(32),
		"begin with commit 0":            begin(0),
		"full that is none":              on(kindFull, 22),
		"full twice":                     on(kindFull, 11),
		"full without a commit":          {kind: kindFull, seg: seg{first: 21, last: 20}},
		"sealed twice":                   on(kindSealed, 1),
		"sealed while active":            on(kindSealed, 21),
		"moving what is not sealed":      on(kindMoving, 11),
		"moving to nowhere":              {kind: kindMoving, seg: seg{first: 1}},
		"moved without moving":           on(kindMoved, 1),
		"unmoved without moving":         on(kindUnmoved, 1),
		"whole behind an active one":     {kind: kindWhole, seg: seg{first: 21, last: 30, state: full}},
		"whole with commit 0":            {kind: kindWhole, seg: seg{}},
		"whole in no state":              {kind: kindWhole, seg: seg{first: 21, last: 30, state: stateCount}},
		"a file in limbo with no number": {kind: kindGone, low: tab.number, name: "x"},
	} {
		if next, err := tab.apply(edit{{kind: kindDropped, seg: seg{last: 10}}, bad}); err == nil {
			t.Errorf("%s: %+v", name, next)
		}
		var now []seg
		for s := range tab.segs.all() {
			now = append(now, *s)
		}
		if !reflect.DeepEqual(now, segs) || tab.limbo.len() != 0 {
			t.Fatalf("%s: the table has changed: %+v, limbo %d", name, now, tab.limbo.len())
		}
	}
}

// Names of segments sort as their ids do, and say both that and the tag.
func TestSegmentNames(t *testing.T) {
	for _, id := range []batchlog.ID{0, 1, 1<<64 - 1} {
		name := segmentName(id, segTag{0xab, 0xcd, 1, 2})
		first, tag, ok := parseSegmentName(name)
		if !ok || first != id || tag != (segTag{0xab, 0xcd, 1, 2}) || !strings.HasSuffix(name, "-abcd0102.seg") {
			t.Errorf("%s is %d, %x, %t", name, first, tag, ok)
		}
	}
	for _, name := range []string{"manifest", "x.seg", "1.seg", "1-ab.seg", "1-abcd0102.segx", preparedPrefix + "00000001"} {
		if id, _, ok := parseSegmentName(name); ok {
			t.Errorf("%s is %d", name, id)
		}
	}
	if a, b := segmentName(9, segTag{9}), segmentName(10, segTag{1}); a >= b {
		t.Errorf("%s sorts behind %s", a, b)
	}
	for name, want := range map[string]uint32{"table-000007": 7, "table-4294967295": 1<<32 - 1} {
		if n, ok := tableNumber(name); !ok || n != want {
			t.Errorf("%s is %d, %t", name, n, ok)
		}
	}
	for _, name := range []string{"table-7", "table-", "table-0000007", "table-000007.tmp", "manifest", "table-99999999999"} {
		if n, ok := tableNumber(name); ok {
			t.Errorf("%s is %d", name, n)
		}
	}
}
