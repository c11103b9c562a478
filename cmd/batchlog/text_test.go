package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

func TestCounts(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		equal(t, "count", countText(n), want)
	}
	equal(t, "one", counted(1, "commit"), "1 commit")
	equal(t, "none", counted(0, "batch"), "0 batches")
	equal(t, "many", counted(int64(1204), "key"), "1,204 keys")
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.00 kB", 9999: "10.0 kB", 38_100_000: "38.1 MB", 999_499: "999 kB", 999_500: "1.00 MB", 2e12: "2.00 TB", 5e15: "5000 TB"} {
		equal(t, "bytes", bytesText(n), want)
	}
	for n, want := range map[int64]string{64 << 20: "64 MiB", 16 << 10: "16 KiB", 1 << 30: "1 GiB", 1000: "1.00 kB", 0: "0 B"} {
		equal(t, "limit", limitText(n), want)
	}
	for f, want := range map[float64]string{0: "0.00", 0.256: "0.26", 12.34: "12.3", 99.96: "100", 4812.4: "4,812"} {
		equal(t, "rate", rateText(f), want)
	}
	for d, want := range map[time.Duration]string{5: "5 ns", 1500: "1.50 µs", 12 * time.Millisecond: "12.0 ms", 1500 * time.Millisecond: "1.50 s", 200 * time.Second: "3m20s"} {
		equal(t, "duration", durationText(d), want)
	}
}

func TestClipped(t *testing.T) {
	for _, c := range []struct {
		s     string
		width int
		want  string
	}{{"abc", 3, "abc"}, {"abcdef", 5, "ab…ef"}, {"äöüßéè", 4, "ä…éè"}} {
		equal(t, "clipped", clipped(c.s, c.width, "…"), c.want)
	}
}

func TestWrapped(t *testing.T) {
	equal(t, "wrapped", wrapped("one two\nthree äöüß\n\n  as it  is, however long\n  and this\nlast one", 9), "one two\nthree\näöüß\n\n  as it  is, however long\n  and this\nlast one")
	equal(t, "long word", wrapped("a muchtoolong b", 4), "a\nmuchtoolong\nb")
	equal(t, "nothing", wrapped("", 4), "")
}

func TestBar(t *testing.T) {
	for _, rich := range []bool{false, true} {
		for i := range 101 {
			b := bar(float64(i)/100, 10, rich)
			if n := utf8.RuneCountInString(b); n != 10 {
				t.Fatalf("bar of %d%% has %d characters: %q", i, n, b)
			}
			if empty := strings.TrimSpace(b) == ""; empty != (i == 0) {
				t.Errorf("bar of %d%%: %q", i, b)
			}
		}
	}
	equal(t, "too much", bar(7, 3, false), "###")
	equal(t, "negative", bar(-1, 3, false), "   ")
}

func TestMeter(t *testing.T) {
	var out strings.Builder
	m := newMeter(&out, false, "import", "commits", 1000)
	now := m.start
	m.now = func() time.Time { return now }
	for i := range int64(11) {
		m.set(100*i, 1e6*i)
		now = now.Add(time.Second)
	}
	m.end()
	equal(t, "lines", out.String(), "import  500 of 1,000 commits  50%  100/s  1.00 MB/s  6s left\nimport  1,000 of 1,000 commits  100%  100/s  1.00 MB/s\n")
	out.Reset()
	m = newMeter(&out, true, "write", "B", 0)
	m.now = func() time.Time { return now }
	m.start, m.shown = now, now
	now = now.Add(time.Second)
	m.set(5e6, 5e6)
	m.end()
	m.end()
	equal(t, "terminal", out.String(), "\r\x1b[Kwrite  5.00 MB  5.00 MB/s\r\x1b[K")
	m = nil
	m.set(1, 1)
	m.end()
}

func TestGate(t *testing.T) {
	g := newGate(100)
	var mu sync.Mutex
	used, most := int64(0), int64(0)
	var wg sync.WaitGroup
	for i := range 500 {
		n := int64(i%60 + 1)
		if i%50 == 0 {
			n = 150 // larger than the gate: alone
		}
		if err := g.acquire(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		used += n
		if n < 150 {
			most = max(most, used)
		} else if used != n {
			t.Errorf("%d bytes beside one that is too large", used-n)
		}
		mu.Unlock()
		wg.Go(func() {
			time.Sleep(time.Microsecond)
			mu.Lock()
			used -= n
			mu.Unlock()
			g.release(n)
		})
	}
	wg.Wait()
	if most > 100 {
		t.Errorf("%d bytes at once", most)
	}
	if err := g.acquire(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBroken)
	if err := g.acquire(ctx, 1); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

func TestAligned(t *testing.T) {
	equal(t, "columns", aligned([][]string{{"A", "NUMBER"}, {"äöü", "1"}, {"x", "1,000", "more"}}, 1), "A    NUMBER\näöü       1\nx     1,000  more\n")
}
