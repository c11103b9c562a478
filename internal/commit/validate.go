package commit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A transaction may be committed if no commit since the view that it read has changed what it read: a key, found or not, or
// a key in a range. Most of that is checked by the caller, side by side with others ([Pipeline.prevalidate]); what came
// after is checked by the write loop when the transaction gets its id. This is backward validation after
// Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981.

// windowBytes bounds the commits that are kept in memory to be validated against.
const windowBytes = 8 << 20

// A window is the newest commits.
type window struct {
	mu     sync.RWMutex
	groups [][]wire.Record // in order of ids, without holes
	next   batchlog.ID     // of the commit after the last
	bytes  int64
}

func (w *window) add(group []wire.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.groups = append(w.groups, group)
	w.bytes += sizeOf(group)
	w.next = group[len(group)-1].ID + 1
	for w.bytes > windowBytes && len(w.groups) > 1 {
		w.bytes -= sizeOf(w.groups[0])
		w.groups[0] = nil
		w.groups = w.groups[1:]
	}
}

// after calls visit for the commits after id and returns the last one. ok is false if the window doesn't go back that far.
func (w *window) after(id batchlog.ID, visit func(r *wire.Record) error) (last batchlog.ID, ok bool, err error) {
	w.mu.RLock()
	groups, next := w.groups, w.next
	if id+1 >= next {
		w.mu.RUnlock()
		return id, true, nil
	}
	if len(groups) == 0 || groups[0][0].ID > id+1 {
		w.mu.RUnlock()
		return id, false, nil
	}
	at := sort.Search(len(groups), func(i int) bool { return groups[i][len(groups[i])-1].ID > id })
	later := append([][]wire.Record(nil), groups[at:]...) // the slots behind groups are cleared when it moves on
	w.mu.RUnlock()
	for _, group := range later {
		for i := range group {
			if group[i].ID <= id {
				continue
			}
			if err := visit(&group[i]); err != nil {
				return 0, true, err
			}
		}
	}
	return next - 1, true, nil
}

const (
	// checkOps is how many ops of later commits the write loop compares with what a transaction has read, at the first time that it comes. More are
	// compared by its caller, and it comes again; each time the write loop does twice as much, so that it need not come often.
	checkOps = 1024
	// checkRounds bounds how often it comes.
	checkRounds = 8
)

// prepare does in the caller what the write loop should not have to: it validates the reads of r against all commits there are now, and compares its
// ops with what is protected.
func (p *Pipeline) prepare(ctx context.Context, r *request) error {
	p.look(r)
	reads := r.prop.Reads
	if reads == nil {
		return nil
	}
	if r.round == checkRounds {
		return &batchlog.ConflictError{Base: reads.Base, Reason: "too much was committed each time that it was checked", Reads: reads}
	}
	if r.round == 0 || r.whole {
		r.reads.set(reads)
		r.checked = reads.Base
		r.covered = nil
		if g := find(p.protected.list(), r.ticket); g != nil && !r.whole && reads.Base >= g.since {
			r.covered = g
			r.reads.without(g.reads)
		}
		r.whole = false
	}
	return p.prevalidate(ctx, r)
}

// prevalidate checks the reads of r against all commits there are now.
func (p *Pipeline) prevalidate(ctx context.Context, r *request) error {
	if r.reads.empty() {
		return nil
	}
	for {
		last, ok, err := p.recent.after(r.checked, r.conflict)
		if err != nil {
			return err
		}
		if ok {
			r.checked = last
			return nil
		}
		// A transaction that took long: the rest of what came since is in the log.
		if err := p.validateFromLog(ctx, r, p.log.Head()); err != nil {
			return err
		}
	}
}

func (p *Pipeline) validateFromLog(ctx context.Context, r *request, head batchlog.ID) error {
	reader, err := p.log.Reader(batchlog.LogOptions{From: batchlog.After(r.checked), Until: head})
	if err != nil {
		return r.tooOld(err)
	}
	defer reader.Close()
	for r.checked < head {
		records, scanned, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r.tooOld(err)
		}
		for i := range records {
			if err := r.conflict(&records[i]); err != nil {
				return err
			}
		}
		r.checked = scanned
	}
	return nil
}

// tooOld makes a gap, there from the start or trimmed under way, a conflict.
func (r *request) tooOld(err error) error {
	if errors.Is(err, batchlog.ErrGap) {
		return &batchlog.ConflictError{Base: r.prop.Reads.Base, Reason: "the log no longer goes back to the transaction's view", Err: err, Reads: r.prop.Reads}
	}
	return err
}

// validate checks the reads of r against the commits since it was checked, those of the group that is being built included. errAgain says that this is
// too much to be done while all others wait.
func (p *Pipeline) validate(r *request) error {
	if r.prop.Reads == nil {
		return nil
	}
	if g := r.covered; g != nil && (g.broken || !slices.Contains(p.active, g)) {
		r.whole = true
		return errAgain
	}
	if r.reads.empty() {
		return nil
	}
	left := checkOps << r.round
	check := func(rec *wire.Record) error {
		if left -= inlineOps(rec) + 1; left < 0 {
			return errAgain
		}
		return r.conflict(rec)
	}
	_, ok, err := p.recent.after(r.checked, check)
	if err != nil {
		return err
	}
	if !ok {
		return errAgain
	}
	for i := range p.records {
		if err := check(&p.records[i]); err != nil {
			return err
		}
	}
	return nil
}

// inlineOps is how many ops are in the record itself.
func inlineOps(rec *wire.Record) int {
	if rec.Chain != nil {
		return rec.Count - rec.Chain.Count
	}
	return rec.Count
}

// conflict returns a *ConflictError if rec changes what r read.
func (r *request) conflict(rec *wire.Record) error {
	if c := rec.Chain; c != nil && r.reads.spanned(c) { // it may have: the transaction runs again on top of it
		for _, span := range c.Spans {
			if r.reads.overlaps(span.Low, span.High) {
				return r.lostTo(rec.ID, r.reads.readIn(span.Low, span.High))
			}
		}
	}
	ops := rec.Ops
	for range inlineOps(rec) {
		kind, key, value, rest, err := wire.NextOp(ops)
		if err != nil {
			return fmt.Errorf("validate against commit %d: %w", rec.ID, err)
		}
		ops = rest
		switch {
		case !r.reads.changedBy(kind, key, value):
		case kind == batchlog.OpDeleteRange:
			return r.lostTo(rec.ID, r.reads.readIn(key, value))
		default:
			return r.lostTo(rec.ID, key)
		}
	}
	return nil
}

// lostTo is that commit id changed key, which r read.
func (r *request) lostTo(id batchlog.ID, key []byte) error {
	reads := r.prop.Reads
	return &batchlog.ConflictError{ID: id, Base: reads.Base, Stored: bytes.Clone(key), Reads: reads}
}
