package chainsort

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A run is a file of sorted items. It is a row of blocks, of a page each unless one item alone needs more. Integers are little-endian.
// Where it ends is known to the Sorter alone: runs do not outlive it, and are not made durable.
//
//	 0       4       8             8+size
//	+-------+-------+----- ... -----+
//	|  sum  | size  |     items     |
//	+-------+-------+----- ... -----+
//
//	sum   CRC-32C of all that follows it in the block
//	size  length of the items in bytes
//
// Values that are long are in another file, one behind the other, so that a merge holds one of them at most. In their place the
// run has a farRef.
type run struct {
	name     string
	size     int64
	maxBlock int // size of the largest block with its header: what a reader needs
	marks    marks

	farName string // "": no long values
	farSize int64
}

const (
	sumAt       = 0
	sizeAt      = 4
	blockHeader = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A farRef says where a long value is.
//
//	 0               8               16      20
//	+---------------+---------------+-------+
//	|    offset     |     size      |  sum  |
//	+---------------+---------------+-------+
//
//	offset  from the start of the file
//	size    in bytes
//	sum     CRC-32C of the value
type farRef struct {
	offset, size int64
	sum          uint32
}

const farRefSize = 20

func (f farRef) appendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.offset))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.size))
	return binary.LittleEndian.AppendUint32(dst, f.sum)
}

func readFarRef(b []byte) (f farRef, ok bool) {
	if len(b) != farRefSize {
		return farRef{}, false
	}
	f.offset = int64(binary.LittleEndian.Uint64(b))
	f.size = int64(binary.LittleEndian.Uint64(b[8:]))
	f.sum = binary.LittleEndian.Uint32(b[16:])
	return f, f.offset >= 0 && f.size >= 0
}

// marks say with which key some of the blocks of a run begin. There are as many as fit a bound: of a longer run fewer of the blocks.
type marks struct {
	keys    []byte // one behind the other, cut to markKey
	ends    []int  // of the keys
	offsets []int64
	every   int // how many blocks one mark stands for
	skipped int // blocks since the last one
}

// markKey is how much of a key a mark keeps: most of the path of a space and enough behind it.
const markKey = 64

func (m *marks) bytes() int { return cap(m.keys) + 8*(cap(m.ends)+cap(m.offsets)) }

func (m *marks) key(i int) []byte {
	start := 0
	if i > 0 {
		start = m.ends[i-1]
	}
	return m.keys[start:m.ends[i]]
}

// add marks the block at offset, which begins with key. maxBytes bounds the marks.
func (m *marks) add(key []byte, offset int64, maxBytes int) {
	m.every = max(m.every, 1)
	m.skipped++
	if m.skipped < m.every && len(m.ends) > 0 {
		return
	}
	m.skipped = 0
	m.keys = append(m.keys, key[:min(len(key), markKey)]...)
	m.ends = append(m.ends, len(m.keys))
	m.offsets = append(m.offsets, offset)
	if len(m.keys)+16*len(m.ends) > maxBytes && len(m.ends) > 1 {
		m.halve()
	}
}

// halve drops every second mark.
func (m *marks) halve() {
	var half marks
	for i := 0; i < len(m.ends); i += 2 {
		half.keys = append(half.keys, m.key(i)...)
		half.ends = append(half.ends, len(half.keys))
		half.offsets = append(half.offsets, m.offsets[i])
	}
	half.every = 2 * m.every
	if len(m.ends)%2 == 0 { // the last one was dropped, so its blocks are skipped ones
		half.skipped = m.every
	}
	*m = half
}

// seek is the offset of a block before which all keys are below low.
func (m *marks) seek(low []byte) int64 {
	lo, hi := 0, len(m.ends) // the marks below lo are of keys below low
	for lo < hi {
		mid := (lo + hi) / 2
		key := m.key(mid)
		// Where the mark is cut, so is low: if they are equal then, the key may be above it.
		if bytes.Compare(key, low[:min(len(low), markKey)]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0
	}
	return m.offsets[lo-1]
}

// A runWriter writes a run. After an error it must be given up.
type runWriter struct {
	s      *Sorter
	run    *run
	marked bool // the run is given marks
	file   vfs.File
	far    vfs.File
	block  []byte
	page   []byte // block, when it is not larger
	copy   []byte // page for what is written to far
	ref    item
	refBuf []byte
	value  []byte // one long value that is copied from another run
	reader farReader
}

// syncEvery is after how many bytes the disk is told to write: it smooths the traffic.
const syncEvery = 1 << 20

func (s *Sorter) create(name string) (vfs.File, error) {
	path := s.opts.FS.PathJoin(s.opts.Dir, name)
	f, err := s.opts.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		s.remove(path, 0)
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: syncEvery, NoSyncOnClose: true}), nil
}

// newRun begins a run of that lane.
func (s *Sorter) newRun(l *lane) (*runWriter, error) {
	s.made++
	w := &runWriter{s: s, run: &run{name: fmt.Sprintf("%06d.%s", s.made, l.name)}, marked: l == &s.points, reader: farReader{s: s}}
	var err error
	if w.file, err = s.create(w.run.name); err != nil {
		return nil, err
	}
	w.page = s.page(0)
	w.block = append(w.page, make([]byte, blockHeader)...)
	return w, nil
}

// add appends an item. That its key and order are behind those of the one before is up to the caller.
func (w *runWriter) add(it *item) error {
	switch {
	case it.kind == farPut:
		value, err := w.reader.read(it, w.value)
		if err != nil {
			return err
		}
		w.value = value
		return w.addFar(it, value)
	case it.kind == put && len(it.value) > w.s.farBytes():
		return w.addFar(it, it.value)
	}
	return w.addEncoded(it.kind, it.key, it.encoded)
}

// addFar appends a put whose value is in the other file.
func (w *runWriter) addFar(it *item, value []byte) error {
	ref := farRef{offset: w.run.farSize, size: int64(len(value)), sum: crc32.Checksum(value, castagnoli)}
	if w.far == nil {
		name := fmt.Sprintf("%06d.values", w.s.made)
		f, err := w.s.create(name)
		if err != nil {
			return err
		}
		w.far, w.run.farName, w.copy = f, name, w.s.page(0)
	}
	for len(value) > 0 { // in copies, as a file may change what it is given
		n := min(len(value), cap(w.copy))
		if err := w.write(w.far, append(w.copy[:0], value[:n]...), &w.run.farSize); err != nil {
			return err
		}
		value = value[n:]
	}
	w.ref = item{kind: farPut, seq: it.seq, age: it.age, key: it.key, value: ref.appendTo(w.ref.value[:0])}
	w.refBuf, _ = w.ref.appendTo(w.refBuf[:0])
	return w.addEncoded(farPut, it.key, w.refBuf)
}

// addEncoded appends an encoded item, but with that kind.
func (w *runWriter) addEncoded(k kind, key, encoded []byte) error {
	if len(w.block) > blockHeader && len(w.block)+len(encoded) > w.s.pageBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(w.block) == blockHeader && w.marked {
		w.run.marks.add(key, w.run.size, w.s.pageBytes/8)
	}
	w.block = append(append(w.block, byte(k)), encoded[1:]...)
	return nil
}

// flush writes the block.
func (w *runWriter) flush() error {
	if len(w.block) == blockHeader {
		return nil
	}
	w.run.maxBlock = max(w.run.maxBlock, len(w.block))
	binary.LittleEndian.PutUint32(w.block[sizeAt:], uint32(len(w.block)-blockHeader))
	binary.LittleEndian.PutUint32(w.block[sumAt:], crc32.Checksum(w.block[sizeAt:], castagnoli))
	err := w.write(w.file, w.block, &w.run.size)
	w.block = w.page[:blockHeader]
	return err
}

// write appends b to a file. size grows even if it fails: it is what was reserved.
func (w *runWriter) write(f vfs.File, b []byte, size *int64) error {
	if err := w.s.reserve(int64(len(b))); err != nil {
		return err
	}
	*size += int64(len(b))
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write run %s: %w", w.run.name, err)
	}
	return nil
}

// finish ends the run, to which something must have been added. If that fails, it has been given up.
func (w *runWriter) finish() (*run, error) {
	if err := w.flush(); err != nil {
		w.giveUp()
		return nil, err
	}
	if err := w.close(); err != nil {
		w.s.drop(w.run)
		return nil, fmt.Errorf("close run %s: %w", w.run.name, err)
	}
	m := &w.run.marks
	m.keys, m.ends, m.offsets = slices.Clone(m.keys), slices.Clone(m.ends), slices.Clone(m.offsets)
	return w.run, nil
}

// giveUp removes what was written.
func (w *runWriter) giveUp() {
	_ = w.close() // an error is no news: the run is not wanted
	w.s.drop(w.run)
}

func (w *runWriter) close() error {
	w.s.freePage(w.page)
	if w.copy != nil {
		w.s.freePage(w.copy)
	}
	w.reader.close()
	err := w.file.Close()
	if w.far != nil {
		if e := w.far.Close(); err == nil {
			err = e
		}
	}
	return err
}

// farBytes is how long a value is at most that stands in its item.
func (s *Sorter) farBytes() int { return s.pageBytes / 4 }

// drop removes a run.
func (s *Sorter) drop(r *run) {
	s.remove(s.opts.FS.PathJoin(s.opts.Dir, r.name), r.size)
	if r.farName != "" {
		s.remove(s.opts.FS.PathJoin(s.opts.Dir, r.farName), r.farSize)
	}
}
