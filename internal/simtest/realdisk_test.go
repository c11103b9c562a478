package simtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// What the tests with real processes and real disks share: the process that writes, and the check of what it leaves behind. The
// writer is this test binary, started again. What it writes follows from the numbers of the round, the worker and the write alone,
// so that the check knows the content without being told, and it says on its standard output what was acknowledged.

// writerEnv has, in the writing process, its orders as JSON.
const writerEnv = "BATCHLOG_SIMTEST_WRITER"

// orders are what a writing process is to do.
type orders struct {
	Dir     string
	Round   int // tells its writes from those of processes before
	Workers int
	Errors  int  // a worker ends after this many writes that failed
	Tasks   bool // it runs tasks, too
	Chains  bool // it writes chains, copies and blobs, too
}

// A work is one write: the n-th of a worker in a round.
type work struct{ round, worker, n int }

func (w work) String() string { return fmt.Sprintf("%d/%d/%d", w.round, w.worker, w.n) }

// token is what the write is known by; "" for most.
func (w work) token() string {
	if w.n%5 == 3 {
		return "token " + w.String()
	}
	return ""
}

// kind is "chain", "copy" (of what the chain before has put) or "blob" for some of the writes of workers that write such, "" else.
func (w work) kind() string {
	if w.worker < chainWorkers {
		return ""
	}
	return []string{"", "chain", "copy", "blob"}[w.n%4]
}

// chainWorkers is the number of the first worker that writes chains, copies and blobs.
const chainWorkers = 100

// A put is an op of a work: all are puts, of keys that nobody else writes.
type put struct {
	space []any
	key   batchlog.Key
	value string
}

var workSpaces = [][]any{{"users"}, {"orders"}}

// puts are the ops of the write: one space, or, with every third, two.
func (w work) puts() []put {
	rng := rand.New(rand.NewPCG(uint64(w.round)<<32|uint64(w.worker), uint64(w.n)))
	value := func() string {
		return w.String() + strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(1000))
	}
	users, orders := workSpaces[0], workSpaces[1]
	switch w.kind() {
	case "chain":
		var list []put
		for i := range 20 + rng.IntN(300) {
			list = append(list, put{workSpaces[i%2], batchlog.K(w.round, w.worker, w.n, i), value()})
		}
		return list
	case "copy":
		var list []put
		for _, p := range (work{w.round, w.worker, w.n - 1}).puts() {
			if p.space[0] == users[0] {
				list = append(list, put{w.copies(), p.key, p.value})
			}
		}
		return list
	case "blob":
		return []put{{users, batchlog.K(w.round, w.worker, w.n), value() + strings.Repeat("b", rng.IntN(100_000))}}
	}
	list := []put{{users, batchlog.K(w.round, w.worker, w.n), value()}}
	if w.n%3 == 1 {
		list = append(list, put{orders, batchlog.K("of", w.n, w.worker, w.round), value()}, put{users, batchlog.K("last", w.round, w.worker, w.n), value()})
	}
	return list
}

// copies is the path that a copy leads to.
func (w work) copies() []any { return []any{"copies", w.round, w.worker, w.n} }

// write does the write.
func (w work) write(ctx context.Context, db *batchlog.DB) (_ batchlog.ID, err error) {
	switch w.kind() {
	case "":
		return db.Write(ctx, w.batch(db))
	case "blob":
		p := w.puts()[0]
		ref, err := db.StoreBlob(ctx, strings.NewReader(p.value))
		if err != nil {
			return 0, err
		}
		b := &batchlog.Batch{Token: w.token(), Labels: map[string]string{"work": w.String()}}
		b.PutRef(db.Space(p.space...), p.key, ref)
		return db.Write(ctx, b)
	}
	c, err := db.Chain(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token, c.Labels = w.token(), map[string]string{"work": w.String()}
	if w.kind() == "copy" {
		low := batchlog.K(w.round, w.worker, w.n-1)
		low = low[:len(low)-1] // of all longer ones that begin so
		err = c.CopyRange(db.Space(w.copies()...), db.Space("users"), batchlog.Range{Low: low, High: append(low[:len(low):len(low)], 0xff)})
		if err != nil {
			return 0, err
		}
	} else {
		for _, p := range w.puts() {
			c.Put(db.Space(p.space...), p.key, []byte(p.value))
		}
	}
	return c.Commit(ctx)
}

// batch is the write.
func (w work) batch(db *batchlog.DB) *batchlog.Batch {
	b := &batchlog.Batch{Token: w.token(), Labels: map[string]string{"work": w.String()}}
	for _, p := range w.puts() {
		b.Put(db.Space(p.space...), p.key, []byte(p.value))
	}
	return b
}

// realOptions make segments and memtables so small that runs of a second roll, seal and flush.
func realOptions(t *testing.T) *local.Options {
	return &local.Options{
		Logger: testLogger(t), CacheBytes: 1 << 20, MemTableBytes: 256 << 10, ChainBytes: 16 << 10,
		Log: batchlog.LogConfig{SegmentBytes: 64 << 10, Undo: true},
	}
}

// Not a test but the writing process: this binary is started again with orders for it.
func TestWriterProcess(t *testing.T) {
	text := os.Getenv(writerEnv)
	if text == "" {
		return
	}
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3) // who started it is gone
	}()
	db, err := local.Open(o.Dir, realOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var failed atomic.Bool // some write returned an error
	if o.Tasks {
		hireForKill(&crew{db: db}, o.Round)
	}
	for worker := range o.Workers {
		wg.Go(func() { o.work(db, worker, &failed) })
	}
	for worker := range o.Workers {
		if o.Chains {
			wg.Go(func() { o.work(db, chainWorkers+worker, &failed) })
		}
	}
	wg.Wait()
	fmt.Printf("end close: %v\n", db.Close())
}

// work writes as one worker. A line is printed with one call, which a pipe takes whole, and only after Write has returned.
func (o *orders) work(db *local.DB, worker int, failed *atomic.Bool) {
	w := work{o.Round, worker, 0}
	for errs := 0; errs < o.Errors; {
		afterwards := failed.Load()
		id, err := w.write(context.Background(), db.DB)
		if err != nil {
			if errNames(err) != "other" { // such a one has changed nothing, and ends nothing
				failed.Store(true)
			}
			errs++
			fmt.Printf("err %d %d %s\n", w.worker, w.n, strings.ReplaceAll(errNames(err)+": "+err.Error(), "\n", " "))
			continue
		}
		if afterwards {
			fmt.Printf("late %d %d %d\n", w.worker, w.n, id)
		}
		fmt.Printf("ack %d %d %d\n", w.worker, w.n, id)
		w.n++
	}
}

// errNames says which errors err is.
func errNames(err error) string {
	switch {
	case errors.Is(err, batchlog.ErrUncertain):
		return "uncertain"
	case errors.Is(err, batchlog.ErrReadOnly):
		return "read-only"
	case errors.Is(err, batchlog.ErrNoSpace):
		return "no space"
	default:
		return "other"
	}
}

// A process is a writing process that was started.
type process struct {
	cmd    *exec.Cmd
	round  int
	stdin  io.Closer
	stderr bytes.Buffer
	read   chan struct{} // closed when its output has been read to the end

	first chan struct{} // closed at the first line that says something was acknowledged
	// These may be read when read is closed.
	acked map[work]batchlog.ID
	errs  []string
	late  []string // acknowledged though it began after an error was returned that ends writing
	end   string
	other []string
}

// startWriter starts a writing process, under the command wrapper if there is one.
func startWriter(t *testing.T, o orders, wrapper ...string) *process {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrapper, self, "-test.run=^TestWriterProcess$", "-test.timeout=60s")
	p := &process{cmd: exec.Command(args[0], args[1:]...), round: o.Round, read: make(chan struct{}), first: make(chan struct{}), acked: map[work]batchlog.ID{}}
	p.cmd.Env = append(os.Environ(), writerEnv+"="+string(text))
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.readLoop(out)
	t.Cleanup(p.kill)
	return p
}

func (p *process) readLoop(out io.Reader) {
	defer close(p.read)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		w := work{round: p.round}
		var id batchlog.ID
		switch kind, rest, _ := strings.Cut(line, " "); kind {
		case "ack":
			if _, err := fmt.Sscan(rest, &w.worker, &w.n, &id); err != nil {
				p.other = append(p.other, line)
				continue
			}
			if len(p.acked) == 0 {
				close(p.first)
			}
			p.acked[w] = id
		case "err":
			p.errs = append(p.errs, rest)
		case "late":
			p.late = append(p.late, rest)
		case "end":
			p.end = rest
		default:
			p.other = append(p.other, line)
		}
	}
}

// awaitFirst waits for the first write to be acknowledged.
func (p *process) awaitFirst(t *testing.T) {
	t.Helper()
	select {
	case <-p.first:
	case <-p.read:
		t.Fatalf("the writer ended before its first write: %s\n%s", strings.Join(p.other, "\n"), p.stderr.String())
	case <-time.After(30 * time.Second):
		t.Fatal("no write was acknowledged in 30 s")
	}
}

// kill ends the process, if it has not, as kill -9 does, and waits until all that it said is read.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.stdin.Close()
	<-p.read
	_ = p.cmd.Wait()
}

// wait waits until the process ends by itself.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.read:
	case <-time.After(50 * time.Second):
		t.Fatal("the writer has not ended in 50 s")
	}
	return p.cmd.Wait()
}

// A ledger is what is known of a database over all rounds.
type ledger struct {
	acked map[work]batchlog.ID
	log   []string // the work of each commit from 1 on, as it was found
}

// add takes over what p was told. Of a worker that is known to have had n writes acknowledged, the one behind may be there too.
func (h *ledger) add(t *testing.T, p *process) {
	t.Helper()
	if h.acked == nil {
		h.acked = map[work]batchlog.ID{}
	}
	for w, id := range p.acked {
		h.acked[w] = id
	}
	if len(p.late) > 0 {
		t.Errorf("acknowledged though they began after a write had failed: %q", p.late)
	}
	if text := p.stderr.String(); strings.Contains(text, "panic:") || strings.Contains(text, "fatal error:") {
		t.Errorf("the writer did not end well: %s", text)
	}
}

// check opens the database and says what is wrong with it; again asks for the same once more, after it was closed in order.
func (h *ledger) check(t *testing.T, dir string, again bool) {
	t.Helper()
	o := realOptions(t)
	o.MustExist = true
	db, err := local.Open(dir, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	h.checkOpen(t, db)
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if again {
		h.check(t, dir, false)
	}
}

// checkOpen says what is wrong with the database: it must have every acknowledged write under its id, with exactly its content,
// of each worker at most one more, ids without holes, what it had before, and no problem that Verify finds.
func (h *ledger) checkOpen(t *testing.T, db *local.DB) {
	t.Helper()
	status, err := db.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := h.read(t.Context(), db, status.Head)
	if err != nil {
		t.Fatal(err)
	}
	most := map[work]int{} // of each worker, how many writes were acknowledged; n is 0 in the key
	for w, id := range h.acked {
		if got, ok := found[w]; !ok || got != id {
			t.Errorf("write %s was acknowledged as commit %d, is found as %d: %t; head %d", w, id, got, ok, status.Head)
		}
		worker := work{w.round, w.worker, 0}
		most[worker] = max(most[worker], w.n+1)
	}
	for w, id := range found {
		worker := work{w.round, w.worker, 0}
		if w.n > most[worker] {
			t.Errorf("commit %d is write %s, but only %d were acknowledged to that worker", id, w, most[worker])
		}
		if w.n > 0 && found[work{w.round, w.worker, w.n - 1}] >= id {
			t.Errorf("commit %d is write %s, which comes before the one before it", id, w)
		}
	}
	h.checkTokens(t, db, found)
	report, err := db.Verify(t.Context(), local.VerifyOptions{})
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	if len(report.Problems) > 0 || !report.Complete || report.Commits != int64(status.Head) {
		t.Errorf("verify: %d commits of %d, problems %v", report.Commits, status.Head, report.Problems[:min(5, len(report.Problems))])
	}
}

// read is the writes in the log, each compared with what it should be.
func (h *ledger) read(ctx context.Context, db *local.DB, head batchlog.ID) (map[work]batchlog.ID, error) {
	found := map[work]batchlog.ID{}
	next := batchlog.ID(1)
	if head == 0 {
		return found, nil
	}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{Until: head}) {
		if err != nil {
			return nil, fmt.Errorf("tail behind commit %d: %w", next-1, err)
		}
		if c.ID != next {
			return nil, fmt.Errorf("commit %d where %d belongs", c.ID, next)
		}
		w, err := sameWork(db.DB, c)
		if err != nil {
			return nil, fmt.Errorf("commit %d: %w", c.ID, err)
		}
		if other, twice := found[w]; twice {
			return nil, fmt.Errorf("write %s is commit %d and commit %d", w, other, c.ID)
		}
		found[w] = c.ID
		switch i := int(c.ID) - 1; {
		case i == len(h.log):
			h.log = append(h.log, w.String())
		case h.log[i] != w.String():
			return nil, fmt.Errorf("commit %d is write %s, and was %s before", c.ID, w, h.log[i])
		}
		next++
	}
	if next != head+1 || len(h.log) > int(head) {
		return nil, fmt.Errorf("the log ends behind %d, its head is %d, and there were %d commits before", next-1, head, len(h.log))
	}
	return found, nil
}

// sameWork is the write that c is, if it is that whole and nothing else.
func sameWork(db *batchlog.DB, c *batchlog.Commit) (work, error) {
	var w work
	if _, err := fmt.Sscanf(c.Labels["work"], "%d/%d/%d", &w.round, &w.worker, &w.n); err != nil {
		return w, fmt.Errorf("labels %q: %w", c.Labels, err)
	}
	want := w.puts()
	if w.kind() == "chain" || w.kind() == "copy" { // sorted by key, if it is not small
		if c.Len() != len(want) {
			return w, fmt.Errorf("write %s has %d of its %d ops", w, c.Len(), len(want))
		}
		return w, sameChain(db, c, want)
	}
	i := 0
	for op, err := range c.Ops() {
		if err != nil {
			return w, err
		}
		if i == len(want) {
			return w, fmt.Errorf("write %s has more than its %d ops", w, len(want))
		}
		value, err := op.Load(context.Background())
		if err != nil {
			return w, err
		}
		if p := want[i]; op.Kind != batchlog.OpPut || !op.Space.Equal(db.Space(p.space...)) || !bytes.Equal(op.Key, p.key) || string(value) != p.value {
			return w, fmt.Errorf("write %s: op %d is %s %s %s %.40q, want %s %s %.40q", w, i, op.Kind, op.Space, op.Key, value, p.space, p.key, p.value)
		}
		i++
	}
	if i != len(want) {
		return w, fmt.Errorf("write %s has %d of its %d ops", w, i, len(want))
	}
	return w, nil
}

// sameChain says how c is not these puts, in whatever order.
func sameChain(db *batchlog.DB, c *batchlog.Commit, want []put) error {
	values := map[string]string{}
	for _, p := range want {
		values[string(db.Space(p.space...).Stored())+string(p.key)] = p.value
	}
	for op, err := range c.Ops() {
		if err != nil {
			return err
		}
		at := string(op.Space.Stored()) + string(op.Key)
		if v, ok := values[at]; !ok || v != string(op.Value) || op.Kind != batchlog.OpPut {
			return fmt.Errorf("op %s %s %s %.40q, want %.40q, %t", op.Kind, op.Space, op.Key, op.Value, v, ok)
		}
		delete(values, at)
	}
	if len(values) > 0 {
		return fmt.Errorf("%d of %d ops are missing", len(values), len(want))
	}
	return nil
}

// checkTokens says whether some of the writes with tokens are known by them: written again they are the same commits.
func (h *ledger) checkTokens(t *testing.T, db *local.DB, found map[work]batchlog.ID) {
	t.Helper()
	tried := 0
	for w, want := range found {
		if w.token() == "" {
			continue
		}
		if id, err := db.Write(t.Context(), w.batch(db.DB)); err != nil || id != want {
			t.Errorf("write %s again with its token: commit %d, %v, want %d", w, id, err, want)
		}
		if tried++; tried == 50 {
			return
		}
	}
}
