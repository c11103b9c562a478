//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

// started waits until cmd, a running process, has opened the database.
func (c *cli) started(cmd *exec.Cmd) {
	c.t.Helper()
	holder := fmt.Sprintf("process %d ", cmd.Process.Pid)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if text, _ := os.ReadFile(filepath.Join(c.db, "OWNER")); strings.HasPrefix(string(text), holder) {
			return
		}
	}
	c.t.Fatal("the process does not get to work")
}

// inGroup starts cmd in a process group of its own, as a shell with a terminal does, and returns what it writes to stderr.
func inGroup(t *testing.T, cmd *exec.Cmd) *bytes.Buffer {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return &stderr
}

// signalGroup sends a signal to all of cmd's group, as a terminal does, and waits for its end.
func signalGroup(t *testing.T, cmd *exec.Cmd, s syscall.Signal) (code int) {
	t.Helper()
	if err := syscall.Kill(-cmd.Process.Pid, s); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code tells
	return cmd.ProcessState.ExitCode()
}

// Imports of a history that takes a while are ended from outside.
func TestEndedImports(t *testing.T) {
	r := newRepo(t)
	r.linear(2000)
	t.Run("CtrlC", func(t *testing.T) { testCtrlCOnImport(t, r) })
	t.Run("Kill", func(t *testing.T) { testKillImport(t, r) })
	t.Run("Demo", func(t *testing.T) { testCtrlCOnDemo(t, r) })
}

// Ctrl-C in a terminal reaches the gits that an import runs too: it still stops cleanly, says what was done, and
// goes on when it is run again.
func testCtrlCOnImport(t *testing.T, r *testRepo) {
	t.Helper()
	want := r.lines("rev-list", "--reverse", "--first-parent", "main")
	c := newCLI(t)
	interrupted := 0
	for range 2 {
		cmd := c.process("import", "git", r.dir)
		stderr := inGroup(t, cmd)
		c.started(cmd)
		time.Sleep(150 * time.Millisecond)
		code := signalGroup(t, cmd, syscall.SIGINT)
		if code == 0 {
			break // it was faster
		}
		interrupted++
		equal(t, "exit code", code, 130)
		if text := stderr.String(); !strings.Contains(text, "batchlog: interrupted: ") || !strings.Contains(text, "run it again to go on") {
			t.Errorf("stderr: %s", text)
		}
		if headOf(t, c) > 0 {
			c.must("verify", "git", r.dir)
		}
	}
	if interrupted == 0 {
		t.Skip("this machine imports faster than it can be interrupted")
	}
	c.must("import", "git", r.dir)
	c.must("verify", "git", r.dir)
	equalHashes(t, c, want)
}

// Killed again and again, an import doubles nothing and leaves nothing out.
func testKillImport(t *testing.T, r *testRepo) {
	t.Helper()
	want := r.lines("rev-list", "--reverse", "--first-parent", "main")
	c := newCLI(t)
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range rounds {
		cmd := c.process("import", "git", r.dir)
		inGroup(t, cmd)
		c.started(cmd)
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
	c.must("import", "git", r.dir)
	c.must("verify", "git", r.dir)
	c.must("verify")
	equalHashes(t, c, want)
}

// equalHashes compares the git commits in the log with those that should be there, in order.
func equalHashes(t *testing.T, c *cli, want []string) {
	t.Helper()
	var got []string
	c.open(func(db *batchlog.DB) {
		head := must1(db.Head(t.Context()))(t)
		for commit, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: head}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, commit.Labels["hash"])
		}
	})
	if !slices.Equal(got, want) {
		t.Errorf("%d commits in the log, want %d", len(got), len(want))
	}
}

// Every id that write has printed is there after kill -9, with its batch; ids are dense and the store equals the log.
func TestKillWrite(t *testing.T) {
	c := newCLI(t)
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	random := rand.New(rand.NewPCG(2, 2))
	acknowledged := map[batchlog.ID]string{} // key by id
	for round := range rounds {
		cmd := c.process("write", "--parallel", strconv.Itoa(1+round%2*63))
		in := must1(cmd.StdinPipe())(t)
		out := must1(cmd.StdoutPipe())(t)
		inGroup(t, cmd)
		go func() {
			defer in.Close()
			for line := 1; ; line++ {
				if _, err := fmt.Fprintln(in, putLine(fmt.Sprintf("%d/%d", round, line), strings.Repeat("v", line%200))); err != nil {
					return
				}
			}
		}()
		c.started(cmd)
		time.AfterFunc(time.Duration(random.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var o struct {
				Line int64
				ID   batchlog.ID
			}
			if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
				break // killed in the middle of a line
			}
			acknowledged[o.ID] = fmt.Sprintf("%d/%d", round, o.Line)
		}
		_ = cmd.Wait() // it was killed
		keys := map[batchlog.ID]string{}
		c.open(func(db *batchlog.DB) {
			head := must1(db.Head(t.Context()))(t)
			if head == 0 {
				return
			}
			for commit, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: head}) {
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "id", int(commit.ID), len(keys)+1)
				for op, err := range commit.Ops() {
					if err != nil {
						t.Fatal(err)
					}
					keys[commit.ID] = must1(op.Key.Decode())(t).(string)
				}
			}
		})
		for id, key := range acknowledged {
			if keys[id] != key {
				t.Fatalf("round %d: commit %d was acknowledged for key %s and has key %q", round, id, key, keys[id])
			}
		}
	}
	if len(acknowledged) < 100 {
		t.Errorf("only %d commits were acknowledged in all", len(acknowledged))
	}
	c.must("verify")
}

// A demo that is interrupted leaves nothing behind.
func testCtrlCOnDemo(t *testing.T, r *testRepo) {
	t.Helper()
	temp := t.TempDir()
	cmd := newCLI(t).process()
	cmd.Args = append(cmd.Args[:1], "demo", r.dir)
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	stderr := inGroup(t, cmd)
	for left, _ := os.ReadDir(temp); len(left) == 0; left, _ = os.ReadDir(temp) {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if code := signalGroup(t, cmd, syscall.SIGINT); code != 130 || stderr.String() != "batchlog: interrupted\n" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}

func TestSignalsOfOtherCommands(t *testing.T) {
	c := newCLI(t)
	c.must("put", "/", "a", "1")
	for _, s := range []struct {
		signal syscall.Signal
		code   int
		args   []string
		prints string
	}{
		{syscall.SIGINT, 0, []string{"tail"}, `{"id":1,`},
		{syscall.SIGTERM, 0, []string{"tail"}, `{"id":1,`},
		{syscall.SIGTERM, 143, []string{"write"}, `{"line":1,"id":`},
		{syscall.SIGINT, 130, []string{"write"}, `{"line":1,"id":`},
	} {
		cmd := c.process(s.args...)
		in := must1(cmd.StdinPipe())(t)
		out := must1(cmd.StdoutPipe())(t)
		inGroup(t, cmd)
		if _, err := io.WriteString(in, putLine("b", "1")+"\n"); err != nil && s.args[0] == "write" {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, s.prints) {
			t.Errorf("%q prints %q, %v", s.args, line, err)
		}
		equal(t, fmt.Sprintf("exit code of %q", s.args), signalGroup(t, cmd, s.signal), s.code)
	}
}

// A task that runs ends well on Ctrl-C and is killed as any process; no worker is left either way, and run again it goes on.
func TestEndedTask(t *testing.T) {
	c := newCLI(t)
	for i := range 20 {
		c.must("put", "users", strconv.Itoa(i), "v")
	}
	// The worker handles windows slowly and tells its process.
	script := filepath.Join(t.TempDir(), "worker.sh")
	text := "read -r hello; echo '{\"batchlog\":1}'; echo pid $$ >&2\n" +
		"while read -r window; do sleep 0.05; n=${window#*first\\\":}; echo \"{\\\"ops\\\":[{\\\"put\\\":{\\\"space\\\":\\\"out\\\",\\\"key\\\":${n%%,*},\\\"value\\\":\\\"\\\"}}]}\"; done\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"task", "run", "t", "--source", "users", "--window-commits", "1", "--exec", "exec sh " + shellWord(script)}
	for _, s := range []struct {
		signal syscall.Signal
		code   int
		more   []string
	}{
		{syscall.SIGINT, 0, nil},
		{syscall.SIGKILL, -1, nil},
		{syscall.SIGTERM, 143, []string{"--until-head"}},
	} {
		if s.signal == syscall.SIGKILL && runtime.GOOS != "linux" {
			continue
		}
		cmd := c.process(append(args, s.more...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		stderr := must1(cmd.StderrPipe())(t)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		worker := 0
		for lines := bufio.NewScanner(stderr); worker == 0 && lines.Scan(); {
			if _, after, ok := strings.Cut(lines.Text(), `stderr="pid `); ok {
				worker = must1(strconv.Atoi(strings.Trim(after, `"`)))(t)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, stderr) }() // so that it is not kept from writing
		if worker == 0 {
			t.Fatal("the worker did not start")
		}
		time.Sleep(100 * time.Millisecond)
		equal(t, fmt.Sprintf("exit code on %s", s.signal), signalGroup(t, cmd, s.signal), s.code)
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(worker, 0) == nil && !zombie(worker); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after %s worker %d is still there", s.signal, worker)
			}
		}
	}
	handled := strings.Count(c.must("scan", "out"), "\n")
	if handled == 0 || handled == 20 {
		t.Logf("%d windows were handled before the end", handled)
	}
	c.must(append(args, "--until-head")...)
	equal(t, "windows in all", strings.Count(c.must("scan", "out"), "\n"), 20)
}

// zombie reports whether a process has ended and nobody has waited for it yet.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(text), ") Z ")
}
