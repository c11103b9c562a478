package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOpenRepo(t *testing.T) {
	r := newRepo(t)
	r.linear(1)
	r.git("checkout", "--quiet", "main")
	sub := filepath.Join(r.dir, "dir0", "deeper")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(t.TempDir(), "mirror.git")
	r.git("clone", "--quiet", "--bare", r.dir, bare)
	tree := filepath.Join(t.TempDir(), "linked")
	r.git("worktree", "add", "--quiet", "--detach", tree)
	for _, c := range []struct{ dir, want string }{
		{r.dir, r.dir}, {sub, r.dir}, {filepath.Join(r.dir, ".git"), r.dir}, {bare, bare}, {tree, tree},
	} {
		got, err := openRepo(t.Context(), c.dir)
		if err != nil {
			t.Errorf("%s: %v", c.dir, err)
			continue
		}
		if want, err := filepath.EvalSymlinks(c.want); err != nil || got.dir != want || got.name != filepath.Base(want) || got.hashLen != 40 {
			t.Errorf("%s: %+v, want %s, %v", c.dir, got, want, err)
		}
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(r.dir, "none"), filepath.Join(r.dir, "README.md")} {
		if got, err := openRepo(t.Context(), dir); err == nil {
			t.Errorf("%s is %+v", dir, got)
		}
	}
}

// What the environment says of another repository, as in a hook, is not for us.
func TestOpenRepoInAHook(t *testing.T) {
	r, other := newRepo(t), newRepo(t)
	t.Setenv("GIT_DIR", filepath.Join(other.dir, ".git"))
	t.Setenv("GIT_WORK_TREE", other.dir)
	got, err := openRepo(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := filepath.EvalSymlinks(r.dir); got.dir != want {
		t.Errorf("repository %s, want %s", got.dir, want)
	}
}

func TestResolve(t *testing.T) {
	empty, full := newRepo(t), newRepo(t)
	full.linear(2)
	full.git("tag", "-a", "v1", "-m", "tag", "main")
	open := func(r *testRepo) *repo {
		got, err := openRepo(t.Context(), r.dir)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	var none *emptyRepoError
	if _, err := open(empty).resolve(t.Context(), "HEAD"); !errors.As(err, &none) {
		t.Errorf("empty repository: %v", err)
	}
	main := full.lines("rev-parse", "main")[0]
	for _, rev := range []string{"HEAD", "main", "v1", main, main[:10]} {
		if got, err := open(full).resolve(t.Context(), rev); got != main || err != nil {
			t.Errorf("%s is %s, %v, want %s", rev, got, err, main)
		}
	}
	for _, rev := range []string{"nope", "--all", "-x", "", "main:README.md"} {
		if got, err := open(full).resolve(t.Context(), rev); err == nil || !strings.Contains(err.Error(), "has no commit") {
			t.Errorf("%q is %s, %v", rev, got, err)
		}
	}
}

func TestChain(t *testing.T) {
	r := newRepo(t)
	r.messy(1, 60)
	repo, err := openRepo(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		args := []string{"rev-list", "--reverse", "--first-parent", "main"}
		if all {
			args = []string{"rev-list", "--reverse", "--topo-order", "--all"}
		}
		want := r.lines(args...)
		c, err := repo.chain(t.Context(), want[len(want)-1], all)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range c.count() {
			got = append(got, c.at(i))
			equal(t, "index", c.index(c.at(i)), i)
		}
		if !slices.Equal(got, want) {
			t.Errorf("all %t: %d commits, want %d", all, len(got), len(want))
		}
		equal(t, "index of another", c.index(strings.Repeat("0", 40)), -1)
		equal(t, "index of no hash", c.index("xyz"), -1)
	}
}

// History has what git says of each commit, over more than one stretch of it.
func TestHistory(t *testing.T) {
	r := newRepo(t)
	r.messy(2, 40)
	repo, err := openRepo(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := repo.chain(t.Context(), "main", false)
	if err != nil {
		t.Fatal(err)
	}
	for from := range c.count() {
		prev := ""
		if from > 0 {
			prev = c.at(from - 1)
		}
		i := from
		for commit, err := range repo.history(t.Context(), c, from, prev) {
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "hash", commit.Hash, c.at(i))
			equal(t, "parents", strings.Join(commit.Parents, " "), strings.TrimSpace(r.git("log", "-1", "--format=%P", commit.Hash)))
			equal(t, "subject", commit.Subject, strings.TrimSpace(r.git("log", "-1", "--format=%s", commit.Hash)))
			i++
			if i == from+3 {
				break // a reader may stop at any commit
			}
		}
	}
}

func TestDiffReader(t *testing.T) {
	text := []string{"aa", ":000000 100644 0 1 A", "path", ":100644 000000 1 0 D", ":odd", "bb", "cc", ":100644 120000 1 2 T", "aa"}
	at := 0
	d := diffReader{next: func() (string, error) {
		if at == len(text) {
			return "", io.EOF
		}
		at++
		return text[at-1], nil
	}}
	var got []string
	for _, hash := range []string{"aa", "bb", "cc"} {
		changes, err := d.read(hash)
		got = append(got, fmt.Sprintf("%s%v%v", hash, changes, err))
	}
	want := []string{"aa[{path 100644 1} {:odd 000000 0}]<nil>", "bb[]<nil>", "cc[{aa 120000 2}]<nil>"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range [][]string{{}, {"bb"}, {"aa", ":x"}, {"aa", ":000000 100644 0 1 A"}, {"aa", ":000000 100644 0 1 R100", "a", "b"}} {
		at, text = 0, bad
		d := diffReader{next: d.next}
		if changes, err := d.read("aa"); err == nil {
			t.Errorf("%q is read as %v", bad, changes)
		}
	}
}

func TestBlobs(t *testing.T) {
	r := newRepo(t)
	var want []string
	var hashes []string
	for i := range 150 {
		content := strings.Repeat(fmt.Sprint(i, "\n"), i*i%5000)
		want = append(want, content)
		hashes = append(hashes, strings.TrimSpace(r.gitIn([]byte(content), "hash-object", "-w", "--stdin")))
		equal(t, "hash", (&repo{hashLen: 40}).blobHash([]byte(content)), hashes[i])
	}
	repo, err := openRepo(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := repo.blobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.close()
	n := 0
	err = blobs.read(hashes, func(i int, size int64, content io.Reader) error {
		equal(t, "size", size, int64(len(want[i])))
		n++
		if i%3 == 0 {
			return nil // what is left is passed over
		}
		got, err := io.ReadAll(content)
		if string(got) != want[i] {
			t.Errorf("blob %d has %d bytes, want %d", i, len(got), size)
		}
		return err
	})
	if err != nil || n != len(hashes) {
		t.Errorf("%d blobs, %v", n, err)
	}
	if err := blobs.read([]string{strings.Repeat("1", 40)}, nil); err == nil || !strings.Contains(err.Error(), "is missing from the repository") {
		t.Error(err)
	}
}

func TestBlobsOfGitThatDies(t *testing.T) {
	r := newRepo(t)
	r.linear(1)
	repo, err := openRepo(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	blobs, err := repo.blobs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.close()
	cancel(errBroken)
	if err := blobs.read([]string{strings.Repeat("1", 40)}, nil); !errors.Is(err, errBroken) {
		t.Errorf("%v, want the context's cause", err)
	}
}

func TestGitErrorsSayWhy(t *testing.T) {
	r := newRepo(t)
	repo, err := openRepo(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = repo.chain(t.Context(), "nope", false)
	if err == nil || !strings.Contains(err.Error(), "git rev-list: bad revision 'nope'") {
		t.Error(err)
	}
	for _, err := range repo.tree(t.Context(), "nope") {
		if err == nil || !strings.Contains(err.Error(), "git ls-tree: Not a valid object name nope") {
			t.Error(err)
		}
	}
}
