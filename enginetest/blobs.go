package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bytespace/batchlog"
)

var blobTests = []test{
	{"RoundTrip", testBlobRoundTrip},
	{"Ranges", testBlobRanges},
	{"NotFound", testBlobNotFound},
	{"PlainValues", testBlobPlainValues},
	{"PutRef", testBlobPutRef},
	{"RefRefused", testBlobRefRefused},
	{"Scans", testBlobScans},
	{"Tails", testBlobTails},
	{"Overwritten", testBlobOverwritten},
	{"InAView", testBlobInAView},
	{"ReaderFails", testBlobReaderFails},
	{"Copied", testBlobCopied},
	{"TooLargeToLoad", testBlobTooLargeToLoad},
	{"OverReopen", testBlobOverReopen},
	{"Escaped", testBlobEscaped},
	{"BlobBytes", testBlobBytes},
}

// content is so many bytes that differ from those of other seeds.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = rng.Read(b) // never fails
	return b
}

// store stores a blob, or skips t if the engine keeps none.
func store(t *testing.T, db *batchlog.DB, value []byte) batchlog.BlobRef {
	t.Helper()
	ref, err := db.StoreBlob(within(t), bytes.NewReader(value))
	if errors.Is(err, batchlog.ErrUnsupported) {
		t.Skip("the engine keeps no blobs")
	}
	check(t, err)
	return ref
}

// wantBlob fails t unless k of s is read as that, in every way there is to read one key.
func wantBlob(t *testing.T, s *batchlog.Space, k batchlog.Key, want []byte) {
	t.Helper()
	got, err := s.Get(within(t), k)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("get of %s: %q, %v; want %q", k, short(got), err, short(want))
	}
	b, err := s.Blob(within(t), k)
	if err != nil {
		t.Errorf("blob of %s: %v", k, err)
		return
	}
	defer b.Close()
	if b.Size() != int64(len(want)) {
		t.Errorf("%s has %d bytes, want %d", k, b.Size(), len(want))
	}
	if got, err = io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("blob of %s: %q, %v; want %q", k, short(got), err, short(want))
	}
}

var blobSizes = []int{0, 1, 1000, 64 << 10, 1<<20 - 1, 3<<20 + 17}

// What is put as a blob is what is read, whatever its size, with Get as well.
func testBlobRoundTrip(t *testing.T, open Open) {
	db := plain(t, open)
	store(t, db, nil) // or skip
	s := db.Space("s")
	for n, size := range blobSizes {
		id, err := s.PutBlob(within(t), batchlog.K(size), iotest.HalfReader(bytes.NewReader(content(1, size))))
		if err != nil || id != batchlog.ID(n+1) {
			t.Fatalf("put of %d bytes: commit %d, %v", size, id, err)
		}
		wantBlob(t, s, batchlog.K(size), content(1, size))
	}
	for _, size := range blobSizes {
		wantBlob(t, s, batchlog.K(size), content(1, size))
		// The same content elsewhere.
		_, err := db.Space("t").PutBlob(within(t), batchlog.K(size), bytes.NewReader(content(1, size)))
		check(t, err)
	}
	_, err := s.Delete(within(t), batchlog.K(1000))
	check(t, err)
	wantAbsent(t, s, batchlog.K(1000))
	wantBlob(t, db.Space("t"), batchlog.K(1000), content(1, 1000))
}

// A blob is read by ranges, and sought in; and copied to a writer from where it stands.
func testBlobRanges(t *testing.T, open Open) {
	db := plain(t, open)
	want := content(2, 3<<20+17)
	ref := store(t, db, want)
	s := db.Space("s")
	var batch batchlog.Batch
	batch.PutRef(s, batchlog.K(1), ref)
	write(t, db, &batch)
	b, err := s.Blob(within(t), batchlog.K(1))
	check(t, err)
	defer b.Close()
	if got, ok := b.Ref(); !ok || got != ref {
		t.Errorf("ref is %v, %t; want %v", got, ok, ref)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for range 100 {
		offset := rng.IntN(len(want) + 100)
		p := make([]byte, rng.IntN(200_000))
		n, err := b.ReadAt(p, int64(offset))
		end := min(offset+len(p), len(want))
		switch {
		case offset >= end && len(p) > 0 && offset >= len(want):
			if n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("read behind the end: %d, %v", n, err)
			}
		case !bytes.Equal(p[:n], want[offset:end]) || n < len(p) && !errors.Is(err, io.EOF) || n == len(p) && err != nil && !errors.Is(err, io.EOF):
			t.Errorf("read of %d from %d: %d bytes, %v", len(p), offset, n, err)
		}
	}
	for _, w := range []struct {
		offset int64
		whence int
		at     int
	}{{1 << 20, io.SeekStart, 1 << 20}, {5, io.SeekCurrent, 1<<20 + 5}, {-7, io.SeekEnd, len(want) - 7}, {-1 << 20, io.SeekCurrent, len(want) - 7 - 1<<20}, {0, io.SeekStart, 0}, {0, io.SeekEnd, len(want)}} {
		at, err := b.Seek(w.offset, w.whence)
		if err != nil || at != int64(w.at) {
			t.Fatalf("seek to %d, %d: %d, %v; want %d", w.offset, w.whence, at, err, w.at)
		}
		p := make([]byte, min(100, len(want)-w.at))
		if _, err := io.ReadFull(b, p); err != nil || !bytes.Equal(p, want[w.at:w.at+len(p)]) {
			t.Errorf("read at %d: %v", w.at, err)
		}
		_, err = b.Seek(at, io.SeekStart)
		check(t, err)
	}
	if n, err := b.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if _, err := b.Seek(-1, io.SeekStart); err == nil {
		t.Error("a seek before the beginning is taken")
	}
	for _, from := range []int64{0, 1234, int64(len(want))} {
		_, err := b.Seek(from, io.SeekStart)
		check(t, err)
		var out bytes.Buffer
		n, err := b.WriteTo(&out)
		if err != nil || n != int64(len(want))-from || !bytes.Equal(out.Bytes(), want[from:]) {
			t.Errorf("write from %d on: %d bytes, %v", from, n, err)
		}
	}
}

// A key without a value has no blob.
func testBlobNotFound(t *testing.T, open Open) {
	db := plain(t, open)
	_, err := db.Space("s").Blob(within(t), batchlog.K(1))
	wantErr(t, "blob of a key without value", err, batchlog.ErrNotFound)
}

// Values that are no blobs are read as blobs as well.
func testBlobPlainValues(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for _, value := range []string{"", "value", strings.Repeat("v", 100_000)} {
		put(t, s, batchlog.K(1), value)
		wantBlob(t, s, batchlog.K(1), []byte(value))
		b, err := s.Blob(within(t), batchlog.K(1))
		check(t, err)
		if _, ok := b.Ref(); ok {
			t.Error("a plain value says that it is a blob")
		}
		check(t, b.Close())
	}
}

// References are put with batches, transactions and chains; a transaction reads what it has put.
func testBlobPutRef(t *testing.T, open Open) {
	db := plain(t, open)
	want := content(4, 200_000)
	ref := store(t, db, want)
	if ref.Size != int64(len(want)) {
		t.Errorf("ref has size %d", ref.Size)
	}
	s := db.Space("s")
	var b batchlog.Batch
	b.PutRef(s, batchlog.K("batch"), ref)
	b.PutRef(s, batchlog.K("batch again"), ref)
	write(t, db, &b)
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		if got, err := tx.Get(s, batchlog.K("batch")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("get of a transaction: %q, %v", short(got), err)
		}
		tx.PutRef(s, batchlog.K("tx"), ref)
		if got, err := tx.Get(s, batchlog.K("tx")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("get of what the transaction has put: %q, %v", short(got), err)
		}
		n := 0
		for e, err := range tx.Scan(s, batchlog.Range{}) {
			check(t, err)
			n++
			if !bytes.Equal(e.Value, want) {
				t.Errorf("scan of a transaction: %s is %q", e.Key, short(e.Value))
			}
		}
		if n != 3 {
			t.Errorf("%d keys in a scan of the transaction, want 3", n)
		}
		return nil
	})
	check(t, err)
	keys := []any{"batch", "batch again", "tx"}
	if _, err := db.Chain(within(t)); err == nil {
		for _, size := range []int{1, 5000} {
			c := chain(t, db)
			for i := range size {
				c.Put(db.Space("other"), batchlog.K(i), make([]byte, 100))
			}
			c.PutRef(s, batchlog.K("chain", size), ref)
			c.PutRef(s, batchlog.K("gone"), ref)
			c.Delete(s, batchlog.K("gone"))
			commit(t, c)
		}
		wantBlob(t, s, batchlog.K("chain", 1), want)
		wantBlob(t, s, batchlog.K("chain", 5000), want)
		wantAbsent(t, s, batchlog.K("gone"))
	}
	for _, key := range keys {
		wantBlob(t, s, batchlog.K(key), want)
	}
}

// A reference that refers to nothing, as there is no such content or it has another size, is a *BlobRefError however it is put, and nothing of the commit is
// written.
func testBlobRefRefused(t *testing.T, open Open) {
	db := plain(t, open)
	there := store(t, db, content(5, 1000)) // or skip
	s := db.Space("s")
	for name, c := range map[string]struct {
		ref  batchlog.BlobRef
		size int64 // of what is there
	}{
		"missing":      {batchlog.BlobRef{Hash: [32]byte{1, 2, 3}, Size: 5}, -1},
		"smaller":      {batchlog.BlobRef{Hash: there.Hash, Size: there.Size - 1}, there.Size},
		"larger":       {batchlog.BlobRef{Hash: there.Hash, Size: there.Size + 1}, there.Size},
		"empty":        {batchlog.BlobRef{Hash: there.Hash}, there.Size},
		"largest":      {batchlog.BlobRef{Hash: there.Hash, Size: batchlog.MaxBlobBytes}, there.Size},
		"impossible":   {batchlog.BlobRef{Hash: there.Hash, Size: math.MaxInt64}, -1},
		"less than no": {batchlog.BlobRef{Hash: there.Hash, Size: -1}, -1},
	} {
		refused := func(how string, err error) {
			t.Helper()
			var refused *batchlog.BlobRefError
			if !errors.As(err, &refused) || !errors.Is(err, batchlog.ErrNotFound) || refused.Ref != c.ref || refused.Size != c.size ||
				!refused.Space.Equal(s) || !bytes.Equal(refused.Key, batchlog.K(2)) {
				t.Errorf("%s: %s: %v, want a *BlobRefError that names the key", name, how, err)
			}
		}
		var b batchlog.Batch
		b.Put(s, batchlog.K(1), nil)
		b.PutRef(s, batchlog.K(2), c.ref)
		_, err := db.Write(within(t), &b)
		refused("batch", err)
		_, err = db.Update(within(t), func(tx *batchlog.Tx) error {
			tx.Put(s, batchlog.K(1), nil)
			tx.PutRef(s, batchlog.K(2), c.ref)
			return nil
		})
		refused("transaction", err)
		if _, err := db.Chain(within(t)); err == nil {
			for _, size := range []int{1, 10_000} {
				for _, behind := range []bool{false, true} {
					c2 := chain(t, db)
					fill := func() {
						for i := range size {
							c2.Put(s, batchlog.K("fill", i), make([]byte, 100))
						}
					}
					if behind {
						fill()
					}
					c2.PutRef(s, batchlog.K(2), c.ref)
					if !behind {
						fill()
					}
					_, err = c2.Commit(within(t))
					refused(fmt.Sprintf("chain of %d, behind: %t", size, behind), err)
				}
			}
		}
	}
	if h := head(t, db); h != 0 {
		t.Errorf("head is %d", h)
	}
	wantPairs(t, "scan", scan(t, s, batchlog.Range{}), nil)
}

// Scans load blobs, unless they are asked for references.
func testBlobScans(t *testing.T, open Open) {
	db := plain(t, open)
	value := content(5, 100_000)
	ref := store(t, db, value)
	s := db.Space("s")
	var b batchlog.Batch
	for i := range 10 {
		if i%2 == 0 {
			b.PutRef(s, batchlog.K(i), ref)
		} else {
			b.Put(s, batchlog.K(i), fmt.Append(nil, i))
		}
	}
	write(t, db, &b)
	v, err := db.View(within(t))
	check(t, err)
	defer v.Close()
	for _, refs := range []bool{false, true} {
		opts := []batchlog.ReadOption{batchlog.ScanReverse()}
		if refs {
			opts = append(opts, batchlog.BlobRefs())
		}
		for _, entries := range []func(yield func(batchlog.Entry, error) bool){s.Scan(within(t), batchlog.Range{}, opts...), v.Scan(s, batchlog.Range{}, opts...)} {
			i := 10
			for e, err := range entries {
				check(t, err)
				i--
				want, isBlob := fmt.Append(nil, i), i%2 == 0
				if isBlob {
					want = value
				}
				if isBlob && refs {
					want = nil
				}
				if !bytes.Equal(e.Value, want) || isBlob != (e.Blob != nil) || isBlob && *e.Blob != ref || string(e.Key) != string(batchlog.K(i)) {
					t.Errorf("refs %t: entry %d is %s=%q, blob %v", refs, i, e.Key, short(e.Value), e.Blob)
				}
			}
			if i != 0 {
				t.Errorf("%d entries are missing", i)
			}
		}
	}
}

// Followers are handed references, and load or open what they refer to.
func testBlobTails(t *testing.T, open Open) {
	db := plain(t, open)
	value := content(6, 300_000)
	ref := store(t, db, value)
	s := db.Space("s")
	_, err := s.PutBlob(within(t), batchlog.K(1), bytes.NewReader(value))
	check(t, err)
	put(t, s, batchlog.K(2), "plain")
	n := 2
	if c, err := db.Chain(within(t)); err == nil {
		for i := range 5000 {
			c.Put(s, batchlog.K(i+10), []byte(strings.Repeat("v", 100)))
		}
		c.PutRef(s, batchlog.K(1), ref)
		commit(t, c)
		n++
	}
	put(t, s, batchlog.K(1), "overwritten")
	for _, c := range follow(t, db, batchlog.TailOptions{}, n) {
		for op, err := range c.Ops() {
			check(t, err)
			isBlob := string(op.Key) == string(batchlog.K(1))
			if isBlob != (op.Blob != nil) || isBlob && (*op.Blob != ref || op.Value != nil) {
				t.Fatalf("commit %d: %s, blob %v", c.ID, line(op), op.Blob)
			}
			if !isBlob && string(op.Key) > string(batchlog.K(20)) {
				continue
			}
			want := op.Value
			if isBlob {
				want = value
			}
			got, err := op.Load(within(t))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("commit %d: load of %s: %q, %v", c.ID, op.Key, short(got), err)
			}
			b, err := op.Open(within(t))
			check(t, err)
			if got, err = io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
				t.Errorf("commit %d: open of %s: %q, %v", c.ID, op.Key, short(got), err)
			}
			check(t, b.Close())
		}
	}
}

// A blob that is open stays as it is when its key is overwritten or deleted.
func testBlobOverwritten(t *testing.T, open Open) {
	db := plain(t, open)
	store(t, db, nil) // or skip
	s := db.Space("s")
	first, second := content(7, 2<<20), content(8, 100_000)
	_, err := s.PutBlob(within(t), batchlog.K(1), bytes.NewReader(first))
	check(t, err)
	b, err := s.Blob(within(t), batchlog.K(1))
	check(t, err)
	defer b.Close()
	_, err = s.PutBlob(within(t), batchlog.K(1), bytes.NewReader(second))
	check(t, err)
	wantBlob(t, s, batchlog.K(1), second)
	_, err = s.Delete(within(t), batchlog.K(1))
	check(t, err)
	wantAbsent(t, s, batchlog.K(1))
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, first) {
		t.Errorf("the blob that was open has %d bytes, %v", len(got), err)
	}
}

// A view shows the blobs of its id.
func testBlobInAView(t *testing.T, open Open) {
	db := plain(t, open)
	store(t, db, nil) // or skip
	s := db.Space("s")
	first := content(9, 100_000)
	_, err := s.PutBlob(within(t), batchlog.K(1), bytes.NewReader(first))
	check(t, err)
	v, err := db.View(within(t))
	check(t, err)
	defer v.Close()
	put(t, s, batchlog.K(1), "another")
	got, err := v.Get(s, batchlog.K(1))
	if err != nil || !bytes.Equal(got, first) {
		t.Errorf("get of the view: %q, %v", short(got), err)
	}
	b, err := v.Blob(within(t), s, batchlog.K(1))
	check(t, err)
	defer b.Close()
	if got, err = io.ReadAll(b); err != nil || !bytes.Equal(got, first) {
		t.Errorf("blob of the view: %q, %v", short(got), err)
	}
	_, err = v.Blob(within(t), s, batchlog.K(2))
	wantErr(t, "blob of a key without value", err, batchlog.ErrNotFound)
}

// A reader that fails, or a context that ends, leaves nothing.
func testBlobReaderFails(t *testing.T, open Open) {
	db := plain(t, open)
	store(t, db, nil) // or skip
	s := db.Space("s")
	broken := errors.New("broken")
	for _, size := range blobSizes {
		_, err := s.PutBlob(within(t), batchlog.K(1), io.MultiReader(bytes.NewReader(content(1, size)), iotest.ErrReader(broken)))
		wantErr(t, "put from a reader that fails", err, broken)
	}
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if _, err := s.PutBlob(ctx, batchlog.K(1), bytes.NewReader(content(1, 1000))); !errors.Is(err, context.Canceled) {
		t.Errorf("put with a context that has ended: %v", err)
	}
	if h := head(t, db); h != 0 {
		t.Errorf("head is %d", h)
	}
	wantAbsent(t, s, batchlog.K(1))
}

// Copies have the blobs of their sources, without the content being read.
func testBlobCopied(t *testing.T, open Open) {
	db := plain(t, open)
	value := content(10, 100_000)
	store(t, db, value) // or skip
	chain(t, db)        // or skip
	s := db.Space("s")
	for i := range 3 {
		_, err := s.PutBlob(within(t), batchlog.K(i), bytes.NewReader(value))
		check(t, err)
	}
	_, err := db.CopyRange(within(t), db.Space("d"), s, batchlog.Range{})
	check(t, err)
	_, err = db.MoveTree(within(t), db.Space("e"), s)
	check(t, err)
	for i := range 3 {
		wantBlob(t, db.Space("d"), batchlog.K(i), value)
		wantBlob(t, db.Space("e"), batchlog.K(i), value)
		wantAbsent(t, s, batchlog.K(i))
	}
}

// zeros yields so many of them.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// What no value may be as large as is not loaded, but read.
func testBlobTooLargeToLoad(t *testing.T, open Open) {
	if testing.Short() {
		t.Skip("not in short runs")
	}
	db := plain(t, open)
	store(t, db, nil) // or skip
	s := db.Space("s")
	const size = batchlog.MaxValueBytes + 1
	_, err := s.PutBlob(within(t), batchlog.K(1), zeros(size))
	check(t, err)
	_, err = s.Get(within(t), batchlog.K(1))
	var limit *batchlog.LimitError
	if !errors.As(err, &limit) {
		t.Errorf("get: %v, want a *LimitError", err)
	}
	n := 0
	for e, err := range s.Scan(within(t), batchlog.Range{}) {
		check(t, err)
		if n++; e.Value != nil || e.Blob == nil || e.Blob.Size != size {
			t.Errorf("scan: %d bytes, blob %v", len(e.Value), e.Blob)
		}
	}
	if n != 1 {
		t.Errorf("%d entries", n)
	}
	b, err := s.Blob(within(t), batchlog.K(1))
	check(t, err)
	defer b.Close()
	if n, err := io.Copy(io.Discard, b); n != size || err != nil {
		t.Errorf("read of %d bytes, %v", n, err)
	}
}

// Blobs are as durable as commits.
func testBlobOverReopen(t *testing.T, open Open) {
	sub := open(t, Options{})
	if sub.Reopen == nil {
		t.Skip("the engine keeps nothing")
	}
	store(t, sub.DB, nil) // or skip
	for i, size := range blobSizes {
		_, err := sub.DB.Space("s").PutBlob(within(t), batchlog.K(i), bytes.NewReader(content(11, size)))
		check(t, err)
	}
	db := sub.Reopen(t)
	for i, size := range blobSizes {
		wantBlob(t, db.Space("s"), batchlog.K(i), content(11, size))
	}
}
