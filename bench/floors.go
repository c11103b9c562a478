package main

import "fmt"

// Floors of chains, copies and blobs. Those with × are speeds to that of what is beside them in the same run, but chainBesideFloor, which is of times.
const (
	chainApplyFloor  = 0.5   // from Commit until visible, to Pebble with tables of pairs that it is handed sorted
	chainPeakFloor   = 400e6 // bytes, of the process
	chainBesideFloor = 10    // p99 of commits beside a chain, to that before
	copyFloor        = 0.5   // CopyRange, to the same chain filled by hand
	blobPutFloor     = 0.6   // to cp and sync
	blobReadFloor    = 0.8   // to cat
)

// Floors of undo: what it does with Undo on, to the same with it off.
const (
	undoAckedFloor   = 0.7
	undoAppliedFloor = 0.6
	undoP50Floor     = 1.15
	undoOneFloor     = 3     // p50 of the undo of a commit of one op, to that of an Update
	revertFloor      = 100e3 // keys a second, from the begin of the chain until a held read shows them
)

// A writeFloor is what is asked of durable writes: so many times what a peer does in the same round.
type writeFloor struct {
	peer    string
	ops     int  // in a batch
	writers int  // 0: every number of writers that was measured
	applied bool // of what is applied; else of what is acknowledged
	least   float64
}

func writeFloors() []writeFloor {
	return []writeFloor{
		{peer: "pebble", ops: 1, writers: 1, least: 1.3},
		{peer: "pebble", ops: 1, writers: 16, least: 1.3},
		{peer: "pebble", ops: 1, writers: 64, least: 1.3},
		{peer: "pebble", ops: 1, writers: 256, least: 1.2},
		{peer: "pebble", ops: 10, writers: 1, least: 1.2},
		{peer: "pebble", ops: 10, writers: 16, least: 1.2},
		{peer: "pebble", ops: 10, writers: 64, least: 1.2},
		{peer: "pebble", ops: 10, writers: 256, least: 1.1},
		{peer: "pebble", ops: 1, applied: true, least: 1},
		{peer: "pebble", ops: 10, applied: true, least: 1},
		// With one op: with ten, the bytes weigh more than the syncs.
		{peer: "badger", ops: 1, writers: 64, least: 10},
		{peer: "jetstream", ops: 1, writers: 64, least: 20},
	}
}

// evaluate returns a check for each floor and each combination that was measured with it.
func evaluate(floors []writeFloor, combos []combo) []check {
	var checks []check
	for _, f := range floors {
		for _, c := range combos {
			if c.Ops != f.ops || f.writers != 0 && c.Writers != f.writers {
				continue
			}
			r, ok := c.Ratios[f.peer]
			if !ok {
				continue
			}
			what, got := "acknowledged", r.Acked.Median
			if f.applied {
				what, got = "applied", r.Applied.Median
			}
			name := fmt.Sprintf("%s, %s, %s: %s", countOf(c.Ops, "op"), countOf(c.Writers, "writer"), what, f.peer)
			checks = append(checks, atLeast(name, got, f.least, "×"))
		}
	}
	return checks
}

// countOf is n with its noun: "1 op", "10 ops".
func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
