package segment

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
)

// large is a segment with groups below and above what a scanner reads at once.
func large() *maker {
	m := newMaker(testHeader)
	for _, n := range []int{10, readFirst - GroupHead, readFirst, 100, readAhead + 1000, 1, 3 * readAhead, 5000} {
		m.add(sized(n), sized(n/3))
	}
	return m
}

func TestScannerLargeGroups(t *testing.T) {
	m := large()
	all, err := readAll(t, m.scanner(m.b))
	if err != nil {
		t.Fatal(err)
	}
	wantRecords(t, all, m.all)

	// Into the same memory, again and again: each group is what it is when it is handed out.
	s, next := m.scanner(m.b), 0
	s.Reuse = true
	if err := eachGroup(s, func(g Group, records []byte) {
		if want := m.groups[next]; g != want || !bytes.Equal(records, m.b[want.Offset+GroupHead:want.End()]) {
			t.Errorf("group %+v, want %+v", g, want)
		}
		next++
	}); err != nil || next != len(m.groups) {
		t.Errorf("%d groups, %v", next, err)
	}
}

// What was handed out stays as it is when the scanner goes on.
func TestScannerKeeps(t *testing.T) {
	m := random(20, 200)
	s := m.scanner(m.b)
	var kept, copies [][]byte
	if err := eachGroup(s, func(_ Group, records []byte) {
		if cap(records) != len(records) {
			t.Error("an append to the records could reach the next group")
		}
		kept, copies = append(kept, records), append(copies, bytes.Clone(records))
	}); err != nil {
		t.Fatal(err)
	}
	for i := range kept {
		if !bytes.Equal(kept[i], copies[i]) {
			t.Fatalf("group %d has changed", i)
		}
	}
	if _, _, err := s.Group(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v", err)
	}
}

// From any group one can go to any other.
func TestScannerSkipTo(t *testing.T) {
	m := large()
	r := rand.New(rand.NewPCG(21, 21))
	s := m.scanner(m.b)
	for range 300 {
		i := r.IntN(len(m.groups))
		s.SkipTo(m.groups[i].Offset, m.groups[i].First)
		for ; i < len(m.groups) && r.IntN(3) > 0; i++ {
			g, _, err := s.Group()
			if err != nil || g != m.groups[i] {
				t.Fatalf("group %d: %+v, %v", i, g, err)
			}
		}
	}
	s.SkipTo(s.End, 0)
	if _, _, err := s.Group(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	s.SkipTo(m.groups[1].Offset, 99)
	_, _, err := s.Group()
	if d := damage(t, err); !errors.Is(err, errGroupID) || d.ID != 99 {
		t.Errorf("another commit: %v", err)
	}
	s.SkipTo(m.groups[1].Offset, 0)
	if g, _, err := s.Group(); err != nil || g != m.groups[1] || s.ID != g.First+2 {
		t.Errorf("id not known: %+v, %v", g, err)
	}
	if _, _, err := s.Group(); err != nil || !s.Chained {
		t.Errorf("the chain is taken up again: %v", err)
	}
}

// A file that lost its end is read up to the group where it ends, and says which that is. What a read ahead could
// not have does not take away what it has.
func TestScannerTruncated(t *testing.T) {
	m := random(22, 12)
	for n := HeaderSize; n < len(m.b); n += 1 + n%23 {
		all, err := readAll(t, m.scanner(m.b[:n]))
		whole := 0
		for whole < len(m.groups) && m.groups[whole].End() <= int64(n) {
			whole++
		}
		if d := damage(t, err); d.Offset != m.groups[whole].Offset || !errors.Is(err, errGroupEnd) && !errors.Is(err, errGroupNone) {
			t.Fatalf("file of %d bytes: %v, want damage at %d", n, err, m.groups[whole].Offset)
		}
		wantRecords(t, all, m.all[:m.groups[whole].First-1])
	}
}

// A disk that can't be read at some place is no damage, and what is before that place is read.
func TestScannerReadError(t *testing.T) {
	m := random(23, 12)
	for from := int64(HeaderSize); from < m.end(); from += 1 + from%41 {
		s := m.scanner(m.b)
		s.File = &failingReader{s.File, from, errDisk}
		all, err := readAll(t, s)
		whole := 0
		for m.groups[whole].End() <= from {
			whole++
		}
		if !errors.Is(err, errDisk) || errors.Is(err, batchlog.ErrCorrupt) {
			t.Fatalf("disk fails at %d: %v", from, err)
		}
		wantRecords(t, all, m.all[:m.groups[whole].First-1])
		// The disk is well again: the scanner goes on where it stopped.
		s.File = bytes.NewReader(m.b)
		rest, err := readAll(t, s)
		if err != nil {
			t.Fatal(err)
		}
		wantRecords(t, append(all, rest...), m.all)
	}
}
