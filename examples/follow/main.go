// Follow tails a space while another goroutine writes to it, breaks off, and goes on where it was.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	db, err := local.Open("data", &local.Options{FS: vfs.NewMem()}) // all in memory
	if err != nil {
		return err
	}
	defer db.Close()
	orders := db.Space("orders")

	failed := make(chan error, 1)
	go func() {
		for n := 1; n <= 5; n++ {
			if _, err := orders.Put(ctx, batchlog.K(n), fmt.Appendf(nil, "order %d", n)); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()

	// The first follower handles two commits and stops. What it keeps is one number.
	var handled batchlog.ID
	for c, err := range orders.Tail(ctx, batchlog.TailOptions{From: batchlog.First()}) {
		if err != nil {
			return err
		}
		if err := show("first", c); err != nil {
			return err
		}
		if handled = c.ID; handled == 2 {
			break
		}
	}
	// The second one goes on behind it, today or after months.
	for c, err := range orders.Tail(ctx, batchlog.TailOptions{From: batchlog.After(handled), Until: 5}) {
		if err != nil {
			return err
		}
		if err := show("second", c); err != nil {
			return err
		}
	}
	return <-failed
}

func show(who string, c *batchlog.Commit) error {
	for op, err := range c.Ops() {
		if err != nil {
			return err
		}
		fmt.Printf("%s follower: commit %d %s %s = %s\n", who, c.ID, op.Kind, op.Key, op.Value)
	}
	return nil
}
