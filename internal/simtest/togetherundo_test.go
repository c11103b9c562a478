package simtest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/undo"
)

// The steps of programs with everything on that take commits back. What they write is a chain of the model: its net effect counts.

// stepUndo takes a commit back.
func (g *together) stepUndo() {
	g.t.Helper()
	id := g.undoable()
	if id == 0 {
		return
	}
	before := g.model.fold(id - 1)
	changes := before.changes(&g.model.commits[id-1])
	back, conflicts, written := g.takeBack(id, changes)
	o := undo.Options{Force: g.rng.IntN(3) == 0}
	o.Cascade = !o.Force && g.rng.IntN(3) == 0
	if o.Force {
		for p := range conflicts {
			delete(back, p)
		}
	}
	c := commit{at: g.clock.now(), open: o.Cascade, chain: []chainStep{{back: back}}}
	c.labelled = func(labels map[string]string) bool { return strings.Contains(labels[undo.LabelUndo], id.String()) }
	ctx, cancel := g.context()
	defer cancel()
	st, err := g.db.Status(ctx)
	if err != nil && g.excused(err) {
		return
	}
	g.must("status", err)
	done, err := undo.Undo(ctx, g.db.DB, id, o)
	g.log("undo of %d, force %t, cascade %t: %d, %v", id, o.Force, o.Cascade, done, err)
	g.met["undo "+errClass(err)]++
	var missing *batchlog.InverseError
	switch {
	case err == nil || errors.Is(err, batchlog.ErrUncertain):
		if len(conflicts) > 0 && !o.Force && !o.Cascade {
			g.t.Fatalf("step %d: undo of %d has overwritten %v", g.step, id, conflicts)
		}
		g.settle(c, done, err)
	case errors.Is(err, batchlog.ErrConflict):
		if written == 0 {
			g.t.Fatalf("step %d: undo of %d: %v, and nobody has written there since", g.step, id, err)
		}
	case errors.As(err, &missing):
		if covers(st.Undo.Have, id, st.Applied) && missing.Limit == 0 {
			g.t.Fatalf("step %d: undo of %d: %v; undo is %+v", g.step, id, err, st.Undo)
		}
	case errors.Is(err, batchlog.ErrPermission) && g.derives(g.model.head(), id):
	case !g.excusedChain(err):
		g.must(fmt.Sprint("undo of ", id), err)
	}
}

// derives says whether one of the commits from first to last has written what tasks derive.
func (g *together) derives(last, first batchlog.ID) bool {
	for _, c := range g.model.commits[first-1 : last] {
		for _, o := range c.ops {
			if o.space >= spaceDerived {
				return true
			}
		}
	}
	return false
}

// undoable is a commit to take back, most often a recent one; 0: there is none.
func (g *together) undoable() batchlog.ID {
	head := g.model.head()
	if head < g.model.oldest {
		return 0
	}
	n := uint64(head - g.model.oldest + 1)
	if g.rng.IntN(4) > 0 {
		n = min(n, 6)
	}
	id := head - batchlog.ID(g.rng.Uint64N(n))
	if g.model.commits[id-1].foreign {
		return 0
	}
	return id
}

// takeBack is what an undo does: the places that the commit changed, those of them that no longer hold what it left there, and how many were written since.
func (g *together) takeBack(id batchlog.ID, changes map[place]change) (back, conflicts map[place]change, written int) {
	back, conflicts = map[place]change{}, map[place]change{}
	since := map[place]bool{}
	for i := id; i < g.model.head(); i++ {
		for _, o := range g.model.commits[i].ops {
			for p := range changes {
				if o.space == p.space && (o.key == p.key || o.kind == batchlog.OpDeleteRange && o.key <= p.key && (o.open || p.key < o.high)) {
					since[p] = true
				}
			}
		}
	}
	for p, ch := range changes {
		if ch.had == ch.has && ch.old == ch.now {
			continue
		}
		back[p] = ch
		if now, there := g.model.now[p]; there != ch.has || now != ch.now {
			conflicts[p] = ch
		}
	}
	return back, conflicts, len(since)
}

// stepRedo takes an undo back, if there is one in the log.
func (g *together) stepRedo() {
	g.t.Helper()
	var undos []batchlog.ID
	for id := g.model.oldest; id <= g.model.head(); id++ {
		if _, ok := g.model.commits[id-1].labels[undo.LabelUndo]; ok {
			undos = append(undos, id)
		}
	}
	if len(undos) == 0 {
		return
	}
	id := undos[g.rng.IntN(len(undos))]
	ctx, cancel := g.context()
	defer cancel()
	c := commit{at: g.clock.now(), open: true, chain: []chainStep{}}
	c.labelled = func(labels map[string]string) bool { return labels[undo.LabelRedo] != "" }
	done, err := undo.Redo(ctx, g.db.DB, id, undo.Options{})
	g.log("redo of %d: %d, %v", id, done, err)
	g.met["redo "+errClass(err)]++
	switch {
	case err == nil || errors.Is(err, batchlog.ErrUncertain):
		if err == nil {
			g.closeRedo(&c, done)
		}
		g.settle(c, done, err)
	case errors.Is(err, batchlog.ErrConflict), errors.Is(err, undo.ErrNotUndone), errors.Is(err, batchlog.ErrNoInverse), errors.Is(err, batchlog.ErrPermission):
	case !g.excusedChain(err):
		g.must(fmt.Sprint("redo of ", id), err)
	}
}

// closeRedo makes of a redo, whose label says what it has taken back, a commit whose effect is known.
func (g *together) closeRedo(c *commit, done batchlog.ID) {
	g.t.Helper()
	armed := g.disk.disarm()
	defer g.disk.arm(armed)
	ctx, cancel := bounded(patience)
	defer cancel()
	list, err := tailAll(ctx, g.db.DB, batchlog.TailOptions{From: batchlog.At(done), Until: done})
	g.must("tail of a redo", err)
	var taken batchlog.ID
	g.must("label of a redo", scanID(list[0].labels[undo.LabelRedo], &taken))
	if taken < 1 || taken >= done {
		g.t.Fatalf("step %d: commit %d takes back %d", g.step, done, taken)
	}
	changes := g.model.fold(taken - 1).changes(&g.model.commits[taken-1])
	back, conflicts, _ := g.takeBack(taken, changes)
	if len(conflicts) > 0 {
		g.t.Fatalf("step %d: redo %d of %d has overwritten %v", g.step, done, taken, conflicts)
	}
	c.open, c.chain = false, []chainStep{{back: back}}
}

// stepTo brings a space back to an earlier commit with package undo.
func (g *together) stepTo() {
	g.t.Helper()
	ctx, cancel := g.context()
	defer cancel()
	to := g.model.head() - batchlog.ID(g.rng.Uint64N(uint64(min(g.model.head(), 12))+1))
	space := g.writable()
	v := &spaceRevert{space: space, to: to, then: g.model.fold(to)}
	c := commit{at: g.clock.now(), chain: []chainStep{{revert: v}}}
	c.labelled = func(labels map[string]string) bool { return labels[undo.LabelTo] == to.String() }
	done, err := undo.To(ctx, g.db.DB, to, undo.Options{Space: g.spaces[space]})
	g.log("space %d to %d: %d, %v", space, to, done, err)
	g.met["to "+errClass(err)]++
	switch {
	case err == nil || errors.Is(err, batchlog.ErrUncertain):
		g.settle(c, done, err)
	case errors.Is(err, batchlog.ErrNoInverse):
	case !g.excusedChain(err):
		g.must("to", err)
	}
}
