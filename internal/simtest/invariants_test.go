package simtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bytespace/batchlog"
)

// The lines of the design's §3 that exist so far, each a function. They return what is wrong.

// ackedSurvives (1): what was acknowledged is in the log, as it was; what else is there was submitted, and is whole. recovered
// is the log from its oldest commit on.
func ackedSurvives(m *model, recovered []seen) error {
	for i := range recovered {
		s := &recovered[i]
		if s.id > m.head() {
			return m.resolve(recovered[i:])
		}
		if err := s.same(&m.commits[s.id-1], nil); err != nil {
			return err
		}
	}
	if n := len(recovered); n > 0 && recovered[n-1].id < m.head() || n == 0 && m.oldest <= m.head() {
		return fmt.Errorf("the log ends with %d commits from %d on, %d were acknowledged", n, m.oldest, m.head())
	}
	return m.resolve(nil)
}

// idsDense (2): every id comes, one behind the other.
func idsDense(list []seen, first batchlog.ID) error {
	for i, s := range list {
		if want := first + batchlog.ID(i); s.id != want {
			return fmt.Errorf("commit %d where %d belongs", s.id, want)
		}
	}
	return nil
}

// gapIsTyped (2): what is missing is said, with the id that was asked for and the oldest there is.
func gapIsTyped(err error, from, upTo, oldest batchlog.ID) error {
	var gap *batchlog.GapError
	if !errors.As(err, &gap) || !errors.Is(err, batchlog.ErrGap) {
		return fmt.Errorf("commit %d: %w", from, errors.Join(errors.New("want a *GapError"), err))
	}
	if gap.From < from || gap.From > upTo || gap.Oldest != oldest {
		return fmt.Errorf("gap from %d, oldest %d; want from %d to %d, oldest %d", gap.From, gap.Oldest, from, upTo, oldest)
	}
	return nil
}

// marksOrdered (3, 8): flushed <= applied <= head, and the log begins at or before what the store could still need after a crash.
func marksOrdered(st *batchlog.Status) error {
	if st.Flushed > st.Applied || st.Applied > st.Head || st.Oldest > st.Flushed+1 || st.Oldest < 1 || st.Oldest > st.Head+1 {
		return fmt.Errorf("flushed %d, applied %d, head %d, oldest %d", st.Flushed, st.Applied, st.Head, st.Oldest)
	}
	if st.BacklogBytes < 0 {
		return fmt.Errorf("backlog of %d bytes", st.BacklogBytes)
	}
	return nil
}

// viewIsFold (3, 4): a view shows the state at its id, in every space, and nothing else.
func viewIsFold(v *batchlog.View, spaces []*batchlog.Space, s state) error {
	for n, space := range spaces {
		got, err := collect(v, space, batchlog.Range{}, false)
		if err != nil {
			return fmt.Errorf("view at %d: scan of %s: %w", v.ID(), space, err)
		}
		if err := samePairs(got, s.scan(n, batchlog.Range{}, false)); err != nil {
			return fmt.Errorf("view at %d: space %s: %w", v.ID(), space, err)
		}
	}
	return nil
}

// collect is what a scan of a view yields.
func collect(v *batchlog.View, s *batchlog.Space, r batchlog.Range, reverse bool) ([]pair, error) {
	var opts []batchlog.ReadOption
	if reverse {
		opts = append(opts, batchlog.ScanReverse())
	}
	var pairs []pair
	for e, err := range v.Scan(s, r, opts...) {
		if err != nil {
			return pairs, err
		}
		pairs = append(pairs, pair{string(e.Key), string(e.Value)})
	}
	return pairs, nil
}

// samePairs says where two scans differ.
func samePairs(got, want []pair) error {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("%d keys, want %d: %q is missing", len(got), len(want), want[i].key)
		case i >= len(want):
			return fmt.Errorf("%d keys, want %d: %q is too much", len(got), len(want), got[i].key)
		case got[i] != want[i]:
			return fmt.Errorf("%q=%.60q, want %q=%.60q", got[i].key, got[i].value, want[i].key, want[i].value)
		}
	}
	return nil
}

// timesAscend (5): times never go back along ids, each is the clock's when the commit was made, unless that had gone back, and a
// commit has the same time for ever.
func timesAscend(list []seen, m *model) error {
	last := int64(math.MinInt64)
	for _, s := range list {
		if s.time < last {
			return fmt.Errorf("commit %d is of %d, before the one before it of %d", s.id, s.time, last)
		}
		if s.id <= m.head() {
			if err := m.timeIs(s.id, s.time); err != nil {
				return err
			}
		}
		last = s.time
	}
	return nil
}

// heldIsFresh (6): a held read shows no state older than head when it arrived.
func heldIsFresh(shows, headBefore batchlog.ID) error {
	if shows < headBefore {
		return fmt.Errorf("a held read shows %d, head was %d when it came", shows, headBefore)
	}
	return nil
}

// errClass says what a write's error promises. ErrUncertain alone leaves open whether the batch is in the log.
func errClass(err error) string {
	switch {
	case err == nil:
		return "acked"
	case errors.Is(err, batchlog.ErrUncertain):
		return "uncertain"
	case errors.Is(err, batchlog.ErrNoSpace):
		return "no space"
	case errors.Is(err, batchlog.ErrReadOnly):
		return "read-only"
	case errors.Is(err, batchlog.ErrClosed):
		return "closed"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "context"
	default:
		return "other"
	}
}

// failedStaysFailed (10): after an outcome that is not known nothing is acknowledged until the database is opened again, and
// every write says why.
func failedStaysFailed(outcomes []string) error {
	at := slices.Index(outcomes, "uncertain")
	if at < 0 {
		return nil
	}
	for i, o := range outcomes[at+1:] {
		if o != "read-only" && o != "closed" {
			return fmt.Errorf("write %d after an uncertain one is %q, want read-only", i+1, o)
		}
	}
	return nil
}
