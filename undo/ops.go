package undo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// ops are those of a commit, to be looked up by key, ascending. They come from sources of which a later one wins: the stretches of the file of a chain, each of which is
// sorted, and what the record holds itself, in the order in which it was written.
type ops struct{ sources []source }

// A source is sorted ops. Keys are asked for in ascending order, each once.
type source interface {
	// at is what the ops leave under key, nil for none; ok: they say something. What lies before is gone.
	at(key []byte) (left []byte, ok bool, err error)
	Close() error
}

func openOps(ctx context.Context, r *wire.Record) (_ *ops, err error) {
	o := &ops{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("commit %d: %w", r.ID, err), o.Close())
		}
	}()
	inline := r.Count
	if r.Chain != nil {
		inline -= r.Chain.Count
		starts, err := stretchesOf(ctx, r.Chain)
		if err != nil {
			return nil, err
		}
		for i, start := range starts {
			end := r.Chain.Count
			if i+1 < len(starts) {
				end = starts[i+1]
			}
			s, err := openStretch(ctx, r.Chain, start, end)
			if err != nil {
				return nil, err
			}
			o.sources = append(o.sources, s)
		}
	}
	if inline > 0 {
		s, err := indexOps(r.Ops, inline)
		if err != nil {
			return nil, err
		}
		o.sources = append(o.sources, s)
	}
	return o, nil
}

// at is what the commit leaves under key, nil for none.
func (o *ops) at(key []byte) (left []byte, ok bool, err error) {
	for _, s := range slices.Backward(o.sources) {
		if ok {
			break
		}
		if left, ok, err = s.at(key); err != nil {
			return nil, false, err
		}
	}
	return left, ok, nil
}

func (o *ops) Close() error {
	var err error
	for _, s := range o.sources {
		err = errors.Join(err, s.Close())
	}
	return err
}

// leaves is what a put or a delete leaves, nil for none.
func leaves(kind batchlog.OpKind, value []byte) []byte {
	if kind == batchlog.OpPut {
		return present(value)
	}
	return nil
}

// stretchesMax bounds the stretches of a chain: each has the file open once.
const stretchesMax = 64

// stretchesOf counts where the stretches in the file of a chain begin. There is no other way than to read it.
func stretchesOf(ctx context.Context, c *wire.ChainRef) (starts []int, err error) {
	in, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	n := 0
	var stretches wire.Stretches
	for {
		if err := ended(ctx); err != nil {
			return nil, err
		}
		ops, count, err := in.Next()
		if errors.Is(err, io.EOF) {
			return starts, nil
		}
		if err != nil {
			return nil, err
		}
		err = wire.EachOp(ops, count, func(kind batchlog.OpKind, key, _ []byte) error {
			if stretches.Begin(kind, key) {
				starts = append(starts, n)
			}
			if len(starts) > stretchesMax {
				return &batchlog.LimitError{What: "number of sorted stretches in a chain", Size: int64(len(starts)), Limit: stretchesMax, Hint: "go back to the commit before it with To"}
			}
			n++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
}

// A stretch is read from the file of a chain.
type stretch struct {
	ctx      context.Context //nolint:containedctx // of one call
	in       wire.OpReader
	skipping int // ops before it
	more     int // ops of it that are not decoded
	rest     []byte
	left     int // ops in rest

	kind       batchlog.OpKind // of the next op
	key, value []byte          // nil key: there is none
	low, high  []byte          // the last range delete
}

func openStretch(ctx context.Context, c *wire.ChainRef, start, end int) (*stretch, error) {
	in, err := c.Open()
	if err != nil {
		return nil, err
	}
	s := &stretch{ctx: ctx, in: in, skipping: start, more: end - start}
	if err := s.decode(); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return s, nil
}

// decode sets the next op.
func (s *stretch) decode() (err error) {
	if s.more == 0 {
		s.key = nil
		return nil
	}
	for {
		for s.left == 0 {
			if err := ended(s.ctx); err != nil {
				return err
			}
			if s.rest, s.left, err = s.in.Next(); errors.Is(err, io.EOF) {
				return errFewOps
			} else if err != nil {
				return err
			}
		}
		s.kind, s.key, s.value, s.rest, err = wire.NextOp(s.rest)
		s.left--
		if err != nil {
			return err
		}
		if s.skipping == 0 {
			s.more--
			return nil
		}
		s.skipping--
	}
}

var errFewOps = errors.New("chain with fewer ops than its commit says")

// skip goes past the next op.
func (s *stretch) skip() error {
	if s.kind == batchlog.OpDeleteRange {
		s.low, s.high = s.key, s.value
	}
	return s.decode()
}

func (s *stretch) at(key []byte) ([]byte, bool, error) {
	for s.key != nil {
		order := bytes.Compare(s.key, key)
		if order > 0 {
			break
		}
		if order == 0 && s.kind != batchlog.OpDeleteRange {
			left := leaves(s.kind, s.value)
			return left, true, s.skip()
		}
		if err := s.skip(); err != nil {
			return nil, false, err
		}
	}
	return nil, s.high != nil && string(s.low) <= string(key) && string(key) < string(s.high), nil
}

func (s *stretch) Close() error { return s.in.Close() }

// An index is of ops in memory, in any order: where each begins, sorted by key. So it takes 4 bytes an op.
type index struct {
	ops    []byte
	points []uint32 // of puts and deletes, by key; of one key, the last comes last
	ranges []uint32 // of range deletes, by the lowest key
	open   []uint32 // ranges that were gone past and may cover keys to come: a heap, the last one on top
}

func indexOps(ops []byte, count int) (*index, error) {
	x := &index{ops: ops}
	for at := 0; count > 0; count-- {
		kind, _, _, rest, err := wire.NextOp(ops[at:])
		if err != nil {
			return nil, err
		}
		if kind == batchlog.OpDeleteRange {
			x.ranges = append(x.ranges, uint32(at))
		} else {
			x.points = append(x.points, uint32(at))
		}
		at = len(ops) - len(rest)
	}
	sorted := func(a, b uint32) int {
		_, p, _ := x.op(a)
		_, q, _ := x.op(b)
		return cmp.Or(bytes.Compare(p, q), cmp.Compare(a, b))
	}
	slices.SortFunc(x.points, sorted)
	slices.SortFunc(x.ranges, sorted)
	return x, nil
}

// op is the op that begins there: it was decoded before.
func (x *index) op(at uint32) (kind batchlog.OpKind, key, value []byte) {
	kind, key, value, _, err := wire.NextOp(x.ops[at:])
	if err != nil {
		panic("undo: bug: op that can't be decoded again: " + err.Error())
	}
	return kind, key, value
}

// pass opens the ranges whose lowest key is key or before.
func (x *index) pass(key []byte) {
	for len(x.ranges) > 0 {
		if _, low, _ := x.op(x.ranges[0]); string(low) > string(key) {
			return
		}
		x.push(x.ranges[0])
		x.ranges = x.ranges[1:]
	}
}

func (x *index) at(key []byte) (left []byte, ok bool, err error) {
	x.pass(key)
	point := -1
	for len(x.points) > 0 {
		kind, k, value := x.op(x.points[0])
		order := bytes.Compare(k, key)
		if order > 0 {
			break
		}
		if order == 0 {
			left, ok, point = leaves(kind, value), true, int(x.points[0])
		}
		x.points = x.points[1:]
	}
	for len(x.open) > 0 {
		if _, _, high := x.op(x.open[0]); string(key) < string(high) {
			break
		}
		x.pop() // it covers no later key either
	}
	if len(x.open) > 0 && int(x.open[0]) > point {
		return nil, true, nil
	}
	return left, ok, nil
}

func (x *index) Close() error { return nil }

func (x *index) push(at uint32) {
	x.open = append(x.open, at)
	for i := len(x.open) - 1; i > 0; {
		up := (i - 1) / 2
		if x.open[up] >= x.open[i] {
			return
		}
		x.open[up], x.open[i] = x.open[i], x.open[up]
		i = up
	}
}

func (x *index) pop() {
	n := len(x.open) - 1
	x.open[0] = x.open[n]
	x.open = x.open[:n]
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			return
		}
		if down+1 < n && x.open[down+1] > x.open[down] {
			down++
		}
		if x.open[i] >= x.open[down] {
			return
		}
		x.open[i], x.open[down] = x.open[down], x.open[i]
		i = down
	}
}
