package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func memory(t *testing.T) *local.DB {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// handle runs a task until it has handled all that concerns it, or returns why it ended before.
func handle(t *testing.T, db *local.DB, k task.Task) error {
	t.Helper()
	k.Retry.Attempts = 1
	head, err := db.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var last batchlog.ID
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Spaces: k.Source, Until: head}) {
		if err != nil {
			t.Fatal(err)
		}
		last = c.ID
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- task.Run(ctx, db.DB, k) }()
	for {
		if s, err := task.Get(t.Context(), db.DB, k.Name); err == nil && s.Cursor >= last {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

func put(t *testing.T, s *batchlog.Space, key batchlog.Key, value string) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func TestPathKey(t *testing.T) {
	for _, path := range []string{"", "a/b", "é", "\xff", "a\x00b", "a/\xf0\x28"} {
		if got, err := Path(PathKey(path)); got != path || err != nil {
			t.Errorf("%q comes back as %q, %v", path, got, err)
		}
	}
	for _, k := range []batchlog.Key{batchlog.K(7), batchlog.K("a", "b"), {0xff}, nil} {
		if got, err := Path(k); err == nil {
			t.Errorf("key %s is the path %q", k, got)
		}
	}
	for _, k := range []batchlog.Key{batchlog.K("a"), batchlog.K("a", 1), batchlog.K("a", "b", "c"), {0xff}} {
		if got, err := secondOf(k); err == nil {
			t.Errorf("the second part of %s is %q", k, got)
		}
	}
}

func TestCountLines(t *testing.T) {
	long := strings.Repeat("w", MaxWordBytes)
	for _, c := range []struct {
		text string
		want wordLines
	}{
		{"", nil},
		{"\n\n", nil},
		{"a b a\na", wordLines{"a": 2, "b": 1}},
		{"a_1-B c\r\n", wordLines{"a_1": 1, "B": 1, "c": 1}},
		{"naïve", wordLines{"na": 1, "ve": 1}},
		{long + " x", wordLines{long: 1, "x": 1}},
		{long + "w x", wordLines{"x": 1}},
		{strings.Repeat(" ", binaryWithin-1) + "\x00a", nil},
		{strings.Repeat(" ", binaryWithin) + "\x00a", wordLines{"a": 1}},
		{strings.Repeat(" ", MaxFileBytes-1) + "a", wordLines{"a": 1}},
		{strings.Repeat(" ", MaxFileBytes) + "a", nil},
	} {
		got := countLines([]byte(c.text))
		if !maps.Equal(got, c.want) {
			t.Errorf("%.20q has %v, want %v", c.text, got, c.want)
		}
		text := got.format()
		back, err := parseWordLines(text)
		if !maps.Equal(back, got) || err != nil || (text == nil) != (len(got) == 0) {
			t.Errorf("%v comes back as %v, %v", got, back, err)
		}
	}
	for _, bad := range []string{"x", "x y\n", "1\n", "\n"} {
		if got, err := parseWordLines([]byte(bad)); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func TestAuthorOf(t *testing.T) {
	long := strings.Repeat("é", maxAuthorBytes)
	for commit, want := range map[string]string{
		`{"author":"A","time":"2024-02-01T00:30:00+01:30"}`: `{"author":"A","month":"2024-02"}`,
		`{"author":"","time":"12024-02-01T00:30:00Z"}`:      `{"author":"","month":"12024-02"}`,
		`{"time":"odd"}`: `{"author":"","month":"odd"}`,
		`{"author":"` + long + `","time":"2024-02-01T00:00"}`: `{"author":"` + long[:maxAuthorBytes] + `","month":"2024-02"}`,
	} {
		if got, err := authorOf([]byte(commit)); string(got) != want || err != nil {
			t.Errorf("%.60s is %.60s, %v, want %.60s", commit, got, err, want)
		}
	}
	if got, err := authorOf([]byte("no JSON")); err == nil {
		t.Errorf("it is %s", got)
	}
}

func TestAbove(t *testing.T) {
	for path, want := range map[string][]string{"a": {""}, "a/b": {"", "a"}, "a/b/c.x": {"", "a", "a/b"}} {
		if got := slices.Collect(above(path)); !slices.Equal(got, want) {
			t.Errorf("%s is in %q, want %q", path, got, want)
		}
		for range above(path) {
			break
		}
	}
}

// A source that makes no sense, or a derived space that others have changed, is an error and no wrong number.
func TestWhatIsWrongIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(db *local.DB, repo *batchlog.Space)
		task  func(repo *batchlog.Space) task.Task
		want  string
	}{
		"commit":    {func(_ *local.DB, repo *batchlog.Space) { put(t, repo.Space("commits"), batchlog.K("h"), "no JSON") }, Authors, `git commit "h"`},
		"omitted":   {func(_ *local.DB, repo *batchlog.Space) { put(t, repo.Space("omitted"), batchlog.K("p"), "no JSON") }, Sizes, `git/r/omitted "p"`},
		"path":      {func(_ *local.DB, repo *batchlog.Space) { put(t, repo.Space("files"), batchlog.K(7), "x") }, Sizes, "git/r/files 7"},
		"word path": {func(_ *local.DB, repo *batchlog.Space) { put(t, repo.Space("files"), batchlog.K(7), "x") }, Words, "git/r/files 7"},
		"too few": {func(_ *local.DB, repo *batchlog.Space) {
			put(t, repo.Space("sizes", "files"), PathKey("a"), "5")
			put(t, repo.Space("files"), PathKey("a"), "x")
		}, Sizes, "changed by others"},
		"no number": {func(_ *local.DB, repo *batchlog.Space) {
			put(t, repo.Space("sizes", "directories"), PathKey(""), "5")
			put(t, repo.Space("files"), PathKey("a"), "x")
		}, Sizes, "2 numbers"},
	} {
		t.Run(name, func(t *testing.T) {
			db := memory(t)
			repo := db.Space("git", "r")
			c.spoil(db, repo)
			var poison *task.PoisonError
			if err := handle(t, db, c.task(repo)); !errors.As(err, &poison) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want a *PoisonError with %q", err, c.want)
			}
		})
	}
}

// So many keys in one window are read with a scan, as a transaction may not read them one by one.
func TestLargeWindow(t *testing.T) {
	db := memory(t)
	repo := db.Space("git", "r")
	batch := func(n int, text string) {
		t.Helper()
		var b batchlog.Batch
		for i := range n {
			b.Put(repo.Space("files"), PathKey(fmt.Sprintf("d%d/%d", i%3, i)), []byte(text))
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	n := scanFrom + 7
	batch(n, "one")
	for _, k := range []task.Task{Sizes(repo), Words(repo)} {
		if err := handle(t, db, k); err != nil {
			t.Fatal(err)
		}
	}
	put(t, repo.Space("files"), PathKey("d1/other"), "one") // between them, and not in the window
	batch(n, "four words one one")
	for _, k := range []task.Task{Sizes(repo), Words(repo)} {
		if err := handle(t, db, k); err != nil {
			t.Fatal(err)
		}
	}
	root, err := Directory(t.Context(), repo, ".")
	if want := (Size{Path: "", Bytes: int64(18*n + 3), Files: int64(n + 1)}); root != want || err != nil {
		t.Errorf("%+v, %v, want %+v", root, err, want)
	}
	for word, want := range map[string]int{"one": n + 1, "four": n, "none": 0} {
		files := 0
		for _, err := range Find(t.Context(), repo, word) {
			if err != nil {
				t.Fatal(err)
			}
			files++
		}
		if files != want {
			t.Errorf("%q is in %d files, want %d", word, files, want)
		}
	}
}

func TestReaders(t *testing.T) {
	db := memory(t)
	repo := db.Space("git", "r")
	ctx := t.Context()
	if s, err := Directory(ctx, repo, ""); s != (Size{}) || err != nil {
		t.Errorf("the root of nothing is %+v, %v", s, err)
	}
	for _, path := range []string{"b/c/f", "b/c/g", "a/f", "f"} {
		put(t, repo.Space("files"), PathKey(path), "text in "+path)
	}
	for i, author := range []string{"Bob", "Ada", "Cy", "Cy"} {
		put(t, repo.Space("commits"), batchlog.K(i), `{"author":"`+author+`","time":"2024-0`+fmt.Sprint(1+i)+`-01T00:00:00Z"}`)
	}
	for _, k := range []task.Task{Authors(repo), Sizes(repo)} {
		if err := handle(t, db, k); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range map[int]string{-1: "[{Cy 2} {Ada 1} {Bob 1}]", 2: "[{Cy 2} {Ada 1}]", 0: "[]", 9: "[{Cy 2} {Ada 1} {Bob 1}]"} {
		if got, err := TopAuthors(ctx, repo, n); fmt.Sprint(got) != want || err != nil {
			t.Errorf("the first %d authors: %v, %v, want %s", n, got, err, want)
		}
	}
	if got, err := Months(ctx, repo, "Cy"); fmt.Sprint(got) != "[{2024-03 1} {2024-04 1}]" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := LargestDirectories(ctx, repo, 2); fmt.Sprint(got) != "[{b 26 2} {b/c 26 2}]" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	for path, want := range map[string]Size{".": {"", 46, 4}, "b/": {"b", 26, 2}, "a": {"a", 11, 1}} {
		if got, err := Directory(ctx, repo, path); got != want || err != nil {
			t.Errorf("%q is %+v, %v, want %+v", path, got, err, want)
		}
	}
	if got, err := Directory(ctx, repo, "f"); !errors.Is(err, batchlog.ErrNotFound) {
		t.Errorf("a file is the directory %+v, %v", got, err)
	}
	for _, word := range []string{"", "two words", "é", "a-b", strings.Repeat("w", MaxWordBytes+1)} {
		n := 0
		for h, err := range Find(ctx, repo, word) {
			if n++; err == nil {
				t.Errorf("%q is in %v", word, h)
			}
		}
		if n != 1 {
			t.Errorf("%q: %d hits or errors, want one error", word, n)
		}
	}
}
