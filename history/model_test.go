package history_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func open(t *testing.T) *local.DB {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// start runs a task; end ends it and returns why it ended.
func start(t *testing.T, db *local.DB, k task.Task) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- task.Run(ctx, db.DB, k) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// until waits for a task to be at id.
func until(t *testing.T, db *local.DB, k task.Task, id batchlog.ID) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s, err := task.Get(t.Context(), db.DB, k.Name)
		if err == nil && s.Cursor >= id {
			return
		}
		if s.Error != "" || time.Now().After(deadline) {
			t.Fatalf("task %s is not at %d: %+v, %v", k.Name, id, s, err)
		}
	}
}

// all is a space as a map.
func all(t *testing.T, s *batchlog.Space) map[string]string {
	t.Helper()
	found := map[string]string{}
	for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		found[string(e.Key)] = string(e.Value)
	}
	return found
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for k := range want {
		if got[k] != want[k] {
			t.Errorf("%s: %s is %q, want %q", what, batchlog.Key(k), got[k], want[k])
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s: %s is %q, should not be there", what, batchlog.Key(k), got[k])
		}
	}
}

func pathOf(t *testing.T, key string) string {
	t.Helper()
	p, err := history.Path(batchlog.Key(key))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var word = regexp.MustCompile(`[A-Za-z0-9_]+`)

// wantSizes, wantWords and wantAuthors are what the source spaces as they are come to, computed plainly.
func wantSizes(t *testing.T, repo *batchlog.Space) map[string]string {
	t.Helper()
	type size struct{ bytes, files int }
	sum := map[string]size{}
	count := func(key string, n int) {
		for dir := pathOf(t, key); ; {
			dir = path.Dir(dir)
			name := strings.TrimPrefix(dir, ".")
			sum[name] = size{sum[name].bytes + n, sum[name].files + 1}
			if dir == "." {
				return
			}
		}
	}
	for key, content := range all(t, repo.Space("files")) {
		count(key, len(content))
	}
	for key, blob := range all(t, repo.Space("omitted")) {
		n := 0
		if _, err := fmt.Sscanf(blob, `{"hash":"x","size":%d}`, &n); err != nil {
			t.Fatal(err)
		}
		count(key, n)
	}
	want := map[string]string{}
	for dir, s := range sum {
		want[string(history.PathKey(dir))] = fmt.Sprint(s.bytes, " ", s.files)
	}
	return want
}

func wantWords(t *testing.T, repo *batchlog.Space) map[string]string {
	t.Helper()
	modes := all(t, repo.Space("modes"))
	want := map[string]string{}
	for key, content := range all(t, repo.Space("files")) {
		if modes[key] == "120000" || strings.Contains(content[:min(8000, len(content))], "\x00") {
			continue
		}
		lines := map[string]int{}
		for line := range strings.SplitSeq(content, "\n") {
			in := map[string]bool{}
			for _, w := range word.FindAllString(line, -1) {
				in[w] = true
			}
			for w := range in {
				lines[w]++
			}
		}
		for w, n := range lines {
			part, err := batchlog.Key(key).Decode()
			if err != nil {
				t.Fatal(err)
			}
			want[string(batchlog.K(w, part))] = fmt.Sprint(n)
		}
	}
	return want
}

func wantAuthors(t *testing.T, repo *batchlog.Space) (totals, months map[string]string) {
	t.Helper()
	total, month := map[string]int{}, map[string]int{}
	for _, text := range all(t, repo.Space("commits")) {
		var a, m string
		if _, err := fmt.Sscanf(text, `{"author":%q,"time":"%7s-01T00:00:00Z"}`, &a, &m); err != nil {
			t.Fatal(err)
		}
		total[string(batchlog.K(a))]++
		month[string(batchlog.K(a, m))]++
	}
	totals, months = map[string]string{}, map[string]string{}
	for k, n := range total {
		totals[k] = fmt.Sprint(n)
	}
	for k, n := range month {
		months[k] = fmt.Sprint(n)
	}
	return totals, months
}

// randomBatch changes the source spaces in any way, also such that an import never does: modes without contents, contents without modes, deleted ranges.
func randomBatch(random *rand.Rand, repo *batchlog.Space) *batchlog.Batch {
	paths := []string{"a", "b", "d/a", "d/b", "d/e/f", "d.x", "not utf-8 \xff/f", "é"}
	contents := []string{"", "one\n", "one two\ntwo two\n", "two\nthree_3", "one\x00", "ein zwei\r\none\r\n", "\xffone\xfe two"}
	b := &batchlog.Batch{}
	pick := func() batchlog.Key { return history.PathKey(paths[random.IntN(len(paths))]) }
	for range 1 + random.IntN(6) {
		switch random.IntN(11) {
		case 0, 1, 2:
			b.Put(repo.Space("files"), pick(), []byte(contents[random.IntN(len(contents))]))
		case 3, 4:
			b.Put(repo.Space("modes"), pick(), []byte([]string{"100644", "100755", "120000", "160000 abc"}[random.IntN(4)]))
		case 5:
			b.Delete(repo.Space([]any{"files", "modes", "omitted"}[random.IntN(3)]), pick())
		case 6:
			low, high := pick(), pick()
			if bytes.Compare(low, high) > 0 {
				low, high = high, low
			}
			b.DeleteRange(repo.Space([]any{"files", "modes", "omitted"}[random.IntN(3)]), batchlog.Range{Low: low, High: high})
		case 7:
			b.Put(repo.Space("omitted"), pick(), fmt.Appendf(nil, `{"hash":"x","size":%d}`, random.IntN(5000)))
		case 8, 9:
			b.Put(repo.Space("commits"), batchlog.K(fmt.Sprint(random.IntN(20))), fmt.Appendf(nil, `{"author":%q,"time":"2024-%02d-01T00:00:00Z"}`, []string{"Ada", "Bob", ""}[random.IntN(3)], 1+random.IntN(3)))
		case 10:
			if random.IntN(10) == 0 {
				b.DeleteRange(repo.Space([]any{"files", "modes", "omitted", "commits"}[random.IntN(4)]), batchlog.Range{})
			} else {
				b.Delete(repo.Space("commits"), batchlog.K(fmt.Sprint(random.IntN(20))))
			}
		}
	}
	return b
}

// What is derived is a function of the source as it is, whatever the changes, windows, concurrency and stops.
func TestDerivedIsAFunctionOfTheSource(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 3))
			db := open(t)
			repo := db.Space("git", "r")
			tasks := []task.Task{history.Authors(repo), history.Sizes(repo), history.Words(repo)}
			for range 5 {
				var ends []func() error
				for i := range tasks {
					tasks[i].Window.Commits, tasks[i].Concurrency = 1+random.IntN(20), 1+random.IntN(4)
					ends = append(ends, start(t, db, tasks[i]))
				}
				for range 40 {
					if _, err := db.Write(t.Context(), randomBatch(random, repo)); err != nil {
						t.Fatal(err)
					}
				}
				var b batchlog.Batch // concerns all of them
				b.Put(repo.Space("files"), batchlog.K("last"), []byte(fmt.Sprint("last of ", random.IntN(100))))
				b.Put(repo.Space("commits"), batchlog.K("last"), []byte(`{"author":"Ada","time":"2024-01-01T00:00:00Z"}`))
				last, err := db.Write(t.Context(), &b)
				if err != nil {
					t.Fatal(err)
				}
				for i, end := range ends {
					until(t, db, tasks[i], last)
					if err := end(); !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
				}
				totals, months := wantAuthors(t, repo)
				same(t, "authors", all(t, repo.Space("authors", "totals")), totals)
				same(t, "months", all(t, repo.Space("authors", "months")), months)
				same(t, "directories", all(t, repo.Space("sizes", "directories")), wantSizes(t, repo))
				same(t, "words", all(t, repo.Space("words", "index")), wantWords(t, repo))
			}
		})
	}
}
