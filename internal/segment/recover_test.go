package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
)

// Every ending has exactly one row, and no row is about anything else.
func TestJudge(t *testing.T) {
	rows := map[Ending]int{}
	for _, row := range endings {
		rows[Ending{row.next, row.claimed}]++
		if row.why == "" || row.verdict > VerdictDamage {
			t.Errorf("row %+v", row)
		}
	}
	for next := range nextCount {
		for _, claimed := range []bool{false, true} {
			e := Ending{next, claimed}
			if rows[e] != 1 {
				t.Errorf("%d rows for %+v", rows[e], e)
			}
			verdict, why := Judge(e)
			if (verdict == VerdictDamage) != claimed || why == "" {
				t.Errorf("%+v: verdict %d, %q", e, verdict, why)
			}
		}
	}
	if len(rows) != 2*int(nextCount) {
		t.Errorf("%d rows", len(rows))
	}
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(r.(string), "batchlog: bug: ") {
			t.Errorf("an ending without a row: panic %v", r)
		}
	}()
	Judge(Ending{Next: nextCount})
}

// preallocated is what a log's file is beyond its groups, in bytes.
const preallocated = 200 << 10

// active is the file of m while it is written.
func active(m *maker) []byte { return append(bytes.Clone(m.b), make([]byte, preallocated)...) }

func recoverFile(m *maker, b []byte, durable int64) (Tail, error) {
	return Recover(bytes.NewReader(b), m.h, "x.seg", int64(len(b)), durable)
}

// wantTail fails t unless tail is the end of the first n groups of m.
func wantTail(t *testing.T, tail Tail, m *maker, n int) {
	t.Helper()
	want := Tail{End: HeaderSize, Chain: m.h.Chain(), Next: m.h.First}
	if n > 0 {
		g := m.groups[n-1]
		want = Tail{End: g.End(), Chain: g.Sum, Next: g.First + batchlog.ID(g.Count), Time: m.first[n-1].Time, Last: g}
	}
	if tail.End != want.End || tail.Chain != want.Chain || tail.Next != want.Next || tail.Time != want.Time || tail.Last != want.Last {
		t.Fatalf("tail %+v, want %+v", tail, want)
	}
	next := 0 // group that must be the next mark
	for i, mark := range tail.Marks {
		for m.groups[next].Offset < mark.Offset {
			next++
		}
		if g := m.groups[next]; mark.Offset != g.Offset || mark.First != g.First || mark.Time != m.first[next].Time {
			t.Fatalf("mark %+v, its group %+v", mark, g)
		}
		if i > 0 && mark.Offset-tail.Marks[i-1].Offset < MarkBytes {
			t.Fatalf("mark %d is %d bytes behind the one before", i, mark.Offset-tail.Marks[i-1].Offset)
		}
	}
	if (len(tail.Marks) == 0) != (n == 0) || len(tail.Marks) > 0 && tail.Marks[0].Offset != HeaderSize {
		t.Fatalf("%d marks", len(tail.Marks))
	}
}

// Recover finds what Build finds.
func TestRecoverWhole(t *testing.T) {
	for _, m := range []*maker{newMaker(testHeader), random(30, 1), random(31, 40), blocky(32), large()} {
		for _, b := range [][]byte{m.b, active(m)} {
			tail, err := recoverFile(m, b, m.end())
			if err != nil {
				t.Fatal(err)
			}
			wantTail(t, tail, m, len(m.groups))
			if verdict, _ := Judge(tail.Ending); verdict != VerdictEnd {
				t.Errorf("ending %+v", tail.Ending)
			}
			if x := build(t, m, [32]byte{}); tail.End != x.End || tail.Next != x.Last+1 {
				t.Fatalf("tail %+v, Build found %+v", tail, x)
			}
		}
	}
}

// The table: each row with files that end so, and without and with each of the things that may say more was durable.
func TestRecoverEndings(t *testing.T) {
	fresh := func() *maker { return random(33, 4) }
	rows := []struct {
		name string
		next Next
		// change makes b, a file with four good groups and zeros, end so behind the third; at is where the fourth begins.
		change func(m *maker, b []byte, at int64)
	}{
		{"zeros", NextNothing, func(m *maker, b []byte, at int64) { clear(b[at:]) }},
		{"zeros where the header was, its records there", NextNothing, func(m *maker, b []byte, at int64) { clear(b[at : at+GroupHead]) }},
		{"half a header", NextGarbage, func(m *maker, b []byte, at int64) { clear(b[at+20:]) }},
		{"a header with its magic gone", NextGarbage, func(m *maker, b []byte, at int64) { b[at] ^= 1 }},
		{"a header with another size", NextGarbage, func(m *maker, b []byte, at int64) { b[at+groupSize]++ }},
		{"noise", NextGarbage, func(m *maker, b []byte, at int64) {
			r := rand.New(rand.NewPCG(1, 2))
			for i := at; i < int64(len(b)); i++ {
				b[i] = byte(r.Uint32())
			}
		}},
		{"records torn", NextTorn, func(m *maker, b []byte, at int64) { clear(b[at+GroupHead+3:]) }},
		{"records with a flipped bit", NextTorn, func(m *maker, b []byte, at int64) { b[m.groups[3].End()-1] ^= 4 }},
		{"a group of another chain", NextStray, func(m *maker, b []byte, at int64) {
			clear(b[at:])
			m.chain, m.next = 12345, m.groups[3].First
			_, g := m.group(HeaderSize, sized(50))
			copy(b[at:], g)
		}},
		{"a group with other ids", NextStray, func(m *maker, b []byte, at int64) {
			clear(b[at:])
			m.chain, m.next = m.groups[2].Sum, m.groups[3].First+1
			_, g := m.group(HeaderSize, sized(50))
			copy(b[at:], g)
		}},
	}
	seen := map[Ending]bool{}
	for _, row := range rows {
		for _, claim := range []string{"", "of the manifest", "of a later group"} {
			m := fresh()
			b := active(m)
			at := m.groups[3].Offset
			row.change(m, b, at)
			durable := int64(0)
			switch claim {
			case "of the manifest":
				durable = fresh().end()
			case "of a later group":
				later := fresh()
				_, g := later.group(later.end(), sized(50)) // a fifth group: it was written when the fourth was durable
				copy(b[Align(later.end())+1<<10:], g)
			}
			claimed := claim != ""
			seen[Ending{row.next, claimed}] = true
			tail, err := recoverFile(m, b, durable)
			if claimed {
				_, why := Judge(Ending{row.next, true})
				if d := damage(t, err); d.Offset != at || d.ID != m.groups[3].First || d.Err.Error() != why {
					t.Errorf("%s, claim %s: %+v", row.name, claim, d)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
				continue
			}
			wantTail(t, tail, m, 3)
			if tail.Ending != (Ending{row.next, false}) {
				t.Errorf("%s: ending %+v", row.name, tail.Ending)
			}
		}
	}
	if len(seen) != 2*int(nextCount) {
		t.Errorf("%d of %d endings tried", len(seen), 2*nextCount)
	}
}

// A claim that goes no further than what is there is no claim.
func TestRecoverClaims(t *testing.T) {
	m := random(34, 3)
	b := active(m)
	if _, err := recoverFile(m, b, m.end()); err != nil {
		t.Error(err)
	}
	if _, err := recoverFile(m, b, m.end()+1); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Error(err)
	}
	_, g := m.group(m.end(), sized(50))
	at := Align(m.end()) + 4096
	copy(b[at:], g)
	if _, err := recoverFile(m, b, 0); err != nil {
		t.Errorf("a group far behind that claims what is there: %v", err)
	}
	// It is found wherever it stands, also across the pieces in which the file is searched.
	for _, at := range []int64{m.end() + 1<<20 - 16, m.end() + 1<<20, m.end() + 1<<20 + 8} {
		b := append(active(m), make([]byte, 2<<20)...)
		_, g := m.group(m.end()+8, sized(50))
		copy(b[Align(at):], g)
		if _, err := recoverFile(m, b, 0); !errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("a claim %d bytes behind the end: %v", at-m.end(), err)
		}
	}
	// A group of another file, as blocks of a disk may hold, claims nothing.
	other := m.h
	other.Segment[3]++
	stranger := random(34, 3)
	stranger.h = other
	_, g = stranger.group(stranger.end()+1000, sized(50))
	clear(b[m.end():])
	copy(b[Align(m.end())+64:], g)
	if _, err := recoverFile(m, b, 0); err != nil {
		t.Errorf("a claim of another file: %v", err)
	}
}

// A crash tears a group, the next run writes a shorter one in its place, so that what the torn one was followed by
// lies exactly where the next group will be looked for. It is not taken.
func TestRecoverStaleChain(t *testing.T) {
	run1 := random(35, 2)
	// Written and never acknowledged: a long group whose body is torn, and inside of its length, by chance,
	// a whole group of that run that would fit the ids.
	short := newMaker(testHeader)
	short.b, short.chain, short.next, short.groups = bytes.Clone(run1.b), run1.chain, run1.next, run1.groups
	short.time, short.first = run1.time, run1.first
	short.add(sized(24))
	b := active(run1)
	at := Align(run1.end())
	_, torn := run1.group(run1.end(), sized(4000))
	copy(b[at:], torn)
	stale := newMaker(testHeader)
	stale.chain, stale.next = 0xdeadbeef, short.next // a group of run 1, behind another one
	_, g := stale.group(HeaderSize, sized(100))
	copy(b[Align(short.end()):], g)

	tail, err := recoverFile(run1, b, run1.end())
	if err != nil {
		t.Fatal(err)
	}
	wantTail(t, tail, run1, 2)
	if tail.Ending.Next != NextTorn {
		t.Fatalf("ending %+v", tail.Ending)
	}
	copy(b[at:], short.b[at:]) // run 2
	tail, err = recoverFile(short, b, short.end())
	if err != nil {
		t.Fatal(err)
	}
	wantTail(t, tail, short, 3)
	if tail.Ending != (Ending{NextStray, false}) {
		t.Fatalf("ending %+v", tail.Ending)
	}
}

// A group that was under way when the power went may have come to the disk in any of its sectors: it is there whole, or
// not at all, and nothing before it is harmed.
func TestRecoverTornSectors(t *testing.T) {
	const sector = 512
	m := newMaker(testHeader)
	m.add(sized(700))
	m.add(sized(10), sized(2000), put(path("b"), "k", strings.Repeat("v", 1000)))
	last := m.groups[1]
	first, behind := last.Offset/sector, (last.End()+sector-1)/sector
	for mask := range 1 << (behind - first) {
		b := active(m)
		for s := first; s < behind; s++ {
			if mask>>(s-first)&1 == 0 {
				from, to := max(s*sector, last.Offset), min((s+1)*sector, last.End())
				clear(b[from:to])
			}
		}
		tail, err := recoverFile(m, b, m.groups[0].End())
		if err != nil {
			t.Fatalf("sectors %b: %v", mask, err)
		}
		if bytes.Equal(b, active(m)) {
			wantTail(t, tail, m, 2)
		} else {
			wantTail(t, tail, m, 1)
		}
	}
}

// Every change of one byte before the last group is damage where it is. In the last group it is so if that is known to have
// been durable, else it is taken for a torn tail.
func TestRecoverFlips(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(30))
	m.add(sized(5), put(path("b"), "key", "value"))
	m.add(sized(1))
	b := append(bytes.Clone(m.b), make([]byte, 256)...)
	for i := HeaderSize; i < len(m.b); i++ {
		in := -1
		for n, g := range m.groups {
			if int64(i) >= g.Offset && int64(i) < g.End() {
				in = n
			}
		}
		b[i] ^= 1 << (i % 8)
		tail, err := recoverFile(m, b, 0)
		_, errDurable := recoverFile(m, b, m.end())
		b[i] ^= 1 << (i % 8)
		switch in {
		case -1:
			if err != nil || errDurable != nil {
				t.Fatalf("byte %d, between groups: %v, %v", i, err, errDurable)
			}
			wantTail(t, tail, m, 3)
			continue
		case 2:
			if err != nil {
				t.Fatalf("byte %d of the last group: %v", i, err)
			}
			wantTail(t, tail, m, 2)
		default:
			if d := damage(t, err); d.Offset != m.groups[in].Offset || d.ID != m.groups[in].First {
				t.Fatalf("byte %d of group %d: %+v", i, in, d)
			}
		}
		if d := damage(t, errDurable); d.Offset != m.groups[in].Offset {
			t.Fatalf("byte %d of group %d: %+v", i, in, d)
		}
	}
}

// The sums hold, so somebody meant these bytes: no torn tail, whatever is wrong with them.
func TestRecoverMeant(t *testing.T) {
	older := random(36, 2)
	older.time = 0
	older.add(sized(1))
	miscounted := random(37, 2)
	miscounted.add(sized(1))
	g := miscounted.groups[2]
	g.Count = 7
	g.Sum = putGroup(miscounted.b[g.Offset:g.End()], g, miscounted.h.Salt())
	for name, m := range map[string]*maker{"older commit": older, "other count": miscounted} {
		_, err := recoverFile(m, active(m), 0)
		if d := damage(t, err); d.Offset != m.groups[2].Offset || d.ID != m.groups[2].First {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// A disk that can't be read is neither damage nor the end of the log.
func TestRecoverReadError(t *testing.T) {
	m := random(38, 8)
	b := active(m)
	for _, from := range []int64{HeaderSize, m.groups[4].Offset, m.groups[4].Offset + GroupHead, m.end(), m.end() + 100, int64(len(b)) - 1} {
		_, err := Recover(&failingReader{bytes.NewReader(b), from, errDisk}, m.h, "x.seg", int64(len(b)), 0)
		if !errors.Is(err, errDisk) || errors.Is(err, batchlog.ErrCorrupt) || !strings.Contains(err.Error(), "x.seg") {
			t.Errorf("disk fails at %d: %v", from, err)
		}
	}
}

// A header whose sums hold and whose records would go beyond the file is a torn tail: the file was larger.
func TestRecoverShortFile(t *testing.T) {
	m := random(39, 4)
	for n := int(m.groups[2].End()); n < len(m.b); n += 1 + n%97 {
		tail, err := recoverFile(m, m.b[:n], 0)
		if err != nil {
			t.Fatalf("file of %d bytes: %v", n, err)
		}
		wantTail(t, tail, m, 3)
		if _, err := recoverFile(m, m.b[:n], m.end()); !errors.Is(err, batchlog.ErrCorrupt) {
			t.Fatalf("file of %d bytes that was longer: %v", n, err)
		}
	}
}
