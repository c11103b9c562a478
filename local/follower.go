package local

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"

	"github.com/bytespace/batchlog"
)

// A follower calls a post-commit hook.
type follower struct {
	db    *DB
	space *batchlog.Space
	hook  func(c *batchlog.Commit)
	next  batchlog.ID
	log   *slog.Logger
}

// followLoop calls the hook until ctx ends. What ends a tail otherwise, a gap or damage, is reported, and it goes on behind that.
func (f *follower) followLoop(ctx context.Context) {
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
			f.call(c)
		}
		f.next = c.ID + 1
	}
	return ctx.Err()
}

func (f *follower) call(c *batchlog.Commit) {
	defer func() {
		if v := recover(); v != nil {
			f.log.Error("post-commit hook panicked", "space", f.space, "commit", c.ID, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f.hook(c)
}
