package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// readFlags are the flags that say what state a read is content with.
type readFlags struct {
	stale   bool
	atLeast uint64
	maxWait duration
}

// defaultMaxWait is short: while the command has the database open no other process writes, and none works on its tasks, so what is not
// there soon will not come.
const defaultMaxWait = duration(200 * time.Millisecond)

func (f *readFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.stale, "stale", false, "show what the store has now, without waiting for the newest commit")
	cmd.Flags().Uint64Var(&f.atLeast, "at-least", 0, "wait for the commit with this `ID`, and for no later one")
	f.maxWait = defaultMaxWait
	cmd.Flags().Var(&f.maxWait, "max-wait", "wait no longer than this, for a commit or for the task that derives the space; 0: for ever")
}

func (f *readFlags) options() ([]batchlog.ReadOption, error) {
	if f.stale && f.atLeast > 0 {
		return nil, usagef("--stale and --at-least exclude each other")
	}
	var opts []batchlog.ReadOption
	if f.stale {
		opts = append(opts, batchlog.Stale())
	}
	if f.atLeast > 0 {
		opts = append(opts, batchlog.AtLeast(batchlog.ID(f.atLeast)))
	}
	if f.maxWait > 0 {
		opts = append(opts, batchlog.MaxWait(time.Duration(f.maxWait)))
	}
	return opts, nil
}

// getFlags are the flags of get.
type getFlags struct {
	readFlags
	out    string
	force  bool
	part   string
	given  func(flag string) bool
	offset int64 // of part
	length int64 // of part; -1: to the end
}

func newGet(a *app) *cobra.Command {
	var flags getFlags
	cmd := &cobra.Command{
		Use:   "get SPACE KEY",
		Short: "Write the value of a key to stdout, or to a file",
		Long: `The bytes of the value are written as they are: no newline is added. A value of any size, a blob too, is streamed and every byte of it
checked on the way. A key that is not there is exit code 3.

With --out it goes to a file, which is there when all of it is: it is written under another name beside it, synced and renamed. When
that fails what was there before stays. A file that is there is not overwritten without --force.`,
		Example: `  batchlog get users alice
  batchlog get users/eu '["bob",7]' > bob.txt
  batchlog get users/eu '["bob",7]' --out bob.bin --force
  batchlog get users alice --range 0:1`,
		Args: takes(2, 2),
		RunE: a.runs(func(ctx context.Context, args []string) error { return a.get(ctx, args, flags) }),
	}
	cmd.Flags().StringVar(&flags.out, "out", "", "write to `FILE`; - is stdout")
	cmd.Flags().BoolVar(&flags.force, "force", false, "overwrite the file if it is there")
	cmd.Flags().StringVar(&flags.part, "range", "", "only the bytes from OFFSET on, so many of them or as many as there are: `OFFSET:LENGTH`, or OFFSET: to the end")
	flags.given = cmd.Flags().Changed
	flags.add(cmd)
	return cmd
}

// parsePart sets offset and length from --range.
func (f *getFlags) parsePart() error {
	f.length = -1
	if !f.given("range") {
		return nil
	}
	from, length, ok := strings.Cut(f.part, ":")
	var err error
	if f.offset, err = parseBytes(from); err == nil && length != "" {
		f.length, err = parseBytes(length)
	}
	if err == nil && !ok {
		err = errors.New("a colon is missing")
	}
	if err != nil {
		return usagef("--range %q: %w; write it as 1024:512, or 1MiB: for all from there on", f.part, err)
	}
	return nil
}

func (a *app) get(ctx context.Context, args []string, flags getFlags) error {
	opts, err := flags.options()
	if err != nil {
		return err
	}
	if err := flags.parsePart(); err != nil {
		return err
	}
	path, err := pathArg(args[0])
	if err != nil {
		return err
	}
	key, err := parseKey(args[1])
	if err != nil {
		return err
	}
	toFile := flags.out != "" && flags.out != "-"
	switch {
	case flags.given("out") && flags.out == "":
		return usagef("--out is empty: name a file")
	case flags.force && !toFile:
		return usagef("--force is for --out FILE")
	case toFile:
		if err := mayWrite(flags.out, flags.force); err != nil {
			return err
		}
	}
	return a.withDB(false, func(db *local.DB) (err error) {
		s := db.Space(path...)
		value, err := s.Blob(ctx, key, opts...)
		if errors.Is(err, batchlog.ErrNotFound) {
			return &notFoundError{what: fmt.Sprintf("no key %s in space %s", key, s)}
		}
		if err != nil {
			return interruption(ctx, err)
		}
		defer func() { err = errors.Join(err, value.Close()) }()
		if flags.offset > value.Size() {
			return usagef("--range %s begins behind the end: the value has %s bytes", flags.part, countText(value.Size()))
		}
		length := value.Size() - flags.offset
		if flags.length >= 0 {
			length = min(length, flags.length)
		}
		if _, err := value.Seek(flags.offset, io.SeekStart); err != nil {
			return err
		}
		if toFile {
			return a.getFile(ctx, value, length, flags)
		}
		return interruption(ctx, copyValue(&checkedWriter{ctx, a.out}, value, length))
	})
}

// getFile writes length bytes of in to the file that the flags name, and says so.
func (a *app) getFile(ctx context.Context, in *batchlog.Blob, length int64, flags getFlags) error {
	stages := &stageMeter{meters: a.meters()}
	written := int64(0)
	err := writeFile(flags.out, flags.force, func(f io.Writer) error {
		out := &checkedWriter{ctx, f}
		return copyValue(writerFunc(func(p []byte) (int, error) {
			n, err := out.Write(p)
			written += int64(n)
			stages.set("read", "B", written, length, written)
			return n, err
		}), in, length)
	})
	stages.end()
	if err != nil {
		return interruption(ctx, err)
	}
	if a.json {
		return a.printJSON(struct {
			File string `json:"file"`
			Size int64  `json:"size"`
		}{flags.out, length})
	}
	_, err = fmt.Fprintf(a.out, "%s to %s\n", bytesText(length), flags.out)
	return err
}

// copyBytes is the buffer with which a part of a value is copied.
const copyBytes = 1 << 20

// copyValue copies length bytes of in, from where it stands, to out.
func copyValue(out io.Writer, in *batchlog.Blob, length int64) error {
	at, err := in.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	var n int64
	if at+length == in.Size() {
		n, err = in.WriteTo(out)
	} else {
		n, err = io.CopyBuffer(out, io.LimitReader(in, length), make([]byte, min(copyBytes, length+1)))
	}
	if err == nil && n != length {
		err = fmt.Errorf("%d bytes of %d: %w", n, length, io.ErrUnexpectedEOF)
	}
	return err
}
