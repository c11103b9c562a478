package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// When a segment of the log leaves the database's directory, the inverses of its commits go along, into a file beside it: a table of Pebble, compressed and
// summed in blocks, with the keys that the store had them under.
//
//	00 'U' id part   as in the store
//	00 'u' last      as in the store, but that a block is about commits of this segment alone
//
// Whoever looks for an inverse looks into the store first. The file is durable before the store forgets what is in it, so that one of the two has it at
// any time; after a crash it may be both, and then it goes along once more.

// FirstInverse is the first commit from id on whose inverse is in the store; 0: there is none.
func (s *Store) FirstInverse(id batchlog.ID) (first batchlog.ID, err error) {
	if !s.use.enter() {
		return 0, batchlog.ErrClosed
	}
	defer s.use.leave()
	it, err := s.inverseIter(id)
	if err != nil {
		return 0, err
	}
	if it.First() {
		b, err := iterBlock(it)
		if err != nil {
			return 0, errors.Join(err, readError(it.Close()))
		}
		first = max(id, b.first)
	}
	return first, errors.Join(readError(it.Error()), readError(it.Close()))
}

// MoveInverses moves the inverses of commits from the store to the file beside their segment, which may have some of them. The store has applied them
// all, and meanwhile nobody gives it any.
func (s *Store) MoveInverses(ctx context.Context, commits batchlog.IDRange, file string) (err error) {
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	if err := s.onlyBeside(commits, file); err != nil {
		return err
	}
	part := file + ".part"
	if err := s.writeBeside(ctx, commits, file, part); err != nil {
		return errors.Join(openError(err), disk.Remove(s.opts.FS, part))
	}
	if err := s.opts.FS.Rename(part, file); err != nil {
		return errors.Join(err, disk.Remove(s.opts.FS, part))
	}
	if err := disk.SyncDir(s.opts.FS, filepath.Dir(file)); err != nil {
		return err
	}
	return s.dropMoved(ctx, commits)
}

// writeBeside makes the table of what the store has and what is in the file already.
func (s *Store) writeBeside(ctx context.Context, commits batchlog.IDRange, file, part string) (err error) {
	f, err := s.opts.FS.Create(part, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.tableOptions())
	err = errors.Join(s.writeParts(ctx, w, commits, file), s.writeBlocks(ctx, w, commits, file))
	if err = errors.Join(err, w.Close()); err != nil { // which syncs it
		return err
	}
	return s.checkBeside(part)
}

// checkBeside reads a table as a whole, which checks its sums.
func (s *Store) checkBeside(file string) error {
	it, err := s.besideIter(file, nil, nil)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if _, err := it.ValueAndErr(); err != nil {
			return errors.Join(err, readError(it.Close()))
		}
	}
	return errors.Join(readError(it.Error()), readError(it.Close()))
}

// writeParts writes the parts of large inverses. Those that are in both are the same.
func (s *Store) writeParts(ctx context.Context, w *sstable.Writer, commits batchlog.IDRange, file string) (err error) {
	low, high := inversePartKey(commits.First, 0), inversePartKey(commits.Last+1, 0)
	its, err := s.bothIters(file, low, high)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(its)) }()
	for _, it := range its {
		it.First()
	}
	for {
		var least *pebble.Iterator
		for _, it := range its {
			if it.Valid() && (least == nil || slices.Compare(it.Key(), least.Key()) < 0) {
				least = it
			}
		}
		if least == nil {
			return iterErrors(its)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		value, err := least.ValueAndErr()
		if err == nil {
			err = w.Set(least.Key(), value)
		}
		if err != nil {
			return err
		}
		key := slices.Clone(least.Key())
		for _, it := range its {
			if it.Valid() && slices.Equal(it.Key(), key) {
				it.Next()
			}
		}
	}
}

// writeBlocks writes blocks of the inverses of just these commits.
func (s *Store) writeBlocks(ctx context.Context, w *sstable.Writer, commits batchlog.IDRange, file string) (err error) {
	its, err := s.bothIters(file, inverseKey(commits.First), []byte{0, inverseTag + 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(its)) }()
	var sources []*ascending
	for _, it := range its {
		it.First()
		sources = append(sources, &ascending{it: it, next: commits.First, last: commits.Last})
	}
	out := blockWriter{size: defaultInverseSizes.block, next: commits.First}
	take := func() error {
		if key, value, ok := out.take(); ok {
			return w.Set(key, value)
		}
		return nil
	}
	for id := commits.First; id <= commits.Last; id++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v, next, err := inverseOf(sources, id)
		if err != nil {
			return err
		}
		if next != id { // none has it
			if err := take(); err != nil {
				return err
			}
			out.next, id = next, next-1
			continue
		}
		if out.add(v) {
			if err := take(); err != nil {
				return err
			}
		}
	}
	return take()
}

// inverseOf is the inverse of id, of the first source that has it. If none has, next is the next commit of which one has.
func inverseOf(sources []*ascending, id batchlog.ID) (v inverse, next batchlog.ID, err error) {
	for _, a := range sources {
		has, err := a.seek(id)
		if err != nil {
			return inverse{}, 0, err
		}
		if has == id {
			return a.block.inverses[id-a.block.first], id, nil
		}
		if next == 0 || has < next {
			next = has
		}
	}
	return inverse{}, next, nil
}

// ascending reads blocks in the order of ids.
type ascending struct {
	it         *pebble.Iterator
	block      block
	next, last batchlog.ID // commits that it has not been asked for yet
}

// seek is the first commit from id on of which there is an inverse, in the block that is current then; last+1 if there is none.
func (a *ascending) seek(id batchlog.ID) (batchlog.ID, error) {
	for {
		if end := a.block.first + batchlog.ID(len(a.block.inverses)); id < end {
			return min(max(id, a.block.first), a.last+1), nil
		}
		if !a.it.Valid() {
			return a.last + 1, readError(a.it.Error())
		}
		b, err := iterBlock(a.it)
		if err != nil {
			return 0, err
		}
		for i := range b.inverses { // the iterator goes on
			b.inverses[i].ops = slices.Clone(b.inverses[i].ops)
		}
		a.block = b
		a.it.Next()
	}
}

// dropMoved has the store forget the inverses of commits. What a block has of others stays.
func (s *Store) dropMoved(ctx context.Context, commits batchlog.IDRange) error {
	b := s.db.NewBatch()
	err := errors.Join(b.DeleteRange(inverseKey(commits.First), inverseKey(commits.Last+1), nil),
		b.DeleteRange(inversePartKey(commits.First, 0), inversePartKey(commits.Last+1, 0), nil),
		s.keepRest(b, commits))
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return s.applyBounded(ctx, b, func() {})
}

// keepRest puts what the blocks that are about commits have of others.
func (s *Store) keepRest(batch *pebble.Batch, commits batchlog.IDRange) error {
	it, err := s.inverseIter(commits.First)
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var b block
		if b, err = iterBlock(it); err != nil || b.first > commits.Last {
			break
		}
		last := b.first + batchlog.ID(len(b.inverses)) - 1
		if last > commits.Last {
			key, value := encodeBlock(commits.Last+1, b.inverses[commits.Last+1-b.first:])
			err = batch.Set(key, value, nil)
		}
		if b.first < commits.First && err == nil {
			key, value := encodeBlock(b.first, b.inverses[:commits.First-b.first])
			err = batch.Set(key, value, nil)
		}
	}
	return errors.Join(err, readError(it.Error()), readError(it.Close()))
}

// encodeBlock is a block of inverses of commits from first on.
func encodeBlock(first batchlog.ID, inverses []inverse) (key, value []byte) {
	w := blockWriter{next: first}
	for _, v := range inverses {
		w.add(v)
	}
	key, value, _ = w.take()
	return key, value
}

// bothIters are iterators over the store and, if there is one, the file: of what is in both the first one's counts.
func (s *Store) bothIters(file string, low, high []byte) (its []*pebble.Iterator, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return nil, readError(err)
	}
	its = append(its, it)
	if it, err = s.besideIter(file, low, high); disk.NotExist(err) {
		return its, nil
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(its))
	}
	return append(its, it), nil
}

func closeAll(its []*pebble.Iterator) (err error) {
	for _, it := range its {
		err = errors.Join(err, readError(it.Close()))
	}
	return err
}

func iterErrors(its []*pebble.Iterator) (err error) {
	for _, it := range its {
		err = errors.Join(err, readError(it.Error()))
	}
	return err
}

// besideOptions are those of reading such files.
var besideOptions = func() *pebble.Options {
	o := &pebble.Options{}
	o.EnsureDefaults()
	return o
}()

// besideIter is an iterator over a file with inverses.
func (s *Store) besideIter(file string, low, high []byte) (*pebble.Iterator, error) {
	f, err := s.opts.FS.Open(file)
	if err != nil {
		return nil, err
	}
	it, err := pebble.NewExternalIter(besideOptions, &pebble.IterOptions{LowerBound: low, UpperBound: high}, [][]sstable.ReadableFile{{f}})
	if err != nil {
		return nil, damagedBeside(file, err)
	}
	return it, nil
}

// damagedBeside is err, which came of reading a file with inverses.
func damagedBeside(file string, err error) error {
	if err == nil || !errors.Is(readError(err), batchlog.ErrCorrupt) {
		return err
	}
	if at := new(batchlog.CorruptError); errors.As(err, &at) && at.File == file {
		return err
	}
	return &batchlog.CorruptError{File: file, Err: fmt.Errorf("what commits have overwritten: %w", err)}
}

// A besideReader reads the files beside segments, one at a time.
type besideReader struct {
	store *Store
	file  string
	it    *pebble.Iterator // of the blocks in file
}

// block is the block with the inverse of a commit, of the file beside its segment; ok is false if there is none. It is valid until the next one is asked for.
func (r *besideReader) block(id batchlog.ID) (b block, ok bool, err error) {
	file := r.store.beside(id)
	if file == "" {
		return block{}, false, nil
	}
	if file != r.file {
		if err := r.close(); err != nil {
			return block{}, false, err
		}
		it, err := r.store.besideIter(file, inverseKey(0), []byte{0, inverseTag + 1})
		if disk.NotExist(err) {
			return block{}, false, nil
		}
		if err != nil {
			return block{}, false, err
		}
		r.file, r.it = file, it
	}
	if !r.it.SeekGE(inverseKey(id)) {
		return block{}, false, damagedBeside(file, r.it.Error())
	}
	if b, err = iterBlock(r.it); err != nil {
		return block{}, false, damagedBeside(file, err)
	}
	return b, b.first <= id, nil
}

func (r *besideReader) close() error {
	if r.it == nil {
		return nil
	}
	err := damagedBeside(r.file, r.it.Close())
	r.file, r.it = "", nil
	return err
}

// noInverse says why there is no inverse of a commit: it was not kept, or the file beside its segment is missing.
func (s *Store) noInverse(id batchlog.ID) error {
	file := s.beside(id)
	if file == "" {
		return &batchlog.InverseError{ID: id}
	}
	if _, err := s.opts.FS.Stat(file); !disk.NotExist(err) {
		if err := s.ownBeside(id, file); err != nil {
			return err
		}
		return &batchlog.InverseError{ID: id}
	}
	rows, err := s.inverseRows(s.Applied())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(rows, func(r batchlog.IDRange) bool { return r.First <= id && id <= r.Last }) && s.beside(id) == file { // else it has just been dropped
		return &batchlog.CorruptError{File: file, ID: id, Err: errors.New("what its commits have overwritten is missing")}
	}
	return &batchlog.InverseError{ID: id}
}

// ownBeside makes sure that what a file has is of commits of the segment with commit id: one file may have been put in the place of another.
func (s *Store) ownBeside(id batchlog.ID, file string) (err error) {
	commits, now := s.opts.Beside(id)
	if now != file { // it has just been dropped
		return nil
	}
	return s.onlyBeside(commits, file)
}

// onlyBeside makes sure that what a file has, if there is one, is of these commits.
func (s *Store) onlyBeside(commits batchlog.IDRange, file string) error {
	it, err := s.besideIter(file, inverseKey(0), []byte{0, inverseTag + 1})
	if disk.NotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if it.First() {
		var b block
		if b, err = iterBlock(it); err == nil && (b.first < commits.First || b.first > commits.Last) {
			err = &batchlog.CorruptError{File: file, ID: commits.First, Err: fmt.Errorf("it is of another segment: what commit %d has overwritten is in it, and its commits are %d to %d", b.first, commits.First, commits.Last)}
		}
	}
	return damagedBeside(file, errors.Join(err, it.Error(), it.Close()))
}

// besidePart is a part of a large inverse, of the file beside the segment of its commit.
func (s *Store) besidePart(id batchlog.ID, n uint32) ([]byte, error) {
	file := s.beside(id)
	if file == "" {
		return nil, batchlog.ErrNotFound
	}
	it, err := s.besideIter(file, inversePartKey(id, n), inversePartKey(id, n+1))
	if disk.NotExist(err) {
		return nil, batchlog.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	var value []byte
	found := it.First()
	if found {
		value, err = it.ValueAndErr()
		value = slices.Clone(value)
	}
	if err = damagedBeside(file, errors.Join(err, readError(it.Error()), readError(it.Close()))); err == nil && !found {
		err = batchlog.ErrNotFound
	}
	return value, err
}

// beside is the file beside the segment of a commit, "" if it has none.
func (s *Store) beside(id batchlog.ID) string {
	if s.opts.Beside == nil {
		return ""
	}
	_, file := s.opts.Beside(id)
	return file
}
