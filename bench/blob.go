package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

type blobOptions struct {
	megabytes int64
	rounds    int
}

// blobMode measures a blob that is stored and read, beside what copies and reads a file.
func blobMode(fs *flag.FlagSet) runner {
	o := &blobOptions{}
	fs.Int64Var(&o.megabytes, "mb", 1024, "size of the blob in MiB")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds, in which the ways take turns")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A blobRound is in seconds.
type blobRound struct {
	Put  float64 `json:"put"`
	Copy float64 `json:"copy"` // cp and sync
	Read float64 `json:"read"`
	Cat  float64 `json:"cat"`
}

func (o *blobOptions) run(ctx context.Context, e *env) (*report, error) {
	file := filepath.Join(e.dir, "file")
	if err := writeRandom(file, o.megabytes<<20); err != nil {
		return nil, err
	}
	var rounds []blobRound
	for n := range o.rounds {
		// Content that was stored before would not be stored again; every round has a directory of its own, and other content as well.
		if err := touchFile(file, uint64(n)); err != nil {
			return nil, err
		}
		r, err := o.round(ctx, e, file, n%2 == 1)
		if err != nil {
			return nil, err
		}
		e.tell("blob: round %d: put %.2f s, cp and sync %.2f s, read %.2f s, cat %.2f s", n+1, r.Put, r.Copy, r.Read, r.Cat)
		rounds = append(rounds, r)
	}
	size := float64(o.megabytes << 20)
	rate := func(f func(blobRound) float64) string {
		return spreadOf(each(rounds, func(r blobRound) float64 { return size / f(r) / 1e6 })).String()
	}
	put := spreadOf(each(rounds, func(r blobRound) float64 { return r.Copy / r.Put }))
	read := spreadOf(each(rounds, func(r blobRound) float64 { return r.Cat / r.Read }))
	t := table{
		title: fmt.Sprintf("A blob of %d MiB, its file in the page cache (median [min-max] of %d rounds)", o.megabytes, o.rounds),
		head:  []string{"", "MB/s", "ratio"},
	}
	t.add("PutBlob, durable", rate(func(r blobRound) float64 { return r.Put }), put.String()+" × cp")
	t.add("cp and sync of the copy, processes", rate(func(r blobRound) float64 { return r.Copy }), "")
	t.add("Blob, io.Copy to io.Discard", rate(func(r blobRound) float64 { return r.Read }), read.String()+" × cat")
	t.add("cat to /dev/null, a process", rate(func(r blobRound) float64 { return r.Cat }), "")
	return &report{Results: rounds, tables: []table{t}, Checks: []check{
		atLeast("PutBlob, to cp and sync", put.Median, blobPutFloor, "×"),
		atLeast("reading a blob, to cat", read.Median, blobReadFloor, "×"),
	}}, nil
}

// round measures all ways once; every other round goes backwards.
func (o *blobOptions) round(ctx context.Context, e *env, file string, backwards bool) (r blobRound, err error) {
	dir, copied := filepath.Join(e.dir, "blob"), filepath.Join(e.dir, "copied")
	db, err := local.Open(dir, nil)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir), os.RemoveAll(copied)) }()
	key, s := batchlog.K("file"), benchSpace(db)
	if err := readFile(file); err != nil { // into the page cache
		return r, err
	}
	ways := []func() error{
		func() error {
			return timed(ctx, &r.Put, func() error { return putFile(ctx, s, key, file) })
		},
		func() error {
			return timed(ctx, &r.Copy, func() error {
				if err := exec.CommandContext(ctx, "cp", file, copied).Run(); err != nil {
					return fmt.Errorf("cp: %w", err)
				}
				if err := exec.CommandContext(ctx, "sync", copied).Run(); err != nil {
					return fmt.Errorf("sync: %w", err)
				}
				return nil
			})
		},
	}
	reads := []func() error{
		func() error {
			return timed(ctx, &r.Read, func() error { return o.readBlob(ctx, s, key) })
		},
		func() error {
			return timed(ctx, &r.Cat, func() error { return catFile(ctx, copied) })
		},
	}
	if backwards {
		ways[0], ways[1] = ways[1], ways[0]
		reads[0], reads[1] = reads[1], reads[0]
	}
	for _, do := range ways {
		if err := do(); err != nil {
			return r, err
		}
	}
	if err := errors.Join(o.readBlob(ctx, s, key), catFile(ctx, copied)); err != nil { // into the page cache, if it is not there
		return r, err
	}
	for _, do := range reads {
		if err := do(); err != nil {
			return r, err
		}
	}
	return r, nil
}

// timed sets took to how long do took, in seconds.
func timed(ctx context.Context, took *float64, do func() error) error {
	settle(ctx, 200*time.Millisecond)
	start := time.Now()
	err := do()
	*took = time.Since(start).Seconds()
	return err
}

func putFile(ctx context.Context, s *batchlog.Space, key batchlog.Key, name string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = s.PutBlob(ctx, key, f)
	return err
}

func (o *blobOptions) readBlob(ctx context.Context, s *batchlog.Space, key batchlog.Key) (err error) {
	b, err := s.Blob(ctx, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	n, err := io.Copy(io.Discard, b) // which has b write itself
	if err == nil && n != o.megabytes<<20 {
		err = fmt.Errorf("read %d bytes of the blob", n)
	}
	return err
}

// catFile runs cat with a file, to /dev/null.
func catFile(ctx context.Context, name string) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "cat", name)
	cmd.Stdout = null
	if err := errors.Join(cmd.Run(), null.Close()); err != nil {
		return fmt.Errorf("cat: %w", err)
	}
	return nil
}

func readFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}

// writeRandom makes a file that does not compress.
func writeRandom(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	var word [8]byte
	for n := int64(0); n < size && err == nil; n += 8 {
		binary.LittleEndian.PutUint64(word[:], mix(uint64(n)))
		_, err = w.Write(word[:])
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// touchFile changes the first bytes of a file.
func touchFile(name string, n uint64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, mix(^n)), 0)
	return errors.Join(err, f.Close())
}
