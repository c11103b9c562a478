package simtest

import (
	"errors"
	"fmt"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// The steps of programs with everything on in which the log gets old: what may go, goes, and nothing else.

// keepFor is how long the log keeps a segment under the settings as they are; 0: for ever.
func (g *together) keepFor() time.Duration {
	if len(g.config.Warm) > 0 && g.config.HotTTL > 0 {
		return g.config.WarmTTL
	}
	return g.config.HotTTL
}

// ready has nothing go wrong from here on, and what has failed be opened again. It says whether the database takes writes then.
func (g *together) ready() bool {
	g.t.Helper()
	if g.disk.isFull() {
		g.disk.clear()
		time.Sleep(2 * time.Second) // who waits for space looks every now and then
	}
	g.disk.clear()
	if g.hurt() || g.readOnly() {
		g.reopen("what has failed")
		g.disk.clear()
		synctest.Wait()
		if g.hurt() && !g.disk.crashed() {
			g.disk.forgive()
		}
		if g.disk.crashed() || g.readOnly() {
			return false
		}
	}
	return true
}

// settled has the tasks handle all that there is, so that nothing holds the log, and says whether that was possible.
func (g *together) settled() bool {
	g.t.Helper()
	if !g.ready() {
		return false
	}
	if keep := g.keepFor(); keep == 0 || keep > 5*time.Hour || !g.kept.sure {
		c := g.config
		c.HotTTL, c.Warm, c.WarmTTL = time.Hour, nil, 0
		g.configure(c)
		if !g.kept.sure {
			return false
		}
	}
	g.letGo()
	g.work(true)
	for _, f := range g.fold.jobs {
		if len(f.parked) > 0 || f.cursor < f.newest(g.fold.at) {
			return false
		}
	}
	return !g.disk.crashed() && g.disk.faults() == 0
}

// readOnly says whether the database takes nothing more since a sync has failed.
func (g *together) readOnly() bool {
	st, err := g.db.Status(g.t.Context())
	return err != nil || st.State != "open"
}

// stepAge lets the whole log get old: it is gone then, whatever the clock said meanwhile, which segments can't be read, and how full the disk is.
func (g *together) stepAge() {
	g.t.Helper()
	if !g.settled() {
		return
	}
	g.stepWrite() // the youngest one, by the clock as it is now
	g.work(true)
	full := g.rng.IntN(3) == 0
	if full {
		g.stepFlush()
		g.must("quota", g.disk.setQuota(0)) // but for what is reserved
	}
	before := g.model.oldest
	for range 3 {
		time.Sleep(g.keepFor() + 2*time.Minute)
		synctest.Wait()
		g.stepTrim()
		synctest.Wait()
	}
	g.checkStatus()
	g.log("the log has got old: %d to %d of %d, full %t", before, g.model.oldest, g.model.head(), full)
	if g.hurt() {
		return
	}
	g.met["aged"]++
	ctx, cancel := bounded(patience)
	defer cancel()
	st, err := g.db.Status(ctx)
	g.must("status", err)
	// What tasks did last is held for them: that is one segment. The one behind it may be younger, and there is one that is written to.
	if n := st.Logs[0].Segments; n > 3 {
		g.t.Fatalf("step %d: all of the log is older than %s, and it still has %d segments, and begins with %d; head is %d, held from %d on", g.step, g.keepFor(), n,
			g.model.oldest, g.model.head(), g.held())
	}
	if full {
		g.stepSpace()
	}
}

// held is the first commit that the log is kept for, for tasks.
func (g *together) held() batchlog.ID {
	held := g.model.head() + 1
	for _, f := range g.fold.jobs {
		held = min(held, f.cursor+1)
	}
	return held
}

// stepYoung looks that nothing goes before its time: the clock may have jumped ahead, but little time has passed.
func (g *together) stepYoung() {
	g.t.Helper()
	keep := g.keepFor()
	if keep < time.Hour || g.disk.isFull() || g.hurt() || g.readOnly() {
		return
	}
	g.work(true)
	first := g.model.head() + 1
	g.stepWrite()
	g.stepLarge()
	g.stepLarge()
	g.work(true)
	g.clock.add(10 * 365 * 24 * time.Hour)
	g.stepTrim()
	g.checkStatus()
	g.clock.add(-10 * 365 * 24 * time.Hour)
	if !g.hurt() && g.model.oldest > first {
		g.t.Fatalf("step %d: commit %d is gone, %s old; the log keeps it for %s", g.step, first, time.Millisecond, keep)
	}
}

// stepTokenLife has a token be forgotten, used again, and lost sight of: its commit is dropped, it is written again, the process ends before the store is flushed, and the log is trimmed once more.
// Then it is known.
func (g *together) stepTokenLife() {
	g.t.Helper()
	if !g.settled() {
		return
	}
	g.written++
	c := commit{at: g.clock.now(), token: fmt.Sprint("life ", g.written), ops: []op{g.randomOp()}}
	g.submitToken(c)
	for range 4 { // so that what is held for tasks is in another segment
		g.stepLarge()
	}
	g.work(true)
	for range 3 {
		time.Sleep(g.keepFor() + 2*time.Minute)
		g.stepTrim()
	}
	synctest.Wait()
	g.checkStatus()
	if g.hurt() || g.model.tokens[c.token] == 0 || g.model.tokens[c.token] >= g.model.oldest {
		return
	}
	c.at, c.ops = g.clock.now(), []op{g.randomOp()}
	g.submitToken(c)
	if g.hurt() {
		return
	}
	g.ended = true
	g.disk.kill()
	g.recover("the end of the process")
	synctest.Wait()
	if g.hurt() {
		return
	}
	g.stepTrim()
	synctest.Wait()
	g.checkStatus()
	if g.hurt() {
		return
	}
	c.at, c.ops = g.clock.now(), []op{g.randomOp()}
	g.submitToken(c)
	g.met["token lives"]++
}

// stepVerifyTrim verifies while the log is trimmed under it.
func (g *together) stepVerifyTrim() {
	g.t.Helper()
	if !g.settled() {
		return
	}
	for range 3 {
		g.stepLarge()
	}
	g.work(true)
	before := g.model.oldest
	ctx, cancel := bounded(2*patience + g.keepFor())
	defer cancel()
	calls, at := 0, g.rng.IntN(6)
	g.trimmed = true
	report, err := g.db.Verify(ctx, local.VerifyOptions{Progress: func(local.Progress) {
		if calls == at {
			time.Sleep(g.keepFor() + time.Second)
			g.stepTrim()
		}
		calls++
	}})
	g.log("verify of %d commits while the log is trimmed, at call %d of %d: %v", report.Commits, at, calls, err)
	if err != nil && !errors.Is(err, batchlog.ErrGap) && !g.hurt() {
		g.must("verify while the log is trimmed", err)
	}
	if len(report.Problems) > 0 && !g.hurt() {
		g.t.Fatalf("step %d: verify while the log is trimmed finds %d problems: %v", g.step, len(report.Problems), report.Problems[0])
	}
	g.checkStatus()
	if g.model.oldest > before {
		g.met["verify while trimmed"]++
	}
}

// stepQuota bounds what the disk takes from now on, to the byte.
func (g *together) stepQuota() {
	if g.disk.isFull() {
		return
	}
	left := int64(g.rng.IntN(64 << 10))
	g.log("quota of %d bytes more", left)
	g.must("quota", g.disk.setQuota(left))
	g.met["quota"]++
}
