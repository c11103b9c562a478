package task_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// mirror writes what is put into its sources to out, and under "seen" the id of the newest commit.
func mirror(out *batchlog.Space) func(context.Context, *task.Window) error {
	return func(_ context.Context, w *task.Window) error {
		for c, err := range w.Commits() {
			if err != nil {
				return err
			}
			for op, err := range c.Ops() {
				if err != nil {
					return err
				}
				w.Put(out, op.Key, op.Value)
			}
			w.Put(out, batchlog.K("seen"), []byte(c.ID.String()))
		}
		return nil
	}
}

func derive(name string, source, out *batchlog.Space) task.Task {
	return task.Task{Name: name, Source: []*batchlog.Space{source}, Derives: []*batchlog.Space{out}, Handle: mirror(out)}
}

// registered waits until the engine knows the task.
func registered(t *testing.T, db *local.DB, name string) {
	t.Helper()
	until(t, name+" registered", func() bool {
		_, err := task.Get(t.Context(), db.DB, name)
		return err == nil
	})
}

// What is registered is known before it runs.
func TestRegister(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	k := derive("mirror", source, out)
	k.Start = batchlog.Now()
	put(t, source, "a", "before")
	if err := task.Register(t.Context(), db.DB, k); err != nil {
		t.Fatal(err)
	}
	put(t, source, "b", "after")
	if _, err := out.Put(t.Context(), batchlog.K("x"), nil); !errors.Is(err, batchlog.ErrPermission) {
		t.Error(err)
	}
	if _, err := out.Get(t.Context(), batchlog.K("b"), batchlog.MaxWait(10*time.Millisecond)); !errors.As(err, new(*batchlog.WaitError)) {
		t.Error(err)
	}
	run(t, db, k)
	if got := dump(t, out); !strings.HasPrefix(got, `"b"=after `) {
		t.Error("it begins where it was registered:", got)
	}
}

// A read of a derived space that comes after a write shows what the task makes of it; also a scan, and a view.
func TestDerivedReadsAreHeld(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	k := derive("mirror", source, out)
	k.Window.Commits = 3
	run(t, db, k)
	registered(t, db, "mirror")
	for i := range 300 {
		value := fmt.Sprint(i)
		put(t, source, i%7, value)
		switch i % 3 {
		case 0:
			if got, err := out.Get(t.Context(), batchlog.K(i%7)); err != nil || string(got) != value {
				t.Fatalf("get %d: %s, %v", i, got, err)
			}
		case 1:
			if got := dump(t, out); !strings.Contains(got, fmt.Sprintf("%d=%s ", i%7, value)) {
				t.Fatalf("scan %d: %s", i, got)
			}
		case 2:
			v, err := db.View(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := v.Get(out, batchlog.K(i%7)); err != nil || string(got) != value {
				t.Fatalf("view %d: %s, %v", i, got, err)
			}
			v.Close()
		}
		put(t, db.Space("other"), i, "") // what doesn't concern the task is not waited for
	}
}

// Without its task a read waits, and says for whom; a stale one does not wait, nor does one that asks for what the task has handled.
func TestDerivedReadsSayWhatTheyWaitFor(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	var broken atomic.Bool
	k := derive("mirror", source, out)
	k.Retry = task.Retry{First: time.Hour, Max: time.Hour}
	k.Handle = func(ctx context.Context, w *task.Window) error {
		if broken.Load() {
			return errors.New("the disk of the other system is full")
		}
		return mirror(out)(ctx, w)
	}
	stop := run(t, db, k)
	registered(t, db, "mirror")
	id := put(t, source, "a", "1")
	if got, err := out.Get(t.Context(), batchlog.K("a")); err != nil || string(got) != "1" {
		t.Fatal(string(got), err)
	}
	check := func(state, reason string, err error) {
		t.Helper()
		var w *batchlog.WaitError
		if !errors.As(err, &w) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v, want a WaitError", err)
		}
		if w.Task != "mirror" || w.State != state || w.Cursor < id || !w.Space.Equal(out) || !strings.Contains(w.Reason, reason) {
			t.Errorf("%+v: %v", w, w)
		}
		if text := err.Error(); !strings.Contains(text, "mirror") || !strings.Contains(text, state) || !strings.Contains(text, "out") || !strings.Contains(text, reason) {
			t.Error(text)
		}
	}
	soon := batchlog.MaxWait(30 * time.Millisecond)
	broken.Store(true)
	put(t, source, "a", "2")
	until(t, "failing", func() bool {
		s, err := task.Get(t.Context(), db.DB, "mirror")
		return err == nil && s.State == "failing"
	})
	_, err := out.Get(t.Context(), batchlog.K("a"), soon)
	check("failing", "the disk of the other system is full", err)
	for _, err := range out.Scan(t.Context(), batchlog.Range{}, soon) {
		check("failing", "", err)
	}
	v, err := db.View(t.Context(), soon)
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Get(out, batchlog.K("a"))
	check("failing", "", err)
	if got, err := v.Get(source, batchlog.K("a")); err != nil || string(got) != "2" {
		t.Error("what is not derived waits, too", string(got), err)
	}
	v.Close()
	if err := task.Pause(t.Context(), db.DB, "mirror"); err != nil {
		t.Fatal(err)
	}
	_, err = out.Get(t.Context(), batchlog.K("a"), soon)
	check("paused", "", err)
	for name, opt := range map[string]batchlog.ReadOption{"stale": batchlog.Stale(), "at least": batchlog.AtLeast(id)} {
		if got, err := out.Get(t.Context(), batchlog.K("a"), opt); err != nil || string(got) != "1" {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	waits, err := task.Explain(t.Context(), db.DB, out)
	if err != nil || len(waits) != 1 || waits[0].Task != "mirror" || waits[0].State != "paused" || waits[0].Behind != 1 || waits[0].Cursor < id {
		t.Errorf("%+v, %v", waits, err)
	}
	if waits, err := task.Explain(t.Context(), db.DB, source); err != nil || len(waits) != 0 {
		t.Errorf("%+v, %v", waits, err)
	}
	_ = stop()
	if err := task.Resume(t.Context(), db.DB, "mirror"); err != nil {
		t.Fatal(err)
	}
	_, err = out.Get(t.Context(), batchlog.K("a"), soon)
	check("waiting for a worker", "", err)

	// A read that is held when the database is closed ends.
	ended := make(chan error, 1)
	go func() {
		_, err := out.Get(t.Context(), batchlog.K("a"))
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	db.Close()
	if err := <-ended; !errors.Is(err, batchlog.ErrClosed) {
		t.Error(err)
	}
}

// After reopening, what nothing was missing for is read at once, and what was missing is waited for.
func TestDerivedReadsAfterReopening(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs, local.Options{})
	k := derive("mirror", db.Space("source"), db.Space("out"))
	stop := run(t, db, k)
	registered(t, db, "mirror")
	put(t, db.Space("source"), "a", "1")
	if got := dump(t, db.Space("out")); !strings.Contains(got, `"a"=1 `) {
		t.Fatal(got)
	}
	_ = stop()
	for i := range 50 {
		put(t, db.Space("other"), i, "")
	}
	db.Close()
	db = open(t, fs, local.Options{})
	source, out := db.Space("source"), db.Space("out")
	if got, err := out.Get(t.Context(), batchlog.K("a"), batchlog.MaxWait(10*time.Second)); err != nil || string(got) != "1" {
		t.Fatal(string(got), err)
	}
	put(t, source, "a", "2")
	if _, err := out.Get(t.Context(), batchlog.K("a"), batchlog.MaxWait(20*time.Millisecond)); !errors.As(err, new(*batchlog.WaitError)) {
		t.Fatal(err)
	}
	if _, err := out.Put(t.Context(), batchlog.K("a"), nil); !errors.Is(err, batchlog.ErrPermission) {
		t.Error(err)
	}
	run(t, db, derive("mirror", source, out))
	if got, err := out.Get(t.Context(), batchlog.K("a")); err != nil || string(got) != "2" {
		t.Fatal(string(got), err)
	}
}

// Only its task writes into a derived space, by whatever way.
func TestDerivedSpacesAreTheirTasks(t *testing.T) {
	db := mem(t)
	source, out := db.Space("source"), db.Space("out")
	run(t, db, derive("mirror", source, out))
	registered(t, db, "mirror")
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, batchlog.ErrPermission) || !strings.Contains(err.Error(), "mirror") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := out.Put(t.Context(), batchlog.K("x"), nil)
	refused("put", err)
	_, err = out.Space("within").Delete(t.Context(), batchlog.K("x"))
	refused("delete within", err)
	var b batchlog.Batch
	b.Put(db.Space("elsewhere"), batchlog.K("x"), nil)
	b.DeleteRange(out, batchlog.Range{})
	_, err = db.Write(t.Context(), &b)
	refused("range", err)
	if _, err := db.Space("elsewhere").Get(t.Context(), batchlog.K("x")); !errors.Is(err, batchlog.ErrNotFound) {
		t.Error("half of the batch is there", err)
	}
	_, err = db.Update(t.Context(), func(tx *batchlog.Tx) error {
		tx.Put(out, batchlog.K("x"), nil)
		return nil
	})
	refused("update", err)
	remove := db.PreCommit(db.Space("hooked"), func(tx *batchlog.Tx, _ []batchlog.Op) error {
		tx.Put(out, batchlog.K("x"), nil)
		return nil
	})
	_, err = db.Space("hooked").Put(t.Context(), batchlog.K("x"), nil)
	refused("hook", err)
	remove()

	// Not another task either: the window fails.
	other := task.Task{Name: "other", Source: []*batchlog.Space{source}, Retry: task.Retry{Attempts: 1}, Handle: func(_ context.Context, w *task.Window) error {
		w.Put(out, batchlog.K("x"), nil)
		return nil
	}}
	put(t, source, 1, "")
	refused("task", task.Run(t.Context(), db.DB, other))
	// Nor may another one derive it, or what it is in, or what is in it.
	for _, s := range []*batchlog.Space{out, db.Root(), out.Space("within")} {
		err := task.Run(t.Context(), db.DB, derive("second", source, s))
		if !errors.Is(err, batchlog.ErrPermission) && !errors.Is(err, task.ErrLoop) {
			t.Errorf("derive %s: %v", s, err)
		}
	}
	if err := task.Drop(t.Context(), db.DB, "mirror"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Put(t.Context(), batchlog.K("x"), nil); err != nil {
		t.Error("after the task was dropped:", err)
	}
}

// Chains of derived spaces wait through; loops are refused.
func TestDerivedChains(t *testing.T) {
	db := mem(t)
	a, b, c, d := db.Space("a"), db.Space("b"), db.Space("c"), db.Space("d")
	run(t, db, derive("a to b", a, b))
	run(t, db, derive("b to c", b, c))
	both := derive("b and c to d", b, d)
	both.Source = append(both.Source, c)
	run(t, db, both)
	for _, name := range []string{"a to b", "b to c", "b and c to d"} {
		registered(t, db, name)
	}
	for i := range 60 {
		want := fmt.Sprint(i)
		put(t, a, "x", want)
		for _, s := range []*batchlog.Space{d, c, b} {
			if got, err := s.Get(t.Context(), batchlog.K("x")); err != nil || string(got) != want {
				t.Fatalf("%d in %s: %s, %v", i, s, got, err)
			}
		}
	}
	waits, err := task.Explain(t.Context(), db.DB, d)
	if err != nil || len(waits) != 3 || waits[0].Task != "a to b" || waits[2].Task != "b and c to d" {
		t.Errorf("%+v, %v", waits, err)
	}
	for name, k := range map[string]task.Task{
		"itself":      derive("loop", d.Space("x"), d.Space("x")),
		"what is in":  derive("loop", db.Space("e"), db.Space("e", "within")),
		"everything":  {Name: "loop", Derives: []*batchlog.Space{db.Space("e")}, Handle: mirror(db.Space("e"))},
		"over others": derive("loop", d, a),
		"over two":    derive("loop", c, a.Space("within")),
	} {
		err := task.Run(t.Context(), db.DB, k)
		if !errors.Is(err, task.ErrLoop) && !errors.Is(err, batchlog.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "itself" && !errors.Is(err, task.ErrLoop) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two derived spaces in one view are as of one commit, that of the view, whatever is written meanwhile and however the tasks cut the log.
func TestViewsOfDerivedSpaces(t *testing.T) {
	db := mem(t)
	source := db.Space("source")
	outs := []*batchlog.Space{db.Space("one"), db.Space("two"), db.Space("three")}
	for i, out := range outs {
		k := derive(fmt.Sprint("task ", i), source, out)
		k.Concurrency = 1 + i
		k.Window = task.Limit{Commits: 1 + 40*i, Wait: time.Duration(i) * 3 * time.Millisecond}
		run(t, db, k)
		registered(t, db, k.Name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := source.Put(ctx, batchlog.K("n"), []byte(fmt.Sprint(i))); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond) // so that the slowest task keeps up
			}
		})
	}
	for i := range 60 {
		v, err := db.View(t.Context(), batchlog.MaxWait(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			time.Sleep(3 * time.Millisecond) // the tasks go on, the view stays
		}
		value, err := v.Get(source, batchlog.K("n"))
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			t.Fatal(err)
		}
		newest := batchlog.ID(0)
		for c, err := range source.Tail(t.Context(), batchlog.TailOptions{Until: v.ID()}) {
			if err != nil {
				t.Fatal(err)
			}
			newest = c.ID
		}
		for _, out := range outs {
			seen, err := v.Get(out, batchlog.K("seen"))
			if newest == 0 && errors.Is(err, batchlog.ErrNotFound) {
				continue
			}
			got, err2 := v.Get(out, batchlog.K("n"))
			if err != nil || err2 != nil || string(seen) != newest.String() || string(got) != string(value) {
				t.Fatalf("view %d at %d: %s has seen %s, the newest commit is %d: %v %v", i, v.ID(), out, seen, newest, err, err2)
			}
		}
		v.Close()
	}
	cancel()
	wg.Wait()
}
