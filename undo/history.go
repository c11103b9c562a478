package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
)

// A Version is a value that a key had, from one commit on.
type Version struct {
	ID     batchlog.ID       // the commit that set it; 0: one from before the oldest commit in the log, so that there is no time and are no labels
	Time   time.Time         // of the commit
	Labels map[string]string // of the commit; nil when there are none
	Value  Value             // not Present: the commit deleted the key
}

// History yields the values that k of s has had, the newest first, as far back as the log goes. A commit that wrote the value which was there already is left out. Where the log
// has lost its oldest commits, the last one yielded may be the value from before those that are left, without an id, as far as the inverse of the first
// one that wrote the key is there; a key that was not written since has nothing but that.
//
// The log is looked through from its head backwards, a stretch at a time, as far as the versions are asked for; memory is bounded to some 16 MiB, or twice the largest value. What is
// yielded stays valid. An error ends it.
func History(ctx context.Context, db *batchlog.DB, s *batchlog.Space, k batchlog.Key) iter.Seq2[*Version, error] {
	return func(yield func(*Version, error) bool) {
		if err := db.Owns(s); err != nil {
			yield(nil, err)
			return
		}
		h := history{ctx: ctx, db: db, space: s, key: append(bytes.Clone(s.Stored()), k...), yield: yield}
		if err := h.run(); err != nil && !errors.Is(err, errEnough) {
			yield(nil, err)
		}
	}
}

const (
	historyFirst = 1 << 10 // commits in the first stretch, for those who want to see the last change
	historyMax   = 1 << 16 // commits in a stretch
)

// historyBytes bounds the values of a stretch. It is a variable for tests.
var historyBytes = 16 << 20

type history struct {
	ctx    context.Context //nolint:containedctx // of one iteration
	db     *batchlog.DB
	space  *batchlog.Space
	key    []byte // stored
	yield  func(*Version, error) bool
	oldest batchlog.ID // commit in the log

	next *version // found and not yielded: an older one tells whether it changed anything
}

// A version is what one commit has left of the key.
type version struct {
	id     batchlog.ID
	time   time.Time
	labels map[string]string
	stored stored
}

func (h *history) run() error {
	snap, err := h.db.Engine().View(h.ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return err
	}
	head := snap.ID()
	has, err := heldAt(h.ctx, snap, h.key)
	if err = errors.Join(err, snap.Close()); err != nil {
		return err
	}
	if h.oldest, err = oldestOf(h.ctx, h.db, head); err != nil {
		return err
	}
	for high, window := head, batchlog.ID(historyFirst); high >= h.oldest && high > 0; {
		low := max(h.oldest, high-min(high-1, window-1))
		list, fits, err := h.stretch(low, high)
		switch {
		case errors.Is(err, batchlog.ErrGap):
			if h.oldest, err = oldestOf(h.ctx, h.db, head); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case !fits:
			window = (high - low + 1) / 2
			continue
		}
		for _, v := range slices.Backward(list) {
			if err := h.push(v); err != nil {
				return err
			}
		}
		high, window = low-1, min(2*window, historyMax)
	}
	return h.end(has)
}

// oldestOf is the oldest commit in the log, or head+1.
func oldestOf(ctx context.Context, db *batchlog.DB, head batchlog.ID) (batchlog.ID, error) {
	if head == 0 {
		return 1, nil // a tail until 0 has no end
	}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{From: batchlog.Oldest(), Until: head, Brief: true}) {
		if err != nil {
			return 0, err
		}
		return c.ID, nil
	}
	return head + 1, nil
}

// stretch is what the commits from low to high did to the key, if it fits; a single one always does.
func (h *history) stretch(low, high batchlog.ID) (list []version, fits bool, err error) {
	size := 0
	for c, err := range h.db.Tail(h.ctx, batchlog.TailOptions{From: batchlog.At(low), Until: high, Spaces: []*batchlog.Space{h.space}, Brief: true}) {
		if err != nil {
			return nil, false, err
		}
		v, ok, err := h.of(c)
		if err != nil {
			return nil, false, fmt.Errorf("commit %d: %w", c.ID, err)
		}
		if !ok {
			continue
		}
		list = append(list, v)
		if size += len(v.stored.value) + 64; size > historyBytes && low < high {
			return nil, false, nil
		}
	}
	return list, true, nil
}

// of is what a commit did to the key; ok: it did something.
func (h *history) of(c *batchlog.Commit) (v version, ok bool, err error) {
	if c.Chained() && !slices.ContainsFunc(c.Spans(), func(r batchlog.KeyRange) bool { return covers(batchlog.OpDeleteRange, r.Low, r.High, h.key) }) {
		return version{}, false, nil // without reading it
	}
	err = c.EachStored(func(kind batchlog.OpKind, key, value []byte) error {
		if covers(kind, key, value, h.key) {
			ok, v.stored = true, stored{value, kind == batchlog.OpPut}
		}
		return ended(h.ctx)
	})
	if !ok || err != nil {
		return version{}, false, err
	}
	if v.stored = v.stored.clone(); !v.stored.has {
		v.stored.value = nil
	}
	v.id, v.time, v.labels = c.ID, c.Time, maps.Clone(c.Labels)
	return v, true, nil
}

// push takes the next older version and yields the one before, if it is another value.
func (h *history) push(v version) error {
	if h.next != nil && !h.next.stored.equal(v.stored) {
		if err := h.give(h.next); err != nil {
			return err
		}
	}
	h.next = &v
	return nil
}

func (h *history) give(v *version) error {
	value, err := v.stored.decode()
	if err != nil {
		return fmt.Errorf("commit %d: %w", v.id, err)
	}
	if !h.yield(&Version{ID: v.id, Time: v.time, Labels: v.labels, Value: value}, nil) {
		return errEnough
	}
	return nil
}

// end yields the oldest version and what was there before. has is what the key has now.
func (h *history) end(has stored) error {
	before, known := stored{}, h.oldest <= 1
	switch {
	case h.next == nil && !known:
		before, known = has, true // nothing in the log is about it
	case h.next != nil && !known:
		var err error
		if before, known, err = h.before(h.next); err != nil {
			return err
		}
	}
	if h.next != nil && !(known && before.equal(h.next.stored)) {
		if err := h.give(h.next); err != nil {
			return err
		}
	}
	if known && before.has {
		return h.give(&version{stored: before})
	}
	return nil
}

// before is what the key had before a version, as the inverse of its commit says.
func (h *history) before(v *version) (_ stored, known bool, err error) {
	in, err := h.db.Inverse(h.ctx, v.id)
	if errors.Is(err, batchlog.ErrNoInverse) {
		return stored{}, false, nil
	}
	if err != nil {
		return stored{}, false, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r := inverse{ctx: h.ctx, in: in}
	for {
		key, old, err := r.next()
		switch {
		case err == nil && string(key) < string(h.key):
			continue
		case err == nil && string(key) == string(h.key):
			return old.clone(), true, nil
		case err == nil || errors.Is(err, io.EOF):
			return v.stored, true, nil // the commit did not change it
		default:
			return stored{}, false, err
		}
	}
}
