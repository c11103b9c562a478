package subprocess

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/bytespace/batchlog/internal/opjson"
)

// lastWords is how long the pipes of a process that has ended are read on: what it started may hold them open.
const lastWords = time.Second

var (
	errLongLine = errors.New("line too long")
	errLate     = errors.New("no answer in time")
)

// A process is one worker. It owns three goroutines: waitLoop, which starts it and waits for its end, readLoop for its stdout, and one for its
// stderr. All end with the process and its pipes, which [process.end] sees to.
type process struct {
	o      Options
	parser *opjson.Parser
	cmd    *exec.Cmd
	pid    int

	in, out, err *os.File      // our ends of its pipes
	lines        chan line     // from readLoop; closed at the end of stdout
	unheard      chan struct{} // closed when nobody takes lines any more
	exited       chan struct{} // closed when the process has ended and cmd.ProcessState says how
	silent       chan struct{} // closed at the end of stderr
	stderr       tail
}

// A line is what readLoop has read. With errLongLine it is the line's beginning, with another error what came before the pipe broke.
type line struct {
	text []byte
	err  error
}

// start starts a worker and shakes hands.
func (p *Pool) start(ctx context.Context) (*process, error) {
	worker := &process{
		o: p.o, parser: opjson.NewParser(p.db), cmd: exec.Command(p.o.Command[0], p.o.Command[1:]...),
		lines: make(chan line), unheard: make(chan struct{}), exited: make(chan struct{}), silent: make(chan struct{}),
	}
	if err := worker.spawn(); err != nil {
		return nil, &Error{Kind: KindStart, Err: fmt.Errorf("start %s: %w", p.o.Command[0], err)}
	}
	if err := worker.shake(ctx); err != nil {
		if !errors.As(err, new(*Error)) {
			p.retire(worker)
		}
		return nil, err
	}
	return worker, nil
}

// spawn starts the process and the goroutines.
func (p *process) spawn() error {
	var theirs [3]*os.File
	var ours [3]*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			if f != nil {
				_ = f.Close() // a pipe: closing it loses nothing
			}
		}
	}
	for i := range theirs {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours[:])
			closeAll(theirs[:])
			return err
		}
		theirs[i], ours[i] = w, r
		if i == 0 {
			theirs[i], ours[i] = r, w
		}
	}
	p.cmd.Dir, p.cmd.Env = p.o.Dir, p.o.Env
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	p.cmd.SysProcAttr = attributes()
	p.in, p.out, p.err = ours[0], ours[1], ours[2]
	started := make(chan error)
	go p.waitLoop(started)
	err := <-started
	closeAll(theirs[:])
	if err != nil {
		closeAll(ours[:])
		return err
	}
	p.pid = p.cmd.Process.Pid
	go p.readLoop()
	go func() {
		defer close(p.silent)
		p.stderr.read(p.err, func(text string) {
			p.o.Logger.Info("worker says", "task", p.o.Task, "pid", p.pid, "stderr", text)
		})
	}()
	return nil
}

// waitLoop starts the process, says so, and waits for its end. Linux kills a process whose parent dies when the thread that started
// it does, so this goroutine keeps its thread for as long as the process is there.
func (p *process) waitLoop(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	if err := p.cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		p.o.Logger.Error("worker can't be waited for", "task", p.o.Task, "pid", p.cmd.Process.Pid, "err", err)
	}
	p.kill() // what it has left behind in its group
	close(p.exited)
}

// readLoop hands on the lines of stdout until it ends or breaks, or nobody listens any more.
func (p *process) readLoop() {
	defer close(p.lines)
	in := bufio.NewReaderSize(p.out, 64<<10)
	for {
		text, err := readLine(in, p.o.MaxLine)
		if err == nil || errors.Is(err, errLongLine) || len(text) > 0 {
			select {
			case p.lines <- line{text, err}:
			case <-p.unheard:
				err = io.EOF
			}
		}
		if err != nil {
			break
		}
	}
	// A worker that writes on while it is told to end is not to wait for us.
	_, _ = io.Copy(io.Discard, p.out) // ends when the pipe does, whichever way
}

// readLine reads a line without its end. A longer one than limit is errLongLine, with its beginning; the rest of it is not read.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var text []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(text)+len(part) > limit+1 || err != nil && len(text)+len(part) > limit {
			return append(text, part[:min(len(part), shownLine)]...), errLongLine
		}
		text = append(text, part...)
		if err == nil {
			return bytes.TrimSuffix(text[:len(text)-1], []byte("\r")), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, err
		}
	}
}

// end tells the worker to end by the end of its stdin, kills it with all that it has started if it has not after grace, and waits until it is gone.
// It reports whether the worker ended by itself.
func (p *process) end(grace time.Duration) (itself bool) {
	close(p.unheard)
	_ = p.in.Close() // a pipe; it may be closed already
	itself = true
	select {
	case <-p.exited:
	case <-time.After(grace):
		itself = false
		p.kill()
		<-p.exited
	}
	select {
	case <-p.silent:
	case <-time.After(lastWords):
	}
	_ = p.out.Close() // nobody listens any more
	_ = p.err.Close()
	return itself
}

// kill kills the process and its group.
func (p *process) kill() {
	if err := killGroup(p.cmd.Process); err != nil {
		p.o.Logger.Error("worker can't be killed", "task", p.o.Task, "pid", p.cmd.Process.Pid, "err", err)
	}
}

// fail ends the worker at once and returns the error that says why.
func (p *process) fail(kind Kind, err error, text []byte) *Error {
	e := &Error{Kind: kind, PID: p.pid, Err: err, Line: beginning(text)}
	grace := time.Duration(0)
	if kind == KindExit {
		grace = lastWords // it is about to say how
	}
	if p.end(grace) && kind == KindExit {
		e.Status = p.cmd.ProcessState.String()
	}
	e.Stderr = p.stderr.String()
	return e
}
