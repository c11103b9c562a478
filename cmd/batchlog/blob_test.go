package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bytespace/batchlog"
)

// noise is n bytes that are the same each time.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// put --file makes a blob of a file or of stdin, and get brings it back, whole or in part, to stdout or to a file.
func TestBlobFiles(t *testing.T) {
	c := newCLI(t)
	content := noise(5_000_000)
	hash := fmt.Sprintf("%x", sha256.Sum256(content))
	name := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	equal(t, "put", c.must("put", "s", "a", "--file", name, "--label", "why=test"), "commit 1: 5.00 MB, sha256 "+hash+"\n")
	r := c.feed(string(content), "put", "s", "b", "--file", "-", "--json", "--token", "t")
	equal(t, "put of stdin", r.out, `{"id":2,"sha256":"`+hash+`","size":5000000}`+"\n")
	r = c.feed(string(content), "put", "s", "b", "--file", "-", "--json", "--token", "t")
	equal(t, "put again", r.out, `{"id":2,"sha256":"`+hash+`","size":5000000}`+"\n")
	c.must("put", "s", "c", "plain")
	for _, key := range []string{"a", "b"} {
		if c.must("get", "s", key) != string(content) {
			t.Error("another content came back")
		}
	}
	equal(t, "range", c.must("get", "s", "a", "--range", "2000000:1000"), string(content[2_000_000:2_001_000]))
	equal(t, "range to the end", c.must("get", "s", "a", "--range", "4999990:"), string(content[4_999_990:]))
	equal(t, "range beyond the end", c.must("get", "s", "a", "--range", "4999990:1MiB"), string(content[4_999_990:]))
	equal(t, "range of what is no blob", c.must("get", "s", "c", "--range", "1:3"), "lai")
	equal(t, "empty range", c.must("get", "s", "c", "--range", "5:0"), "")

	out := filepath.Join(t.TempDir(), "out")
	equal(t, "get --out", c.must("get", "s", "a", "--out", out), "5.00 MB to "+out+"\n")
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.fails(exitError, []string{"is there already", "--force overwrites it"}, "get", "s", "c", "--out", out)
	equal(t, "get --force", c.must("get", "s", "c", "--out", out, "--force", "--json"), fmt.Sprintf("{\"file\":%q,\"size\":5}\n", out))
	if got, err := os.ReadFile(out); err != nil || string(got) != "plain" {
		t.Errorf("%q, %v", got, err)
	}
	c.fails(exitNotFound, []string{`no key "x" in space s`}, "get", "s", "x", "--out", out+"2")
	c.fails(exitUsage, []string{"begins behind the end"}, "get", "s", "c", "--range", "6:1", "--out", out+"2")
	c.fails(exitError, []string{"is a directory"}, "get", "s", "c", "--out", filepath.Dir(out))
	c.fails(exitUsage, []string{"--force is for --out"}, "get", "s", "c", "--force")
	c.fails(exitUsage, []string{"a colon is missing"}, "get", "s", "c", "--range", "6")
	c.fails(exitUsage, []string{"is no number of bytes"}, "get", "s", "c", "--range", "x:")
	c.fails(exitUsage, []string{"exclude each other"}, "put", "s", "c", "v", "--file", name)
	c.fails(exitUsage, []string{"--file is empty"}, "put", "s", "c", "--file", "")
	c.fails(exitError, []string{"no such file"}, "put", "s", "c", "--file", name+"x")
	c.fails(exitError, []string{"is a directory"}, "put", "s", "c", "--file", filepath.Dir(name))
	if files, err := os.ReadDir(filepath.Dir(out)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}

	ref := `{"sha256":"` + hash + `","size":5000000}`
	equal(t, "scan", c.must("scan", "s"), `"a"`+"\t<blob 5.00 MB sha256:"+hash+">\n"+`"b"`+"\t<blob 5.00 MB sha256:"+hash+">\n"+`"c"`+"\tplain\n")
	equal(t, "scan --json", c.must("scan", "s", "--json", "--to", "b"), `{"key":"a","blob":`+ref+"}\n")
	if text := c.must("scan", "s", "--json", "--blobs", "--limit", "1"); len(text) < 5_000_000 {
		t.Errorf("%d bytes of scan --blobs", len(text))
	}
	line := c.must("tail", "--until", "1")
	if !strings.HasSuffix(line, `"labels":{"why":"test"},"ops":[{"put":{"space":"s","key":"a","blob":`+ref+"}}]}\n") {
		t.Error(line)
	}
	// The line is one that write takes.
	var commit struct{ Ops json.RawMessage }
	if err := json.Unmarshal([]byte(line), &commit); err != nil {
		t.Fatal(err)
	}
	batch := strings.ReplaceAll(`{"ops":`+string(commit.Ops)+"}\n", `"a"`, `"d"`)
	if r := c.feed(batch, "write"); r.code != 0 {
		t.Fatal(r.out, r.err)
	}
	if c.must("get", "s", "d") != string(content) {
		t.Error("another content came back")
	}
	r = c.feed(strings.ReplaceAll(batch, hash, strings.Repeat("0", 64)), "write")
	c.check(r, exitNotFound, []string{"store its content first"})
}

// A blob that is damaged never makes a file, and what was there stays.
func TestGetDamagedBlob(t *testing.T) {
	c := newCLI(t)
	content := noise(3_000_000)
	r := c.feed(string(content), "put", "s", "a", "--file", "-")
	c.check(r, 0, nil)
	damaged := 0
	err := filepath.WalkDir(filepath.Join(c.db, "blobs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) < len(content) {
			return err
		}
		b[len(b)-500_000] ^= 1
		damaged++
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || damaged != 1 {
		t.Fatalf("%d files damaged, %v", damaged, err)
	}
	out := file(t, "out", "before")
	c.fails(exitError, []string{`value of "a" in space s`, "batchlog verify"}, "get", "s", "a", "--out", out, "--force")
	if got, err := os.ReadFile(out); err != nil || string(got) != "before" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.fails(exitError, []string{`value of "a" in space s`}, "get", "s", "a", "--out", out+"2")
	if files, err := os.ReadDir(filepath.Dir(out)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	got := c.fails(exitError, []string{`value of "a" in space s`}, "get", "s", "a")
	if !strings.HasPrefix(string(content), got.out) {
		t.Error("wrong bytes")
	}
}

// Ctrl-C ends a put --file even while stdin hangs, and nothing is there.
func TestPutFileInterrupted(t *testing.T) {
	c := newCLI(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	in := &stalling{bytes.NewReader(noise(3_000_000)), func() { cancel(&interruptError{signal: syscall.SIGINT}) }}
	r := c.runWith(ctx, in, "put", "s", "a", "--file", "-")
	c.check(r, 130, []string{"interrupted"})
	equal(t, "head", headOf(t, c), 0)
	c.fails(exitNotFound, nil, "get", "s", "a")
}

// Values from a size on are blobs once the log is configured so; blobs that nothing refers to are swept.
func TestBlobBytes(t *testing.T) {
	c := newCLI(t)
	text := c.must("space", "configure", "/", "--blob-bytes", "64KiB")
	if !strings.Contains(text, "changed:") {
		t.Error(text)
	}
	for _, args := range [][]string{{"space", "ls"}, {"status"}} {
		if text := c.must(args...); !strings.Contains(text, "values from 64 KiB on as blobs") {
			t.Error(text)
		}
	}
	c.fails(exitUsage, []string{"is larger than a value that is no blob can be"}, "space", "configure", "/", "--blob-bytes", "5GiB")
	c.fails(exitError, []string{"BlobBytes"}, "space", "configure", "/", "--blob-bytes", "7")
	c.must("space", "configure", "/", "--hot-ttl", "0s") // leaves it
	large := strings.Repeat("x", 100_000)
	r := c.feed(large, "put", "s", "large")
	c.check(r, 0, nil)
	c.must("put", "s", "small", "y")
	if text := c.must("scan", "s"); !strings.Contains(text, "\"large\"\t<blob 100 kB sha256:") || !strings.Contains(text, "\"small\"\ty") {
		t.Error(text)
	}
	equal(t, "value", c.must("get", "s", "large"), large)
	if text := c.must("scan", "s", "--blobs", "--limit", "1"); !strings.Contains(text, large) {
		t.Errorf("%d bytes of scan --blobs", len(text))
	}
	if text := c.must("blob", "sweep", "--older-than", "0s"); !strings.HasPrefix(text, "removed 0 blobs, 0 B; 1 left, ") {
		t.Error(text)
	}
	var orphan string
	a := &app{dir: c.db, err: io.Discard}
	db, err := a.openDB(c.db, false)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := db.StoreBlob(t.Context(), strings.NewReader("nobody's"))
	if err != nil {
		t.Fatal(err)
	}
	orphan = ref.String()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var swept sweptBlobs
	if err := json.Unmarshal([]byte(c.must("blob", "sweep", "--json")), &swept); err != nil || swept.Removed != 0 {
		t.Errorf("%+v, %v", swept, err)
	}
	if err := json.Unmarshal([]byte(c.must("blob", "sweep", "--older-than", "0s", "--json")), &swept); err != nil || swept.Removed != 1 || swept.Blobs != 1 {
		t.Errorf("%+v, %v", swept, err)
	}
	c.open(func(db *batchlog.DB) {
		var b batchlog.Batch
		b.PutRef(db.Space("s"), batchlog.K("x"), ref)
		if _, err := db.Write(t.Context(), &b); err == nil {
			t.Errorf("blob %s is still there", orphan)
		}
	})
}
