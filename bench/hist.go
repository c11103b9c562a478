package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations in buckets whose width grows with the duration: histSub of them for each power of two of
// nanoseconds, so that a percentile is off by at most 1/(2·histSub), 1.6 %. Adding allocates nothing. The zero
// histogram is empty; it is not safe for concurrent use.
type histogram struct {
	counts [histBuckets]uint64
	n      uint64
}

const (
	histSubBits = 5
	histSub     = 1 << histSubBits
	histMaxBits = 40 // durations of 2^40 ns, 18 minutes, and more share the last bucket
	histBuckets = histSub * (histMaxBits - histSubBits + 1)
)

// add counts d; a negative one counts as 0.
func (h *histogram) add(d time.Duration) {
	h.counts[histIndex(d)]++
	h.n++
}

// merge adds all that o has counted.
func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
}

// percentile is a duration that share of those counted do not exceed, 0 < share <= 1; 0 for an empty histogram.
func (h *histogram) percentile(share float64) time.Duration {
	rank := max(1, uint64(share*float64(h.n)+0.999999))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return histMiddle(i)
		}
	}
	return 0
}

// histIndex is the bucket of d. Below histSub each nanosecond has its own; above, the highest histSubBits+1 bits tell.
func histIndex(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < histSub {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - histSubBits
	return min(histBuckets-1, shift<<histSubBits+int(v>>shift))
}

// histMiddle is the duration in the middle of a bucket.
func histMiddle(i int) time.Duration {
	if i < 2*histSub {
		return time.Duration(i)
	}
	shift := i>>histSubBits - 1
	low := uint64(i-shift<<histSubBits) << shift
	return time.Duration(low + 1<<shift/2)
}
