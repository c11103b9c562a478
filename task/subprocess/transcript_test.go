package subprocess_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
)

// The transcript in the manual is what goes over the pipes, line for line.
func TestTranscript(t *testing.T) {
	page, err := os.ReadFile("../../docs/workers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(page), "```text\n> {")
	want, _, _ = strings.Cut(want, "```")
	want = "> {" + want

	now := time.Date(2026, 11, 22, 18, 45, 53, 0, time.UTC)
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var b batchlog.Batch
	b.Put(db.Space("cities"), batchlog.K("Brno"), []byte("1"))
	b.Put(db.Space("cities"), batchlog.K("Bern"), []byte("1"))
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	b = batchlog.Batch{Labels: map[string]string{"actor": "web"}}
	b.Put(db.Space("source", "eu"), batchlog.K("alice"), []byte("Brno"))
	b.Delete(db.Space("source", "eu"), batchlog.K("bob", 7))
	last, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "transcript")
	o := options(t, "transcript", "BATCHLOG_TEST_TRANSCRIPT="+path)
	o.Task = "by city"
	run(t, db, pool(t, db, o), task.Task{Window: task.Limit{Commits: 1}}, last)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("what goes over the pipes is:\n%s\nand docs/workers.md has:\n%s", got, want)
	}
	if value, err := db.Space("cities").Get(t.Context(), batchlog.K("Brno")); string(value) != "2" {
		t.Errorf("Brno: %s, %v", value, err)
	}
}
