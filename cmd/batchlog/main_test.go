package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asCommand in the environment makes the test binary be the command itself, for tests that need a process of its own.
const asCommand = "BATCHLOG_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	// Nothing of the machine's settings may decide a test.
	for _, name := range []string{"BATCHLOG_DB", "NO_COLOR", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// A result is what one run of the command did.
type result struct {
	code     int
	out, err string
}

// A cli runs the command on one database.
type cli struct {
	t  *testing.T
	db string
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	return &cli{t: t, db: filepath.Join(t.TempDir(), "db")}
}

// run runs the command in this process.
func (c *cli) run(args ...string) result {
	c.t.Helper()
	return c.runWith(c.t.Context(), nil, args...)
}

// feed is run with stdin.
func (c *cli) feed(stdin string, args ...string) result {
	c.t.Helper()
	return c.runWith(c.t.Context(), strings.NewReader(stdin), args...)
}

func (c *cli) runWith(ctx context.Context, in io.Reader, args ...string) result {
	c.t.Helper()
	if in == nil {
		in = strings.NewReader("")
	}
	var out, errOut bytes.Buffer
	code := run(ctx, append([]string{"--db", c.db}, args...), in, &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// must is run that has to go well, and returns what was printed.
func (c *cli) must(args ...string) string {
	c.t.Helper()
	r := c.run(args...)
	if r.code != 0 {
		c.t.Fatalf("batchlog %q: exit code %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// fails is run that has to end with this code and say all of these.
func (c *cli) fails(code int, says []string, args ...string) result {
	c.t.Helper()
	r := c.run(args...)
	c.check(r, code, says, args...)
	return r
}

func (c *cli) check(r result, code int, says []string, args ...string) {
	c.t.Helper()
	if r.code != code {
		c.t.Errorf("batchlog %q: exit code %d, want %d\n%s%s", args, r.code, code, r.out, r.err)
	}
	if code != 0 && !strings.HasPrefix(r.err, "batchlog: ") {
		c.t.Errorf("batchlog %q: stderr does not begin with the command's name: %q", args, r.err)
	}
	for _, s := range says {
		if !strings.Contains(r.err, s) {
			c.t.Errorf("batchlog %q says %q, not %q", args, r.err, s)
		}
	}
}

// process is the command as a process of its own, not started yet.
func (c *cli) process(args ...string) *exec.Cmd {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"--db", c.db}, args...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}
