package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// What needs a heap of its own, or is to be killed, runs in a child: this program again, as `bench child NAME`. It reads what it is to do
// from its input and writes what came of it to its output, as JSON.

const childCommand = "child"

// A child is one under way.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// startChild begins a child that does name on spec. The end of ctx kills it.
func startChild(ctx context.Context, name string, spec any) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, childCommand, name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, in: in, out: json.NewDecoder(out)}
	if err := json.NewEncoder(in).Encode(spec); err != nil {
		return nil, errors.Join(err, c.kill())
	}
	return c, nil
}

// read waits for the child's next answer.
func (c *child) read(answer any) error { return c.out.Decode(answer) }

// kill ends the child with SIGKILL, which it cannot catch.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := c.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// runChild runs a child to its end and returns its answer.
func runChild[A any](ctx context.Context, name string, spec any) (answer A, err error) {
	c, err := startChild(ctx, name, spec)
	if err != nil {
		return answer, err
	}
	err = c.read(&answer)
	if waitErr := c.cmd.Wait(); waitErr != nil {
		err = fmt.Errorf("child %s: %w", name, waitErr) // it has told why on its standard error
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return answer, err
}

// beChild is the child's side.
func beChild(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	switch name {
	case childCell:
		return answer(ctx, in, out, runCell)
	case childReplayFill:
		return replayFill(ctx, in, out)
	case childReplayOpen:
		return answer(ctx, in, out, replayOpen)
	case childMemory:
		return answer(ctx, in, out, measureMemory)
	case childChain:
		return answer(ctx, in, out, makeChain)
	case childChainPebble:
		return answer(ctx, in, out, makeTables)
	case childUndo:
		return answer(ctx, in, out, runUndo)
	default:
		return fmt.Errorf("no child %q", name)
	}
}

// answer reads what do is to do and writes what it returns.
func answer[S, A any](ctx context.Context, in io.Reader, out io.Writer, do func(context.Context, S) (A, error)) error {
	var spec S
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return err
	}
	a, err := do(ctx, spec)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(a)
}
