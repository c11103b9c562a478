package seglog

import (
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
)

// The ring keeps the newest groups within its bound, at least one, and gives the one that holds a commit.
func TestRing(t *testing.T) {
	r := ring{next: 1, limit: 3000}
	if groups, ok := r.from(nil, 1, 1000); !ok || len(groups) != 0 {
		t.Errorf("an empty ring at its head: %d groups, %v", len(groups), ok)
	}
	next := batchlog.ID(1)
	rnd := rand.New(rand.NewPCG(11, 11))
	for range 300 {
		n := 1 + rnd.IntN(5)
		size := rnd.IntN(1000)
		if rnd.IntN(30) == 0 {
			size = 5000
		}
		r.publish(ringGroup{first: next, last: next + batchlog.ID(n) - 1, records: make([]byte, size), count: n})
		next += batchlog.ID(n)
		total := 0
		for _, g := range r.groups {
			total += len(g.records) + ringOverhead
		}
		if total != r.bytes || total > r.limit && len(r.groups) > 1 || len(r.groups) == 0 || r.next != next {
			t.Fatalf("%d groups of %d bytes, %d counted, next %d", len(r.groups), total, r.bytes, r.next)
		}
		first := r.groups[0].first
		for id := max(1, first-2); id < next+2; id++ {
			groups, ok := r.from(nil, id, 1)
			switch {
			case id < first:
				if ok || len(groups) != 0 {
					t.Fatalf("commit %d before %d: %d groups, %v", id, first, len(groups), ok)
				}
			case id >= next:
				if !ok || len(groups) != 0 {
					t.Fatalf("commit %d behind %d: %d groups, %v", id, next, len(groups), ok)
				}
			case !ok || len(groups) == 0 || groups[0].first > id || groups[0].last < id:
				t.Fatalf("commit %d: %+v, %v", id, groups, ok)
			}
		}
		if groups, _ := r.from(nil, first, 1<<30); len(groups) != len(r.groups) {
			t.Fatalf("%d of %d groups", len(groups), len(r.groups))
		}
	}
	(&ring{next: 5}).wait(t.Context(), 4, nil) // is there: no wait
	closed := make(chan struct{})
	close(closed)
	(&ring{next: 5}).wait(t.Context(), 5, closed)
}
