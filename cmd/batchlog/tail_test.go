package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// ids is the ids of the lines that tail printed.
func ids(t *testing.T, out string) string {
	t.Helper()
	var found []batchlog.ID
	for l := range strings.Lines(out) {
		var c struct{ ID batchlog.ID }
		if err := json.Unmarshal([]byte(l), &c); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		found = append(found, c.ID)
	}
	return fmt.Sprint(found)
}

func TestTail(t *testing.T) {
	c := newCLI(t)
	c.must("put", "a", "k", "1", "--label", "actor=me")
	c.must("put", "b", "k", "\n")
	c.must("put", "a/within", "k", "3")
	c.must("del", `["a",7]`, `["k",1]`)
	for _, q := range []struct{ args, want string }{
		{"", "[1 2 3 4]"},
		{"a", "[1 3 4]"},
		{"b", "[2]"},
		{"a/within b", "[2 3]"},
		{"/", "[1 2 3 4]"},
		{"c", "[]"},
		{"--from first", "[1 2 3 4]"},
		{"--from oldest", "[1 2 3 4]"},
		{"--from 3", "[3 4]"},
		{"--from 2 --until 3", "[2 3]"},
		{"--from 3 --until 2", "[]"},
		{"--until 0", "[]"},
		{"--from now", "[]"},
		{"--from 1h", "[1 2 3 4]"},
		{"--from 2999-01-01", "[]"},
		{"--from 2000-01-01T00:00:00Z", "[1 2 3 4]"},
		{"--from 9 --until 4", "[]"},
	} {
		args := append([]string{"tail"}, strings.Fields(q.args)...)
		if !strings.Contains(q.args, "--until") {
			args = append(args, "--until", "head")
		}
		equal(t, "tail "+q.args, ids(t, c.must(args...)), q.want)
	}
	var first map[string]any
	line, _, _ := strings.Cut(c.must("tail", "a", "--until", "head"), "\n")
	if err := json.Unmarshal([]byte(line), &first); err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, first["time"].(string))
	if err != nil || time.Since(at) > time.Hour || at.Location() != time.UTC {
		t.Errorf("time %v, %v", first["time"], err)
	}
	if !strings.HasSuffix(line, `,"labels":{"actor":"me"},"ops":[{"put":{"space":"a","key":"k","value":"1"}}]}`) {
		t.Error(line)
	}
}

// A follower prints what is there and each commit as it comes, also when most of them are not for it, and ends well on Ctrl-C.
func TestTailFollows(t *testing.T) {
	c := newCLI(t)
	for range 5 {
		c.must("put", "mine", "k", "1")
		c.must("put", "other", "k", "1")
	}
	a := &app{dir: c.db, err: io.Discard}
	db, err := a.openDB(c.db, false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	out, printed := io.Pipe()
	a.out = bufio.NewWriterSize(printed, 1<<20) // so large that nothing comes unless it is flushed
	ended := make(chan error)
	go func() {
		err := a.printCommits(ctx, db, batchlog.TailOptions{Spaces: []*batchlog.Space{db.Space("mine")}})
		ended <- err
	}()
	lines := bufio.NewReader(out)
	next := func(want batchlog.ID) {
		t.Helper()
		l, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "line", ids(t, l), fmt.Sprintf("[%d]", want))
	}
	for id := batchlog.ID(1); id < 10; id += 2 {
		next(id)
	}
	for range 3 {
		id, err := db.Space("mine").Put(ctx, batchlog.K("k"), nil)
		if err != nil {
			t.Fatal(err)
		}
		next(id)
		if _, err := db.Space("other").Put(ctx, batchlog.K("k"), nil); err != nil {
			t.Fatal(err)
		}
	}
	cancel(&interruptError{signal: syscall.SIGINT})
	if err := <-ended; err == nil {
		t.Error("it ended without the interruption")
	}
}

func TestTailInterruptedIsDone(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "k", "1")
	ctx, cancel := context.WithCancelCause(t.Context())
	var errOut bytes.Buffer
	out := &interrupting{interrupt: func() { cancel(&interruptError{signal: syscall.SIGINT}) }}
	code := run(ctx, []string{"--db", c.db, "tail"}, strings.NewReader(""), out, &errOut)
	c.check(result{code, out.String(), errOut.String()}, 0, nil)
	equal(t, "printed", ids(t, out.String()), "[1]")
}

// An interrupting writer interrupts who has written something.
type interrupting struct {
	bytes.Buffer
	interrupt func()
}

func (w *interrupting) Write(b []byte) (int, error) {
	defer w.interrupt()
	return w.Buffer.Write(b)
}
