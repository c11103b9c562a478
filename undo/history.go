package undo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/bytespace/batchlog"
)

// A Version is a value that a key has had.
type Version struct {
	ID     batchlog.ID       // of the commit that set it; 0: of one before those in the log
	Before batchlog.ID       // if ID is 0: the oldest commit in the log that overwrote it; 0: none has, the key has it still
	Time   time.Time         // of that commit; zero if ID is 0
	Labels map[string]string // of that commit
	Value  Value             // Exists is false where the key was deleted
}

// History yields the values that a key has had, the newest first, as far back as the log goes, and, if it is known what the oldest commit in the log that wrote the key has overwritten, one further. A
// range delete counts where there was something to delete. Of a key that no commit in the log has written it yields what the key has. It reads the log from its end, in windows that grow, only blocks with commits in the space; the rest is not read
// when the iteration is broken off. Values of up to 16 MiB, or two, are in memory at once.
func History(ctx context.Context, db *batchlog.DB, s *batchlog.Space, key batchlog.Key) iter.Seq2[*Version, error] {
	return func(yield func(*Version, error) bool) {
		if err := db.Inside().Owns(s); err != nil {
			yield(nil, fmt.Errorf("history: %w", err))
			return
		}
		h := &history{ctx: ctx, db: db, space: s, key: append(bytes.Clone(s.Stored()), key...), yield: yield}
		if err := h.run(); err != nil && !errors.Is(err, errEnough) {
			yield(nil, fmt.Errorf("history of %s in %s: %w", key, s, err))
		}
	}
}

type history struct {
	ctx   context.Context //nolint:containedctx // of one iteration
	db    *batchlog.DB
	space *batchlog.Space
	key   []byte // stored
	yield func(*Version, error) bool

	swept *Version // a range delete around the key, of which it is not known yet whether there was a value
	last  *Version // the oldest one so far
}

const (
	firstWindow = 256     // commits
	lastWindow  = 1 << 16 // and at most
)

// windowBytes bounds the values in a window: one with more, and more than one version, is made smaller. Tests have less.
var windowBytes = 16 << 20

// errWindow says that a window is too large.
var errWindow = errors.New("window too large")

func (h *history) run() error {
	high, err := h.db.Head(h.ctx)
	if err != nil {
		return err
	}
	for window := batchlog.ID(firstWindow); high > 0; {
		low := batchlog.ID(0)
		if high > window {
			low = high - window
		}
		gone, err := h.window(low, high)
		if errors.Is(err, errWindow) {
			window = (high - low) / 2
			continue
		}
		if err != nil {
			return err
		}
		if gone {
			break
		}
		high, window = low, min(2*window, lastWindow)
	}
	return h.oldest()
}

// window yields the versions from behind low up to high; gone says that the log begins within.
func (h *history) window(low, high batchlog.ID) (gone bool, err error) {
	from := batchlog.After(low)
	var versions []*Version
	for {
		var gap *batchlog.GapError
		err := h.read(from, high, &versions)
		if errors.As(err, &gap) {
			if gone, from = true, batchlog.At(gap.Oldest); gap.Oldest > high {
				return true, nil
			}
			versions = nil
			continue
		}
		if err != nil {
			return false, err
		}
		break
	}
	for i := len(versions) - 1; i >= 0; i-- {
		if err := h.found(versions[i]); err != nil {
			return false, err
		}
	}
	return gone, nil
}

// read collects the versions in a stretch of the log, the oldest first.
func (h *history) read(from batchlog.Position, until batchlog.ID, versions *[]*Version) error {
	size := 0
	for c, err := range h.db.Tail(h.ctx, batchlog.TailOptions{From: from, Until: until, Spaces: []*batchlog.Space{h.space}, Brief: true}) {
		if err != nil {
			return err
		}
		var value []byte
		wrote, swept := false, false
		err := c.Inside().EachOp(func(kind batchlog.OpKind, key, v []byte) error {
			switch {
			case kind == batchlog.OpDeleteRange:
				if bytes.Compare(key, h.key) <= 0 && bytes.Compare(h.key, v) < 0 {
					wrote, swept, value = true, true, nil
				}
			case !bytes.Equal(key, h.key):
			case kind == batchlog.OpPut:
				wrote, swept, value = true, false, present(v)
			default:
				wrote, swept, value = true, false, nil
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !wrote {
			continue
		}
		v := &Version{ID: c.ID, Time: c.Time, Labels: maps.Clone(c.Labels)}
		if v.Value, err = valueOf(value); err != nil {
			return err
		}
		if swept {
			v.Before = c.ID // until it is known whether it counts
		}
		*versions = append(*versions, v)
		if size += len(value); size > windowBytes && len(*versions) > 1 {
			return errWindow
		}
	}
	return nil
}

// found takes the next older version.
func (h *history) found(v *Version) error {
	swept := v.ID != 0 && v.Before != 0
	v.Before = 0
	if h.swept != nil && v.Value.Exists {
		if !h.yield(h.swept, nil) {
			return errEnough
		}
	}
	if h.swept = nil; swept {
		h.swept = v
	} else if !h.yield(v, nil) {
		return errEnough
	}
	h.last = v
	return nil
}

// oldest yields the value that the key had before the oldest commit in the log that wrote it.
func (h *history) oldest() error {
	if h.last == nil {
		return h.unwritten()
	}
	id := h.last.ID
	var value []byte
	err := eachInverse(h.ctx, h.db, id, func(key, old []byte) error {
		if !bytes.Equal(key, h.key) {
			return nil
		}
		value = old
		return errEnough
	})
	if errors.Is(err, batchlog.ErrNoInverse) || errors.Is(err, batchlog.ErrUnsupported) {
		return nil
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if value == nil {
		return nil
	}
	v := &Version{}
	if v.Value, err = valueOf(value); err != nil {
		return err
	}
	if h.swept != nil && !h.yield(h.swept, nil) {
		return errEnough
	}
	if v.Before = id; !h.yield(v, nil) {
		return errEnough
	}
	return nil
}

// unwritten yields the value of a key that no commit in the log has written.
func (h *history) unwritten() (err error) {
	view, err := h.db.Inside().Engine().View(h.ctx, batchlog.ReadOptions{Plain: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	value, err := view.Get(h.ctx, h.key)
	if errors.Is(err, batchlog.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	v := &Version{}
	if v.Value, err = valueOf(present(value)); err != nil {
		return err
	}
	if !h.yield(v, nil) {
		return errEnough
	}
	return nil
}
