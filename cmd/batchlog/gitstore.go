package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
)

// A gitStore is where the history of one repository is kept. Each git commit is one batch, which leaves the tree of
// that commit in files and modes.
//
//	git/NAME/files     path → content of the blob
//	git/NAME/modes     path → "100644", "100755", "120000", or "160000 HASH" for a submodule, which has no content
//	git/NAME/omitted   path → {"hash","size"} of a blob larger than --max-blob, which is not in files
//	git/NAME/commits   hash → the commit as JSON: author, time, subject, parents …
//	git/NAME/state     "head" → which commit that is
//
// A path is a string key; one that is not UTF-8 is a key of bytes.
type gitStore struct {
	db   *batchlog.DB
	name string

	files, modes, omitted, commits, state *batchlog.Space
}

// maxNameBytes bounds NAME, so that a token with it and a hash in it is not too long.
const maxNameBytes = 160

func newGitStore(db *batchlog.DB, name string) (*gitStore, error) {
	switch {
	case !utf8.ValidString(name):
		return nil, fmt.Errorf("the name %q is not UTF-8; give another with --name", name)
	case name == "" || len(name) > maxNameBytes:
		return nil, fmt.Errorf("the name %q has %d bytes, from 1 to %d are possible; give another with --name", name, len(name), maxNameBytes)
	}
	s := db.Space("git", name)
	return &gitStore{
		db: db, name: name,
		files: s.Space("files"), modes: s.Space("modes"), omitted: s.Space("omitted"), commits: s.Space("commits"), state: s.Space("state"),
	}, nil
}

// space is the one that holds it all.
func (g *gitStore) space() *batchlog.Space { return g.db.Space("git", g.name) }

// String is the path of that space.
func (g *gitStore) String() string { return g.space().String() }

// A gitHead is the state of an import: it is written with each commit.
type gitHead struct {
	Hash  string `json:"hash"`            // the newest commit that is imported; files and modes are its tree
	Count int64  `json:"count"`           // commits that are imported
	All   bool   `json:"all,omitempty"`   // whether they are all commits of the repository, or the first parents of one
	Lossy bool   `json:"lossy,omitempty"` // whether --max-blob was ever given: omitted may have keys
}

var headKey = batchlog.K("head")

// head is the state at a view; the zero value before the first import.
func (g *gitStore) head(v *batchlog.View) (gitHead, error) {
	var h gitHead
	value, err := v.Get(g.state, headKey)
	if errors.Is(err, batchlog.ErrNotFound) {
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &h)
	}
	if err != nil {
		return h, fmt.Errorf("state of the import in %s: %w", g.state, err)
	}
	return h, nil
}

// An omittedBlob stands for a blob that is larger than --max-blob.
type omittedBlob struct {
	Hash string `json:"hash"`
	Size int64  `json:"size"`
}

// A batchBuilder makes the ops of git commits, one after the other: a batch for each, or all into one chain.
type batchBuilder struct {
	*gitStore
	blobs   *blobReader
	maxBlob int64 // 0: no bound

	out interface { // where ops go
		Put(s *batchlog.Space, k batchlog.Key, value []byte)
		Delete(s *batchlog.Space, k batchlog.Key)
	}
	batch *batchlog.Batch // that is being made; nil: out is a chain
	full  bool            // not all of the ops are in out: that would be too large
	buf   []byte
}

// build makes the batch that imports c and leaves the state at head.
func (b *batchBuilder) build(c *gitCommit, head gitHead) (*batchlog.Batch, error) {
	b.batch = &batchlog.Batch{Token: "git:" + b.name + ":" + c.Hash, Labels: commitLabels(c)}
	b.out = b.batch
	if err := b.add(c, head); err != nil {
		return nil, err
	}
	return b.batch, nil
}

// commitLabels are the labels of the commit that leaves the tree of c.
func commitLabels(c *gitCommit) map[string]string {
	return map[string]string{"author": labelText(c.Author), "time": labelText(c.Time), "hash": c.Hash}
}

// add adds the ops that import c and leave the state at head.
func (b *batchBuilder) add(c *gitCommit, head gitHead) error {
	b.full = false
	blobBytes, err := b.putBlobs(c, head.Lossy)
	if err != nil {
		return fmt.Errorf("git commit %s: %w", c.Hash, err)
	}
	for _, change := range c.changes {
		b.apply(change, head.Lossy)
	}
	if err := b.putJSON(b.commits, batchlog.K(c.Hash), c); err != nil {
		return err
	}
	if err := b.putJSON(b.state, headKey, head); err != nil {
		return err
	}
	if b.full {
		return &largeCommitError{commit: c, bytes: blobBytes, maxBlob: b.maxBlob, atomic: b.batch == nil}
	}
	return nil
}

// labelText is the first few KiB of s, as labels have a limit and authors' names have none.
func labelText(s string) string {
	if len(s) > 4096 {
		s = strings.ToValidUTF8(s[:4096], "")
	}
	return s
}

// apply adds what a change does, but for the content of a blob.
func (b *batchBuilder) apply(c change, lossy bool) {
	key := history.PathKey(c.path)
	switch c.mode {
	case modeNone:
		b.delete(b.files, key)
		b.delete(b.modes, key)
	case modeSubmodule:
		b.delete(b.files, key) // it may have been a file before
		b.put(b.modes, key, []byte(c.mode+" "+c.hash))
	default:
		b.put(b.modes, key, []byte(c.mode))
		return
	}
	if lossy {
		b.delete(b.omitted, key)
	}
}

// putBlobs adds the contents of what c puts and says how many bytes they are together.
func (b *batchBuilder) putBlobs(c *gitCommit, lossy bool) (total int64, err error) {
	var puts []change
	var hashes []string
	for _, change := range c.changes {
		if change.mode != modeNone && change.mode != modeSubmodule {
			puts = append(puts, change)
			hashes = append(hashes, change.hash)
		}
	}
	err = b.blobs.read(hashes, func(i int, size int64, content io.Reader) error {
		key := history.PathKey(puts[i].path)
		if b.maxBlob > 0 && size > b.maxBlob {
			b.delete(b.files, key)
			return b.putJSON(b.omitted, key, omittedBlob{Hash: puts[i].hash, Size: size})
		}
		total += size
		if b.full = b.full || size > batchlog.MaxValueBytes; b.full {
			return nil // only count
		}
		b.buf = slices.Grow(b.buf[:0], int(size))[:size]
		if _, err := io.ReadFull(content, b.buf); err != nil {
			return fmt.Errorf("blob %s: %w", hashes[i], err)
		}
		b.put(b.files, key, b.buf)
		if lossy {
			b.delete(b.omitted, key)
		}
		return nil
	})
	return total, err
}

// fits says whether an op of so many bytes, path of the space and lengths left out, goes into out as well.
func (b *batchBuilder) fits(bytes int) bool {
	if b.batch == nil {
		return true // a chain has no bound
	}
	const beside = 1024 // path and lengths; rather more than they take
	b.full = b.full || b.batch.Size()+bytes+beside > batchlog.MaxBatchBytes-batchlog.MaxMetaBytes
	return !b.full
}

func (b *batchBuilder) put(s *batchlog.Space, k batchlog.Key, value []byte) {
	if b.fits(len(k) + len(value)) {
		b.out.Put(s, k, value)
	}
}

func (b *batchBuilder) delete(s *batchlog.Space, k batchlog.Key) {
	if b.fits(len(k)) {
		b.out.Delete(s, k)
	}
}

func (b *batchBuilder) putJSON(s *batchlog.Space, k batchlog.Key, v any) error {
	text, err := json.Marshal(v)
	b.put(s, k, text)
	return err
}

// A largeCommitError says that a git commit changes more than a batch holds.
type largeCommitError struct {
	commit  *gitCommit
	bytes   int64 // of the blobs that it puts
	maxBlob int64
	atomic  bool // it was to go into a chain, which only a blob can be too large for
}

func (e *largeCommitError) Error() string {
	if e.atomic {
		return fmt.Sprintf("git commit %s (%s) has a blob that is larger than a value can be, %s bytes; --max-blob BYTES leaves out the content of larger blobs", e.commit.Hash,
			printable(clipped(e.commit.Subject, 60, "…")), countText(batchlog.MaxValueBytes))
	}
	text := fmt.Sprintf("git commit %s (%s) is too large: it changes %s, %s of content, and a batch holds %s", e.commit.Hash,
		printable(clipped(e.commit.Subject, 60, "…")), counted(len(e.commit.changes), "path"), bytesText(e.bytes), limitText(batchlog.MaxBatchBytes))
	if e.maxBlob == 0 {
		return text + "; --max-blob BYTES leaves out the content of larger blobs"
	}
	return text + fmt.Sprintf("; a --max-blob below %s leaves out more", limitText(e.maxBlob))
}

// Is makes it a batchlog.ErrTooLarge.
func (e *largeCommitError) Is(target error) bool { return target == batchlog.ErrTooLarge }
