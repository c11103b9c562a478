//go:build linux

package simtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A command is the built program on a database.
type command struct {
	t        *testing.T
	bin, dir string
}

// run runs it and returns what it printed, and its exit code.
func (c *command) run(stdin string, args ...string) (string, int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.bin, args...)
	cmd.Env = append(os.Environ(), "BATCHLOG_DB="+c.dir)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is run for what has to work on a full disk.
func (c *command) must(args ...string) string {
	c.t.Helper()
	began := time.Now()
	out, code := c.run("", args...)
	if code != 0 {
		c.t.Errorf("%s on a full disk: exit code %d after %s: %s", strings.Join(args, " "), code, time.Since(began), out)
	}
	return out
}

// Whoever finds the disk full finds a database that opens, is read, and can be told to keep less; then it takes writes again.
func TestCommandOnFullDisk(t *testing.T) {
	m := newMount(t, 32<<20)
	c := &command{t: t, bin: filepath.Join(t.TempDir(), "batchlog"), dir: filepath.Join(m.dir, "db")}
	if out, err := exec.Command("go", "build", "-o", c.bin, "github.com/bytespace/batchlog/cmd/batchlog").CombinedOutput(); err != nil {
		t.Skipf("the command can't be built here: %v: %s", err, out)
	}
	c.must("space", "configure", "/", "--segment-bytes", "1MiB")
	for round := 0; ; round++ {
		var lines bytes.Buffer
		for i := range 1000 {
			fmt.Fprintf(&lines, `{"ops":[{"put":{"space":"s","key":%d,"value":"%d %s"}}]}`+"\n", i%50, round, strings.Repeat("v", 4000))
		}
		out, code := c.run(lines.String(), "write")
		if code != 0 {
			if !strings.Contains(out, "no space") {
				t.Fatalf("write: exit code %d: %.300s", code, out)
			}
			break
		}
		if round == 100 {
			t.Fatal("the disk does not fill up")
		}
	}
	fill(t, filepath.Join(m.dir, "filler"))
	for range 3 {
		if out := c.must("get", "s", "7"); len(out) < 4000 {
			t.Errorf("get: %.100q", out)
		}
		c.must("scan", "s", "--limit", "3")
		c.must("status")
		c.must("status", "--json")
		c.must("tail", "--until", "3")
	}
	if out, code := c.run("", "put", "s", "one", "x"); code == 0 {
		if got := c.must("get", "s", "one"); strings.TrimSpace(got) != "x" {
			t.Errorf("put: %s; get: %s", out, got)
		}
	} else if !strings.Contains(out, "no space") {
		t.Errorf("put: exit code %d: %s", code, out)
	}
	c.must("verify")
	c.must("space", "configure", "/", "--hot-ttl", "1ms")
	c.must("space", "trim")
	var before, after string
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		out, code := c.run("", "put", "s", "more", strings.Repeat("v", 2000))
		if code == 0 {
			break
		}
		before, after = after, out
		c.must("space", "trim")
		if time.Since(began) > 20*time.Second {
			t.Fatalf("put after the log was trimmed: %s\n%s", before, after)
		}
	}
	if _, err := os.Stat(filepath.Join(c.dir, "ballast")); err != nil {
		t.Errorf("the ballast is not there again: %v", err)
	}
}
