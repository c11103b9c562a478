package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Tables are the ops of a chain as tables of Pebble, which the store can take in at once, whatever their size.
type Tables struct {
	fs    vfs.FS
	dir   string
	names [][]string // of each stretch
	made  int
	Bytes int64 // on disk
}

// tableBytes is the size from which on a table takes no further key.
const tableBytes = 64 << 20

// A TableWriter makes tables of the ops of a chain, which come in stretches as batchlog.OpReader says: where the keys go back, the next one
// begins. It is not safe for concurrent use.
type TableWriter struct {
	tables    Tables
	opts      sstable.WriterOptions
	table     *sstable.Writer // nil between tables
	keys      int             // in table
	gathered  *[]byte         // see gatheringFile
	stretches wire.Stretches
	// A range delete that goes beyond the table is cut where the next one begins: tables that are taken in together must not overlap.
	low, high []byte // that is open; high is nil when none is
}

// NewTables begins tables in dir, which must exist, and be on the file system of the store.
func (s *Store) NewTables(dir string) *TableWriter {
	return &TableWriter{tables: Tables{fs: s.opts.FS, dir: dir}, gathered: new([]byte), opts: s.tableOptions()}
}

func (s *Store) tableOptions() sstable.WriterOptions {
	o := &pebble.Options{FormatMajorVersion: pebble.FormatNewest}
	setTables(o)
	o.EnsureDefaults()
	const lowest = 6
	opts := o.MakeWriterOptions(lowest, s.db.TableFormat())
	opts.WritingToLowestLevel = false // in a table there, deletes say nothing
	return opts
}

// Add appends an op. After an error the tables can only be dropped.
func (w *TableWriter) Add(kind batchlog.OpKind, key, value []byte) error {
	if err := w.add(kind, key, value); err != nil {
		return fmt.Errorf("make tables of a chain: %w", openError(err))
	}
	return nil
}

func (w *TableWriter) add(kind batchlog.OpKind, key, value []byte) error {
	if w.stretches.Begin(kind, key) {
		if err := w.endTable(nil); err != nil {
			return err
		}
		w.tables.names = append(w.tables.names, nil)
	}
	if w.table != nil && w.keys%64 == 0 && w.table.Raw().EstimatedSize() >= tableBytes {
		if err := w.endTable(key); err != nil {
			return err
		}
	}
	if w.table == nil {
		if err := w.beginTable(); err != nil {
			return err
		}
	}
	w.keys++
	switch kind {
	case batchlog.OpPut:
		return w.table.Set(key, value)
	case batchlog.OpDelete:
		return w.table.Delete(key)
	case batchlog.OpDeleteRange:
		if len(w.high) > 0 && bytes.Compare(key, w.high) <= 0 { // of the next stretch, which happens to go on behind this one
			if bytes.Compare(value, w.high) > 0 {
				w.high = append(w.high[:0], value...)
			}
			return nil
		}
		if err := w.endRange(); err != nil {
			return err
		}
		w.low, w.high = append(w.low[:0], key...), append(w.high[:0], value...)
		return nil
	default:
		return fmt.Errorf("op of kind %s", kind)
	}
}

// endRange writes the range delete that is open, if there is one.
func (w *TableWriter) endRange() error {
	if len(w.high) == 0 {
		return nil
	}
	err := w.table.DeleteRange(w.low, w.high)
	w.high = w.high[:0]
	return err
}

func (w *TableWriter) beginTable() error {
	name := filepath.Join(w.tables.dir, fmt.Sprintf("%06d.sst", w.tables.made))
	f, err := w.tables.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	stretch := &w.tables.names[len(w.tables.names)-1]
	*stretch = append(*stretch, name)
	w.tables.made++
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
	w.table, w.keys = sstable.NewWriter(objstorageprovider.NewFileWritable(&gatheringFile{File: f, gathered: w.gathered}), w.opts), 0
	return nil
}

// tableWriteBytes is what is written to a table at once. Pebble writes block by block, 4 KiB, which costs as much as making the blocks.
const tableWriteBytes = 128 << 10

// A gatheringFile writes much at once.
type gatheringFile struct {
	vfs.File
	gathered *[]byte // to be written; of all tables of a writer in turn
}

func (f *gatheringFile) Write(b []byte) (int, error) {
	if len(*f.gathered)+len(b) > tableWriteBytes {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	*f.gathered = append(*f.gathered, b...)
	return len(b), nil
}

func (f *gatheringFile) flush() error {
	b := *f.gathered
	*f.gathered = b[:0]
	if len(b) == 0 {
		return nil
	}
	_, err := f.File.Write(b)
	return err
}

func (f *gatheringFile) Sync() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *gatheringFile) Close() error { return errors.Join(f.flush(), f.File.Close()) }

// endTable finishes a table, which the key next will not be in.
func (w *TableWriter) endTable(next []byte) error {
	if w.table == nil {
		return nil
	}
	var rest []byte // where the open range delete goes on
	if len(w.high) > 0 && next != nil && bytes.Compare(next, w.high) < 0 {
		rest = append(rest, w.high...)
		w.high = append(w.high[:0], next...)
	}
	if err := w.endRange(); err != nil {
		return err
	}
	table := w.table
	w.table = nil
	if err := table.Close(); err != nil {
		return err
	}
	m, err := table.Metadata()
	if err != nil {
		return err
	}
	w.tables.Bytes += int64(m.Size)
	if rest != nil {
		w.low, w.high = append(w.low[:0], next...), rest
	}
	return nil
}

// Finish ends the tables that were begun. They are durable when it returns, but not their names. More may be added then, and Finish be called again.
func (w *TableWriter) Finish() (*Tables, error) {
	if err := w.endTable(nil); err != nil {
		return nil, fmt.Errorf("make tables of a chain: %w", openError(err))
	}
	return &w.tables, nil
}

// Size is what the tables take on disk so far, in bytes, but for the one that is being written.
func (w *TableWriter) Size() int64 { return w.tables.Bytes }

// Drop removes what there is of the tables.
func (w *TableWriter) Drop() error {
	var err error
	if w.table != nil {
		_ = w.table.Close() // it is removed
		w.table = nil
	}
	err = w.tables.Drop()
	return err
}

// Drop removes the tables, and their directory. Those that were taken in are gone already.
func (t *Tables) Drop() error {
	var errs []error
	for _, stretch := range t.names {
		for _, name := range stretch {
			if err := t.fs.Remove(name); err != nil && !disk.NotExist(err) {
				errs = append(errs, err)
			}
		}
	}
	t.names = nil
	_ = t.fs.Remove(t.dir) // fails where there is more
	return errors.Join(errs...)
}

// Stage keeps tables until the chain whose file that is is applied, or [Store.Unstage] takes them back.
func (s *Store) Stage(file [16]byte, t *Tables) {
	s.staged.Lock()
	defer s.staged.Unlock()
	s.staged.tables[file] = t
}

// Unstage takes the tables of a chain out again; nil if there are none any more.
func (s *Store) Unstage(file [16]byte) *Tables {
	s.staged.Lock()
	defer s.staged.Unlock()
	t := s.staged.tables[file]
	delete(s.staged.tables, file)
	return t
}

// Staged are the files of the chains whose tables are staged.
func (s *Store) Staged() [][16]byte {
	s.staged.Lock()
	defer s.staged.Unlock()
	return slices.Collect(maps.Keys(s.staged.tables))
}

// tablesOf is the tables of a chain: those that were staged, or, after a crash, some that are made of its file.
func (s *Store) tablesOf(c *wire.ChainRef) (_ *Tables, err error) {
	s.staged.Lock()
	t := s.staged.tables[c.File]
	s.staged.Unlock()
	if t != nil {
		return t, nil
	}
	dir := filepath.Join(s.opts.Staging, fmt.Sprintf("%x", c.File), "tables")
	if err := s.opts.FS.MkdirAll(dir, 0o755); err != nil {
		return nil, openError(err)
	}
	w := s.NewTables(dir)
	r := wire.Record{Chain: c, Count: c.Count}
	if err := r.EachOp(w.Add); err != nil {
		return nil, errors.Join(err, w.Drop())
	}
	if t, err = w.Finish(); err != nil {
		return nil, errors.Join(err, w.Drop())
	}
	return t, nil
}

// chainBatchBytes is up to which size the ops of a chain are applied as a batch is, and a part of a memtable at most: a table of its own costs more than
// these in memory.
const chainBatchBytes = 1 << 20

func (s *Store) chainBatchBytes() int64 { return min(chainBatchBytes, s.opts.MemTableBytes/16) }

// applyChain makes the changes of a chain, and moves the mark, as one.
func (s *Store) applyChain(r *wire.Record, undo bool) error {
	inverse := inverseNone
	if undo {
		// What is there decides, not what the tables would be made for now: with another size of the memtables the tables of a chain may have been taken in before a
		// crash, and it be small enough for a batch today.
		switch _, err := s.inverse(r.ID); {
		case err == nil:
			inverse = inverseThere
		case errors.Is(err, batchlog.ErrNoInverse):
			inverse = inverseWanted
		default:
			return unwritten{fmt.Errorf("keep what a chain overwrites: %w", err)}
		}
	}
	if r.Chain.Bytes <= s.chainBatchBytes() {
		return s.applySmallChain(r, inverse)
	}
	return s.applyTables(r, inverse)
}

// A chainInverse is what is to be done about the inverse of a chain.
type chainInverse uint8

const (
	inverseNone   chainInverse = iota // none is kept
	inverseWanted                     // it has to be made
	// inverseThere: it came with the tables of the chain, which are there as well, or some of them. What they have overwritten is no longer to be seen.
	inverseThere
)

// applySmallChain applies a chain as a batch.
func (s *Store) applySmallChain(r *wire.Record, inverse chainInverse) error {
	whole, err := inMemory(r)
	if err != nil {
		return unwritten{err}
	}
	records := []wire.Record{whole}
	switch inverse {
	case inverseWanted:
		_, err = s.applyInverted(records)
	case inverseThere:
		if err = s.noteInverseBlobs(r.ID); err == nil {
			err = s.applyBatch(records, &extra{undo: true})
		}
	default:
		err = s.applyBatch(records, &extra{})
	}
	if err == nil {
		s.forget(r.Chain.File)
	}
	return err
}

// applyTables applies a chain by taking in its tables.
func (s *Store) applyTables(r *wire.Record, inverse chainInverse) error {
	if r.HasBlobs() {
		if err := s.indexBlobs(r); err != nil {
			return unwritten{err} // the same is noted again
		}
	}
	t, err := s.tablesOf(r.Chain)
	if err != nil {
		return unwritten{err}
	}
	stretches := slices.Clone(t.names)
	undo := inverse != inverseNone
	if inverse == inverseWanted {
		made, err := s.invertChain(r, len(stretches))
		if err != nil {
			return unwritten{fmt.Errorf("keep what a chain overwrites: %w", err)}
		}
		// Together: where the first of the tables are, the inverse is.
		stretches[0] = append(slices.Clip(stretches[0]), made...)
	}
	// The tables come first and the mark, with the ops that came too late for the tables, after. Whoever reads between is shown
	// the store as it was before. After a crash between, the tables may be there and the mark not: then the log is applied again from the mark on, all ops of the
	// chain included, before anybody reads.
	before, err := s.beginChain()
	if err != nil {
		return err
	}
	for _, stretch := range stretches {
		if err := s.ingest(stretch); err != nil {
			return fmt.Errorf("take in the tables of a chain: %w", err)
		}
	}
	if undo {
		if err := s.noteInverseBlobs(r.ID); err != nil {
			return err
		}
	}
	s.written.Add(r.Chain.Bytes)
	rest := *r
	rest.Chain, rest.Count = nil, r.Count-r.Chain.Count
	if err := s.applyBatch([]wire.Record{rest}, &extra{undo: undo}); err != nil {
		return err
	}
	s.endChain(before) // not after a failure: half of the chain may be there
	t.forget()
	if undo {
		s.clearUndoDir()
	}
	s.Unstage(r.Chain.File) // last: what is staged is not taken for left behind
	return nil
}

// ingest takes in tables.
func (s *Store) ingest(tables []string) error {
	return s.aside(func() error { return s.db.Ingest(context.Background(), tables) })
}

// forget removes what is left of tables that were applied, and the directory around theirs if they were the last in it. What can't be removed
// is swept.
func (t *Tables) forget() {
	_ = t.fs.RemoveAll(t.dir)
	_ = t.fs.Remove(filepath.Dir(t.dir)) // fails where there is more
}

// forget does so with the tables that are staged for a chain, if there are any.
func (s *Store) forget(file [16]byte) {
	s.staged.Lock()
	t := s.staged.tables[file]
	s.staged.Unlock()
	if t != nil {
		t.forget()
		s.Unstage(file)
	}
}

// inMemory is the commit of a chain with all of its ops in memory.
func inMemory(r *wire.Record) (wire.Record, error) {
	whole := *r
	whole.Chain, whole.Ops = nil, make([]byte, 0, r.Chain.Bytes+int64(len(r.Ops)))
	err := r.EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		whole.Ops = wire.AppendOp(whole.Ops, kind, key, value)
		return nil
	})
	return whole, err
}
