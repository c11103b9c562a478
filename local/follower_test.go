package local_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Post-commit hooks are called in the order of ids, each after its commit is applied, for their subtree only; one that is slow misses
// nothing and holds nobody up; a panic costs one call; remove returns after the last call.
func TestPostCommit(t *testing.T) {
	db := openMem(t)
	s := db.Space("s")
	var mu sync.Mutex
	var seen []batchlog.ID
	gate := make(chan struct{})
	remove := db.PostCommit(s, func(c *batchlog.Commit) {
		<-gate
		if _, err := s.Get(context.Background(), batchlog.K(int(c.ID)), batchlog.Stale()); err != nil {
			t.Errorf("commit %d: %v", c.ID, err)
		}
		mu.Lock()
		seen = append(seen, c.ID)
		mu.Unlock()
		if c.ID == 3 {
			panic("third")
		}
	})
	const n = 300
	for i := 1; i <= n; i++ {
		space := s.Space("within")
		if i%2 == 1 {
			space = s
		}
		var b batchlog.Batch
		b.Put(s, batchlog.K(i), nil)
		b.Put(space, batchlog.K(i), nil)
		if i%10 == 0 {
			b.Reset()
			b.Put(db.Space("elsewhere"), batchlog.K(i), nil)
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	close(gate) // all commits were made while the first call was held
	deadline := time.Now().Add(20 * time.Second)
	for {
		mu.Lock()
		got := len(seen)
		mu.Unlock()
		if got == n-n/10 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d calls", got)
		}
		time.Sleep(time.Millisecond)
	}
	remove()
	remove()
	if _, err := s.Put(t.Context(), batchlog.K(0), nil); err != nil {
		t.Fatal(err)
	}
	want := batchlog.ID(1)
	for _, id := range seen {
		if id != want {
			t.Fatalf("call for %d, want %d", id, want)
		}
		if want++; want%10 == 0 {
			want++
		}
	}
}

// What panics in a post-commit hook is told to the logger, with the commit; remove returns only when the call that is under way has.
func TestPostCommitEnds(t *testing.T) {
	var log logBuffer
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := db.Space("s")
	entered, release := make(chan struct{}), make(chan struct{})
	var returned atomic.Bool
	remove := db.PostCommit(s, func(c *batchlog.Commit) {
		if c.ID == 1 {
			panic("the first is one too many")
		}
		if c.ID > 2 {
			return
		}
		close(entered)
		<-release
		returned.Store(true)
	})
	for i := range 3 {
		if _, err := s.Put(t.Context(), batchlog.K(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	<-entered
	removed := make(chan bool)
	go func() {
		remove()
		removed <- returned.Load()
	}()
	select {
	case <-removed:
		t.Fatal("removed while a call was under way")
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	if !<-removed {
		t.Error("removed before the call had returned")
	}
	if text := log.String(); !strings.Contains(text, "the first is one too many") || !strings.Contains(text, "commit=1") {
		t.Errorf("the logger was told %q", text)
	}
}

// A hook that calls Close, or removes itself, or is blocked, does not hold Close up for ever: it is left behind after a while, which the logger is told, with
// its space, and Close returns.
func TestPostCommitLeftBehind(t *testing.T) {
	for name, c := range map[string]struct {
		hook func(db *local.DB, remove func(), blocked chan struct{})
		err  string // of Close, from outside
	}{
		"closes":  {func(db *local.DB, _ func(), _ chan struct{}) { _ = db.Close() }, "left behind"},
		"removes": {func(_ *local.DB, remove func(), _ chan struct{}) { remove() }, ""},
		"blocked": {func(_ *local.DB, _ func(), blocked chan struct{}) { <-blocked }, "left behind"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log logBuffer
			db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			s := db.Space("the", "space")
			blocked, ended, calls := make(chan struct{}), make(chan error, 1), 0
			var remove func()
			remove = db.PostCommit(s, func(*batchlog.Commit) {
				calls++
				c.hook(db, remove, blocked)
				_, err := s.Put(context.Background(), batchlog.K("after"), nil)
				ended <- err
			})
			if _, err := s.Put(t.Context(), batchlog.K(1), nil); err != nil {
				t.Fatal(err)
			}
			if name == "removes" {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Second)
			began := time.Now()
			err = db.Close()
			if took := time.Since(began); took > 6*time.Second || (c.err == "") != (err == nil) || err != nil && !(strings.Contains(err.Error(), c.err) && strings.Contains(err.Error(), "the/space")) {
				t.Errorf("%s: Close returns %v after %s", name, err, took)
			}
			if text := log.String(); !strings.Contains(text, "space=the/space") || !strings.Contains(text, "left behind") {
				t.Errorf("%s: the logger was told %q", name, text)
			}
			close(blocked)
			if name != "removes" {
				if err := <-ended; !errors.Is(err, batchlog.ErrClosed) {
					t.Errorf("%s: written after Close: %v", name, err)
				}
			}
			db.PostCommit(s, func(*batchlog.Commit) { t.Error("called after Close") })()
			if calls != 1 {
				t.Errorf("%s: %d calls", name, calls)
			}
		})
	}
}

// A hook that ends its goroutine is called for the next commit all the same, and the logger is told.
func TestPostCommitGoexit(t *testing.T) {
	var log logBuffer
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s := db.Space("s")
	seen := make(chan batchlog.ID, 10)
	remove := db.PostCommit(s, func(c *batchlog.Commit) {
		seen <- c.ID
		if c.ID%2 == 0 {
			runtime.Goexit()
		}
	})
	for i := range 6 {
		if _, err := s.Put(t.Context(), batchlog.K(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	for want := batchlog.ID(1); want <= 6; want++ {
		if got := <-seen; got != want {
			t.Errorf("call for %d, want %d", got, want)
		}
	}
	remove()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, "runtime.Goexit") != 3 || !strings.Contains(text, "commit=4") || !strings.Contains(text, "space=s") {
		t.Errorf("the logger was told %q", text)
	}
}
