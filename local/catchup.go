package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
	"github.com/bytespace/batchlog/internal/disk"
)

// A copy is made from a view first, and then kept up with what the log says is written to the source: before the chain is built, after, and a
// last time while nobody else writes there. So what is copied is the state at the id before the commit's own, and a source that is written all
// the time can't hold it up: each round is about what was written during the one before, and is shorter than that.
//
// What comes when the chain is built already makes further stretches of it, and what comes in the last round the ops behind it. These say what becomes of
// keys as it is known then: a key that has left the source gets back what the target has. Where other ops of the chain are on the same keys that is
// not known so easily (see stage.late).

const (
	// soonMax is how many ops a round may find for the next one to be the last.
	soonMax = 4096
	// catchUpRounds bounds the rounds before the last one.
	catchUpRounds = 16
	// lateMax bounds the keys whose net effect is looked up one by one.
	lateMax = 256
)

// catchUp adds to the copies what was written to their sources up to head, and returns how many ops that were. ticket is that of a caller whose
// sources and targets are protected; 0: they are not.
func (g *stage) catchUp(ctx context.Context, ticket uint64) (found int, err error) {
	if len(g.copies) == 0 {
		return 0, nil
	}
	head := g.e.log.Head()
	into := g.sorter
	if g.built != nil && !g.mixed {
		if into, err = g.afterSorter(); err != nil {
			return 0, err
		}
	}
	view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true, AtLeast: head})
	if err != nil {
		return 0, err
	}
	defer view.Close()
	for _, c := range g.copies {
		f := copyFill{stage: g, ctx: ctx, copying: c, into: into, view: view, ticket: ticket, noting: g.built != nil && g.mixed}
		n, err := f.catchUp(head)
		if err != nil {
			return found, err
		}
		found += n
		if into == g.sorter {
			c.sorted = head
		}
	}
	if into == g.sorter {
		g.holds.Store(uint64(head + 1))
	}
	return found, nil
}

// afterSorter is where what comes after the chain was built is gathered.
func (g *stage) afterSorter() (*chainsort.Sorter, error) {
	if g.after == nil {
		dir := filepath.Join(g.dir, "late")
		if err := disk.MakeDir(g.e.opts.FS, dir); err != nil {
			return nil, chainError(err)
		}
		g.after = chainsort.New(chainsort.Options{FS: g.e.opts.FS, Dir: dir, MemoryBytes: int(g.e.opts.ChainBytes / 4), Reserve: g.reserve})
	}
	return g.after, nil
}

// dropAfter forgets what came after the chain was built: it is built as well.
func (g *stage) dropAfter() error {
	if g.after == nil {
		return nil
	}
	err := g.after.Close()
	g.after = nil
	return err
}

// catchUp is stage.catchUp for one copy.
func (f *copyFill) catchUp(head batchlog.ID) (found int, err error) {
	if f.base >= head {
		return 0, nil
	}
	within := [][]byte{openPath(f.From, f.Tree)}
	if f.restored {
		within = append(within, openPath(f.To, f.Tree))
	}
	reader, err := f.stage.e.log.Reader(batchlog.LogOptions{From: batchlog.After(f.base), Until: head, Within: within})
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	follow := func(kind batchlog.OpKind, key, value []byte) error {
		found++
		f.stage.progress("catch up", int64(found), 0)
		return f.follow(kind, key, value)
	}
	for {
		records, _, err := reader.Next(f.ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return found, err
		}
		for i := range records {
			if err := records[i].EachOp(follow); err != nil {
				return found, err
			}
		}
	}
	if err := f.flush(); err != nil {
		return found, err
	}
	f.base = head
	return found, nil
}

// follow does to the copy what an op has done to the source.
func (f *copyFill) follow(kind batchlog.OpKind, key, value []byte) error {
	if low, high, ok := clip(kind, key, value, f.Low, f.High); ok {
		var err error
		if kind == batchlog.OpPut {
			err = f.put(key, value)
		} else {
			err = f.retract(low, high)
		}
		if err != nil {
			return err
		}
	}
	if !f.restored || f.into == f.stage.sorter {
		return nil
	}
	targetLow, targetHigh := f.target()
	if low, high, ok := clip(kind, key, value, targetLow, targetHigh); ok {
		return f.followTarget(low, high)
	}
	return nil
}

// clip is what of an op is about keys from low on and below high: a key, or, of a range delete, a range.
func clip(kind batchlog.OpKind, key, value, low, high []byte) (from, to []byte, ok bool) {
	if kind != batchlog.OpDeleteRange {
		return key, nil, bytes.Compare(low, key) <= 0 && bytes.Compare(key, high) < 0
	}
	from, to = key, value
	if bytes.Compare(from, low) < 0 {
		from = low
	}
	if bytes.Compare(to, high) > 0 {
		to = high
	}
	return from, to, bytes.Compare(from, to) < 0
}

// retract takes back the copy of a key, or of the keys of a range if high is not nil, as they are no longer in the source.
func (f *copyFill) retract(low, high []byte) error {
	if err := f.flush(); err != nil { // what was put before is to be taken back
		return err
	}
	to := f.to(low)
	if high == nil {
		f.note(to, nil)
		if f.into != f.stage.sorter {
			return f.restore(to)
		}
		return chainError(f.into.Retract(f.seq, to))
	}
	bound := f.toBound(high)
	f.note(to, bound)
	if f.into != f.stage.sorter {
		return f.restoreRange(to, bound)
	}
	return chainError(f.into.RetractRange(f.seq, to, bound))
}

// restore gives a key of the target back what it has without the chain.
func (f *copyFill) restore(to []byte) error {
	f.restored = true
	value, err := f.view.Get(f.ctx, to)
	switch {
	case errors.Is(err, batchlog.ErrNotFound):
		f.ops = batchlog.AppendOp(f.ops, batchlog.OpDelete, to, nil)
		f.count++
		return nil
	case err != nil:
		return err
	default:
		return f.append(to, value)
	}
}

// restoreRange does so for all keys of a range in one space.
func (f *copyFill) restoreRange(low, high []byte) error {
	f.restored = true
	f.ops = batchlog.AppendOp(f.ops, batchlog.OpDeleteRange, low, high)
	f.count++
	return eachKey(f.ctx, f.view, low, high, f.append)
}

// followTarget sees to it that the keys of the target that got back what the target has, of which others have written one, or deleted a range if high
// is not nil, are as they have to be: copied if the source has them now, else what the target has now.
func (f *copyFill) followTarget(low, high []byte) error {
	if high != nil {
		if err := f.restoreRange(low, high); err != nil {
			return err
		}
		return eachKey(f.ctx, f.view, f.from(low), f.fromBound(high), func(key, value []byte) error {
			if bytes.Compare(key, f.Low) < 0 || bytes.Compare(key, f.High) >= 0 {
				return nil
			}
			return f.append(f.to(key), value)
		})
	}
	value, err := f.view.Get(f.ctx, f.from(low))
	switch {
	case errors.Is(err, batchlog.ErrNotFound):
		return f.restore(low)
	case err != nil:
		return err
	default:
		return f.append(f.to(f.from(low)), value)
	}
}

// note notes a key, or a range if high is not nil, as late.
func (f *copyFill) note(low, high []byte) {
	g := f.stage
	if !f.noting || len(g.lateKeys) > lateMax {
		return
	}
	if high == nil {
		high = append(bytes.Clone(low), 0)
	}
	g.lateKeys = append(g.lateKeys, batchlog.KeyRange{Low: bytes.Clone(low), High: bytes.Clone(high)})
}

// mixes reports whether other ops of the chain may be on the keys that a copy writes: ops that were added, other copies, or the range deletes of
// a move.
func (g *stage) mixes() bool {
	var targets spans
	for _, c := range g.copies {
		low, high := c.target()
		if g.own.overlaps(low, high) || targets.overlaps(low, high) {
			return true
		}
		targets.list = append(targets.list, span{KeyRange: batchlog.KeyRange{Low: low, High: high}})
		for _, other := range g.copies {
			if other.Move && bytes.Compare(other.Low, high) < 0 && bytes.Compare(low, other.High) < 0 {
				return true
			}
		}
	}
	return false
}

// late adds to p the net effect of what came after a chain with mixed ops was built. That of each key is looked up in all that was added, which
// takes long, so it works for few keys only; after more the chain is built again.
func (g *stage) late(ctx context.Context, p *batchlog.Proposal) error {
	view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return err
	}
	defer view.Close()
	for _, r := range g.lateKeys {
		err := g.sorter.Net(ctx, r.Low, r.High, func(n chainsort.Net) error {
			p.Count++
			if kind, ok := opKind(n.Kind); ok {
				p.Ops = batchlog.AppendOp(p.Ops, kind, n.Key, n.Value)
				return nil
			}
			// What was copied is gone from the source: what the key had before stays.
			p.Reads.Keys = append(p.Reads.Keys, bytes.Clone(n.Key))
			value, err := view.Get(ctx, n.Key)
			switch {
			case err == nil:
				if _, ref, err := batchlog.ParseValue(value); err == nil && ref != nil {
					p.Blobs++
				}
				p.Ops = batchlog.AppendOp(p.Ops, batchlog.OpPut, n.Key, value)
			case errors.Is(err, batchlog.ErrNotFound):
				p.Ops = batchlog.AppendOp(p.Ops, batchlog.OpDelete, n.Key, nil)
			default:
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// last adds to p the net effect of what came in the last round to a chain whose ops are not mixed.
func (g *stage) last(ctx context.Context, p *batchlog.Proposal) error {
	if g.after == nil {
		return nil
	}
	return g.after.Net(ctx, nil, nil, func(n chainsort.Net) error {
		kind, ok := opKind(n.Kind)
		if !ok {
			return nil
		}
		p.Ops = batchlog.AppendOp(p.Ops, kind, n.Key, n.Value)
		p.Count++
		if len(p.Ops) > batchlog.MaxBatchBytes/2 {
			return fmt.Errorf("%w: much was written to the source of a copy at its end", batchlog.ErrConflict)
		}
		return nil
	})
}
