package local

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
)

// Chains are staged in a directory each:
//
//	chains/NAME/runs       what was added, sorted in runs, see package chainsort
//	chains/NAME/late       the same of what came to its copies after the chain was built
//	chains/NAME/tables-N   the net effect of it, as tables for the store; N counts how often it was built
//
// and the net effect as the log will hold it is a file of the log's own directory, under a name that differs from NAME in its last byte. Where a crash took
// the tables of a chain that was committed the store makes them again, in chains/FILE/tables, FILE being that name.
// All of it goes when the chain is committed or closed. What a crash leaves behind is listed, and swept.

// A staging is the chains under way.
type staging struct {
	mu     sync.Mutex
	stages map[*stage]struct{}
	used   int64 // bytes on disk that chains under way have taken

	verifying atomic.Int64 // those who need all of the log

	pace pace
	// refuse is asked before bytes are taken on the disk. It is for tests.
	refuse func(bytes int64) error
}

func (s *staging) begin() {
	s.stages, s.pace = map[*stage]struct{}{}, fullPace
	s.refuse = func(int64) error { return nil }
}

// A pace says when a chain that others write beside does otherwise. Tests have a smaller one, to get there.
type pace struct {
	soon      int   // ops that a round of a copy may find for the next one to be the last
	soonBytes int64 // and how much they may be
	late      int   // keys whose net effect is looked up one by one
	pass      int64 // ops in a revert up to which it is gone through once as a whole while nobody else writes there
	lateBytes int   // keys of others in memory, and what becomes of them; each
}

var fullPace = pace{soon: 4096, soonBytes: batchlog.MaxBatchBytes / 8, late: 256, pass: 1 << 21, lateBytes: batchlog.MaxBatchBytes / 4}

// reserve takes so many bytes of the quota more, or gives them back.
func (e *engine) reserve(bytes int64) error {
	if bytes > 0 {
		if err := e.chains.refuse(bytes); err != nil {
			return err
		}
	}
	e.chains.mu.Lock()
	defer e.chains.mu.Unlock()
	if quota := e.opts.ChainQuota; bytes > 0 && quota > 0 && e.chains.used+bytes > quota {
		return &batchlog.LimitError{
			What: "staged chains", Size: e.chains.used + bytes, Limit: quota,
			Hint: "commit or close other chains first, or open the database with a larger Options.ChainQuota",
		}
	}
	e.chains.used += bytes
	return nil
}

// chainHold is the first commit that chains under way need from the log, to catch up with, or who verifies it.
func (e *engine) chainHold() batchlog.ID {
	if e.chains.verifying.Load() > 0 {
		return 1
	}
	e.chains.mu.Lock()
	defer e.chains.mu.Unlock()
	first := batchlog.ID(math.MaxUint64)
	for g := range e.chains.stages {
		first = min(first, batchlog.ID(g.holds.Load()))
	}
	return first
}

// Chain is as batchlog.Chainer says.
func (e *engine) Chain(ctx context.Context) (batchlog.Stage, error) {
	if e.closed.Load() {
		return nil, batchlog.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	g := &stage{e: e, name: randomUUID(), begun: e.opts.Now(), filler: plain{}}
	g.name[15] = 0
	g.holds.Store(math.MaxUint64)
	g.dir = filepath.Join(e.dir, chainsName, hex.EncodeToString(g.name[:]))
	e.chains.mu.Lock()
	defer e.chains.mu.Unlock()
	e.chains.stages[g] = struct{}{}
	return g, nil
}

// Chains is as batchlog.Chainer says.
func (e *engine) Chains(context.Context) ([]batchlog.ChainStatus, error) {
	if e.closed.Load() {
		return nil, batchlog.ErrClosed
	}
	var all []batchlog.ChainStatus
	open := map[string]bool{}
	e.chains.mu.Lock()
	for g := range e.chains.stages {
		name := hex.EncodeToString(g.name[:])
		open[name] = true
		all = append(all, batchlog.ChainStatus{Name: name, Begun: g.begun, Bytes: g.onDisk.Load(), Ops: g.ops.Load(), Open: true})
	}
	e.chains.mu.Unlock()
	e.addStaged(open)
	left, err := e.leftChains()
	e.addStaged(open)
	for _, c := range left {
		if !open[c.Name] {
			all = append(all, c)
		}
	}
	return all, err
}

// leftChains are the chains whose files are there, also those under way.
func (e *engine) leftChains() ([]batchlog.ChainStatus, error) {
	byName := map[string]*batchlog.ChainStatus{}
	var order []string
	note := func(name string, begun time.Time, bytes int64) {
		c := byName[name]
		if c == nil {
			c = &batchlog.ChainStatus{Name: name, Begun: begun}
			byName[name], order = c, append(order, name)
		}
		if begun.Before(c.Begun) {
			c.Begun = begun
		}
		c.Bytes += bytes
	}
	root := filepath.Join(e.dir, chainsName)
	names, err := e.opts.FS.List(root)
	if err != nil && !disk.NotExist(err) {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, name := range names {
		if b, err := hex.DecodeString(name); err != nil || len(b) != 16 {
			continue
		}
		bytes, begun, err := e.dirSize(filepath.Join(root, name))
		if disk.NotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		note(name, begun, bytes)
	}
	files, err := e.log.Chains()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		f.File[15] = 0
		note(hex.EncodeToString(f.File[:]), f.Begun, f.Bytes)
	}
	var all []batchlog.ChainStatus
	for _, name := range order {
		all = append(all, *byName[name])
	}
	return all, nil
}

// dirSize is the size of all files in a directory, and the time of the oldest.
func (e *engine) dirSize(dir string) (bytes int64, oldest time.Time, err error) {
	info, err := e.opts.FS.Stat(dir)
	if err != nil {
		return 0, oldest, err
	}
	oldest = info.ModTime()
	names, err := e.opts.FS.List(dir)
	if err != nil {
		return 0, oldest, err
	}
	for _, name := range names {
		name = filepath.Join(dir, name)
		info, err := e.opts.FS.Stat(name)
		if disk.NotExist(err) {
			continue
		}
		if err != nil {
			return 0, oldest, err
		}
		size, begun := info.Size(), info.ModTime()
		if info.IsDir() {
			if size, begun, err = e.dirSize(name); err != nil {
				return 0, oldest, err
			}
		}
		bytes += size
		if begun.Before(oldest) {
			oldest = begun
		}
	}
	return bytes, oldest, nil
}

// SweepChains is as batchlog.Chainer says.
func (e *engine) SweepChains(_ context.Context, age time.Duration) (chains int, bytes int64, err error) {
	if e.closed.Load() {
		return 0, 0, batchlog.ErrClosed
	}
	if err := e.log.Failed(); err != nil {
		return 0, 0, err // a commit whose outcome is not known may need what nothing known does
	}
	before := time.Now().Add(-age) // as files have it
	open := map[string]bool{}
	e.addStaged(open)
	left, err := e.leftChains()
	if err != nil {
		return 0, 0, err
	}
	e.chains.mu.Lock()
	for g := range e.chains.stages {
		open[hex.EncodeToString(g.name[:])] = true
	}
	e.chains.mu.Unlock()
	e.addStaged(open)
	var errs []error // one that can't be removed keeps none of the others
	for _, c := range left {
		if open[c.Name] || c.Begun.After(before) {
			continue
		}
		if err := e.opts.FS.RemoveAll(filepath.Join(e.dir, chainsName, c.Name)); err != nil && !disk.NotExist(err) {
			errs = append(errs, fmt.Errorf("remove a chain that was left behind: %w", err))
			continue
		}
		chains++
		bytes += c.Bytes
	}
	_, _, err = e.log.SweepChains(before)
	return chains, bytes, errors.Join(append(errs, err)...)
}

// addStaged adds the names of the chains whose commits are about to be applied. They are not under way any more, nor left behind. It comes after
// the look at those that are, and before that at the files, too: tables are removed while they are staged.
func (e *engine) addStaged(names map[string]bool) {
	for _, file := range e.store.Staged() {
		file[15] = 0
		names[hex.EncodeToString(file[:])] = true
	}
}

// sweepAge is how old what a crash has left behind must be to be removed in the background.
const sweepAge = time.Hour

// chainError is an error of the disk under a chain, in our words.
func chainError(err error) error {
	if err != nil && disk.Full(err) && !errors.Is(err, batchlog.ErrNoSpace) {
		return fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
	}
	return err
}
