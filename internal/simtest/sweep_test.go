package simtest

import (
	"fmt"
	"syscall"
	"testing"
)

// sweepMix is a short program that rolls, seals, flushes and trims.
func sweepMix() mix {
	return mix{steps: 80, segmentBytes: 16 << 10, memTableBytes: 64 << 10, values: 4000, spaceStrict: true}
}

// next is the operation after n that a sweep tries: each at the beginning, where a database is made and opened, then, unless flags
// ask for all, some.
func next(n, stride int) int {
	switch {
	case *flagAll, !testing.Short() && n < 60:
		return n + 1
	default:
		return n + stride
	}
}

// TestFaultSweep has a program's first operation on the disk fail, then its second, and so on until it comes to its end before the
// fault does. Whatever fails, nothing that was acknowledged is lost and nothing wrong is read.
func TestFaultSweep(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		kinds map[string]bool // nil: all
		only  int             // this many failures
	}{
		"EIO":     {errFault, nil, 1},
		"EIOSync": {errFault, map[string]bool{"sync": true, "dirsync": true}, 1},
		"ENOSPC":  {syscall.ENOSPC, needsSpaceKinds(), 1},
		"EIOStay": {errFault, map[string]bool{"write": true, "sync": true, "dirsync": true, "create": true, "rename": true, "remove": true}, 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			stride := 41
			if testing.Short() {
				stride = 211
			}
			if c.kinds != nil {
				stride = 1 + stride/4
			}
			for n := 1; ; n = next(n, stride) {
				done := false
				t.Run(fmt.Sprint("op ", n), func(t *testing.T) {
					r := newRun(t, uint64(1000+n%3), sweepMix())
					r.sweeping = true
					seen, left := 0, c.only
					r.disk.failing(func(op diskOp) error {
						if c.kinds != nil && !c.kinds[op.kind] || op.kind == "stat" || op.kind == "lock" {
							return nil
						}
						if seen++; seen < n || left == 0 {
							return nil
						}
						left--
						return c.err
					})
					r.program()
					done = left == c.only
				})
				if done || t.Failed() {
					t.Logf("%d operations", n)
					return
				}
			}
		})
	}
}

func needsSpaceKinds() map[string]bool {
	kinds := map[string]bool{}
	for kind, needs := range needsSpace {
		if needs {
			kinds[kind] = true
		}
	}
	return kinds
}

// TestCrashSweep has the power fail before a program's first change on the disk, then before its second, and so on. What is
// there afterwards was acknowledged or under way, and whole.
func TestCrashSweep(t *testing.T) {
	stride := 5
	if testing.Short() {
		stride = 37
	}
	for n := 1; ; n = next(n, stride) {
		done := false
		t.Run(fmt.Sprint("change ", n), func(t *testing.T) {
			r := newRun(t, uint64(2000+n%3), sweepMix())
			r.sweeping = true
			r.disk.crashIn(n, []int{0, 50, 100}[n%3], n%2 == 0)
			r.program()
			done = r.met["power lost"] == 0
		})
		if done || t.Failed() {
			t.Logf("%d changes", n)
			return
		}
	}
}
