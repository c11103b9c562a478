package commit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// underWay is how many tokens are in the table.
func (p *Pipeline) underWay() int {
	p.tokens.mu.Lock()
	defer p.tokens.mu.Unlock()
	return len(p.tokens.under)
}

// Whoever proposes with one token, however many, gets the one id of the one commit; also while the store is behind.
func TestTokenOnce(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	p := newLine(t, l, s)
	for range 50 {
		var wg sync.WaitGroup
		var ids [64]batchlog.ID
		before := l.Head()
		for i := range ids {
			wg.Go(func() {
				var err error
				if ids[i], err = p.Commit(t.Context(), withToken("token"+before.String(), put("k"))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != before+1 {
				t.Fatalf("ids %v after %d", ids, before)
			}
		}
		if l.Head() != before+1 {
			t.Fatalf("%d commits", l.Head()-before)
		}
	}
}

// A token is in the table until its commit is applied: the store does not know it before.
func TestTokenUntilApplied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		s.applying = b.wait
		p := newLine(t, l, s)
		check(t, "id", mustCommit(t, p, withToken("t", put("k"))), 1)
		synctest.Wait()
		check(t, "under way", p.underWay(), 1)
		check(t, "id before it is applied", mustCommit(t, p, withToken("t", put("k"))), 1)
		id, found, err := p.Known(t.Context(), "t", 0)
		check(t, "known", []any{id, found, err}, []any{1, true, nil})
		b.release()
		synctest.Wait()
		check(t, "under way", p.underWay(), 0)
		check(t, "id from the store", mustCommit(t, p, withToken("t", put("k"))), 1)
		check(t, "under way", p.underWay(), 0)
		id, found, err = p.Known(t.Context(), "t", 0)
		check(t, "known", []any{id, found, err}, []any{1, true, nil})
		check(t, "head", l.Head(), 1)
	})
}

// If the one that proposes fails, by its context or by the disk, the next one tries for itself.
func TestTokenOwnerFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		p := newLine(t, l, s)
		first := p.commit(t.Context(), propose(put("first")))
		<-b.entered
		full := 2
		l.addErr = func(r wire.Record) error {
			if r.Token() != "" && full > 0 {
				full--
				return batchlog.ErrNoSpace
			}
			return nil
		}
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		owner := p.commit(ctx, withToken("t", put("owner")))
		synctest.Wait()
		leaves := p.commit(ctx, withToken("t", put("leaves")))
		var rest []<-chan result
		for range 5 {
			rest = append(rest, p.commit(t.Context(), withToken("t", put("rest"))))
		}
		known := make(chan bool, 1)
		go func() {
			_, found, err := p.Known(t.Context(), "t", 0)
			known <- found || err != nil
		}()
		synctest.Wait()
		cancel(why)
		check(t, "owner", <-owner, result{0, why})
		check(t, "one that left", <-leaves, result{0, why})
		check(t, "known", <-known, false)
		b.release()
		check(t, "first", <-first, result{1, nil})
		failed := 0
		for _, r := range rest {
			if a := <-r; a.err != nil {
				wantErr(t, "the next", a.err, batchlog.ErrNoSpace)
				failed++
			} else {
				check(t, "id", a.id, 2)
			}
		}
		check(t, "failed", failed, 2)
		check(t, "log", firstKeys(l.durable()), "[first rest]")
		synctest.Wait()
		check(t, "under way", p.underWay(), 0)
	})
}

// Known waits for what is under way, and no longer than its context and the pipeline live.
func TestKnown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, s := newFakeLog(t), newFakeStore(t)
		b := newBlocker()
		l.syncing = b.wait
		p := New(Options{Log: l, Store: s, Now: time.Now})
		id, found, err := p.Known(t.Context(), "t", 0)
		check(t, "unknown", []any{id, found, err}, []any{0, false, nil})
		owner := p.commit(t.Context(), withToken("t", put("k")))
		<-b.entered
		type answer struct {
			id    batchlog.ID
			found bool
			err   error
		}
		known := func(ctx context.Context) <-chan answer {
			c := make(chan answer, 1)
			go func() {
				id, found, err := p.Known(ctx, "t", 0)
				c <- answer{id, found, err}
			}()
			synctest.Wait()
			return c
		}
		ctx, cancel := context.WithCancel(t.Context())
		leaves, stays := known(ctx), known(t.Context())
		cancel()
		check(t, "left", <-leaves, answer{0, false, context.Canceled})
		if !pending(stays) {
			t.Error("known before it is durable")
		}
		waiting := p.commit(t.Context(), withToken("t", put("k")))
		closed := make(chan struct{})
		go func() { p.Close(); close(closed) }()
		wantErr(t, "known", (<-stays).err, batchlog.ErrClosed)
		wantErr(t, "waiting", (<-waiting).err, batchlog.ErrClosed)
		b.release()
		<-closed
		check(t, "owner", <-owner, result{1, nil})
	})
}

// A store that can't say whether it has a token is an error, not a second commit.
func TestTokenStoreError(t *testing.T) {
	l, s := newFakeLog(t), newFakeStore(t)
	broken := errors.New("broken")
	s.looking = func(string) error { return broken }
	p := newLine(t, l, s)
	_, err := p.Commit(t.Context(), withToken("t", put("k")))
	wantErr(t, "commit", err, broken)
	_, _, err = p.Known(t.Context(), "t", 0)
	wantErr(t, "known", err, broken)
	check(t, "under way", p.underWay(), 0)
	check(t, "head", l.Head(), 0)
}
