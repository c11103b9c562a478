// Package subprocess makes a task's handler out of a command, so that it can be written in any language. The command is a worker:
// a process that reads lines of JSON from its stdin, handles the windows in them, and writes lines of JSON to its stdout.
//
//	workers, err := subprocess.New(db, subprocess.Options{Task: "by city", Command: []string{"python3", "by_city.py"}})
//	…
//	defer workers.Close()
//	err = task.Run(ctx, db, task.Task{Name: "by city", Source: …, Handle: workers.Handle})
//
// # The protocol
//
// Both sides write one JSON object a line, UTF-8, and take turns: who has written a line waits for the other's. We begin:
//
//	> {"batchlog":1,"task":"by city","maxLine":67108864}
//	< {"batchlog":1}
//
// and then for each window, > being our lines and < the worker's:
//
//	> {"window":{"first":7,"last":9,"attempt":1},"commits":[{"id":7,"time":"…","labels":{},"ops":[OP,…]},…]}
//	< {"get":{"space":"cities","key":"Brno"}}
//	> {"value":"2"}                                       or {"notFound":true}
//	< {"scan":{"space":"cities","prefix":"B","limit":2}}
//	> {"entries":[{"key":"Brno","value":"2"}],"more":false}
//	< {"ops":[OP,…]}                                      or {"error":"text"}
//
// An OP, a SPACE, a KEY and a VALUE are those of the command's write and tail; a value that is a blob is in an OP as {"sha256":"hex","size":N}. Reads are those of the window's transaction, so they are validated
// when it is committed. The worker's lines are read strictly: a field that is not known is an error. Ours may get more fields in later
// versions, which a worker ignores.
//
// At the end of stdin the worker ends. What it writes to stderr goes to the log.
package subprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// Version is the version of the protocol.
const Version = 1

// Options say what the worker is and how long it is waited for. Zero values are the defaults.
type Options struct {
	// Task is the task's name, which the worker is told.
	Task string
	// Command is the program and its arguments. It, or Shell, has to be given.
	Command []string
	// Shell is instead a line for /bin/sh. If it starts more than one process, each has to end when its stdin does.
	Shell string
	// Dir is the directory that the worker runs in; "": that of this process.
	Dir string
	// Env is the worker's environment, as NAME=VALUE; nil: that of this process.
	Env []string
	// Timeout is how long a window may take, with all that the worker reads for it; 0: 1 minute. After that the worker is killed.
	Timeout time.Duration
	// StartTimeout is how long the worker may take to answer the first line; 0: 30 s.
	StartTimeout time.Duration
	// Grace is how long a worker that is no longer needed may take to end when its stdin does; 0: 5 s. After that it is killed.
	Grace time.Duration
	// MaxLine bounds a line, in bytes, in both directions; 0: 64 MiB. A window whose line would be longer fails; see [task.Limit] for making
	// windows small. A commit can be as large as [batchlog.MaxBatchBytes] and a window holds one at least, so there are commits that need more.
	MaxLine int
	// Logger gets the worker's stderr, line by line, and is told when a worker is replaced; nil: nobody.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case (len(o.Command) == 0) == (o.Shell == ""):
		return o, errors.New("a worker is either a Command or a line for the Shell")
	case o.Timeout < 0 || o.StartTimeout < 0 || o.Grace < 0 || o.MaxLine < 0:
		return o, errors.New("worker with a negative bound")
	}
	if o.Shell != "" {
		o.Command = []string{"/bin/sh", "-c", o.Shell}
	}
	for set, d := range map[*time.Duration]time.Duration{&o.Timeout: time.Minute, &o.StartTimeout: 30 * time.Second, &o.Grace: 5 * time.Second} {
		if *set == 0 {
			*set = d
		}
	}
	if o.MaxLine == 0 {
		o.MaxLine = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// A Pool runs a command in as many processes as windows are handled at once. It starts one when a window needs it, keeps it for the windows
// to come, and after a failure puts another one in its place. It is safe for concurrent use.
type Pool struct {
	db   *batchlog.DB
	o    Options
	ctx  context.Context // ends with Close
	stop context.CancelCauseFunc

	mu struct {
		sync.Mutex
		idle   []*process
		closed bool
		killed []error // of processes that did not end by themselves
	}
	wg sync.WaitGroup // counts Handles, and processes that are being ended
}

// New returns a pool for windows of db. It starts nothing yet.
func New(db *batchlog.DB, o Options) (*Pool, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Pool{db: db, o: o}
	p.ctx, p.stop = context.WithCancelCause(context.Background())
	return p, nil
}

// Handle has a worker handle w. It is a [task.Task.Handle].
//
// An error of the worker, or with it, is an *[Error]. After any but the worker's own {"error":…} its process is replaced. Other errors
// are the context's, [batchlog.ErrClosed] after Close, and those of reading from w.
func (p *Pool) Handle(ctx context.Context, w *task.Window) error {
	if !p.enter() {
		return batchlog.ErrClosed
	}
	defer p.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(batchlog.ErrClosed) })()
	worker, err := p.take(ctx)
	if err != nil {
		return err
	}
	err = worker.handle(ctx, w)
	p.give(worker, err)
	return err
}

// Close ends all workers: each is told by the end of its stdin and, after Options.Grace, killed. Handles that are under way
// end with [batchlog.ErrClosed]. It returns when no process is left, with an error if some had to be killed. Again it does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	idle := p.mu.idle
	p.mu.idle = nil
	p.mu.Unlock()
	p.stop(batchlog.ErrClosed)
	for _, worker := range idle {
		p.retire(worker)
	}
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errors.Join(p.mu.killed...)
	p.mu.killed = nil
	return err
}

// enter counts a Handle, unless the pool is closed.
func (p *Pool) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	p.wg.Add(1)
	return true
}

// take returns a worker that waits for a window: an idle one, or a new one.
func (p *Pool) take(ctx context.Context) (*process, error) {
	for {
		worker := p.popIdle()
		if worker == nil {
			return p.start(ctx)
		}
		select {
		case l, ok := <-worker.lines:
			if !ok || l.err != nil && !errors.Is(l.err, errLongLine) {
				// It had no window, so nothing failed: another one takes its place.
				err := worker.fail(KindExit, errors.New("it ended while it had no window"), l.text)
				p.o.Logger.Warn("worker is replaced", "task", p.o.Task, "pid", worker.pid, "err", err)
				continue
			}
			// Which window it belongs to, nobody can say; that one may be committed already, with the line before.
			return nil, worker.fail(KindStray, errors.New("a line that nobody asked for, after a window was answered"), l.text)
		case <-worker.exited:
			// Its stdout may be kept open by what it has started.
			err := worker.fail(KindExit, errors.New("it ended while it had no window"), nil)
			p.o.Logger.Warn("worker is replaced", "task", p.o.Task, "pid", worker.pid, "err", err)
		default:
			return worker, nil
		}
	}
}

func (p *Pool) popIdle() *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.mu.idle)
	if n == 0 {
		return nil
	}
	worker := p.mu.idle[n-1]
	p.mu.idle = p.mu.idle[:n-1]
	return worker
}

// give takes back a worker whose window ended with err.
func (p *Pool) give(worker *process, err error) {
	var failed *Error
	switch {
	case err == nil, errors.As(err, &failed) && failed.Kind == KindRefused:
		p.mu.Lock()
		closed := p.mu.closed
		if !closed {
			p.mu.idle = append(p.mu.idle, worker)
		}
		p.mu.Unlock()
		if closed {
			p.retire(worker)
		}
	case failed != nil: // it was killed
		p.o.Logger.Warn("worker is replaced", "task", p.o.Task, "pid", worker.pid, "err", err)
	default:
		p.retire(worker) // it is in the middle of a window that nobody waits for
	}
}

// retire ends a worker in the background.
func (p *Pool) retire(worker *process) {
	p.wg.Go(func() {
		if worker.end(p.o.Grace) {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mu.killed = append(p.mu.killed, fmt.Errorf("worker process %d did not end within %s after its stdin did and was killed", worker.pid, p.o.Grace))
	})
}
