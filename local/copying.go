package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// copies fills a chain with copies of ranges, beside which there may be other ops.
type copies struct {
	stage *stage
	list  []*copying
}

// A copying is a copy in a chain.
type copying struct {
	waist.RangeCopy
	seq uint64 // of the keys copied; of the range deletes of a move, that before
	// sorted is how far that is caught up which is in the stage's sorter.
	sorted caught
}

// A caught is how far a copy is caught up.
type caught struct {
	base batchlog.ID // the commit
	// restored says that a key of the target got back what it was, so that what others write there must be followed, too.
	restored bool
}

// begin adds a copy and brings its keys into the sorter, as a view has them.
func (f *copies) begin(ctx context.Context, rc waist.RangeCopy) error {
	g := f.stage
	g.holds.Store(min(g.holds.Load(), uint64(g.e.log.Head()+1))) // before the view, so that nothing after it is dropped
	view, err := g.e.View(ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return err
	}
	defer view.Close()
	c := &copying{RangeCopy: rc, seq: g.seq + 2, sorted: caught{base: view.ID()}}
	g.seq += 3
	fill := copyFill{stage: g, ctx: ctx, copying: c, caught: &c.sorted, into: g.sorter}
	if rc.Move && !rc.Tree { // also keys that are not there yet
		if err := fill.deleteRange(rc.Low, rc.High); err != nil {
			return err
		}
	}
	n := int64(0)
	err = eachKey(ctx, view, rc.Low, rc.High, func(key, value []byte) error {
		if n++; n%1024 == 0 {
			if err := g.usable(ctx); err != nil {
				return err
			}
			g.progress("copy", n, 0)
		}
		return fill.put(key, value)
	})
	if err != nil {
		return err
	}
	if err := fill.flush(); err != nil {
		return err
	}
	f.list = append(f.list, c)
	return nil
}

func (f *copies) fill(context.Context) error { panic("batchlog: bug: a copy is filled again") }
func (f *copies) mixes() bool                { return true }
func (f *copies) close() error               { return nil }

// eachKey calls visit for the stored keys of a view from low on and below high.
func eachKey(ctx context.Context, view waist.Snapshot, low, high []byte, visit func(key, value []byte) error) (err error) {
	cursor, err := view.Scan(ctx, low, high, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cursor.Close()) }()
	for {
		key, value, err := cursor.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = visit(key, value)
		}
		if err != nil {
			return err
		}
	}
}

// A copyFill adds what is copied to the chain.
type copyFill struct {
	stage *stage
	ctx   context.Context //nolint:containedctx // of one call
	*copying
	*caught
	into   *chainsort.Sorter
	late   *[]wire.KeyRange // takes what is found, if it is late; nil: it is not
	view   waist.Snapshot   // at the commit that the round goes to, or later; nil: the copy is begun
	ticket uint64           // of the round that nobody else writes there beside; 0: of another

	path    []byte // closed, of the space of the last key; its copy may be written
	ops     []byte
	count   int
	blobs   int
	deletes []byte // range deletes of a move
	deleted int
}

// enter checks that keys of the space of key may be copied, and has a move of a tree delete what is in it.
func (f *copyFill) enter(key []byte) error {
	if len(f.path) > 0 && bytes.HasPrefix(key, f.path) {
		return nil
	}
	path, _, err := wire.SplitKey(key)
	if err != nil {
		return err
	}
	f.path = append(f.path[:0], path...)
	to, _, err := wire.SplitKey(f.to(key))
	if err != nil {
		return err
	}
	if _, err := f.stage.e.db.Inside().SpaceAt(to); err != nil {
		return fmt.Errorf("copy of space %s: %w", batchlog.Key(path), err)
	}
	if f.Move && f.Tree {
		return f.deleteRange(path, behindOwn(path))
	}
	return nil
}

// put copies a key.
func (f *copyFill) put(key, value []byte) error {
	if err := f.enter(key); err != nil {
		return err
	}
	to := f.to(key)
	if err := batchlog.LimitKey.Check(len(to)); err != nil {
		return err
	}
	f.note(to, nil)
	return f.append(to, value)
}

// append adds a put of a stored value.
func (f *copyFill) append(to, value []byte) error {
	_, ref, err := wire.ParseValue(value)
	if err != nil {
		return err
	}
	if ref != nil {
		f.blobs++
	}
	f.ops = wire.AppendOp(f.ops, batchlog.OpPut, to, value)
	f.count++
	if len(f.ops) >= buildPiece {
		return f.flush()
	}
	return nil
}

func (f *copyFill) deleteRange(low, high []byte) error {
	f.deletes = wire.AppendOp(f.deletes, batchlog.OpDeleteRange, low, high)
	f.deleted++
	f.note(low, high)
	if len(f.deletes) >= buildPiece {
		return f.flush()
	}
	return nil
}

// flush adds what was gathered.
func (f *copyFill) flush() error {
	g := f.stage
	for _, part := range []struct {
		seq   uint64
		ops   []byte
		count int
	}{{f.seq - 1, f.deletes, f.deleted}, {f.seq, f.ops, f.count}} {
		if part.count == 0 {
			continue
		}
		if err := g.e.roster.Permit(f.ctx, &waist.Proposal{Ops: part.ops, Count: part.count, Ticket: f.ticket}); err != nil {
			return err
		}
		if f.blobs > 0 && part.seq == f.seq {
			if err := g.e.keepBlobs(&g.writer, part.ops, part.count); err != nil {
				return err
			}
		}
		if err := f.into.Add(part.seq, part.ops, part.count); err != nil {
			return chainError(err)
		}
		g.note(part.count, len(part.ops))
	}
	g.blobs += f.blobs
	f.ops, f.count, f.deletes, f.deleted, f.blobs = f.ops[:0], 0, f.deletes[:0], 0, 0
	return nil
}

// to is the copy of a key.
func (c *copying) to(key []byte) []byte {
	return append(append(make([]byte, 0, len(c.To)+len(key)-len(c.From)), c.To...), key[len(c.From):]...)
}

// toBound is the copy of the upper bound of a range within one space.
func (c *copying) toBound(high []byte) []byte {
	if !bytes.HasPrefix(high, c.From) {
		return behindOwn(c.To) // what is behind the own keys of the source
	}
	return c.to(high)
}

// from is the key that a key of the target is, or would be, the copy of.
func (c *copying) from(to []byte) []byte {
	return append(append(make([]byte, 0, len(c.From)+len(to)-len(c.To)), c.From...), to[len(c.To):]...)
}

// fromBound is from for the upper bound of a range within one space.
func (c *copying) fromBound(high []byte) []byte {
	if !bytes.HasPrefix(high, c.To) {
		return behindOwn(c.From)
	}
	return c.from(high)
}

// target is the range that the copy is in.
func (c *copying) target() (low, high []byte) {
	if c.Tree {
		return c.To, append(bytes.Clone(c.To), 0xff)
	}
	return c.to(c.Low), c.toBound(c.High)
}

// behindOwn is the first stored key behind the own keys of the space with this closed path.
func behindOwn(path []byte) []byte {
	b := bytes.Clone(path)
	b[len(b)-1] = 1
	return b
}

// openPath is a path, closed unless it is that of a tree, without its end.
func openPath(path []byte, tree bool) []byte {
	if tree {
		return path
	}
	return path[:len(path)-1]
}
