package local

import (
	"context"
	"time"

	"github.com/bytespace/batchlog"
)

// PreCommit binds a hook to the subtree of s. It is called before a commit with ops there exists, with a transaction and those
// ops. It may read; add ops anywhere with tx, which set off the hooks there; [batchlog.Tx.Drop] ops that it was given
// or [batchlog.Tx.Replace] their values; or return an error, best from [batchlog.Refuse], to refuse the commit: then nothing
// is written, later hooks are not called, and the writer gets a *batchlog.HookError. A panic refuses too; a runtime.Goexit ends the writer's
// goroutine, as the hook runs in it, and nothing is written. What it is given stays as it is, and may be kept.
//
// What a hook reads is validated with the commit, so a check that it makes (a unique index, a foreign key, a balance) still holds
// when the commit gets its id. Hooks of different commits run side by side in their writers' goroutines; a slow one delays nobody
// else, but for commits that touch what it has read, when it has lost to them some times; see [batchlog.Persist]. On a conflict they are called again: a hook must have no effects outside of tx.
//
// Hooks of outer spaces come first, those of one space in the order of PreCommit. Commits that begin after remove returns do not
// meet the hook any more. A space of another database is a panic, as it is a mistake of the program.
func (db *DB) PreCommit(s *batchlog.Space, hook func(tx *batchlog.Tx, ops []batchlog.Op) error) (remove func()) {
	remove, err := db.engine.hooks.Add(s, hook)
	if err != nil {
		panic("batchlog: PreCommit: " + err.Error())
	}
	return remove
}

// PreCommitStreamed is PreCommit for a hook that needs not be given all of a commit's ops at once, so that it does not refuse chains above
// batchlog.MaxHookedChainBytes: of these it is called with some ops at a time, in order. What it reads then shows the ops of the call, and
// what hooks have added to the chain so far, but not the rest of the chain. What hooks write wins over what the chain says of the same keys, in later calls too;
// what they replace is the value of that op, and later ops of the chain win over it.
func (db *DB) PreCommitStreamed(s *batchlog.Space, hook func(tx *batchlog.Tx, ops []batchlog.Op) error) (remove func()) {
	remove, err := db.engine.hooks.AddStreamed(s, hook)
	if err != nil {
		panic("batchlog: PreCommitStreamed: " + err.Error())
	}
	return remove
}

// PostCommit calls hook for every commit with ops in the subtree of s that is made from now on, in the order of ids, after the store has
// applied it. It has a goroutine of its own and holds nobody up: a slow hook reads from the log what it has not come to, so
// it misses nothing while the process lives and the log is kept. A panic, or a runtime.Goexit, is reported to the logger and costs that one
// call. What must not be lost with the process is a task.
//
// remove, and Close, return when the last call has. They wait five seconds at most: a hook that does not return by then, as it is blocked, or has itself
// called one of them, is left behind, the logger is told of which space it is, and Close returns an error that says so. What it does with the database
// after Close is an ErrClosed. No call begins after that.
func (db *DB) PostCommit(s *batchlog.Space, hook func(c *batchlog.Commit)) (remove func()) {
	e := db.engine
	ctx, cancel := context.WithCancel(e.ctx)
	f := &follower{db: db, space: s, hook: hook, next: e.log.Head() + 1, log: e.opts.Logger, done: make(chan struct{})}
	if !e.followers.add(f) {
		cancel()
		return func() {}
	}
	go f.followLoop(ctx, func() { e.followers.remove(f) })
	return func() {
		cancel()
		patience := time.NewTimer(hookPatience)
		defer patience.Stop()
		_ = f.await(patience.C)
	}
}
