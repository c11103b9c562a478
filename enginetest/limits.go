package enginetest

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
)

var limitTests = []test{
	{"Key", testLimitKey},
	{"RangeBounds", testLimitRangeBounds},
	{"Value", testLimitValue},
	{"Batch", testLimitBatch},
	{"Token", testLimitToken},
	{"Labels", testLimitLabels},
	{"Depth", testLimitDepth},
	{"Text", testLimitText},
	{"LargeBatch", testLargeBatch},
	{"Table", testLimitTable},
}

var tokenTests = []test{
	{"SameToken", testTokenSame},
	{"Concurrent", testTokenConcurrent},
	{"OverReopen", testTokenOverReopen},
	{"AfterRefusal", testTokenAfterRefusal},
	{"Update", testTokenUpdate},
}

// wantLimit fails t unless err says that what of that size is above limit.
func wantLimit(t *testing.T, err error, what string, size, limit int64) {
	t.Helper()
	var le *batchlog.LimitError
	if !errors.As(err, &le) || !errors.Is(err, batchlog.ErrTooLarge) {
		t.Errorf("error %v, want a *LimitError for %s", err, what)
		return
	}
	if le.What != what || le.Size != size || le.Limit != limit {
		t.Errorf("%s of %d, limit %d; want %s of %d, limit %d", le.What, le.Size, le.Limit, what, size, limit)
	}
}

// A key may take MaxKeyBytes with the path of its space, and not a byte more.
func testLimitKey(t *testing.T, open Open) {
	db := plain(t, open)
	for _, path := range [][]any{{}, {"users", "eu"}} {
		s := db.Space(path...)
		room := batchlog.MaxKeyBytes - prefixBytes(t, path...)
		fits := bytes.Repeat([]byte{0xff}, room)
		put(t, s, fits, "v")
		wantValue(t, s, fits, "v")
		wantPairs(t, "scan", scan(t, s, batchlog.Range{}), []pair{{string(fits), "v"}})
		_, err := s.Put(within(t), append(fits, 0), nil)
		wantLimit(t, err, "key", batchlog.MaxKeyBytes+1, batchlog.MaxKeyBytes)
		_, err = s.Delete(within(t), append(fits, 0))
		wantLimit(t, err, "key", batchlog.MaxKeyBytes+1, batchlog.MaxKeyBytes)
		_, err = db.Update(within(t), func(tx *batchlog.Tx) error { tx.Put(s, append(fits, 0), nil); return nil })
		wantLimit(t, err, "key", batchlog.MaxKeyBytes+1, batchlog.MaxKeyBytes)
		_, err = s.Delete(within(t), fits)
		check(t, err)
		wantAbsent(t, s, fits)
	}
}

// The bounds of a range delete are keys.
func testLimitRangeBounds(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Root()
	long := bytes.Repeat([]byte{1}, batchlog.MaxKeyBytes-prefixBytes(t)+1)
	for _, r := range []batchlog.Range{{Low: long}, {High: long}} {
		var b batchlog.Batch
		b.Put(s, batchlog.K("k"), nil)
		b.DeleteRange(s, r)
		_, err := db.Write(within(t), &b)
		wantLimit(t, err, "key", batchlog.MaxKeyBytes+1, batchlog.MaxKeyBytes)
	}
	var b batchlog.Batch
	b.DeleteRange(s, batchlog.Range{Low: long[:len(long)-2], High: long[:len(long)-1]})
	write(t, db, &b)
	wantAbsent(t, s, batchlog.K("k"))
}

// A value may have MaxValueBytes, and not a byte more.
func testLimitValue(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	value := make([]byte, batchlog.MaxValueBytes+1)
	_, err := s.Put(within(t), batchlog.K("k"), value)
	wantLimit(t, err, "value", batchlog.MaxValueBytes+1, batchlog.MaxValueBytes)
	if head(t, db) != 0 {
		t.Errorf("head is %d", head(t, db))
	}
	if testing.Short() {
		t.Skip("the largest value takes long")
	}
	for i := range value {
		value[i] = byte(i >> 12)
	}
	_, err = s.Put(within(t), batchlog.K("k"), value[:batchlog.MaxValueBytes])
	check(t, err)
	got, err := s.Get(within(t), batchlog.K("k"))
	if err != nil || !bytes.Equal(got, value[:batchlog.MaxValueBytes]) {
		t.Errorf("the largest value comes back with %d bytes, %v", len(got), err)
	}
}

// A batch may have MaxBatchBytes, and not a byte more; one that is refused is nowhere and eats no memory.
func testLimitBatch(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	// What an op of one put takes beside its value, when its length takes four bytes.
	var one batchlog.Batch
	one.Put(s, batchlog.K(100), make([]byte, 4<<20))
	around := one.Size() - 4<<20
	fill := func(more int) *batchlog.Batch {
		var b batchlog.Batch
		for n := range 16 {
			size := 4<<20 - around
			if n == 15 {
				size += more
			}
			b.Put(s, batchlog.K(100+n), make([]byte, size))
		}
		return &b
	}
	over := fill(1)
	_, err := db.Write(within(t), over)
	wantLimit(t, err, "batch", batchlog.MaxBatchBytes+1, batchlog.MaxBatchBytes)
	over.Put(s, batchlog.K("more"), make([]byte, 1<<20))
	if _, again := db.Write(within(t), over); !errors.Is(again, batchlog.ErrTooLarge) {
		t.Errorf("the same batch with more ops: %v", again)
	}
	if head(t, db) != 0 {
		t.Errorf("head is %d", head(t, db))
	}
	if testing.Short() {
		t.Skip("the largest batch takes long")
	}
	fits := fill(0)
	if fits.Size() != batchlog.MaxBatchBytes {
		t.Fatalf("batch of %d bytes, want %d", fits.Size(), batchlog.MaxBatchBytes)
	}
	write(t, db, fits)
	if got := len(scan(t, s, batchlog.Range{})); got != 16 {
		t.Errorf("%d keys of the largest batch, want 16", got)
	}
}

// A token may have MaxTokenBytes.
func testLimitToken(t *testing.T, open Open) {
	db := plain(t, open)
	b := batchlog.Batch{Token: strings.Repeat("t", batchlog.MaxTokenBytes)}
	first := write(t, db, &b)
	if again := write(t, db, &b); again != first {
		t.Errorf("the longest token is commits %d and %d", first, again)
	}
	b.Token += "t"
	_, err := db.Write(within(t), &b)
	wantLimit(t, err, "token", batchlog.MaxTokenBytes+1, batchlog.MaxTokenBytes)
}

// Labels and token together may take MaxMetaBytes, encoded: a tag, a length of three bytes, one byte for
// the length of the name, the name, the value.
func testLimitLabels(t *testing.T, open Open) {
	db := plain(t, open)
	room := batchlog.MaxMetaBytes - 1 - 3 - 1 - len("name")
	b := batchlog.Batch{Labels: map[string]string{"name": strings.Repeat("v", room)}}
	write(t, db, &b)
	if got := follow(t, db, batchlog.TailOptions{}, 1)[0].Labels["name"]; len(got) != room {
		t.Errorf("the longest label comes back with %d bytes, want %d", len(got), room)
	}
	b.Labels["name"] += "v"
	_, err := db.Write(within(t), &b)
	wantLimit(t, err, "labels", batchlog.MaxMetaBytes+1, batchlog.MaxMetaBytes)
}

// A path may have MaxPathDepth parts.
func testLimitDepth(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Root()
	for range batchlog.MaxPathDepth {
		s = s.Space("d")
	}
	put(t, s, batchlog.K("k"), "v")
	wantValue(t, s, batchlog.K("k"), "v")
	_, err := s.Space("d").Put(within(t), batchlog.K("k"), nil)
	wantLimit(t, err, "path depth", batchlog.MaxPathDepth+1, batchlog.MaxPathDepth)
}

// Tokens and labels are UTF-8; what is not is refused.
func testLimitText(t *testing.T, open Open) {
	db := plain(t, open)
	for name, b := range map[string]*batchlog.Batch{
		"token":      {Token: "\xff"},
		"label name": {Labels: map[string]string{"\xff": ""}},
		"label":      {Labels: map[string]string{"l": "\xff"}},
	} {
		if _, err := db.Write(within(t), b); err == nil {
			t.Errorf("a %s that is not UTF-8 is taken", name)
		}
	}
	if head(t, db) != 0 {
		t.Errorf("head is %d", head(t, db))
	}
}

// A batch that is larger than a segment, and one of very many ops, are commits like others.
func testLargeBatch(t *testing.T, open Open) {
	db := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}}).DB
	s := db.Space("s")
	var b batchlog.Batch
	for n := range 3 {
		put(t, s, batchlog.K("before", n), "v")
		b.Reset()
		b.Put(s, batchlog.K("large", n), bytes.Repeat([]byte{byte(n)}, 5*batchlog.MinSegmentBytes))
		write(t, db, &b)
	}
	b.Reset()
	for n := range 5000 {
		b.Put(s, batchlog.K("many", n), nil)
	}
	write(t, db, &b)
	if got := len(scan(t, s, batchlog.Range{})); got != 5006 {
		t.Errorf("%d keys, want 5006", got)
	}
	commits, err := until(t, db, batchlog.TailOptions{Until: 7})
	check(t, err)
	if len(commits) != 7 || len(describe(t, commits[6])) != 5000 || commits[5].Size() != commits[3].Size() {
		t.Errorf("%d commits", len(commits))
	}
}

// The same token is the same commit: the first id, and nothing is written, whatever the second batch holds.
func testTokenSame(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	var b batchlog.Batch
	b.Token = "once"
	b.Put(s, batchlog.K("k"), []byte("1"))
	first := write(t, db, &b)
	put(t, s, batchlog.K("other"), "v")
	second := batchlog.Batch{Token: "once"}
	second.Put(s, batchlog.K("k"), []byte("2"))
	if id := write(t, db, &second); id != first {
		t.Errorf("the second batch with the token is commit %d, want %d", id, first)
	}
	wantValue(t, s, batchlog.K("k"), "1")
	third := batchlog.Batch{Token: "once "}
	if id := write(t, db, &third); id != first+2 {
		t.Errorf("another token is commit %d, want %d", id, first+2)
	}
	if got := head(t, db); got != 3 {
		t.Errorf("head is %d, want 3", got)
	}
}

// However many write the same token at once, one commit comes of it and all are told its id.
func testTokenConcurrent(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for round := range 5 {
		before := head(t, db)
		got := make([]batchlog.ID, 24)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				b := batchlog.Batch{Token: string(rune('a' + round))}
				b.Put(s, batchlog.K(round), []byte{byte(i)})
				id, err := db.Write(within(t), &b)
				if err != nil {
					t.Error(err)
				}
				got[i] = id
			})
		}
		wg.Wait()
		for _, id := range got {
			if id != before+1 {
				t.Fatalf("round %d: ids %d, want all %d", round, got, before+1)
			}
		}
		if now := head(t, db); now != before+1 {
			t.Fatalf("round %d: head is %d, was %d", round, now, before)
		}
	}
}

// Tokens are as durable as their commits.
func testTokenOverReopen(t *testing.T, open Open) {
	sub := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}})
	if sub.Reopen == nil {
		t.Skip("the engine keeps nothing")
	}
	db := sub.DB
	first := map[string]batchlog.ID{}
	for round := range 3 {
		for n := range 20 {
			b := batchlog.Batch{Token: string(rune('a'+round)) + string(rune('a'+n))}
			b.Put(db.Space("s"), batchlog.K(round, n), make([]byte, 2000))
			first[b.Token] = write(t, db, &b)
		}
		db = sub.Reopen(t)
		before := head(t, db)
		for token, want := range first {
			if id := write(t, db, &batchlog.Batch{Token: token}); id != want {
				t.Errorf("token %q is commit %d after reopening, was %d", token, id, want)
			}
		}
		if now := head(t, db); now != before {
			t.Errorf("head went from %d to %d", before, now)
		}
	}
}

// A token whose batch was refused is still free.
func testTokenAfterRefusal(t *testing.T, open Open) {
	db := plain(t, open)
	bad := batchlog.Batch{Token: "t"}
	bad.Put(db.Root(), make([]byte, batchlog.MaxKeyBytes+1), nil)
	_, err := db.Write(within(t), &bad)
	wantErr(t, "write", err, batchlog.ErrTooLarge)
	_, err = db.Update(within(t), func(tx *batchlog.Tx) error { tx.SetToken("t"); return errors.New("refused") })
	if err == nil {
		t.Error("update with an error of its own has none")
	}
	good := batchlog.Batch{Token: "t"}
	good.Put(db.Root(), batchlog.K("k"), []byte("v"))
	if id := write(t, db, &good); id != 1 {
		t.Errorf("commit %d, want 1", id)
	}
	wantValue(t, db.Root(), batchlog.K("k"), "v")
}

// An update with a token that the log holds returns the first id and writes nothing.
func testTokenUpdate(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	add := func() (batchlog.ID, error) {
		return db.Update(within(t), func(tx *batchlog.Tx) error {
			v, err := tx.Get(s, batchlog.K("n"))
			if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			tx.SetToken("add")
			tx.Put(s, batchlog.K("n"), append(v, 'x'))
			return nil
		})
	}
	for range 3 {
		if id, err := add(); err != nil || id != 1 {
			t.Errorf("commit %d, %v; want 1", id, err)
		}
	}
	wantValue(t, s, batchlog.K("n"), "x")
}
