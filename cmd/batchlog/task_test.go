package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// audit is the path of a worker that is a shell script.
func audit(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../examples/workers/audit.sh")
	if err != nil {
		t.Fatal(err)
	}
	return "sh " + shellWord(path)
}

// status is what task show --json says.
func (c *cli) status(name string) (s task.Status) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.must("task", "show", name, "--json")), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// From its first run to its end, a task is looked after with the command alone.
func TestTaskLife(t *testing.T) {
	c := newCLI(t)
	for i := range 5 {
		c.must("put", "users", fmt.Sprint(i), "v")
	}
	equal(t, "ls of none", c.must("task", "ls"), "no tasks\n")
	equal(t, "ls --json of none", c.must("task", "ls", "--json"), "")
	run := []string{"task", "run", "audit", "--source", "users", "--exec", audit(t), "--until-head", "--window-commits", "2"}
	out := c.must(append(run, "--json")...)
	for line := range strings.Lines(out) {
		var s task.Status
		if err := json.Unmarshal([]byte(line), &s); err != nil || s.Name != "audit" {
			t.Errorf("%s: %v", line, err)
		}
	}
	equal(t, "audited", strings.Count(c.must("scan", "audit"), "\n"), 5)
	if s := c.status("audit"); s.Cursor < 5 || fmt.Sprint(s.Source) != "[users]" {
		t.Errorf("%+v", s)
	}
	if text := c.must("task", "ls"); !strings.Contains(text, "TASK") || !strings.Contains(text, "\naudit ") {
		t.Error(text)
	}
	if text := c.must("task", "show", "audit"); !strings.Contains(text, "source  users\n") || !strings.Contains(text, "parked  0 windows\n") {
		t.Error(text)
	}

	// A paused one is not run, one that is resumed goes on where it was.
	equal(t, "pause", c.must("task", "pause", "audit"), "task audit: paused\n")
	equal(t, "state", c.status("audit").State, "paused")
	c.must("put", "users", "new", "v")
	c.fails(exitError, []string{"task audit is paused", "batchlog task resume audit --db"}, run...)
	equal(t, "audited while paused", strings.Count(c.must("scan", "audit"), "\n"), 5)
	equal(t, "resume", c.must("task", "resume", "audit", "--json"), `{"task":"audit","done":"resumed"}`+"\n")
	c.must(run...)
	equal(t, "audited after", strings.Count(c.must("scan", "audit"), "\n"), 6)

	// Reset has it handle all once more.
	for _, row := range strings.Split(strings.TrimSpace(c.must("scan", "audit")), "\n") {
		key, _, _ := strings.Cut(row, "\t")
		c.must("del", "audit", key)
	}
	if text := c.must("task", "reset", "audit", "3"); !strings.HasSuffix(text, " to 2\n") {
		t.Error(text)
	}
	c.must(run...)
	equal(t, "audited after a reset to 3", strings.Count(c.must("scan", "audit"), "\n"), 4)
	c.must("task", "drop", "audit", "--yes")
	equal(t, "ls after drop", c.must("task", "ls"), "no tasks\n")
}

// A task that nothing more concerns is at head, however far behind its cursor is; with nothing to do at all it ends at once.
func TestTaskUntilHead(t *testing.T) {
	c := newCLI(t)
	c.must("put", "users", "a", "v")
	for range 3 {
		c.must("put", "others", "a", "v")
	}
	c.must("task", "run", "audit", "--source", "users", "--exec", audit(t), "--until-head")
	equal(t, "audited", strings.Count(c.must("scan", "audit"), "\n"), 1)
	c.must("task", "run", "none", "--source", "nothing", "--exec", "exit 1", "--until-head", "--attempts", "1")
	c.must("task", "run", "late", "--source", "users", "--start", "now", "--exec", "exit 1", "--until-head", "--attempts", "1")
}

// A window that fails for good stops the task, or is set aside and tried again; what to do is said.
func TestTaskPoison(t *testing.T) {
	c := newCLI(t)
	c.must("put", "users", "a", "v")
	run := func(exec string, more ...string) []string {
		return append([]string{"task", "run", "audit", "--source", "users", "--until-head", "--attempts", "2", "--exec", exec}, more...)
	}
	r := c.run(run("echo oh no >&2; exit 3")...)
	s := c.status("audit")
	for _, want := range []string{
		fmt.Sprintf("\nbatchlog: task audit stopped at commits 1 to %d after 2 attempts: worker: ", s.Last), "exit status 3", "oh no",
		fmt.Sprintf("leave it out: batchlog task reset audit %d --db ", s.Last+1), "--poison park",
	} {
		if r.code != exitError || !strings.Contains(r.err, want) {
			t.Errorf("exit code %d, and it says %s, not %q", r.code, r.err, want)
		}
	}
	if s.State != "stopped" || s.Cursor != 0 || !strings.Contains(s.Error, "oh no") {
		t.Errorf("%+v", s)
	}
	if text := c.must("task", "show", "audit"); !strings.Contains(text, fmt.Sprintf("failed  commits 1 to %d, after 2 attempts\n", s.Last)) || !strings.Contains(text, "\n        oh no\n") {
		t.Error(text)
	}
	r = c.run(run("exit 3", "--poison", "park")...)
	c.check(r, 0, []string{"1 window parked"})
	var w task.ParkedWindow
	if err := json.Unmarshal([]byte(c.must("task", "parked", "audit", "--json")), &w); err != nil || w.First != 1 || w.Retry || !strings.Contains(w.Error, "exit status 3") {
		t.Errorf("%+v, %v", w, err)
	}
	c.fails(exitNotFound, []string{"no parked window that begins with commit 9"}, "task", "retry", "audit", "9")
	equal(t, "retry", c.must("task", "retry", "audit", "1"), "task audit: 1 parked window to be tried again by the next worker\n")
	if text := c.must("task", "parked", "audit"); !strings.Contains(text, "asked for") {
		t.Error(text)
	}
	c.must(run(audit(t))...)
	equal(t, "parked", c.must("task", "parked", "audit"), "no parked windows\n")
	equal(t, "audited", strings.Count(c.must("scan", "audit"), "\n"), 1)
}

func TestTaskUsage(t *testing.T) {
	c := newCLI(t)
	for _, u := range []struct {
		says string
		args []string
	}{
		{"--exec CMD is missing", []string{"run", "t"}},
		{`--poison "x"`, []string{"run", "t", "--exec", "x", "--poison", "x"}},
		{"--concurrency at least 1", []string{"run", "t", "--exec", "x", "--concurrency", "0"}},
		{`--start "x" is no position`, []string{"run", "t", "--exec", "x", "--start", "x"}},
		{"empty part", []string{"run", "t", "--exec", "x", "--source", "a//b"}},
		{`POSITION "x" is no position`, []string{"reset", "t", "x"}},
		{"--yes says that this is meant", []string{"drop", "t"}},
		{"--reason is missing", []string{"release", "t", "--yes"}},
		{"--yes says that this is meant", []string{"release", "t", "--reason", "x"}},
		{"no commit id", []string{"retry", "t", "x"}},
		{`unknown command "foo"`, []string{"foo"}},
	} {
		c.fails(exitUsage, []string{u.says, "usage: batchlog task"}, append([]string{"task"}, u.args...)...)
	}
	c.must("put", "users", "a", "v")
	for _, args := range [][]string{{"show", "t"}, {"pause", "t"}, {"resume", "t"}, {"reset", "t", "1"}, {"drop", "t", "--yes"}, {"parked", "t"}, {"retry", "t"}, {"release", "t", "--reason", "x", "--yes"}} {
		c.fails(exitNotFound, []string{`no task "t"`, "batchlog task ls --db"}, append([]string{"task"}, args...)...)
	}
}

// What the log is kept for, and what a read waits for.
func TestTaskHoldsAndExplain(t *testing.T) {
	c := newCLI(t)
	c.must("put", "users", "a", "v")
	c.must("task", "run", "audit", "--source", "users", "--derives", "audit", "--exec", audit(t), "--until-head")
	var h task.Hold
	if err := json.Unmarshal([]byte(c.must("task", "holds", "--json")), &h); err != nil || h.Task != "audit" || h.First < 2 {
		t.Errorf("%+v, %v", h, err)
	}
	var p task.ResetPlan
	if err := json.Unmarshal([]byte(c.must("task", "reset", "audit", "first", "--dry-run", "--json")), &p); err != nil || p.To != 0 || p.Again != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	c.must("put", "users", "b", "v")
	var w task.Wait
	if err := json.Unmarshal([]byte(c.must("explain", "read", "audit", "--json")), &w); err != nil || w.Task != "audit" || w.Behind != 1 {
		t.Errorf("%+v, %v", w, err)
	}
	c.fails(exitError, []string{"held", "task audit", "batchlog task show audit --db"}, "get", "audit", "1", "--max-wait", "20ms")
	if text := c.must("explain", "read", "users"); !strings.Contains(text, "no task derives it") {
		t.Error(text)
	}
	c.must("task", "release", "audit", "--reason", "a test", "--yes")
	equal(t, "holds after release", c.must("task", "holds"), "nothing is kept for a task\n")
}

func TestTaskTexts(t *testing.T) {
	at := time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC)
	s := task.Status{
		Name: "t", State: "failing", Source: []string{"users", "a/b"}, Derives: []string{"out"}, Cursor: 1200, Moved: at.Add(-3 * time.Second), Head: 1300,
		Lag: task.Lag{Commits: 100, Bytes: 2000, Seconds: 5}, Rate: 812, ETA: 2, Parked: 1, Hold: 1100,
		Workers: []task.Worker{{Fence: 3, Name: "host:7", Since: at, Alive: true, First: 1201, Last: 1210}, {Fence: 2, Name: "old", Since: at, Seen: at.Add(-time.Minute)}},
		First:   1201, Last: 1210, Attempts: 2, Error: "one\ntwo", Next: at.Add(2 * time.Second),
	}
	since := at.Local().Format(time.DateTime)
	equal(t, "show", taskText(s, at), strings.Join([]string{
		"task     t", "state    failing", "source   users, a/b", "derives  out", "cursor   1,200 of 1,300, moved 3.00 s ago",
		"lag      100 commits, 2.00 kB, the first 5.00 s old; 812 commits/s, at head in 2.00 s", "parked   1 window",
		"worker   3  host:7, since " + since + ", at commits 1,201 to 1,210", "worker   2  old, since " + since + ", last seen 60.0 s ago",
		"holds    commits from 1,100 on", "failed   commits 1,201 to 1,210, after 2 attempts, again in 2.00 s", "error    one", "         two", "",
	}, "\n"))
	equal(t, "ls", tasksText([]task.Status{s}), "TASK  STATE    CURSOR  LAG   RATE  PARKED  WORKERS\nt     failing   1,200  100  812/s       1        1\n")
	equal(t, "progress", progressText(s, false), "task t: failing at commit 1,200, 100 commits behind, 812/s, 1 window parked; commits 1,201 to 1,210 failed after 2 attempts: one two")
	equal(t, "holds", holdsText([]task.Hold{{Task: "t", First: 7, Bytes: 2000, Since: at}, {Task: "u", First: 9}}),
		"TASK  FIRST     SIZE  SINCE\nt         7  2.00 kB  "+since+"\nu         9      0 B  its writing\n")
	equal(t, "plan", resetText("t", task.ResetPlan{From: 9, To: 2, Again: 7, Skips: 1, Parked: 2}),
		"task t: the cursor would move from 9 to 2\n  7 commits handled once more\n  1 commit never handled\n  2 parked windows left as they are\n")
	equal(t, "waits", waitsText([]task.Wait{
		{Space: "a", Task: "t", State: "failing", Cursor: 3, Until: 9, Behind: 2, ETA: 1.5, Reason: "no"}, {Space: "b", Task: "u", State: "idle", Cursor: 9},
	}), "a is derived by task t, failing\n  waits until the task, at commit 3, is at 9: 2 commits to go, about 1.50 s\n  why: no\n"+
		"b is derived by task u, idle\n  no wait: the task has handled all that concerns it, up to commit 9\n")
	var gap error = &batchlog.GapError{}
	a := &app{dir: defaultDir}
	if h := a.hint(a.taskEnded("t", gap)); !strings.Contains(h, "batchlog task reset t oldest") {
		t.Error(h)
	}
}
