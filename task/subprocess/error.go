package subprocess

import (
	"fmt"
	"strings"
)

// A Kind is what went wrong with a worker.
type Kind string

// The kinds.
const (
	KindStart     Kind = "start"     // the command can't be started
	KindHandshake Kind = "handshake" // its first line is not that of a worker, or of another version
	KindExit      Kind = "exit"      // it ended, or closed its stdout, without an answer
	KindTimeout   Kind = "timeout"   // it took too long
	KindProtocol  Kind = "protocol"  // a line that is no JSON, has unknown fields, or does not say what is asked for
	KindLongLine  Kind = "long line" // a line above Options.MaxLine, of either side
	KindStray     Kind = "stray"     // a line that nobody asked for
	KindRefused   Kind = "refused"   // the worker's own {"error":…}
)

// An Error is what went wrong with a worker. A task counts it as a failed attempt.
type Error struct {
	Kind   Kind
	PID    int    // of the process; 0: it was not started
	Err    error  // what is wrong
	Status string // how it ended by itself, as "exit status 3" or "signal: killed"; "": it did not
	Line   string // the beginning of the line that is wrong; "": none is
	Stderr string // the end of what it wrote to stderr
}

// How much of the worker's output an Error shows.
const (
	shownLine   = 200
	shownStderr = 2 << 10
)

// Error is all of it, on one line but for stderr.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "worker: %v", e.Err)
	if e.Status != "" {
		fmt.Fprintf(&b, " (%s)", e.Status)
	}
	if e.Line != "" {
		fmt.Fprintf(&b, "; its line: %s", e.Line)
	}
	if e.Stderr != "" {
		fmt.Fprintf(&b, "; its stderr:\n%s", e.Stderr)
	}
	return b.String()
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// beginning is what an Error shows of a line.
func beginning(line []byte) string {
	if len(line) > shownLine {
		return strings.ToValidUTF8(string(line[:shownLine]), "") + "…"
	}
	return strings.ToValidUTF8(string(line), "\ufffd")
}
