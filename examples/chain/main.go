// Chain fills a batch that is larger than its memory, copies a space while others write to it, and moves a subtree, each as one commit.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "batchlog-chain-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := local.Open(filepath.Join(dir, "data"), &local.Options{ChainBytes: 1 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	stock := db.Space("shop", "stock")
	if err := load(ctx, db.DB, stock); err != nil {
		return err
	}
	if err := copyBusy(ctx, db.DB, stock, db.Space("backup")); err != nil {
		return err
	}
	return move(ctx, db.DB, db.Space("shop"), db.Space("old shop"))
}

// items is how many keys there are: some 7 MB as ops, for a chain that may use 1 MiB.
const items = 100_000

// load puts all items as one commit.
func load(ctx context.Context, db *batchlog.DB, stock *batchlog.Space) (err error) {
	c, err := db.Chain(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Token = "stock-2026-11-22" // a retry with it, also after a crash, loads nothing twice
	for n := range items {
		c.Put(stock, batchlog.K("item", n), fmt.Appendf(nil, "item %d, in stock", n))
	}
	before, err := count(ctx, stock)
	if err != nil {
		return err
	}
	id, err := c.Commit(ctx)
	if err != nil {
		return err
	}
	after, err := count(ctx, stock)
	if err != nil {
		return err
	}
	fmt.Printf("load: commit %d; %d keys before it, %d after\n", id, before, after)
	return nil
}

// copyBusy copies stock while somebody else sells from it, and checks the copy against the log.
func copyBusy(ctx context.Context, db *batchlog.DB, stock, backup *batchlog.Space) error {
	stop, sold := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			var b batchlog.Batch
			b.Put(stock, batchlog.K("item", n%items), fmt.Appendf(nil, "sold %d", n))
			b.Delete(stock, batchlog.K("item", (n+items/2)%items))
			if _, err := db.Write(ctx, &b); err != nil {
				sold <- err
				return
			}
			select {
			case <-stop:
				sold <- nil
				return
			default:
			}
		}
	}()
	id, err := db.CopyRange(ctx, backup, stock, batchlog.Range{})
	close(stop)
	if err := errors.Join(err, <-sold); err != nil {
		return err
	}
	want, err := fold(ctx, db, stock, id-1)
	if err != nil {
		return err
	}
	same := true
	for e, err := range backup.Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return err
		}
		same = same && want[string(e.Key)] == string(e.Value)
		delete(want, string(e.Key))
	}
	fmt.Println("copy: it is the source at the id before its own:", same && len(want) == 0)
	return nil
}

// fold is what the commits up to last add up to in s.
func fold(ctx context.Context, db *batchlog.DB, s *batchlog.Space, last batchlog.ID) (map[string]string, error) {
	keys := map[string]string{}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.First(), Until: last}) {
		if err != nil {
			return nil, err
		}
		for op, err := range c.Ops() { // of a chain they come from its file, some at a time
			switch {
			case err != nil:
				return nil, err
			case !op.Space.Equal(s):
			case op.Kind == batchlog.OpPut:
				keys[string(op.Key)] = string(op.Value)
			case op.Kind == batchlog.OpDelete:
				delete(keys, string(op.Key))
			}
		}
	}
	return keys, nil
}

// move moves a subtree and says what a follower sees of it.
func move(ctx context.Context, db *batchlog.DB, from, to *batchlog.Space) error {
	before, err := count(ctx, from.Space("stock"))
	if err != nil {
		return err
	}
	id, err := db.MoveTree(ctx, to, from)
	if err != nil {
		return err
	}
	left, err := count(ctx, from.Space("stock"))
	if err != nil {
		return err
	}
	moved, err := count(ctx, to.Space("stock"))
	if err != nil {
		return err
	}
	fmt.Printf("move: all keys moved: %t; left behind: %d\n", moved == before, left)

	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.At(id), Until: id}) {
		if err != nil {
			return err
		}
		puts, deletes := 0, 0
		for op, err := range c.Ops() {
			if err != nil {
				return err
			}
			if op.Kind == batchlog.OpPut {
				puts++
			} else {
				deletes++
			}
		}
		fmt.Printf("tail: one commit, chained: %t; a put for each key: %t; range deletes: %d\n", c.Chained(), puts == moved, deletes)
	}
	return nil
}

func count(ctx context.Context, s *batchlog.Space) (n int, err error) {
	for _, err := range s.Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
