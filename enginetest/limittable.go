package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
)

// A limitWrite is a commit that is at a limit, below or above: one put, and what else the batch has.
type limitWrite struct {
	path  []any // of the space
	key   batchlog.Key
	value []byte
	more  int // bytes of values that the commit has besides, in ops of their own
	token string
	label string
}

// A limitWay is a kind of write.
type limitWay struct {
	name  string
	hooks bool // it needs pre-commit hooks
	// unbounded: it is a chain, which may be larger than a batch.
	unbounded bool
	untold    bool // it has no token and no labels of its own
	write     func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error)
}

// A limitDB is a database that limits are tried on.
type limitDB struct {
	Subject
	db *batchlog.DB
	n  int // writes so far
}

// moreBytes is the size of the values of limitWrite.more.
const moreBytes = 4 << 20

// fill adds what w has besides.
func (w limitWrite) fill(l *limitDB, put func(s *batchlog.Space, k batchlog.Key, value []byte)) {
	s := l.db.Space("more")
	for n := w.more; n > 0; n -= moreBytes {
		put(s, batchlog.K(l.n, n), make([]byte, min(n, moreBytes)))
	}
}

func (w limitWrite) labels() map[string]string {
	if w.label == "" {
		return nil
	}
	return map[string]string{"l": w.label}
}

var limitWays = []limitWay{
	{name: "write", write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		b := batchlog.Batch{Token: w.token, Labels: w.labels()}
		w.fill(l, b.Put)
		b.Put(l.db.Space(w.path...), w.key, w.value)
		return l.db.Write(ctx, &b)
	}},
	{name: "update", write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		return l.db.Update(ctx, func(tx *batchlog.Tx) error {
			tx.SetToken(w.token)
			if w.label != "" {
				tx.SetLabel("l", w.label)
			}
			w.fill(l, tx.Put)
			tx.Put(l.db.Space(w.path...), w.key, w.value)
			return nil
		})
	}},
	{name: "hook", hooks: true, untold: true, write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		defer l.Hook(l.db.Space("trigger"), func(tx *batchlog.Tx, _ []batchlog.Op) error {
			w.fill(l, tx.Put)
			tx.Put(l.db.Space(w.path...), w.key, w.value)
			return nil
		})()
		return l.db.Space("trigger").Put(ctx, batchlog.K("k"), nil)
	}},
	{name: "replace", hooks: true, untold: true, write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		s := l.db.Space(w.path...)
		defer l.Hook(s, func(tx *batchlog.Tx, ops []batchlog.Op) error { return tx.Replace(ops[0], w.value) })()
		var b batchlog.Batch
		b.Put(s, w.key, nil)
		w.fill(l, b.Put)
		return l.db.Write(ctx, &b)
	}},
	{name: "small chain", unbounded: true, write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		return l.chain(ctx, w, 0)
	}},
	{name: "large chain", unbounded: true, write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		return l.chain(ctx, w, 9000)
	}},
	{name: "copy", unbounded: true, write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		return l.copy(ctx, w, false)
	}},
	{name: "copy that catches up", unbounded: true, write: func(ctx context.Context, l *limitDB, w limitWrite) (batchlog.ID, error) {
		return l.copy(ctx, w, true)
	}},
}

// chain writes w as a chain, between other ops in the order of keys.
func (l *limitDB) chain(ctx context.Context, w limitWrite, others int) (id batchlog.ID, err error) {
	c, err := l.db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token, c.Labels = w.token, w.labels()
	for i := range others {
		c.Put(l.db.Space([]any{"a", "zz"}[i%2]), batchlog.K(i), make([]byte, 100))
	}
	w.fill(l, c.Put)
	c.Put(l.db.Space(w.path...), w.key, w.value)
	return c.Commit(ctx)
}

// copy copies what w has from a space with a shorter path, which is written before, or while the copy is under way.
func (l *limitDB) copy(ctx context.Context, w limitWrite, late bool) (id batchlog.ID, err error) {
	from := batchlog.Batch{}
	src := l.db.Space("from")
	if len(w.path) > 1 {
		src = l.db.Root()
	}
	from.Put(src, w.key, w.value)
	write := func() error {
		_, err := l.db.Write(ctx, &from)
		return err
	}
	if err := write(); !late && err != nil {
		return 0, err
	} else if late {
		from.Reset()
		from.Delete(src, w.key)
		if err := write(); err != nil {
			return 0, err
		}
		from.Reset()
		from.Put(src, w.key, w.value)
	}
	c, err := l.db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token, c.Labels = w.token, w.labels()
	w.fill(l, c.Put)
	if err := c.CopyRange(l.db.Space(w.path...), src, batchlog.Range{Low: w.key, High: append(bytes.Clone(w.key), 0)}); err != nil {
		return 0, err
	}
	if late {
		if err := write(); err != nil {
			return 0, err
		}
	}
	return c.Commit(ctx)
}

// A limitCase is a limit, and the writes with so many more or less than it allows.
type limitCase struct {
	limit string // as LimitError.What says; others may say what comes of it for a hook
	also  string
	large bool // not in short runs
	meta  bool // it is about tokens or labels
	// bounded: chains and copies have no such limit.
	bounded bool
	// ofSpace: it is about a path, so that there is no space to bind a hook to.
	ofSpace bool
	write   func(t *testing.T, n, delta int) limitWrite
}

var limitCases = []limitCase{
	{limit: "key", write: func(t *testing.T, n, delta int) limitWrite {
		path := []any{"a longer path", "than that of what is copied", n}
		return limitWrite{path: path, key: bytes.Repeat([]byte{0xfe}, batchlog.MaxKeyBytes-prefixBytes(t, path...)+delta), value: []byte("v")}
	}},
	{limit: "path depth", ofSpace: true, write: func(_ *testing.T, n, delta int) limitWrite {
		w := limitWrite{path: []any{n}, key: batchlog.K("k"), value: []byte("v")}
		for len(w.path) < batchlog.MaxPathDepth+delta {
			w.path = append(w.path, "d")
		}
		return w
	}},
	{limit: "path", ofSpace: true, write: func(t *testing.T, n, delta int) limitWrite {
		path := []any{n, ""}
		path[1] = strings.Repeat("p", batchlog.MaxKeyBytes-prefixBytes(t, path...)+delta)
		return limitWrite{path: path, value: []byte("v")}
	}},
	{limit: "token", meta: true, write: func(_ *testing.T, n, delta int) limitWrite {
		return limitWrite{path: []any{n}, key: batchlog.K("k"), value: []byte("v"), token: fmt.Sprintf("%0*d", batchlog.MaxTokenBytes+delta, n)}
	}},
	{limit: "labels", meta: true, write: func(_ *testing.T, n, delta int) limitWrite {
		const around = 1 + 3 + 1 + len("l")
		return limitWrite{path: []any{n}, key: batchlog.K("k"), value: []byte("v"), label: strings.Repeat("v", batchlog.MaxMetaBytes-around+delta)}
	}},
	{limit: "value", large: true, write: func(_ *testing.T, n, delta int) limitWrite {
		value := bytes.Repeat([]byte{byte(n), 1, 2, 3, 5, 8, 13}, batchlog.MaxValueBytes/7+2)
		return limitWrite{path: []any{n}, key: batchlog.K("k"), value: value[:batchlog.MaxValueBytes+delta]}
	}},
	{limit: "batch", also: "batch with what hooks added", large: true, bounded: true, write: func(_ *testing.T, n, delta int) limitWrite {
		w := limitWrite{path: []any{n}, key: batchlog.K("k"), more: 15 * moreBytes}
		db := batchlog.New(nil)
		l := &limitDB{db: db, n: n}
		var b batchlog.Batch
		w.fill(l, b.Put)
		b.Put(db.Space(w.path...), w.key, make([]byte, 3<<20)) // its length takes as many bytes as that of the value below
		w.value = make([]byte, 3<<20+batchlog.MaxBatchBytes-b.Size()+delta)
		return w
	}},
}

// limitNames are the limits that other tests are about: they are no sizes of a single write.
var limitNames = []string{"blob", "reads of a transaction", "depth of hooks", "ops of a chain in spaces with hooks", "what hooks added to a chain", "batch with what hooks added", "memory of what hooks added to a commit"}

// Whatever limit it is, and however one writes: at the limit and one below the write is taken, and read by everybody, also after a crash; one above is a *LimitError that
// names the limit, and nothing is written. There is no third.
func testLimitTable(t *testing.T, open Open) {
	for _, limit := range batchlog.Limits() {
		if !slices.Contains(limitNames, limit.What) && !slices.ContainsFunc(limitCases, func(c limitCase) bool { return c.limit == limit.What }) {
			t.Errorf("nothing is at the limit of: %s", limit.What)
		}
	}
	for _, c := range limitCases {
		for _, way := range limitWays {
			if c.meta && way.untold || c.ofSpace && way.name == "replace" || c.bounded && strings.HasPrefix(way.name, "copy") {
				continue
			}
			t.Run(c.limit+" by "+way.name, func(t *testing.T) {
				if c.large && testing.Short() {
					t.Skip("it takes long")
				}
				tryLimit(t, open, c, way)
			})
		}
	}
}

// hookedBytes is more than what a hook was called for, and what the commit says of it, take beside what the hook adds.
const hookedBytes = 300

func tryLimit(t *testing.T, open Open, c limitCase, way limitWay) {
	l := &limitDB{Subject: open(t, Options{Crash: true})}
	l.db = l.DB
	if way.hooks && l.Hook == nil {
		t.Skip("the engine has no hooks")
	}
	if way.unbounded {
		if _, err := l.db.Chain(within(t)); errors.Is(err, batchlog.ErrUnsupported) {
			t.Skip("the engine has no chains")
		}
	}
	taken := map[batchlog.ID]limitWrite{}
	for _, delta := range []int{-1, 0, 1} {
		l.n++
		w := c.write(t, l.n, delta)
		if way.hooks && c.bounded && delta <= 0 {
			w.value = w.value[:len(w.value)-hookedBytes]
		}
		before := head(t, l.db)
		id, err := way.write(within(t), l, w)
		fits := delta <= 0 || c.bounded && way.unbounded
		var over *batchlog.LimitError
		switch {
		case err == nil && fits:
			taken[id] = w
			if w.token != "" {
				if again, err := way.write(within(t), l, w); err != nil || again != id {
					t.Errorf("%+d: the same token is commit %d, %v; want %d", delta, again, err, id)
				}
			}
		case err == nil:
			t.Errorf("%+d: commit %d is taken", delta, id)
		case !errors.As(err, &over) || over.What != c.limit && over.What != c.also || over.Limit == 0 || over.Size <= over.Limit:
			t.Errorf("%+d: %v, want a *LimitError for %s", delta, err, c.limit)
		case fits:
			t.Errorf("%+d: refused: %v", delta, err)
		default:
			l.nothing(t, before, w)
		}
	}
	l.read(t, taken)
	if l.Verify != nil {
		for _, problem := range l.Verify(t) {
			t.Errorf("verify: %s", problem)
		}
	}
	if l.Crash != nil {
		l.db = l.Crash(t)
		l.read(t, taken)
	}
}

// nothing makes sure that w is nowhere.
func (l *limitDB) nothing(t *testing.T, before batchlog.ID, w limitWrite) {
	t.Helper()
	last := head(t, l.db)
	if last == before {
		return
	}
	for c, err := range l.db.Tail(within(t), batchlog.TailOptions{From: batchlog.After(before), Until: last}) {
		check(t, err)
		for op, err := range c.Ops() { // what a copy is made of may have been written
			check(t, err)
			if s := l.db.Space(w.path...); op.In(s) && s.Path() != nil {
				t.Errorf("commit %d has an op in %s, which was refused", c.ID, op.Space)
			}
		}
	}
}

// read makes sure that all that was taken is there, for who gets it, scans, or follows.
func (l *limitDB) read(t *testing.T, taken map[batchlog.ID]limitWrite) {
	t.Helper()
	for _, w := range taken {
		s := l.db.Space(w.path...)
		got, err := s.Get(within(t), w.key)
		if err != nil || !bytes.Equal(got, w.value) {
			t.Errorf("get of %.40s: %d bytes, %v", w.key, len(got), err)
		}
		pairs, err := collect(s.Scan(within(t), batchlog.Range{}))
		if err != nil || len(pairs) != 1 || pairs[0].value != string(w.value) || pairs[0].key != string(w.key) {
			t.Errorf("scan: %d pairs, %v", len(pairs), err)
		}
	}
	found := 0
	for c, err := range l.db.Tail(within(t), batchlog.TailOptions{Until: head(t, l.db)}) {
		check(t, err)
		w, ours := taken[c.ID]
		for op, err := range c.Ops() {
			check(t, err)
			if ours && op.Space.Equal(l.db.Space(w.path...)) && bytes.Equal(op.Key, w.key) && bytes.Equal(op.Value, w.value) {
				found++
				break
			}
		}
		if ours && c.Labels["l"] != w.label {
			t.Errorf("commit %d has labels of %d bytes", c.ID, len(c.Labels["l"]))
		}
	}
	if found != len(taken) {
		t.Errorf("%d of %d commits are found in the log", found, len(taken))
	}
}
