package taskstate

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// What Paths finds is what looking at each finds.
func TestPaths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func() []byte {
		b := make([]byte, r.IntN(6))
		for i := range b {
			b[i] = byte(r.IntN(3))
		}
		return b
	}
	for range 500 {
		var p Paths[int]
		all := make([][]byte, r.IntN(30))
		for i := range all {
			all[i] = word()
			p.Add(all[i], i)
		}
		p.Build()
		for range 30 {
			key := word()
			var around, overlapping []int
			for i, open := range all {
				if bytes.HasPrefix(key, open) {
					around = append(around, i)
				}
				if Overlap(key, open) {
					overlapping = append(overlapping, i)
				}
			}
			if got := slices.Sorted(p.Around(key)); !slices.Equal(got, around) {
				t.Fatalf("%x around %x: %v, want %v", all, key, got, around)
			}
			if got := slices.Sorted(p.Overlapping(key)); !slices.Equal(got, overlapping) {
				t.Fatalf("%x overlapping %x: %v, want %v", all, key, got, overlapping)
			}
		}
	}
}
