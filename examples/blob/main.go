// Blob stores a file as a value that bypasses log and store, reads a part of it, stores it again, and shows when its disk space comes back.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "batchlog-blob-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	film := filepath.Join(dir, "film")
	if err := os.WriteFile(film, bytes.Repeat([]byte("frame. "), 1_000_000), 0o600); err != nil {
		return err
	}
	db, err := local.Open(filepath.Join(dir, "data"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	files := db.Space("files")
	for _, step := range []func(context.Context, *local.DB, *batchlog.Space, string) error{store, read, again, free} {
		if err := step(ctx, db, files, film); err != nil {
			return err
		}
	}
	return nil
}

// store puts a file, of any size, as a value.
func store(ctx context.Context, db *local.DB, files *batchlog.Space, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	id, err := files.PutBlob(ctx, batchlog.K("film"), f)
	if err != nil {
		return err
	}
	status, err := db.Status(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("put: commit %d; less than 64 KiB of log: %t\n", id, status.Logs[0].Bytes < 64<<10)
	return nil
}

// read reads a part of the value.
func read(ctx context.Context, _ *local.DB, files *batchlog.Space, _ string) (err error) {
	blob, err := files.Blob(ctx, batchlog.K("film"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	part := make([]byte, 13)
	if _, err := blob.ReadAt(part, 3_500_000); err != nil { // only what is read is checked, and all of that
		return err
	}
	fmt.Printf("read: %d bytes in all; some of the middle: %q\n", blob.Size(), part)
	return nil
}

// again puts the same content under other keys: it is there once.
func again(ctx context.Context, db *local.DB, files *batchlog.Space, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	ref, err := db.StoreBlob(ctx, f) // durable, and put nowhere yet
	if err != nil {
		return err
	}
	var b batchlog.Batch
	b.PutRef(files, batchlog.K("copy"), ref)
	b.PutRef(files, batchlog.K("another copy"), ref)
	if _, err := db.Write(ctx, &b); err != nil {
		return err
	}
	return sweep(ctx, db, "again")
}

// free deletes all keys. The blob goes when the log has dropped the commits that refer to it, too.
func free(ctx context.Context, db *local.DB, files *batchlog.Space, _ string) error {
	var b batchlog.Batch
	b.DeleteRange(files, batchlog.Range{})
	id, err := db.Write(ctx, &b)
	if err != nil {
		return err
	}
	if err := sweep(ctx, db, "deleted"); err != nil {
		return err
	}
	if err := db.Configure(ctx, batchlog.LogConfig{HotTTL: time.Millisecond}, db.Root()); err != nil {
		return err
	}
	for oldest := batchlog.ID(0); oldest <= id; {
		if _, err := db.Space("other").Put(ctx, batchlog.K("key"), nil); err != nil { // what comes next to the log ends an old segment
			return err
		}
		time.Sleep(2 * time.Millisecond)
		if err := db.Trim(ctx); err != nil { // by itself within a minute
			return err
		}
		status, err := db.Status(ctx)
		if err != nil {
			return err
		}
		oldest = status.Oldest
	}
	return sweep(ctx, db, "trimmed")
}

// sweep removes the blobs that nothing refers to, also those that are younger than an hour.
func sweep(ctx context.Context, db *local.DB, when string) error {
	s, err := db.SweepBlobs(ctx, 0)
	if err != nil {
		return err
	}
	fmt.Printf("%s: blobs %d, %d bytes; removed %d\n", when, s.Blobs, s.Bytes, s.Removed)
	return nil
}
