package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// writeFlags are the flags of commands that write one batch.
type writeFlags struct {
	token  string
	labels []string
}

func (f *writeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.token, "token", "", "`TOKEN` that names this write: done again with the same one it returns the first id and writes nothing")
	cmd.Flags().StringArrayVar(&f.labels, "label", nil, "`NAME=VALUE` kept with the commit; may be given several times")
}

func newPut(a *app) *cobra.Command {
	var (
		flags writeFlags
		file  string
	)
	cmd := &cobra.Command{
		Use:   "put SPACE KEY [VALUE|-]",
		Short: "Set the value of a key",
		Long: `The value is the argument as it is. Without one, or with -, it is read from stdin to its end, byte for byte. It prints
the id of the commit when that is durable. The database is created if it is not there.

With --file the value may be larger than memory: it is streamed into a blob, a file of its own beside log and store that is named by the hash of
its content. The log has the reference; the same content is stored once. The blob is durable before the commit is.`,
		Example: `  batchlog put users alice '{"age":42}'
  batchlog put users/eu '["bob",7]' hello --label actor=me
  echo hello | batchlog put / greeting
  head -c 1000000 /dev/zero | batchlog put files zeros --file -`,
		Args: takes(2, 3),
	}
	cmd.RunE = a.runs(func(ctx context.Context, args []string) error {
		switch {
		case !cmd.Flags().Changed("file"):
			return a.put(ctx, args, flags)
		case len(args) == 3:
			return usagef("VALUE and --file exclude each other")
		case file == "":
			return usagef("--file is empty: name a file")
		}
		return a.putFile(ctx, args[0], args[1], file, flags)
	})
	cmd.Flags().StringVar(&file, "file", "", "the value is the content of `FILE`, of any size; - is stdin")
	flags.add(cmd)
	return cmd
}

func (a *app) put(ctx context.Context, args []string, flags writeFlags) error {
	key, err := parseKey(args[1])
	if err != nil {
		return err
	}
	return a.writeOne(ctx, args[0], flags, true, func(s *batchlog.Space, b *batchlog.Batch) error {
		if len(args) == 3 && args[2] != "-" {
			b.Put(s, key, []byte(args[2]))
			return nil
		}
		value, err := readAll(ctx, a.in)
		b.Put(s, key, value)
		return err
	})
}

// putFile stores a file as a blob, sets the value of a key to it, and prints commit and hash.
func (a *app) putFile(ctx context.Context, space, key, file string, flags writeFlags) (err error) {
	path, err := pathArg(space)
	if err != nil {
		return err
	}
	k, err := parseKey(key)
	if err != nil {
		return err
	}
	b := &batchlog.Batch{Token: flags.token}
	if b.Labels, err = parseLabels(flags.labels); err != nil {
		return err
	}
	in, err := a.openInput(ctx, file, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	return a.withDB(true, func(db *local.DB) error {
		stages := &stageMeter{meters: a.meters()}
		ref, err := db.StoreBlobProgress(ctx, in, func(n int64) { stages.set("store", "B", n, in.size, n) })
		stages.end()
		if err != nil {
			return interruption(ctx, err)
		}
		b.PutRef(db.Space(path...), k, ref)
		id, err := db.Write(ctx, b)
		if err != nil {
			return interruption(ctx, err)
		}
		if a.json {
			_, err = fmt.Fprintf(a.out, "{\"id\":%d,\"sha256\":\"%s\",\"size\":%d}\n", id, ref, ref.Size)
		} else {
			_, err = fmt.Fprintf(a.out, "commit %d: %s, sha256 %s\n", id, bytesText(ref.Size), ref)
		}
		return err
	})
}

// writeOne writes a batch of ops on one space and prints its id.
func (a *app) writeOne(ctx context.Context, space string, flags writeFlags, create bool, fill func(s *batchlog.Space, b *batchlog.Batch) error) error {
	path, err := pathArg(space)
	if err != nil {
		return err
	}
	b := &batchlog.Batch{Token: flags.token}
	if b.Labels, err = parseLabels(flags.labels); err != nil {
		return err
	}
	return a.withDB(create, func(db *local.DB) error {
		if err := fill(db.Space(path...), b); err != nil {
			return err
		}
		id, err := db.Write(ctx, b)
		if err != nil {
			return interruption(ctx, err)
		}
		if a.json {
			_, err = fmt.Fprintf(a.out, "{\"id\":%d}\n", id)
		} else {
			_, err = fmt.Fprintf(a.out, "commit %d\n", id)
		}
		return err
	})
}

// readAll is all of r, a bit more than a value may be at most. It ends with ctx, even when r does not.
func readAll(ctx context.Context, r io.Reader) ([]byte, error) {
	type result struct {
		value []byte
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := io.ReadAll(io.LimitReader(r, batchlog.MaxValueBytes+1))
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("read the value from stdin: %w", r.err)
		}
		return r.value, nil
	case <-ctx.Done():
		return nil, interruption(ctx, errors.New("interrupted"))
	}
}
