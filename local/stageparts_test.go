package local

import (
	"errors"
	"fmt"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// What could be added in part only is not committed as if it were all, whoever forgets that adding it has failed.
func TestStageParts(t *testing.T) {
	parts := 0
	for _, failing := range []int{1, 5, 9, 20, 60} {
		t.Run(fmt.Sprint(failing), func(t *testing.T) {
			p := newStageParts(t, failing)
			p.add()
			p.copy()
			p.revert()
			parts += p.parts
			if err := errors.Join(p.close(), p.s.db.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	if parts < 2 {
		t.Error("no part was ever added: the test shows nothing")
	}
}

// stageParts are stages on which an operation of the disk fails while something is added.
type stageParts struct {
	t      *testing.T
	s      *stageStory
	db     *DB
	added  *batchlog.Space
	ops    []byte // that are added
	parts  int    // were added
	stages []batchlog.Stage
}

const partOps = 2000

func newStageParts(t *testing.T, failing int) *stageParts {
	t.Helper()
	s := newStageStory(t, "parts", 2*failing+1) // an EIO
	s.steps.others = func(int) func() { return nil }
	s.steps.fail = failing
	p := &stageParts{t: t, s: s, db: s.db, added: s.db.Space("added")}
	p.ops = p.fill(p.added, partOps)
	return p
}

func (p *stageParts) fill(s *batchlog.Space, n int) (ops []byte) {
	for i := range n {
		ops = wire.AppendOp(ops, batchlog.OpPut, append(s.Stored(), batchlog.K(i)...), make([]byte, 200))
	}
	return ops
}

func (p *stageParts) begin() *stage {
	p.t.Helper()
	g, err := p.db.engine.Chain(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	p.stages = append(p.stages, g)
	return g.(*stage)
}

// fails calls f, of which a step fails.
func (p *stageParts) fails(f func() error) {
	p.t.Helper()
	p.s.steps.n = 0
	p.s.steps.arm(true)
	defer p.s.steps.arm(false)
	if err := f(); err == nil {
		p.t.Error("nothing has failed: the test shows nothing")
	}
}

// refused makes sure that a stage with a part of something is not committed.
func (p *stageParts) refused(g *stage) {
	p.t.Helper()
	if g.state == gathers {
		return // no directory could be made, and nothing was added
	}
	p.parts++
	before := head(p.t, p.db)
	if id, err := g.Commit(p.t.Context(), &waist.Proposal{}); err == nil || head(p.t, p.db) != before {
		p.t.Errorf("with a part in it: commit %d, %v", id, err)
	}
}

func (p *stageParts) commit(g *stage, keys int) {
	p.t.Helper()
	if _, err := g.Commit(p.t.Context(), &waist.Proposal{}); err != nil {
		p.t.Fatal(err)
	}
	if n := len(scanAll(p.t, p.added)); n != keys {
		p.t.Errorf("%d keys, want %d", n, keys)
	}
}

// add is mended by adding the same again.
func (p *stageParts) add() {
	p.t.Helper()
	g := p.begin()
	p.fails(func() error { return g.Add(p.t.Context(), p.ops, partOps, 0) })
	p.refused(g)
	if err := g.Add(p.t.Context(), p.ops, partOps, 0); err != nil {
		p.t.Fatal(err)
	}
	p.commit(g, partOps)
}

func (p *stageParts) rangeCopy() waist.RangeCopy {
	low := p.added.Stored()
	return waist.RangeCopy{Low: low, High: behindOwn(low), From: low, To: p.db.Space("copied").Stored()}
}

// copy is not mended.
func (p *stageParts) copy() {
	p.t.Helper()
	g := p.begin()
	if err := g.Add(p.t.Context(), p.fill(p.db.Space("other"), 1), 1, 0); err != nil {
		p.t.Fatal(err)
	}
	p.fails(func() error { return g.Copy(p.t.Context(), p.rangeCopy()) })
	p.refused(g)
}

// revert begins again when it is committed, and is alone in a chain.
func (p *stageParts) revert() {
	p.t.Helper()
	ctx := p.t.Context()
	low := openPath(p.added.Stored(), false)
	r := waist.Revert{To: head(p.t, p.db) - 1, Low: low, High: append(low[:len(low):len(low)], 0xff)}
	g := p.begin()
	p.fails(func() error { return g.Revert(ctx, r) })
	if err := g.Add(ctx, p.ops, partOps, 0); !errors.Is(err, batchlog.ErrUnsupported) {
		p.t.Errorf("add beside a revert: %v", err)
	}
	if err := g.Copy(ctx, p.rangeCopy()); !errors.Is(err, batchlog.ErrUnsupported) {
		p.t.Errorf("copy beside a revert: %v", err)
	}
	p.commit(g, 0)
	g = p.begin()
	if err := g.Copy(ctx, p.rangeCopy()); err != nil {
		p.t.Fatal(err)
	}
	if err := g.Revert(ctx, r); !errors.Is(err, batchlog.ErrUnsupported) {
		p.t.Errorf("revert beside a copy: %v", err)
	}
}

// close closes all, twice, and looks whether they have given back what they had taken.
func (p *stageParts) close() error {
	for _, g := range p.stages {
		if err := errors.Join(g.Close(), g.Close()); err != nil {
			return err
		}
	}
	chains := &p.db.engine.chains
	chains.mu.Lock()
	defer chains.mu.Unlock()
	if chains.used != 0 {
		return fmt.Errorf("%d bytes of the quota are taken after all", chains.used)
	}
	return nil
}

func scanAll(t *testing.T, s *batchlog.Space) (keys []batchlog.Key) {
	t.Helper()
	for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	return keys
}
