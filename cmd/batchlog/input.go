package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
)

// An input is what a command reads: a file, or stdin.
type input struct {
	io.Reader          // its errors say what was read; it ends with the context, even while a read hangs
	name      string   // for people
	size      int64    // of the file, in bytes; 0: not known
	read      *counter // bytes that were read of the file, which may be compressed
	file      *os.File // nil: it is not ours to close
}

// openInput opens the file name; - is stdin. unzip has what is named .gz decompressed.
func (a *app) openInput(ctx context.Context, name string, unzip bool) (*input, error) {
	in := &input{name: "stdin"}
	var raw io.Reader
	if name == "-" {
		raw = hangable(ctx, a.in)
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		in.file, in.name = f, name
		stat, err := f.Stat()
		switch {
		case err == nil && stat.IsDir():
			err = fmt.Errorf("%s is a directory", name)
		case err == nil && stat.Mode().IsRegular():
			in.size = stat.Size()
			raw = f
		case err == nil:
			raw = hangable(ctx, f)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	in.read = &counter{Reader: raw}
	in.Reader = in.read
	if unzip && strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(in.read)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read %s: %w", in.name, err), in.close())
		}
		in.Reader = z
	}
	in.Reader = &checkedReader{ctx: ctx, in: in.Reader, name: in.name}
	return in, nil
}

func (in *input) close() error {
	if in.file == nil {
		return nil
	}
	return in.file.Close()
}

// A counter counts what is read through it. The count may be looked at from anywhere.
type counter struct {
	io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// A checkedReader ends with ctx, between reads, and says in errors what was read.
type checkedReader struct {
	ctx  context.Context //nolint:containedctx // Read has none of its own
	in   io.Reader
	name string
}

func (r *checkedReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && r.ctx.Err() == nil {
		err = fmt.Errorf("read %s: %w", r.name, err)
	}
	return n, err
}

// hangable is in as a reader that ends with ctx even while a read hangs, as one of a terminal or a pipe may. What hangs then stays behind.
func hangable(ctx context.Context, in io.Reader) io.Reader {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) }) // a pipe in memory: it never fails
	go func() {
		_, err := io.Copy(w, in)
		_ = w.CloseWithError(err)
	}()
	return r
}

// A checkedWriter ends with ctx, between writes.
type checkedWriter struct {
	ctx context.Context //nolint:containedctx // Write has none of its own
	out io.Writer
}

func (w *checkedWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.out.Write(p)
	if err != nil {
		err = fmt.Errorf("write output: %w", err)
	}
	return n, err
}
