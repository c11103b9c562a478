package enginetest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// marked is values that begin as what stands for a blob does, or nearly so.
func marked() [][]byte {
	const mark = "\xffblob\xfe\x1a\x00" // see value.go
	list := [][]byte{
		[]byte(mark), []byte(mark + "\x00"), []byte(mark + "\x01"), []byte(mark + "\x02and more"), []byte(mark + "\x00" + mark + "\x00"), []byte(mark[:7]),
		[]byte(mark + mark), append([]byte(mark+"\x01"), make([]byte, 33)...), []byte(mark + "\xff"), []byte(mark[:6] + "\x1b\x00\x01"),
	}
	list = append(list, wire.AppendBlobRef(nil, wire.BlobRef{Hash: [32]byte{7}, Size: 1000}))
	return append(list, append(wire.AppendBlobRef(nil, wire.BlobRef{Size: 1}), "and more"...))
}

// A value that begins with the mark of blobs is a value as any other, wherever it is read.
func testBlobEscaped(t *testing.T, open Open) {
	for _, by := range []string{"put", "batch", "update", "chain", "large chain", "copy"} {
		t.Run(by, func(t *testing.T) {
			db := plain(t, open)
			s := db.Space("s")
			putMarked(t, db, s, by)
			v, err := db.View(within(t))
			check(t, err)
			defer v.Close()
			var want []pair
			for i, value := range marked() {
				wantBlob(t, s, batchlog.K(i), value)
				want = append(want, pair{string(batchlog.K(i)), string(value)})
				if got, err := v.Get(s, batchlog.K(i)); err != nil || !bytes.Equal(got, value) {
					t.Errorf("get of a view: %q, %v; want %q", got, err, value)
				}
			}
			wantPairs(t, "scan", scan(t, s, batchlog.Range{}), want)
			wantPairs(t, "scan for references", scan(t, s, batchlog.Range{}, batchlog.BlobRefs()), want)
			inView, err := collect(v.Scan(s, batchlog.Range{}))
			check(t, err)
			wantPairs(t, "scan of a view", inView, want)
			_, err = db.Update(within(t), func(tx *batchlog.Tx) error {
				for i, value := range marked() {
					if got, err := tx.Get(s, batchlog.K(i)); err != nil || !bytes.Equal(got, value) {
						t.Errorf("get of a transaction: %q, %v; want %q", got, err, value)
					}
				}
				inTx, err := collect(tx.Scan(s, batchlog.Range{}))
				wantPairs(t, "scan of a transaction", inTx, want)
				return err
			})
			check(t, err)
			last := map[string]string{}
			commits, err := until(t, db, batchlog.TailOptions{Until: head(t, db), Spaces: []*batchlog.Space{s}})
			check(t, err)
			for _, c := range commits {
				for op, err := range c.Ops() {
					check(t, err)
					if op.Blob != nil {
						t.Errorf("%s is a blob", line(op))
					}
					got, err := op.Load(within(t))
					if err != nil || !bytes.Equal(got, op.Value) {
						t.Errorf("load of %s: %q, %v", line(op), got, err)
					}
					last[string(op.Key)] = string(op.Value)
				}
			}
			for _, p := range want {
				if last[p.key] != p.value {
					t.Errorf("the log has %q=%q, want %q", p.key, last[p.key], p.value)
				}
			}
		})
	}
}

// putMarked puts the marked values, by one of the ways to write.
func putMarked(t *testing.T, db *batchlog.DB, s *batchlog.Space, by string) {
	t.Helper()
	all := func(w writer, s *batchlog.Space) {
		for i, value := range marked() {
			w.Put(s, batchlog.K(i), value)
		}
	}
	switch by {
	case "put":
		for i, value := range marked() {
			put(t, s, batchlog.K(i), string(value))
		}
	case "batch":
		var b batchlog.Batch
		all(&b, s)
		write(t, db, &b)
	case "update":
		_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
			all(tx, s)
			for i, value := range marked() {
				if got, err := tx.Get(s, batchlog.K(i)); err != nil || !bytes.Equal(got, value) {
					t.Errorf("get of what the transaction has put: %q, %v; want %q", got, err, value)
				}
			}
			return nil
		})
		check(t, err)
	case "copy":
		chain(t, db) // or skip
		var b batchlog.Batch
		all(&b, db.Space("from"))
		write(t, db, &b)
		_, err := db.CopyRange(within(t), s, db.Space("from"), batchlog.Range{})
		check(t, err)
	default:
		c := chain(t, db)
		if by == "large chain" {
			for i := range 5000 {
				c.Put(db.Space("other"), batchlog.K(i), make([]byte, 100))
			}
		}
		all(c, s)
		commit(t, c)
	}
}

// That values of some size become blobs is noticed by nobody who reads; only tails and scans for references tell.
func testBlobBytes(t *testing.T, open Open) {
	db := open(t, Options{Log: batchlog.LogConfig{BlobBytes: batchlog.MinBlobBytes}}).DB
	store(t, db, nil) // or skip
	s := db.Space("s")
	mark := marked()[0]
	sizes := []int{0, batchlog.MinBlobBytes - 1, batchlog.MinBlobBytes, 3 * batchlog.MinBlobBytes}
	var want []pair
	value := func(i, size int) []byte {
		v := content(uint64(i), size)
		if i%4 == 3 {
			copy(v, mark)
		}
		return v
	}
	for i := range 16 {
		v := value(i, sizes[i%4])
		k := batchlog.K(i)
		want = append(want, pair{string(k), string(v)})
		switch i / 4 {
		case 0:
			put(t, s, k, string(v))
		case 1:
			_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
				tx.Put(s, k, v)
				if got, err := tx.Get(s, k); err != nil || !bytes.Equal(got, v) {
					t.Errorf("get of what the transaction has put: %q, %v", short(got), err)
				}
				return nil
			})
			check(t, err)
		default:
			c, err := db.Chain(within(t))
			if errors.Is(err, batchlog.ErrUnsupported) {
				put(t, s, k, string(v))
				continue
			}
			check(t, err)
			for n := range (i/4 - 2) * 5000 {
				c.Put(db.Space("other"), batchlog.K(n), make([]byte, 100))
			}
			c.Put(s, k, v)
			commit(t, c)
		}
	}
	slices.SortFunc(want, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	wantPairs(t, "scan", scan(t, s, batchlog.Range{}), want)
	for _, p := range want {
		wantBlob(t, s, batchlog.Key(p.key), []byte(p.value))
	}
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error {
		inTx, err := collect(tx.Scan(s, batchlog.Range{}))
		wantPairs(t, "scan of a transaction", inTx, want)
		for _, p := range want {
			if got, err := tx.Get(s, batchlog.Key(p.key)); err != nil || string(got) != p.value {
				t.Errorf("get of a transaction: %q, %v", short(got), err)
			}
		}
		return err
	})
	check(t, err)
	blobs := 0
	for e, err := range s.Scan(within(t), batchlog.Range{}, batchlog.BlobRefs()) {
		check(t, err)
		if e.Blob != nil {
			blobs++
		}
	}
	if blobs != 8 {
		t.Errorf("%d blobs, want 8", blobs)
	}
	for _, c := range follow(t, db, batchlog.TailOptions{Spaces: []*batchlog.Space{s}}, 16) {
		for op, err := range c.Ops() {
			check(t, err)
			got, err := op.Load(within(t))
			if i := slices.IndexFunc(want, func(p pair) bool { return p.key == string(op.Key) }); err != nil || string(got) != want[i].value {
				t.Errorf("load of %s: %q, %v", op.Key, short(got), err)
			}
		}
	}
	// Switched off, nothing changes but for what is written then.
	check(t, db.Configure(within(t), batchlog.LogConfig{}))
	put(t, s, batchlog.Key(want[2].key), want[2].value)
	wantPairs(t, "scan", scan(t, s, batchlog.Range{}), want)
}
