package batchlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// open opens a database in memory; local.Open("data", nil) opens one in a directory.
func open() *local.DB {
	db, err := local.Open("data", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		log.Fatal(err)
	}
	return db
}

func Example() {
	ctx := context.Background()
	db := open()
	defer db.Close()

	users := db.Space("users", "eu")
	id, err := users.Put(ctx, batchlog.K("alice"), []byte("Alice"))
	if err != nil {
		log.Fatal(err)
	}
	name, err := users.Get(ctx, batchlog.K("alice")) // sees what was acknowledged before
	fmt.Printf("commit %d: %s %v\n", id, name, err)

	_, err = users.Get(ctx, batchlog.K("bob"))
	fmt.Println(errors.Is(err, batchlog.ErrNotFound))
	// Output:
	// commit 1: Alice <nil>
	// true
}

// A batch is kept together: its ops, over any spaces, are one commit.
func ExampleDB_Write() {
	ctx := context.Background()
	db := open()
	defer db.Close()

	var b batchlog.Batch
	b.Put(db.Space("users"), batchlog.K("alice"), []byte("Alice"))
	b.Put(db.Space("emails"), batchlog.K("alice@example.com"), []byte("alice"))
	b.Labels = map[string]string{"actor": "sign-up form"}
	b.Token = "request-17" // makes it safe to write again when the answer was lost
	first, err := db.Write(ctx, &b)
	if err != nil {
		log.Fatal(err)
	}
	again, err := db.Write(ctx, &b)
	fmt.Println(first, again, err)
	// Output: 1 1 <nil>
}

// The function runs again when another commit changed what it has read, so the counter counts every call.
func ExampleDB_Update() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	counters := db.Space("counters")

	for range 3 {
		_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
			value, err := tx.Get(counters, batchlog.K("visits"))
			if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			visits, _ := strconv.Atoi(string(value))
			tx.Put(counters, batchlog.K("visits"), []byte(strconv.Itoa(visits+1)))
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	visits, err := counters.Get(ctx, batchlog.K("visits"))
	fmt.Println(string(visits), err)
	// Output: 3 <nil>
}

// A tail follows the log from any commit on: here up to head, without Until for ever.
func ExampleDB_Tail() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	for _, name := range []string{"alice", "bob"} {
		if _, err := db.Space("users").Put(ctx, batchlog.K(name), []byte("…")); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := db.Space("users").Delete(ctx, batchlog.K("alice")); err != nil {
		log.Fatal(err)
	}

	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.First(), Until: 3}) {
		if err != nil {
			log.Fatal(err)
		}
		for op, err := range c.Ops() {
			fmt.Println(c.ID, op.Kind, op.Space, op.Key, err)
		}
	}
	// Output:
	// 1 put users "alice" <nil>
	// 2 put users "bob" <nil>
	// 3 del users "alice" <nil>
}

// The tail of a space is about it and the spaces within it.
func ExampleSpace_Tail() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	for _, s := range []*batchlog.Space{db.Space("users", "eu"), db.Space("orders"), db.Space("users")} {
		if _, err := s.Put(ctx, batchlog.K("key"), nil); err != nil {
			log.Fatal(err)
		}
	}
	for c, err := range db.Space("users").Tail(ctx, batchlog.TailOptions{Until: 3}) {
		fmt.Println(c.ID, err)
	}
	// Output:
	// 1 <nil>
	// 3 <nil>
}

func ExampleSpace_Scan() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	var b batchlog.Batch
	orders := db.Space("orders")
	for _, k := range []batchlog.Key{batchlog.K("alice", 2), batchlog.K("alice", 10), batchlog.K("bob", 1), batchlog.K("alice", 1)} {
		b.Put(orders, k, nil)
	}
	if _, err := db.Write(ctx, &b); err != nil {
		log.Fatal(err)
	}
	for e, err := range orders.Scan(ctx, batchlog.Prefix("alice"), batchlog.ScanReverse()) {
		fmt.Println(e.Key, err)
	}
	// Output:
	// ["alice",10] <nil>
	// ["alice",2] <nil>
	// ["alice",1] <nil>
}

// A view shows the store at one id, whatever is written meanwhile.
func ExampleDB_View() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	s := db.Space("s")
	if _, err := s.Put(ctx, batchlog.K("k"), []byte("old")); err != nil {
		log.Fatal(err)
	}
	v, err := db.View(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()
	if _, err := s.Put(ctx, batchlog.K("k"), []byte("new")); err != nil {
		log.Fatal(err)
	}
	then, err := v.Get(s, batchlog.K("k"))
	fmt.Println(v.ID(), string(then), err)
	now, err := s.Get(ctx, batchlog.K("k"))
	fmt.Println(string(now), err)
	// Output:
	// 1 old <nil>
	// new <nil>
}

// A chain is a batch that may be larger than memory: it is staged on disk until it is committed.
func ExampleDB_Chain() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	numbers := db.Space("numbers")

	c, err := db.Chain(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for n := range 50_000 {
		c.Put(numbers, batchlog.K(n), []byte(strconv.Itoa(n*n)))
	}
	head, err := db.Head(ctx)
	fmt.Println("staged", c.Len(), "head", head, err)
	id, err := c.Commit(ctx)
	fmt.Println("commit", id, err)
	square, err := numbers.Get(ctx, batchlog.K(40_000))
	fmt.Println(string(square), err)
	// Output:
	// staged 50000 head 0 <nil>
	// commit 1 <nil>
	// 1600000000 <nil>
}

// A copy is one commit, made within the engine: it is what the source was at the id before.
func ExampleDB_CopyRange() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	users, backup := db.Space("users"), db.Space("backup")
	for _, name := range []string{"alice", "alan", "bob"} {
		if _, err := users.Put(ctx, batchlog.K(name), []byte("…")); err != nil {
			log.Fatal(err)
		}
	}
	id, err := db.CopyRange(ctx, backup, users, batchlog.StringPrefix("al"))
	fmt.Println("commit", id, err)
	for e, err := range backup.Scan(ctx, batchlog.Range{}) {
		fmt.Println(e.Key, err)
	}
	// Output:
	// commit 4 <nil>
	// "alan" <nil>
	// "alice" <nil>
}

// A blob is streamed past log and store, and read in parts.
func ExampleSpace_PutBlob() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	films := db.Space("films")

	id, err := films.PutBlob(ctx, batchlog.K("train"), strings.NewReader(strings.Repeat("frame ", 1_000_000)))
	fmt.Println("commit", id, err)
	film, err := films.Blob(ctx, batchlog.K("train"))
	if err != nil {
		log.Fatal(err)
	}
	defer film.Close()
	part := make([]byte, 11)
	_, err = film.ReadAt(part, 3_000_000)
	fmt.Printf("%d bytes, some of them %q %v\n", film.Size(), part, err)
	// Output:
	// commit 1 <nil>
	// 6000000 bytes, some of them "frame frame" <nil>
}

// Keys sort as the values that they are made from: by type first, then numbers by size, arrays by their elements.
func ExampleK() {
	for _, k := range []batchlog.Key{batchlog.K("alice"), batchlog.K("alice", 42), batchlog.K(7.5), {0xff}} {
		text, err := k.MarshalJSON()
		fmt.Println(k, string(text), err)
	}
	// Output:
	// "alice" "alice" <nil>
	// ["alice",42] ["alice",42] <nil>
	// 7.5 7.5 <nil>
	// 0xff {"$raw":"ff"} <nil>
}
