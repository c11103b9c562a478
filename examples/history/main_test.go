package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestHistory(t *testing.T) {
	for _, command := range []string{"git", "go"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Skip(command, "is not installed")
		}
	}
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.email=a@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, text)
		}
	}
	commit := func(author, date, path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", ".")
		git("-c", "user.name="+author, "commit", "--quiet", "-m", "change", "--date", date)
	}
	git("init", "--quiet")
	commit("Ada", "2024-01-31T12:00:00Z", "src/deep/a.txt", "one two\ntwo\n")
	commit("Bob", "2024-02-01T12:00:00Z", "b.txt", "two three\n")
	commit("Ada", "2024-02-02T12:00:00Z", "src/a.txt", "two\n")

	var out strings.Builder
	if err := run(t.Context(), &out, dir, []string{"two", "four"}); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(out.String(), "\n") // the first line is that of the import
	want := `author    "Ada": 2 commits in 2 months
author    "Bob": 1 commits in 1 months
directory "src": 16 bytes in 2 files
directory "src/deep": 12 bytes in 1 files
word      "two": 4 lines in 3 files
word      "four": 0 lines in 0 files
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
