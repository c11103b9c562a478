package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	pebbleTableBytes = 64 << 20 // as batchlog's tables of a chain
	sortMemoryBytes  = 32 << 20 // as a chain has it
)

// makeTables is a child: it makes tables of the pairs and has Pebble take them in. Its options are those of batchlog's store, and so are those of the tables.
func makeTables(ctx context.Context, spec chainSpec) (made tablesMade, err error) {
	db, err := pebble.Open(spec.Dir, pebbleAsOurs())
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	stop, err := startProfile(spec.Profile)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pairs := newPairs(spec.Pairs)
	key, value := make([]byte, keyBytes), make([]byte, valueBytes)
	next := uint64(0)
	source := func() ([]byte, []byte, error) {
		if next == pairs.n {
			return nil, nil, io.EOF
		}
		pairs.fill(next, key, value)
		next++
		return key, value, nil
	}
	start := time.Now()
	if spec.Sort {
		runs, err := sortRuns(ctx, filepath.Join(spec.Dir, "runs"), pairs)
		if err != nil {
			return made, err
		}
		defer runs.close()
		source = runs.next
		made.Sort = time.Since(start)
	}
	cpu := cpuTime()
	start = time.Now()
	tables, err := pebbleTables(ctx, db, filepath.Join(spec.Dir, "tables"), source)
	if err != nil {
		return made, err
	}
	made.Tables = time.Since(start)
	start = time.Now()
	if err := db.Ingest(ctx, tables); err != nil {
		return made, err
	}
	if err := checkPebble(db, pairs, 1); err != nil {
		return made, err
	}
	made.Ingest, made.CPU, made.PeakRSS = time.Since(start), cpuTime()-cpu, peakRSS()
	return made, checkPebble(db, pairs, 1000)
}

func checkPebble(db *pebble.DB, pairs pairSet, count uint64) error {
	key, value := make([]byte, keyBytes), make([]byte, valueBytes)
	for i := range min(count, pairs.n) {
		pairs.fill(pairs.shuffled(pairs.n-1-i), key, value)
		got, closer, err := db.Get(key)
		if err != nil {
			return err
		}
		same := bytes.Equal(got, value)
		if err := closer.Close(); err != nil {
			return err
		}
		if !same {
			return errWrongValue
		}
	}
	return nil
}

// pebbleTables makes tables in dir of all that next has, in order, and returns their names. Each is durable when it is closed.
func pebbleTables(ctx context.Context, db *pebble.DB, dir string, next func() (key, value []byte, err error)) ([]string, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	o := pebbleAsOurs()
	o.EnsureDefaults()
	const lowest = 6
	options := o.MakeWriterOptions(lowest, db.TableFormat())
	var names []string
	var w *sstable.Writer
	for n := 0; ; n++ {
		key, value, err := next()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if w != nil && (err != nil || n%64 == 0 && w.Raw().EstimatedSize() >= pebbleTableBytes) {
			if err := errors.Join(w.Close(), ctx.Err()); err != nil {
				return nil, err
			}
			w = nil
		}
		if err != nil {
			return names, nil
		}
		if w == nil {
			name := filepath.Join(dir, fmt.Sprintf("%06d.sst", len(names)))
			f, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				return nil, err
			}
			f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
			w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), options)
			names = append(names, name)
		}
		if err := w.Set(key, value); err != nil {
			return nil, err
		}
	}
}

// A runMerge is a plain external sort of pairs: runs that were sorted in memory, and a heap over them.
type runMerge struct {
	runs []*sortedRun // a heap, by the pair that each is at
	last *sortedRun   // whose pair was handed out; it is the first of runs
}

type sortedRun struct {
	file *os.File
	in   *bufio.Reader
	pair [pairBytes]byte
}

func (r *sortedRun) less(o *sortedRun) bool {
	return bytes.Compare(r.pair[:keyBytes], o.pair[:keyBytes]) < 0
}

// sortRuns writes the pairs, which come in random order, to sorted runs in dir. Its memory is that of a chain.
func sortRuns(ctx context.Context, dir string, pairs pairSet) (_ *runMerge, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	m := &runMerge{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	type ref struct {
		head uint64
		at   uint32
	}
	const perRun = sortMemoryBytes / (pairBytes + 16)
	memory, refs := make([]byte, perRun*pairBytes), make([]ref, 0, perRun)
	pair := func(r ref) []byte { return memory[r.at : r.at+pairBytes] }
	for i := range pairs.n {
		at := uint32(len(refs)) * pairBytes
		pairs.fill(pairs.shuffled(i), memory[at:at+keyBytes], memory[at+keyBytes:at+pairBytes])
		refs = append(refs, ref{binary.BigEndian.Uint64(memory[at:]), at})
		if len(refs) < perRun && i < pairs.n-1 {
			continue
		}
		slices.SortFunc(refs, func(a, b ref) int {
			if c := cmp.Compare(a.head, b.head); c != 0 {
				return c
			}
			return bytes.Compare(pair(a)[:keyBytes], pair(b)[:keyBytes])
		})
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(len(m.runs))))
		if err != nil {
			return nil, err
		}
		m.runs = append(m.runs, &sortedRun{file: f})
		out := bufio.NewWriterSize(f, 1<<18)
		for _, r := range refs {
			if _, err := out.Write(pair(r)); err != nil {
				return nil, err
			}
		}
		if err := errors.Join(out.Flush(), ctx.Err()); err != nil {
			return nil, err
		}
		refs = refs[:0]
	}
	for _, r := range m.runs {
		if _, err := r.file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		r.in = bufio.NewReaderSize(r.file, max(4096, sortMemoryBytes/len(m.runs)))
		if _, err := io.ReadFull(r.in, r.pair[:]); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(m.runs, func(a, b *sortedRun) int { return bytes.Compare(a.pair[:keyBytes], b.pair[:keyBytes]) })
	return m, nil
}

// next is the next pair in the order of keys, valid until the next call, or io.EOF.
func (m *runMerge) next() (key, value []byte, err error) {
	if m.last != nil {
		_, err := io.ReadFull(m.last.in, m.last.pair[:])
		switch {
		case errors.Is(err, io.EOF):
			end := len(m.runs) - 1
			_ = m.last.file.Close() // nothing was written since
			m.runs[0] = m.runs[end]
			m.runs = m.runs[:end]
		case err != nil:
			return nil, nil, err
		}
		m.sink()
	}
	if len(m.runs) == 0 {
		m.last = nil
		return nil, nil, io.EOF
	}
	m.last = m.runs[0]
	return m.last.pair[:keyBytes], m.last.pair[keyBytes:], nil
}

// sink moves the first run to where it belongs in the heap.
func (m *runMerge) sink() {
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(m.runs); child++ {
			if m.runs[child].less(m.runs[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		m.runs[i], m.runs[least] = m.runs[least], m.runs[i]
		i = least
	}
}

func (m *runMerge) close() {
	for _, r := range m.runs {
		_ = r.file.Close() // the directory goes
	}
}
