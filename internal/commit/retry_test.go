package commit

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A failing error is one of a store that has written nothing.
type failing struct{ error }

func (failing) Unwritten()      {}
func (f failing) Unwrap() error { return f.error }

// What fails before anything is written is applied all the same, a little later; meanwhile it is said why it is not, and a held read waits. Half a minute is the end of it,
// and damage is at once.
func TestApplyAgain(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name   string
		err    error
		fails  int // so often
		within time.Duration
		stops  bool
	}{
		{"once", failing{broken}, 1, 10 * time.Millisecond, false},
		{"five times", fmt.Errorf("apply: %w", failing{broken}), 5, 310 * time.Millisecond, false},
		{"20 times", failing{broken}, 20, 20 * time.Second, false},
		{"for ever", failing{broken}, 1000, applyPatience, true},
		{"written", broken, 1, 0, true},
		{"damage", failing{fmt.Errorf("%w: %w", batchlog.ErrCorrupt, broken)}, 1, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s := newFakeLog(t), newFakeStore(t)
				left := test.fails
				s.applying = func([]wire.Record) error {
					if left > 0 {
						left--
						return test.err
					}
					return nil
				}
				p := New(Options{Log: l, Store: s, Now: time.Now})
				defer p.Close()
				began := time.Now()
				mustCommit(t, p, propose(put("k")))
				synctest.Wait()
				if test.within > 0 && (!errors.Is(p.Trouble(), broken) || p.Stopped() != nil) {
					t.Errorf("trouble %v, stopped %v", p.Trouble(), p.Stopped())
				}
				err := p.Hold(t.Context(), batchlog.ReadOptions{})
				if took := time.Since(began); took > test.within {
					t.Errorf("after %s", took)
				}
				if !test.stops {
					if err != nil || p.Trouble() != nil || p.Stopped() != nil || s.Applied() != 1 {
						t.Errorf("%v, trouble %v, stopped %v", err, p.Trouble(), p.Stopped())
					}
					return
				}
				wantErr(t, "held read", err, batchlog.ErrReadOnly)
				wantErr(t, "stopped", p.Stopped(), broken)
			})
		})
	}
}

// Of commits that are applied together those that are are not applied again.
func TestApplyAgainTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		failed := map[batchlog.ID]bool{}
		s.applying = func(records []wire.Record) error {
			for _, r := range records { // one by one, the second half of them not at the first time
				if r.ID%2 == 0 && !failed[r.ID] {
					failed[r.ID] = true
					return failing{errors.New("broken")}
				}
				s.mu.Lock()
				s.mu.applied = r.ID
				s.mu.Unlock()
			}
			s.mu.Lock()
			s.mu.applied = records[0].ID - 1 // the fake applies them
			s.mu.Unlock()
			return nil
		}
		p := New(Options{Log: l, Store: s, Now: time.Now})
		defer p.Close()
		for range 5 {
			mustCommit(t, p, propose(put("k")))
		}
		if err := p.Hold(t.Context(), batchlog.ReadOptions{}); err != nil || s.Applied() != 5 {
			t.Errorf("%v, applied %d", err, s.Applied())
		}
		if p.Backlog() != 0 {
			t.Errorf("%d bytes of backlog", p.Backlog())
		}
	})
}
