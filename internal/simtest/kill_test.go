package simtest

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var flagKills = flag.Int("simtest.kills", 6, "processes to kill while they write")

// A process that is killed at any moment takes nothing with it that was acknowledged, and leaves no half of a write behind.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	var h ledger
	for round := range *flagKills {
		p := startWriter(t, orders{Dir: dir, Round: round, Workers: 16, Errors: 1})
		p.awaitFirst(t)
		time.Sleep(10*time.Millisecond + rand.N(290*time.Millisecond))
		p.kill()
		if len(p.errs) > 0 {
			t.Errorf("round %d: writes failed before the kill: %.200q", round, p.errs)
		}
		h.add(t, p)
		h.check(t, dir, round == *flagKills-1)
		if t.Failed() {
			t.Fatalf("that was round %d", round)
		}
	}
	t.Logf("%d kills, %d commits, %d acknowledged", *flagKills, len(h.log), len(h.acked))
}
