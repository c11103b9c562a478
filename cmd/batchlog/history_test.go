package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/history"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A derivation is a database that a repository is imported into, and the tasks that follow.
type derivation struct {
	t    *testing.T
	db   *local.DB
	from *testRepo
	repo *batchlog.Space
	cut  func(k task.Task) task.Task // says how the tasks are run
}

func newDerivation(t *testing.T, from *testRepo, cut func(k task.Task) task.Task) *derivation {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &derivation{t: t, db: db, from: from, repo: db.Space("git", "r"), cut: cut}
}

// cutting makes tasks with windows of so many commits, and so many of these at once.
func cutting(commits, concurrency int) func(k task.Task) task.Task {
	return func(k task.Task) task.Task {
		k.Window.Commits, k.Concurrency = commits, concurrency
		return k
	}
}

// load imports the next commits, by the code of batchlog import git; limit 0: all.
func (d *derivation) load(limit, maxBlob int64) importResult {
	d.t.Helper()
	repo := must1(openRepo(d.t.Context(), d.from.dir))(d.t)
	store := must1(newGitStore(d.db.DB, "r"))(d.t)
	im := &importer{repo: repo, store: store, plan: importPlan{Rev: "HEAD", Limit: limit, MaxBlob: maxBlob}, meter: func(total int64) *meter {
		return newMeter(io.Discard, false, "import", "commits", total)
	}}
	return must1(im.run(d.t.Context()))(d.t)
}

func (d *derivation) tasks() []task.Task {
	return []task.Task{d.cut(history.Authors(d.repo)), d.cut(history.Sizes(d.repo)), d.cut(history.Words(d.repo))}
}

// start runs the tasks until stop is called.
func (d *derivation) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	tasks := d.tasks()
	ended := make(chan error, len(tasks))
	for _, k := range tasks {
		go func() { ended <- task.Run(ctx, d.db.DB, k) }()
	}
	running := true
	stop = func() {
		d.t.Helper()
		if !running {
			return
		}
		running = false
		cancel()
		for range tasks {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				d.t.Error(err)
			}
		}
	}
	d.t.Cleanup(stop)
	return stop
}

// caughtUp waits until the tasks have handled all that concerns them.
func (d *derivation) caughtUp() {
	d.t.Helper()
	head := must1(d.db.Head(d.t.Context()))(d.t)
	for _, k := range d.tasks() {
		var last batchlog.ID
		for c, err := range d.db.Tail(d.t.Context(), batchlog.TailOptions{Spaces: k.Source, Until: head}) {
			if err != nil {
				d.t.Fatal(err)
			}
			last = c.ID
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			s, err := task.Get(d.t.Context(), d.db.DB, k.Name)
			if err == nil && s.Cursor >= last {
				break
			}
			if time.Now().After(deadline) || s.Error != "" || err != nil && !errors.Is(err, task.ErrUnknown) {
				d.t.Fatalf("task %s is not at %d: %+v, %v", k.Name, last, s, err)
			}
		}
	}
}

// derive runs the tasks until they have caught up.
func (d *derivation) derive() {
	d.t.Helper()
	stop := d.start()
	d.caughtUp()
	stop()
}

// derived is all that the tasks have written, as bytes, by space.
func (d *derivation) derived() map[string]string {
	d.t.Helper()
	found := map[string]string{}
	for _, name := range []string{
		"authors/commits", "authors/totals", "authors/months", "sizes/files", "sizes/omitted", "sizes/directories", "words/files", "words/links", "words/index",
	} {
		of, within, _ := strings.Cut(name, "/")
		var text strings.Builder
		for e, err := range d.repo.Space(of, within).Scan(d.t.Context(), batchlog.Range{}) {
			if err != nil {
				d.t.Fatal(err)
			}
			fmt.Fprintf(&text, "%x=%x\n", []byte(e.Key), e.Value)
		}
		found[name] = text.String()
	}
	return found
}

// check compares what was derived with what git says of rev.
func (d *derivation) check(rev string) {
	d.t.Helper()
	d.checkAuthors(rev)
	d.checkSizes(rev)
	d.checkWords(rev)
}

func (d *derivation) checkAuthors(rev string) {
	d.t.Helper()
	wantTotals, wantMonths := d.from.authors(rev)
	totals, months := map[string]int64{}, map[string]int64{}
	last := int64(-1)
	for _, a := range must1(history.TopAuthors(d.t.Context(), d.repo, -1))(d.t) {
		totals[a.Name] = a.Commits
		if last >= 0 && a.Commits > last {
			d.t.Errorf("author %q with %d commits behind one with %d", a.Name, a.Commits, last)
		}
		last = a.Commits
		for _, m := range must1(history.Months(d.t.Context(), d.repo, a.Name))(d.t) {
			months[a.Name+"\n"+m.Name] = m.Commits
		}
	}
	if !maps.Equal(totals, wantTotals) || !maps.Equal(months, wantMonths) {
		d.t.Errorf("%s: authors\n%v, git says\n%v; months\n%v, git says\n%v", rev, totals, wantTotals, months, wantMonths)
	}
}

func (d *derivation) checkSizes(rev string) {
	d.t.Helper()
	want, _ := d.from.sizes(rev)
	got := map[string]history.Size{}
	for _, s := range must1(history.LargestDirectories(d.t.Context(), d.repo, -1))(d.t) {
		got[s.Path] = s
	}
	if root := must1(history.Directory(d.t.Context(), d.repo, "."))(d.t); root.Files > 0 {
		got[""] = root
	}
	if !maps.Equal(got, want) {
		d.t.Errorf("%s: directories\n%v, git says\n%v", rev, got, want)
	}
}

func (d *derivation) checkWords(rev string) {
	d.t.Helper()
	want := d.from.words(rev)
	got := map[string]map[string]int64{}
	for e, err := range d.repo.Space("words", "index").Scan(d.t.Context(), batchlog.Range{}) {
		if err != nil {
			d.t.Fatal(err)
		}
		parts := must1(e.Key.Decode())(d.t).([]any)
		word, path := parts[0].(string), fmt.Sprintf("%s", parts[1]) // a string, or bytes
		if got[word] == nil {
			got[word] = map[string]int64{}
		}
		got[word][path] = must1(strconv.ParseInt(string(e.Value), 10, 64))(d.t)
	}
	for word := range want {
		if !maps.Equal(got[word], want[word]) {
			d.t.Errorf("%s: %q is in %v, git says %v", rev, word, got[word], want[word])
		}
	}
	for word := range got {
		if want[word] == nil {
			d.t.Errorf("%s: %q is in %v, git has not seen it", rev, word, got[word])
		}
	}
}

func (d *derivation) find(word string) map[string]int64 {
	d.t.Helper()
	found := map[string]int64{}
	for h, err := range history.Find(d.t.Context(), d.repo, word) {
		if err != nil {
			d.t.Fatal(err)
		}
		found[h.Path] = h.Lines
	}
	return found
}

// checkGrep compares n words, some of which there are not, with git grep -c -w -F -I itself.
func (d *derivation) checkGrep(rev string, n int) {
	d.t.Helper()
	_, sizes := d.from.sizes(rev)
	random := rand.New(rand.NewPCG(1, 2))
	all := slices.Sorted(maps.Keys(d.from.words(rev)))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	words := all[:min(n, len(all))]
	for i := range n / 4 {
		words = append(words, fmt.Sprintf("no_%d_word", random.Uint32()), words[i%len(words)]+"0", strings.ToUpper(words[i%len(words)]), words[i%len(words)][1:])
	}
	for _, word := range words {
		if word == "" {
			continue
		}
		want := d.from.word(rev, word)
		maps.DeleteFunc(want, func(path string, _ int64) bool { return sizes[path] > history.MaxFileBytes })
		if got := d.find(word); !maps.Equal(got, want) {
			d.t.Errorf("%q is in %v, git grep says %v", word, got, want)
		}
	}
}

// What is derived equals what git says, and is the same to the byte whatever the windows.
func TestHistoryEqualsGit(t *testing.T) {
	wordy, messy := newRepo(t), newRepo(t)
	wordy.wordy(1, 120)
	messy.messy(5, 60)
	for _, from := range []struct {
		name string
		repo func(t *testing.T) *testRepo
		grep int  // words that git is asked for one by one
		all  bool // whether all windows are tried with all concurrencies
	}{
		{"wordy", func(*testing.T) *testRepo { return wordy }, 60, true},
		{"messy", func(*testing.T) *testRepo { return messy }, 8, true},
		{"this repository", ownRepo, 20, false}, // it takes longer, and more so with each commit
	} {
		t.Run(from.name, func(t *testing.T) {
			if testing.Short() && !from.all {
				t.Skip("it takes long")
			}
			repo := from.repo(t)
			var first map[string]string
			for i, commits := range []int{1, 7, 1000} {
				for j, concurrency := range []int{1, 2, 4} {
					if !from.all && i != j {
						continue
					}
					d := newDerivation(t, repo, cutting(commits, concurrency))
					d.load(0, 0)
					d.derive()
					got := d.derived()
					if first == nil {
						first = got
						d.check("HEAD")
						d.checkGrep("HEAD", from.grep)
					}
					for space := range first {
						if got[space] != first[space] {
							t.Errorf("windows of %d, %d at once: %s differs", commits, concurrency, space)
						}
					}
					d.db.Close()
				}
			}
		})
	}
}

// Tasks that follow while the repository grows are right after each step, and so are those that were stopped between and went on.
func TestHistoryFollows(t *testing.T) {
	repo := newRepo(t)
	repo.wordy(2, 60)
	for _, live := range []bool{true, false} {
		t.Run(fmt.Sprintf("live=%t", live), func(t *testing.T) {
			d := newDerivation(t, repo, cutting(3, 2))
			if live {
				d.start()
			}
			for left := int64(1); left > 0; {
				r := d.load(9, 0)
				left = r.Left
				if live {
					d.caughtUp()
				} else {
					d.derive()
				}
				d.check(r.Hash)
			}
		})
	}
}

// A task that is ended in the midst of its work goes on where it was.
func TestHistoryGoesOn(t *testing.T) {
	repo := newRepo(t)
	repo.wordy(3, 80)
	d := newDerivation(t, repo, cutting(1, 2))
	d.load(0, 0)
	between := 0
	for range 200 {
		stop := d.start()
		time.Sleep(3 * time.Millisecond)
		stop()
		done := 0
		for _, k := range d.tasks() {
			if s, err := task.Get(t.Context(), d.db.DB, k.Name); err == nil && s.Cursor > 0 {
				done++
				if s.Cursor < 80 {
					between++
				}
			}
		}
		if done == 3 && between > 20 {
			break
		}
	}
	if between == 0 {
		t.Error("no task was ever ended in the midst of its work: this tested nothing")
	}
	d.derive()
	d.check("HEAD")
}

// Reset handles everything again, on top of what was derived; it comes to the same.
func TestHistoryRebuilds(t *testing.T) {
	repo := newRepo(t)
	repo.wordy(4, 50)
	d := newDerivation(t, repo, cutting(7, 2))
	d.load(0, 0)
	d.derive()
	before := d.derived()
	for _, k := range d.tasks() {
		if err := task.Reset(t.Context(), d.db.DB, k.Name, batchlog.First()); err != nil {
			t.Fatal(err)
		}
		equal(t, "cursor", must1(task.Get(t.Context(), d.db.DB, k.Name))(t).Cursor, 0)
	}
	d.derive()
	if !maps.Equal(before, d.derived()) {
		t.Error("what was derived is another")
	}
	d.check("HEAD")
}

// What the import leaves out for its size still counts in sizes, and has no words.
func TestHistoryOfOmittedBlobs(t *testing.T) {
	repo := newRepo(t)
	repo.wordy(6, 80)
	d := newDerivation(t, repo, cutting(7, 1))
	d.load(40, 100)
	d.load(0, 1000)
	d.derive()
	d.checkAuthors("HEAD")
	d.checkSizes("HEAD")
	if d.derived()["sizes/omitted"] == "" {
		t.Error("nothing was left out: this tested nothing")
	}
	_, sizes := repo.sizes("HEAD")
	files := map[string]bool{}
	for e, err := range d.repo.Space("files").Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		files[must1(history.Path(e.Key))(t)] = true
	}
	for _, word := range []string{"alpha", "beta", "fill", "x"} {
		want := repo.word("HEAD", word)
		maps.DeleteFunc(want, func(path string, _ int64) bool { return !files[path] || sizes[path] > history.MaxFileBytes })
		if got := d.find(word); !maps.Equal(got, want) {
			t.Errorf("%q is in %v, want %v", word, got, want)
		}
	}
}
