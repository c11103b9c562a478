package subprocess_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// asWorker in the environment makes the test binary be a worker that behaves as it says, and asParent a process that has one.
const (
	asWorker = "BATCHLOG_TEST_WORKER"
	asParent = "BATCHLOG_TEST_PARENT"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asWorker) != "":
		w := &worker{in: bufio.NewReader(os.Stdin), out: os.Stdout}
		if path := os.Getenv("BATCHLOG_TEST_TRANSCRIPT"); path != "" {
			f, err := os.Create(path)
			if err != nil {
				panic(err)
			}
			w.transcript = f
		}
		w.run(os.Getenv(asWorker))
	case os.Getenv(asParent) != "":
		beParent()
	default:
		os.Exit(m.Run())
	}
}

// A worker is the other side of the protocol, written anew on package encoding/json.
type worker struct {
	in         *bufio.Reader
	out        io.Writer
	transcript io.Writer // gets both sides' lines; nil: nobody
}

// A theirLine is a line of the pool as a worker sees it.
type theirLine struct {
	Batchlog int
	Window   struct{ First, Last, Attempt int }
	Commits  []struct {
		ID  uint64
		Ops []struct {
			Put struct{ Value string }
		}
	}
	Value    string
	NotFound bool
}

// hear is the next line. At the end of stdin the process ends.
func (w *worker) hear() (l theirLine) {
	text, err := w.in.ReadBytes('\n')
	if err != nil {
		if path := os.Getenv("BATCHLOG_TEST_FAREWELL"); path != "" {
			if err := os.WriteFile(path, []byte("bye"), 0o600); err != nil {
				panic(err)
			}
		}
		os.Exit(0)
	}
	if w.transcript != nil {
		fmt.Fprintf(w.transcript, "> %s", text)
	}
	if err := json.Unmarshal(text, &l); err != nil {
		panic(err)
	}
	return l
}

func (w *worker) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if w.transcript != nil {
		fmt.Fprintf(w.transcript, "< %s\n", text)
	}
	fmt.Fprintln(w.out, text)
}

// run is a worker's life. Kinds other than chain do the wrong thing once or always.
func (w *worker) run(kind string) {
	w.hear()
	switch kind {
	case "mute":
		time.Sleep(time.Hour)
	case "dead":
		fmt.Fprintln(os.Stderr, "I can't")
		os.Exit(7)
	case "other version":
		w.say(`{"batchlog":2}`)
	case "no version":
		w.say(`{"name":"me"}`)
	case "no worker":
		w.say(`Hello!`)
	case "stray at start":
		w.say(`{"batchlog":1}`)
		w.say(`{"ops":[]}`)
	default:
		w.say(`{"batchlog":1,"name":"test"}`)
	}
	for {
		l := w.hear()
		w.window(kind, l)
	}
}

// window handles a window, in the way of the kind.
func (w *worker) window(kind string, l theirLine) {
	answers := map[string]string{
		"garbage": `ops: none`, "not UTF-8": "{\"error\":\"\xff\"}", "unknown field": `{"ops":[],"opts":{}}`, "nothing": `{}`, "two things": `{"ops":[],"error":"x"}`, "array": `[]`,
		"bad op": `{"ops":[{"put":{"space":"out","key":"k"}}]}`, "bad get": `{"get":{"space":"out"}}`, "bad scan": `{"scan":{"space":"out","limit":0}}`,
		"other window": `{"ops":[],"first":99}`, "this window": `{"ops":[],"first":1}`, "long": `{"error":"` + strings.Repeat("x", 1<<16) + `"}`, "refuses": `{"error":"no, \"thanks\""}`,
		"big": `{"get":{"space":"out","key":"big"}}`,
	}
	switch {
	case answers[kind] != "":
		w.say("%s", answers[kind])
	case kind == "exit":
		fmt.Fprintln(os.Stderr, "first words\nlast words")
		os.Exit(3)
	case kind == "half a line":
		fmt.Fprint(w.out, `{"ops":`)
		os.Exit(0)
	case kind == "closed stdout":
		os.Stdout.Close()
		time.Sleep(time.Hour)
	case kind == "hang":
		fmt.Fprintf(os.Stderr, "pid %d\n", os.Getpid())
		time.Sleep(time.Hour)
	case kind == "late":
		time.Sleep(time.Second)
		w.chain(l)
	case kind == "late once":
		// The file says that it was: the process that comes after is not.
		if f, err := os.OpenFile(os.Getenv("BATCHLOG_TEST_ONCE"), os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			f.Close()
			time.Sleep(800 * time.Millisecond)
		}
		w.chain(l)
	case kind == "transcript" && l.Window.Attempt == 1:
		w.say(`{"error":"the cities are not there yet"}`)
	case kind == "transcript":
		w.say(`{"get":{"space":"cities","key":"Brno"}}`)
		w.hear()
		w.say(`{"get":{"space":"cities","key":"Riga"}}`)
		w.hear()
		w.say(`{"scan":{"space":"cities","prefix":"B","limit":1}}`)
		w.hear()
		w.say(`{"ops":[{"put":{"space":"cities","key":"Brno","value":"2"}},{"del":{"space":"cities","key":"Bern"}}]}`)
	case kind == "twice":
		w.say(`{"ops":[]}`)
		w.say(`{"ops":[]}`)
	case kind == "once":
		w.say(`{"ops":[]}`)
		os.Exit(0)
	default:
		if kind == "told" {
			fmt.Fprintln(os.Stderr, "window", l.Window.First, "of", os.Getpid())
		}
		w.chain(l)
	}
}

// chain appends each commit and value of a window to a rolling hash, so that a window which is left out, doubled, out of order, or computed from
// what was stale shows in the outcome.
func (w *worker) chain(l theirLine) {
	w.say(`{"get":{"space":"out","key":"chain"}}`)
	chain := w.hear().Value
	for _, c := range l.Commits {
		for _, op := range c.Ops {
			chain = link(chain, batchlog.ID(c.ID), op.Put.Value)
		}
	}
	w.say(`{"ops":[{"put":{"space":"out","key":"chain","value":"%s"}},{"put":{"space":"out","key":["window",%d],"value":"%s"}}]}`, chain, l.Window.Last, chain)
}

func link(chain string, id batchlog.ID, value string) string {
	h := uint64(14695981039346656037)
	for _, c := range []byte(chain + "|" + id.String() + "|" + value) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return strconv.FormatUint(h, 16)
}
