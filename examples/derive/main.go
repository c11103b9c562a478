// Derive keeps how many users live in each city: a task follows the log of one space and derives another one from it, each commit counted
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

	byCity := task.Task{
		Name:        "users by city",
		Source:      []*batchlog.Space{users},
		Derives:     []*batchlog.Space{cities}, // with the spaces within
		Window:      task.Limit{Commits: 2},
		Concurrency: 2, // only speed: the outcome is the same with any
		Handle:      func(ctx context.Context, w *task.Window) error { return count(w, cities) },
	}
	if err := task.Register(ctx, db.DB, byCity); err != nil { // from now on reads of cities are held
		return err
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- task.Run(working, db.DB, byCity) }()

	// User 3 moves. A read of what is derived shows that, as it shows all that was written before it.
	if _, err := users.Put(ctx, batchlog.K(3), []byte("Köln")); err != nil {
		return err
	}
	for e, err := range cities.Scan(ctx, batchlog.Range{}, batchlog.MaxWait(10*time.Second)) {
		if err != nil {
			return err
		}
		fmt.Println(e.Key, string(e.Value))
	}

	// In a view, what is derived is as of the view's commit, as everything else.
	v, err := db.View(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	inBrno, err := v.Get(cities, batchlog.K("Brno"))
	if err != nil {
		return err
	}
	fmt.Println("in a view:", string(inBrno), "users in Brno")

	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// count takes the users of a window over into the numbers of their cities. What it reads is validated when the window is committed: if an
// earlier window changes it, this one is computed again.
func count(w *task.Window, cities *batchlog.Space) error {
	counted := cities.Space("counted") // user → the city where it was counted: without that, a user who moves could not be taken away there
	for c, err := range w.Commits() {
		if err != nil {
			return err
		}
		for op, err := range c.Ops() {
			if err != nil {
				return err
			}
			if op.Kind == batchlog.OpDeleteRange {
				return fmt.Errorf("commit %d deletes a range of users: one by one, please", c.ID)
			}
			was, err := w.Get(counted, op.Key)
			if err == nil {
				err = add(w, cities, was, -1)
			}
			if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			if op.Kind == batchlog.OpDelete {
				w.Delete(counted, op.Key)
				continue
			}
			w.Put(counted, op.Key, op.Value)
			if err := add(w, cities, op.Value, +1); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds to the users of a city. A city without any is not there.
func add(w *task.Window, cities *batchlog.Space, city []byte, more int) error {
	key, n := batchlog.K(string(city)), 0
	value, err := w.Get(cities, key)
	if err == nil {
		n, err = strconv.Atoi(string(value))
	}
	if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
		return err
	}
	if n+more == 0 {
		w.Delete(cities, key)
	} else {
		w.Put(cities, key, []byte(strconv.Itoa(n+more)))
	}
	return nil
}
