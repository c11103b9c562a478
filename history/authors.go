package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// authorSpaces is where [Authors] keeps what it derives.
type authorSpaces struct {
	all     *batchlog.Space // holds the others
	commits *batchlog.Space // hash → author and month
	totals  *batchlog.Space // author → commits
	months  *batchlog.Space // [author, month] → commits
}

func authorsOf(repo *batchlog.Space) authorSpaces {
	s := repo.Space("authors")
	return authorSpaces{all: s, commits: s.Space("commits"), totals: s.Space("totals"), months: s.Space("months")}
}

// Authors is a task that counts the git commits of each author, in all and by month. repo is the space of a repository: git/NAME. The numbers are those
// of git shortlog without a mailmap, over the commits that were imported; the month is that of the author's own clock.
//
//	git/NAME/authors/totals    author → commits
//	git/NAME/authors/months    [author, "2006-01"] → commits
//	git/NAME/authors/commits   hash → what it was counted as
func Authors(repo *batchlog.Space) task.Task {
	at := authorsOf(repo)
	commits := repo.Space("commits")
	return task.Task{
		Name:    at.all.String(),
		Source:  []*batchlog.Space{commits},
		Derives: []*batchlog.Space{at.all},
		Handle: func(_ context.Context, w *task.Window) error {
			return countAuthors(w, newSource(commits, at.commits), at)
		},
	}
}

func countAuthors(w *task.Window, commits *source, at authorSpaces) error {
	if err := follow(w, commits); err != nil {
		return err
	}
	before, err := commits.before(w)
	if err != nil {
		return err
	}
	totals, months := newSums(at.totals, 1), newSums(at.months, 1)
	count := func(record []byte, n int64) error {
		var c authored
		if err := json.Unmarshal(record, &c); err != nil {
			return err
		}
		totals.add(batchlog.K(c.Author), n)
		months.add(batchlog.K(c.Author, c.Month), n)
		return nil
	}
	for _, hash := range slices.Sorted(maps.Keys(commits.now)) {
		var record []byte
		if v := commits.now[hash]; !v.gone {
			record, err = authorOf(v.bytes)
		}
		old, counted := before[hash]
		if bytes.Equal(old, record) && err == nil {
			continue
		}
		if counted && err == nil {
			err = count(old, -1)
		}
		if record != nil && err == nil {
			err = count(record, +1)
		}
		if err != nil {
			return fmt.Errorf("git commit %s: %w", batchlog.Key(hash), err)
		}
		commits.keep(w, hash, record)
	}
	if err := totals.write(w); err != nil {
		return err
	}
	return months.write(w)
}

// authored is what a git commit is counted as.
type authored struct {
	Author string `json:"author"`
	Month  string `json:"month"`
}

// maxAuthorBytes bounds an author in a key; names have no limit.
const maxAuthorBytes = 4096

// authorOf is the record of a commit that the import has put.
func authorOf(commit []byte) ([]byte, error) {
	var c struct{ Author, Time string }
	if err := json.Unmarshal(commit, &c); err != nil {
		return nil, err
	}
	if len(c.Author) > maxAuthorBytes {
		c.Author = strings.ToValidUTF8(c.Author[:maxAuthorBytes], "")
	}
	month, _, _ := strings.Cut(c.Time, "T")
	if i := strings.LastIndexByte(month, '-'); i >= 0 {
		month = month[:i]
	}
	return json.Marshal(authored{c.Author, month})
}

// A Count is a name and how often it was counted.
type Count struct {
	Name    string `json:"name"`
	Commits int64  `json:"commits"`
}

// TopAuthors returns the n authors with the most commits, most first, those with the same number by name; n < 0: all.
func TopAuthors(ctx context.Context, repo *batchlog.Space, n int, opts ...batchlog.ReadOption) ([]Count, error) {
	var all []Count
	for e, err := range authorsOf(repo).totals.Scan(ctx, batchlog.Range{}, opts...) {
		if err != nil {
			return nil, err
		}
		name, err := Path(e.Key)
		if err != nil {
			return nil, err
		}
		commits, err := parseNumbers(e.Value, 1)
		if err != nil {
			return nil, err
		}
		all = append(all, Count{name, commits[0]})
	}
	return top(all, n, func(x, y Count) int {
		return cmp.Or(cmp.Compare(y.Commits, x.Commits), cmp.Compare(x.Name, y.Name))
	}), nil
}

// Months returns the months in which an author has commits, the oldest first.
func Months(ctx context.Context, repo *batchlog.Space, author string, opts ...batchlog.ReadOption) ([]Count, error) {
	var all []Count
	for e, err := range authorsOf(repo).months.Scan(ctx, batchlog.Prefix(author), opts...) {
		if err != nil {
			return nil, err
		}
		month, err := secondOf(e.Key)
		if err != nil {
			return nil, err
		}
		commits, err := parseNumbers(e.Value, 1)
		if err != nil {
			return nil, err
		}
		all = append(all, Count{month, commits[0]})
	}
	return all, nil
}

// top is the first n of all in order; n < 0: all.
func top[T any](all []T, n int, order func(x, y T) int) []T {
	slices.SortFunc(all, order)
	if n >= 0 && n < len(all) {
		all = slices.Clip(all[:n])
	}
	return all
}
