package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// Every command has a line, a paragraph and examples, and the examples work as they stand there, in a shell.
func TestExamples(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the examples are for a Unix shell")
	}
	if testing.Short() {
		t.Skip("some hundred processes")
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell")
	}
	r := newRepo(t)
	r.linear(4)
	r.git("tag", "v1.0", "main~2")
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "batchlog")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), asCommand+"=1", "PATH="+bin+":"+os.Getenv("PATH"), "TMPDIR="+t.TempDir())
	sh := func(t *testing.T, dir, line string) {
		t.Helper()
		follows := strings.HasPrefix(line, "batchlog tail") && !strings.Contains(line, "--until")
		if follows {
			line = "exec " + line // the signal is for batchlog, not for the shell
		}
		cmd := exec.Command(shell, "-ec", line)
		cmd.Dir, cmd.Env = dir, env
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if follows {
			time.Sleep(300 * time.Millisecond)
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out.String())
		}
	}
	workers, err := filepath.Abs("../../examples/workers")
	if err != nil {
		t.Fatal(err)
	}
	before := beforeExamples()
	for _, cmd := range commands(newRoot(&app{out: nil, err: io.Discard})) {
		t.Run(strings.ReplaceAll(cmd.CommandPath(), " ", "_"), func(t *testing.T) {
			t.Parallel()
			if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
				t.Fatal("help is not complete")
			}
			if strings.HasSuffix(cmd.Short, ".") {
				t.Errorf("%q ends in a period", cmd.Short)
			}
			dir := t.TempDir()
			if err := os.Symlink(r.dir, filepath.Join(dir, "repo")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(dir, os.DirFS(workers)); err != nil {
				t.Fatal(err)
			}
			sh(t, dir, "batchlog put users alice a; batchlog put users bob b; batchlog put users/eu '[\"bob\",7]' c")
			for _, line := range before[cmd.CommandPath()] {
				sh(t, dir, line)
			}
			for line := range strings.SplitSeq(cmd.Example, "\n") {
				if !strings.HasPrefix(line, "  ") {
					t.Errorf("example %q is not indented by two", line)
				}
				sh(t, dir, strings.TrimSpace(line))
			}
		})
	}
}

// beforeExamples is what is done before the examples of some commands.
func beforeExamples() map[string][]string {
	const (
		audited = "batchlog task run audit --source users --exec 'sh audit.sh' --until-head"
		parked  = "batchlog task run audit --source users --exec 'exit 1' --attempts 1 --poison park --until-head"
	)
	// Commits 1 to 20 but for what is there already; each on a key of its own, and one of ada's.
	undoable := []string{"batchlog space configure / --undo", "batchlog put users carol c --label actor=ada", "for i in 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do batchlog put users user$i $i; done"}
	return map[string][]string{
		"batchlog adopt":        {"batchlog space configure / --hot-ttl 1h --warm archive", "cp -r batchlog-data copy; cp -r batchlog-data another-copy; cp -r archive archive-copy"},
		"batchlog undo":         undoable,
		"batchlog redo":         slices.Concat(undoable, []string{"batchlog undo 17", "batchlog undo --last actor=ada"}),
		"batchlog show":         undoable,
		"batchlog diff":         undoable,
		"batchlog task show":    {audited},
		"batchlog task pause":   {audited},
		"batchlog task resume":  {audited, "batchlog task pause audit"},
		"batchlog task reset":   {audited},
		"batchlog task drop":    {audited},
		"batchlog task parked":  {parked},
		"batchlog task retry":   {parked},
		"batchlog task holds":   {audited},
		"batchlog task release": {audited},
		"batchlog verify git":   {"batchlog import git repo", "batchlog import git repo --rev v1.0 --name released"},
	}
}

// commands is cmd and all below it.
func commands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		if c.Name() != "help" {
			all = append(all, commands(c)...)
		}
	}
	return all
}

func TestHelp(t *testing.T) {
	c := newCLI(t)
	for _, cmd := range commands(newRoot(&app{err: io.Discard})) {
		args := strings.Fields(cmd.CommandPath())[1:]
		text := c.must(append(args, "--help")...)
		for _, want := range []string{cmd.Short + ".\n\n" + cmd.Long, "Examples:\n" + cmd.Example, "--db DIR"} {
			if !strings.Contains(text, want) {
				t.Errorf("help of %s does not have %q:\n%s", cmd.CommandPath(), want, text)
			}
		}
		for l := range strings.Lines(text) {
			limit := helpWidth
			if strings.HasPrefix(l, "  ") { // examples and tables
				limit = 125
			}
			if n := len([]rune(l)); n > limit+1 {
				t.Errorf("help of %s has a line of %d characters: %s", cmd.CommandPath(), n, l)
			}
		}
	}
	if text := c.must(); !strings.Contains(text, "Keys:") || !strings.Contains(text, "completion") {
		t.Error(text)
	}
}
