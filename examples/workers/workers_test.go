// Package workers has workers of tasks that are not written in Go, and runs them.
package workers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/bytespace/batchlog/task/subprocess"
)

// Each worker, in four processes and windows of some commits, comes to what is computed here from the log.
func TestWorkers(t *testing.T) {
	for _, c := range []struct {
		command []string
		space   string
		want    func(t *testing.T, source *batchlog.Space, last batchlog.ID) map[string]string
	}{
		{[]string{"python3", "count.py"}, "changes", changes},
		{[]string{"sh", "audit.sh"}, "audit", audit},
	} {
		t.Run(c.command[1], func(t *testing.T) {
			if _, err := exec.LookPath(c.command[0]); err != nil {
				t.Skipf("%s is not run: %v", c.command[1], err)
			}
			db, err := local.Open(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			last := fill(t, db)
			run(t, db, c.command, last)
			got := map[string]string{}
			for e, err := range db.Space(c.space).Scan(t.Context(), batchlog.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				got[e.Key.String()] = string(e.Value)
			}
			want := c.want(t, db.Space("users"), last)
			if !maps.Equal(got, want) {
				t.Errorf("it came to %v, and should to %v", got, want)
			}
		})
	}
}

// fill writes some commits of one op and more, with values and labels that could mislead who does not parse JSON.
func fill(t *testing.T, db *local.DB) (last batchlog.ID) {
	t.Helper()
	users := db.Space("users")
	for i := range 60 {
		user := []string{"alice", "bob", "zoë"}[i%3]
		b := &batchlog.Batch{Labels: map[string]string{"id": "7", "time": `{"id":9,"time":"now"`}}
		b.Put(users, batchlog.K(user), fmt.Appendf(nil, `{"id":%d,"time":"never"}`, i))
		if i%4 == 0 {
			b.Put(users, batchlog.K(user, i), []byte{0xff, byte(i)})
			b.DeleteRange(users, batchlog.Prefix(user, "old"))
		}
		if i%10 == 0 {
			b.Delete(users, batchlog.K("bob"))
		}
		var err error
		if last, err = db.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// run has the command handle all up to last.
func run(t *testing.T, db *local.DB, command []string, last batchlog.ID) {
	t.Helper()
	workers, err := subprocess.New(db.DB, subprocess.Options{Task: "example", Command: command})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- task.Run(ctx, db.DB, task.Task{
			Name: "example", Source: []*batchlog.Space{db.Space("users")}, Window: task.Limit{Commits: 7}, Concurrency: 4, Handle: workers.Handle,
		})
	}()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := task.Get(t.Context(), db.DB, "example")
		if err == nil && s.Cursor >= last {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not at %d: %+v, %v", last, s, err)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := workers.Close(); err != nil {
		t.Error(err)
	}
}

// changes is how many puts and deletes there are for each user.
func changes(t *testing.T, source *batchlog.Space, last batchlog.ID) map[string]string {
	t.Helper()
	want := map[string]string{}
	for c, err := range source.Tail(t.Context(), batchlog.TailOptions{Until: last}) {
		if err != nil {
			t.Fatal(err)
		}
		for op, err := range c.Ops() {
			if err != nil {
				t.Fatal(err)
			}
			if op.Kind == batchlog.OpDeleteRange {
				continue
			}
			v, err := op.Key.Decode()
			if err != nil {
				t.Fatal(err)
			}
			if parts, ok := v.([]any); ok {
				v = parts[0]
			}
			user := batchlog.K(v).String()
			n := 0
			if want[user] != "" {
				if n, err = strconv.Atoi(want[user]); err != nil {
					t.Fatal(err)
				}
			}
			want[user] = strconv.Itoa(n + 1)
		}
	}
	return want
}

// audit is the times of all commits.
func audit(t *testing.T, source *batchlog.Space, last batchlog.ID) map[string]string {
	t.Helper()
	want := map[string]string{}
	for c, err := range source.Tail(t.Context(), batchlog.TailOptions{Until: last}) {
		if err != nil {
			t.Fatal(err)
		}
		want[c.ID.String()] = c.Time.UTC().Format(time.RFC3339Nano)
	}
	return want
}

// What docs/workers.md shows is the workers as they are.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/workers.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	langs := map[string]string{"py": "python", "sh": "sh"}
	shown := 0
	for _, f := range files {
		_, end, _ := strings.Cut(f.Name(), ".")
		if langs[end] == "" {
			continue
		}
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "\n```"+langs[end]+"\n"+string(text)+"```\n") {
			t.Errorf("docs/workers.md does not show %s as it is", f.Name())
		}
		shown++
	}
	if shown != len(slices.Collect(maps.Keys(langs))) {
		t.Errorf("%d workers are shown", shown)
	}
}
