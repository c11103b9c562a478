package simtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/bytespace/batchlog"
)

// What a follower is promised, word for word as etcd promises it to watchers, one function for each. They look at what a follower
// saw, in the order it saw it, and at the model of commits.

// A seen is what a tail yielded.
type seen struct {
	id       batchlog.ID
	time     int64 // microseconds
	labels   map[string]string
	ops      []string
	list     []op // the same
	bookmark bool
	task     *batchlog.TaskMove
}

// see is c as it was seen.
func see(c *batchlog.Commit) (seen, error) {
	s := seen{id: c.ID, labels: c.Labels, bookmark: c.Bookmark(), task: c.Task}
	if !s.bookmark {
		s.time = c.Time.UnixMicro()
	}
	for o, err := range c.Ops() {
		if err != nil {
			return s, fmt.Errorf("ops of commit %d: %w", c.ID, err)
		}
		if o.Blob != nil {
			if o.Value, err = o.Load(context.Background()); err != nil {
				return s, fmt.Errorf("ops of commit %d: %w", c.ID, err)
			}
		}
		s.ops = append(s.ops, opText(o))
		s.list = append(s.list, modelOp(o))
	}
	return s, nil
}

// same says how s is not c as a tail of these spaces shows it.
func (s *seen) same(c *commit, filter []int) error {
	if want := c.texts(filter); !slices.Equal(s.ops, want) {
		return fmt.Errorf("commit %d has ops %.300q, want %.300q", s.id, s.ops, want)
	}
	if !maps.Equal(s.labels, c.labels) {
		return fmt.Errorf("commit %d has labels %q, want %q", s.id, s.labels, c.labels)
	}
	return nil
}

// A watched is what one follower saw, and what it had asked for.
type watched struct {
	from   batchlog.ID // the first id that it is about
	filter []int       // spaces; nil: all
	seen   []seen
}

// commits is what was seen, bookmarks left out.
func (w *watched) commits() []seen {
	return slices.DeleteFunc(slices.Clone(w.seen), func(s seen) bool { return s.bookmark })
}

// isOrdered: ids ascend.
func isOrdered(w *watched) error {
	last := w.from - 1
	for _, s := range w.seen {
		if s.id < last {
			return fmt.Errorf("not ordered: %d comes after %d", s.id, last)
		}
		last = s.id
	}
	return nil
}

// isUnique: no commit comes twice.
func isUnique(w *watched) error {
	known := map[batchlog.ID]bool{}
	for _, s := range w.commits() {
		if known[s.id] {
			return fmt.Errorf("not unique: commit %d comes twice", s.id)
		}
		known[s.id] = true
	}
	return nil
}

// isReliable: of the commits that it is about none is left out, up to the last that came.
func isReliable(w *watched, m *model) error {
	list := w.commits()
	if len(list) == 0 {
		return nil
	}
	known := map[batchlog.ID]bool{}
	for _, s := range list {
		known[s.id] = true
	}
	for id := w.from; id <= list[len(list)-1].id && id <= m.head(); id++ {
		if m.commits[id-1].matches(w.filter) != known[id] {
			return fmt.Errorf("not reliable: commit %d came: %t, is asked for: %t", id, known[id], !known[id])
		}
	}
	return nil
}

// isAtomic: a commit comes whole, with all its ops in the spaces that the tail is about, in their order, and with nothing else.
func isAtomic(w *watched, m *model) error {
	for _, s := range w.commits() {
		if s.id > m.head() {
			return fmt.Errorf("not atomic: commit %d was never made", s.id)
		}
		if err := s.same(&m.commits[s.id-1], w.filter); err != nil {
			return fmt.Errorf("not atomic: %w", err)
		}
	}
	return nil
}

// isBookmarkable: a bookmark says that everything up to its id has come, and nothing of that comes later.
func isBookmarkable(w *watched, m *model) error {
	got := batchlog.ID(0) // up to where everything is known to have come
	next := w.from
	for _, s := range w.seen {
		if s.id <= got && !s.bookmark {
			return fmt.Errorf("not bookmarkable: commit %d comes after bookmark %d", s.id, got)
		}
		if !s.bookmark {
			next = s.id + 1
			continue
		}
		for ; next <= s.id && next <= m.head(); next++ {
			if m.commits[next-1].matches(w.filter) {
				return fmt.Errorf("not bookmarkable: commit %d has not come before bookmark %d", next, s.id)
			}
		}
		got = s.id
	}
	return nil
}

// isResumable: two tails, the second of which goes on where the first was broken off, see what one would.
func isResumable(first, second *watched, m *model) error {
	both := &watched{from: first.from, filter: first.filter, seen: slices.Concat(first.seen, second.seen)}
	if err := errors.Join(isOrdered(both), isUnique(both), isReliable(both, m), isAtomic(both, m), isBookmarkable(both, m)); err != nil {
		return fmt.Errorf("not resumable: %w", err)
	}
	return nil
}

// watchContract is all of them that concern one follower.
func watchContract(w *watched, m *model) error {
	return errors.Join(isOrdered(w), isUnique(w), isReliable(w, m), isAtomic(w, m), isBookmarkable(w, m), timesAscend(w.commits(), m))
}

// Each of the functions above finds what it is for, and nothing in what is right.
func TestWatchContract(t *testing.T) {
	m := newModel()
	for i, space := range []int{1, 2, 5, 1, 7, 7, 2} {
		m.commit(commit{ops: []op{{kind: batchlog.OpPut, space: space, key: fmt.Sprint(i)}, {kind: batchlog.OpDelete, space: 5, key: "x"}}})
	}
	filter := []int{1} // "a", and "a"/"x" within it
	at := func(ids ...batchlog.ID) []seen {
		var list []seen
		for _, id := range ids {
			list = append(list, seen{id: id, ops: m.commits[id-1].texts(filter), time: m.times[id-1]})
		}
		return list
	}
	mark := func(id batchlog.ID) seen { return seen{id: id, bookmark: true} }
	for _, c := range []struct {
		name string
		seen []seen
		is   func(w *watched) error
		ok   bool
	}{
		{"right", slices.Concat(at(1, 2), []seen{mark(3)}, at(4), []seen{mark(6)}, at(7)), func(w *watched) error { return watchContract(w, m) }, true},
		{"empty", nil, func(w *watched) error { return watchContract(w, m) }, true},
		{"swapped", at(1, 4, 2), isOrdered, false},
		{"twice", at(1, 2, 2), isUnique, false},
		{"twice, ordered", at(1, 2, 2), isOrdered, true},
		{"left out", at(1, 4), func(w *watched) error { return isReliable(w, m) }, false},
		{"first left out", at(2), func(w *watched) error { return isReliable(w, m) }, false},
		{"not asked for", append(at(1, 2), seen{id: 3}, at(4)[0]), func(w *watched) error { return isReliable(w, m) }, false},
		{"op missing", []seen{{id: 1}}, func(w *watched) error { return isAtomic(w, m) }, false},
		{"op too much", []seen{{id: 1, ops: append(at(1)[0].ops, "del")}}, func(w *watched) error { return isAtomic(w, m) }, false},
		{"unknown", []seen{{id: 9}}, func(w *watched) error { return isAtomic(w, m) }, false},
		{"bookmark too early", []seen{mark(2), at(1)[0]}, func(w *watched) error { return isBookmarkable(w, m) }, false},
		{"bookmark too far", append(at(1, 2), mark(5)), func(w *watched) error { return isBookmarkable(w, m) }, false},
		{"bookmark alone", append(at(1, 2), mark(3)), func(w *watched) error { return isBookmarkable(w, m) }, true},
		{"wrong time", []seen{{id: 1, time: 99, ops: at(1)[0].ops}}, func(w *watched) error { return timesAscend(w.commits(), m) }, false},
	} {
		if err := c.is(&watched{from: 1, filter: filter, seen: c.seen}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	first := &watched{from: 1, filter: filter, seen: at(1, 2)}
	if err := isResumable(first, &watched{from: 3, filter: filter, seen: at(4, 7)}, m); err != nil {
		t.Error(err)
	}
	for _, second := range [][]seen{at(7), at(2, 4), {}} {
		err := isResumable(first, &watched{from: 3, filter: filter, seen: second}, m)
		if (err == nil) != (len(second) == 0) {
			t.Errorf("resumed with %d: %v", len(second), err)
		}
	}
}
