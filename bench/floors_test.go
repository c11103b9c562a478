package main

import (
	"testing"
	"time"
)

func TestFloors(t *testing.T) {
	cells := func(acked, applied float64) []cell {
		return []cell{{Acked: acked, Applied: applied}, {Acked: 2 * acked, Applied: 2 * applied}, {Acked: acked, Applied: applied}}
	}
	one := combo{Ops: 1, Writers: 64, Cells: map[string][]cell{ours: cells(130, 95), "pebble": cells(100, 100), "jetstream": cells(6, 6)}}
	one.Ratios = ratios(one.Cells)
	ten := combo{Ops: 10, Writers: 256, Cells: map[string][]cell{ours: cells(109, 100), "pebble": cells(100, 100)}}
	ten.Ratios = ratios(ten.Cells)
	want := map[string]bool{
		"1 op, 64 writers, acknowledged: pebble":    true,
		"1 op, 64 writers, applied: pebble":         false,
		"1 op, 64 writers, acknowledged: jetstream": true,
		"10 ops, 256 writers, acknowledged: pebble": false,
		"10 ops, 256 writers, applied: pebble":      true,
	}
	got := evaluate(writeFloors(), []combo{one, ten})
	if len(got) != len(want) {
		t.Errorf("%d checks, want %d", len(got), len(want))
	}
	for _, c := range got {
		pass, known := want[c.What]
		if !known || pass != c.Pass {
			t.Errorf("%+v, want %v", c, pass)
		}
	}
}

// All floors are there, for the cells that a run without flags measures.
func TestFloorsAreComplete(t *testing.T) {
	var combos []combo
	for _, ops := range []int{1, 10} {
		for _, writers := range []int{1, 16, 64, 256} {
			r := ratio{Acked: spread{Median: 1}, Applied: spread{Median: 1}}
			combos = append(combos, combo{Ops: ops, Writers: writers, Ratios: map[string]ratio{"pebble": r, "badger": r, "jetstream": r}})
		}
	}
	checks := evaluate(writeFloors(), combos)
	if want := 8 + 8 + 1 + 1; len(checks) != want {
		t.Errorf("%d checks, want %d", len(checks), want)
	}
}

// Ratios are those of the same round, and their median: a disturbed round doesn't count.
func TestRatios(t *testing.T) {
	r := ratios(map[string][]cell{
		ours:     {{Acked: 200, Applied: 100}, {Acked: 20, Applied: 10}, {Acked: 300, Applied: 150}},
		"pebble": {{Acked: 100, Applied: 100}, {Acked: 10, Applied: 10}, {Acked: 300, Applied: 300}},
	})["pebble"]
	if r.Acked != (spread{Median: 2, Min: 1, Max: 2}) || r.Applied != (spread{Median: 1, Min: 0.5, Max: 1}) {
		t.Errorf("%+v", r)
	}
	if len(ratios(map[string][]cell{"pebble": {{Acked: 1}}})) != 0 {
		t.Error("ratio to nothing")
	}
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 1, 2}, spread{2, 1, 4}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
	} {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.values, got, tt.want)
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 1.3: "1.30", 6: "6", 12.34: "12.3", 89: "89", 450.6: "451", 4769: "4769", 33_812: "33.8k", 209_000: "209.0k",
		1_234_567: "1.23M", 14_437_000: "14.4M", -28.54: "-28.5",
	} {
		if got := figure(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	if got := micros(1500 * time.Nanosecond); got != 1.5 {
		t.Errorf("micros: %v", got)
	}
}
