// Embed opens a database in a directory, writes a batch over two spaces, and reads it back.
package main

import (
	"context"
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

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "batchlog-embed-")
	if err != nil {
		return err
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			log.Print(err)
		}
	}()

	db, err := local.Open(filepath.Join(dir, "data"), nil)
	if err != nil {
		return err
	}
	defer db.Close()

	users := db.Space("users", "eu") // a namespace, and a capability: it reaches nothing outside
	byCity := db.Space("index", "city")

	b := batchlog.Batch{Token: "signup-4711", Labels: map[string]string{"actor": "web"}}
	b.Put(users, batchlog.K("alice"), []byte(`{"city":"Köln"}`))
	b.Put(users, batchlog.K("bob"), []byte(`{"city":"Brno"}`))
	b.Put(byCity, batchlog.K("Köln", "alice"), nil)
	b.Put(byCity, batchlog.K("Brno", "bob"), nil)
	id, err := db.Write(ctx, &b) // all of it, or none
	if err != nil {
		return err
	}
	again, err := db.Write(ctx, &b) // the same token: the first id, and nothing is written
	if err != nil {
		return err
	}
	fmt.Println("commit", id, "again", again)

	value, err := users.Get(ctx, batchlog.K("alice"))
	if err != nil {
		return err
	}
	fmt.Printf("alice %s\n", value)

	for e, err := range byCity.Scan(ctx, batchlog.Prefix("Brno")) {
		if err != nil {
			return err
		}
		fmt.Println("in Brno", e.Key)
	}
	return nil
}
