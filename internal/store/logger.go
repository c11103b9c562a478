package store

import (
	"fmt"
	"runtime"
)

// pebbleLogger is Pebble's voice. Pebble calls Fatalf where it can't go on, mostly after a failed write of its manifest, and
// expects the process to end there. A library does not end its host: the store has failed from then on, and the
// goroutine, which must not go on, ends. The log has everything, so opening again repairs.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.opts.Logger.Warn("store: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fail(&fatalError{text: fmt.Sprintf(format, args...), args: args})
	runtime.Goexit()
}

// fail notes that the store has failed, and why.
func (s *Store) fail(err error) {
	if s.failed.CompareAndSwap(nil, &err) {
		s.opts.Logger.Error("store failed; open the database again", "err", err)
	}
}

// A fatalError is why the store can't go on. It unwraps to the errors that Pebble named.
type fatalError struct {
	text string
	args []any
}

func (e *fatalError) Error() string { return "store can't go on: " + e.text }

func (e *fatalError) Unwrap() []error {
	var errs []error
	for _, arg := range e.args {
		if err, ok := arg.(error); ok {
			errs = append(errs, err)
		}
	}
	return errs
}
