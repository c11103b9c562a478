package subprocess_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/bytespace/batchlog/task/subprocess"
)

func mem(t testing.TB) *local.DB {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// options are those of a worker of this kind; see worker.run.
func options(t testing.TB, kind string, env ...string) subprocess.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return subprocess.Options{Task: "t", Command: []string{self}, Env: append(append(os.Environ(), asWorker+"="+kind, "GORACE=atexit_sleep_ms=0"), env...)}
}

// pool is a pool that is closed at the end of the test, and has no process left then that had to be killed for being deaf.
func pool(t testing.TB, db *local.DB, o subprocess.Options) *subprocess.Pool {
	t.Helper()
	p, err := subprocess.New(db.DB, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// handle has p handle a window without commits, that stands for commit 1, and commits what comes of it.
func handle(t testing.TB, db *local.DB, p *subprocess.Pool) error {
	t.Helper()
	_, err := db.Update(t.Context(), func(tx *batchlog.Tx) error {
		return p.Handle(t.Context(), &task.Window{Tx: tx, First: 1, Last: 1, Attempt: 1})
	})
	return err
}

// Everything that can go wrong with a worker is told apart, shows what there is to see, and leaves a pool that goes on.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		kind string
		want subprocess.Kind
		says []string
	}{
		{"dead", subprocess.KindExit, []string{"it ended without an answer (exit status 7)", "I can't"}},
		{"mute", subprocess.KindTimeout, []string{"no answer in time: 500ms"}},
		{"other version", subprocess.KindHandshake, []string{"version 2", "version 1"}},
		{"no version", subprocess.KindHandshake, []string{`"batchlog" is missing`, `{"name":"me"}`}},
		{"no worker", subprocess.KindHandshake, []string{"not JSON", "Hello!"}},
		{"garbage", subprocess.KindProtocol, []string{"not JSON", "ops: none"}},
		{"not UTF-8", subprocess.KindProtocol, []string{"not UTF-8"}},
		{"array", subprocess.KindProtocol, []string{"an array where an object should be"}},
		{"nothing", subprocess.KindProtocol, []string{"one thing"}},
		{"two things", subprocess.KindProtocol, []string{"one thing"}},
		{"unknown field", subprocess.KindProtocol, []string{`unknown field "opts"`}},
		{"bad op", subprocess.KindProtocol, []string{`op 1: put: field "value" is missing`}},
		{"bad get", subprocess.KindProtocol, []string{`get: field "key" is missing`}},
		{"bad scan", subprocess.KindProtocol, []string{"scan: limit: 0 is less than 1"}},
		{"other window", subprocess.KindStray, []string{"commit 99"}},
		{"long", subprocess.KindLongLine, []string{"longer than 20000 bytes", `{"error":"xxx`}},
		{"big", subprocess.KindLongLine, []string{"20000 are allowed"}},
		{"refuses", subprocess.KindRefused, []string{`no, "thanks"`}},
		{"exit", subprocess.KindExit, []string{"exit status 3", "first words\nlast words"}},
		{"half a line", subprocess.KindExit, []string{"in the middle of a line", `{"ops":`, "exit status 0"}},
		{"closed stdout", subprocess.KindExit, []string{"without an answer"}},
		{"hang", subprocess.KindTimeout, []string{"no answer in time: 500ms"}},
		{"late", subprocess.KindTimeout, []string{"no answer in time: 500ms"}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			db := mem(t)
			if _, err := db.Space("out").Put(t.Context(), batchlog.K("big"), make([]byte, 20000)); err != nil {
				t.Fatal(err)
			}
			o := options(t, c.kind)
			o.MaxLine = 20000
			if c.want == subprocess.KindTimeout {
				o.Timeout, o.StartTimeout = 500*time.Millisecond, 500*time.Millisecond
			}
			if c.kind == "hang" || c.kind == "late" {
				o.StartTimeout = 0
			}
			p := pool(t, db, o)
			for range 2 {
				var failed *subprocess.Error
				if err := handle(t, db, p); !errors.As(err, &failed) {
					t.Fatalf("%v", err)
				}
				if failed.Kind != c.want || failed.PID == 0 {
					t.Errorf("kind %s of process %d, want %s: %v", failed.Kind, failed.PID, c.want, failed)
				}
				for _, s := range c.says {
					if !strings.Contains(failed.Error(), s) {
						t.Errorf("it says %q, not %q", failed, s)
					}
				}
			}
			if head, err := db.Head(t.Context()); head != 1 {
				t.Errorf("something was written: head %d, %v", head, err)
			}
		})
	}
}

// What can be heard of a process while it has no window is no failure if it has just ended, and one if it has said something.
func TestIdle(t *testing.T) {
	db := mem(t)
	p := pool(t, db, options(t, "once"))
	for range 3 {
		if err := handle(t, db, p); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond) // most often enough for its end to be seen; it may be an error if it is not
	}
	p = pool(t, db, options(t, "twice"))
	if err := handle(t, db, p); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	var failed *subprocess.Error
	if err := handle(t, db, p); !errors.As(err, &failed) || failed.Kind != subprocess.KindStray || failed.Line != `{"ops":[]}` {
		t.Errorf("after an answer too many: %v", err)
	}
	if err := handle(t, db, pool(t, db, options(t, "this window"))); err != nil {
		t.Errorf("an answer that says which window it is for: %v", err)
	}
}

func TestCannotStart(t *testing.T) {
	db := mem(t)
	for name, o := range map[string]subprocess.Options{
		"none":     {},
		"both":     {Command: []string{"a"}, Shell: "a"},
		"negative": {Shell: "a", Timeout: -1},
	} {
		if _, err := subprocess.New(db.DB, o); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	var failed *subprocess.Error
	if err := handle(t, db, pool(t, db, subprocess.Options{Command: []string{"./no such program"}})); !errors.As(err, &failed) || failed.Kind != subprocess.KindStart {
		t.Errorf("a program that is not there: %v", err)
	}
	if err := handle(t, db, pool(t, db, subprocess.Options{Shell: "exit 5"})); !errors.As(err, &failed) || failed.Kind != subprocess.KindExit || failed.Status != "exit status 5" {
		t.Errorf("a shell that ends: %v", err)
	}
}

// Stderr goes to the logger, a line each, with the process that wrote it.
func TestStderr(t *testing.T) {
	db := mem(t)
	var mu sync.Mutex
	var text bytes.Buffer
	o := options(t, "exit")
	o.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &text}, nil))
	if err := handle(t, db, pool(t, db, o)); err == nil {
		t.Fatal("no error")
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{`stderr="first words"`, `stderr="last words"`, "task=t pid="} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("log without %s:\n%s", want, text.String())
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// A worker that is no longer needed, because of Close or in the middle of a window, sees the end of its stdin and may end by itself; one that
// does not is killed.
func TestEnds(t *testing.T) {
	db := mem(t)
	file := filepath.Join(t.TempDir(), "farewell")
	p := pool(t, db, options(t, "chain", "BATCHLOG_TEST_FAREWELL="+file))
	if err := handle(t, db, p); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "bye" {
		t.Errorf("the worker did not end by itself: %v", err)
	}
	if err := handle(t, db, p); !errors.Is(err, batchlog.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}

	o := options(t, "hang")
	o.Grace = 50 * time.Millisecond
	p, err := subprocess.New(db.DB, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := p.Handle(ctx, &task.Window{First: 1, Last: 1, Attempt: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a window when the context ends: %v", err)
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("closing with a deaf worker: %v", err)
	}

	p, err = subprocess.New(db.DB, o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Handle(t.Context(), &task.Window{First: 1, Last: 1, Attempt: 1}) }()
	time.Sleep(200 * time.Millisecond)
	if err := p.Close(); err == nil {
		t.Error("closing under a window says nothing")
	}
	if err := <-ended; !errors.Is(err, batchlog.ErrClosed) {
		t.Errorf("a window under Close: %v", err)
	}
}

// run runs a task with p's workers over the source space until it has handled last.
func run(t *testing.T, db *local.DB, p *subprocess.Pool, k task.Task, last batchlog.ID) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	k.Name, k.Source, k.Handle = "t", []*batchlog.Space{db.Space("source")}, p.Handle
	k.Retry.First = time.Millisecond
	go func() { ended <- task.Run(ctx, db.DB, k) }()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		s, err := task.Get(t.Context(), db.DB, "t")
		if err == nil && s.Cursor >= last {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not at %d: %+v, %v", last, s, err)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// fill writes n commits, and returns the last one's id.
func fill(t *testing.T, db *local.DB, n int) (last batchlog.ID) {
	t.Helper()
	for i := range n {
		var err error
		if last, err = db.Space("source").Put(t.Context(), batchlog.K(i%7), fmt.Appendf(nil, "v%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// checkChain compares the outcome with a plain fold of the log.
func checkChain(t *testing.T, db *local.DB, last batchlog.ID) {
	t.Helper()
	chain := ""
	for c, err := range db.Space("source").Tail(t.Context(), batchlog.TailOptions{Until: last}) {
		if err != nil {
			t.Fatal(err)
		}
		for op, err := range c.Ops() {
			if err != nil {
				t.Fatal(err)
			}
			chain = link(chain, c.ID, string(op.Value))
		}
	}
	if got, err := db.Space("out").Get(t.Context(), batchlog.K("chain")); err != nil || string(got) != chain {
		t.Errorf("the outcome is %s, and that of a fold %s: %v", got, chain, err)
	}
}

// dump is all that is in the space out.
func dump(t *testing.T, db *local.DB) string {
	t.Helper()
	var b strings.Builder
	for e, err := range db.Space("out").Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s=%s\n", e.Key, e.Value)
	}
	return b.String()
}

// With four processes every window but the first is computed from what is stale, and again: the outcome is the same, byte for byte.
func TestConcurrencyIsOnlySpeed(t *testing.T) {
	outcomes := map[int]string{}
	for _, n := range []int{1, 4} {
		db := mem(t)
		last := fill(t, db, 120)
		run(t, db, pool(t, db, options(t, "chain")), task.Task{Concurrency: n, Window: task.Limit{Commits: 1}}, last)
		checkChain(t, db, last)
		outcomes[n] = dump(t, db)
	}
	if outcomes[1] != outcomes[4] {
		t.Errorf("with one:\n%s\nwith four:\n%s", outcomes[1], outcomes[4])
	}
	if n := strings.Count(outcomes[1], "\n"); n != 121 {
		t.Errorf("%d keys, want one for each window and the chain", n)
	}
}

// A worker that answers too late was killed before: its answer is nobody's, least of all the next window's.
func TestLateAnswer(t *testing.T) {
	db := mem(t)
	last := fill(t, db, 20)
	o := options(t, "late once", "BATCHLOG_TEST_ONCE="+filepath.Join(t.TempDir(), "once"))
	o.Timeout = 400 * time.Millisecond
	start := time.Now()
	run(t, db, pool(t, db, o), task.Task{Window: task.Limit{Commits: 3}}, last)
	if d := time.Since(start); d < o.Timeout {
		t.Errorf("after %s there was no late answer", d)
	}
	checkChain(t, db, last)
}
