// Package enginetest is the suite that every [batchlog.Engine] passes: what a database does, stated through its public
// methods alone. Run it from a test of the engine's package:
//
//	func TestEngine(t *testing.T) {
//		enginetest.Run(t, func(t *testing.T, o enginetest.Options) enginetest.Subject { … })
//	}
//
// The suite checks results, never how long something took; waits end by a condition and are bounded by [Patience].
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// Patience bounds every wait of the suite: what takes longer has hung. It is long, as machines may stand still for a while.
const Patience = 2 * time.Minute

// Options say what database a test wants.
type Options struct {
	// Now is the clock that commits have their times from; nil: the real one.
	Now func() time.Time
	// Log is the settings of the log.
	Log batchlog.LogConfig
	// Crash asks for a Subject that has Crash, if the engine can.
	Crash bool
}

// A Subject is a new, empty database and what else can be done with it.
type Subject struct {
	DB *batchlog.DB
	// Reopen closes DB, opens what it kept anew and returns that. nil: the engine keeps nothing.
	Reopen func(t *testing.T) *batchlog.DB
	// Trim removes what is past HotTTL now, and returns when it is gone or may not go yet. nil: the engine
	// keeps all.
	Trim func(ctx context.Context) error
	// Crash opens what a crash of the process would have left, now; DB is of no use any more. nil: the engine can't, or wasn't asked for it.
	Crash func(t *testing.T) *batchlog.DB
	// Hook binds a pre-commit hook; nil: the engine has none.
	Hook func(s *batchlog.Space, hook func(tx *batchlog.Tx, ops []batchlog.Op) error) (remove func())
	// Verify checks what the database keeps, and says what is wrong with it; nil: the engine can't.
	Verify func(t *testing.T) []string
}

// An Open makes databases for the suite. It fails t if it can't, and has t close the database at its end.
type Open func(t *testing.T, o Options) Subject

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Helper()
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Keys", keyTests},
		{"Batches", batchTests},
		{"Limits", limitTests},
		{"Tokens", tokenTests},
		{"Update", updateTests},
		{"Conflicts", conflictTests},
		{"Reads", readTests},
		{"Waits", waitTests},
		{"Tail", tailTests},
		{"Filters", filterTests},
		{"Trim", trimTests},
		{"Chains", chainTests},
		{"Blobs", blobTests},
		{"Close", closeTests},
		{"Settings", settingTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) { test.run(t, open) })
			}
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, open Open)
}

// plain opens a database without wishes.
func plain(t *testing.T, open Open) *batchlog.DB {
	t.Helper()
	return open(t, Options{}).DB
}

// within is a context that ends with the test, or when the suite has lost patience.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), Patience, errors.New("the suite has waited too long"))
	t.Cleanup(cancel)
	return ctx
}

// check fails t now if err is not nil.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr fails t unless err is target.
func wantErr(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: error %v, want %v", what, err, target)
	}
}

// write writes b and fails t if that fails.
func write(t *testing.T, db *batchlog.DB, b *batchlog.Batch) batchlog.ID {
	t.Helper()
	id, err := db.Write(within(t), b)
	check(t, err)
	return id
}

// put puts one key as one commit.
func put(t *testing.T, s *batchlog.Space, key batchlog.Key, value string) batchlog.ID {
	t.Helper()
	id, err := s.Put(within(t), key, []byte(value))
	check(t, err)
	return id
}

// head is the newest durable commit.
func head(t *testing.T, db *batchlog.DB) batchlog.ID {
	t.Helper()
	id, err := db.Head(within(t))
	check(t, err)
	return id
}

// status is how db is.
func status(t *testing.T, db *batchlog.DB) batchlog.Status {
	t.Helper()
	st, err := db.Status(within(t))
	check(t, err)
	return st
}

// wantValue fails t unless key has that value in s.
func wantValue(t *testing.T, s *batchlog.Space, key batchlog.Key, want string) {
	t.Helper()
	got, err := s.Get(within(t), key)
	if err != nil || string(got) != want {
		t.Errorf("%s of %s is %q, %v; want %q", key, s, short(got), err, short([]byte(want)))
	}
}

// wantAbsent fails t unless key has no value in s.
func wantAbsent(t *testing.T, s *batchlog.Space, key batchlog.Key) {
	t.Helper()
	if got, err := s.Get(within(t), key); !errors.Is(err, batchlog.ErrNotFound) {
		t.Errorf("%s of %s is %q, %v; want ErrNotFound", key, s, short(got), err)
	}
}

// A pair is a key with its value.
type pair struct{ key, value string }

// scan is what a scan yields.
func scan(t *testing.T, s *batchlog.Space, r batchlog.Range, opts ...batchlog.ReadOption) []pair {
	t.Helper()
	pairs, err := collect(s.Scan(within(t), r, opts...))
	check(t, err)
	return pairs
}

// collect takes all of a scan.
func collect(entries iter.Seq2[batchlog.Entry, error]) ([]pair, error) {
	var pairs []pair
	for e, err := range entries {
		if err != nil {
			return pairs, err
		}
		pairs = append(pairs, pair{string(e.Key), string(e.Value)})
	}
	return pairs, nil
}

// wantPairs fails t unless got is want.
func wantPairs(t *testing.T, what string, got, want []pair) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("%s: %d entries, want %d; %q is missing", what, len(got), len(want), want[i].key)
			return
		case i >= len(want):
			t.Errorf("%s: %d entries, want %d; %q is too much", what, len(got), len(want), got[i].key)
			return
		case got[i] != want[i]:
			t.Errorf("%s: entry %d is %q=%q, want %q=%q", what, i, got[i].key, short([]byte(got[i].value)), want[i].key, short([]byte(want[i].value)))
			return
		}
	}
}

// follow yields the commits of a tail up to n of them, bookmarks not counted, and fails t if it ends before.
func follow(t *testing.T, db *batchlog.DB, o batchlog.TailOptions, n int) []*batchlog.Commit {
	t.Helper()
	var commits []*batchlog.Commit
	if n == 0 {
		return nil
	}
	for c, err := range db.Tail(within(t), o) {
		if err != nil {
			t.Fatalf("tail from %s: %v after %d of %d commits", o.From, err, len(commits), n)
		}
		if c.Bookmark() {
			continue
		}
		if commits = append(commits, c); len(commits) == n {
			return commits
		}
	}
	t.Fatalf("tail from %s ended after %d of %d commits", o.From, len(commits), n)
	return nil
}

// until is all commits of a tail that has an end.
func until(t *testing.T, db *batchlog.DB, o batchlog.TailOptions) ([]*batchlog.Commit, error) {
	t.Helper()
	return drain(db.Tail(within(t), o))
}

// drain is all commits of a tail, up to the error that ends it.
func drain(tail iter.Seq2[*batchlog.Commit, error]) ([]*batchlog.Commit, error) {
	var commits []*batchlog.Commit
	for c, err := range tail {
		if err != nil {
			return commits, err
		}
		commits = append(commits, c)
	}
	return commits, nil
}

// ids are those of commits.
func ids(commits []*batchlog.Commit) []batchlog.ID {
	var list []batchlog.ID
	for _, c := range commits {
		list = append(list, c.ID)
	}
	return list
}

// span is first, first+1, … last.
func span(first, last batchlog.ID) []batchlog.ID {
	var list []batchlog.ID
	for id := first; id <= last; id++ {
		list = append(list, id)
	}
	return list
}

// describe is the ops of c, one a line.
func describe(t *testing.T, c *batchlog.Commit) []string {
	t.Helper()
	var lines []string
	for op, err := range c.Ops() {
		if err != nil {
			t.Fatalf("ops of commit %d: %v", c.ID, err)
		}
		lines = append(lines, line(op))
	}
	return lines
}

// line is op as text.
func line(op batchlog.Op) string {
	switch op.Kind {
	case batchlog.OpPut:
		return fmt.Sprintf("put %s %q %q", op.Space, string(op.Key), short(op.Value))
	case batchlog.OpDelete:
		return fmt.Sprintf("del %s %q", op.Space, string(op.Key))
	default:
		high := "-"
		if op.High != nil {
			high = fmt.Sprintf("%q", string(op.High))
		}
		return fmt.Sprintf("delRange %s %q %s", op.Space, string(op.Key), high)
	}
}

// short is b, cut for messages.
func short(b []byte) []byte {
	if len(b) > 40 {
		return append(bytes.Clone(b[:40]), fmt.Sprintf("… (%d bytes)", len(b))...)
	}
	return b
}

// eventually waits until done says so, or fails t.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	left := Patience
	for wait := 50 * time.Microsecond; !done(); wait = min(2*wait, 20*time.Millisecond) {
		if left -= wait; left < 0 {
			t.Fatalf("waited %s for: %s", Patience, what)
		}
		time.Sleep(wait)
	}
}

// prefixBytes is how much of a stored key the path takes.
func prefixBytes(t *testing.T, path ...any) int {
	t.Helper()
	k, err := batchlog.KeyOf(append([]any{}, path...))
	check(t, err)
	return len(k)
}
