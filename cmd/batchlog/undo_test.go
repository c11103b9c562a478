package main

import (
	"strings"
	"testing"
)

// The commands of undo, from the settings to a state that is brought back.
func TestUndoCommands(t *testing.T) {
	c := newCLI(t)
	c.must("put", "users", "alice", "before")
	c.fails(exitError, []string{"no inverse of commit 1", "undo was off", "undo backfill"}, "undo", "1")
	if text := c.must("space", "configure", "/", "--undo", "--dry-run"); !strings.Contains(text, "would change") || !strings.Contains(text, "not kept → kept") {
		t.Errorf("dry run of the settings: %s", text)
	}
	c.must("space", "configure", "/", "--undo")
	c.must("put", "users", "alice", "one")
	c.must("put", "users", "alice", "two", "--label", "actor=ada")
	c.must("put", "users", "bob", "x", "--label", "actor=bob")
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"undo", "3", "--dry-run"}, "would take back commit 3: 1 key\n"},
		{[]string{"undo", "3"}, "commit 5: 1 key\n"},
		{[]string{"get", "users", "alice"}, "one"},
		{[]string{"redo", "3", "--dry-run", "--json"}, `{"commits":[5],"keys":1,"conflicts":[]}` + "\n"},
		{[]string{"redo", "3", "--json"}, `{"id":6,"keys":1}` + "\n"},
		{[]string{"get", "users", "alice"}, "two"},
		{[]string{"undo", "--last", "actor=bob", "--dry-run"}, "would take back commit 4: 1 key\n"},
		{[]string{"undo", "--last", "actor=bob"}, "commit 7: 1 key\n"},
		{[]string{"redo", "--last", "actor=bob"}, "commit 8: 1 key\n"},
		{[]string{"undo", "2", "--cascade", "--dry-run"}, "would take back commits 6, 5, 3, 2: 1 key\n"},
		{[]string{"undo", "2", "--dry-run", "--json"}, `{"commits":[2],"keys":0,"conflicts":[{"space":"users","key":"alice","id":6}]}` + "\n"},
		{[]string{"undo", "2", "--cascade", "--label", "why=wrong"}, "commit 9: 1 key\n"},
		{[]string{"get", "users", "alice"}, "before"},
		{[]string{"undo", "--to", "4", "--space", "users", "--dry-run"}, "would bring 1 key back to what they were at commit 4; batchlog diff 9 4 shows them\n"},
		{[]string{"undo", "--to", "4"}, "commit 10: 1 key\n"},
		{[]string{"get", "users", "alice"}, "two"},
		{[]string{"diff", "10", "1"}, "~ users\t\"alice\"\ttwo → before\n- users\t\"bob\"\tx\n"},
		{[]string{"diff", "1", "3", "users", "--json"}, `{"space":"users","key":"alice","old":"before","new":"two"}` + "\n"},
		{[]string{"diff", "1", "3", "other"}, ""},
		{[]string{"undo", "backfill"}, "undo on; commits 1 to 10 can be taken back\n"},
	} {
		if got := c.must(step.args...); got != step.want {
			t.Errorf("%q: %q, want %q", step.args, got, step.want)
		}
	}
	c.fails(exitConflict, []string{`"alice" in users, by commit 10`, "--cascade", "--force"}, "undo", "2")
	c.fails(exitConflict, []string{"can't be taken back"}, "undo", "2", "--force")
	c.fails(exitNotFound, []string{"commit 99"}, "undo", "99")
	c.fails(exitConflict, []string{"commit 9 can't be taken back", "by commit 10"}, "redo", "--last", "actor=ada") // hers was in the cascade
	c.fails(exitNotFound, []string{"nothing to redo"}, "redo", "--last", "actor=eve")
	c.fails(exitError, []string{"not undone"}, "redo", "1")
	c.fails(exitUsage, []string{"ID or --last"}, "undo")
	c.fails(exitUsage, []string{"ID or --last"}, "undo", "3", "--last", "a=b")
	c.fails(exitUsage, []string{"NAME=VALUE"}, "undo", "--last", "a")
	c.fails(exitUsage, []string{"--to"}, "undo", "3", "--space", "users")
	c.fails(exitUsage, []string{"don't go together"}, "undo", "3", "--force", "--cascade")
	c.fails(exitUsage, []string{"no commit id"}, "undo", "x")
	if text := c.must("status"); !strings.Contains(text, "undo       on; commits 1 to 10 can be taken back\n") {
		t.Errorf("status: %s", text)
	}
	if text := c.must("verify"); !strings.Contains(text, "undo   what 10 commits overwrote, compared with the log\n") {
		t.Errorf("verify: %s", text)
	}
}

// show and history, for people and for programs, with and without undo.
func TestShowCommands(t *testing.T) {
	c := newCLI(t)
	c.must("put", "s", "k", "old")
	c.must("space", "configure", "/", "--undo")
	c.must("put", "s", "k", "v", "--label", "actor=ada")
	c.must("put", "s", "film", strings.Repeat("x", 3000))
	c.must("del", "s", "k")
	lines := func(args ...string) []string {
		t.Helper()
		return strings.Split(strings.TrimSuffix(c.must(args...), "\n"), "\n")
	}
	for _, want := range []struct {
		args []string
		line int
		text string
	}{
		{[]string{"show", "1"}, 1, "~ s\t\"k\"\told"},
		{[]string{"show", "2"}, 0, "  actor=ada"},
		{[]string{"show", "2"}, 1, "~ s\t\"k\"\told → v"},
		{[]string{"show", "3"}, 1, "+ s\t\"film\"\txxx"},
		{[]string{"show", "4"}, 1, "- s\t\"k\"\tv"},
		{[]string{"show", "1", "--json"}, 1, `{"space":"s","key":"k","new":"old"}`},
		{[]string{"show", "2", "--json"}, 0, `"labels":{"actor":"ada"},"ops":1}`},
		{[]string{"show", "4", "--json"}, 1, `{"space":"s","key":"k","old":"v","new":null}`},
		{[]string{"history", "s", "k"}, 0, "\t(deleted)"},
		{[]string{"history", "s", "k"}, 1, "\tv  actor=ada"},
		{[]string{"history", "s", "k"}, 2, "\told"},
		{[]string{"history", "s", "k", "--json"}, 0, `"value":null}`},
		{[]string{"history", "s", "k", "--json"}, 1, `"labels":{"actor":"ada"},"value":"v"}`},
	} {
		if got := lines(want.args...); len(got) <= want.line || !strings.Contains(got[want.line], want.text) {
			t.Errorf("%q: %q, want %q in line %d", want.args, got, want.text, want.line)
		}
	}
	if got := lines("history", "s", "k", "--limit", "1"); len(got) != 1 {
		t.Errorf("limited: %q", got)
	}
	if text := strings.Join(lines("show", "3"), ""); len(text) > 300 || !strings.Contains(text, " … ") {
		t.Errorf("a long value is not cut: %d characters", len(text))
	}
	c.fails(exitNotFound, []string{"no commit in the log has written"}, "history", "s", "other")
	c.fails(exitNotFound, []string{"commit 9"}, "show", "9")
	c.fails(exitUsage, []string{"negative"}, "history", "s", "k", "--limit", "-1")
	c.fails(exitError, []string{"no inverse of commit 1"}, "diff", "0", "4")
}
