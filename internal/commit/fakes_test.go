// The tests of this package run the pipeline over a log and a store in memory, which are here. Where time or the order of
// goroutines matters they run in a bubble of testing/synctest.
//
// pipeline_test.go: numbers, groups and their failures, contexts, backlog, Close; gate_test.go: held reads and what ends
// them; protect_test.go; tokens_test.go; validate_test.go: conflicts; reads_test.go: how they are found; replay_test.go. Together they cover all files of the package.
package commit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// bubble runs test in a bubble.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// A fakeLog is a log in memory. It reports what the real one would panic on.
type fakeLog struct {
	t *testing.T

	mu struct {
		sync.Mutex
		oldest  batchlog.ID
		records []wire.Record // durable, all since commit 1
		group   []wire.Record // since the last Sync
		groups  [][]wire.Record
		readers int // made
		open    int // readers that are not closed
	}
	// These are set before use, or while nothing is under way.
	room    int                                     // records in a group; 0: no bound
	addErr  func(r wire.Record) error               // nil: none
	syncing func(group []wire.Record) error         // called by Sync; may block
	reading func(next batchlog.ID) error            // called by Next of readers
	stretch int                                     // commits that a reader returns at once; 0: all
	opening func(o batchlog.LogOptions) (err error) // called by Reader
}

func newFakeLog(t *testing.T) *fakeLog {
	l := &fakeLog{t: t}
	l.mu.oldest = 1
	return l
}

func (l *fakeLog) Add(r wire.Record) (wire.Record, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.room > 0 && len(l.mu.group) == l.room {
		return r, false, nil
	}
	if l.addErr != nil {
		if err := l.addErr(r); err != nil {
			return r, false, err
		}
	}
	all := append(slices.Clone(l.mu.records), l.mu.group...)
	if want := batchlog.ID(len(all) + 1); r.ID != want {
		l.t.Errorf("commit %d where %d belongs", r.ID, want)
	}
	if len(all) > 0 && r.Time < all[len(all)-1].Time {
		l.t.Errorf("commit %d is older than the one before", r.ID)
	}
	r.Ops, r.Meta = slices.Clone(r.Ops), slices.Clone(r.Meta)
	l.mu.group = append(l.mu.group, r)
	return r, true, nil
}

func (l *fakeLog) Sync() error {
	l.mu.Lock()
	group := l.mu.group
	l.mu.group = nil
	l.mu.Unlock()
	if l.syncing != nil {
		if err := l.syncing(group); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.records = append(l.mu.records, group...)
	l.mu.groups = append(l.mu.groups, group)
	return nil
}

func (l *fakeLog) Head() batchlog.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return batchlog.ID(len(l.mu.records))
}

// durable is the commits that are durable.
func (l *fakeLog) durable() []wire.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.records)
}

// groups is the groups that were synced.
func (l *fakeLog) groups() [][]wire.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.groups)
}

// fill makes commits durable that no pipeline has seen.
func (l *fakeLog) fill(props ...*waist.Proposal) {
	for _, p := range props {
		id := batchlog.ID(len(l.mu.records) + 1)
		l.mu.records = append(l.mu.records, wire.Record{ID: id, Count: p.Count, Meta: p.Meta, Ops: p.Ops})
	}
}

func (l *fakeLog) trim(oldest batchlog.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.oldest = oldest
}

func (l *fakeLog) Reader(o batchlog.LogOptions) (waist.LogReader, error) {
	if l.opening != nil {
		if err := l.opening(o); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := o.From.Resolve(l.mu.oldest, batchlog.ID(len(l.mu.records)), nil)
	if err != nil {
		return nil, err
	}
	if next < l.mu.oldest {
		return nil, &batchlog.GapError{From: next, Oldest: l.mu.oldest}
	}
	l.mu.readers++
	l.mu.open++
	return &fakeReader{log: l, next: next, until: o.Until}, nil
}

type fakeReader struct {
	log         *fakeLog
	next, until batchlog.ID
}

func (r *fakeReader) Next(ctx context.Context) ([]wire.Record, batchlog.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if r.log.reading != nil {
		if err := r.log.reading(r.next); err != nil {
			return nil, 0, err
		}
	}
	if r.next > r.until {
		return nil, 0, io.EOF
	}
	last := r.until
	if s := r.log.stretch; s > 0 {
		last = min(last, r.next+batchlog.ID(s)-1)
	}
	records := r.log.durable()[r.next-1 : last]
	r.next = last + 1
	return records, last, nil
}

func (r *fakeReader) Close() error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.mu.open--
	return nil
}

// A fakeStore applies to nothing but a list of ids.
type fakeStore struct {
	t *testing.T

	mu struct {
		sync.Mutex
		applied batchlog.ID
		tokens  map[string]batchlog.ID
		calls   []int // records of each Apply
		looked  int   // calls of Token
	}
	failed   atomic.Pointer[error]
	full     atomic.Bool
	applying func(records []wire.Record) error // called by Apply; may block
	looking  func(token string) error          // called by Token
}

func newFakeStore(t *testing.T) *fakeStore {
	s := &fakeStore{t: t}
	s.mu.tokens = map[string]batchlog.ID{}
	return s
}

func (s *fakeStore) Apply(records []wire.Record) error {
	if s.applying != nil {
		if err := s.applying(records); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range records {
		r := &records[i]
		if r.ID != s.mu.applied+1 {
			s.t.Errorf("commit %d applied to a store at %d", r.ID, s.mu.applied)
		}
		s.mu.applied = r.ID
		if token := r.Token(); token != "" {
			s.mu.tokens[token] = r.ID
		}
	}
	s.mu.calls = append(s.mu.calls, len(records))
	return nil
}

func (s *fakeStore) Applied() batchlog.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.applied
}

func (s *fakeStore) Token(token string) (batchlog.ID, bool, error) {
	if s.looking != nil {
		if err := s.looking(token); err != nil {
			return 0, false, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.looked++
	id, found := s.mu.tokens[token]
	return id, found, nil
}

func (s *fakeStore) Failed() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *fakeStore) NoSpace() bool { return s.full.Load() }

// newLine is a pipeline over log and store, which is closed when the test ends.
func newLine(t *testing.T, l *fakeLog, s *fakeStore) *Pipeline {
	t.Helper()
	p := New(Options{Log: l, Store: s, Now: time.Now})
	t.Cleanup(p.Close)
	return p
}

// blocker is a place where a goroutine waits until the test lets it go on.
type blocker struct {
	entered chan struct{} // has a token for each that came
	open    chan struct{} // closed: nobody waits any more
	once    sync.Once
}

func newBlocker() *blocker {
	return &blocker{entered: make(chan struct{}, 1000), open: make(chan struct{})}
}

func (b *blocker) wait([]wire.Record) error {
	b.entered <- struct{}{}
	<-b.open
	return nil
}

func (b *blocker) release() { b.once.Do(func() { close(b.open) }) }

// A result is what a Commit returned.
type result struct {
	id  batchlog.ID
	err error
}

// commit calls Commit in a goroutine of its own.
func (p *Pipeline) commit(ctx context.Context, prop *waist.Proposal) <-chan result {
	c := make(chan result, 1)
	go func() {
		id, err := p.Commit(ctx, prop)
		c <- result{id, err}
	}()
	return c
}

// mustCommit commits prop, which must succeed.
func mustCommit(t *testing.T, p *Pipeline, prop *waist.Proposal) batchlog.ID {
	t.Helper()
	id, err := p.Commit(t.Context(), prop)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func pending[T any](c <-chan T) bool { return len(c) == 0 }

// An op is one for propose.
type op struct {
	kind       batchlog.OpKind
	key, value string
}

func put(key string) op { return op{batchlog.OpPut, key, "value"} }

func del(key string) op { return op{batchlog.OpDelete, key, ""} }

func delRange(low, high string) op { return op{batchlog.OpDeleteRange, low, high} }

func propose(ops ...op) *waist.Proposal {
	p := &waist.Proposal{Count: len(ops)}
	for _, o := range ops {
		p.Ops = wire.AppendOp(p.Ops, o.kind, []byte(o.key), []byte(o.value))
	}
	return p
}

// withToken is a proposal with a token of less than 128 bytes.
func withToken(token string, ops ...op) *waist.Proposal {
	p := propose(ops...)
	p.Token = token
	p.Meta = append([]byte{1, byte(len(token))}, token...)
	return p
}

// large is a proposal of some size.
func large(size int) *waist.Proposal {
	return propose(op{batchlog.OpPut, "k", string(make([]byte, size))})
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func wantErr(t *testing.T, what string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("%s: error %v, want %v", what, err, w)
		}
	}
}

// firstKeys is the first key of each record.
func firstKeys(records []wire.Record) []string {
	var keys []string
	for i := range records {
		_, key, _, _, err := wire.NextOp(records[i].Ops)
		if err != nil {
			key = []byte(err.Error())
		}
		keys = append(keys, string(key))
	}
	return keys
}
