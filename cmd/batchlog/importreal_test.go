package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// packages is what the package manager of this machine knows of, as lines of JSON, and what is to come of them: key → value.
func packages(t *testing.T) (lines []byte, want map[string]string) {
	t.Helper()
	if testing.Short() {
		t.Skip("some ten thousand packages")
	}
	if _, err := exec.LookPath("apt-cache"); err != nil {
		t.Skip("no apt-cache, so no list of packages")
	}
	text, err := exec.Command("apt-cache", "dumpavail").Output()
	if err != nil || len(text) == 0 {
		t.Skipf("apt-cache dumpavail prints nothing (%v)", err)
	}
	want = map[string]string{}
	for stanza := range strings.SplitSeq(strings.ToValidUTF8(string(text), "\ufffd"), "\n\n") {
		fields := map[string]string{}
		name := ""
		for line := range strings.Lines(stanza) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case line == "":
			case line[0] == ' ' || line[0] == '\t':
				fields[name] += "\n" + line
			default:
				var value string
				name, value, _ = strings.Cut(line, ":")
				fields[name] = strings.TrimSpace(value)
			}
		}
		if fields["Package"] == "" {
			continue
		}
		line, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line...), '\n')
		key := batchlog.K(fields["Package"], fields["Version"], fields["Architecture"])
		want[string(key)] = string(line) // of those with one key the last one
	}
	return lines, want
}

// A large real input comes in whole, as one commit and as batches, and is key by key what it was.
func TestImportPackages(t *testing.T) {
	lines, want := packages(t)
	name := filepath.Join(t.TempDir(), "packages.ndjson")
	if err := os.WriteFile(name, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	rows := int64(bytes.Count(lines, []byte("\n")))
	c := newCLI(t)
	for space, mode := range map[string]string{"atomic": "--atomic", "batches": "--batch=500"} {
		r := c.loads("ndjson", name, "--space", space, "--key", "Package,Version,Architecture", mode)
		if r.Rows != rows || mode == "--atomic" && r.Commits != 1 || mode != "--atomic" && r.Commits != (rows+499)/500 {
			t.Errorf("%+v, want %d rows", r, rows)
		}
		c.open(func(db *batchlog.DB) {
			got := maps.Clone(want)
			for e, err := range db.Space(space).Scan(t.Context(), batchlog.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				if value, ok := got[string(e.Key)]; !ok || value != string(e.Value) {
					t.Fatalf("%s: %s is\n%s, want\n%s", space, e.Key, e.Value, value)
				}
				delete(got, string(e.Key))
			}
			if len(got) > 0 {
				t.Errorf("%s: %d keys of %d are missing", space, len(got), len(want))
			}
		})
		t.Logf("%s: %d rows, %d keys, %d bytes in %.1f s", space, rows, len(want), len(lines), r.Seconds)
	}
}

// An import of a history as one commit leaves the same keys and values as one in batches, and the next import goes on from it.
func TestImportGitAtomic(t *testing.T) {
	for _, flags := range [][]string{{}, {"--all"}, {"--max-blob", "10"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			r := newRepo(t)
			r.messy(7, 60)
			batches, atomic := newCLI(t), newCLI(t)
			batches.must(append([]string{"import", "git", r.dir}, flags...)...)
			var got importResult
			if err := json.Unmarshal([]byte(atomic.must(append([]string{"import", "git", r.dir, "--atomic", "--json"}, flags...)...)), &got); err != nil {
				t.Fatal(err)
			}
			if n := headOf(t, batches); float64(got.Commits) != n || got.First != 1 || got.Last != 1 || got.Left != 0 || got.Total != got.Commits {
				t.Errorf("%+v, want %v commits", got, n)
			}
			equal(t, "head", headOf(t, atomic), 1)
			same := func() {
				t.Helper()
				for _, s := range []string{"files", "modes", "omitted", "commits", "state"} {
					equal(t, s, atomic.must("scan", "git/repo/"+s, "--json"), batches.must("scan", "git/repo/"+s, "--json"))
				}
				atomic.must("verify", "git", r.dir)
			}
			same()
			atomic.open(func(db *batchlog.DB) {
				for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: 1}) {
					if err != nil || c.Labels["hash"] != got.Hash || len(c.Labels) != 3 {
						t.Errorf("labels %v, %v", c.Labels, err)
					}
				}
			})
			if text := atomic.must(append([]string{"import", "git", r.dir, "--atomic"}, flags...)...); !strings.Contains(text, "is up to date") {
				t.Error(text)
			}
			r.mark = 0
			tip := r.commit("main", "Eve", "on top", []string{"refs/heads/main^0"}, testFile{"100644", "a", "new"})
			r.commit("main", "Eve", "on top of that", []string{tip}, testFile{path: "a"}, testFile{"100644", "x", "y"})
			r.flush()
			batches.must(append([]string{"import", "git", r.dir}, flags...)...)
			atomic.must(append([]string{"import", "git", r.dir, "--atomic"}, flags...)...)
			equal(t, "head", headOf(t, atomic), 2)
			same()
		})
	}
}

// --limit bounds an atomic import as well; what is left comes with the next, in either way.
func TestImportGitAtomicLimit(t *testing.T) {
	r := newRepo(t)
	r.linear(10)
	c := newCLI(t)
	if text := c.must("import", "git", r.dir, "--atomic", "--limit", "4"); !strings.Contains(text, "imported 4 commits of ") || !strings.Contains(text, ": id 1, ") || !strings.Contains(text, "6 commits left") {
		t.Error(text)
	}
	c.must("verify", "git", r.dir)
	c.must("import", "git", r.dir, "--limit", "2")
	c.must("import", "git", r.dir, "--atomic")
	equal(t, "head", headOf(t, c), 4)
	c.must("verify", "git", r.dir)
	equal(t, "commits", strings.Count(c.must("scan", "git/repo/commits"), "\n"), 10)
}

// The history of this repository is imported as one commit and compared with git.
func TestImportOwnHistoryAtomic(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of commits")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("git", "-C", root, "rev-parse", "HEAD").Run(); err != nil {
		t.Skip("this is not a git repository")
	}
	c := newCLI(t)
	start := time.Now()
	t.Log(c.must("import", "git", root, "--atomic", "--name", "own"))
	text := c.must("verify", "git", root, "--name", "own")
	if !strings.Contains(text, "equal to git ls-tree -r") {
		t.Error(text)
	}
	t.Logf("%s in %s", text, time.Since(start))
}

// A watched is a writer that looks at the memory in use now and then.
type watched struct {
	bytes, seen int64
	lines       int
	most        uint64
}

func (w *watched) Write(p []byte) (int, error) {
	w.bytes += int64(len(p))
	w.lines += bytes.Count(p, []byte("\n"))
	if w.bytes-w.seen > 16<<20 {
		w.seen = w.bytes
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.most = max(w.most, m.HeapAlloc)
	}
	return len(p), nil
}

// The commit of a chain is one line of tail, however long, and is not held in memory; Ctrl-C ends it in the middle of that line.
func TestTailOfChain(t *testing.T) {
	if testing.Short() {
		t.Skip("some hundred megabytes")
	}
	c := newCLI(t)
	const rows, size = 3000, 100_000
	a := &app{dir: c.db, err: io.Discard}
	db, err := a.openDB(c.db, true)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := db.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("v"), size)
	for i := range rows {
		chain.Put(db.Space("s"), batchlog.K(i), value)
	}
	if _, err := chain.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c.must("put", "s", "after", "x")
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := &watched{}
	if code := run(t.Context(), []string{"--db", c.db, "tail", "--until", "2"}, strings.NewReader(""), w, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if w.lines != 2 || w.bytes < rows*size {
		t.Errorf("%d lines, %d bytes", w.lines, w.bytes)
	}
	if w.most > before.HeapAlloc+100<<20 {
		t.Errorf("up to %d MB in use, %d before", w.most>>20, before.HeapAlloc>>20)
	}
	t.Logf("up to %d MB in use, %d before", w.most>>20, before.HeapAlloc>>20)

	ctx, cancel := context.WithCancelCause(t.Context())
	var errOut bytes.Buffer
	out := writerFunc(func(p []byte) (int, error) {
		cancel(&interruptError{signal: syscall.SIGINT})
		return len(p), nil
	})
	code := run(ctx, []string{"--db", c.db, "tail", "--until", "2"}, strings.NewReader(""), out, &errOut)
	equal(t, "exit code", code, 130)
	equal(t, "stderr", errOut.String(), "batchlog: in the middle of commit 1: interrupted\n")
}

// A scan of a chain's keys is what a scan of the same keys in batches is.
func TestAtomicEqualsBatches(t *testing.T) {
	c := newCLI(t)
	var in strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&in, "{\"id\":%d,\"n\":%d,\"v\":\"some more, as small chains are kept as batches are\"}\n", (i*7919)%5000, i)
	}
	name := file(t, "in", in.String())
	c.must("import", "ndjson", name, "--space", "batches", "--key", "id", "--batch", "77")
	c.must("import", "ndjson", name, "--space", "atomic", "--key", "id", "--atomic", "--label", "a=b", "--token", "t")
	equal(t, "scan", c.must("scan", "atomic"), c.must("scan", "batches"))
	head := headOf(t, c)
	r := c.loads("ndjson", name, "--space", "atomic", "--key", "id", "--atomic", "--label", "a=b", "--token", "t")
	if headOf(t, c) != head || float64(r.First) != head || r.Already != 20_000 {
		t.Errorf("%+v", r)
	}
	// Nothing of an import that fails is there.
	broken := file(t, "in", in.String()+"{")
	c.fails(exitError, []string{"line 20001, byte ", "nothing was written"}, "import", "ndjson", broken, "--space", "other", "--key", "id", "--atomic")
	equal(t, "scan", c.must("scan", "other"), "")
	equal(t, "head", headOf(t, c), head)
	equal(t, "chains", c.must("chain", "ls"), "no chains\n")
	// Its commit is one line, of all keys once, sorted.
	line := c.must("tail", "atomic", "--until", "head")
	var commit struct {
		Ops []struct{ Put struct{ Key int } }
	}
	if err := json.NewDecoder(bufio.NewReader(strings.NewReader(line))).Decode(&commit); err != nil {
		t.Fatal(err)
	}
	var keys []int
	for _, op := range commit.Ops {
		keys = append(keys, op.Put.Key)
	}
	if len(keys) != 5000 || !slices.IsSorted(keys) || strings.Count(line, "\n") != 1 {
		t.Errorf("%d keys, %d lines", len(keys), strings.Count(line, "\n"))
	}
}
