package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// open opens the database of c for a test that looks into it.
func (c *cli) open(look func(db *batchlog.DB)) {
	c.t.Helper()
	a := &app{dir: c.db, err: io.Discard}
	db, err := a.openDB(c.db, false)
	if err != nil {
		c.t.Fatal(err)
	}
	look(db.DB)
	if err := db.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// A folded is what the commits of one import add up to.
type folded struct {
	hashes []string // of the git commits, in the order of ids
	tree   map[string]string
}

// foldHistory follows the log from its beginning and compares, at each commit, what it adds up to with the tree that git has.
func foldHistory(t *testing.T, db *batchlog.DB, r *testRepo, name string) folded {
	t.Helper()
	f := folded{tree: map[string]string{}}
	s := db.Space("git", name)
	files, modes := map[string]string{}, map[string]string{}
	want := batchlog.ID(0)
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: must1(db.Head(t.Context()))(t)}) {
		if err != nil {
			t.Fatal(err)
		}
		want++
		equal(t, "id", c.ID, want)
		hash := c.Labels["hash"]
		f.hashes = append(f.hashes, hash)
		for op, err := range c.Ops() {
			if err != nil {
				t.Fatal(err)
			}
			of := map[string]map[string]string{"files": files, "modes": modes}[fmt.Sprint(op.Space.Path()[2])]
			if of == nil {
				continue
			}
			if !op.Space.Equal(s.Space(op.Space.Path()[2])) {
				t.Fatalf("op in space %s", op.Space)
			}
			path := pathOf(t, op.Key)
			switch op.Kind {
			case batchlog.OpPut:
				of[path] = string(op.Value)
			case batchlog.OpDelete:
				delete(of, path)
			default:
				t.Fatalf("op %s", op.Kind)
			}
		}
		f.tree = map[string]string{}
		for path, mode := range modes {
			if strings.HasPrefix(mode, modeSubmodule) {
				if _, ok := files[path]; ok {
					t.Fatalf("commit %d: submodule %q has a content", c.ID, path)
				}
				f.tree[path] = mode
				continue
			}
			content, ok := files[path]
			if !ok {
				t.Fatalf("commit %d: %q has a mode and no content", c.ID, path)
			}
			f.tree[path] = mode + " " + r.hash(content)
		}
		for path := range files {
			if modes[path] == "" {
				t.Fatalf("commit %d: %q has a content and no mode", c.ID, path)
			}
		}
		if git := r.tree(hash); !maps.Equal(f.tree, git) {
			t.Fatalf("commit %d, git commit %s:\n got %q\nwant %q", c.ID, hash, f.tree, git)
		}
	}
	return f
}

func pathOf(t *testing.T, k batchlog.Key) string {
	t.Helper()
	switch v := must1(k.Decode())(t).(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	t.Fatalf("key %s is no path", k)
	return ""
}

// must1 is v, if there is no error.
func must1[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestImportGit(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s all=%t", format, all), func(t *testing.T) {
				r := newRepo(t, "--object-format="+format)
				r.messy(3, 80)
				c := newCLI(t)
				args := []string{"import", "git", r.dir}
				want := r.lines("rev-list", "--reverse", "--first-parent", "main")
				if all {
					args = append(args, "--all")
					want = r.lines("rev-list", "--reverse", "--topo-order", "--all")
				}
				c.must(args...)
				c.open(func(db *batchlog.DB) {
					f := foldHistory(t, db, r, "repo")
					if !slices.Equal(f.hashes, want) {
						t.Errorf("commits %q, want %q", f.hashes, want)
					}
				})
				if text := c.must("verify", "git", r.dir); !strings.Contains(text, "equal to git ls-tree -r") {
					t.Error(text)
				}
				if text := c.must("verify"); !strings.Contains(text, "no problems") {
					t.Error(text)
				}
				if text := c.must(args...); !strings.Contains(text, "is up to date") {
					t.Error(text)
				}
				equal(t, "head after a second run", headOf(t, c), float64(len(want)))
			})
		}
	}
}

// What is kept of a commit is what git says of it.
func TestImportKeepsFacts(t *testing.T) {
	r := newRepo(t)
	r.commit("main", "not \xff utf-8", "subject\nof two lines\n\nbody\n\nand more\n", nil, testFile{"100644", "é", "ü"})
	r.flush()
	c := newCLI(t)
	c.must("import", "git", r.dir)
	hash := r.lines("rev-parse", "main")[0]
	var got gitCommit
	if err := json.Unmarshal([]byte(c.must("get", "git/repo/commits", hash)), &got); err != nil {
		t.Fatal(err)
	}
	want := gitCommit{
		Hash: hash, Tree: r.lines("rev-parse", "main^{tree}")[0], Parents: []string{}, Author: "not \ufffd utf-8", Email: "a@example.com", Time: "2023-11-14T23:44:21+01:30",
		Committer: "C", CommitterEmail: "c@example.com", Committed: "2023-11-14T22:14:22Z", Subject: "subject of two lines", Body: "body\n\nand more",
	}
	equal(t, "commit", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	var commit struct{ Labels map[string]string }
	if err := json.Unmarshal([]byte(c.must("tail", "--until", "head")), &commit); err != nil {
		t.Fatal(err)
	}
	if l := commit.Labels; len(l) != 3 || l["author"] != want.Author || l["time"] != want.Time || l["hash"] != hash {
		t.Errorf("labels %q", l)
	}
	equal(t, "mode", c.must("get", "git/repo/modes", "é"), "100644")
	equal(t, "content", c.must("get", "git/repo/files", "é"), "ü")
}

func TestImportOtherShapes(t *testing.T) {
	origin := newRepo(t)
	origin.messy(4, 30)
	main := origin.lines("rev-list", "--reverse", "--first-parent", "main")
	bare := filepath.Join(t.TempDir(), "mirror.git")
	origin.git("clone", "--quiet", "--mirror", origin.dir, bare)
	shallow := filepath.Join(t.TempDir(), "shallow")
	origin.git("clone", "--quiet", "--depth=2", "--bare", "file://"+origin.dir, shallow)
	for _, s := range []struct {
		dir  string
		want int
	}{{bare, len(main)}, {shallow, 2}} {
		c := newCLI(t)
		r := &testRepo{t: t, dir: s.dir, format: "sha1"}
		c.must("import", "git", s.dir)
		c.open(func(db *batchlog.DB) {
			equal(t, "commits of "+s.dir, len(foldHistory(t, db, r, filepath.Base(s.dir)).hashes), s.want)
		})
		c.must("verify", "git", s.dir)
	}
}

func TestImportRefusals(t *testing.T) {
	empty, full := newRepo(t), newRepo(t)
	full.linear(3)
	c := newCLI(t)
	c.fails(exitError, []string{"has no commits yet: nothing to import"}, "import", "git", empty.dir)
	c.fails(exitError, []string{"has no commits yet: nothing to import"}, "import", "git", empty.dir, "--all")
	c.fails(exitError, []string{"has no commits yet"}, "demo", empty.dir)
	c.fails(exitError, []string{`has no commit "nope"`}, "import", "git", full.dir, "--rev", "nope")
	c.fails(exitError, []string{"not a git repository"}, "import", "git", t.TempDir())
	c.fails(exitError, []string{"no such file"}, "import", "git", filepath.Join(full.dir, "none"))
	if _, err := os.Stat(c.db); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused import has made a database: %v", err)
	}
	c.fails(exitError, []string{"from 1 to 160 are possible"}, "import", "git", full.dir, "--name", strings.Repeat("n", 161))
	c.must("import", "git", full.dir)
	c.fails(exitError, []string{"was imported with the first parents", "--name NAME"}, "import", "git", full.dir, "--all")
	c.must("import", "git", full.dir, "--all", "--name", "all")
	c.fails(exitError, []string{"was imported with --all"}, "import", "git", full.dir, "--name", "all")
	c.fails(exitNotFound, []string{"no history in git/other"}, "verify", "git", full.dir, "--name", "other")
}

// An import goes on where the history was, when it has grown; when it was rewritten it does nothing and says why.
func TestImportGrows(t *testing.T) {
	r := newRepo(t)
	r.linear(5)
	c := newCLI(t)
	c.must("import", "git", r.dir)
	r.linear(4)
	var got importResult
	if err := json.Unmarshal([]byte(c.must("import", "git", r.dir, "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Commits != 4 || got.Total != 9 || got.First != 6 || got.Last != 9 || got.Left != 0 {
		t.Errorf("%+v", got)
	}
	c.open(func(db *batchlog.DB) { foldHistory(t, db, r, "repo") })
	r.git("update-ref", "refs/heads/main", r.lines("rev-parse", "main~3")[0])
	c.fails(exitError, []string{"which is not in that of HEAD", "--name NAME"}, "import", "git", r.dir)
	c.must("verify", "git", r.dir) // the commit is still in the repository
	equal(t, "head", headOf(t, c), 9)
	c.must("import", "git", r.dir, "--name", "again")
	equal(t, "head", headOf(t, c), 9+6)
}

// With --all new commits may stand anywhere in the order: all are found, none is doubled.
func TestImportAllGrows(t *testing.T) {
	r := newRepo(t)
	r.linear(6)
	c := newCLI(t)
	c.must("import", "git", r.dir, "--all")
	for i, from := range []string{"main~4", "main~2", "main", "main~5"} {
		ref := fmt.Sprintf("side%d", i)
		tip := r.commit(ref, "Bob", "side", []string{r.lines("rev-parse", from)[0]}, testFile{"100755", ref, ref}, testFile{path: "README.md"})
		r.commit(ref, "Bob", "side again", []string{tip}, testFile{"100755", ref + "/x", ref})
		r.flush()
		c.must("import", "git", r.dir, "--all")
	}
	c.open(func(db *batchlog.DB) {
		f := foldHistory(t, db, r, "repo")
		want := r.lines("rev-list", "--all")
		slices.Sort(want)
		slices.Sort(f.hashes)
		if !slices.Equal(f.hashes, want) {
			t.Errorf("commits %q, want %q", f.hashes, want)
		}
	})
	c.must("verify", "git", r.dir)
}

// Interrupted at any commit, an import goes on there: the log is that of one run.
func TestImportInterrupted(t *testing.T) {
	r := newRepo(t)
	r.messy(5, 60)
	want := r.lines("rev-list", "--reverse", "--first-parent", "main")
	c := newCLI(t)
	stopped := 0
	for run := 0; ; run++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		c.interruptAt(ctx, run%5, func() { cancel(&interruptError{signal: syscall.SIGINT}) }, r.dir)
		before := headOf(t, c)
		if before == float64(len(want)) {
			break
		}
		if stopped++; stopped > 2*len(want) {
			t.Fatal("it does not get on")
		}
	}
	if stopped < 5 {
		t.Errorf("interrupted only %d times", stopped)
	}
	c.open(func(db *batchlog.DB) {
		if f := foldHistory(t, db, r, "repo"); !slices.Equal(f.hashes, want) {
			t.Errorf("commits %q, want %q", f.hashes, want)
		}
	})
	c.must("verify", "git", r.dir)
}

// interruptAt runs an import that is interrupted while it writes its n-th commit.
func (c *cli) interruptAt(ctx context.Context, n int, interrupt func(), dir string) {
	c.t.Helper()
	a := &app{dir: c.db, err: io.Discard}
	db, err := a.openDB(c.db, true)
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	repo, err := openRepo(c.t.Context(), dir)
	if err != nil {
		c.t.Fatal(err)
	}
	store, err := newGitStore(db.DB, "repo")
	if err != nil {
		c.t.Fatal(err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		seen := 0
		for _, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.Now()}) {
			if seen++; err != nil || seen > n {
				interrupt()
				return
			}
		}
	}()
	im := &importer{repo: repo, store: store, plan: importPlan{Rev: "HEAD"}, meter: func(int64) *meter { return nil }}
	result, err := im.run(ctx)
	if err != nil && !errors.As(err, new(*interruptError)) {
		c.t.Fatalf("%+v: %v", result, err)
	}
	interrupt()
	<-stop
}

func TestImportLimit(t *testing.T) {
	r := newRepo(t)
	r.linear(7)
	c := newCLI(t)
	if text := c.must("import", "git", r.dir, "--limit", "3"); !strings.Contains(text, "4 commits left") {
		t.Error(text)
	}
	c.must("verify", "git", r.dir)
	equal(t, "head", headOf(t, c), 3)
	c.must("import", "git", r.dir, "--limit", "30")
	equal(t, "head", headOf(t, c), 7)
}

// A space that others changed is found out rather than left half imported.
func TestImportOfAChangedSpace(t *testing.T) {
	r := newRepo(t)
	r.linear(3)
	c := newCLI(t)
	c.must("import", "git", r.dir)
	c.must("del", "git/repo/state", "head")
	c.fails(exitError, []string{"is in the log as commit 1", "changed by others"}, "import", "git", r.dir)
	c.must("put", "git/repo/state", "head", "x")
	c.fails(exitError, []string{"state of the import"}, "import", "git", r.dir)
}

func TestImportMaxBlob(t *testing.T) {
	r := newRepo(t)
	large, small := strings.Repeat("large", 300), "small"
	r.commit("main", "A", "1", nil, testFile{"100644", "a", large}, testFile{"100644", "b", small}, testFile{"100644", "c", large}, testFile{"100644", "d", large})
	r.flush()
	c := newCLI(t)
	c.must("import", "git", r.dir, "--max-blob", "1kB")
	c.fails(exitNotFound, nil, "get", "git/repo/files", "a")
	equal(t, "small", c.must("get", "git/repo/files", "b"), small)
	equal(t, "omitted", c.must("scan", "git/repo/omitted"),
		fmt.Sprintf("\"a\"\t%[1]s\n\"c\"\t%[1]s\n\"d\"\t%[1]s\n", fmt.Sprintf(`{"hash":%q,"size":1500}`, r.hash(large))))
	if text := c.must("verify", "git", r.dir); !strings.Contains(text, "3 files not in the store (--max-blob)") || !strings.Contains(text, "equal") {
		t.Error(text)
	}
	// Large becomes small, a submodule and nothing; small becomes large. Without the flag all is kept from now on.
	r.commit("main", "A", "2", []string{"refs/heads/main^0"}, testFile{"100644", "a", small}, testFile{"100644", "b", large + "2"},
		testFile{modeSubmodule, "c", strings.Repeat("1", 40)}, testFile{path: "d"})
	r.flush()
	c.must("import", "git", r.dir)
	equal(t, "omitted", c.must("scan", "git/repo/omitted"), "")
	equal(t, "b", c.must("get", "git/repo/files", "b"), large+"2")
	c.must("verify", "git", r.dir)
	r.commit("main", "A", "3", []string{"refs/heads/main^0"}, testFile{"100755", "a", large})
	r.flush()
	c.must("import", "git", r.dir, "--max-blob", "1kB")
	c.fails(exitNotFound, nil, "get", "git/repo/files", "a")
	var got comparison
	if err := json.Unmarshal([]byte(c.must("verify", "git", r.dir, "--json")), &got); err != nil || !got.Equal || got.Omitted != 1 || got.Files != 1 || got.Submodules != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Reading ahead is bounded in bytes, and over when its reader is.
func TestAhead(t *testing.T) {
	var made atomic.Int64
	ended := false
	seq := func(yield func(builtBatch, error) bool) {
		defer func() { ended = true }()
		for {
			b := &batchlog.Batch{}
			b.Put(batchlog.New(nil).Root(), batchlog.K("k"), make([]byte, 300))
			made.Add(1)
			if !yield(builtBatch{batch: b}, nil) {
				return
			}
		}
	}
	batches, release := ahead(t.Context(), 1000, seq)
	read := int64(0)
	for b, err := range batches {
		if err != nil {
			t.Fatal(err)
		}
		read++
		time.Sleep(5 * time.Millisecond) // it would be far ahead by now
		if n := made.Load() - read; n > 3 {
			t.Fatalf("%d batches of 300 bytes ahead", n)
		}
		release(b)
		if read == 20 {
			break
		}
	}
	if !ended {
		t.Error("it goes on when nobody reads")
	}
}

func TestImportTooLargeCommit(t *testing.T) {
	if testing.Short() {
		t.Skip("some hundred MB")
	}
	r := newRepo(t)
	r.linear(2)
	third := strings.Repeat("0123456789abcde\n", 24<<20/16)
	r.commit("main", "A", "large indeed", []string{"refs/heads/main^0"}, testFile{"100644", "a", third + "a"}, testFile{"100644", "b", third + "b"}, testFile{"100644", "c", third + "c"}, testFile{"100644", "d", "d"})
	r.flush()
	hash := r.lines("rev-parse", "main")[0]
	c := newCLI(t)
	c.fails(exitError, []string{"2 commits imported (ids 1 to 2), 1 left", "git commit " + hash + " (large indeed) is too large: it changes 4 paths, 75.5 MB of content, and a batch holds 64 MiB; --max-blob"},
		"import", "git", r.dir)
	c.must("verify", "git", r.dir)
	c.must("import", "git", r.dir, "--max-blob", "20MiB")
	c.must("verify", "git", r.dir)
	equal(t, "d", c.must("get", "git/repo/files", "d"), "d")
}
