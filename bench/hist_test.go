package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramBucketsMeet(t *testing.T) {
	last := -1
	for v := range time.Duration(1 << 16) {
		i := histIndex(v)
		if i != last && i != last+1 {
			t.Fatalf("%d ns is in bucket %d, the one before in %d", v, i, last)
		}
		last = i
		if m := histMiddle(i); float64(max(m-v, v-m)) > float64(v)/(2*histSub) {
			t.Fatalf("%d ns is told as %d", v, m)
		}
	}
	for _, v := range []time.Duration{1<<histMaxBits - 1, 1 << histMaxBits, 1<<63 - 1} {
		if i := histIndex(v); i != histBuckets-1 {
			t.Errorf("%d ns is in bucket %d of %d", v, i, histBuckets)
		}
	}
	if i := histIndex(-5); i != 0 {
		t.Errorf("-5 ns is in bucket %d", i)
	}
}

func TestHistogramPercentiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var parts [3]histogram
	var all []time.Duration
	for i := range 100_000 {
		d := time.Duration(r.ExpFloat64() * 300e3)
		parts[i%3].add(d)
		all = append(all, d)
	}
	var h histogram
	for i := range parts {
		h.merge(&parts[i])
	}
	slices.Sort(all)
	for _, share := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[int(share*float64(len(all)))-1]
		got := h.percentile(share)
		if off := float64(got-want) / float64(want); off < -0.017 || off > 0.017 {
			t.Errorf("%v: got %s, want %s", share, got, want)
		}
	}
	if got := new(histogram).percentile(0.5); got != 0 {
		t.Errorf("empty: got %s", got)
	}
	if n := testing.AllocsPerRun(100, func() { h.add(12345) }); n != 0 {
		t.Errorf("add allocates %v times", n)
	}
}
