package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestDemo(t *testing.T) {
	r := newRepo(t)
	r.messy(6, 60)
	commits := int64(len(r.lines("rev-list", "--first-parent", "main")))
	c := newCLI(t)
	var got demoResult
	if err := json.Unmarshal([]byte(c.must("demo", r.dir, "--json")), &got); err != nil {
		t.Fatal(err)
	}
	im, f := got.Import, got.Follower
	if im.Commits != commits || im.First < 1 || im.Last < im.First+batchlog.ID(commits)-1 || f.Commits != commits || f.Ops != im.Ops || f.Bytes != im.Bytes || f.Lag <= 0 {
		t.Errorf("%+v", got)
	}
	if !got.Git.Equal || !got.Verify.OK || !got.Verify.Complete || got.Verify.Commits < int64(im.Last) || len(got.Busiest) != busiestShown || got.LogBytes < got.Import.Bytes || got.StoreBytes == 0 {
		t.Errorf("%+v", got)
	}
	directories, _ := r.sizes("main")
	d := got.Derived
	if d.Task != im.Space+"/sizes" || d.Waited <= 0 || len(d.Wrong) > 0 || d.Root != directories[""] || d.Directories != int64(len(directories)-1) || len(d.Largest) == 0 {
		t.Errorf("%+v, git says %+v", d, directories)
	}
	for _, s := range d.Largest {
		if !strings.Contains(s.Path, "\ufffd") { // JSON has it for bytes that are no text
			equal(t, "directory "+s.Path, s, directories[s.Path])
		}
	}
	equal(t, "directory", got.Dir, c.db) // --db was given
	text := c.must("tail", im.Space+"/commits", "--until", "head")
	equal(t, "commits in the database", int64(strings.Count(text, "\n")), commits)
	c.fails(exitError, []string{"is not empty", "fresh"}, "demo", r.dir)
}

// Without --db the database is in a temporary directory, which is removed unless it is to be kept; its words are there either way.
func TestDemoInATemporaryDirectory(t *testing.T) {
	r := newRepo(t)
	r.linear(30)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("BATCHLOG_DB", filepath.Join(temp, "not", "looked", "at"))
	for _, keep := range []bool{false, true} {
		args := []string{"demo", r.dir, "--limit", "20"}
		if keep {
			args = append(args, "--keep")
		}
		var out, errOut strings.Builder
		if code := run(t.Context(), args, strings.NewReader(""), &out, &errOut); code != 0 {
			t.Fatalf("exit code %d\n%s%s", code, out.String(), errOut.String())
		}
		text := out.String()
		for _, want := range []string{
			"-- batchlog demo: ", "20 commits, each one batch", "; 10 left out (--limit)", "sizes of 7 directories, live", "busiest paths", "README.md ", "####", "largest directories, of ", "dir0/ ",
			"ok   git       path, mode and blob hash of ",
			"ok   task      bytes and files of 7 directories equal git ls-tree -r -l", "ok   verify    the log is sound", "ok   follower  every commit came, once and in order",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the demo does not say %q:\n%s", want, text)
			}
		}
		for _, r := range text {
			if r > 0x7e && r != 'µ' {
				t.Errorf("%q is not plain", r)
			}
		}
		left, err := os.ReadDir(temp)
		if err != nil {
			t.Fatal(err)
		}
		if kept := len(left) > 0; kept != keep || keep != strings.Contains(text, "Look around:") {
			t.Errorf("--keep=%t leaves %v and says\n%s", keep, left, text)
		}
		if !keep {
			continue
		}
		_, commands, _ := strings.Cut(text, "Look around:\n")
		for l := range strings.Lines(commands) {
			args := strings.Fields(l)
			if len(args) == 0 {
				continue
			}
			var out, errOut strings.Builder
			if code := run(t.Context(), args[1:], strings.NewReader(""), &out, &errOut); code != 0 || out.Len() == 0 {
				t.Errorf("%s: exit code %d, %q%s", l, code, out.String(), errOut.String())
			}
		}
	}
}

// The demo on the repository that this is in: the first thing that a person who has cloned it runs.
func TestDemoOfThisRepository(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("this is no git repository:", err)
	}
	c := newCLI(t)
	if r := c.run("import", "git", root, "--limit", "1"); strings.Contains(r.err, "has no commits yet") || strings.Contains(r.err, "executable file not found") {
		t.Skip("no history to show, or no git:", r.err)
	}
	c = newCLI(t)
	t.Log(c.must("demo", root))
	c.must("verify")
	c.must("verify", "git", root)
}

func TestDemoTells(t *testing.T) {
	r := demoResult{
		Import:   importResult{Repo: "/r", Space: "git/r", Commits: 2, First: 1, Last: 2, Seconds: 1, Hash: strings.Repeat("a", 40)},
		Git:      comparison{Differences: []difference{{Path: "p", What: "mode", Git: "1", Store: "2"}}},
		Verify:   reportJSON{Problems: []problemJSON{{What: "bad"}}},
		Follower: followed{Commits: 1},
		Derived:  derivedSizes{Directories: 1, Root: history.Size{Bytes: 3, Files: 1}, Wrong: []string{"d: git 1 B in 1 file, derived nothing"}},
	}
	if r.sound() {
		t.Error("it is sound")
	}
	text := r.text(style{rich: true, color: true})
	for _, want := range []string{"✗", "1 difference from git ls-tree -r", "mode p: git 1, store 2", "1 problem\n", "bad", "saw 1 commits of 2", "\x1b[31m",
		"sizes of 1 directory, live", "task      1 difference from git ls-tree -r -l\n      d: git 1 B in 1 file, derived nothing\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	r.Git.Equal, r.Git.Omitted, r.Verify.OK, r.Follower.Commits = true, 3, true, 2
	if r.sound() {
		t.Error("it is sound with wrong sizes")
	}
	r.Derived.Wrong = nil
	text = r.text(style{})
	if !r.sound() || strings.Contains(text, "FAIL") || strings.Contains(text, "\x1b") || !strings.Contains(text, "3 left out (--max-blob)") {
		t.Error(text)
	}
}

// Sizes that are not git's are told, whichever of the two has them.
func TestDerivedSizesAreCompared(t *testing.T) {
	r := newRepo(t)
	r.linear(8) // README.md and dir0/file0 to dir0/file7
	repo := must1(openRepo(t.Context(), r.dir))(t)
	sizes, _ := r.sizes("main")
	right := func() derivedSizes {
		d := derivedSizes{Root: sizes[""], Directories: int64(len(sizes) - 1)}
		for path, s := range sizes {
			if path != "" {
				d.Largest = append(d.Largest, s)
			}
		}
		return d
	}
	for name, c := range map[string]struct {
		spoil func(d *derivedSizes)
		wrong int
	}{
		"right":   {func(*derivedSizes) {}, 0},
		"root":    {func(d *derivedSizes) { d.Root.Bytes++ }, 1},
		"files":   {func(d *derivedSizes) { d.Largest[0].Files-- }, 1},
		"missing": {func(d *derivedSizes) { d.Largest = d.Largest[1:] }, 1},
		"more":    {func(d *derivedSizes) { d.Largest = append(d.Largest, history.Size{Path: "no", Bytes: 1, Files: 1}) }, 1},
		"nothing": {func(d *derivedSizes) { *d = derivedSizes{} }, len(sizes)},
	} {
		d := right()
		c.spoil(&d)
		if err := d.compare(t.Context(), repo, "main"); err != nil || len(d.Wrong) != c.wrong {
			t.Errorf("%s: %q, %v", name, d.Wrong, err)
		}
	}
	d := right()
	if err := d.compare(t.Context(), repo, "nope"); err == nil {
		t.Error("a commit that is not there is fine")
	}
}

// A task that has ended is not waited for.
func TestDemoTaskThatEnds(t *testing.T) {
	db := must1(local.Open("db", &local.Options{FS: vfs.NewMem()}))(t)
	t.Cleanup(func() { db.Close() })
	store := must1(newGitStore(db.DB, "r"))(t)
	if _, err := store.files.Put(t.Context(), batchlog.K("f"), []byte("to be handled")); err != nil {
		t.Fatal(err)
	}
	s, err := startSizes(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := s.read(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Error(err)
	}
}

func TestBusiest(t *testing.T) {
	got := busiest(map[string]int64{"b": 2, "a": 2, "c": 9, "d": 1}, 3)
	want := []pathCount{{"c", 9}, {"a", 2}, {"b", 2}}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	chart := style{}.chart([]pathCount{{"a/very/long/path/that/does/not/fit/into/the/space.go", 1000}, {"b\x1b", 10}})
	equal(t, "chart", chart, "  a/very/long/path/.../into/the/space.go  ############################ 1,000\n"+
		"  b?                                      #                            10\n")
	chart = style{rich: true}.chart([]pathCount{{"a", 16}, {"b", 1}})
	equal(t, "chart", chart, "  a  "+strings.Repeat("█", 28)+" 16\n  b  █▊"+strings.Repeat(" ", 26)+" 1\n")
}
