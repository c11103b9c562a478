package subprocess

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
	"github.com/bytespace/batchlog/task"
)

// scanBytes bounds the answer to a scan: with the entry that passes it, it ends, and says that there is more.
const scanBytes = 4 << 20

// shake has the worker say that it is one, and of which version.
func (p *process) shake(ctx context.Context) error {
	hello := fmt.Appendf(nil, `{"batchlog":%d,"task":`, Version)
	hello = opjson.AppendString(hello, []byte(p.o.Task))
	hello = fmt.Appendf(hello, `,"maxLine":%d}`, p.o.MaxLine)
	return p.within(ctx, p.o.StartTimeout, func(ctx context.Context) error {
		if err := p.send(ctx, hello); err != nil {
			return err
		}
		text, err := p.receive(ctx)
		if err != nil {
			return err
		}
		if err := parseHello(text); err != nil {
			return p.fail(KindHandshake, fmt.Errorf(`the first line has to be {"batchlog":%d}: %w`, Version, err), text)
		}
		return nil
	})
}

// handle has the worker handle w. If the error is an *Error other than KindRefused the process has ended.
func (p *process) handle(ctx context.Context, w *task.Window) error {
	question, err := p.draftWindow(w)
	if err != nil {
		return err
	}
	return p.within(ctx, p.o.Timeout, func(ctx context.Context) error {
		for {
			if question == nil {
				err = p.streamWindow(ctx, w)
			} else {
				err = p.send(ctx, question)
			}
			if err != nil {
				return err
			}
			text, err := p.receive(ctx)
			if err != nil {
				return err
			}
			m, err := parseMessage(text, p.parser)
			switch {
			case err != nil:
				return p.fail(KindProtocol, fmt.Errorf("line not understood: %w", err), text)
			case m.get != nil:
				question, err = p.answerGet(question[:0], w, m.get)
			case m.scan != nil:
				question, err = p.answerScan(question[:0], w, m.scan)
			case m.first != 0 && m.first != w.First:
				return p.fail(KindStray, fmt.Errorf("an answer for the window that begins with commit %d, when %d is asked for", m.first, w.First), text)
			case m.error != nil:
				return &Error{Kind: KindRefused, PID: p.pid, Err: errors.New(*m.error)}
			default:
				if err := p.parser.Ops(m.ops, w); err != nil {
					return p.fail(KindProtocol, fmt.Errorf("ops not understood: %w", err), text)
				}
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

// within runs an exchange that may take so long. A worker that takes longer is killed.
func (p *process) within(ctx context.Context, timeout time.Duration, exchange func(ctx context.Context) error) error {
	outer := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errLate)
	defer cancel()
	// The worker may not read what it is sent, and a write waits for that: closing the pipe ends it.
	unwatch := context.AfterFunc(ctx, func() { _ = p.in.Close() }) // a pipe: closing it loses nothing
	err := exchange(ctx)
	var failed *Error
	switch {
	case unwatch(), errors.As(err, &failed) && failed.Kind != KindRefused:
		return err
	case outer.Err() != nil:
		return context.Cause(outer)
	}
	return p.fail(KindTimeout, fmt.Errorf("%w: %s", errLate, timeout), nil)
}

// send writes a line.
func (p *process) send(ctx context.Context, text []byte) error {
	if len(text) > p.o.MaxLine {
		return p.fail(KindLongLine, p.tooLong(len(text)), nil)
	}
	if _, err := p.in.Write(append(text, '\n')); err != nil {
		return p.unsent(ctx, err)
	}
	return nil
}

// unsent is the error for a line that could not be written.
func (p *process) unsent(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.fail(KindExit, fmt.Errorf("it ended before it had read what it was sent: %w", err), nil)
}

// receive returns the next line.
func (p *process) receive(ctx context.Context) ([]byte, error) {
	select {
	case l, ok := <-p.lines:
		switch {
		case !ok:
			return nil, p.fail(KindExit, errors.New("it ended without an answer"), nil)
		case errors.Is(l.err, errLongLine):
			return nil, p.fail(KindLongLine, fmt.Errorf("its line is longer than %d bytes", p.o.MaxLine), l.text)
		case l.err != nil:
			return nil, p.fail(KindExit, errors.New("it ended in the middle of a line"), l.text)
		}
		return l.text, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *process) tooLong(n int) error {
	return fmt.Errorf("the line for it has %d bytes or more, and %d are allowed: make windows smaller, or allow longer lines", n, p.o.MaxLine)
}

// draftWindow is the line for w, or nil if it is so long that it has to be streamed.
func (p *process) draftWindow(w *task.Window) ([]byte, error) {
	d := draft{limit: p.o.MaxLine}
	err := writeWindow(&d, w)
	if errors.Is(err, errLongLine) {
		return nil, p.fail(KindLongLine, p.tooLong(d.size), nil)
	}
	return d.text, err
}

// streamWindow sends the line for w without holding all of it. If there is an error the worker has read a part of it.
func (p *process) streamWindow(ctx context.Context, w *task.Window) error {
	out := bufio.NewWriterSize(p.in, streamBytes)
	err := writeWindow(out, w)
	if err == nil {
		err = out.WriteByte('\n')
	}
	if failed := out.Flush(); failed != nil { // a writer that has failed says so again
		return p.unsent(ctx, failed)
	}
	return err
}

// writeWindow writes the line for w, without its end.
func writeWindow(out io.Writer, w *task.Window) error {
	if _, err := fmt.Fprintf(out, `{"window":{"first":%d,"last":%d,"attempt":%d},"commits":[`, w.First, w.Last, w.Attempt); err != nil {
		return err
	}
	separator := ""
	for c, err := range w.Commits() {
		if err == nil {
			_, err = io.WriteString(out, separator)
		}
		if err == nil {
			err = opjson.WriteCommit(out, c)
		}
		if err != nil {
			return err
		}
		separator = ","
	}
	_, err := io.WriteString(out, "]}")
	return err
}

const (
	// draftBytes is how much of a line is held: a longer one is made twice, first to see whether it is too long.
	draftBytes = 8 << 20
	// streamBytes is the buffer for a line that is streamed.
	streamBytes = 64 << 10
)

// A draft holds a line of up to draftBytes, and only counts a longer one.
type draft struct {
	text  []byte // nil: it is longer
	size  int
	limit int
}

// Write adds to the line. What passes the limit is an errLongLine.
func (d *draft) Write(b []byte) (int, error) {
	d.size += len(b)
	switch {
	case d.size > d.limit:
		return 0, errLongLine
	case d.size > draftBytes:
		d.text = nil
	default:
		d.text = append(d.text, b...)
	}
	return len(b), nil
}

func (p *process) answerGet(dst []byte, w *task.Window, r *getRequest) ([]byte, error) {
	value, err := w.Get(r.space, r.key)
	if errors.Is(err, batchlog.ErrNotFound) {
		return append(dst, `{"notFound":true}`...), nil
	}
	if err != nil {
		return nil, err
	}
	return append(opjson.AppendValue(append(dst, `{"value":`...), value), '}'), nil
}

func (p *process) answerScan(dst []byte, w *task.Window, r *scanRequest) ([]byte, error) {
	dst = append(dst, `{"entries":[`...)
	var opts []batchlog.ReadOption
	if r.reverse {
		opts = append(opts, batchlog.ScanReverse())
	}
	n, more := 0, false
	for e, err := range w.Scan(r.space, r.keys, opts...) {
		if err != nil {
			return nil, err
		}
		if n == r.limit || len(dst) > scanBytes {
			more = true
			break
		}
		if n > 0 {
			dst = append(dst, ',')
		}
		if dst, err = opjson.AppendEntry(dst, e); err != nil {
			return nil, err
		}
		n++
	}
	return fmt.Appendf(dst, `],"more":%t}`, more), nil
}
