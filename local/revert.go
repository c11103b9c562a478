package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
)

// A revert puts the inverses of all commits since into the chain, from the newest to the oldest, so that of each key the oldest wins: the value that the key had
// then. What has that value, by the view that the revert began with, is left out again when the chain is built. That takes time with what has changed since, while
// others commit. Keys that they write meanwhile get the value that the chain knows of, or, if it is not about them, that which they had when the revert began, as they had not changed
// until then. The last of these are looked up while nobody else writes there.
type reverting struct {
	batchlog.Revert
	view     batchlog.Snapshot // when it began
	followed batchlog.ID       // the commit up to which the log was looked through for keys of others
	fresh    map[string]bool   // keys of others that are yet to be looked up
	late     []byte            // what becomes of those that were: ops
	lateKeys map[string]bool
	count    int
	blobs    int
}

const (
	// revertRounds bounds how often keys of others are looked up before nobody else commits.
	revertRounds = 16
	// revertPass is up to how many ops in the chain it is gone through once as a whole while nobody else writes there.
	revertPass = 1 << 21
	// revertLateBytes bounds the keys of others in memory, and what becomes of them.
	revertLateBytes = batchlog.MaxBatchBytes / 4
)

// Revert is as batchlog.Stage says.
func (g *stage) Revert(ctx context.Context, r batchlog.Revert) error {
	if err := g.usable(ctx); err != nil {
		return err
	}
	if head := g.e.log.Head(); r.To > head {
		return fmt.Errorf("commit %d of 0 to %d: %w", r.To, head, batchlog.ErrNotFound)
	}
	if r.To+1 < g.e.log.Oldest() {
		return &batchlog.InverseError{ID: r.To + 1, Gone: true}
	}
	return g.beginRevert(ctx, r)
}

// beginRevert fills the chain.
func (g *stage) beginRevert(ctx context.Context, r batchlog.Revert) (err error) {
	if err := g.dropRevert(); err != nil {
		return err
	}
	g.holds.Store(uint64(g.e.log.Head() + 1)) // before the view, so that nothing after it is dropped
	view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return err
	}
	g.revert = &reverting{Revert: r, view: view, followed: view.ID(), fresh: map[string]bool{}, lateKeys: map[string]bool{}}
	if err := g.spill(); err != nil {
		return err
	}
	f := revertFill{stage: g, ctx: ctx}
	err = g.e.store.EachInverse(ctx, r.To, view.ID(), func(_ batchlog.ID, ops []byte, count int) error {
		if err := g.usable(ctx); err != nil {
			return err
		}
		return batchlog.EachOp(ops, count, f.add)
	})
	if err == nil {
		err = f.flush()
	}
	return g.e.inverseError(err)
}

// dropRevert forgets what was filled in.
func (g *stage) dropRevert() error {
	if g.revert == nil {
		return nil
	}
	g.dropBuilt()
	err := g.revert.view.Close()
	g.revert = nil
	if g.sorter != nil {
		err = errors.Join(err, g.sorter.Close())
		g.sorter = nil
	}
	g.blobs = 0
	g.ops.Store(0)
	g.bytes.Store(0)
	return chainError(err)
}

// A revertFill adds inverses to the chain.
type revertFill struct {
	stage *stage
	ctx   context.Context //nolint:containedctx // of one call

	path []byte // closed, of the space of the last key
	own  bool   // that is one that a task derives

	ops   []byte
	count int
	blobs int
	done  int64
}

func (f *revertFill) add(kind batchlog.OpKind, key, value []byte) error {
	r := f.stage.revert
	if bytes.Compare(key, r.Low) < 0 || bytes.Compare(key, r.High) >= 0 {
		return nil
	}
	if len(f.path) == 0 || !bytes.HasPrefix(key, f.path) {
		path, _, err := batchlog.SplitKey(key)
		if err != nil {
			return err
		}
		f.path, f.own = append(f.path[:0], path...), f.stage.e.roster.Derives(path)
	}
	if f.own {
		return nil
	}
	if kind == batchlog.OpPut {
		_, ref, err := batchlog.ParseValue(value)
		if err != nil {
			return err
		}
		if ref != nil {
			f.blobs++
		}
	}
	f.ops = batchlog.AppendOp(f.ops, kind, key, value)
	if f.count++; len(f.ops) >= buildPiece {
		return f.flush()
	}
	return nil
}

// flush adds what was gathered.
func (f *revertFill) flush() error {
	if f.count == 0 {
		return nil
	}
	g := f.stage
	if f.blobs > 0 {
		if err := g.e.keepBlobs(&g.writer, f.ops, f.count); err != nil {
			return err
		}
	}
	if err := g.sorter.Add(g.seq, f.ops, f.count); err != nil { // the last one wins, which is the oldest
		return chainError(err)
	}
	g.note(f.count, len(f.ops))
	g.blobs += f.blobs
	f.done += int64(f.count)
	g.progress("revert", f.done, 0)
	f.ops, f.count, f.blobs = f.ops[:0], 0, 0
	return nil
}

// errLate says that others have written too much since a revert began: it begins again.
var errLate = fmt.Errorf("%w: much was written while the state was brought back", batchlog.ErrConflict)

// tryRevert brings a revert up to the head of the log and commits it. An ErrConflict may be tried again.
func (g *stage) tryRevert(ctx context.Context, p *batchlog.Proposal) (id batchlog.ID, err error) {
	defer func() {
		if errors.Is(err, errLate) {
			err = errors.Join(err, g.beginRevert(ctx, g.revert.Revert))
		}
	}()
	if g.built == nil {
		if err := g.build(ctx); err != nil {
			return 0, err
		}
	}
	r := g.revert
	for range revertRounds {
		if err := g.followOthers(ctx); err != nil {
			return 0, err
		}
		few := len(r.fresh) <= lateMax
		if err := g.lookUp(ctx); err != nil {
			return 0, err
		}
		if few {
			break
		}
	}
	if g.built.chain != nil {
		g.progress("commit", 0, 0)
		if err := g.e.flush(ctx, g.e.store.Applied()); err != nil {
			return 0, err
		}
	}
	within := []batchlog.KeyRange{{Low: r.Low, High: r.High}}
	ticket, release, err := g.e.Protect(ctx, 0, &batchlog.Reads{Ranges: within})
	if err != nil {
		return 0, err
	}
	defer release()
	if err := g.followOthers(ctx); err != nil {
		return 0, err
	}
	if ops, _, _ := g.sorter.Size(); len(r.fresh) > lateMax && ops > revertPass {
		return 0, errLate
	}
	if err := g.lookUp(ctx); err != nil {
		return 0, err
	}
	last := batchlog.Proposal{
		Token: p.Token, Meta: p.Meta, Ticket: ticket, Ops: append(slices.Clip(r.late), p.Ops...), Count: r.count + p.Count, Blobs: r.blobs + p.Blobs,
		Reads: &batchlog.Reads{Base: r.followed, Ranges: within}, // should the protection be over by now
	}
	return g.propose(ctx, &last)
}

// followOthers finds the keys that others have written since.
func (g *stage) followOthers(ctx context.Context) (err error) {
	r := g.revert
	head := g.e.log.Head()
	if r.followed >= head {
		return nil
	}
	reader, err := g.e.log.Reader(batchlog.LogOptions{From: batchlog.After(r.followed), Until: head, Within: [][]byte{r.Low}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	size := 0
	note := func(key []byte) error {
		if bytes.Compare(key, r.Low) < 0 || bytes.Compare(key, r.High) >= 0 || r.lateKeys[string(key)] || r.fresh[string(key)] {
			return nil
		}
		r.fresh[string(key)] = true
		if size += len(key) + 64; size > revertLateBytes {
			return errLate
		}
		return nil
	}
	for {
		records, _, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			r.followed = head
			return nil
		}
		if err != nil {
			return err
		}
		for i := range records {
			err := records[i].EachOp(func(kind batchlog.OpKind, key, value []byte) error {
				if kind != batchlog.OpDeleteRange {
					return note(key)
				}
				low, high, ok := clip(kind, key, value, r.Low, r.High)
				if !ok {
					return nil
				}
				return eachKey(ctx, r.view, low, high, func(key, _ []byte) error { return note(key) })
			})
			if err != nil {
				return err
			}
		}
	}
}

// lookUp decides what becomes of the keys that others have written.
func (g *stage) lookUp(ctx context.Context) error {
	r := g.revert
	if len(r.fresh) == 0 {
		return nil
	}
	keys := make([]string, 0, len(r.fresh))
	for key := range r.fresh {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	known := map[string]bool{} // to the chain
	take := func(n chainsort.Net) error {
		known[string(n.Key)] = true
		kind := batchlog.OpDelete
		if n.Kind == chainsort.NetPut {
			kind = batchlog.OpPut
		}
		return r.addLate(kind, n.Key, n.Value)
	}
	if len(keys) <= lateMax {
		for _, key := range keys {
			if err := g.sorter.Net(ctx, []byte(key), append([]byte(key), 0), take); err != nil {
				return chainError(err)
			}
		}
	} else {
		rest := keys
		err := g.sorter.Net(ctx, []byte(keys[0]), append([]byte(keys[len(keys)-1]), 0), func(n chainsort.Net) error {
			for len(rest) > 0 && rest[0] < string(n.Key) {
				rest = rest[1:]
			}
			if len(rest) > 0 && rest[0] == string(n.Key) {
				return take(n)
			}
			return nil
		})
		if err != nil {
			return chainError(err)
		}
	}
	for _, key := range keys {
		if !known[key] {
			if err := g.restoreLate(ctx, []byte(key)); err != nil {
				return err
			}
		}
		r.lateKeys[key] = true
	}
	clear(r.fresh)
	return nil
}

// restoreLate gives a key back what it had when the revert began.
func (g *stage) restoreLate(ctx context.Context, key []byte) error {
	r := g.revert
	path, _, err := batchlog.SplitKey(key)
	if err != nil {
		return err
	}
	if g.e.roster.Derives(path) {
		return nil
	}
	value, err := r.view.Get(ctx, key)
	if errors.Is(err, batchlog.ErrNotFound) {
		return r.addLate(batchlog.OpDelete, key, nil)
	}
	if err != nil {
		return err
	}
	return r.addLate(batchlog.OpPut, key, value)
}

// addLate adds an op on a key that others have written.
func (r *reverting) addLate(kind batchlog.OpKind, key, value []byte) error {
	if kind == batchlog.OpPut {
		_, ref, err := batchlog.ParseValue(value)
		if err != nil {
			return err
		}
		if ref != nil {
			r.blobs++
		}
	}
	r.count++
	r.late = batchlog.AppendOp(r.late, kind, key, value)
	if len(r.late) > revertLateBytes {
		return errLate
	}
	return nil
}
