package seglog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The ops of a chain are in a file of their own beside the segments. It is written before the commit, and belongs to the segment that
// has the record from then on: it goes with it. One that no record names was never committed.
const (
	chainPrefix = "chain-"
	chainSuffix = ".ops"
)

func chainName(file [16]byte) string { return chainPrefix + hex.EncodeToString(file[:]) + chainSuffix }

// chainFile is which chain the file of that name holds.
func chainFile(name string) (file [16]byte, ok bool) {
	stem, isChain := strings.CutPrefix(name, chainPrefix)
	stem, isOps := strings.CutSuffix(stem, chainSuffix)
	b, err := hex.DecodeString(stem)
	if !isChain || !isOps || err != nil || len(b) != len(file) {
		return file, false
	}
	return [16]byte(b), true
}

// A segChain is a chain whose record is in a segment.
type segChain struct {
	file [16]byte
	id   batchlog.ID
	size int64 // of its file, in bytes
}

// A Chain is the file of a chain that is not committed. It is not safe for concurrent use.
type Chain struct {
	*segment.ChainWriter
	File [16]byte
	log  *Log
	file vfs.File
	name string
}

// BeginChain makes the file of a chain, which nobody has used before.
func (l *Log) BeginChain(file [16]byte) (*Chain, error) {
	c := &Chain{File: file, log: l}
	c.name = l.path("", chainName(c.File))
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return nil, batchlog.ErrClosed
	}
	l.mu.open[c.File] = struct{}{}
	l.mu.Unlock()
	var err error
	if c.file, err = l.opts.FS.Create(c.name, vfs.WriteCategoryUnspecified); err != nil {
		l.forget(c.File)
		return nil, chainError("begin a chain", err)
	}
	c.file = &steadyFile{File: c.file}
	h := segment.Header{Version: segment.Version, Database: l.opts.Database, Segment: c.File, Epoch: l.opts.Epoch}
	if c.ChainWriter, err = segment.NewChainWriter(c.file, h); err != nil {
		return nil, errors.Join(chainError("begin a chain", err), c.Drop())
	}
	return c, nil
}

func chainError(what string, err error) error {
	if noSpace(err) {
		return fmt.Errorf("%s: %w: %w", what, batchlog.ErrNoSpace, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (l *Log) forget(file [16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mu.open, file)
}

// Add appends ops. After an error the chain can only be dropped.
func (c *Chain) Add(ops []byte, count int) error {
	if err := c.ChainWriter.Add(ops, count); err != nil {
		return chainError("stage a chain", err)
	}
	return nil
}

// Sync makes what was added durable, and the name of the file.
func (c *Chain) Sync() error {
	if err := c.file.Sync(); err != nil {
		return chainError("sync a chain", err)
	}
	return disk.SyncDir(c.log.opts.FS, c.log.opts.Dir)
}

// Drop removes the file: the chain was not committed, and will not be.
func (c *Chain) Drop() error {
	err := c.file.Close()
	err = errors.Join(err, c.log.opts.FS.Remove(c.name))
	c.log.forget(c.File)
	return err
}

// Keep lets go of the file: the chain was committed, or may have been, and the log has it.
func (c *Chain) Keep() error {
	c.log.forget(c.File)
	return c.file.Close()
}

// A steadyFile has what is written to it be on its way to the disk soon, so that the sync at its end is no burst that others wait for.
type steadyFile struct {
	vfs.File
	written, told int64
}

// steadyBytes is how much is written between two hints to the system.
const steadyBytes = 1 << 20

func (f *steadyFile) WriteAt(b []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(b, offset)
	f.written = max(f.written, offset+int64(n))
	if err == nil && f.written-f.told >= steadyBytes {
		f.told = f.written
		_, err = f.SyncTo(f.written)
	}
	return n, err
}

// OpenChain is as batchlog.ChainSource says.
func (l *Log) OpenChain(ref *wire.ChainRef) (wire.OpReader, error) {
	name := l.chainPath(ref.File)
	f, err := l.opts.FS.Open(name)
	if disk.NotExist(err) {
		if now := l.chainPath(ref.File); now != name { // it has gone warm meanwhile
			name = now
			f, err = l.opts.FS.Open(name)
		}
	}
	if disk.NotExist(err) {
		if oldest := l.Oldest(); ref.ID != 0 && ref.ID < oldest {
			return nil, &batchlog.GapError{From: ref.ID, Oldest: oldest} // dropped since its record was read
		}
		return nil, l.missing(l.chainDir(ref.File), name, &batchlog.CorruptError{File: name, ID: ref.ID, Err: errors.New("the ops of a chain are missing")})
	}
	if err != nil {
		return nil, l.missing(l.chainDir(ref.File), name, fmt.Errorf("open a chain: %w", err))
	}
	h, err := readHeader(f, name)
	if err == nil && (h.Database != l.opts.Database || h.Segment != ref.File || h.First != 0) {
		err = &batchlog.CorruptError{File: name, ID: ref.ID, Err: errors.New("the file of another chain, or of another database")}
	}
	var damage *batchlog.CorruptError
	if errors.As(err, &damage) {
		damage.ID = ref.ID
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &chainReader{segment.NewChainReader(f, h, name, ref), f}, nil
}

// chainPath is where the file of a chain is now.
func (l *Log) chainPath(file [16]byte) string { return l.path(l.chainDir(file), chainName(file)) }

func (l *Log) chainDir(file [16]byte) string {
	l.mu.Lock()
	id := l.mu.chains[file]
	l.mu.Unlock()
	if s := l.table.Load().find(id); s != nil {
		return s.chainDir()
	}
	return ""
}

type chainReader struct {
	*segment.ChainReader
	file vfs.File
}

// Close is as batchlog.OpReader says.
func (r *chainReader) Close() error { return r.file.Close() }

// A LeftChain is a file of a chain that is not committed.
type LeftChain struct {
	File  [16]byte
	Bytes int64
	Begun time.Time
	Open  bool // it is being filled; else it was abandoned
}

// Chains are the chains that are not committed.
func (l *Log) Chains() ([]LeftChain, error) {
	names, err := l.opts.FS.List(l.opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	slices.Sort(names)
	var left []LeftChain
	for _, name := range names {
		file, ok := chainFile(name)
		if !ok {
			continue
		}
		known, open := l.knowsChain(file)
		if known {
			continue
		}
		info, err := l.opts.FS.Stat(filepath.Join(l.opts.Dir, name))
		if disk.NotExist(err) {
			continue // dropped meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		left = append(left, LeftChain{File: file, Bytes: info.Size(), Begun: info.ModTime(), Open: open})
	}
	return left, nil
}

// knowsChain reports whether the log has the commit of a chain, or is still to remove its file, or else whether it is being filled.
func (l *Log) knowsChain(file [16]byte) (committed, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.mu.chains[file]; ok {
		return true, false
	}
	_, open = l.mu.open[file]
	return false, open
}

// HasChain reports whether the log has the commit of the chain with that file.
func (l *Log) HasChain(file [16]byte) bool {
	committed, _ := l.knowsChain(file)
	return committed
}

// SweepChains removes the files of chains that were abandoned before then.
func (l *Log) SweepChains(before time.Time) (count int, bytes int64, err error) {
	left, err := l.Chains()
	if err != nil {
		return 0, 0, err
	}
	for _, c := range left {
		if c.Open || c.Begun.After(before) {
			continue
		}
		if known, open := l.knowsChain(c.File); known || open {
			continue // committed since, or begun
		}
		if err := l.opts.FS.Remove(l.path("", chainName(c.File))); err != nil && !disk.NotExist(err) {
			return count, bytes, fmt.Errorf("remove an abandoned chain: %w", err)
		}
		count++
		bytes += c.Bytes
	}
	return count, bytes, nil
}

// checkChain makes sure that the file of a chain is there as far as its record says.
func (l *Log) checkChain(c segChain) error {
	name := l.path("", chainName(c.file))
	info, err := l.opts.FS.Stat(name)
	if disk.NotExist(err) {
		return &batchlog.CorruptError{File: name, ID: c.id, Err: errors.New("the ops of a chain are missing")}
	}
	if err != nil {
		return fmt.Errorf("chain of commit %d: %w", c.id, err)
	}
	if info.Size() < c.size {
		return &batchlog.CorruptError{File: name, Offset: info.Size(), ID: c.id, Err: errors.New("the ops of a chain end early")}
	}
	return nil
}
