package enginetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A memory is the plainest engine there can be: a slice of commits, a map, and one lock. It shows that the suite asks for nothing
// but what the interface says, and is what other engines can be compared with.
type memory struct {
	now func() time.Time

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, at every change
	log     []wire.Record
	state   map[string][]byte
	tokens  map[string]batchlog.ID
	closed  bool

	protected map[uint64]*waist.Reads // by ticket
	tickets   uint64
}

func newMemory(now func() time.Time) *memory {
	if now == nil {
		now = time.Now
	}
	return &memory{now: now, changed: make(chan struct{}), state: map[string][]byte{}, tokens: map[string]batchlog.ID{}, protected: map[uint64]*waist.Reads{}}
}

// await calls ready under the lock until it says so, the engine is closed or ctx ends. It returns with the lock held unless there is an
// error.
func (m *memory) await(ctx context.Context, ready func() bool) error {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return batchlog.ErrClosed
		}
		if err := context.Cause(ctx); err != nil {
			m.mu.Unlock()
			return err
		}
		if ready() {
			return nil
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (m *memory) changeLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) head() batchlog.ID { return batchlog.ID(len(m.log)) }

// Commit is as batchlog.Engine says.
func (m *memory) Commit(ctx context.Context, p *waist.Proposal) (batchlog.ID, error) {
	if n := len(p.Ops) + len(p.Meta); n > batchlog.MaxBatchBytes {
		return 0, &batchlog.LimitError{What: "batch", Size: int64(n), Limit: batchlog.MaxBatchBytes}
	}
	write := wire.Record{Ops: p.Ops}
	if err := m.await(ctx, func() bool {
		for ticket, reads := range m.protected {
			if ticket != p.Ticket && (m.protected[p.Ticket] == nil || ticket < p.Ticket) && changes(&write, reads) {
				return false
			}
		}
		return true
	}); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	if id, ok := m.tokens[p.Token]; ok && p.Token != "" {
		return id, nil
	}
	if p.Reads != nil {
		for i := range m.log[p.Reads.Base:] {
			if r := &m.log[int(p.Reads.Base)+i]; changes(r, p.Reads) {
				return 0, &batchlog.ConflictError{ID: r.ID, Base: p.Reads.Base, Reads: p.Reads}
			}
		}
	}
	r := wire.Record{ID: m.head() + 1, Time: m.now().UnixMicro(), Count: p.Count, Meta: bytes.Clone(p.Meta), Ops: bytes.Clone(p.Ops)}
	if len(m.log) > 0 {
		r.Time = max(r.Time, m.log[len(m.log)-1].Time)
	}
	m.log = append(m.log, r)
	if p.Token != "" {
		m.tokens[p.Token] = r.ID
	}
	eachOp(&r, func(kind batchlog.OpKind, key, value []byte) {
		switch kind {
		case batchlog.OpPut:
			m.state[string(key)] = value
		case batchlog.OpDelete:
			delete(m.state, string(key))
		default:
			maps.DeleteFunc(m.state, func(k string, _ []byte) bool { return k >= string(key) && k < string(value) })
		}
	})
	m.changeLocked()
	return r.ID, nil
}

func eachOp(r *wire.Record, visit func(kind batchlog.OpKind, key, value []byte)) {
	for rest := r.Ops; len(rest) > 0; {
		kind, key, value, next, err := wire.NextOp(rest)
		if err != nil {
			panic(err)
		}
		visit(kind, key, value)
		rest = next
	}
}

// changes says whether r changes what was read.
func changes(r *wire.Record, reads *waist.Reads) (hit bool) {
	eachOp(r, func(kind batchlog.OpKind, key, value []byte) {
		low, high := string(key), string(key)+"\x00"
		if kind == batchlog.OpDeleteRange {
			high = string(value)
		}
		for _, k := range reads.Keys {
			hit = hit || string(k) >= low && string(k) < high
		}
		for _, r := range reads.Ranges {
			hit = hit || string(r.Low) < high && low < string(r.High)
		}
	})
	return hit
}

// Protect is as batchlog.Queuer says. One that is on the same keys as another waits for that one.
func (m *memory) Protect(ctx context.Context, ticket uint64, reads *waist.Reads) (now uint64, release func(), err error) {
	if err := m.await(ctx, func() bool {
		for other, protected := range m.protected {
			if other != ticket && m.protected[ticket] == nil && meet(protected, reads) {
				return false
			}
		}
		return true
	}); err != nil {
		return 0, nil, err
	}
	defer m.mu.Unlock()
	both := *reads
	if old := m.protected[ticket]; old != nil {
		both.Keys, both.Ranges = slices.Concat(old.Keys, both.Keys), slices.Concat(old.Ranges, both.Ranges)
	} else {
		m.tickets++
		ticket = m.tickets
	}
	m.protected[ticket] = &both
	release = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.closed {
			delete(m.protected, ticket)
			m.changeLocked()
		}
	}
	time.AfterFunc(5*time.Second, release)
	return ticket, release, nil
}

// meet says whether a key was read by both.
func meet(a, b *waist.Reads) bool {
	var writes wire.Record
	for _, k := range a.Keys {
		writes.Ops = wire.AppendOp(writes.Ops, batchlog.OpPut, k, nil)
	}
	for _, r := range a.Ranges {
		writes.Ops = wire.AppendOp(writes.Ops, batchlog.OpDeleteRange, r.Low, r.High)
	}
	return changes(&writes, b)
}

// View is as batchlog.Engine says.
func (m *memory) View(ctx context.Context, o batchlog.ReadOptions) (waist.Snapshot, error) {
	began := time.Now()
	parent := ctx
	if o.MaxWait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.MaxWait)
		defer cancel()
	}
	if o.Stale {
		ctx, o.AtLeast = parent, 0
	}
	if err := parent.Err(); err != nil {
		return nil, context.Cause(parent)
	}
	if err := m.await(ctx, func() bool { return m.head() >= o.AtLeast }); err != nil {
		if errors.Is(err, batchlog.ErrClosed) {
			return nil, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return nil, &batchlog.WaitError{For: o.AtLeast, Applied: m.head(), Waited: time.Since(began), Err: err}
	}
	defer m.mu.Unlock()
	return &memoryView{m: m, id: m.head(), state: maps.Clone(m.state)}, nil
}

type memoryView struct {
	m     *memory
	id    batchlog.ID
	mu    sync.Mutex
	state map[string][]byte // nil when it is closed
}

func (v *memoryView) ID() batchlog.ID { return v.id }

func (v *memoryView) open() (map[string][]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	if v.state == nil || v.m.closed {
		return nil, batchlog.ErrClosed
	}
	return v.state, nil
}

func (v *memoryView) Get(_ context.Context, key []byte) ([]byte, error) {
	state, err := v.open()
	if err != nil {
		return nil, err
	}
	value, ok := state[string(key)]
	if !ok {
		return nil, batchlog.ErrNotFound
	}
	return bytes.Clone(value), nil
}

func (v *memoryView) Scan(_ context.Context, low, high []byte, reverse bool) (waist.Cursor, error) {
	state, err := v.open()
	if err != nil {
		return nil, err
	}
	c := &memoryCursor{v: v}
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if k >= string(low) && k < string(high) {
			c.keys = append(c.keys, k)
		}
	}
	if reverse {
		slices.Reverse(c.keys)
	}
	return c, nil
}

func (v *memoryView) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.state = nil
	return nil
}

type memoryCursor struct {
	v    *memoryView
	keys []string
}

func (c *memoryCursor) Next() (key, value []byte, err error) {
	state, err := c.v.open()
	if err != nil {
		return nil, nil, err
	}
	if len(c.keys) == 0 {
		return nil, nil, io.EOF
	}
	k := c.keys[0]
	c.keys = c.keys[1:]
	return []byte(k), state[k], nil
}

func (c *memoryCursor) Close() error { return nil }

// Log is as batchlog.Engine says.
func (m *memory) Log(ctx context.Context, o batchlog.LogOptions) (waist.LogReader, error) {
	if err := m.await(ctx, func() bool { return true }); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	next, err := o.From.Resolve(1, m.head(), func(t time.Time) (batchlog.ID, error) {
		at := slices.IndexFunc(m.log, func(r wire.Record) bool { return !time.UnixMicro(r.Time).Before(t) })
		if at < 0 {
			at = len(m.log)
		}
		return batchlog.ID(at + 1), nil
	})
	return &memoryReader{m: m, next: next, o: o}, err
}

type memoryReader struct {
	m    *memory
	next batchlog.ID
	o    batchlog.LogOptions
}

func (r *memoryReader) Next(ctx context.Context) (commits []wire.Record, scanned batchlog.ID, err error) {
	if r.o.Until > 0 && r.next > r.o.Until {
		return nil, 0, io.EOF
	}
	if err := r.m.await(ctx, func() bool { return r.m.head() >= r.next }); err != nil {
		return nil, 0, err
	}
	defer r.m.mu.Unlock()
	for ; r.next <= r.m.head() && (r.o.Until == 0 || r.next <= r.o.Until); r.next++ {
		rec := r.m.log[r.next-1]
		in := len(r.o.Within) == 0
		eachOp(&rec, func(_ batchlog.OpKind, key, _ []byte) { in = in || wire.HasAnyPrefix(key, r.o.Within) })
		if in {
			commits = append(commits, rec)
		}
	}
	return commits, r.next - 1, nil
}

func (r *memoryReader) Close() error { return nil }

// Head is as batchlog.Engine says.
func (m *memory) Head(context.Context) (batchlog.ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, batchlog.ErrClosed
	}
	return m.head(), nil
}

// Close is as batchlog.Engine says.
func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.changeLocked()
	}
	return nil
}

// TestMemory runs the suite on the plainest engine.
func TestMemory(t *testing.T) {
	Run(t, func(t *testing.T, o Options) Subject {
		t.Helper()
		db := batchlog.New(newMemory(o.Now))
		t.Cleanup(func() { check(t, db.Close()) })
		return Subject{DB: db}
	})
}
