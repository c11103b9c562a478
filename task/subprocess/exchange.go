package subprocess

import (
	"context"
	"errors"
	"fmt"
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
	question, err := p.appendWindow(nil, w)
	if err != nil {
		return err
	}
	return p.within(ctx, p.o.Timeout, func(ctx context.Context) error {
		for {
			if err := p.send(ctx, question); err != nil {
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
	_, err := p.in.Write(append(text, '\n'))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
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

// appendWindow appends the line for w. It stops soon after MaxLine: send refuses what is longer.
func (p *process) appendWindow(dst []byte, w *task.Window) ([]byte, error) {
	dst = fmt.Appendf(dst, `{"window":{"first":%d,"last":%d,"attempt":%d},"commits":[`, w.First, w.Last, w.Attempt)
	separator := ""
	for c, err := range w.Commits() {
		if err != nil {
			return nil, err
		}
		if dst, err = opjson.AppendCommit(append(dst, separator...), c); err != nil {
			return nil, err
		}
		if len(dst) > p.o.MaxLine {
			return dst, nil
		}
		separator = ","
	}
	return append(dst, "]}"...), nil
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
