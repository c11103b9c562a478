package enginetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

var closeTests = []test{
	{"Twice", testCloseTwice},
	{"Uses", testCloseUses},
	{"EndsTails", testCloseEndsTails},
	{"EndsWaits", testCloseEndsWaits},
	{"UnderWay", testCloseUnderWay},
	{"OpenViews", testCloseOpenViews},
	{"LeavesNoGoroutines", testCloseLeaks},
}

// A second Close does nothing, also one at the same time.
func testCloseTwice(t *testing.T, open Open) {
	db := plain(t, open)
	put(t, db.Space("s"), nil, "v")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := db.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	check(t, db.Close())
}

// Every use of a closed database is ErrClosed.
func testCloseUses(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	put(t, s, batchlog.K("k"), "v")
	v, err := db.View(within(t))
	check(t, err)
	check(t, db.Close())
	ctx := within(t)
	uses := map[string]error{}
	_, uses["put"] = s.Put(ctx, batchlog.K("k"), nil)
	_, uses["delete"] = s.Delete(ctx, batchlog.K("k"))
	_, uses["write"] = db.Write(ctx, &batchlog.Batch{})
	_, uses["write with a token"] = db.Write(ctx, &batchlog.Batch{Token: "t"})
	_, uses["update"] = db.Update(ctx, func(tx *batchlog.Tx) error { tx.Put(s, nil, nil); return nil })
	_, uses["get"] = s.Get(ctx, batchlog.K("k"))
	_, uses["stale get"] = s.Get(ctx, batchlog.K("k"), batchlog.Stale())
	_, uses["get at least"] = s.Get(ctx, batchlog.K("k"), batchlog.AtLeast(100))
	_, uses["scan"] = collect(s.Scan(ctx, batchlog.Range{}))
	_, uses["view"] = db.View(ctx)
	_, uses["get of an open view"] = v.Get(s, batchlog.K("k"))
	_, uses["scan of an open view"] = collect(v.Scan(s, batchlog.Range{}))
	_, uses["tail"] = until(t, db, batchlog.TailOptions{Until: 1})
	_, uses["head"] = db.Head(ctx)
	_, uses["status"] = db.Status(ctx)
	if err := db.Configure(ctx, batchlog.LogConfig{}); !errors.Is(err, batchlog.ErrUnsupported) {
		uses["configure"] = err
	}
	for use, err := range uses {
		wantErr(t, use, err, batchlog.ErrClosed)
	}
	if err := v.Close(); err != nil {
		t.Errorf("close of a view after the database: %v", err)
	}
}

// Close ends followers with ErrClosed: those that wait at the head and those that stand in the middle.
func testCloseEndsTails(t *testing.T, open Open) {
	db := plain(t, open)
	for n := range 100 {
		put(t, db.Space("s"), batchlog.K(n), "v")
	}
	errs := make(chan error, 3)
	var began sync.WaitGroup
	began.Add(3)
	for _, o := range []batchlog.TailOptions{{}, {From: batchlog.At(1000)}, {Spaces: []*batchlog.Space{db.Space("nobody")}, Bookmarks: true}} {
		go func() {
			first := true
			if o.From != (batchlog.Position{}) {
				began.Done()
			}
			for _, err := range db.Tail(within(t), o) {
				if err != nil {
					errs <- err
					return
				}
				if first && o.From == (batchlog.Position{}) {
					began.Done()
				}
				first = false
			}
			errs <- nil
		}()
	}
	began.Wait()
	check(t, db.Close())
	for range 3 {
		wantErr(t, "tail", <-errs, batchlog.ErrClosed)
	}
}

// Close ends reads that are held, and transactions, with ErrClosed.
func testCloseEndsWaits(t *testing.T, open Open) {
	db := plain(t, open)
	put(t, db.Space("s"), batchlog.K("k"), "v")
	errs := make(chan error, 2*len(heldReads(db)))
	for _, read := range heldReads(db) {
		go func() { errs <- read(within(t), batchlog.AtLeast(1000)) }()
		go func() { errs <- read(within(t), batchlog.AtLeast(1000), batchlog.MaxWait(Patience)) }()
	}
	time.Sleep(2 * time.Millisecond) // so that most of them wait; those that don't yet get the same error
	check(t, db.Close())
	for range cap(errs) {
		wantErr(t, "held read", <-errs, batchlog.ErrClosed)
	}
}

// What is under way when the database is closed ends: with an id, and then it is kept, or with ErrClosed, and then it is not.
func testCloseUnderWay(t *testing.T, open Open) {
	for round := range 5 {
		sub := open(t, Options{})
		db := sub.DB
		const writers = 8
		acked := make([]int, writers) // how many commits each was told of
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := 0; ; n++ {
					b := batchlog.Batch{}
					if w%2 == 0 {
						b.Token = fmt.Sprintf("%d.%d", w, n)
					}
					b.Put(db.Space("w", w), batchlog.K(n), nil)
					if _, err := db.Write(t.Context(), &b); err != nil {
						wantErr(t, "write while the database is closed", err, batchlog.ErrClosed)
						return
					}
					acked[w]++
				}
			})
		}
		for range 3 { // readers meet the end too
			wg.Go(func() {
				for {
					if _, err := collect(db.Space("w", 1).Scan(t.Context(), batchlog.Range{})); err != nil {
						wantErr(t, "scan while the database is closed", err, batchlog.ErrClosed)
						return
					}
				}
			})
		}
		wg.Go(func() {
			for _, err := range db.Tail(t.Context(), batchlog.TailOptions{}) {
				if err != nil {
					wantErr(t, "tail while the database is closed", err, batchlog.ErrClosed)
				}
			}
		})
		time.Sleep(time.Duration(round) * time.Millisecond)
		check(t, db.Close())
		wg.Wait()
		if sub.Reopen == nil {
			continue
		}
		db = sub.Reopen(t)
		total := 0
		for w, n := range acked {
			got := len(scan(t, db.Space("w", w), batchlog.Range{}))
			if got != n {
				t.Errorf("writer %d was told of %d commits, %d are there", w, n, got)
			}
			total += got
		}
		if h := head(t, db); h != batchlog.ID(total) {
			t.Errorf("head is %d with %d commits", h, total)
		}
	}
}

// Views and scans that are open do not hold up Close, and do no harm after it.
func testCloseOpenViews(t *testing.T, open Open) {
	db := plain(t, open)
	s := db.Space("s")
	for n := range 100 {
		put(t, s, batchlog.K(n), "v")
	}
	v, err := db.View(within(t))
	check(t, err)
	n := 0
	for _, err := range v.Scan(s, batchlog.Range{}) {
		if err != nil {
			wantErr(t, "scan", err, batchlog.ErrClosed)
			break
		}
		if n++; n == 5 {
			check(t, db.Close())
		}
	}
	if n == 100 {
		t.Error("the scan went on as if nothing had happened")
	}
	_, err = v.Get(s, batchlog.K(1))
	wantErr(t, "get", err, batchlog.ErrClosed)
}

// When Close has returned none of the database's goroutines is left.
func testCloseLeaks(t *testing.T, open Open) {
	before := goroutines()
	db := plain(t, open)
	for n := range 20 {
		put(t, db.Space("s"), batchlog.K(n), "v")
	}
	follow(t, db, batchlog.TailOptions{}, 20)
	_, err := db.Update(within(t), func(tx *batchlog.Tx) error { tx.Put(db.Root(), nil, nil); return nil })
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	_, err = db.Space("s").Get(ctx, nil, batchlog.AtLeast(1000))
	cancel()
	wantErr(t, "get", err, context.DeadlineExceeded)
	check(t, db.Close())
	var left []string
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(left, "\n\n"))
		}
	}()
	eventually(t, "goroutines to end", func() bool {
		left = nil
		for at, stacks := range goroutines() {
			if n := len(before[at]); len(stacks) > n {
				left = append(left, stacks[n:]...)
			}
		}
		return len(left) == 0
	})
}

// goroutines is the stacks of the goroutines there are, by the places in the code where they are, those of tests and of the runtime left out. A database
// that another test has left behind, on a disk that failed, may end goroutines and begin the same again: they are told by their places, not by their numbers.
func goroutines() map[string][]string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	stacks := map[string][]string{}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		// Contexts of the test may wait for a moment longer than it.
		if strings.Contains(stack, "testing.") || strings.Contains(stack, "context.") {
			continue
		}
		var at strings.Builder
		for line := range strings.Lines(stack) {
			if place, _, _ := strings.Cut(line, " +0x"); strings.HasPrefix(line, "\t") {
				at.WriteString(place)
			}
		}
		stacks[at.String()] = append(stacks[at.String()], stack)
	}
	return stacks
}
