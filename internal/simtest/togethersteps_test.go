package simtest

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bytespace/batchlog"
)

// exclusions are what programs with everything on leave out.
var exclusions = []exclusion{
	{"the store of a verification", "after a crash under way it is there for ever"},
	{"the store of a backfill", "it can be there after a crash while nothing is to be filled"},
	{"what is left of a lost disk", "an opening, or a Close, on a disk that fails leaves goroutines of Pebble that try for ever, by and by"},
	{"compactions that can't read", "they are tried again at once, for ever: a processor is busy, and virtual time stands still"},
	{"faults of the store while it opens", "Pebble holds its lock in a write that is tried again, and virtual time stands still for who waits for the lock"},
}

// An ownStep is a step that only programs with everything on have.
type ownStep struct {
	weight int
	do     func(g *together)
}

// ownSteps are those, and those that replace others of the same name.
var ownSteps map[string]ownStep

func init() {
	ownSteps = map[string]ownStep{
		"work":         {weight: 14, do: (*together).stepWork},
		"manage":       {weight: 3, do: (*together).stepManage},
		"derived":      {weight: 4, do: (*together).stepDerived},
		"undo":         {weight: 8, do: (*together).stepUndo},
		"redo":         {weight: 3, do: (*together).stepRedo},
		"to":           {weight: 2, do: (*together).stepTo},
		"hooked":       {weight: 8, do: (*together).stepHooked},
		"hook refuses": {weight: 1, do: (*together).stepHookRefuses},
		"token again":  {weight: 4, do: (*together).stepToken},
		"clock":        {weight: 4, do: (*together).stepClockJump},
		"pass":         {weight: 5, do: (*together).stepPass},
		"age":          {weight: 2, do: (*together).stepAge},
		"young":        {weight: 1, do: (*together).stepYoung},
		"token life":   {weight: 1, do: (*together).stepTokenLife},
		"verify trim":  {weight: 1, do: (*together).stepVerifyTrim},
		"quota":        {weight: 2, do: (*together).stepQuota},
		"chain life":   {weight: 1, do: (*together).stepChainLife},
		"crash trim":   {weight: 2, do: (*together).stepCrashTrim},
		"ill":          {weight: 1, do: (*together).stepIll},
		"kill":         {weight: 2, do: (*together).stepKill},
		"copy dir":     {weight: 1, do: (*together).stepCopyDir},
		"open copy":    {weight: 1, do: (*together).stepOpenCopy},
		"sweep":        {weight: 3, do: (*together).stepSweepAll},
		"backfill":     {weight: 2, do: (*together).stepFill},
	}
	for _, name := range slices.Sorted(maps.Keys(ownSteps)) {
		if _, ok := steps[name]; !ok {
			togetherNames = append(togetherNames, name)
		}
	}
}

// togetherNames are the steps that the other programs don't have.
var togetherNames []string

// pick is a random step, by weight, of which the state has a say in as little as possible.
func (g *together) pick() string {
	names := append(slices.Clone(stepNames), togetherNames...)
	total := 0
	for _, name := range names {
		total += g.weight(name)
	}
	n := g.rng.IntN(total)
	for _, name := range names {
		if n -= g.weight(name); n < 0 {
			return name
		}
	}
	panic("no step")
}

func (g *together) weight(name string) int {
	if own, ok := ownSteps[name]; ok {
		return own.weight
	}
	return g.run.weight(name)
}

// stepHooked writes in the spaces that have hooks, the values that one of them drops included.
func (g *together) stepHooked() {
	c := g.randomCommit()
	for range 1 + g.rng.IntN(4) {
		o := g.randomOp()
		o.space = []int{spaceHooked, spaceStamped}[g.rng.IntN(2)]
		c.ops = append(c.ops, o)
	}
	if g.rng.IntN(3) == 0 {
		c.ops = append(c.ops, op{kind: batchlog.OpPut, space: spaceStamped, key: keyDropped, value: g.value()})
	}
	g.submit(c)
}

// stepHookRefuses writes what a hook refuses: nothing of it may be seen.
func (g *together) stepHookRefuses() {
	g.t.Helper()
	var b batchlog.Batch
	b.Put(g.spaces[1], batchlog.Key("never"), []byte("there"))
	b.Put(g.spaces[spaceHooked], batchlog.Key("never"), []byte("there"))
	b.Put(g.spaces[spaceStamped], batchlog.Key(keyRefused), []byte("there"))
	ctx, cancel := g.context()
	defer cancel()
	id, err := g.db.Write(ctx, &b)
	var refused *batchlog.HookError
	if err != nil && !errors.As(err, &refused) && (g.excused(err) || g.disk.isFull() && errors.Is(err, errHung)) {
		return
	}
	if id != 0 || !errors.As(err, &refused) || string(refused.Key) != keyRefused {
		g.t.Fatalf("step %d: commit %d, %v; want a refusal", g.step, id, err)
	}
}

// stepToken writes with a token that was used before: one that the log knows, or one whose commit it no longer has, which is free again.
func (g *together) stepToken() {
	tokens := slices.Sorted(maps.Keys(g.model.tokens))
	if g.rng.IntN(2) == 0 { // those that were used last are more often those that went wrong
		slices.SortFunc(tokens, func(a, b string) int { return int(g.model.tokens[b]) - int(g.model.tokens[a]) })
		tokens = tokens[:min(len(tokens), 4)]
	}
	if len(tokens) == 0 {
		return
	}
	token := tokens[g.rng.IntN(len(tokens))]
	g.submitToken(commit{at: g.clock.now(), token: token, ops: []op{g.randomOp()}})
}

// stepClockJump moves the clock, by little or by years.
func (g *together) stepClockJump() {
	const year = 365 * 24 * time.Hour
	by := []time.Duration{time.Second, time.Minute, 10 * time.Minute, -time.Second, -5 * time.Minute, 24 * time.Hour, -24 * time.Hour, year, -year, 10 * year, -10 * year}[g.rng.IntN(11)]
	g.log("clock %s", by)
	g.clock.add(by)
}

// stepPass lets time pass, in which the database does what it does in the background.
func (g *together) stepPass() {
	time.Sleep([]time.Duration{time.Millisecond, time.Second, time.Minute, 3 * time.Minute, time.Hour}[g.rng.IntN(5)])
	g.trimmed = true
}

// stepSweepAll sweeps, a moment after what was done last: what was begun at this very moment is not yet old.
func (g *together) stepSweepAll() {
	time.Sleep(time.Millisecond)
	g.stepSweep()
}

// stepFill makes inverses that are missing.
func (g *together) stepFill() {
	before := g.met["backfill acked"]
	g.stepBackfill()
	g.halfFilled = g.met["backfill acked"] == before
}

// stepIll has the files of the store's tables take no write any more, until the disk is well again.
func (g *together) stepIll() {
	if g.exact {
		return
	}
	g.log("tables can't be written")
	g.disk.failing(func(op diskOp) error {
		if changes[op.kind] && strings.HasSuffix(op.path, ".sst") {
			return errFault
		}
		return nil
	})
}

// stepKill ends the process: what it has written is there, whether it was synced or not.
func (g *together) stepKill() {
	g.log("kill")
	g.ended = true
	g.disk.kill()
}
