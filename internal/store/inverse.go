package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
)

// The store keeps the inverses of commits, what they have overwritten, where it is told to. They are made by who applies a commit, right before, and written in
// the same write: the old value of each key that the commit changes, or that it had none. Keys of the system are not among them.
//
//	00 'U' id part   a part (4 bytes) of an inverse that is too large for a block: ops
//	00 'u' last      inverses of commits in a row, the newest of which is last (8 bytes): a block, see below
//	00 'w' first     commits with inverses, in a row: the newest (8 bytes), or 0 while more are to come
//	00 'x' id        nothing: a commit whose inverse was too large to be kept
//
// Blocks are of many commits, as the store pays for each key.
//
//	+---------+--------------+------+-----+--------------+------+-----+---+
//	| commits | ops and form | size | ops | ops and form | size | ops | … |
//	+---------+--------------+------+-----+--------------+------+-----+---+
//	          '---- the oldest commit ----'
//
//	commits       uvarint; how many the block is about
//	ops and form  uvarint; how many ops, four times, plus the form
//	size          uvarint; of the ops, in bytes
//	ops           of the form inline: a put of the old value, or a delete, for each key, in the order of keys
const (
	inversePartTag = 'U'
	inverseTag     = 'u'
	inverseRowTag  = 'w'
	tooLargeTag    = 'x'
)

// An inverseForm says where the ops of an inverse are.
type inverseForm uint8

const (
	formInline   inverseForm = 0 // in the block
	formParts    inverseForm = 1 // in parts, under keys of their own
	formTooLarge inverseForm = 2 // nowhere: size is what they would take, at least
)

// inverseSizes are bounds, in bytes; tests have smaller ones.
type inverseSizes struct {
	block  int // from which on a block takes no further commit
	part   int // from which on a part takes no further op
	inline int // up to which an inverse is part of a block
	memory int // of the old values that are in memory at once
	latest int // of the values that were written last, see latest
}

var defaultInverseSizes = inverseSizes{block: 32 << 10, part: 64 << 10, inline: 1 << 20, memory: 16 << 20, latest: 16 << 20}

// DefaultInverseLimit is the size of the largest inverse that is kept of one commit, unless Options say otherwise.
const DefaultInverseLimit = 1 << 30

func inverseKey(last batchlog.ID) []byte {
	return binary.BigEndian.AppendUint64([]byte{0, inverseTag}, uint64(last))
}

func inverseRowKey(first batchlog.ID) []byte {
	return binary.BigEndian.AppendUint64([]byte{0, inverseRowTag}, uint64(first))
}

func tooLargeKey(id batchlog.ID) []byte {
	return binary.BigEndian.AppendUint64([]byte{0, tooLargeTag}, uint64(id))
}

func inversePartKey(id batchlog.ID, part uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte{0, inversePartTag}, uint64(id)), part)
}

// An inverse is that of one commit, as a block has it.
type inverse struct {
	form  inverseForm
	count int
	size  int64
	ops   []byte // inline
}

// A blockWriter gathers the inverses of commits in a row to blocks.
type blockWriter struct {
	size    int         // of a full block
	next    batchlog.ID // of the commit whose inverse comes next
	commits int
	body    []byte
	block   []byte
}

// add adds the inverse of the next commit, and reports whether the block should be taken now.
func (w *blockWriter) add(v inverse) (full bool) {
	w.body = binary.AppendUvarint(w.body, uint64(v.count)<<2|uint64(v.form))
	w.body = binary.AppendUvarint(w.body, uint64(v.size))
	w.body = append(w.body, v.ops...)
	w.commits++
	w.next++
	return len(w.body) >= w.size
}

// take returns the block, valid until the next one is taken; ok is false if it is empty.
func (w *blockWriter) take() (key, value []byte, ok bool) {
	if w.commits == 0 {
		return nil, nil, false
	}
	w.block = append(binary.AppendUvarint(w.block[:0], uint64(w.commits)), w.body...)
	w.body, w.commits = w.body[:0], 0
	return inverseKey(w.next - 1), w.block, true
}

var errInverse = fmt.Errorf("store: %w: malformed inverse", batchlog.ErrCorrupt)

// A block is a decoded one. What it holds shares memory with the encoded one.
type block struct {
	first    batchlog.ID
	inverses []inverse
}

func parseBlock(key, value []byte) (block, error) {
	if len(key) != 2+8 {
		return block{}, errInverse
	}
	last := batchlog.ID(binary.BigEndian.Uint64(key[2:]))
	commits, n := binary.Uvarint(value)
	if n <= 0 || commits == 0 || commits > uint64(last) || commits > uint64(len(value)) {
		return block{}, fmt.Errorf("%w, of commits up to %d", errInverse, last)
	}
	b := block{first: last - batchlog.ID(commits) + 1, inverses: make([]inverse, commits)}
	value = value[n:]
	for i := range b.inverses {
		head, n := binary.Uvarint(value)
		size, m := binary.Uvarint(value[max(n, 0):])
		v := inverse{form: inverseForm(head & 3), count: int(head >> 2), size: int64(size)}
		if n <= 0 || m <= 0 || v.form > formTooLarge || v.form == formInline && size > uint64(len(value)-n-m) {
			return block{}, fmt.Errorf("%w, of commit %d", errInverse, b.first+batchlog.ID(i))
		}
		value = value[n+m:]
		if v.form == formInline {
			v.ops, value = value[:size:size], value[size:]
		}
		b.inverses[i] = v
	}
	if len(value) > 0 {
		return block{}, fmt.Errorf("%w, behind that of commit %d", errInverse, last)
	}
	return b, nil
}

// Inverse is as batchlog.Undoer says, for a commit that was applied.
func (s *Store) Inverse(id batchlog.ID) (wire.OpReader, error) {
	v, err := s.inverse(id)
	if err != nil {
		return nil, err
	}
	switch v.form {
	case formInline:
		return &inlineReader{v}, nil
	case formParts:
		return &partsReader{store: s, id: id, left: v.count}, nil
	default:
		return nil, s.tooLarge(id, v)
	}
}

// tooLarge says that an inverse was not kept. A backfill may have had a lower limit than the store has.
func (s *Store) tooLarge(id batchlog.ID, v inverse) error {
	return &batchlog.InverseError{ID: id, Bytes: v.size, Limit: min(s.opts.InverseLimit, v.size-1)}
}

// inverse finds that of a commit. Its ops are the caller's.
func (s *Store) inverse(id batchlog.ID) (inverse, error) {
	if !s.use.enter() {
		return inverse{}, batchlog.ErrClosed
	}
	defer s.use.leave()
	it, err := s.inverseIter(id)
	if err != nil {
		return inverse{}, err
	}
	if it.First() {
		b, err := iterBlock(it)
		if err != nil {
			return inverse{}, errors.Join(err, readError(it.Close()))
		}
		if b.first <= id {
			v := b.inverses[id-b.first]
			v.ops = append([]byte(nil), v.ops...)
			return v, readError(it.Close())
		}
	}
	if err := errors.Join(readError(it.Error()), readError(it.Close())); err != nil {
		return inverse{}, readError(err)
	}
	beside := besideReader{store: s}
	b, ok, err := beside.block(id)
	if err == nil && !ok {
		err = s.noInverse(id)
	}
	if err != nil {
		return inverse{}, errors.Join(err, beside.close())
	}
	v := b.inverses[id-b.first]
	v.ops = append([]byte(nil), v.ops...)
	return v, beside.close()
}

// inverseIter is an iterator over the blocks from the one on that id is in, or would be.
func (s *Store) inverseIter(id batchlog.ID) (*pebble.Iterator, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: inverseKey(id), UpperBound: []byte{0, inverseTag + 1}})
	if err != nil {
		return nil, readError(err)
	}
	return it, nil
}

// iterBlock is the block that it stands on.
func iterBlock(it *pebble.Iterator) (block, error) {
	value, err := it.ValueAndErr()
	if err != nil {
		return block{}, readError(err)
	}
	return parseBlock(it.Key(), value)
}

// An inlineReader reads an inverse that is in memory.
type inlineReader struct{ rest inverse }

func (r *inlineReader) Next() (ops []byte, count int, err error) {
	if r.rest.count == 0 {
		return nil, 0, io.EOF
	}
	ops, count = r.rest.ops, r.rest.count
	r.rest = inverse{}
	return ops, count, nil
}

func (r *inlineReader) Close() error { return nil }

// A partsReader reads an inverse part by part. It holds nothing of the store meanwhile.
type partsReader struct {
	store *Store
	id    batchlog.ID
	part  uint32
	left  int // ops
}

func (r *partsReader) Next() (ops []byte, count int, err error) {
	if r.left == 0 {
		return nil, 0, io.EOF
	}
	value, err := r.store.part(r.id, r.part)
	if errors.Is(err, batchlog.ErrNotFound) { // it went with its commit, meanwhile
		return nil, 0, &batchlog.InverseError{ID: r.id, Gone: true}
	}
	if err != nil {
		return nil, 0, err
	}
	n, err := partCount(value, r.id, r.left)
	if err != nil {
		return nil, 0, err
	}
	_, size := binary.Uvarint(value)
	r.part++
	r.left -= n
	return value[size:], n, nil
}

// part reads a part of an inverse. It doesn't mind a chain that is being taken in: what was written once stays as it is.
func (s *Store) part(id batchlog.ID, n uint32) ([]byte, error) {
	if !s.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.use.leave()
	value, closer, err := s.db.Get(inversePartKey(id, n))
	if errors.Is(err, pebble.ErrNotFound) {
		return s.besidePart(id, n)
	}
	if err != nil {
		return nil, readError(err)
	}
	return append([]byte(nil), value...), closer.Close()
}

// partCount is how many ops are in a part of the inverse of commit id, of which so many are left.
func partCount(part []byte, id batchlog.ID, left int) (int, error) {
	n, size := binary.Uvarint(part)
	if size <= 0 || n == 0 || n > uint64(left) {
		return 0, fmt.Errorf("%w, a part of that of commit %d", errInverse, id)
	}
	return int(n), nil
}

func (r *partsReader) Close() error { return nil }

// EachInverse calls visit with the inverses of the commits up to high and above low, the newest first. One that is missing is an
// *InverseError. What visit is given is valid until it returns.
func (s *Store) EachInverse(ctx context.Context, low, high batchlog.ID, visit func(id batchlog.ID, ops []byte, count int) error) (err error) {
	if low >= high {
		return nil
	}
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: inverseKey(low + 1), UpperBound: []byte{0, inverseTag + 1}})
	if err != nil {
		return readError(err)
	}
	defer func() { err = errors.Join(err, readError(it.Close())) }()
	beside := besideReader{store: s}
	defer func() { err = errors.Join(err, beside.close()) }()
	ok := it.SeekGE(inverseKey(high))
	if !ok && it.Error() == nil {
		ok = it.Last()
	}
	for high > low {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b, here, err := descend(it, ok, high)
		if err != nil {
			return err
		}
		end := batchlog.ID(0) // behind what the store has next
		if here {
			end = b.first + batchlog.ID(len(b.inverses))
		}
		stored := high < end
		first := b.first
		if !stored {
			var found bool
			if b, found, err = beside.block(high); err == nil && !found {
				err = s.noInverse(high)
			}
			if err != nil {
				return err
			}
			first = max(b.first, end) // what the store has comes first, also in the midst of what is in the file: a backfill made it later
		}
		for ; high >= first && high > low; high-- {
			if err := s.visitInverse(high, b.inverses[high-b.first], visit); err != nil {
				return err
			}
		}
		if ok = here; stored {
			ok = it.Prev()
		}
	}
	return nil
}

// descend goes on, from where it stands if ok says that it does, to the newest block with the inverse of commit id or an earlier one. ok is false if there is none.
func descend(it *pebble.Iterator, here bool, id batchlog.ID) (b block, ok bool, err error) {
	for ; here; here = it.Prev() {
		b, err := iterBlock(it)
		if err != nil {
			return block{}, false, err
		}
		if b.first <= id { // else a backfill that was interrupted has left what the next one has made again
			return b, true, nil
		}
	}
	return block{}, false, readError(it.Error())
}

func (s *Store) visitInverse(id batchlog.ID, v inverse, visit func(id batchlog.ID, ops []byte, count int) error) error {
	switch v.form {
	case formTooLarge:
		return s.tooLarge(id, v)
	case formInline:
		if v.count == 0 {
			return nil
		}
		return visit(id, v.ops, v.count)
	}
	r := partsReader{store: s, id: id, left: v.count}
	for {
		ops, count, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = visit(id, ops, count)
		}
		if err != nil {
			return err
		}
	}
}

// Inverses are the commits whose inverses the store has, in rows, ascending.
func (s *Store) Inverses() (rows []batchlog.IDRange, err error) {
	if !s.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.use.leave()
	return s.inverseRows(s.Applied())
}

// inverseRows are the rows as they are, or are to be, at commit applied.
func (s *Store) inverseRows(applied batchlog.ID) (rows []batchlog.IDRange, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{0, inverseRowTag}, UpperBound: []byte{0, inverseRowTag + 1}})
	if err != nil {
		return nil, readError(err)
	}
	defer func() { err = errors.Join(err, readError(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, readError(err)
		}
		if len(it.Key()) != 2+8 || len(value) != 8 {
			return nil, fmt.Errorf("store: %w: malformed row of inverses", batchlog.ErrCorrupt)
		}
		r := batchlog.IDRange{First: batchlog.ID(binary.BigEndian.Uint64(it.Key()[2:])), Last: batchlog.ID(binary.BigEndian.Uint64(value))}
		if r.Last == 0 {
			r.Last = applied
		}
		if r.Last < r.First {
			continue
		}
		if n := len(rows); n > 0 && rows[n-1].Last+1 >= r.First {
			rows[n-1].Last = max(rows[n-1].Last, r.Last)
			continue
		}
		rows = append(rows, r)
	}
	return rows, readError(it.Error())
}

// TooLarge are the commits whose inverses were too large to be kept, ascending.
func (s *Store) TooLarge() (ids []batchlog.ID, err error) {
	if !s.use.enter() {
		return nil, batchlog.ErrClosed
	}
	defer s.use.leave()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{0, tooLargeTag}, UpperBound: []byte{0, tooLargeTag + 1}})
	if err != nil {
		return nil, readError(err)
	}
	for ok := it.First(); ok && len(it.Key()) == 2+8; ok = it.Next() {
		ids = append(ids, batchlog.ID(binary.BigEndian.Uint64(it.Key()[2:])))
	}
	return ids, errors.Join(readError(it.Error()), readError(it.Close()))
}

// ForgetInverses forgets the inverses of commits before oldest, which the log no longer has. Some may stay, in a block with others.
func (s *Store) ForgetInverses(oldest batchlog.ID) (err error) {
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	b := s.db.NewBatch()
	rows, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{0, inverseRowTag}, UpperBound: inverseRowKey(oldest)})
	if err != nil {
		return errors.Join(readError(err), b.Close())
	}
	for ok := rows.First(); ok; ok = rows.Next() {
		if value, verr := rows.ValueAndErr(); verr != nil {
			err = errors.Join(err, verr)
		} else if last := batchlog.ID(binary.BigEndian.Uint64(value)); last != 0 && last < oldest {
			err = errors.Join(err, b.Delete(rows.Key(), nil))
		}
	}
	err = errors.Join(err, readError(rows.Error()), readError(rows.Close()),
		b.DeleteRange(inverseKey(0), inverseKey(oldest), nil),
		b.DeleteRange(inversePartKey(0, 0), inversePartKey(oldest, 0), nil),
		b.DeleteRange(tooLargeKey(0), tooLargeKey(oldest), nil))
	if err != nil {
		return fmt.Errorf("forget inverses: %w", errors.Join(err, b.Close()))
	}
	return s.writeAside(b)
}
