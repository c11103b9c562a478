package simtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/bytespace/batchlog/local"
)

// What bounds the calls of programs, and the clock that they are under.

// patient calls tired when patience has run out, unless stop is called before.
func patient(patience time.Duration, tired func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		for left := patience; left > 0; left -= tick {
			select {
			case <-done:
				return
			case <-time.After(tick):
			}
		}
		tired()
	}()
	return sync.OnceFunc(func() { close(done) })
}

// bounded is a context that ends with errHung when patience has run out.
func bounded(patience time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := patient(patience, func() { cancel(errHung) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// A clock is what a database under test takes for the time.
type clock struct {
	mu   sync.Mutex
	at   time.Time
	real time.Time // if not zero, the clock goes on with the real one from there
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.real.IsZero() {
		return c.at.Add(time.Since(c.real))
	}
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

var errHung = errors.New("the call has hung")

// closeBounded closes the database, or says that it hangs.
func (r *run) closeBounded() error { return closeWithin(r.db, patience) }

func closeWithin(db *local.DB, d time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- db.Close() }()
	tired := make(chan struct{})
	defer patient(d, func() { close(tired) })()
	select {
	case err := <-done:
		return err
	case <-tired:
		return fmt.Errorf("close: %w:\n%s", errHung, stacks())
	}
}

// stacks is where all goroutines are that are not tests'.
func stacks() string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var list []string
	for s := range strings.SplitSeq(string(buf), "\n\n") {
		if !strings.Contains(s, "testing.(*T)") && !strings.Contains(s, "[coroutine") {
			list = append(list, s)
		}
	}
	return strings.Join(list, "\n\n")
}
