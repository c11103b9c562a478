package blob

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// readBytes is what one read of the file gets at most: whole chunks that are still in the processor's cache when they are
	// checked.
	readBytes = 4 * chunkBytes
	// lanesCount is how many goroutines read for CopyTo, and laneAhead how many reads each may be ahead.
	lanesCount = 2
	laneAhead  = 2
)

// A File is a blob that is open. Its methods may be called at any time, but for Close, which must be the last one. What it
// returns has been checked: where the file does not match its sums the error is a [*DamageError].
//
// It keeps one chunk in memory, 64 KiB, once a read was smaller than that, and the table, 64 bytes for each MiB of content.
type File struct {
	file   vfs.File
	name   string
	size   int64  // of the content, in bytes
	table  []byte // sums of the chunks, as in the file
	closed atomic.Bool

	mu struct {
		sync.Mutex
		last *chunk // read last; nil: none, or a reader has it
	}
}

// A chunk is a checked one in memory.
type chunk struct {
	index int64
	bytes [chunkBytes]byte // as many as the chunk has
}

// newFile reads the footer and the table of the blob with that hash. It takes over the file if the error is nil.
func newFile(file vfs.File, name string, h Hash) (*File, error) {
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	fileBytes := stat.Size()
	if fileBytes < footerBytes {
		return nil, &DamageError{File: name, Err: errMagic}
	}
	f := &File{file: file, name: name}
	end := make([]byte, footerBytes)
	if err := f.readFull(end, fileBytes-footerBytes); err != nil {
		return nil, err
	}
	foot, err := parseFooter(end, name, fileBytes)
	if err != nil {
		return nil, err
	}
	if foot.hash != h {
		return nil, &DamageError{File: name, Offset: fileBytes - footerBytes, Err: fmt.Errorf("blob with the hash %s", foot.hash)}
	}
	f.size = foot.size
	f.table = make([]byte, chunks(f.size)*sumBytes)
	if err := f.readFull(f.table, f.size); err != nil {
		return nil, err
	}
	if crc32.Checksum(f.table, castagnoli) != foot.table {
		return nil, &DamageError{File: name, Offset: f.size, Err: errTable}
	}
	return f, nil
}

// Size is the size of the content in bytes.
func (f *File) Size() int64 { return f.size }

// Close closes the file. From then on reads return fs.ErrClosed. A second Close does nothing.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	return f.file.Close()
}

// ReadAt reads from the content as io.ReaderAt says. Whole chunks go straight into p; a part of one is taken from the chunk that
// was read last, so that small reads one behind the other read the file once.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: offset %d", f.name, off)
	}
	if f.closed.Load() {
		return 0, fmt.Errorf("read %s: %w", f.name, fs.ErrClosed)
	}
	rest := max(0, f.size-off)
	if int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	for n < len(p) {
		m, readErr := f.readSome(p[n:], off+int64(n))
		n += m
		if readErr != nil {
			return n, readErr
		}
	}
	return n, err
}

// readSome reads some of what p has room for. p does not reach beyond the content.
func (f *File) readSome(p []byte, off int64) (int, error) {
	within := off % chunkBytes
	whole := min(len(p), readBytes)
	if off+int64(whole) < f.size {
		whole -= whole % chunkBytes // the last chunk of the content is whole as it is
	}
	if within == 0 && whole > 0 {
		if err := f.readFull(p[:whole], off); err != nil {
			return 0, err
		}
		if err := f.check(p[:whole], off); err != nil {
			return 0, err
		}
		return whole, nil
	}

	// A reader that runs beside this one finds no chunk, and reads its own.
	f.mu.Lock()
	c := f.mu.last
	f.mu.last = nil
	f.mu.Unlock()
	if c == nil {
		c = &chunk{index: -1}
	}
	index := off / chunkBytes
	b := c.bytes[:min(chunkBytes, f.size-index*chunkBytes)]
	if c.index != index {
		c.index = -1
		if err := f.readFull(b, index*chunkBytes); err != nil {
			return 0, err
		}
		if err := f.check(b, index*chunkBytes); err != nil {
			return 0, err
		}
		c.index = index
	}
	n := copy(p, b[within:])
	f.mu.Lock()
	f.mu.last = c
	f.mu.Unlock()
	return n, nil
}

// readFull reads all of b from the file.
func (f *File) readFull(b []byte, off int64) error {
	n, err := f.file.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return &DamageError{File: f.name, Offset: off + int64(n), Err: io.ErrUnexpectedEOF}
	default:
		return fmt.Errorf("read %s: %w", f.name, err)
	}
}

// check compares the whole chunks in b, which begin at off, with their sums.
func (f *File) check(b []byte, off int64) error {
	for len(b) > 0 {
		n := min(len(b), chunkBytes)
		if crc32.Checksum(b[:n], castagnoli) != le.Uint32(f.table[off/chunkBytes*sumBytes:]) {
			return &DamageError{File: f.name, Offset: off, Err: errContent}
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

var errWriter = errors.New("writer that does not keep to what io.Writer says")

// CopyTo writes n bytes of the content, from off on, to w and returns how many it wrote. All of them must be there. It reads
// ahead of w. ctx ends it between writes.
func (f *File) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if off < 0 || n < 0 || off > f.size || n > f.size-off {
		return 0, fmt.Errorf("read %s: %d bytes from offset %d on, of %d", f.name, n, off, f.size)
	}
	if f.closed.Load() {
		return 0, fmt.Errorf("read %s: %w", f.name, fs.ErrClosed)
	}
	if n == 0 {
		return 0, nil
	}
	// Whole chunks are read, as only those can be checked.
	low := off - off%chunkBytes
	high := min(f.size, chunks(off+n)*chunkBytes)
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup // the goroutines end before this returns
	defer wg.Wait()
	defer stop()
	var lanes [lanesCount]lane
	for i := range lanes {
		lanes[i] = newLane()
		wg.Go(func() { f.laneLoop(ctx, low+int64(i)*readBytes, high, lanes[i]) })
	}

	written := int64(0)
	for at, turn := low, 0; written < n; turn = (turn + 1) % lanesCount {
		var r piece
		select {
		case <-ctx.Done():
		case r = <-lanes[turn].read:
		}
		if ctx.Err() != nil {
			return written, fmt.Errorf("read %s: %w", f.name, context.Cause(ctx))
		}
		if r.err != nil {
			return written, r.err
		}
		b := r.bytes[off+written-at:]
		b = b[:min(int64(len(b)), n-written)]
		m, err := w.Write(b)
		if m < 0 || m > len(b) {
			return written, fmt.Errorf("%w: %d of %d bytes written", errWriter, m, len(b))
		}
		written += int64(m)
		if err != nil {
			return written, err
		}
		at += int64(len(r.bytes))
		if off+written < min(at, off+n) {
			return written, io.ErrShortWrite
		}
		lanes[turn].free <- r.bytes // has room for all that there are
	}
	return written, nil
}

// A lane reads every lanesCount-th piece of what CopyTo copies, and checks it, as that is cheap only as long as the bytes are in the cache of the
// processor that has read them.
type lane struct {
	read chan piece
	free chan []byte // back from CopyTo
}

// A piece is what was read and checked, or why it was not.
type piece struct {
	bytes []byte
	err   error
}

func newLane() lane {
	l := lane{read: make(chan piece, laneAhead), free: make(chan []byte, laneAhead)}
	for range laneAhead {
		l.free <- nil
	}
	return l
}

// laneLoop reads the pieces of the lane that begins at low, up to high.
func (f *File) laneLoop(ctx context.Context, low, high int64, l lane) {
	for ; low < high; low += lanesCount * readBytes {
		var b []byte
		select {
		case b = <-l.free:
		case <-ctx.Done():
			return
		}
		size := min(readBytes, high-low)
		if int64(cap(b)) < size {
			b = make([]byte, size)
		}
		b = b[:size]
		err := f.readFull(b, low)
		if err == nil {
			err = f.check(b, low)
		}
		l.read <- piece{b, err} // has room for all that there are
		if err != nil {
			return
		}
	}
}
