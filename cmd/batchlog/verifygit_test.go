package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Every kind of difference between store and git is found.
func TestVerifyGitFindsDifferences(t *testing.T) {
	r := newRepo(t)
	odd := "odd \xff"
	r.commit("main", "A", "1", nil, testFile{"100644", "a", "content"}, testFile{"100755", "b", "content"}, testFile{"120000", "link", "a"},
		testFile{modeSubmodule, "sub", strings.Repeat("1", 40)}, testFile{"100644", odd, "x"}, testFile{"100644", "large", strings.Repeat("l", 2000)})
	r.flush()
	imported := newCLI(t)
	imported.must("import", "git", r.dir, "--max-blob", "1kB")
	imported.must("verify", "git", r.dir)
	for _, c := range []struct {
		name string
		do   []string // arguments of the command that plants it
		want string   // what, path
	}{
		{"content", []string{"put", "git/repo/files", "a", "Content"}, "content a"},
		{"content of a path that is not UTF-8", []string{"put", "git/repo/files", `{"$bytes":"b2RkIP8="}`, "y"}, "content odd \ufffd"},
		{"content gone", []string{"del", "git/repo/files", "link"}, "content link"},
		{"mode", []string{"put", "git/repo/modes", "b", "100644"}, "mode b"},
		{"mode gone", []string{"del", "git/repo/modes", "b"}, "mode b"},
		{"submodule", []string{"put", "git/repo/modes", "sub", "160000 " + strings.Repeat("2", 40)}, "content sub"},
		{"submodule without a commit", []string{"put", "git/repo/modes", "sub", "160000"}, "mode sub"},
		{"submodule with a content", []string{"put", "git/repo/files", "sub", ""}, "path sub"},
		{"submodule gone", []string{"del", "git/repo/modes", "sub"}, "path sub"},
		{"mode too much", []string{"put", "git/repo/modes", "new", "100644"}, "path new"},
		{"content too much", []string{"put", "git/repo/files", "new", ""}, "path new"},
		{"omitted hash", []string{"put", "git/repo/omitted", "large", fmt.Sprintf(`{"hash":"%040d"}`, 1)}, "omitted large"},
		{"omitted too much", []string{"put", "git/repo/omitted", "new", `{"hash":""}`}, "path new"},
		{"omitted and there", []string{"put", "git/repo/files", "large", strings.Repeat("l", 2000)}, "content large"},
		{"omitted gone", []string{"del", "git/repo/omitted", "large"}, "content large"},
		{"key that is no path", []string{"put", "git/repo/modes", "7", "x"}, "path 7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cli := newCLI(t)
			if err := os.CopyFS(cli.db, os.DirFS(imported.db)); err != nil {
				t.Fatal(err)
			}
			cli.must(c.do...)
			got := cli.fails(exitError, []string{"1 difference from git found"}, "verify", "git", r.dir)
			what, path, _ := strings.Cut(c.want, " ")
			if !strings.Contains(got.out, what) || !strings.Contains(got.out, printable(path)) {
				t.Errorf("output:\n%s", got.out)
			}
			var found comparison
			if err := json.Unmarshal([]byte(cli.run("verify", "git", r.dir, "--json").out), &found); err != nil {
				t.Fatal(err)
			}
			if found.Equal || len(found.Differences) != 1 || found.Differences[0].What+" "+found.Differences[0].Path != c.want {
				t.Errorf("differences %+v, want %s", found.Differences, c.want)
			}
		})
	}
}

func TestComparisonText(t *testing.T) {
	c := comparison{Space: "git/r", Commit: "abc", Repo: "r"}
	for i := range differencesShown + 2 {
		c.Differences = append(c.Differences, difference{Path: fmt.Sprint("\x1b", i), What: "mode", Git: "100644"})
	}
	text := c.text()
	if strings.Count(text, "mode ") != differencesShown || !strings.Contains(text, "… and 2 more; --json lists all") || strings.Contains(text, "\x1b") {
		t.Error(text)
	}
}
