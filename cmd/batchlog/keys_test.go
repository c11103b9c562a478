package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

func TestPutGetDel(t *testing.T) {
	c := newCLI(t)
	equal(t, "put", c.must("put", "users", "alice", "a"), "commit 1\n")
	equal(t, "put --json", c.must("put", "users", "bob", "b", "--json"), "{\"id\":2}\n")
	equal(t, "put from stdin", c.feed("\x00\xff\n", "put", "users", `["x",1]`).out, "commit 3\n")
	equal(t, "put - from stdin", c.feed("", "put", "users", "empty", "-").out, "commit 4\n")
	equal(t, "get", c.must("get", "users", `"alice"`), "a")
	equal(t, "get --json", c.must("get", "users", "bob", "--json"), "b")
	equal(t, "get bytes", c.must("get", "users", `["x",1]`), "\x00\xff\n")
	equal(t, "get empty", c.must("get", "users", "empty", "--stale"), "")
	equal(t, "get --at-least", c.must("get", "users", "alice", "--at-least", "4", "--max-wait", "10s"), "a")
	equal(t, "del", c.must("del", "users", "alice", "--label", "actor=me"), "commit 5\n")
	r := c.fails(exitNotFound, []string{`no key "alice" in space users`}, "get", "users", "alice")
	equal(t, "output when not found", r.out, "")
	equal(t, "same token", c.must("put", "users", "t", "1", "--token", "T")+c.must("put", "users", "t", "2", "--token", "T"), "commit 6\ncommit 6\n")
	equal(t, "get after a second write with the token", c.must("get", "users", "t"), "1")
	equal(t, "negative key", c.must("put", "n", "--", "-5", "-x"), "commit 7\n")
	equal(t, "negative key read", c.must("get", "n", "--", "-5"), "-x")
}

// In a database that a command makes a large value is a blob, and is read as any other.
func TestPutLarge(t *testing.T) {
	c := newCLI(t)
	large := strings.Repeat("0123456789abcdef", newBlobBytes/16)
	c.feed(large[1:], "put", "files", "below")
	c.feed(large, "put", "files", "from")
	for key, want := range map[string]string{"below": large[1:], "from": large} {
		if got := c.must("get", "files", key); got != want {
			t.Errorf("%s: %d bytes, want %d", key, len(got), len(want))
		}
	}
	c.open(func(db *batchlog.DB) {
		for e, err := range db.Space("files").Scan(t.Context(), batchlog.Range{}, batchlog.BlobRefs()) {
			if err != nil || (e.Blob != nil) != (e.Key.String() == `"from"`) {
				t.Error(e.Key, e.Blob, err)
			}
		}
	})
}

func TestGetWaits(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "a", "1")
	start := time.Now()
	c.fails(exitError, []string{"commit 9", "--max-wait"}, "get", "/", "a", "--at-least", "9", "--max-wait", "20ms")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it waited %s", d)
	}
}

func TestScan(t *testing.T) {
	c := newCLI(t)
	for _, kv := range [][2]string{{"alice", "1"}, {"alan", "2"}, {"bob", "two\tlines\n"}, {"é", "ü"}, {`["a",1]`, "x"}, {`["a",2]`, "y"}, {`["b",1]`, "z"}, {"7", "\x01"}} {
		c.must("put", "s", kv[0], kv[1])
	}
	c.feed("\xff\x00", "put", "s", "z")
	c.must("put", "s/within", "k", "v")
	c.must("put", "/", "k", "v")
	all := "7\t0x01\n\"alan\"\t2\n\"alice\"\t1\n\"bob\"\t\"two\\tlines\\n\"\n\"z\"\t0xff00\n\"é\"\tü\n[\"a\",1]\tx\n[\"a\",2]\ty\n[\"b\",1]\tz\n"
	equal(t, "scan", c.must("scan", "s"), all)
	equal(t, "prefix of strings", c.must("scan", "s", "--prefix", "al"), "\"alan\"\t2\n\"alice\"\t1\n")
	equal(t, "empty prefix", c.must("scan", "s", "--prefix", "", "--limit", "1"), "\"alan\"\t2\n")
	equal(t, "prefix of arrays", c.must("scan", "s", "--prefix", `["a"]`), "[\"a\",1]\tx\n[\"a\",2]\ty\n")
	equal(t, "from and to", c.must("scan", "s", "--from", "alice", "--to", "z"), "\"alice\"\t1\n\"bob\"\t\"two\\tlines\\n\"\n")
	equal(t, "prefix and from", c.must("scan", "s", "--prefix", "al", "--from", "alb"), "\"alice\"\t1\n")
	equal(t, "prefix and to", c.must("scan", "s", "--prefix", "al", "--to", "alb"), "\"alan\"\t2\n")
	equal(t, "prefix within from and to", c.must("scan", "s", "--prefix", "al", "--from", "5", "--to", `["z"]`), "\"alan\"\t2\n\"alice\"\t1\n")
	equal(t, "reverse", c.must("scan", "s", "--reverse", "--limit", "2"), "[\"b\",1]\tz\n[\"a\",2]\ty\n")
	equal(t, "none", c.must("scan", "empty"), "")
	equal(t, "json", c.must("scan", "s", "--from", "bob", "--to", "é", "--json"),
		"{\"key\":\"bob\",\"value\":\"two\\tlines\\n\"}\n{\"key\":\"z\",\"value\":{\"$base64\":\"/wA=\"}}\n")
	c.fails(exitUsage, []string{"a prefix is a string or an array"}, "scan", "s", "--prefix", "7")
	c.fails(exitUsage, []string{"negative"}, "scan", "s", "--limit", "-1")
}

func TestUsage(t *testing.T) {
	c := newCLI(t)
	for _, u := range []struct {
		says string
		args []string
	}{
		{"put: an argument is missing", []string{"put", "s"}},
		{`too many arguments: "v2"`, []string{"put", "s", "k", "v1", "v2"}},
		{`unknown command "foo"`, []string{"foo"}},
		{"did you mean status", []string{"stats"}},
		{`verify: unknown command "gti"`, []string{"verify", "gti"}},
		{`space: unknown command "foo"`, []string{"space", "foo"}},
		{"unknown flag: --foo", []string{"get", "s", "k", "--foo"}},
		{"empty part", []string{"get", "a//b", "k"}},
		{"begins as JSON does", []string{"get", "s", `["a"`}},
		{"write NAME=VALUE", []string{"put", "s", "k", "v", "--label", "x"}},
		{"from 1 to", []string{"write", "--parallel", "0"}},
		{"no commit id", []string{"tail", "--until", "x"}},
		{"no position", []string{"tail", "--from", "x"}},
		{"exclude each other", []string{"import", "git", "--rev", "x", "--all"}},
		{"exclude each other", []string{"get", "s", "k", "--stale", "--at-least", "1"}},
		{`"tcsh"`, []string{"completion", "tcsh"}},
		{"is no duration", []string{"space", "configure", "/", "--hot-ttl", "x"}},
		{"is no number of bytes", []string{"space", "configure", "/", "--segment-bytes", "x"}},
	} {
		c.fails(exitUsage, []string{u.says, "usage: batchlog", "--help"}, u.args...)
	}
	if _, err := os.Stat(c.db); err == nil {
		t.Error("a wrong call has made a database")
	}
}

// Commands that read leave nothing where no database is, and say how to make one.
func TestMissingDatabase(t *testing.T) {
	c := newCLI(t)
	repo := newRepo(t)
	repo.linear(2)
	for _, args := range [][]string{
		{"get", "s", "k"}, {"scan", "s"}, {"del", "s", "k"}, {"tail"}, {"status"}, {"verify"}, {"verify", "git", repo.dir}, {"space", "ls"},
		{"space", "configure", "/", "--dry-run"}, {"task", "ls"}, {"task", "run", "t", "--exec", "x"}, {"task", "drop", "t", "--yes"}, {"explain", "read", "/"},
	} {
		c.fails(exitError, []string{"no database in " + c.db, "batchlog put / hello world --db"}, args...)
		if _, err := os.Stat(c.db); err == nil {
			t.Fatalf("%q has made %s", args, c.db)
		}
	}
}

func TestDatabaseFromEnvironment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "elsewhere")
	t.Setenv("BATCHLOG_DB", dir)
	var out, errOut strings.Builder
	if code := run(t.Context(), []string{"put", "/", "a", "1"}, strings.NewReader(""), &out, &errOut); code != 0 {
		t.Fatal(errOut.String())
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestLocked(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "a", "1")
	a := &app{dir: c.db, err: os.Stderr}
	db, err := a.openDB(c.db, false)
	if err != nil {
		t.Fatal(err)
	}
	c.fails(exitError, []string{"is in use by", "one process at a time"}, "get", "/", "a")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, "after it was closed", c.must("get", "/", "a"), "1")
}

func TestStatus(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "a", "1")
	c.must("put", "/", "b", "1")
	var s map[string]any
	if err := json.Unmarshal([]byte(c.must("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	if s["head"] != 2.0 || s["applied"] != 2.0 || s["epoch"] != 1.0 {
		t.Errorf("status %v", s)
	}
	text := c.must("status")
	for _, want := range []string{"head       2\n", "applied    2\n", "state      open\n", "log main   commits 1 to 2", "kept for ever, segments of 64 MiB"} {
		if !strings.Contains(text, want) {
			t.Errorf("status has no %q:\n%s", want, text)
		}
	}
}

func TestSpaces(t *testing.T) {
	c := newCLI(t)
	c.must("put", "users/eu", "a", "1")
	c.must("put", "users/eu", "b", "1")
	c.must("put", `["users",7]`, "b", "1")
	c.feed(`{"ops":[{"put":{"space":"/","key":"a","value":"1"}},{"delRange":{"space":"/"}},{"del":{"space":"users","key":1}}]}`, "write")
	equal(t, "space ls --json", c.must("space", "ls", "--json"), `{"space":"/","log":"main","commits":1,"ops":2,"last":4}
{"space":"[\"users\",7]","log":"main","commits":1,"ops":1,"last":3}
{"space":"users","log":"main","commits":1,"ops":1,"last":4}
{"space":"users/eu","log":"main","commits":2,"ops":2,"last":2}
`)
	if text := c.must("space", "ls"); !strings.HasPrefix(text, `SPACE        LOG   COMMITS  OPS  LAST
/            main        1    2     4
["users",7]  main        1    1     3
users        main        1    1     4
users/eu     main        2    2     2

log main: `) {
		t.Errorf("space ls:\n%s", text)
	}
}

func TestSpaceLsOfNothing(t *testing.T) {
	c := newCLI(t)
	c.must("space", "configure", "/", "--segment-bytes", "16MiB")
	equal(t, "space ls --json", c.must("space", "ls", "--json"), "")
	equal(t, "tail", c.must("tail", "--until", "head"), "")
	if text := c.must("verify"); !strings.Contains(text, "no problems found") {
		t.Error(text)
	}
}

func TestSpaceConfigure(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "a", "1")
	config := func() string {
		var s struct {
			Logs []struct{ Config map[string]any }
		}
		if err := json.Unmarshal([]byte(c.must("status", "--json")), &s); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal([]any{s.Logs[0].Config["hotTTL"], s.Logs[0].Config["segmentBytes"]})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := config()
	if text := c.must("space", "configure", "/", "--hot-ttl", "30d", "--dry-run"); !strings.HasPrefix(text, "would change:\n  ") {
		t.Error(text)
	}
	equal(t, "settings after a dry run", config(), before)
	var plan planJSON
	if err := json.Unmarshal([]byte(c.must("space", "configure", "/", "--hot-ttl", "30d", "--segment-bytes", "1MiB", "--json")), &plan); err != nil {
		t.Fatal(err)
	}
	if !plan.Done || len(plan.Changes) != 2 {
		t.Errorf("plan %+v", plan)
	}
	equal(t, "settings", config(), "[2592000000000000,1048576]")
	c.must("space", "configure", "/", "--hot-ttl", "1h")
	equal(t, "a setting that was not given stays", config(), "[3600000000000,1048576]")
	equal(t, "the same again", c.must("space", "configure", "/", "--hot-ttl", "1h"), "nothing changes\n")
	c.fails(exitError, []string{"not supported"}, "space", "configure", "/", "--log", "other")
	c.fails(exitError, []string{"not between"}, "space", "configure", "/", "--segment-bytes", "1")
	warm := t.TempDir()
	text := c.must("space", "configure", "/", "--warm", warm, "--warm-ttl", "30d")
	if !strings.Contains(text, "warm directories: [] → ["+warm+"]") || !strings.Contains(text, "warm TTL: for ever → 720h0m0s") {
		t.Error(text)
	}
	if text := c.must("status"); !strings.Contains(text, "kept for 30 days, after 1h0m0s in "+warm) {
		t.Error(text)
	}
	c.fails(exitError, []string{"less than HotTTL"}, "space", "configure", "/", "--warm-ttl", "1m")
	c.fails(exitError, []string{"no Warm directory"}, "space", "configure", "/", "--warm", "")
	if text := c.must("space", "configure", "/", "--warm", "", "--warm-ttl", "0s"); !strings.Contains(text, "→ []") {
		t.Error(text)
	}
}

func TestVerify(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "a", "1")
	c.must("del", "/", "a")
	c.must("put", "/", "b", "1")
	text := c.must("verify")
	for _, want := range []string{"3 commits (1 to 3), 3 ops", "store  1 key, each compared", "no problems found"} {
		if !strings.Contains(text, want) {
			t.Errorf("verify has no %q:\n%s", want, text)
		}
	}
	var r reportJSON
	if err := json.Unmarshal([]byte(c.must("verify", "--json", "--log-only")), &r); err != nil || !r.OK || r.Commits != 3 || !r.LogOnly {
		t.Errorf("%+v, %v", r, err)
	}
}

// Damage in the log is listed with its place, and is exit code 1; also where it is so bad that the database can't be opened.
func TestVerifyFindsDamage(t *testing.T) {
	for _, n := range []int{10, 3000} { // the damage is in the active segment, or in a sealed one
		c := newCLI(t)
		line := putLine("a", strings.Repeat("damaged or not ", 100)) + "\n"
		c.check(c.feed(strings.Repeat(line, n), "write", "-q", "--parallel", "64"), 0, nil)
		flip(t, c.db, "damaged or not")
		c.check(c.run("verify"), exitError, []string{" found"}, "verify")
		if r := c.run("verify"); !strings.Contains(r.out, "problem: ") {
			t.Errorf("%d commits: %s%s", n, r.out, r.err)
		}
		var report reportJSON
		r := c.run("verify", "--json")
		if err := json.Unmarshal([]byte(r.out), &report); err != nil || report.OK || len(report.Problems) == 0 || report.Problems[0].File == "" || report.Problems[0].ID == 0 {
			t.Errorf("%d commits: %v: %s%s", n, err, r.out, r.err)
		}
		c.fails(exitError, []string{"corrupt", "list all damage: batchlog verify --db"}, "tail", "--until", "head")
	}
}

// Where the log no longer has its first commits, what needs them says so, and what does not goes on.
func TestTrimmedLog(t *testing.T) {
	c := newCLI(t)
	c.must("put", "early", "k", "1")
	c.check(c.feed(strings.Repeat(putLine("a", strings.Repeat("v", 1500))+"\n", 3000), "write", "-q", "--parallel", "64"), 0, nil)
	c.must("space", "configure", "/", "--hot-ttl", "1ms")
	a := &app{dir: c.db, err: os.Stderr}
	db, err := a.openDB(c.db, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Flush(t.Context()), db.Trim(t.Context()), db.Close()); err != nil {
		t.Fatal(err)
	}
	c.fails(exitError, []string{"are no longer kept; the oldest is", "--from oldest begins with"}, "tail", "--from", "first", "--until", "head")
	oldest, _, _ := strings.Cut(c.must("tail", "--until", "head"), ",")
	if oldest == `{"id":1` || !strings.HasPrefix(oldest, `{"id":`) {
		t.Error(oldest)
	}
	r := c.run("space", "ls", "--json")
	if strings.Contains(r.out, "early") || !strings.Contains(r.err, "the log begins with commit") {
		t.Errorf("space ls: %s%s", r.out, r.err)
	}
	if text := c.must("verify"); !strings.Contains(text, "compared as far as the log goes") {
		t.Error(text)
	}
	equal(t, "a key from before", c.must("get", "early", "k"), "1")
}

// flip changes a byte of the first occurrence of text in the first segment of the database's log.
func flip(t *testing.T, dir, text string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "log", "main", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(b), text); i >= 0 {
			b[i] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no file of %q has %q", segments, text)
}

func TestVersionAndCompletion(t *testing.T) {
	c := newCLI(t)
	if text := c.must("version"); !strings.HasPrefix(text, "batchlog ") || !strings.Contains(text, "go1.") {
		t.Error(text)
	}
	var v versionJSON
	if err := json.Unmarshal([]byte(c.must("version", "--json")), &v); err != nil || v.Go == "" {
		t.Errorf("%+v, %v", v, err)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if text := c.must("completion", shell); !strings.Contains(text, "batchlog") {
			t.Errorf("%s: %q", shell, text)
		}
	}
}

func TestOutputThatFails(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "a", "1")
	var errOut strings.Builder
	code := run(context.Background(), []string{"--db", c.db, "scan", "/"}, strings.NewReader(""), brokenWriter{}, &errOut)
	if code != exitError || !strings.Contains(errOut.String(), "write output: broken") {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }
