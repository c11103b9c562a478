package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
)

// How far reading the repository may be ahead of writing.
const (
	aheadCommits = 256
	aheadBytes   = 128 << 20
)

// An importPlan says what is imported.
type importPlan struct {
	Rev     string // the commit whose first parents are imported
	All     bool   // all commits instead
	Limit   int64  // at most so many in this run, the oldest of those that are not there yet; 0: all
	MaxBlob int64  // larger blobs are left out, their hashes kept; 0: none
	Atomic  bool   // all in one commit
}

// An importResult says what was imported.
type importResult struct {
	Repo    string      `json:"repo"`
	Space   string      `json:"space"`   // that holds the history
	Commits int64       `json:"commits"` // imported in this run
	Total   int64       `json:"total"`   // imported in all runs
	Left    int64       `json:"left"`    // that are still to be imported
	First   batchlog.ID `json:"first"`   // id of the first commit of this run; 0: none
	Last    batchlog.ID `json:"last"`
	Ops     int64       `json:"ops"`
	Bytes   int64       `json:"bytes"` // of the ops
	Seconds float64     `json:"seconds"`
	Hash    string      `json:"hash"` // the newest git commit that is imported
}

// An importer takes a repository's history over into a database.
type importer struct {
	repo  *repo
	store *gitStore
	plan  importPlan
	meter func(total int64) *meter
	// progress is told how far the chain of an atomic import is; nil: nobody.
	progress func(batchlog.ChainProgress)
}

// A movedError says that the commit which was imported last is not where the next ones would follow it.
type movedError struct {
	repo, rev, space, hash string
}

func (e *movedError) Error() string {
	return fmt.Sprintf("%s holds the history up to git commit %s, which is not in that of %s in %s (a rewritten history, or another branch); "+
		"import into another space with --name NAME", e.space, e.hash, e.rev, e.repo)
}

// run imports what is not there yet. When ctx ends it stops behind the commit that is being written; what it has
// done so far is in the result, and the next run goes on there.
func (im *importer) run(ctx context.Context) (r importResult, err error) {
	r = importResult{Repo: im.repo.dir, Space: im.store.String()}
	start := time.Now()
	defer func() { r.Seconds = time.Since(start).Seconds() }()
	todo, head, err := im.todo(ctx)
	if err != nil {
		return r, err
	}
	r.Total, r.Hash, r.Left = head.Count, head.Hash, int64(todo.count())
	known, err := im.store.db.Head(ctx)
	if err != nil {
		return r, err
	}
	n := int64(todo.count())
	if im.plan.Limit > 0 {
		n = min(n, im.plan.Limit)
	}
	if n == 0 {
		return r, nil
	}
	todo.hashes = todo.hashes[:n*int64(todo.size)]
	m := im.meter(n)
	defer m.end()
	if im.plan.Atomic {
		return im.runAtomic(ctx, r, todo, head, known, m)
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	batches, release := ahead(reading, aheadBytes, im.batches(reading, todo, head))
	for b, err := range batches {
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		if err != nil {
			return r, err
		}
		id, err := im.store.db.Write(context.WithoutCancel(ctx), b.batch)
		if err != nil {
			return r, fmt.Errorf("git commit %s: %w", b.head.Hash, err)
		}
		if id <= known {
			return r, im.changed(b.head.Hash, id)
		}
		known = id
		r.took(id, b)
		release(b)
		m.set(r.Commits, r.Bytes)
	}
	if r.Commits == n {
		return r, nil
	}
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	return r, fmt.Errorf("git came to an end after %d of %d commits", r.Commits, n)
}

// changed is the error for a git commit that is in the log although the state says that it isn't.
func (im *importer) changed(hash string, id batchlog.ID) error {
	return fmt.Errorf("git commit %s is in the log as commit %d, but %s does not say so: that space was changed by others; import into another one with --name NAME",
		hash, id, im.store.state)
}

// runAtomic imports all of todo as one commit, the ops of which are those of the batches it would be else, in the same order.
func (im *importer) runAtomic(ctx context.Context, r importResult, todo *chain, head gitHead, known batchlog.ID, m *meter) (_ importResult, err error) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	blobs, err := im.repo.blobs(reading)
	if err != nil {
		return r, err
	}
	defer blobs.close()
	whole, err := im.store.db.Chain(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, whole.Close()) }()
	whole.Progress = func(p batchlog.ChainProgress) {
		if im.progress != nil && p.Stage != "fill" { // m shows that
			im.progress(p)
		}
	}
	builder := &batchBuilder{gitStore: im.store, blobs: blobs, maxBlob: im.plan.MaxBlob, out: whole}
	n := int64(todo.count())
	read := int64(0)
	start := head.Hash
	head.All, head.Lossy = im.plan.All, head.Lossy || im.plan.MaxBlob > 0
	for c, err := range im.repo.history(reading, todo, 0, start) {
		if err == nil {
			head.Hash, head.Count = c.Hash, head.Count+1
			whole.Labels = commitLabels(c)
			err = builder.add(c, head)
		}
		if err == nil {
			err = whole.Err()
		}
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		if err != nil {
			return r, err
		}
		read++
		m.set(read, whole.Size())
	}
	m.end()
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	if read != n {
		return r, fmt.Errorf("git came to an end after %d of %d commits", read, n)
	}
	whole.Token = "git:" + im.store.name + ":" + head.Hash + ":atomic"
	ops, bytes := whole.Len(), whole.Size()
	id, err := whole.Commit(ctx)
	if err != nil {
		return r, err
	}
	if id <= known {
		return r, im.changed(head.Hash, id)
	}
	r.First, r.Last, r.Commits, r.Left = id, id, n, r.Left-n
	r.Ops, r.Bytes, r.Total, r.Hash = ops, bytes, head.Count, head.Hash
	return r, nil
}

func (r *importResult) took(id batchlog.ID, b builtBatch) {
	if r.First == 0 {
		r.First = id
	}
	r.Last = id
	r.Commits++
	r.Left--
	r.Ops += int64(b.batch.Len())
	r.Bytes += int64(b.batch.Size())
	r.Total, r.Hash = b.head.Count, b.head.Hash
}

// todo is the commits that are still to be imported, and the state of those that are.
func (im *importer) todo(ctx context.Context) (*chain, gitHead, error) {
	view, err := im.store.db.View(ctx)
	if err != nil {
		return nil, gitHead{}, err
	}
	defer view.Close()
	head, err := im.store.head(view)
	if err != nil {
		return nil, head, err
	}
	if head.Hash != "" && head.All != im.plan.All {
		was, is := "the first parents of one commit", "--all"
		if head.All {
			was, is = "--all commits", "the first parents of one"
		}
		return nil, head, fmt.Errorf("%s was imported with %s, so %s can't be added to it: import into another space with --name NAME", im.store, was, is)
	}
	rev, tip := im.plan.Rev, ""
	if im.plan.All {
		rev = "all refs"
	} else if tip, err = im.repo.resolve(ctx, rev); err != nil {
		return nil, head, err
	}
	c, err := im.repo.chain(ctx, tip, im.plan.All)
	if err != nil || head.Hash == "" {
		return c, head, err
	}
	at := c.index(head.Hash)
	if at < 0 {
		return nil, head, &movedError{repo: im.repo.dir, rev: rev, space: im.store.String(), hash: head.Hash}
	}
	if !im.plan.All {
		c.hashes = c.hashes[(at+1)*c.size:]
		return c, head, nil
	}
	// New commits can stand anywhere in the order of all.
	left := &chain{size: c.size}
	for i := range c.count() {
		_, err := view.Get(im.store.commits, batchlog.K(c.at(i)))
		if errors.Is(err, batchlog.ErrNotFound) {
			err = left.add(c.at(i))
		}
		if err != nil {
			return nil, head, err
		}
	}
	return left, head, nil
}

// A builtBatch is a batch and the state that it leaves.
type builtBatch struct {
	batch *batchlog.Batch
	head  gitHead
}

// batches yields a batch for each commit of todo.
func (im *importer) batches(ctx context.Context, todo *chain, head gitHead) iter.Seq2[builtBatch, error] {
	return func(yield func(builtBatch, error) bool) {
		blobs, err := im.repo.blobs(ctx)
		if err != nil {
			yield(builtBatch{}, err)
			return
		}
		defer blobs.close()
		builder := &batchBuilder{gitStore: im.store, blobs: blobs, maxBlob: im.plan.MaxBlob}
		head.All, head.Lossy = im.plan.All, head.Lossy || im.plan.MaxBlob > 0
		for c, err := range im.repo.history(ctx, todo, 0, head.Hash) {
			var b *batchlog.Batch
			if err == nil {
				head.Hash, head.Count = c.Hash, head.Count+1
				b, err = builder.build(c, head)
			}
			if !yield(builtBatch{b, head}, err) || err != nil {
				return
			}
		}
	}
}

// ahead runs seq in a goroutine that may be some commits and so many bytes ahead. The reader calls release for each batch that it is done
// with. The goroutine has ended when the reader's loop has, whichever way.
func ahead(ctx context.Context, limitBytes int64, seq iter.Seq2[builtBatch, error]) (_ iter.Seq2[builtBatch, error], release func(builtBatch)) {
	type item struct {
		b   builtBatch
		err error
	}
	room := newGate(limitBytes)
	return func(yield func(builtBatch, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		items := make(chan item, aheadCommits)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() {
			defer close(items)
			for b, err := range seq {
				if err == nil && room.acquire(ctx, int64(b.batch.Size())) != nil {
					return
				}
				select {
				case items <- item{b, err}:
				case <-ctx.Done():
					return
				}
			}
		})
		for it := range items {
			if !yield(it.b, it.err) {
				return
			}
		}
	}, func(b builtBatch) { room.release(int64(b.batch.Size())) }
}
