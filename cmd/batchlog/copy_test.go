package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// copies runs copy or move with --json.
func (c *cli) copies(args ...string) (done copied) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.must(append(args, "--json")...)), &done); err != nil {
		c.t.Fatal(err)
	}
	return done
}

func TestCopyAndMove(t *testing.T) {
	c := newCLI(t)
	c.must("import", "ndjson", file(t, "in", numbers(1000)), "--space", "n", "--key", "id", "--value", "v", "--atomic")
	c.must("put", "n/within", "x", "deep")
	c.must("put", "c", "own", "stays")
	equal(t, "copy", c.must("copy", "n", "c", "--label", "why=test"), "commit 4: 1,000 keys\n")
	equal(t, "copied", c.must("scan", "c", "--to", "own"), c.must("scan", "n"))
	equal(t, "own key", c.must("get", "c", "own"), "stays")
	c.fails(exitNotFound, nil, "get", "c/within", "x")
	if line := c.must("tail", "--from", "4", "--until", "4"); !strings.HasPrefix(line, `{"id":4,`) || !strings.Contains(line, `"labels":{"why":"test"}`) {
		t.Error(line[:100])
	}
	done := c.copies("copy", "n", "part", "--from", "10", "--to", "20", "--token", "t")
	equal(t, "part", done, copied{5, 10, 10})
	equal(t, "part again", c.copies("copy", "n", "part", "--from", "10", "--to", "20", "--token", "t"), done)
	equal(t, "keys of the part", c.must("scan", "part"), c.must("scan", "n", "--from", "10", "--to", "20"))
	equal(t, "nothing", c.copies("copy", "n", "part", "--prefix", "x"), copied{6, 0, 0})

	before := c.must("scan", "n")
	equal(t, "moved", c.copies("move", "n", "m").Keys, 1000)
	equal(t, "where they were", c.must("scan", "n"), "")
	equal(t, "where they are", c.must("scan", "m"), before)
	equal(t, "moved part", c.copies("move", "m", "n", "--from", "1000").Keys, 1)
	equal(t, "both", c.must("scan", "m")+c.must("scan", "n"), before)
	equal(t, "tree", c.must("move", "n", "o/p", "--tree"), "commit 9: 2 keys\n")
	equal(t, "deep", c.must("get", "o/p/within", "x"), "deep")
	c.fails(exitNotFound, nil, "get", "n/within", "x")
	equal(t, "copied tree", c.must("copy", "/", "backup", "--tree"), fmt.Sprintf("commit 10: %s\n", counted(1000+1+10+999+2, "key")))
	equal(t, "its inside", c.must("scan", "backup/m"), c.must("scan", "m"))

	c.fails(exitUsage, []string{"are the same space, m"}, "move", "m", "m")
	c.fails(exitUsage, []string{"--tree takes all"}, "copy", "m", "x", "--tree", "--prefix", "a")
	c.fails(exitUsage, []string{"an argument is missing"}, "copy", "m")
	c.fails(exitUsage, []string{"write NAME=VALUE"}, "copy", "m", "x", "--label", "a")
	equal(t, "head", headOf(t, c), 10)
	newCLI(t).fails(exitError, []string{"no database in"}, "copy", "m", "x")
}

// What a crash leaves of a chain is listed and swept.
func TestChains(t *testing.T) {
	c := newCLI(t)
	c.must("put", "s", "a", "b")
	equal(t, "no chains", c.must("chain", "ls"), "no chains\n")
	equal(t, "no chains in JSON", c.must("chain", "ls", "--json"), "")
	equal(t, "nothing to sweep", c.must("chain", "sweep"), "removed 0 chains, 0 B\n")
	name := strings.Repeat("07", 15) + "00"
	dir := filepath.Join(c.db, "chains", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "runs"), make([]byte, 12_345), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := c.must("chain", "ls"); !strings.Contains(text, name+"  left behind  ") || !strings.Contains(text, "12.3 kB") {
		t.Error(text)
	}
	var left struct {
		Name  string
		Begun time.Time
		Bytes int64
		Open  bool
	}
	if err := json.Unmarshal([]byte(c.must("chain", "ls", "--json")), &left); err != nil || left.Name != name || left.Bytes != 12_345 || left.Open || time.Since(left.Begun) > time.Hour {
		t.Errorf("%+v, %v", left, err)
	}
	equal(t, "too young", c.must("chain", "sweep"), "removed 0 chains, 0 B\n")
	equal(t, "swept", c.must("chain", "sweep", "--older-than", "0s", "--json"), `{"chains":1,"bytes":12345}`+"\n")
	equal(t, "none left", c.must("chain", "ls"), "no chains\n")
	c.fails(exitUsage, []string{"is negative"}, "chain", "sweep", "--older-than", "-1s")
}
