package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/chainsort"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/seglog"
	"github.com/bytespace/batchlog/internal/store"
	"github.com/bytespace/batchlog/internal/wire"
)

// built is what a chain comes to: the file that the log will hold, and tables for the store, both in stretches; a small one is in memory.
type built struct {
	stage *stage

	small      []byte
	smallCount int

	chain  *seglog.Chain      // nil: all is in small
	writer *store.TableWriter // of tables
	tables *store.Tables
	spans  spans
	bytes  int64 // that were reserved

	since builtSince
}

// inMemory reports whether all is in small.
func (b *built) inMemory() bool { return b.chain == nil }

// buildPiece is how many bytes of ops go into one group of a chain's file.
const buildPiece = 256 << 10

// build makes the net effect of what was added. It is the longest part of a commit, so it comes before the chain has its id: to apply the
// chain is to take the tables in.
func (g *stage) build(ctx context.Context) error {
	b := &built{stage: g}
	if f, ok := g.filler.(*copies); ok {
		b.since = f.sinceNow()
	}
	if err := b.stretch(ctx, g.sorter, "sort"); err != nil {
		b.drop()
		return err
	}
	g.to(isBuilt)
	g.built = b
	return nil
}

// stretch adds the net effect of what is in s to what is built. One goroutine merges and writes the file, another makes the tables. After an error what is built can
// only be dropped.
func (b *built) stretch(ctx context.Context, s *chainsort.Sorter, what string) (err error) {
	total, _, _ := s.Size()
	w := &builder{stage: b.stage, ctx: ctx, built: b, what: what, total: total}
	if !b.inMemory() {
		w.start()
	}
	if r, ok := b.stage.filler.(*reverting); ok {
		w.before = &walk{view: r.view, high: r.High}
		defer func() { err = errors.Join(err, w.before.close()) }()
	}
	err = s.Net(ctx, nil, nil, w.take)
	if err == nil {
		err = w.flushLast()
	}
	return chainError(errors.Join(err, w.finish(err == nil)))
}

// drop removes what was built.
func (b *built) drop() {
	b.dropLate()
	if b.inMemory() {
		return
	}
	if err := errors.Join(b.chain.Drop(), b.writer.Drop()); err != nil {
		b.stage.e.opts.Logger.Warn("files of a chain not removed; they will be swept", "err", err)
	}
	_ = b.stage.reserve(-b.bytes) // giving back can't fail
}

// ref is how the record of the commit refers to what is built; nil if that is small.
func (b *built) ref(l *seglog.Log) *wire.ChainRef {
	if b.inMemory() {
		return nil
	}
	m := b.chain.Mark()
	ref := &wire.ChainRef{File: b.chain.File, Sum: m.Sum, Count: m.Count, Bytes: m.Bytes, End: m.End, Source: l}
	ref.Spans, ref.Coarse = b.spans.ranges()
	return ref
}

// A builder takes the ops of a stretch.
type builder struct {
	stage       *stage
	before      *walk           // of a revert: the state when it began; nil: it is none
	ctx         context.Context //nolint:containedctx // of one stretch
	built       *built
	what        string
	done, total int64

	piece []byte
	count int

	pieces chan piece  // to tablesLoop; nil: it does not run
	free   chan []byte // back from it
	made   chan error  // what it has come to
}

type piece struct {
	ops   []byte
	count int
}

func (w *builder) take(n chainsort.Net) error {
	kind, ok := opKind(n.Kind)
	if !ok {
		return nil // nothing is left of what there was
	}
	if w.before != nil { // what had what it is to get when the revert began is left out
		now, err := w.before.get(w.ctx, n.Key)
		if err != nil || (now != nil) == (kind == batchlog.OpPut) && bytes.Equal(now, n.Value) {
			return err
		}
	}
	var high []byte
	if kind == batchlog.OpDeleteRange {
		high = n.Value
	}
	if err := w.built.spans.touch(n.Key, high); err != nil {
		return err
	}
	// A large op begins a group: behind others it could make one that no reader takes.
	if w.count > 0 && len(w.piece)+opBytes(n.Key, n.Value) > w.limit() {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.piece = wire.AppendOp(w.piece, kind, n.Key, n.Value)
	w.count++
	if len(w.piece) < w.limit() {
		return nil
	}
	return w.flush()
}

// limit is how many bytes of ops are put together: of a group, or of what stays in memory.
func (w *builder) limit() int {
	if w.built.inMemory() {
		return w.stage.e.inlineBytes()
	}
	return buildPiece
}

// opBytes is what an op takes at most.
func opBytes(key, value []byte) int { return 1 + 2*binary.MaxVarintLen32 + len(key) + len(value) }

// opKind is the kind of the op that a net effect is; ok is false if it is none.
func opKind(n chainsort.NetKind) (kind batchlog.OpKind, ok bool) {
	switch n {
	case chainsort.NetPut:
		return batchlog.OpPut, true
	case chainsort.NetDelete:
		return batchlog.OpDelete, true
	case chainsort.NetDeleteRange:
		return batchlog.OpDeleteRange, true
	default:
		return 0, false
	}
}

// flush writes the piece.
func (w *builder) flush() error {
	if w.built.inMemory() {
		if err := w.begin(); err != nil {
			return err
		}
	}
	size := int64(len(w.piece))
	if err := w.stage.reserve(2 * size); err != nil { // in the file and in tables
		return err
	}
	w.built.bytes += 2 * size
	if err := w.built.chain.Add(w.piece, w.count); err != nil {
		return err
	}
	w.done += int64(w.count)
	w.stage.progress(w.what, w.done, w.total)
	w.pieces <- piece{w.piece, w.count}
	w.piece, w.count = (<-w.free)[:0], 0
	return nil
}

// begin begins file and tables: what was built is too large for memory.
func (w *builder) begin() error {
	g := w.stage
	if g.builds == 255 {
		return fmt.Errorf("chain was sorted too often: %w", batchlog.ErrConflict)
	}
	g.builds++
	file := g.name
	file[15] = byte(g.builds)
	dir := filepath.Join(g.dir, fmt.Sprintf("tables-%d", g.builds))
	err := disk.MakeDir(g.e.opts.FS, dir)
	var chain *seglog.Chain
	if err == nil {
		chain, err = g.e.log.BeginChain(file)
	}
	if err != nil {
		_ = g.e.opts.FS.Remove(dir) // the next try makes its own
		return err
	}
	w.built.chain, w.built.writer = chain, g.e.store.NewTables(dir)
	w.start()
	return nil
}

func (w *builder) start() {
	w.pieces, w.free, w.made = make(chan piece, 2), make(chan []byte, 4), make(chan error, 1)
	for range 3 {
		w.free <- nil
	}
	go w.tablesLoop(w.pieces)
}

// yieldEvery is after how many ops others are let run: some 100 µs. A commit whose sync has returned would wait for a processor until this goroutine
// waits itself, or is told to after 10 ms.
const yieldEvery = 256

// tablesLoop makes tables of pieces until there are no more.
func (w *builder) tablesLoop(pieces <-chan piece) {
	var err error
	n := 0
	for p := range pieces {
		if err == nil {
			err = wire.EachOp(p.ops, p.count, func(kind batchlog.OpKind, key, value []byte) error {
				if n++; n%yieldEvery == 0 {
					runtime.Gosched()
				}
				return w.built.writer.Add(kind, key, value)
			})
		}
		w.free <- p.ops
	}
	if err == nil {
		w.built.tables, err = w.built.writer.Finish()
	}
	w.made <- err
}

// flushLast writes what is left of the stretch.
func (w *builder) flushLast() error {
	switch {
	case w.count == 0:
		return nil
	case w.built.inMemory():
		w.built.small, w.built.smallCount = w.piece, w.count
		return nil
	default:
		return w.flush()
	}
}

// finish waits for the tables and makes all durable, if nothing has failed so far.
func (w *builder) finish(good bool) error {
	if w.pieces == nil {
		return nil
	}
	close(w.pieces)
	w.pieces = nil
	var err error
	if good {
		err = w.built.chain.Sync()
	}
	return errors.Join(err, <-w.made)
}
