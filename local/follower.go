package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
)

// hookPatience is how long Close, and who removes a post-commit hook, waits for the call that is under way.
const hookPatience = 5 * time.Second

// A follower calls a post-commit hook. It owns one goroutine, followLoop.
type follower struct {
	db    *DB
	space *batchlog.Space
	hook  func(c *batchlog.Commit)
	next  batchlog.ID
	log   *slog.Logger

	calling atomic.Uint64 // the commit that the hook is called for; 0: it is not
	done    chan struct{} // closed when the loop has ended
}

// followLoop calls the hook until ctx ends, and then ended. What ends a tail otherwise, a gap or damage, is reported, and it goes on behind that. So it does
// where a hook ends the goroutine, in another one.
func (f *follower) followLoop(ctx context.Context, ended func()) {
	over := false
	defer func() {
		if over {
			ended()
			close(f.done)
			return
		}
		f.log.Error("post-commit hook ended its goroutine (runtime.Goexit)", "space", f.space, "commit", f.next)
		f.next++
		go f.followLoop(ctx, ended)
	}()
	f.followAll(ctx)
	over = true
}

func (f *follower) followAll(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		var gap *batchlog.GapError
		switch {
		case ctx.Err() != nil || errors.Is(err, batchlog.ErrClosed):
			return
		case errors.As(err, &gap):
			f.log.Error("post-commit hook: commits are gone before it came to them", "space", f.space, "first", gap.From, "oldest", gap.Oldest)
			f.next = gap.Oldest
		default:
			f.log.Error("post-commit hook: the log can't be followed; no more calls", "space", f.space, "commit", f.next, "err", err)
			return
		}
	}
}

func (f *follower) follow(ctx context.Context) error {
	for c, err := range f.space.Tail(ctx, batchlog.TailOptions{From: batchlog.At(f.next), Bookmarks: true}) {
		if err != nil {
			return err
		}
		if !c.Bookmark() {
			if err := f.db.engine.lines.Hold(ctx, batchlog.ReadOptions{AtLeast: c.ID}); err != nil {
				return err
			}
			f.next = c.ID
			f.call(c)
		}
		f.next = c.ID + 1
	}
	return ctx.Err()
}

func (f *follower) call(c *batchlog.Commit) {
	f.calling.Store(uint64(c.ID))
	defer f.calling.Store(0)
	defer func() {
		if v := recover(); v != nil {
			f.log.Error("post-commit hook panicked", "space", f.space, "commit", c.ID, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f.hook(c)
}

// await returns when the loop has ended, or, with an error that the logger is told, too, when patience has.
func (f *follower) await(patience <-chan time.Time) error {
	select {
	case <-f.done:
		return nil
	default:
	}
	select {
	case <-f.done:
		return nil
	case <-patience:
		id := batchlog.ID(f.calling.Load())
		f.log.Error("post-commit hook has not returned; it is left behind", "space", f.space, "commit", id, "waited", hookPatience)
		return fmt.Errorf("post-commit hook of space %s has not returned from its call for commit %d within %s, and is left behind; it must not wait for Close, or call it", f.space, id, hookPatience)
	}
}

// followers is the post-commit hooks of a database.
type followers struct {
	mu struct {
		sync.Mutex
		running map[*follower]struct{}
		closed  bool
	}
}

// add reports whether f may run.
func (s *followers) add(f *follower) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	if s.mu.running == nil {
		s.mu.running = map[*follower]struct{}{}
	}
	s.mu.running[f] = struct{}{}
	return true
}

func (s *followers) remove(f *follower) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.running, f)
}

// close waits for all to end, for as long as one may take. Their context has ended.
func (s *followers) close() error {
	s.mu.Lock()
	s.mu.closed = true
	running := make([]*follower, 0, len(s.mu.running))
	for f := range s.mu.running {
		running = append(running, f)
	}
	s.mu.Unlock()
	patience := make(chan time.Time)
	timer := time.AfterFunc(hookPatience, func() { close(patience) })
	defer timer.Stop()
	var errs []error
	for _, f := range running {
		errs = append(errs, f.await(patience))
	}
	return errors.Join(errs...)
}
