package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"time"
)

// The modes that git gives what a tree holds.
const (
	modeSubmodule = "160000"
	modeNone      = "000000"
)

// A gitCommit is a commit of a history with all that it changes against the one before it in the chain.
type gitCommit struct {
	Hash           string   `json:"hash"`
	Tree           string   `json:"tree"`
	Parents        []string `json:"parents"`
	Author         string   `json:"author"`
	Email          string   `json:"email"`
	Time           string   `json:"time"` // of the author, RFC 3339
	Committer      string   `json:"committer"`
	CommitterEmail string   `json:"committerEmail"`
	Committed      string   `json:"committed"` // RFC 3339
	Subject        string   `json:"subject"`
	Body           string   `json:"body,omitempty"`

	changes []change
}

// commitFormat asks git log for the fields of a gitCommit, each with a NUL behind it.
const commitFormat = "--format=%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%s%x00%b"

// A change is what a commit makes of one path: another mode or blob, or nothing.
type change struct {
	path string
	mode string // modeNone: the path is gone
	hash string // of the blob, or a submodule's commit
}

// stretch is how many commits one git process is asked about: they keep in memory what they have seen.
const stretch = 20000

// history yields the commits of c from the one with index from on. Each has its changes against prev: the
// commit before it in c, first the one that is given ("": nothing). So whoever makes the changes one after the other has
// the tree of the last one.
func (r *repo) history(ctx context.Context, c *chain, from int, prev string) iter.Seq2[*gitCommit, error] {
	return func(yield func(*gitCommit, error) bool) {
		for ; from < c.count(); from += stretch {
			to := min(from+stretch, c.count())
			for commit, err := range r.stretch(ctx, c, from, to, prev) {
				if !yield(commit, err) || err != nil {
					return
				}
			}
			prev = c.at(to - 1)
		}
	}
}

// stretch is history up to the commit with index to, and without it.
func (r *repo) stretch(ctx context.Context, c *chain, from, to int, prev string) iter.Seq2[*gitCommit, error] {
	return func(yield func(*gitCommit, error) bool) {
		var hashes, pairs bytes.Buffer
		for i, before := from, prev; i < to; i++ {
			hash := c.at(i)
			fmt.Fprintln(&hashes, hash)
			fmt.Fprintln(&pairs, strings.TrimRight(hash+" "+before, " "))
			before = hash
		}
		facts, err := r.start(ctx, &hashes, "log", "--no-walk=unsorted", "--stdin", "-z", "--no-color",
			"--no-show-signature", "--no-notes", "--no-mailmap", "--encoding=UTF-8", commitFormat)
		if err != nil {
			yield(nil, err)
			return
		}
		defer facts.close()
		diffs, err := r.start(ctx, &pairs, "diff-tree", "--stdin", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--root",
			"--always", "--ignore-submodules=none")
		if err != nil {
			yield(nil, err)
			return
		}
		defer diffs.close()
		d := diffReader{next: diffs.field}
		for i := from; i < to; i++ {
			commit, err := readCommit(facts)
			if err == nil && commit.Hash != c.at(i) {
				err = fmt.Errorf("git log: commit %s where %s should be", commit.Hash, c.at(i))
			}
			if err == nil {
				commit.changes, err = d.read(commit.Hash)
			}
			if !yield(commit, err) || err != nil {
				return
			}
		}
	}
}

// readCommit reads one commit in commitFormat.
func readCommit(s *gitStream) (*gitCommit, error) {
	var fields [11]string
	for i := range fields {
		text, err := s.field()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("git log: %w", err)
		}
		fields[i] = strings.ToValidUTF8(text, "\ufffd")
	}
	return &gitCommit{
		Hash: fields[0], Tree: fields[1], Parents: append([]string{}, strings.Fields(fields[2])...),
		Author: fields[3], Email: fields[4], Time: rfc3339(fields[5]),
		Committer: fields[6], CommitterEmail: fields[7], Committed: rfc3339(fields[8]),
		Subject: fields[9], Body: strings.TrimRight(fields[10], "\n"),
	}, nil
}

// rfc3339 is a time as git's %aI has it, the same whichever git wrote it. One that is beyond RFC 3339 stays as it is.
func rfc3339(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return text
	}
	return t.Format(time.RFC3339)
}

// A diffReader reads what git diff-tree -z --raw --always writes: for each commit its hash, then for each change
// ":100644 100755 HASH HASH M" and the path, all with a NUL behind.
type diffReader struct {
	next func() (string, error)

	peeked string // the hash that stands behind the changes that were read
	done   bool   // nothing stands there
}

// read reads the changes of the commit with this hash, which must be the next one.
func (d *diffReader) read(hash string) ([]change, error) {
	head := d.peeked
	if head == "" && !d.done {
		var err error
		if head, err = d.next(); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	d.peeked = ""
	if head != hash {
		return nil, fmt.Errorf("git diff-tree: %q where commit %s should be", head, hash)
	}
	var changes []change
	for {
		text, err := d.next()
		if errors.Is(err, io.EOF) {
			d.done = true
			return changes, nil
		}
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(text, ":") {
			d.peeked = text
			return changes, nil
		}
		words := strings.Split(text[1:], " ")
		if len(words) != 5 || len(words[4]) != 1 {
			return nil, fmt.Errorf("git diff-tree: %q is not understood", text)
		}
		path, err := d.next()
		if err != nil {
			return nil, fmt.Errorf("git diff-tree: change without a path: %w", err)
		}
		changes = append(changes, change{path: path, mode: words[1], hash: words[3]})
	}
}

// A blobReader reads blobs through one git cat-file --batch.
type blobReader struct {
	stream *gitStream
	ask    *bufio.Writer
	pipe   io.Closer
}

// blobsAtOnce bounds the blobs that are asked for before the first is read. The questions must fit into a pipe (64 KiB, less on some
// systems), as git answers one before it reads the next.
const blobsAtOnce = 64

func (r *repo) blobs(ctx context.Context) (*blobReader, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s, err := r.start(ctx, in, "cat-file", "--batch")
	if closeErr := in.Close(); err == nil && closeErr != nil {
		s.close()
		err = closeErr
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return &blobReader{stream: s, ask: bufio.NewWriter(out), pipe: out}, nil
}

// read asks for the blobs with these hashes and calls fn for each, in their order, with its size and a reader of
// just so many bytes; what fn leaves of them is passed over.
func (b *blobReader) read(hashes []string, fn func(i int, size int64, content io.Reader) error) error {
	for first := 0; first < len(hashes); first += blobsAtOnce {
		some := hashes[first:min(first+blobsAtOnce, len(hashes))]
		for _, hash := range some {
			fmt.Fprintln(b.ask, hash)
		}
		if err := b.ask.Flush(); err != nil {
			return b.stream.broken(err)
		}
		for i, hash := range some {
			size, err := b.head(hash)
			if err != nil {
				return err
			}
			content := &io.LimitedReader{R: b.stream.out, N: size}
			if err := fn(first+i, size, content); err != nil {
				return err
			}
			if _, err := io.CopyN(io.Discard, b.stream.out, content.N+1); err != nil { // and a line end
				return b.stream.broken(err)
			}
		}
	}
	return nil
}

// head reads "HASH blob SIZE".
func (b *blobReader) head(hash string) (size int64, err error) {
	text, err := b.stream.out.ReadString('\n')
	if err != nil {
		return 0, b.stream.broken(err)
	}
	words := strings.Fields(text)
	switch {
	case len(words) == 3 && words[0] == hash && words[1] == "blob":
		return strconv.ParseInt(words[2], 10, 64)
	case len(words) == 2 && words[1] == "missing":
		return 0, fmt.Errorf("blob %s is missing from the repository: it is damaged, or a partial clone whose origin can't be reached", hash)
	}
	return 0, fmt.Errorf("git cat-file: %q where blob %s should be", strings.TrimSpace(text), hash)
}

func (b *blobReader) close() {
	_ = b.pipe.Close() // git ends by itself, or is killed next
	b.stream.close()
}
