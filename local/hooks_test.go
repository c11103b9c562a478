package local_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func openMem(t *testing.T) *local.DB {
	t.Helper()
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func keys(t *testing.T, s *batchlog.Space) string {
	t.Helper()
	var all []string
	for e, err := range s.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Key.String()+"="+string(e.Value))
	}
	return strings.Join(all, " ")
}

// A unique index kept by a hook holds under 64 writers who want the same few names, and its entries are exactly those of the users.
func TestHookUniqueIndex(t *testing.T) {
	db := openMem(t)
	users, byName := db.Space("users"), db.Space("by name")
	db.PreCommit(users, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			if op.Kind != batchlog.OpPut {
				return batchlog.Refuse(op, "users are only added here")
			}
			name := batchlog.K(string(op.Value))
			switch holder, err := tx.Get(byName, name); {
			case err == nil && string(holder) != string(op.Key):
				return batchlog.Refuse(op, "the name is taken")
			case err != nil && !errors.Is(err, batchlog.ErrNotFound):
				return err
			}
			tx.Put(byName, name, op.Key)
		}
		return nil
	})
	const writers, each, names = 64, 10, 20
	var added, refused atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprint("name ", (w*each+i)%names)
				_, err := users.Put(t.Context(), batchlog.K(w, i), []byte(name))
				var hook *batchlog.HookError
				switch {
				case err == nil:
					added.Add(1)
				case errors.As(err, &hook) && hook.Reason == "the name is taken" && hook.Space.Equal(users) && hook.Key.String() == batchlog.K(w, i).String():
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if added.Load() != names || refused.Load() != writers*each-names {
		t.Fatalf("%d added, %d refused", added.Load(), refused.Load())
	}
	byUser := map[string]string{}
	for e, err := range users.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		byUser[string(e.Key)] = string(e.Value)
	}
	for e, err := range byName.Scan(t.Context(), batchlog.Range{}) {
		if err != nil || batchlog.K(byUser[string(e.Value)]).String() != e.Key.String() {
			t.Fatal(e, err)
		}
	}
}

// An index that follows changes and deletions, by what a commit overwrites, is under 64 writers what the values make it.
func TestHookBefore(t *testing.T) {
	db := openMem(t)
	things, byColor := db.Space("things"), db.Space("by color")
	db.PreCommit(things, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			was, err := tx.Before(things, op.Key)
			if err == nil {
				tx.Delete(byColor, batchlog.K(string(was), []byte(op.Key)))
			} else if !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			now, err := tx.Get(things, op.Key)
			if op.Kind == batchlog.OpPut && (err != nil || string(now) != string(op.Value)) || op.Kind == batchlog.OpDelete && !errors.Is(err, batchlog.ErrNotFound) {
				return fmt.Errorf("get shows %q, %w", now, err)
			}
			if op.Kind == batchlog.OpPut {
				tx.Put(byColor, batchlog.K(string(op.Value), []byte(op.Key)), nil)
			}
		}
		return nil
	})
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := range 12 {
				key := batchlog.K((w + i) % 9)
				var err error
				if i%4 == 3 {
					_, err = things.Delete(t.Context(), key)
				} else {
					_, err = things.Put(t.Context(), key, fmt.Append(nil, "color ", (w*i)%5))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want := map[string]bool{}
	for e, err := range things.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		want[batchlog.K(string(e.Value), []byte(e.Key)).String()] = true
	}
	for e, err := range byColor.Scan(t.Context(), batchlog.Range{}) {
		if err != nil || !want[e.Key.String()] {
			t.Fatalf("%s is in the index, want %v: %v", e.Key, want, err)
		}
		delete(want, e.Key.String())
	}
	if len(want) > 0 {
		t.Errorf("not in the index: %v", want)
	}
}

// A foreign key checked on both sides holds while one side adds children and the other deletes parents.
func TestHookForeignKey(t *testing.T) {
	db := openMem(t)
	parents, children := db.Space("parents"), db.Space("children")
	db.PreCommit(children, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			if op.Kind != batchlog.OpPut {
				continue
			}
			if _, err := tx.Get(parents, op.Value); errors.Is(err, batchlog.ErrNotFound) {
				return batchlog.Refuse(op, "no such parent")
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	db.PreCommit(parents, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			if op.Kind != batchlog.OpDelete {
				continue
			}
			for e, err := range tx.Scan(children, batchlog.Range{}) {
				if err != nil {
					return err
				}
				if string(e.Value) == string(op.Key) {
					return batchlog.Refuse(op, "it has children")
				}
			}
		}
		return nil
	})
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := range 6 {
				parent := batchlog.K((w + i) % 5)
				var err error
				switch i % 3 {
				case 0:
					_, err = parents.Put(t.Context(), parent, nil)
				case 1:
					_, err = children.Put(t.Context(), batchlog.K(w, i), parent)
				default:
					_, err = parents.Delete(t.Context(), parent)
				}
				if err != nil && !errors.As(err, new(*batchlog.HookError)) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for e, err := range children.Scan(t.Context(), batchlog.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parents.Get(t.Context(), e.Value); err != nil {
			t.Errorf("child %s without parent %s: %v", e.Key, batchlog.Key(e.Value), err)
		}
	}
}

// A balance check in a hook holds for updates that read by themselves, too.
func TestHookBalance(t *testing.T) {
	db := openMem(t)
	accounts := db.Space("accounts")
	sum := func(scan func(yield func(batchlog.Entry, error) bool)) (total int, err error) {
		for e, err := range scan {
			if err != nil {
				return 0, err
			}
			n, err := strconv.Atoi(string(e.Value))
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	}
	db.PreCommit(accounts, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		total, err := sum(tx.Scan(accounts, batchlog.Range{}))
		if err == nil && total < 0 {
			return batchlog.Refuse(ops[0], "the accounts together would be below zero")
		}
		return err
	})
	if _, err := accounts.Put(t.Context(), batchlog.K(0), []byte("100")); err != nil {
		t.Fatal(err)
	}
	var taken atomic.Int64
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() { // a write skew: each writes a key of its own
			_, err := accounts.Put(t.Context(), batchlog.K(w+1), []byte("-7"))
			if err == nil {
				taken.Add(1)
			} else if !errors.As(err, new(*batchlog.HookError)) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 100/7 {
		t.Fatalf("%d times 7 taken of 100", taken.Load())
	}
}

// Hooks see the ops of their subtree only, outer spaces first; they add, drop and change ops, and later hooks and reads see that. The
// commit says which it passed.
func TestHookEdits(t *testing.T) {
	db := openMem(t)
	outer, inner, trail := db.Space("a"), db.Space("a", "b"), db.Space("trail")
	var order []string
	db.PreCommit(inner, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			order = append(order, "inner "+op.Key.String())
			if v, err := tx.Get(inner, op.Key); err != nil || string(v) != string(op.Value) {
				return fmt.Errorf("reads %q %w, was given %q", v, err, op.Value)
			}
			if !op.Space.Equal(inner) {
				return fmt.Errorf("op of space %s", op.Space)
			}
		}
		return nil
	})
	db.PreCommit(outer, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			order = append(order, "outer "+op.Key.String())
			switch op.Key.String() {
			case `"drop"`:
				if err := tx.Drop(op); err != nil {
					return err
				}
				if _, err := tx.Get(op.Space, op.Key); !errors.Is(err, batchlog.ErrNotFound) {
					return fmt.Errorf("dropped and still read: %w", err)
				}
			case `"change"`:
				if err := tx.Replace(op, []byte("changed")); err != nil {
					return err
				}
			}
			tx.Put(trail, op.Key, []byte("seen"))
		}
		return nil
	})
	db.PreCommit(trail, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			order = append(order, "trail "+op.Key.String())
			if tx.Drop(batchlog.Op{Kind: op.Kind, Space: op.Space, Key: op.Key}) == nil {
				return errors.New("dropped an op that it was not given")
			}
		}
		return nil
	})
	var b batchlog.Batch
	b.Put(inner, batchlog.K("drop"), []byte("1"))
	b.Put(inner, batchlog.K("change"), []byte("2"))
	b.Put(outer, batchlog.K("keep"), []byte("3"))
	b.Put(db.Space("elsewhere"), batchlog.K("x"), nil)
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	want := `outer "drop",outer "change",outer "keep",inner "change",trail "drop",trail "change",trail "keep"`
	if got := strings.Join(order, ","); got != want {
		t.Errorf("hooks ran as\n%s, want\n%s", got, want)
	}
	if got := keys(t, inner) + "|" + keys(t, outer) + "|" + keys(t, trail); got != `"change"=changed|"keep"=3|"change"=seen "drop"=seen "keep"=seen` {
		t.Error(got)
	}
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(id), Until: id}) {
		if err != nil || fmt.Sprint(c.Hooks) != "[a a/b trail]" {
			t.Error(c.Hooks, err)
		}
	}
}

// A refusal, a panic, and hooks that set off one another without end: nothing is written, later hooks are not called, the
// error says where, and the next write works.
func TestHookRefuses(t *testing.T) {
	db := openMem(t)
	ping, pong, bad := db.Space("ping"), db.Space("pong"), db.Space("bad")
	bounce := func(to *batchlog.Space) func(tx *batchlog.Tx, ops []batchlog.Op) error {
		return func(tx *batchlog.Tx, ops []batchlog.Op) error {
			tx.Put(to, ops[0].Key, nil)
			return nil
		}
	}
	db.PreCommit(ping, bounce(pong))
	db.PreCommit(pong, bounce(ping))
	db.PreCommit(bad, func(*batchlog.Tx, []batchlog.Op) error { panic("no") })
	remove := db.PreCommit(bad, func(*batchlog.Tx, []batchlog.Op) error {
		t.Error("called after a refusal")
		return nil
	})
	_, err := ping.Put(t.Context(), batchlog.K(1), nil)
	var hook *batchlog.HookError
	if !errors.As(err, &hook) || len(hook.Chain) != batchlog.MaxHookDepth || !errors.Is(err, batchlog.ErrTooLarge) {
		t.Errorf("%v", err)
	}
	_, err = bad.Put(t.Context(), batchlog.K(1), nil)
	if !errors.As(err, &hook) || !strings.Contains(hook.Reason, "panic: no") || !errors.Is(err, batchlog.ErrPermission) {
		t.Errorf("%v", err)
	}
	if head, err := db.Head(t.Context()); head != 0 || err != nil {
		t.Error(head, err)
	}
	remove()
	if id, err := db.Space("good").Put(t.Context(), batchlog.K(1), nil); id != 1 || err != nil {
		t.Error(id, err)
	}
}

// A hook that hangs holds up its own commit and no other one.
func TestHookSlow(t *testing.T) {
	db := openMem(t)
	slow := db.Space("slow")
	entered, release := make(chan struct{}), make(chan struct{})
	db.PreCommit(slow, func(*batchlog.Tx, []batchlog.Op) error {
		close(entered)
		<-release
		return nil
	})
	done := make(chan error)
	go func() {
		_, err := slow.Put(context.Background(), batchlog.K(1), nil)
		done <- err
	}()
	<-entered
	for i := range 10 {
		if id, err := db.Space("quick").Put(t.Context(), batchlog.K(i), nil); err != nil || id != batchlog.ID(i+1) {
			t.Fatal(id, err)
		}
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A retry with a token is not refused by a hook that sees the first try.
func TestHookToken(t *testing.T) {
	db := openMem(t)
	once := db.Space("once")
	db.PreCommit(once, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for e, err := range tx.Scan(once, batchlog.Range{}) {
			if err != nil {
				return err
			}
			if string(e.Value) != string(ops[0].Value) {
				return batchlog.Refuse(ops[0], "there is one already")
			}
		}
		return nil
	})
	write := func(token, value string) (batchlog.ID, error) {
		b := batchlog.Batch{Token: token}
		b.Put(once, batchlog.K(value), []byte(value))
		return db.Write(t.Context(), &b)
	}
	for range 2 {
		if id, err := write("t", "a"); id != 1 || err != nil {
			t.Fatal(id, err)
		}
	}
	if _, err := write("u", "b"); !errors.As(err, new(*batchlog.HookError)) {
		t.Fatal(err)
	}
	if id, err := write("t", "b"); id != 1 || err != nil {
		t.Fatal(id, err)
	}
}

// A pre-commit hook that ends its goroutine, which is its writer's, refuses the commit: nothing of it is there, and nothing of it is left.
func TestPreCommitGoexit(t *testing.T) {
	db := openMem(t)
	s := db.Space("s")
	remove := db.PreCommit(s, func(*batchlog.Tx, []batchlog.Op) error {
		runtime.Goexit()
		return nil
	})
	for name, write := range map[string]func() error{
		"write": func() error {
			b := batchlog.Batch{Token: "token"}
			b.Put(s, batchlog.K("k"), nil)
			_, err := db.Write(t.Context(), &b)
			return err
		},
		"update": func() error {
			_, err := db.Update(t.Context(), func(tx *batchlog.Tx) error {
				tx.Put(s, batchlog.K("k"), nil)
				return nil
			})
			return err
		},
	} {
		ended := make(chan bool)
		go func() {
			returned := false
			defer func() { ended <- returned }()
			_ = write()
			returned = true
		}()
		if <-ended {
			t.Errorf("%s has returned", name)
		}
	}
	remove()
	if got := keys(t, s); got != "" {
		t.Errorf("written: %s", got)
	}
	b := batchlog.Batch{Token: "token"}
	b.Put(s, batchlog.K("k"), nil)
	if id, err := db.Write(t.Context(), &b); id != 1 || err != nil {
		t.Error(id, err)
	}
}

// A hook whose reads others change all the time, and that takes its time, gets its commit through; writes of others are not held up.
func TestHookLoses(t *testing.T) {
	db := openMem(t)
	s, hot, other := db.Space("s"), db.Space("hot"), db.Space("other")
	tries := 0
	db.PreCommit(s, func(tx *batchlog.Tx, _ []batchlog.Op) error {
		if tries++; tries > 12 {
			return errors.New("it takes no end")
		}
		if _, err := tx.Get(hot, batchlog.K("k")); err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			return err
		}
		written := make(chan error, 1)
		go func() {
			_, err := hot.Put(context.WithoutCancel(t.Context()), batchlog.K("k"), nil)
			written <- err
		}()
		select {
		case err := <-written:
			if err != nil {
				return err
			}
		case <-time.After(50 * time.Millisecond): // it is held, as what this has read is protected
		}
		_, err := other.Put(t.Context(), batchlog.K(tries), nil)
		return err
	})
	for range 2 {
		tries = 0
		if _, err := s.Put(t.Context(), batchlog.K("k"), nil); err != nil {
			t.Error(err)
		}
		tries = 0
		if _, err := db.Update(t.Context(), func(tx *batchlog.Tx) error { // what its hooks read is protected as well
			tx.Put(s, batchlog.K("l"), nil)
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// A logBuffer is what a logger wrote.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
