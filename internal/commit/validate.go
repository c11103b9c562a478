package commit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/bytespace/batchlog"
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
	groups [][]batchlog.Record // in order of ids, without holes
	next   batchlog.ID         // of the commit after the last
	bytes  int64
}

func (w *window) add(group []batchlog.Record) {
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
func (w *window) after(id batchlog.ID, visit func(r *batchlog.Record) error) (last batchlog.ID, ok bool, err error) {
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
	later := append([][]batchlog.Record(nil), groups[at:]...) // the slots behind groups are cleared when it moves on
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

// fewKeys is up to how many keys a transaction's reads are compared one by one.
const fewKeys = 8

// prevalidate checks the reads of r against all commits there are now.
func (p *Pipeline) prevalidate(ctx context.Context, r *request) error {
	reads := r.prop.Reads
	if len(reads.Keys) > fewKeys {
		r.keys = make(map[string]struct{}, len(reads.Keys))
		for _, k := range reads.Keys {
			r.keys[string(k)] = struct{}{}
		}
	}
	r.checked = reads.Base
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
		return tooOld(err)
	}
	defer reader.Close()
	for r.checked < head {
		records, scanned, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return tooOld(err)
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
func tooOld(err error) error {
	if errors.Is(err, batchlog.ErrGap) {
		return fmt.Errorf("%w: the log no longer goes back to the transaction's view: %w", batchlog.ErrConflict, err)
	}
	return err
}

// validate checks the reads of r against the commits since it was checked, those of the group that is being built included.
func (p *Pipeline) validate(r *request) error {
	if r.prop.Reads == nil {
		return nil
	}
	_, ok, err := p.recent.after(r.checked, r.conflict)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: too much was committed since the transaction was checked", batchlog.ErrConflict)
	}
	for i := range p.records {
		if err := r.conflict(&p.records[i]); err != nil {
			return err
		}
	}
	return nil
}

// conflict returns an ErrConflict if rec changes what r read.
func (r *request) conflict(rec *batchlog.Record) error {
	inline := rec.Count
	if c := rec.Chain; c != nil {
		if r.mayConflict(c) {
			return fmt.Errorf("%w: commit %d, a chain, may have changed what the transaction read at %d", batchlog.ErrConflict, rec.ID, r.prop.Reads.Base)
		}
		inline -= c.Count
	}
	ops := rec.Ops
	for range inline {
		kind, key, value, rest, err := batchlog.NextOp(ops)
		if err != nil {
			return fmt.Errorf("validate against commit %d: %w", rec.ID, err)
		}
		ops = rest
		var hit bool
		if kind == batchlog.OpDeleteRange {
			hit = r.readWithin(key, value)
		} else {
			hit = r.read(key)
		}
		if hit {
			return fmt.Errorf("%w: commit %d changed what the transaction read at %d", batchlog.ErrConflict, rec.ID, r.prop.Reads.Base)
		}
	}
	return nil
}

// mayConflict reports whether the spans of c touch what r read. That is less than to have changed it, but needs no look at its ops: the write
// loop is not held up by the size of a chain. The transaction runs again on top of it.
func (r *request) mayConflict(c *batchlog.ChainRef) bool {
	for i := range c.Spans {
		if r.readWithin(c.Spans[i].Low, c.Spans[i].High) {
			return true
		}
	}
	return false
}

// read reports whether r read key.
func (r *request) read(key []byte) bool {
	reads := r.prop.Reads
	if r.keys != nil {
		if _, ok := r.keys[string(key)]; ok {
			return true
		}
	} else {
		for _, k := range reads.Keys {
			if bytes.Equal(k, key) {
				return true
			}
		}
	}
	for i := range reads.Ranges {
		if bytes.Compare(reads.Ranges[i].Low, key) <= 0 && bytes.Compare(key, reads.Ranges[i].High) < 0 {
			return true
		}
	}
	return false
}

// readWithin reports whether r read a key, or part of a range, from low on and below high.
func (r *request) readWithin(low, high []byte) bool {
	for _, k := range r.prop.Reads.Keys {
		if bytes.Compare(low, k) <= 0 && bytes.Compare(k, high) < 0 {
			return true
		}
	}
	for _, read := range r.prop.Reads.Ranges {
		if bytes.Compare(low, read.High) < 0 && bytes.Compare(read.Low, high) < 0 {
			return true
		}
	}
	return false
}
