package commit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// Replay brings a store from its mark to head, stretch by stretch, and says how far it is.
func TestReplay(t *testing.T) {
	for _, test := range []struct {
		mark     batchlog.ID
		progress string
	}{
		{0, "3/7 6/7 7/7 "},
		{2, "5/7 7/7 "},
		{6, "7/7 "},
		{7, ""},
		{9, ""},
	} {
		l, s := newFakeLog(t), newFakeStore(t)
		l.stretch = 3
		s.mu.applied = test.mark
		for i := range 7 {
			l.fill(withToken(fmt.Sprint("token", i+1), put(fmt.Sprint(i))))
		}
		got := ""
		progress := func(applied, head batchlog.ID) { got += fmt.Sprintf("%d/%d ", applied, head) }
		if err := Replay(t.Context(), l, s, progress); err != nil {
			t.Error(err)
		}
		check(t, fmt.Sprint("progress from ", test.mark), got, test.progress)
		check(t, "applied", s.Applied(), max(7, test.mark))
		check(t, "open readers", l.mu.open, 0)
		if test.mark > 6 {
			continue
		}
		s.mu.applied = test.mark
		if err := Replay(t.Context(), l, s, nil); err != nil {
			t.Error(err)
		}
		p := newLine(t, l, s)
		check(t, "id of a token that was replayed", mustCommit(t, p, withToken("token7", put("k"))), 7)
		check(t, "next id", mustCommit(t, p, propose(put("k"))), 8)
	}
}

func TestReplayErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name    string
		prepare func(l *fakeLog, s *fakeStore)
		want    error
		applied batchlog.ID
	}{
		{"gap", func(l *fakeLog, _ *fakeStore) { l.trim(2) }, batchlog.ErrGap, 0},
		{"second read", func(l *fakeLog, _ *fakeStore) {
			l.reading = func(next batchlog.ID) error {
				if next > 1 {
					return broken
				}
				return nil
			}
		}, broken, 2},
		{"end too early", func(l *fakeLog, _ *fakeStore) { l.reading = func(batchlog.ID) error { return io.EOF } }, io.EOF, 0},
		{"a record with other ops than it says", func(l *fakeLog, _ *fakeStore) { l.mu.records[2].Count++ }, batchlog.ErrCorrupt, 2},
		{"a record with more ops than it says", func(l *fakeLog, _ *fakeStore) { l.mu.records[1].Count = 0 }, batchlog.ErrCorrupt, 0},
		{"the store ends the goroutine", func(_ *fakeLog, s *fakeStore) {
			s.applying = func([]wire.Record) error { runtime.Goexit(); return nil }
		}, errStopped, 0},
		{"second apply", func(_ *fakeLog, s *fakeStore) {
			s.applying = func(r []wire.Record) error {
				if r[0].ID > 1 {
					return broken
				}
				return nil
			}
		}, broken, 2},
	} {
		l, s := newFakeLog(t), newFakeStore(t)
		l.stretch = 2
		l.fill(propose(put("a")), propose(put("b")), propose(put("c")))
		test.prepare(l, s)
		wantErr(t, test.name, Replay(t.Context(), l, s, nil), test.want)
		check(t, test.name+": applied", s.Applied(), test.applied)
		check(t, test.name+": open readers", l.mu.open, 0)
	}
	l, s := newFakeLog(t), newFakeStore(t)
	l.fill(propose(put("a")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, "context", Replay(ctx, l, s, nil), context.Canceled)
}
