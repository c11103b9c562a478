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
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A copy is made from a view first, and then kept up with what the log says is written to the source: before the chain is built, after, and a
// last time while nobody else writes there. So what is copied is the state at the id before the commit's own, and a source that is written all
// the time can't hold it up: each round is about what was written during the one before, and is shorter than that.
//
// What comes when the chain is built already makes further stretches of it, and what comes in the last round the ops behind it. These say what becomes of
// keys as it is known then: a key that has left the source gets back what the target has. Where other ops of the chain are on the same keys that is
// not known so easily (see stage.late).

// catchUpRounds bounds the rounds before the last one.
const catchUpRounds = 16

// A builtSince is what has come to copies since a chain was built: as further ops if those of the chain are on other keys, else in the stage's sorter.
type builtSince struct {
	at    []caught          // of each copy
	after *chainsort.Sorter // of what is behind what is built; nil: nothing is
	mixed bool              // other ops of the chain are on keys that are copied
	late  []wire.KeyRange
}

// sinceNow is what comes to copies from now on.
func (f *copies) sinceNow() builtSince {
	since := builtSince{mixed: f.overlap()}
	for _, c := range f.list {
		since.at = append(since.at, c.sorted)
	}
	return since
}

// afterSorter is where what comes after the chain was built is gathered.
func (b *built) afterSorter() (*chainsort.Sorter, error) {
	if b.since.after == nil {
		e := b.stage.e
		dir := filepath.Join(b.stage.dir, "late")
		if err := disk.MakeDir(e.opts.FS, dir); err != nil {
			return nil, chainError(err)
		}
		b.since.after = chainsort.New(chainsort.Options{FS: e.opts.FS, Dir: dir, MemoryBytes: int(e.opts.ChainBytes / 4), Reserve: b.stage.reserve})
	}
	return b.since.after, nil
}

// dropLate forgets what came after the chain was built: it is built as well, or not needed.
func (b *built) dropLate() {
	if b.since.after == nil {
		return
	}
	if err := b.since.after.Close(); err != nil {
		b.stage.e.opts.Logger.Warn("files of a chain not removed; they will be swept", "err", err)
	}
	b.since.after = nil
}

// catchUp is as filler says.
func (f *copies) catchUp(ctx context.Context) error {
	g := f.stage
	if g.state == sorts {
		_, err := f.round(ctx, 0)
		return err
	}
	pace := g.e.chains.pace
	for range catchUpRounds {
		found, err := f.round(ctx, 0)
		if err != nil {
			return err
		}
		b := g.built
		few := found <= pace.soon && b.lateBytes() <= pace.soonBytes
		switch {
		case b.since.mixed:
			if len(b.since.late) > pace.late {
				g.to(sorts) // it is built again, with what is late for it
			}
			return nil
		case few:
			return nil
		case b.inMemory():
			g.to(sorts) // there is no file to add to
			return nil
		}
		if err := b.stretch(ctx, b.since.after, "catch up"); err != nil {
			g.to(sorts)
			return err
		}
		b.dropLate()
	}
	return nil
}

// lateBytes is how much has come to copies since the chain was built, encoded.
func (b *built) lateBytes() int64 {
	if b.since.after == nil {
		return 0
	}
	_, bytes, _ := b.since.after.Size()
	return bytes
}

// round adds to the copies what was written to their sources up to head, and returns how many ops that were. ticket is that of a caller whose sources and
// targets are protected; 0: they are not.
func (f *copies) round(ctx context.Context, ticket uint64) (found int, err error) {
	g := f.stage
	head := g.e.log.Head()
	into, b := g.sorter, g.built
	if g.state == isBuilt && !b.since.mixed {
		if into, err = b.afterSorter(); err != nil {
			return 0, err
		}
	}
	view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true, AtLeast: head})
	if err != nil {
		return 0, err
	}
	defer view.Close()
	for i, c := range f.list {
		fill := copyFill{stage: g, ctx: ctx, copying: c, caught: &c.sorted, into: into, view: view, ticket: ticket}
		switch {
		case into != g.sorter:
			fill.caught = &b.since.at[i]
		case g.state == isBuilt:
			fill.late = &b.since.late
		}
		n, err := fill.catchUp(head)
		if err != nil {
			return found, err
		}
		found += n
	}
	if into == g.sorter {
		g.holds.Store(uint64(head + 1))
	}
	return found, nil
}

// catchUp is copies.round for one copy.
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
		f.ops = wire.AppendOp(f.ops, batchlog.OpDelete, to, nil)
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
	f.ops = wire.AppendOp(f.ops, batchlog.OpDeleteRange, low, high)
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
	if f.late == nil || len(*f.late) > f.stage.e.chains.pace.late {
		return
	}
	if high == nil {
		high = append(bytes.Clone(low), 0)
	}
	*f.late = append(*f.late, wire.KeyRange{Low: bytes.Clone(low), High: bytes.Clone(high)})
}

// overlap reports whether other ops of the chain may be on the keys that a copy writes: ops that were added, also where a move of a tree deletes what comes
// late, other copies, or the range deletes of a move.
func (f *copies) overlap() bool {
	var targets spans
	for _, c := range f.list {
		low, high := c.target()
		if f.stage.own.overlaps(low, high) || targets.overlaps(low, high) || c.Move && c.Tree && f.stage.own.overlaps(c.Low, c.High) {
			return true
		}
		targets.list = append(targets.list, span{KeyRange: wire.KeyRange{Low: low, High: high}})
		for _, other := range f.list {
			if other.Move && bytes.Compare(other.Low, high) < 0 && bytes.Compare(low, other.High) < 0 {
				return true
			}
		}
	}
	return false
}

// watches is as filler says: sources and targets.
func (f *copies) watches() *waist.Reads {
	var reads waist.Reads
	for _, c := range f.list {
		low, high := c.target()
		reads.Ranges = append(reads.Ranges, wire.KeyRange{Low: c.Low, High: c.High}, wire.KeyRange{Low: low, High: high})
	}
	return &reads
}

// last is as filler says.
func (f *copies) last(ctx context.Context, ticket uint64, p *waist.Proposal) (*waist.Proposal, error) {
	if _, err := f.round(ctx, ticket); err != nil {
		return nil, err
	}
	since := &f.stage.built.since
	at := func(i int) caught {
		if since.mixed {
			return f.list[i].sorted
		}
		return since.at[i]
	}
	last := &waist.Proposal{Token: p.Token, Meta: p.Meta, Ticket: ticket, Reads: &waist.Reads{Base: at(0).base}}
	for i, c := range f.list {
		last.Reads.Ranges = append(last.Reads.Ranges, wire.KeyRange{Low: c.Low, High: c.High})
		if at(i).restored {
			low, high := c.target()
			last.Reads.Ranges = append(last.Reads.Ranges, wire.KeyRange{Low: low, High: high})
		}
	}
	var err error
	switch {
	case since.mixed:
		err = f.addLate(ctx, since.late, last)
	case since.after != nil:
		err = f.addAfter(ctx, since.after, last)
	}
	if err != nil {
		return nil, err
	}
	last.Ops = append(last.Ops, p.Ops...)
	last.Count += p.Count
	last.Blobs += p.Blobs
	return last, nil
}

// errLateCopy says that the last round of copies is too much: it is another round, or a part of what is built anew.
var errLateCopy = fmt.Errorf("%w: much was written to the source of a copy at its end", batchlog.ErrConflict)

// lastBytes bounds the ops of the last round.
const lastBytes = batchlog.MaxBatchBytes / 2

// addLate adds to p the net effect of what came after a chain with mixed ops was built. That of each key is looked up in all that was added, which
// takes long, so it works for few keys only; after more the chain is built again.
func (f *copies) addLate(ctx context.Context, late []wire.KeyRange, p *waist.Proposal) error {
	g := f.stage
	if len(late) > g.e.chains.pace.late {
		return errLateCopy
	}
	view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return err
	}
	defer view.Close()
	for _, r := range late {
		err := g.sorter.Net(ctx, r.Low, r.High, func(n chainsort.Net) error {
			p.Count++
			if kind, ok := opKind(n.Kind); ok {
				p.Ops = wire.AppendOp(p.Ops, kind, n.Key, n.Value)
				return lastFits(p)
			}
			// What was copied is gone from the source: what the key had before stays.
			p.Reads.Keys = append(p.Reads.Keys, bytes.Clone(n.Key))
			value, err := view.Get(ctx, n.Key)
			switch {
			case err == nil:
				if _, ref, err := wire.ParseValue(value); err == nil && ref != nil {
					p.Blobs++
				}
				p.Ops = wire.AppendOp(p.Ops, batchlog.OpPut, n.Key, value)
			case errors.Is(err, batchlog.ErrNotFound):
				p.Ops = wire.AppendOp(p.Ops, batchlog.OpDelete, n.Key, nil)
			default:
				return err
			}
			return lastFits(p)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addAfter adds to p the net effect of what came after a chain was built whose ops are not mixed.
func (f *copies) addAfter(ctx context.Context, after *chainsort.Sorter, p *waist.Proposal) error {
	return after.Net(ctx, nil, nil, func(n chainsort.Net) error {
		kind, ok := opKind(n.Kind)
		if !ok {
			return nil
		}
		p.Ops = wire.AppendOp(p.Ops, kind, n.Key, n.Value)
		p.Count++
		return lastFits(p)
	})
}

func lastFits(p *waist.Proposal) error {
	if len(p.Ops) > lastBytes {
		return errLateCopy
	}
	return nil
}
