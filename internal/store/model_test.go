// The tests of this package run the store on file systems in memory: some lose what was not synced, some fail, some are full.
// model_test.go has the model and what is applied; store_test.go: Apply, scans, snapshots, tokens, status; close_test.go: use
// during and after Close; crash_test.go: what is left after a loss of power; fault_test.go: full and failing disks. Together they
// cover all files of the package.
package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const smallMemTable = 64 << 10

// open opens a store with a small memtable, which is closed when the test ends.
func open(t *testing.T, fs vfs.FS, base batchlog.ID) *Store {
	t.Helper()
	s, err := Open(testOptions(fs, base))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the test has looked at what matters
	return s
}

func testOptions(fs vfs.FS, base batchlog.ID) Options {
	return Options{FS: fs, Dir: "store", Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, MemTableBytes: smallMemTable, Base: base}
}

// A model is keys and their values.
type model map[string]string

// apply is what Apply does to a model.
func (m model) apply(t *testing.T, r wire.Record) {
	t.Helper()
	ops := r.Ops
	for range r.Count {
		kind, key, value, rest, err := wire.NextOp(ops)
		if err != nil {
			t.Fatal(err)
		}
		ops = rest
		switch kind {
		case batchlog.OpPut:
			m[string(key)] = string(value)
		case batchlog.OpDelete:
			delete(m, string(key))
		default:
			maps.DeleteFunc(m, func(k, _ string) bool { return k >= string(key) && k < string(value) })
		}
	}
}

// in is the model's keys from low on and below high, with their values, in order.
func (m model) in(low, high string) []string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k >= low && k < high {
			all = append(all, k+"="+m[k])
		}
	}
	return all
}

// The keys of the tests are below keyPrefix, as those of spaces are below an array.
const keyPrefix = "\xa0"

var counterKey = keyPrefix + "counter"

// A maker makes commits, one after the other, from a seed.
type maker struct {
	rng  *rand.Rand
	next batchlog.ID
}

func newMaker(seed uint64) *maker { return &maker{rng: rand.New(rand.NewPCG(seed, 1)), next: 1} }

func (m *maker) key() string { return fmt.Sprintf("%sk%03d", keyPrefix, m.rng.IntN(300)) }

// record is a commit of some ops, with values of about size bytes; the first op sets the counter to its id.
func (m *maker) record(size int) wire.Record {
	r := wire.Record{ID: m.next, Count: 1}
	m.next++
	r.Ops = wire.AppendOp(r.Ops, batchlog.OpPut, []byte(counterKey), []byte(r.ID.String()))
	for range m.rng.IntN(8) {
		switch m.rng.IntN(10) {
		case 0, 1:
			r.Ops = wire.AppendOp(r.Ops, batchlog.OpDelete, []byte(m.key()), nil)
		case 2, 3:
			low, high := m.key(), m.key()
			if low >= high {
				low, high = high, low+"\x00"
			}
			r.Ops = wire.AppendOp(r.Ops, batchlog.OpDeleteRange, []byte(low), []byte(high))
		default:
			value := fmt.Sprintf("%d %s", r.ID, strings.Repeat("v", m.rng.IntN(2*size+1)))
			r.Ops = wire.AppendOp(r.Ops, batchlog.OpPut, []byte(m.key()), []byte(value))
		}
		r.Count++
	}
	return r
}

func (m *maker) records(count, size int) []wire.Record {
	var all []wire.Record
	for range count {
		all = append(all, m.record(size))
	}
	return all
}

// withToken gives r a token of less than 128 bytes.
func withToken(r wire.Record, token string) wire.Record {
	r.Meta = append([]byte{1, byte(len(token))}, token...)
	return r
}

func apply(t *testing.T, s *Store, records ...wire.Record) {
	t.Helper()
	if err := s.Apply(records); err != nil {
		t.Fatal(err)
	}
}

// applyAfter applies those of records that follow on what s has, some at a time.
func applyAfter(t *testing.T, s *Store, records []wire.Record, some int) {
	t.Helper()
	for rest := records[s.Applied():]; len(rest) > 0; rest = rest[min(some, len(rest)):] {
		apply(t, s, rest[:min(some, len(rest))]...)
	}
}

// fold is what records up to id add up to.
func fold(t *testing.T, records []wire.Record, id batchlog.ID) model {
	t.Helper()
	m := model{}
	for _, r := range records[:id] {
		m.apply(t, r)
	}
	return m
}

func snapshot(t *testing.T, s *Store) *Snapshot {
	t.Helper()
	snap, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
	})
	return snap
}

func scan(t *testing.T, snap *Snapshot, low, high string, reverse bool) []string {
	t.Helper()
	c, err := snap.Scan(context.Background(), []byte(low), []byte(high), reverse)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all []string
	for {
		k, v, err := c.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(k)+"="+string(v))
	}
}

// mustBe fails unless s shows m, and says that it is at id.
func mustBe(t *testing.T, s *Store, id batchlog.ID, m model) {
	t.Helper()
	snap := snapshot(t, s)
	if s.Applied() != id || snap.ID() != id {
		t.Fatalf("applied %d, snapshot %d, want %d", s.Applied(), snap.ID(), id)
	}
	got, want := scan(t, snap, keyPrefix, "\xa1", false), m.in(keyPrefix, "\xa1")
	if !slices.Equal(got, want) {
		t.Fatalf("at %d: %d keys, want %d: first difference %s", id, len(got), len(want), difference(got, want))
	}
}

func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("%.40q is missing", want[i])
		case i >= len(want):
			return fmt.Sprintf("%.40q is too much", got[i])
		case got[i] != want[i]:
			return fmt.Sprintf("%.40q where %.40q belongs", got[i], want[i])
		}
	}
	return "none"
}

// within fails the test if f takes longer than d, and leaves it behind.
func within(t *testing.T, d time.Duration, what string, f func()) bool {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		return true
	case <-time.After(d):
		t.Errorf("%s takes more than %v", what, d)
		return false
	}
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// flush writes all to the disk.
func flush(t *testing.T, s *Store) {
	t.Helper()
	done, err := s.Flush()
	if err != nil {
		t.Fatal(err)
	}
	<-done
}

// mark is the applied mark as it is stored.
func mark(t *testing.T, s *Store) batchlog.ID {
	t.Helper()
	v, err := s.Get(bytes.Clone(appliedKey))
	if err != nil {
		t.Fatal(err)
	}
	return batchlog.ID(binary.BigEndian.Uint64(v))
}
