package simtest

import (
	"flag"
	"iter"
	"log/slog"
	"math/rand/v2"
	"testing"
)

var (
	flagSeeds = flag.Int("simtest.seeds", 0, "random programs to run; 0: a few")
	flagSeed  = flag.Uint64("simtest.seed", 0, "the first seed; without simtest.seeds the only one")
	flagSteps = flag.Int("simtest.steps", 0, "steps of each program; 0: some hundred")
	flagAll   = flag.Bool("simtest.all", false, "every byte and every operation where a sweep goes by steps")
	flagLog   = flag.Bool("simtest.log", false, "show what databases log")
)

// testLogger is a logger that writes to t if flags say so.
func testLogger(t testing.TB) *slog.Logger {
	t.Helper()
	if !*flagLog {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// newRand is a source of randomness.
func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5eed)) }

// seeds are those of a test: as flags say, or so many from 1 on.
func seeds(many, short int) iter.Seq[uint64] {
	n, first := many, uint64(1)
	if testing.Short() {
		n = short
	}
	if *flagSeed != 0 {
		n, first = 1, *flagSeed
	}
	if *flagSeeds != 0 {
		n = *flagSeeds
	}
	return func(yield func(uint64) bool) {
		for seed := first; seed < first+uint64(n) && yield(seed); seed++ {
			continue
		}
	}
}
