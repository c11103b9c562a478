package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/opjson"
	"github.com/bytespace/batchlog/local"
)

// rangeFlags are the flags of commands that work on a range of keys.
type rangeFlags struct {
	prefix, from, to string
	given            func(flag string) bool
}

func (f *rangeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "only string keys that begin with `P`, or array keys if P is a JSON array")
	cmd.Flags().StringVar(&f.from, "from", "", "only keys from `KEY` on")
	cmd.Flags().StringVar(&f.to, "to", "", "only keys below `KEY`")
	f.given = cmd.Flags().Changed
}

type scanFlags struct {
	readFlags
	rangeFlags
	reverse bool
	limit   int
	blobs   bool
}

func newScan(a *app) *cobra.Command {
	var flags scanFlags
	cmd := &cobra.Command{
		Use:   "scan SPACE",
		Short: "List the keys of a space with their values",
		Long: `Keys come in their order, as they all were at one moment; those of spaces within SPACE are not among them. A line is the
key, a tab and the value: as it is where it is printable text, quoted where it has line ends or tabs, else 0x and its
bytes in hex. With --json a line is {"key":…,"value":…}, with {"$base64":"…"} for values that are not UTF-8.

Of a blob there is its size and hash: <blob 1.20 GB sha256:…>, or {"key":…,"blob":{"sha256":"…","size":…}}. With --blobs its content is
read, unless it is larger than a value that is no blob may be (64 MiB); get reads one of any size.`,
		Example: `  batchlog scan users
  batchlog scan users --prefix al
  batchlog scan users/eu --prefix '["bob"]' --json
  batchlog scan users --from alice --to carol --reverse --limit 10`,
		Args: takes(1, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error { return a.scan(ctx, args[0], flags) }),
	}
	flags.rangeFlags.add(cmd)
	cmd.Flags().BoolVar(&flags.reverse, "reverse", false, "from the highest key to the lowest")
	cmd.Flags().IntVar(&flags.limit, "limit", 0, "at most `N` keys; 0: all")
	cmd.Flags().BoolVar(&flags.blobs, "blobs", false, "read the content of blobs, too")
	flags.readFlags.add(cmd)
	return cmd
}

// keys is the range that the flags stand for.
func (f *rangeFlags) keys() (batchlog.Range, error) {
	var r batchlog.Range
	var err error
	if f.given("prefix") {
		if r, err = parsePrefix(f.prefix); err != nil {
			return r, err
		}
	}
	if f.given("from") {
		low, err := parseKey(f.from)
		if err != nil {
			return r, err
		}
		if bytes.Compare(low, r.Low) > 0 {
			r.Low = low
		}
	}
	if f.given("to") {
		high, err := parseKey(f.to)
		if err != nil {
			return r, err
		}
		if r.High == nil || bytes.Compare(high, r.High) < 0 {
			r.High = high
		}
	}
	return r, nil
}

func (a *app) scan(ctx context.Context, space string, flags scanFlags) error {
	path, err := pathArg(space)
	if err != nil {
		return err
	}
	r, err := flags.keys()
	if err != nil {
		return err
	}
	if flags.limit < 0 {
		return usagef("--limit %d is negative", flags.limit)
	}
	opts, err := flags.options()
	if err != nil {
		return err
	}
	if flags.reverse {
		opts = append(opts, batchlog.ScanReverse())
	}
	if !flags.blobs {
		opts = append(opts, batchlog.BlobRefs())
	}
	return a.withDB(false, func(db *local.DB) error {
		n := 0
		var line []byte
		for e, err := range db.Space(path...).Scan(ctx, r, opts...) {
			if err != nil {
				return interruption(ctx, err)
			}
			if line, err = appendEntry(line[:0], e, a.json); err != nil {
				return err
			}
			if _, err := a.out.Write(line); err != nil {
				return fmt.Errorf("write output: %w", err)
			}
			if n++; n == flags.limit {
				return nil
			}
		}
		return nil
	})
}

// appendEntry appends e as a line of scan.
func appendEntry(dst []byte, e batchlog.Entry, asJSON bool) (_ []byte, err error) {
	if !asJSON {
		dst = append(dst, e.Key.String()...)
		dst = append(dst, '\t')
		if e.Blob != nil && e.Value == nil {
			return fmt.Appendf(dst, "<blob %s sha256:%s>\n", bytesText(e.Blob.Size), e.Blob), nil
		}
		return append(appendReadable(dst, e.Value), '\n'), nil
	}
	dst, err = opjson.AppendEntry(dst, e)
	return append(dst, '\n'), err
}

// appendReadable appends a value for people, on one line.
func appendReadable(dst, value []byte) []byte {
	if !utf8.Valid(value) {
		return hex.AppendEncode(append(dst, "0x"...), value)
	}
	printable := true
	for _, r := range string(value) {
		switch {
		case unicode.IsPrint(r):
		case unicode.IsSpace(r):
			printable = false
		default:
			return hex.AppendEncode(append(dst, "0x"...), value)
		}
	}
	if printable {
		return append(dst, value...)
	}
	return strconv.AppendQuote(dst, string(value))
}
