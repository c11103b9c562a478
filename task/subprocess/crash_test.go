//go:build unix

package subprocess_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/bytespace/batchlog/task/subprocess"
)

// A pidLogger hands on the process of each "window N of PID" that a worker says.
type pidLogger struct {
	slog.Handler
	windows atomic.Int64
	told    func(window int64, pid int)
}

var saysPID = regexp.MustCompile(`window \d+ of (\d+)`)

// Handle is called by the goroutine of one worker's stderr.
func (l *pidLogger) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if m := saysPID.FindStringSubmatch(a.Value.String()); m != nil && a.Key == "stderr" {
			if pid, err := strconv.Atoi(m[1]); err == nil {
				l.told(l.windows.Add(1), pid)
			}
		}
		return true
	})
	return nil
}

func (l *pidLogger) Enabled(context.Context, slog.Level) bool { return true }

func (l *pidLogger) WithAttrs([]slog.Attr) slog.Handler { return l }

// A worker that is stopped or killed in the middle of a window is replaced, and the outcome is that of a sequential fold.
func TestSignals(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		kind   string
	}{
		"stop": {syscall.SIGSTOP, "no answer in time"},
		"kill": {syscall.SIGKILL, "signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			db := mem(t)
			last := fill(t, db, 60)
			o := options(t, "told")
			o.Timeout = time.Second
			var hit, failed atomic.Int64
			o.Logger = slog.New(&pidLogger{told: func(window int64, pid int) {
				if window == 5 || window == 12 {
					if err := syscall.Kill(pid, c.signal); err != nil {
						t.Error(err)
					}
					hit.Add(1)
				}
			}})
			workers := pool(t, db, o)
			handle := func(ctx context.Context, w *task.Window) error {
				err := workers.Handle(ctx, w)
				if err != nil && strings.Contains(err.Error(), c.kind) {
					failed.Add(1)
				}
				return err
			}
			runHandle(t, db, handle, last)
			checkChain(t, db, last)
			// A signal can come when the answer is out already; then the process is replaced without a failure.
			if hit.Load() != 2 || failed.Load() == 0 && c.signal == syscall.SIGSTOP {
				t.Errorf("%d signals, %d failures", hit.Load(), failed.Load())
			}
		})
	}
}

// runHandle is run with another handler than a pool's.
func runHandle(t *testing.T, db *local.DB, handle func(ctx context.Context, w *task.Window) error, last batchlog.ID) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- task.Run(ctx, db.DB, task.Task{
			Name: "t", Source: []*batchlog.Space{db.Space("source")}, Window: task.Limit{Commits: 2}, Retry: task.Retry{First: time.Millisecond}, Handle: handle,
		})
	}()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if s, err := task.Get(t.Context(), db.DB, "t"); err == nil && s.Cursor >= last {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("not at %d: %+v, %v", last, s, err)
		}
	}
}

// beParent is a process with a worker that hangs; it prints what the worker says.
func beParent() {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	workers, err := subprocess.New(db.DB, subprocess.Options{
		Command: []string{self}, Env: append(os.Environ(), asWorker+"="+os.Getenv(asParent)), Logger: slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	if err != nil {
		panic(err)
	}
	panic(workers.Handle(context.Background(), &task.Window{First: 1, Last: 1, Attempt: 1}))
}

// A parent that is killed leaves no worker behind: on Linux not even one that does not read its stdin.
func TestParentDies(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills the children of a process that dies; elsewhere the end of stdin has to do")
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), asParent+"=hang")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if _, after, ok := strings.Cut(lines.Text(), `stderr="pid `); ok {
			if pid, err = strconv.Atoi(strings.Trim(after, `"`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if pid == 0 || !runs(pid) {
		t.Fatalf("worker %d does not run", pid)
	}
	time.Sleep(300 * time.Millisecond)
	if !runs(pid) {
		t.Error("the worker dies before its parent")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	for deadline := time.Now().Add(10 * time.Second); runs(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			t.Fatalf("worker %d outlives its parent", pid)
		}
	}
}

// runs reports whether a process is there and not just a zombie that nobody has waited for yet.
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}
