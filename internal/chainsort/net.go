package chainsort

import (
	"bytes"
	"context"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// A NetKind says what the ops of a chain come to at a key.
type NetKind uint8

// The kinds of net effects.
const (
	NetNone        NetKind = iota // all ops on the key were taken back
	NetPut                        // sets the key's value
	NetDelete                     // removes the key
	NetDeleteRange                // removes the keys from Key on and below Value
)

// A Net is what is left of the ops on a key, or of the delete ranges around some keys.
type Net struct {
	Kind  NetKind
	Key   []byte // stored key; of a delete range: the lowest
	Value []byte // of a put; of a delete range: the upper bound
}

// Net calls visit with the net effect of all that was added, in the order of keys, and with the delete range first where one begins at a
// key: applied in that order they do what the ops do. What a Net has is valid during the call. Nothing is yielded for a key whose ops
// the delete ranges make up for.
//
// Delete ranges are joined where they overlap or touch, so they are disjoint. Only keys from low on and below high are yielded, and ranges
// are cut to that; nil: no bound.
//
// Net may write to disk. It may be called again, and so may Add. An error of visit ends it and is returned as it is.
// A *batchlog.CorruptError says that a run is damaged, a *batchlog.LimitError that too many delete ranges overlap in ways that matter.
func (s *Sorter) Net(ctx context.Context, low, high []byte, visit func(op Net) error) error {
	if s.closed {
		return batchlog.ErrClosed
	}
	if high != nil && bytes.Compare(low, high) >= 0 {
		return nil
	}
	if len(s.points.runs)+len(s.ranges.runs) > 0 {
		// What is in memory goes to disk as well, to make room for reading.
		if len(s.slab.pages) > 0 {
			if err := s.spill(); err != nil {
				return err
			}
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	w := sweep{s: s, visit: visit, low: low, high: high, far: farReader{s: s},
		deletes: newCover(s.active), retracts: newCover(s.active)}
	defer w.close()
	if err := w.open(); err != nil {
		return err
	}
	return w.run(ctx)
}

// cursor yields the items of a lane.
func (s *Sorter) cursor(l *lane, low []byte) (cursor, error) {
	if len(l.runs) == 0 {
		return s.newMemoryCursor(l, low), nil
	}
	m, err := s.newMerger(l, l.runs, low)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// A sweep goes through the keys in order with three cursors: one over the items on single keys, one over the ranges, which keeps up with
// it, and one over the ranges again, in union, which is ahead, as the end of a net delete range must be known at its beginning.
type sweep struct {
	s         *Sorter
	visit     func(Net) error
	low, high []byte

	points cursor
	ranges cursor
	first  *item // the next range; nil: none is left
	union  union

	deletes  *cover // the delete ranges around the key
	retracts *cover // the retractRanges around it, a group for each seq
	end      []byte // of the last net delete range that was yielded

	// What is known of the key that the sweep is at.
	key     []byte // a copy
	found   bool   // there is, or was, a put or delete
	decided bool   // the highest that is not taken back has been seen
	gone    bool   // the lower ones of goneSeq are taken back
	goneSeq uint64

	far   farReader
	value []byte // a long value
}

func (w *sweep) open() (err error) {
	if w.points, err = w.s.cursor(&w.s.points, w.low); err != nil {
		return err
	}
	if w.ranges, err = w.s.cursor(&w.s.ranges, nil); err != nil {
		return err
	}
	if w.first, err = w.ranges.next(); err != nil {
		return err
	}
	w.union.low, w.union.high = w.low, w.high
	if w.union.cursor, err = w.s.cursor(&w.s.ranges, nil); err != nil {
		return err
	}
	return w.union.advance()
}

func (w *sweep) close() {
	for _, c := range []cursor{w.points, w.ranges, w.union.cursor} {
		if c != nil {
			c.close()
		}
	}
	w.far.close()
}

func (w *sweep) run(ctx context.Context) error {
	for i := 0; ; i++ {
		if err := pause(ctx, i); err != nil {
			return err
		}
		it, err := w.points.next()
		if err != nil {
			return err
		}
		if it == nil || w.high != nil && bytes.Compare(it.key, w.high) >= 0 {
			break
		}
		if i == 0 || !bytes.Equal(it.key, w.key) {
			if err := w.leave(); err != nil {
				return err
			}
			w.key = append(w.key[:0], it.key...)
			w.found, w.decided, w.gone = false, false, false
			if err := w.moveTo(ctx, it.key); err != nil {
				return err
			}
		}
		if w.decided {
			continue
		}
		if err := w.look(it); err != nil {
			return err
		}
	}
	if err := w.leave(); err != nil {
		return err
	}
	return w.yieldRanges(ctx, nil)
}

// look takes in the next lower item on the key.
func (w *sweep) look(it *item) error {
	if !it.kind.isPoint() {
		w.gone, w.goneSeq = true, it.seq
		w.found = w.found || it.kind == retracted
		return nil
	}
	w.found = true
	if w.gone && w.goneSeq == it.seq {
		return nil
	}
	if r, ok := w.retracts.top(it.seq, it.key); ok && r.age > it.age {
		return nil
	}
	w.decided = true
	covered := w.covered()
	if it.kind == del {
		if covered {
			return nil
		}
		return w.visit(Net{Kind: NetDelete, Key: it.key})
	}
	if covered {
		r, ok := w.deletes.top(0, it.key)
		if ok && r.compareOrder(&span{seq: it.seq, age: it.age}) > 0 {
			return nil
		}
	}
	value := it.value
	if it.kind == farPut {
		var err error
		if w.value, err = w.far.read(it, w.value); err != nil {
			return err
		}
		value = w.value
	}
	return w.visit(Net{Kind: NetPut, Key: it.key, Value: value})
}

// leave yields what is known of a key only when all its items have been seen.
func (w *sweep) leave() error {
	if !w.found || w.decided || w.covered() {
		return nil
	}
	return w.visit(Net{Kind: NetNone, Key: w.key})
}

// covered reports whether any delete range covers the key.
func (w *sweep) covered() bool { return w.end != nil && bytes.Compare(w.key, w.end) < 0 }

// moveTo takes in the ranges that begin at key or before, and yields the net ones.
func (w *sweep) moveTo(ctx context.Context, key []byte) error {
	for i := 1; w.first != nil && bytes.Compare(w.first.key, key) <= 0; i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		it := w.first
		if len(it.value) == 0 || bytes.Compare(it.value, w.low) > 0 {
			c, group := w.deletes, uint64(0)
			if it.kind == retractRange {
				c, group = w.retracts, it.seq
			}
			if err := c.add(group, span{seq: it.seq, age: it.age, high: it.value}, it.key); err != nil {
				return err
			}
		}
		var err error
		if w.first, err = w.ranges.next(); err != nil {
			return err
		}
	}
	return w.yieldRanges(ctx, key)
}

// yieldRanges yields the net delete ranges that begin at key or before; nil: all that are left.
func (w *sweep) yieldRanges(ctx context.Context, key []byte) error {
	for i := 1; w.union.ok && (key == nil || bytes.Compare(w.union.first, key) <= 0); i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.end = append(w.end[:0], w.union.end...)
		if err := w.visit(Net{Kind: NetDeleteRange, Key: w.union.first, Value: w.union.end}); err != nil {
			return err
		}
		if err := w.union.advance(); err != nil {
			return err
		}
	}
	return nil
}

// A union joins the delete ranges of a cursor.
type union struct {
	cursor
	low, high []byte // what it is cut to
	first     []byte // the joined range is from first on and below end; copies
	end       []byte
	ok        bool  // there is one
	ahead     *item // a range that was read and is not in it
}

// advance goes to the next joined range.
func (u *union) advance() error {
	u.ok = false
	var path []byte
	for {
		it, err := u.take()
		if err != nil {
			return err
		}
		if it == nil {
			break
		}
		if !u.ok {
			u.ok = true
			u.first, u.end = append(u.first[:0], it.key...), append(u.end[:0], it.value...)
			if path, _, err = wire.SplitKey(u.first); err != nil {
				return err
			}
			continue
		}
		// A closed path is the start of no other: with path in front, a key is one of that space.
		if !bytes.HasPrefix(it.key, path) || bytes.Compare(it.key, u.end) > 0 {
			u.ahead = it
			break
		}
		if bytes.Compare(it.value, u.end) > 0 {
			u.end = append(u.end[:0], it.value...)
		}
	}
	if u.ok && bytes.Compare(u.first, u.low) < 0 {
		u.first = append(u.first[:0], u.low...)
	}
	if u.ok && u.high != nil && bytes.Compare(u.end, u.high) > 0 {
		u.end = append(u.end[:0], u.high...)
	}
	return nil
}

// take reads the next delete range within the bounds.
func (u *union) take() (*item, error) {
	if it := u.ahead; it != nil {
		u.ahead = nil
		return it, nil
	}
	for {
		it, err := u.next()
		switch {
		case err != nil || it == nil:
			return nil, err
		case u.high != nil && bytes.Compare(it.key, u.high) >= 0:
			return nil, nil
		case it.kind == delRange && bytes.Compare(it.value, u.low) > 0:
			return it, nil
		}
	}
}
