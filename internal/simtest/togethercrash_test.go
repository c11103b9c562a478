package simtest

import (
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
)

// The steps of programs with everything on that end in a crash at a place where few crashes would be by chance.

// stepChainLife commits a chain that is large for the memtable that there is, ends the process before the store is flushed, and opens with a memtable for
// which the chain is small: it is applied again in another way than before, and what it has overwritten must be what it was.
func (g *together) stepChainLife() {
	g.t.Helper()
	if !g.ready() {
		return
	}
	c := g.config
	c.Undo = true
	g.configure(c)
	g.memTable = 64 << 10
	g.letGo()
	g.reopen("a small memtable")
	if g.hurt() || g.readOnly() || g.disk.isFull() {
		return
	}
	g.disk.clear()
	g.stepChainOf(func(o *openChain) {
		for range 300 + g.rng.IntN(300) {
			op := g.randomOp()
			g.add(o.chain, op)
			o.commit.chain = append(o.commit.chain, chainStep{op: op})
		}
	})
	synctest.Wait()
	if g.hurt() {
		return
	}
	g.met["chain lives"]++
	g.memTable = []int64{1 << 20, 64 << 20}[g.rng.IntN(2)]
	if g.rng.IntN(2) == 0 {
		g.stepKill()
	} else {
		g.disk.crash(g.rng.IntN(101))
	}
}

// stepCrashTrim has a crash come while segments go warm, or are dropped.
func (g *together) stepCrashTrim() {
	g.t.Helper()
	if !g.ready() {
		return
	}
	c := g.config
	c.HotTTL, c.SegmentBytes, c.Warm, c.WarmTTL = time.Minute, batchlog.MinSegmentBytes, nil, 0
	if g.rng.IntN(3) > 0 {
		c.Warm = [][]string{{"/warm"}, {"/warm", "/warmer"}}[g.rng.IntN(2)]
	}
	g.configure(c)
	for range 4 {
		g.stepLarge()
	}
	g.work(true)
	g.stepFlush()
	synctest.Wait()
	if g.hurt() || g.config.HotTTL != c.HotTTL {
		return
	}
	counted := g.disk.counted
	g.disk.countOnly(nil) // one goroutine does all that follows
	time.Sleep(50 * time.Second)
	n := 1 + g.rng.IntN(40)
	killed := g.rng.IntN(2) == 0
	if killed {
		g.disk.killIn(n)
	} else {
		g.disk.crashIn(n, []int{0, 50, 100}[g.rng.IntN(3)], g.rng.IntN(2) == 0)
	}
	time.Sleep(20 * time.Second) // the trim in the background comes
	g.trimmed, g.limbo = true, true
	g.stepTrim()
	synctest.Wait()
	g.disk.countOnly(counted)
	g.log("crash in %d changes of a trim: %t", n, g.disk.crashed())
	if g.disk.crashed() {
		g.ended = killed
		g.met["crashes of trims"]++
	} else {
		g.disk.clear()
	}
}
