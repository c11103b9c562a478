// Derive counts the users of each city in a task: it follows the log of one space and writes another one, each commit counted
// once, whatever stops it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	db, err := local.Open("data", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		return err
	}
	defer db.Close()
	users, cities := db.Space("users"), db.Space("cities")
	for i, city := range []string{"Brno", "Köln", "Brno", "Riga", "Brno"} {
		if _, err := users.Put(ctx, batchlog.K(i), []byte(city)); err != nil {
			return err
		}
	}

	last, err := db.Head(ctx)
	if err != nil {
		return err
	}

	working, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- task.Run(working, db.DB, task.Task{
			Name:        "users by city",
			Source:      []*batchlog.Space{users},
			Window:      task.Limit{Commits: 2},
			Concurrency: 2, // only speed: the outcome is the same with any
			Handle:      func(ctx context.Context, w *task.Window) error { return count(w, cities) },
		})
	}()

	// How far it has come is kept in the database.
	for {
		s, err := task.Get(ctx, db.DB, "users by city")
		if err != nil && !errors.Is(err, task.ErrUnknown) { // until it has begun
			return err
		}
		if s.Cursor >= last {
			break
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		return err
	}
	for e, err := range cities.Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return err
		}
		fmt.Println(e.Key, string(e.Value))
	}
	return nil
}

// count adds the users of a window to their cities. What it reads is validated when the window is committed: if an earlier window
// changes it, this one is computed again.
func count(w *task.Window, cities *batchlog.Space) error {
	for c, err := range w.Commits() {
		if err != nil {
			return err
		}
		for op, err := range c.Ops() {
			if err != nil {
				return err
			}
			city, n := batchlog.K(string(op.Value)), 0
			value, err := w.Get(cities, city)
			if err == nil {
				n, err = strconv.Atoi(string(value))
			}
			if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			w.Put(cities, city, []byte(strconv.Itoa(n+1)))
		}
	}
	return nil
}
