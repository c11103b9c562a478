package simtest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	flagSkip       = flag.String("simtest.skip", "", "steps of a program with everything on to leave out, such as 3-7,12")
	flagShrink     = flag.Bool("simtest.shrink", false, "leave out of a program with everything on that fails the steps that the failure does not need")
	flagTrace      = flag.Bool("simtest.trace", false, "show what each step of a program with everything on comes to")
	flagEverything = flag.Bool("simtest.everything", false, "also what is excluded because it is known to fail")
)

// An exclusion is something that programs leave out, or do not assert, because it is known to fail.
type exclusion struct {
	what, why string
}

// off says whether something is excluded.
func off(what string) bool {
	return !*flagEverything && slices.ContainsFunc(exclusions, func(e exclusion) bool { return e.what == what })
}

// skips are steps to leave out.
type skips [][2]int

func parseSkips(t *testing.T, text string) (list skips) {
	t.Helper()
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		first, err1 := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil {
			t.Fatalf("-simtest.skip %s: %q is no range of steps", text, part)
		}
		list = append(list, [2]int{first, last})
	}
	return list
}

func (s skips) has(n int) bool {
	return slices.ContainsFunc(s, func(r [2]int) bool { return r[0] <= n && n <= r[1] })
}

// text is all steps but those, as a flag.
func skipText(keep []bool) string {
	var parts []string
	for n := 1; n < len(keep); n++ {
		if keep[n] {
			continue
		}
		first := n
		for n+1 < len(keep) && !keep[n+1] {
			n++
		}
		parts = append(parts, fmt.Sprintf("%d-%d", first, n))
	}
	return strings.Join(parts, ",")
}

// shrinkAfter has a program that fails be run again and again, with fewer and fewer steps, each time in a process of its own.
func shrinkAfter(t *testing.T, seed uint64) {
	t.Helper()
	if !*flagShrink || *flagSkip != "" {
		return
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		began := time.Now()
		keep := make([]bool, togetherSteps+1)
		for n := range keep {
			keep[n] = true
		}
		out, fails := failsWith(seed, keep)
		if !fails {
			t.Logf("seed %d does not fail every time", seed)
			return
		}
		for size := togetherSteps / 2; size > 0 && time.Since(began) < 5*time.Minute; size /= 2 {
			for first := 1; first < len(keep); first += size {
				less := slices.Clone(keep)
				for n := first; n < min(first+size, len(less)); n++ {
					less[n] = false
				}
				if slices.Equal(less, keep) {
					continue
				}
				if text, fails := failsWith(seed, less); fails {
					keep, out = less, text
				}
			}
		}
		t.Logf("go test ./internal/simtest -run TestTogether/seed_%d$ -simtest.seed=%d -simtest.skip=%s\n%s", seed, seed, skipText(keep), out)
	})
}

// failsWith says whether the program fails with those steps only, and what it says.
func failsWith(seed uint64, keep []bool) (string, bool) {
	skip := skipText(keep)
	if skip == "" {
		skip = "0"
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestTogether$", fmt.Sprint("-simtest.seed=", seed), "-simtest.skip="+skip, "-test.timeout=3m", //nolint:gosec // this test
		fmt.Sprint("-simtest.everything=", *flagEverything))
	out, err := cmd.CombinedOutput()
	return string(out), err != nil
}
