package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bytespace/batchlog/history"
)

// ownRepo is the repository that this checkout belongs to, to be read only.
func ownRepo(t *testing.T) *testRepo {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("this is no git repository:", err)
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	r := &testRepo{t: t, dir: root, format: "sha1"}
	if strings.TrimSpace(r.git("rev-parse", "--is-shallow-repository")) == "true" {
		t.Skip("this is a shallow clone: its history is not all there")
	}
	return r
}

// authors is what git says of the commits of each author, and of each author and month, over the first parents of rev.
func (r *testRepo) authors(rev string) (totals, months map[string]int64) {
	r.t.Helper()
	totals, months = map[string]int64{}, map[string]int64{}
	for line := range strings.Lines(r.git("shortlog", "-s", "-n", "--first-parent", rev)) {
		n, author, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			r.t.Fatalf("git shortlog: %q", line)
		}
		totals[strings.ToValidUTF8(author, "\ufffd")] += must1(strconv.ParseInt(strings.TrimSpace(n), 10, 64))(r.t)
	}
	log := r.git("log", "--first-parent", "-z", "--no-mailmap", "--date=format:%Y-%m", "--format=%an%n%ad", rev)
	for line := range strings.SplitSeq(strings.TrimSuffix(log, "\x00"), "\x00") {
		months[strings.ToValidUTF8(line, "\ufffd")]++
	}
	return totals, months
}

// sizes is what git says of the bytes and files below each directory of rev, and of each path.
func (r *testRepo) sizes(rev string) (directories map[string]history.Size, files map[string]int64) {
	r.t.Helper()
	directories, files = map[string]history.Size{}, map[string]int64{}
	for e := range strings.SplitSeq(r.git("ls-tree", "-r", "-l", "-z", "--full-tree", rev), "\x00") {
		facts, path, ok := strings.Cut(e, "\t")
		words := strings.Fields(facts)
		if !ok || words[1] == "commit" {
			continue
		}
		n := must1(strconv.ParseInt(words[3], 10, 64))(r.t)
		files[path] = n
		for dir := path; dir != ""; {
			dir = dir[:max(0, strings.LastIndexByte(dir, '/'))]
			s := directories[dir]
			directories[dir] = history.Size{Path: dir, Bytes: s.Bytes + n, Files: s.Files + 1}
		}
	}
	return directories, files
}

// grep is what git grep with these flags prints of rev, cut at each NUL and line end; empty where it finds nothing.
func (r *testRepo) grep(rev string, flags ...string) []string {
	r.t.Helper()
	args := append([]string{"grep", "-z", "-I", "--full-name", "--no-color"}, flags...)
	cmd := exec.Command("git", append(args, rev)...)
	cmd.Dir = r.dir
	cmd.Env = append(gitEnv(os.Environ()), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && len(exit.Stderr) == 0 {
		return nil
	}
	if err != nil {
		r.t.Fatalf("git %q: %v", args, err)
	}
	// A path may hold line ends, so that NUL alone says where one ends: PATH NUL NUMBER NUL WORD LF, or PATH NUL NUMBER LF.
	var fields []string
	for len(out) > 0 {
		i := bytes.IndexByte(out, 0)
		fields = append(fields, strings.TrimPrefix(string(out[:i]), rev+":"))
		line, rest, _ := bytes.Cut(out[i+1:], []byte("\n"))
		fields = append(fields, strings.Split(string(line), "\x00")...)
		out = rest
	}
	return fields
}

// word is how many lines of each file of rev have a word, as git counts them.
func (r *testRepo) word(rev, word string) map[string]int64 {
	r.t.Helper()
	found := map[string]int64{}
	for f := r.grep(rev, "-c", "-w", "-F", "-e", word); len(f) > 0; f = f[2:] {
		found[f[0]] = must1(strconv.ParseInt(f[1], 10, 64))(r.t)
	}
	return found
}

// words is how many lines of each file of rev have each word: by word and path. What is not to be indexed is left out.
func (r *testRepo) words(rev string) map[string]map[string]int64 {
	r.t.Helper()
	type place struct{ path, line, word string }
	places := map[place]bool{}
	for f := r.grep(rev, "-n", "-o", "-E", "-e", "[A-Za-z0-9_]+"); len(f) > 0; f = f[3:] {
		places[place{f[0], f[1], f[2]}] = true
	}
	_, files := r.sizes(rev)
	found := map[string]map[string]int64{}
	for p := range maps.Keys(places) {
		if len(p.word) > history.MaxWordBytes || files[p.path] > history.MaxFileBytes {
			continue
		}
		if found[p.word] == nil {
			found[p.word] = map[string]int64{}
		}
		found[p.word][p.path]++
	}
	return found
}

// wordy adds n commits with text in the files: words in many places, binary files and such that barely are none, files that are deleted, renamed
// and changed in mode, links, odd paths, several authors around the turn of a month.
func (r *testRepo) wordy(seed uint64, n int) {
	r.t.Helper()
	w := newWordyTree(seed)
	if r.mark > 0 {
		r.t.Fatal("wordy wants a new repository")
	}
	for range n {
		w.commit(r)
	}
	fill := strings.Repeat("fill line\n", 800) // as many bytes as decide what is binary
	r.commit("main", "Alice", "edges\n", []string{w.tip}, testFile{"100644", "edge/binary", fill[:7999] + "\x00 binary"},
		testFile{"100644", "edge/text", fill + "\x00 text"})
	r.flush()
}
