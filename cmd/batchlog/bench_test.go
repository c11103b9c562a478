package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBench(t *testing.T) {
	c := newCLI(t)
	var r benchResult
	if err := json.Unmarshal([]byte(c.must("bench", "--duration", "20ms", "--writers", "1,4", "--ops", "2", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Writes) != 2 || r.CatchUp <= 0 || r.Filtered <= 0 {
		t.Errorf("%+v", r)
	}
	for _, w := range r.Writes {
		if w.Ops != 2 || w.Acknowledged <= 0 || w.Applied <= 0 || w.Applied > w.Acknowledged || w.Latency.P50 > w.Latency.Max {
			t.Errorf("%+v", w)
		}
	}
	for _, l := range []latency{r.Get, r.GetOwn} {
		if l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
			t.Errorf("%+v", l)
		}
	}
	if text := r.text(); !strings.Contains(text, "WRITERS") || !strings.Contains(text, "catch up: ") {
		t.Error(text)
	}
	left, err := os.ReadDir(filepath.Dir(c.db))
	if err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
	c.fails(exitUsage, []string{"from 1 to 10000"}, "bench", "--writers", "0")
	c.fails(exitUsage, []string{"more than nothing"}, "bench", "--duration", "0s")
}

func TestSpread(t *testing.T) {
	var times []time.Duration
	for i := range 101 {
		times = append(times, time.Duration(100-i)*time.Microsecond)
	}
	equal(t, "spread", spread(times), latency{P50: 50, P99: 99, Max: 100})
	equal(t, "spread of none", spread(nil), latency{})
}
