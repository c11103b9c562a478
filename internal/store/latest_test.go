package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestLatest compares what is remembered with a map: it may know less, but never anything else.
func TestLatest(t *testing.T) {
	for _, size := range []int{200, 1000, 4000} {
		rng := rand.New(rand.NewPCG(1, uint64(size)))
		var l latest
		model := map[string][]byte{}
		known := 0
		for range 50_000 {
			key := fmt.Appendf(nil, "%0*d", 1+rng.IntN(3), rng.IntN(20))
			switch rng.IntN(10) {
			case 0:
				l.put(key, nil, size)
				model[string(key)] = nil
			case 1, 2, 3:
				value := bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(3)*rng.IntN(40))
				if rng.IntN(2) == 0 { // one that looks like an entry of some key
					value = append(value[:min(len(value), rng.IntN(30))], 2, 0, 0, 0, 1, 0, 0, 0)
					value = fmt.Appendf(value, "%02dX", rng.IntN(20))
				}
				l.put(key, value, size)
				model[string(key)] = value
			case 4:
				if rng.IntN(500) == 0 {
					l.reset()
				}
			default:
				got, ok := l.get(key)
				if !ok {
					continue
				}
				known++
				if want, there := model[string(key)]; !there || !same(got, want) {
					t.Fatalf("size %d: %s is %q, want %q, %t", size, key, got, want, there)
				}
			}
			if len(l.at) > size {
				t.Fatalf("size %d: %d places", size, len(l.at))
			}
		}
		if known < 1000 {
			t.Errorf("size %d: known only %d times", size, known)
		}
	}
}
