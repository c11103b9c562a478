package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

var errBroken = errors.New("broken")

func putLine(key, value string) string {
	return fmt.Sprintf(`{"ops":[{"put":{"space":"s","key":%q,"value":%q}}]}`, key, value)
}

func TestWrite(t *testing.T) {
	c := newCLI(t)
	in := putLine("a", "1") + "\n\n" + putLine("b", "2") + "\r\n" + `{"ops":[{"del":{"space":"s","key":"a"}}],"token":"T","labels":{"actor":"me"}}` + "\n" +
		`{"ops":[],"token":"T"}` + "\n   \n" + `{"ops":[]}`
	r := c.feed(in, "write")
	equal(t, "exit code", r.code, 0)
	equal(t, "lines", r.out, `{"line":1,"id":1}
{"line":3,"id":2}
{"line":4,"id":3}
{"line":5,"id":3}
{"line":7,"id":4}
`)
	equal(t, "stderr", r.err, "")
	equal(t, "scan", c.must("scan", "s"), "\"b\"\t2\n")
	if text := c.must("tail", "--from", "3", "--until", "3"); !strings.Contains(text, `"labels":{"actor":"me"},"ops":[{"del":{"space":"s","key":"a"}}]}`) {
		t.Error(text)
	}
	equal(t, "quiet", c.feed(putLine("q", "1"), "write", "-q").out, "")
}

func TestWriteFile(t *testing.T) {
	c := newCLI(t)
	name := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(name, []byte(putLine("a", "1")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	equal(t, "lines", c.must("write", name), "{\"line\":1,\"id\":1}\n")
	equal(t, "stdin by name", c.feed(putLine("a", "1"), "write", "-").out, "{\"line\":1,\"id\":2}\n")
	c.fails(exitError, []string{"no such file"}, "write", name+"x")
}

func TestWriteStopsAtABadLine(t *testing.T) {
	for _, parallel := range []string{"1", "16"} {
		c := newCLI(t)
		c.must("put", "/", "before", "1")
		in := putLine("a", "1") + "\n" + putLine("b", "2") + "\n" + `{"ops":[{"put":{"space":"s","key":"c","vlaue":"3"}}]}` + "\n" + putLine("d", "4") + "\n"
		r := c.feed(in, "write", "--parallel", parallel)
		c.check(r, exitError, []string{"lines 1 to 2 were committed (ids 2 to 3); line 3 was refused: op 1: put: unknown field \"vlaue\"; nothing after it was written"})
		lines := strings.Split(r.out, "\n")
		equal(t, "number of lines", len(lines), 4)
		equal(t, "line of the bad one", lines[2], `{"line":3,"error":"op 1: put: unknown field \"vlaue\""}`)
		equal(t, "scan", c.must("scan", "s"), "\"a\"\t1\n\"b\"\t2\n")
	}
}

// A line that only the database refuses stops the run as well. What was under way beside it is told, line by line.
func TestWriteStopsAtARefusedLine(t *testing.T) {
	large := putLine(strings.Repeat("k", batchlog.MaxKeyBytes), "2")
	for _, parallel := range []int{1, 16} {
		c := newCLI(t)
		in := strings.Repeat(putLine("a", "1")+"\n", 20) + large + "\n" + strings.Repeat(putLine("b", "1")+"\n", 2000)
		r := c.feed(in, "write", "--parallel", strconv.Itoa(parallel))
		c.check(r, exitError, []string{"lines 1 to 20 were committed", "line 21 was refused: key too large"})
		committed := strings.Count(r.out, `"id":`)
		equal(t, "head", headOf(t, c), float64(committed))
		if parallel == 1 && committed != 20 || committed > 1000 {
			t.Errorf("%d lines were committed with %d under way at once", committed, parallel)
		}
		equal(t, "nothing after it", strings.Contains(r.err, "; nothing after it was written"), committed == 20)
	}
}

func TestWriteFirstLineBad(t *testing.T) {
	c := newCLI(t)
	r := c.feed("x\n"+putLine("a", "1"), "write")
	c.check(r, exitError, []string{"no line was committed; line 1 was refused: not JSON at byte 1", "nothing after it was written"})
	equal(t, "lines", strings.Count(r.out, "\n"), 1)
}

func TestWriteKeepGoing(t *testing.T) {
	c := newCLI(t)
	large := strings.Repeat("k", batchlog.MaxKeyBytes) // no error of the line's form, but of the batch
	in := putLine("a", "1") + "\nx\n" + putLine(large, "2") + "\n" + putLine("d", "4") + "\n{}\n"
	for i, parallel := range []string{"1", "3"} {
		r := c.feed(in, "write", "--keep-going", "--parallel", parallel)
		c.check(r, exitError, []string{"2 batches from line 1 to 4 were committed", "refused: 3 lines, the first is line 2: not JSON at byte 1"})
		var numbers []int64
		for l := range strings.Lines(r.out) {
			var o struct {
				Line  int64
				ID    int64
				Error string
			}
			if err := json.Unmarshal([]byte(l), &o); err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, o.Line)
			if bad := o.Line != 1 && o.Line != 4; bad != (o.Error != "") || bad == (o.ID != 0) {
				t.Errorf("line %s", l)
			}
		}
		equal(t, "order", fmt.Sprint(numbers), "[1 2 3 4 5]")
		equal(t, "head", headOf(t, c), float64(2*(i+1)))
	}
}

func headOf(t *testing.T, c *cli) float64 {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal([]byte(c.must("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s["head"].(float64)
}

// With many batches under way lines come out in order, each with the id under which its batch is in the log.
func TestWriteParallel(t *testing.T) {
	c := newCLI(t)
	const n = 3000
	var in strings.Builder
	for i := range n {
		fmt.Fprintln(&in, putLine(strconv.Itoa(i), strings.Repeat("v", i%100)))
	}
	r := c.feed(in.String(), "write", "--parallel", "64")
	c.check(r, 0, nil)
	keys := map[int64]string{} // by id
	for l := range strings.Lines(c.must("tail", "--until", "head")) {
		var commit struct {
			ID  int64
			Ops []struct{ Put struct{ Key string } }
		}
		if err := json.Unmarshal([]byte(l), &commit); err != nil {
			t.Fatal(err)
		}
		keys[commit.ID] = commit.Ops[0].Put.Key
	}
	line := int64(0)
	for l := range strings.Lines(r.out) {
		line++
		var o struct{ Line, ID int64 }
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			t.Fatal(err)
		}
		if o.Line != line || keys[o.ID] != strconv.FormatInt(line-1, 10) {
			t.Fatalf("line %d of the output is %s, commit %d has key %q", line, l, o.ID, keys[o.ID])
		}
	}
	equal(t, "lines", line, n)
}

// A line that came is acknowledged though the next one never comes.
func TestWriteAcknowledgesAtOnce(t *testing.T) {
	for _, parallel := range []string{"1", "8"} {
		c := newCLI(t)
		in, feed := io.Pipe()
		out, printed := io.Pipe()
		done := make(chan int)
		go func() {
			done <- run(context.Background(), []string{"--db", c.db, "write", "--parallel", parallel}, in, printed, io.Discard)
		}()
		lines := bufio.NewReader(out)
		for i := 1; i <= 3; i++ {
			if _, err := fmt.Fprintln(feed, putLine("a", "1")); err != nil {
				t.Fatal(err)
			}
			got, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "line", got, fmt.Sprintf("{\"line\":%d,\"id\":%d}\n", i, i))
		}
		if err := feed.Close(); err != nil {
			t.Fatal(err)
		}
		equal(t, "exit code", <-done, 0)
	}
}

func TestWriteInterrupted(t *testing.T) {
	c := newCLI(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	in, feed := io.Pipe()
	go func() {
		fmt.Fprintln(feed, putLine("a", "1"))
		fmt.Fprintln(feed, putLine("b", "2"))
		// The third never comes; the reader hangs when the interruption does.
		for !exists(filepath.Join(c.db, "log")) {
			time.Sleep(time.Millisecond)
		}
		cancel(&interruptError{signal: syscall.SIGINT})
	}()
	r := c.runWith(ctx, in, "write")
	c.check(r, exitInterrupted+int(syscall.SIGINT), []string{"interrupted; ", "nothing after it was written"})
	equal(t, "head", headOf(t, c), float64(strings.Count(r.out, "\n")))
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// A line may be as large as a batch may, and one that is larger is refused by name.
func TestWriteLargeLines(t *testing.T) {
	if testing.Short() {
		t.Skip("some hundred MB")
	}
	c := newCLI(t)
	value := strings.Repeat("x", 13<<20)
	in := io.MultiReader(
		strings.NewReader(putLine("a", value)+"\n"),
		strings.NewReader(putLine("b", strings.Repeat(value, 5))+"\n"),
		io.LimitReader(zeros{}, maxLineBytes+10), strings.NewReader("\n"+putLine("c", "1")+"\n"))
	var out, errOut bytes.Buffer
	code := run(t.Context(), []string{"--db", c.db, "write", "--keep-going"}, in, &out, &errOut)
	equal(t, "exit code", code, exitError)
	lines := strings.Split(out.String(), "\n")
	equal(t, "line 1", lines[0], `{"line":1,"id":1}`)
	if !strings.Contains(lines[1], `{"line":2,"error":"value too large: 68157440`) || lines[2] != `{"line":3,"error":"line longer than 128 MiB"}` || lines[3] != `{"line":4,"id":2}` {
		t.Errorf("%q", lines)
	}
	if n := len(c.must("get", "s", "a")); n != len(value) {
		t.Errorf("the value has %d bytes", n)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func TestWriteOutputFails(t *testing.T) {
	c := newCLI(t)
	var errOut strings.Builder
	in := strings.Repeat(putLine("a", "1")+"\n", 100)
	code := run(t.Context(), []string{"--db", c.db, "write", "--parallel", "8"}, strings.NewReader(in), brokenWriter{}, &errOut)
	if code != exitError || !strings.Contains(errOut.String(), "write output: broken") {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
}

func TestWriteInputFails(t *testing.T) {
	c := newCLI(t)
	r := c.runWith(t.Context(), io.MultiReader(strings.NewReader(putLine("a", "1")+"\n"+putLine("b", "1")), brokenReader{}), "write")
	c.check(r, exitError, []string{"read line 2: broken; line 1 was committed (id 1); nothing after it was written"})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func TestBulkErrorText(t *testing.T) {
	bad := errors.New("bad")
	for _, c := range []struct {
		keepGoing bool
		end       error
		outcomes  []outcome
		want      string
	}{
		{false, nil, []outcome{{line: 1, id: 7}, {line: 2, id: 6}, {line: 3, err: bad}},
			"lines 1 to 2 were committed (ids 6 to 7); line 3 was refused: bad; nothing after it was written"},
		{false, nil, []outcome{{line: 2, id: 7}, {line: 3, err: bad}, {line: 4, id: 8}, {line: 5, err: bad}, {line: 6, id: 9}},
			"line 2 was committed (id 7); line 3 was refused: bad; of those after it, which were under way, 2 batches from line 4 to 6 were committed (ids 8 to 9); nothing else was written"},
		{true, nil, []outcome{{line: 1, err: bad}, {line: 2, id: 7}, {line: 3, err: bad}},
			"line 2 was committed (id 7); refused: 2 lines, the first is line 1: bad"},
		{true, nil, []outcome{{line: 1, err: bad}, {line: 2, id: 7}, {line: 3, err: batchlog.ErrNoSpace}},
			"line 2 was committed (id 7); refused: 1 line, the first is line 1: bad; line 3 was refused: no space left; nothing after it was written"},
		{false, &interruptError{}, []outcome{{line: 1, id: 1}},
			"interrupted; line 1 was committed (id 1); nothing after it was written"},
	} {
		e := &bulkError{keepGoing: c.keepGoing, end: c.end}
		for _, o := range c.outcomes {
			e.add(o)
		}
		equal(t, "text", e.Error(), c.want)
	}
}
