package main

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A testRepo is a git repository that tests make commits in, by git fast-import: any path, mode and shape of history, the same
// hashes on every machine.
type testRepo struct {
	t      *testing.T
	dir    string
	format string // sha1 or sha256
	mark   int
	stream bytes.Buffer
	clock  int
}

func newRepo(t *testing.T, initFlags ...string) *testRepo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	r := &testRepo{t: t, dir: filepath.Join(t.TempDir(), "repo"), format: "sha1", clock: 1_700_000_000}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git(append([]string{"init", "--quiet", "--initial-branch=main"}, initFlags...)...)
	if slices.Contains(initFlags, "--object-format=sha256") {
		r.format = "sha256"
	}
	return r
}

// git runs git in r and returns what it printed.
func (r *testRepo) git(args ...string) string {
	r.t.Helper()
	return r.gitIn(nil, args...)
}

func (r *testRepo) gitIn(stdin []byte, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(gitEnv(os.Environ()), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull,
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.com")
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %q: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

// A testFile is a file in a commit; no mode: it is deleted.
type testFile struct{ mode, path, content string }

// commit adds a commit to ref to what flush makes; parents are marks or names of commits. It returns its mark.
func (r *testRepo) commit(ref, author, message string, parents []string, files ...testFile) string {
	r.mark++
	r.clock += 61
	s := &r.stream
	fmt.Fprintf(s, "commit refs/heads/%s\nmark :%d\nauthor %s <%s> %d +0130\ncommitter C <c@example.com> %d +0000\ndata %d\n%s\n",
		ref, r.mark, author, "a@example.com", r.clock, r.clock+1, len(message), message)
	for i, p := range parents {
		fmt.Fprintf(s, "%s %s\n", []string{"from", "merge"}[min(i, 1)], p)
	}
	for _, f := range files {
		quoted := `"`
		for _, c := range []byte(f.path) {
			quoted += fmt.Sprintf(`\%03o`, c)
		}
		quoted += `"`
		switch f.mode {
		case "":
			fmt.Fprintf(s, "D %s\n", quoted)
		case modeSubmodule:
			fmt.Fprintf(s, "M %s %s %s\n", f.mode, f.content, quoted)
		default:
			fmt.Fprintf(s, "M %s inline %s\ndata %d\n%s\n", f.mode, quoted, len(f.content), f.content)
		}
	}
	return fmt.Sprintf(":%d", r.mark)
}

// flush makes the commits.
func (r *testRepo) flush() {
	r.t.Helper()
	r.gitIn(append(r.stream.Bytes(), "done\n"...), "-c", "core.ignoreCase=false", "fast-import", "--quiet", "--done", "--force", "--date-format=raw")
	r.stream.Reset()
}

// linear adds n simple commits to main.
func (r *testRepo) linear(n int) {
	r.t.Helper()
	for i := range n {
		var parents []string
		if i == 0 && r.mark > 0 {
			parents = []string{"refs/heads/main^0"}
		}
		r.commit("main", "Alice", fmt.Sprintf("commit %d\n\nbody of %d\n", r.mark, r.mark), parents,
			testFile{"100644", fmt.Sprintf("dir%d/file%d", r.mark%7, r.mark), fmt.Sprintf("content %d", r.mark)},
			testFile{"100644", "README.md", fmt.Sprintf("read %d times", r.mark)})
	}
	r.flush()
}

// messy adds some n commits on several branches, with all that git can hold: renames, other modes, symbolic links, submodules, merges,
// files that become directories and back, paths and authors that are not UTF-8, empty files, commits without a change.
func (r *testRepo) messy(seed uint64, n int) {
	r.t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	type branch struct {
		tip   string
		files map[string]testFile
	}
	branches := []*branch{{files: map[string]testFile{}}}
	names := []string{"a", "b", "dir", "dir/sub", "dir/sub/deep", "with space", "tab\there", "line\nend", "é", "not utf-8 \xff\xfe", "\x01", `quo"te\`, "zz/\xf0\x28", "-dash", "[x"}
	authors := []string{"Alice", "Bøb", "not \xff utf-8", "李"}
	for i := range n {
		k := random.IntN(len(branches))
		b := branches[k]
		var parents []string
		if b.tip != "" {
			parents = []string{b.tip}
		}
		var files []testFile
		set := func(f testFile) {
			for p := range b.files { // a file in the place of a directory, or the other way round
				if strings.HasPrefix(p, f.path+"/") || strings.HasPrefix(f.path, p+"/") {
					delete(b.files, p)
				}
			}
			files = append(files, f)
			b.files[f.path] = f
		}
		if b.tip != "" && len(branches) > 1 && random.IntN(5) == 0 {
			other := branches[random.IntN(len(branches))]
			if other != b {
				parents = append(parents, other.tip)
				for _, p := range slices.Sorted(maps.Keys(other.files)) {
					if random.IntN(2) == 0 {
						set(other.files[p])
					}
				}
			}
		}
		if i%7 == 3 { // a file becomes a submodule, a submodule a file
			set(testFile{"100644", "was a file", "x"})
			b.tip = r.commit([]string{"main", fmt.Sprintf("branch%d", k)}[min(k, 1)], "Alice", "file", parents, files...)
			parents, files = []string{b.tip}, nil
			set(testFile{modeSubmodule, "was a file", fmt.Sprintf("%0*x", r.hashLen(), i+1)})
		}
		for range random.IntN(5) {
			path := names[random.IntN(len(names))] + []string{"", "", "/x", ".txt"}[random.IntN(4)]
			content := strings.Repeat(fmt.Sprint(random.IntN(1000), "\x00\xff\n"), random.IntN(50))
			switch random.IntN(8) {
			case 0, 1: // delete or rename
				old := slices.Sorted(maps.Keys(b.files))
				if len(old) == 0 {
					continue
				}
				f := b.files[old[random.IntN(len(old))]]
				files = append(files, testFile{path: f.path})
				delete(b.files, f.path)
				if random.IntN(2) == 0 {
					set(testFile{f.mode, path, f.content})
				}
			case 2:
				set(testFile{"100755", path, content})
			case 3:
				set(testFile{"120000", path, "target of " + fmt.Sprint(i)})
			case 4:
				set(testFile{modeSubmodule, path, fmt.Sprintf("%0*x", r.hashLen(), i+1)})
			default:
				set(testFile{"100644", path, content})
			}
		}
		name := "main"
		if k > 0 {
			name = fmt.Sprintf("branch%d", k)
		}
		message := fmt.Sprintf("change %d\n\n\nthe body \u2603 of %d\n", i, i)
		b.tip = r.commit(name, authors[random.IntN(len(authors))], message, parents, files...)
		if len(branches) < 4 && random.IntN(8) == 0 {
			branches = append(branches, &branch{tip: b.tip, files: maps.Clone(b.files)})
		}
	}
	// Main is what is imported: it takes in all.
	all := []string{branches[0].tip}
	for _, b := range branches[1:] {
		all = append(all, b.tip)
	}
	if branches[0].tip != "" {
		r.commit("main", "Alice", "all together", all, testFile{"100644", "last", "file"})
	}
	r.flush()
}

func (r *testRepo) hashLen() int {
	if r.format == "sha256" {
		return 2 * sha256.Size
	}
	return 2 * sha1.Size
}

// tree is a commit as git has it: path to mode and hash.
func (r *testRepo) tree(commit string) map[string]string {
	r.t.Helper()
	tree := map[string]string{}
	for e := range strings.SplitSeq(r.git("ls-tree", "-r", "-z", "--full-tree", commit), "\x00") {
		if facts, path, ok := strings.Cut(e, "\t"); ok {
			words := strings.Fields(facts)
			tree[path] = words[0] + " " + words[2]
		}
	}
	return tree
}

// hash is the hash of a blob, computed without the code under test.
func (r *testRepo) hash(content string) string {
	text := fmt.Sprintf("blob %d\x00%s", len(content), content)
	if r.format == "sha256" {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	}
	return fmt.Sprintf("%x", sha1.Sum([]byte(text)))
}

// lines is what git prints, line by line.
func (r *testRepo) lines(args ...string) []string {
	r.t.Helper()
	return strings.Fields(r.git(args...))
}
