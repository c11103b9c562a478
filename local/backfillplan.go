package local

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
)

// A backfillPlan is what a scratch store was told to keep, durably before it is told. A chain may be in the scratch store before its mark is: then one that goes on can't
// make an inverse of it that the one before did not want, or not as large, as what the chain has overwritten is gone. A scratch store that is asked
// for more than its plan says is made anew. It stands in undo/plan, as a document, and goes before the rest of the directory does.
type backfillPlan struct {
	Limit int64              `json:"limit"`
	Gaps  []batchlog.IDRange `json:"gaps"`
}

const (
	planName    = "plan"
	planKind    = "backfill"
	planVersion = 1
)

// covers reports whether a scratch store with plan p can make inverses of the commits in gaps, up to that size. It has never seen commits behind its last gap.
func (p *backfillPlan) covers(gaps []batchlog.IDRange, limit int64) bool {
	if len(p.Gaps) == 0 || limit > p.Limit {
		return false
	}
	until := p.Gaps[len(p.Gaps)-1].Last
	for _, g := range gaps {
		for g.Last = min(g.Last, until); g.First <= g.Last; {
			i := slices.IndexFunc(p.Gaps, func(have batchlog.IDRange) bool { return have.First <= g.First && g.First <= have.Last })
			if i < 0 {
				return false
			}
			g.First = p.Gaps[i].Last + 1
		}
	}
	return true
}

func (b *backfill) planFile() string { return filepath.Join(b.dir, planName) }

// readPlan reads the plan of the scratch store that is there; without a whole one there is nothing to go on with.
func (b *backfill) readPlan() (p backfillPlan, ok bool, err error) {
	text, err := disk.ReadFile(b.e.opts.FS, b.planFile())
	if disk.NotExist(err) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("plan of the scratch store: %w", err)
	}
	version, body, malformed := disk.ParseDocument(text, planKind)
	ok = malformed == nil && version == planVersion && json.Unmarshal(body, &p) == nil
	return p, ok, nil
}

// notePlan makes durable what the scratch store is going to keep, and before that what was taken over from it already, which it need not keep then.
func (b *backfill) notePlan(ctx context.Context) error {
	if err := b.e.keepTaken(ctx); err != nil {
		return err
	}
	body, err := json.Marshal(backfillPlan{Limit: b.o.Limit, Gaps: b.gaps})
	if err == nil {
		_, err = disk.ReplaceFile(b.e.opts.FS, b.planFile(), disk.AppendDocument(nil, planKind, planVersion, body))
	}
	if err != nil {
		return fmt.Errorf("plan of the scratch store: %w", err)
	}
	return nil
}

// removePlan removes the plan, durably, if there is one.
func (b *backfill) removePlan() error {
	err := disk.Remove(b.e.opts.FS, b.planFile())
	if err == nil {
		err = disk.SyncDir(b.e.opts.FS, b.dir)
	}
	if err != nil && !disk.NotExist(err) { // the directory need not be there
		return fmt.Errorf("remove the plan of the scratch store: %w", err)
	}
	return nil
}
