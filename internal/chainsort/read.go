package chainsort

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	errSum   = errors.New("sum doesn't match")
	errBlock = errors.New("block that cannot be one")
	errItem  = errors.New("item that cannot be one")
)

// A runReader yields the items of a run.
type runReader struct {
	s      *Sorter
	run    *run
	file   vfs.File
	buf    []byte // holds one block
	rest   []byte // items of it that are to come
	offset int64  // of the next block
	at     int64  // of this block

	item item
	head uint64 // of the item's key at the depth of the merge
	done bool
}

// openRun opens a run at a block before which all keys are below low.
func (s *Sorter) openRun(r *run, low []byte) (*runReader, error) {
	f, err := s.opts.FS.Open(s.opts.FS.PathJoin(s.opts.Dir, r.name))
	if err != nil {
		return nil, fmt.Errorf("open run %s: %w", r.name, err)
	}
	return &runReader{s: s, run: r, file: f, buf: s.page(r.maxBlock), offset: r.marks.seek(low)}, nil
}

func (r *runReader) close() {
	r.s.freePage(r.buf)
	_ = r.file.Close() // nothing was written
}

// next reads the next item, or sets done.
func (r *runReader) next(depth int) error {
	if len(r.rest) == 0 {
		if r.offset >= r.run.size {
			r.done, r.head = true, ^uint64(0)
			return nil
		}
		if err := r.load(); err != nil {
			return err
		}
	}
	n := r.item.decode(r.rest)
	if n == 0 || len(r.item.key) < depth {
		return r.corrupt(r.at, errItem)
	}
	r.rest = r.rest[n:]
	r.item.run = r.run
	r.head = head(r.item.key, depth)
	return nil
}

// load reads the next block. One read is enough unless it is larger than a page, as blocks are nearly as large as that.
func (r *runReader) load() error {
	r.at = r.offset
	left := r.run.size - r.at
	b := r.buf[:min(int64(r.s.pageBytes), left)]
	if err := r.readAt(b, r.at); err != nil {
		return err
	}
	if len(b) < blockHeader {
		return r.corrupt(r.at, errBlock)
	}
	size := blockHeader + int64(binary.LittleEndian.Uint32(b[sizeAt:]))
	if size == blockHeader || size > left || size > int64(r.run.maxBlock) {
		return r.corrupt(r.at, errBlock)
	}
	if have := int64(len(b)); size > have {
		b = b[:size]
		if err := r.readAt(b[have:], r.at+have); err != nil {
			return err
		}
	}
	b = b[:size]
	if crc32.Checksum(b[sizeAt:], castagnoli) != binary.LittleEndian.Uint32(b[sumAt:]) {
		return r.corrupt(r.at, errSum)
	}
	r.rest = b[blockHeader:]
	r.offset = r.at + size
	return nil
}

func (r *runReader) readAt(b []byte, offset int64) error {
	return readFull(r.file, r.run.name, b, offset)
}

func (r *runReader) corrupt(offset int64, err error) error {
	return &batchlog.CorruptError{File: r.run.name, Offset: offset, Err: err}
}

// readFull reads all of b at offset. A file that ends before is damaged.
func readFull(f vfs.File, name string, b []byte, offset int64) error {
	n, err := f.ReadAt(b, offset)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF), err == nil:
		return &batchlog.CorruptError{File: name, Offset: offset, Err: io.ErrUnexpectedEOF}
	}
	return fmt.Errorf("read run %s: %w", name, err)
}

// A farReader reads long values. It keeps open the file that it read last: values of one run mostly follow one another.
type farReader struct {
	s    *Sorter
	run  *run
	file vfs.File
}

// read reads the value that a farPut stands for. It uses buf if that is large enough.
func (r *farReader) read(it *item, buf []byte) ([]byte, error) {
	ref, ok := readFarRef(it.value)
	if !ok || it.run == nil || ref.offset > it.run.farSize || ref.size > it.run.farSize-ref.offset {
		return nil, &batchlog.CorruptError{File: it.run.name, Err: errItem}
	}
	if r.run != it.run {
		r.close()
		f, err := r.s.opts.FS.Open(r.s.opts.FS.PathJoin(r.s.opts.Dir, it.run.farName))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", it.run.farName, err)
		}
		r.run, r.file = it.run, f
	}
	if int64(cap(buf)) < ref.size {
		buf = make([]byte, ref.size)
	}
	buf = buf[:ref.size]
	if err := readFull(r.file, it.run.farName, buf, ref.offset); err != nil {
		return nil, err
	}
	if crc32.Checksum(buf, castagnoli) != ref.sum {
		return nil, &batchlog.CorruptError{File: it.run.farName, Offset: ref.offset, Err: errSum}
	}
	return buf, nil
}

func (r *farReader) close() {
	if r.file != nil {
		_ = r.file.Close() // nothing was written
	}
	r.run, r.file = nil, nil
}
