package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A revert puts the inverses of all commits since into the chain, from the newest to the oldest, so that of each key the oldest wins: the value that the key had
// then. What has that value, by the view that the revert began with, is left out again when the chain is built. That takes time with what has changed since, while
// others commit. Keys that they write meanwhile get the value that the chain knows of, or, if it is not about them, that which they had when the revert began, as they had not changed
// until then. The last of these are looked up while nobody else writes there.
type reverting struct {
	waist.Revert
	stage *stage

	view     waist.Snapshot  // when it began; nil: it has not
	followed batchlog.ID     // the commit up to which the log was looked through for keys of others
	fresh    map[string]bool // keys of others that are yet to be looked up
	late     lateOps         // what becomes of those that were
	lateKeys map[string]bool
}

// lateOps are ops on keys that others have written.
type lateOps struct {
	ops   []byte
	count int
	blobs int
}

// revertRounds bounds how often keys of others are looked up before the last time.
const revertRounds = 16

// errLate says that others have written too much since a stage was filled: it is filled again.
var errLate = fmt.Errorf("%w: much was written while the state was brought back", batchlog.ErrConflict)

// known reports why the state to go back to is not known, as far as that can be told at once.
func (r *reverting) known() error {
	log := r.stage.e.log
	if head := log.Head(); r.To > head {
		return fmt.Errorf("commit %d of 0 to %d: %w", r.To, head, batchlog.ErrNotFound)
	}
	if r.To+1 < log.Oldest() {
		return &batchlog.InverseError{ID: r.To + 1, Gone: true}
	}
	return nil
}

// fill is as filler says.
func (r *reverting) fill(ctx context.Context) error {
	if err := r.forget(); err != nil {
		return err
	}
	g := r.stage
	g.holds.Store(uint64(g.e.log.Head() + 1)) // before the view, so that nothing after it is dropped
	view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return err
	}
	*r = reverting{Revert: r.Revert, stage: g, view: view, followed: view.ID(), fresh: map[string]bool{}, lateKeys: map[string]bool{}}
	if err := g.makeSorter(); err != nil {
		return err
	}
	f := revertFill{stage: g, revert: r, ctx: ctx}
	err = g.e.store.EachInverse(ctx, r.To, view.ID(), func(_ batchlog.ID, ops []byte, count int) error {
		if err := g.usable(ctx); err != nil {
			return err
		}
		return wire.EachOp(ops, count, f.add)
	})
	if err == nil {
		err = f.flush()
	}
	return g.e.inverseError(err)
}

// forget forgets what was filled in. If it fails it can be called again.
func (r *reverting) forget() error {
	g := r.stage
	if err := r.close(); err != nil {
		return err
	}
	if g.sorter != nil {
		if err := g.sorter.Close(); err != nil {
			return chainError(err)
		}
		g.sorter = nil
	}
	g.blobs = 0
	g.ops.Store(0)
	g.bytes.Store(0)
	return nil
}

// close is as filler says.
func (r *reverting) close() error {
	view := r.view
	if r.view = nil; view == nil {
		return nil
	}
	return view.Close()
}

func (r *reverting) mixes() bool { return false }

// A revertFill adds inverses to the chain.
type revertFill struct {
	stage  *stage
	revert *reverting
	ctx    context.Context //nolint:containedctx // of one call

	path []byte // closed, of the space of the last key
	own  bool   // that is one that a task derives

	ops   []byte
	count int
	blobs int
	done  int64
}

func (f *revertFill) add(kind batchlog.OpKind, key, value []byte) error {
	r := f.revert
	if bytes.Compare(key, r.Low) < 0 || bytes.Compare(key, r.High) >= 0 {
		return nil
	}
	if len(f.path) == 0 || !bytes.HasPrefix(key, f.path) {
		path, _, err := wire.SplitKey(key)
		if err != nil {
			return err
		}
		f.path, f.own = append(f.path[:0], path...), f.stage.e.roster.Derives(path)
	}
	if f.own {
		return nil
	}
	if kind == batchlog.OpPut {
		_, ref, err := wire.ParseValue(value)
		if err != nil {
			return err
		}
		if ref != nil {
			f.blobs++
		}
	}
	f.ops = wire.AppendOp(f.ops, kind, key, value)
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

// catchUp is as filler says: it decides what becomes of keys that others have written.
func (r *reverting) catchUp(ctx context.Context) error {
	if r.stage.state != isBuilt {
		return nil
	}
	for range revertRounds {
		if err := r.followOthers(ctx); err != nil {
			return err
		}
		few := len(r.fresh) <= r.stage.e.chains.pace.late
		if err := r.lookUp(ctx); err != nil {
			return err
		}
		if few {
			break
		}
	}
	return nil
}

// watches is as filler says.
func (r *reverting) watches() *waist.Reads {
	return &waist.Reads{Ranges: []wire.KeyRange{{Low: r.Low, High: r.High}}}
}

// last is as filler says.
func (r *reverting) last(ctx context.Context, ticket uint64, p *waist.Proposal) (*waist.Proposal, error) {
	if err := r.followOthers(ctx); err != nil {
		return nil, err
	}
	pace := r.stage.e.chains.pace
	if ops, _, _ := r.stage.sorter.Size(); len(r.fresh) > pace.late && ops > pace.pass {
		return nil, errLate
	}
	if err := r.lookUp(ctx); err != nil {
		return nil, err
	}
	reads := r.watches() // should the protection be over by now
	reads.Base = r.followed
	return &waist.Proposal{
		Token: p.Token, Meta: p.Meta, Ticket: ticket, Ops: append(slices.Clip(r.late.ops), p.Ops...), Count: r.late.count + p.Count, Blobs: r.late.blobs + p.Blobs, Reads: reads,
	}, nil
}

// followOthers finds the keys that others have written since.
func (r *reverting) followOthers(ctx context.Context) (err error) {
	log := r.stage.e.log
	head := log.Head()
	if r.followed >= head {
		return nil
	}
	reader, err := log.Reader(batchlog.LogOptions{From: batchlog.After(r.followed), Until: head, Within: [][]byte{r.Low}})
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
		if size += len(key) + 64; size > r.stage.e.chains.pace.lateBytes {
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

// lookUp decides what becomes of the keys that others have written, of all or, if it fails, of none.
func (r *reverting) lookUp(ctx context.Context) error {
	if len(r.fresh) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(r.fresh))
	late := lateOps{ops: slices.Clip(r.late.ops), count: r.late.count, blobs: r.late.blobs}
	add := func(kind batchlog.OpKind, key, value []byte) error {
		if err := late.add(kind, key, value); err != nil {
			return err
		}
		if len(late.ops) > r.stage.e.chains.pace.lateBytes {
			return errLate
		}
		return nil
	}
	known := map[string]bool{} // to the chain
	err := r.eachNet(ctx, keys, func(n chainsort.Net) error {
		known[string(n.Key)] = true
		if n.Kind == chainsort.NetPut {
			return add(batchlog.OpPut, n.Key, n.Value)
		}
		return add(batchlog.OpDelete, n.Key, nil)
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		if known[key] {
			continue
		}
		if err := r.restore(ctx, []byte(key), add); err != nil {
			return err
		}
	}
	r.late = late
	for _, key := range keys {
		r.lateKeys[key] = true
	}
	clear(r.fresh)
	return nil
}

// eachNet calls take for the net effect of what was filled in on each of keys, which are sorted.
func (r *reverting) eachNet(ctx context.Context, keys []string, take func(n chainsort.Net) error) error {
	g := r.stage
	if len(keys) <= g.e.chains.pace.late {
		for _, key := range keys {
			if err := g.sorter.Net(ctx, []byte(key), append([]byte(key), 0), take); err != nil {
				return chainError(err)
			}
		}
		return nil
	}
	rest := keys
	return chainError(g.sorter.Net(ctx, []byte(keys[0]), append([]byte(keys[len(keys)-1]), 0), func(n chainsort.Net) error {
		for len(rest) > 0 && rest[0] < string(n.Key) {
			rest = rest[1:]
		}
		if len(rest) > 0 && rest[0] == string(n.Key) {
			return take(n)
		}
		return nil
	}))
}

// restore gives a key back what it had when the revert began.
func (r *reverting) restore(ctx context.Context, key []byte, add func(kind batchlog.OpKind, key, value []byte) error) error {
	path, _, err := wire.SplitKey(key)
	if err != nil {
		return err
	}
	if r.stage.e.roster.Derives(path) {
		return nil
	}
	value, err := r.view.Get(ctx, key)
	if errors.Is(err, batchlog.ErrNotFound) {
		return add(batchlog.OpDelete, key, nil)
	}
	if err != nil {
		return err
	}
	return add(batchlog.OpPut, key, value)
}

// add adds an op.
func (l *lateOps) add(kind batchlog.OpKind, key, value []byte) error {
	if kind == batchlog.OpPut {
		_, ref, err := wire.ParseValue(value)
		if err != nil {
			return err
		}
		if ref != nil {
			l.blobs++
		}
	}
	l.count++
	l.ops = wire.AppendOp(l.ops, kind, key, value)
	return nil
}
