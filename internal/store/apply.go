package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
)

// A Pebble batch: a header, of which the store fills in the count, then ops as batchlog encodes them.
const (
	batchHead  = 12 // sequence number (8), count (4)
	batchCount = 8
)

// Apply makes the changes of records, which follow on what was applied, and moves the mark, all as one, but for chains, each of which is one of its own.
// When it returns every view shows them. After an error that has a method Unwritten those of records that follow on what is applied by then can be applied again.
func (s *Store) Apply(records []wire.Record) error {
	if len(records) == 0 {
		return nil
	}
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	if err := s.Failed(); err != nil {
		return err
	}
	last := records[len(records)-1].ID
	if first := records[0].ID; first != s.Applied()+1 {
		panic(fmt.Sprintf("batchlog: bug: apply commit %d to a store at %d", first, s.Applied()))
	}
	for len(records) > 0 {
		n, err := s.applySome(records)
		if err != nil {
			return fmt.Errorf("apply commits %d to %d: %w", records[0].ID, last, err)
		}
		records = records[n:]
	}
	return nil
}

// An unwritten error came before anything of a commit was written: the commit can be applied again.
type unwritten struct{ error }

// Unwritten is what tells it from others.
func (unwritten) Unwritten() {}

func (e unwritten) Unwrap() error { return e.error }

// applySome applies the first of records, as many as can be at once.
func (s *Store) applySome(records []wire.Record) (n int, err error) {
	undo := s.undo.wanted.Load()
	if records[0].Chain != nil {
		return 1, s.applyChain(&records[0], undo)
	}
	if n = slices.IndexFunc(records, func(r wire.Record) bool { return r.Chain != nil }); n < 0 {
		n = len(records)
	}
	if undo {
		return s.applyInverted(records[:n])
	}
	return n, s.applyBatch(records[:n], &extra{})
}

// extra is what is written together with commits.
type extra struct {
	puts  []byte // encoded
	count int
	blobs blobNotes // beside those of the commits
	undo  bool      // the commits have inverses
	known bool      // what they leave is noted as the latest
}

// applyBatch applies records, none of which is a chain, with what comes with them.
func (s *Store) applyBatch(records []wire.Record, x *extra) error {
	if !x.known {
		s.undo.inverter.latest.reset()
	}
	row := s.undo.row.Load()
	switch first := records[0].ID; {
	case x.undo && row == 0:
		row = uint64(first)
		x.set(inverseRowKey(first), idBytes(0))
	case !x.undo && row != 0:
		x.set(inverseRowKey(batchlog.ID(row)), idBytes(first-1))
		row = 0
	}
	b := s.db.NewBatch()
	if x.blobs != nil || slices.ContainsFunc(records, func(r wire.Record) bool { return r.HasBlobs() }) {
		s.blobIndex.Lock()
		defer s.blobIndex.Unlock()
	}
	size, err := fill(b, records, x)
	if err == nil {
		err = s.write(b)
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	s.written.Add(int64(size))
	s.undo.row.Store(row)
	s.applied.Store(uint64(records[len(records)-1].ID))
	return nil
}

func (x *extra) set(key, value []byte) {
	x.puts = appendSet(x.puts, key, value)
	x.count++
}

// Load makes the changes of ops and leaves the mark where it is: for a store that is not read before a commit follows, of which these are a part.
func (s *Store) Load(ops []byte, count int) error {
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	if err := s.Failed(); err != nil {
		return err
	}
	s.undo.inverter.latest.reset()
	b := s.db.NewBatch()
	data := append(b.Repr(), ops...)
	binary.LittleEndian.PutUint32(data[batchCount:], uint32(count))
	if err := b.SetRepr(data); err != nil {
		return errors.Join(err, b.Close())
	}
	return s.writeAside(b)
}

// fill makes b the changes of records. Their bytes are taken over as they are: ops are encoded as Pebble encodes them.
func fill(b *pebble.Batch, records []wire.Record, x *extra) (size int, err error) {
	data := b.Repr()
	if len(data) != batchHead {
		panic("batchlog: bug: batch is not empty")
	}
	count := 0
	for i := range records {
		r := &records[i]
		data = append(data, r.Ops...)
		size += len(r.Ops)
		count += r.Count
		if len(r.Meta) > 0 {
			if r.HasBlobs() {
				n, more, err := appendBlobIndex(data, r, &x.blobs)
				if err != nil {
					return 0, err
				}
				data, count = more, count+n
			}
			if token := r.Token(); token != "" {
				data = appendSet(data, tokenKey(token), idBytes(r.ID))
				data = appendSet(data, tokenIDKey(r.ID, token), nil)
				count += 2
			}
		}
	}
	data = append(data, x.puts...)
	count += x.count
	for hash, note := range x.blobs {
		data = appendSet(data, blobKey(hash), blobEntry(note.id, note.size))
		count++
	}
	data = appendSet(data, appliedKey, idBytes(records[len(records)-1].ID))
	count++
	binary.LittleEndian.PutUint32(data[batchCount:], uint32(count))
	return size, b.SetRepr(data)
}

// write makes the changes of a batch. All that is not in tables comes this way.
//
// Where Pebble can't go on it ends the goroutine that this is called in, see pebbleLogger. The applier's may end; who else calls it calls writeAside.
func (s *Store) write(b *pebble.Batch) error {
	s.memory.grow(int64(b.Len()))
	return s.db.Apply(b, pebble.NoSync)
}

// writeAside is write in a goroutine of its own, which closes the batch.
func (s *Store) writeAside(b *pebble.Batch) error {
	return s.aside(func() error { return errors.Join(s.write(b), b.Close()) })
}

// aside calls do in a goroutine of its own, and returns also if Pebble ends that, or never returns because it can't go on.
func (s *Store) aside(do func() error) error {
	if err := s.Failed(); err != nil {
		return err
	}
	done := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		defer close(done)
		result <- do()
	}()
	ended := s.ends(done)
	select {
	case err := <-result:
		return err
	default:
	}
	if err := s.Failed(); err != nil || !ended {
		return err
	}
	return errors.New("batchlog: bug: a call of the store ended without a result")
}

func appendSet(dst, key, value []byte) []byte {
	dst = append(dst, byte(batchlog.OpPut))
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

func idBytes(id batchlog.ID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func tokenKey(token string) []byte { return append([]byte{0, tokenTag}, token...) }

func tokenIDKey(id batchlog.ID, token string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{0, tokenIDTag}, uint64(id)), token...)
}

// Token is the commit with that token, if the store has it.
func (s *Store) Token(token string) (batchlog.ID, bool, error) {
	value, err := s.Get(tokenKey(token))
	if errors.Is(err, batchlog.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return batchlog.ID(binary.BigEndian.Uint64(value)), true, nil
}

// ForgetTokens forgets the tokens of commits before oldest, which the log no longer has. A token that a later commit has by now stays known: after a crash, which takes back
// what was forgotten and not yet on the disk, the store may say of one token that both commits have it.
func (s *Store) ForgetTokens(oldest batchlog.ID) error {
	if !s.use.enter() {
		return batchlog.ErrClosed
	}
	defer s.use.leave()
	const some = 1000 // forgotten at once
	for {
		b := s.db.NewBatch()
		n, err := s.forgetSome(b, oldest, some)
		if err == nil && n > 0 {
			err = s.writeAside(b)
		} else {
			err = errors.Join(err, b.Close())
		}
		if err != nil {
			return fmt.Errorf("forget tokens: %w", err)
		}
		if n < some {
			return nil
		}
	}
}

// forgetToken forgets a token if it is that of commit id.
func (s *Store) forgetToken(b *pebble.Batch, token string, id batchlog.ID) error {
	has, found, err := s.Token(token)
	if err != nil || !found || has != id {
		return err
	}
	return b.Delete(tokenKey(token), nil)
}

func (s *Store) forgetSome(b *pebble.Batch, oldest batchlog.ID, some int) (n int, err error) {
	low := []byte{0, tokenIDTag}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: binary.BigEndian.AppendUint64(low[:2:2], uint64(oldest))})
	if err != nil {
		return 0, err
	}
	for ok := it.First(); ok && n < some; ok = it.Next() {
		key := it.Key()
		err := b.Delete(key, nil)
		if err == nil {
			err = s.forgetToken(b, string(key[len(low)+8:]), batchlog.ID(binary.BigEndian.Uint64(key[len(low):])))
		}
		if err != nil {
			return n, errors.Join(err, readError(it.Close()))
		}
		n++
	}
	return n, errors.Join(readError(it.Error()), readError(it.Close()))
}
