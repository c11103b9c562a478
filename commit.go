package batchlog

import (
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog/internal/wire"
)

// A Commit is a batch in the log: fixed, durable, numbered. It is safe to keep, and to read from several goroutines.
type Commit struct {
	ID     ID
	Time   time.Time         // of the commit, to the microsecond; never before that of an earlier id
	Labels map[string]string // nil when there are none
	Hooks  []*Space          // whose pre-commit hooks the commit passed
	Task   *TaskMove         // of the window of a task; nil: the commit is none

	count    int
	ops      []byte
	chain    *wire.ChainRef // where more ops are, which come first; nil: there are none
	bookmark bool
	lens     *lens
}

// A lens is how the commits of one tail are looked at: which ops show.
type lens struct {
	db     *DB
	opens  [][]byte              // open paths of the spaces that show, as wire.SortedPrefixes has them; none: all
	recent atomic.Pointer[Space] // the space of the last op: the next one is mostly there as well
}

// Bookmark reports whether c stands for no commit but for a place: all commits up to c.ID that the tail is about have
// been yielded. Only a tail that asks for bookmarks yields them; they have no time and no ops.
func (c *Commit) Bookmark() bool { return c.bookmark }

// AsBookmark is the bookmark that stands for the place of c.
func (c *Commit) AsBookmark() *Commit { return &Commit{ID: c.ID, bookmark: true, lens: c.lens} }

// Ops yields the ops of c in order, only those in the spaces that its tail is about. Of a chain they are streamed: memory is bounded whatever its
// size. An error means that the commit is damaged, or written by a newer version; of a chain also that the log has dropped it meanwhile, a *[GapError].
func (c *Commit) Ops() iter.Seq2[Op, error] {
	return func(yield func(Op, error) bool) {
		inline := c.count
		if c.chain != nil {
			if !c.chainOps(yield) {
				return
			}
			inline -= c.chain.Count
		}
		rest := c.ops
		for range inline {
			kind, key, value, next, err := wire.NextOp(rest)
			if err != nil {
				yield(Op{}, fmt.Errorf("commit %d: %w", c.ID, err))
				return
			}
			rest = next
			if !c.lens.shows(key) {
				continue
			}
			op, err := c.lens.op(kind, key, value)
			if err != nil {
				yield(Op{}, fmt.Errorf("commit %d: %w", c.ID, err))
				return
			}
			if !yield(op, nil) {
				return
			}
		}
	}
}

// chainOps yields the ops in the file of a chain and reports whether to go on.
func (c *Commit) chainOps(yield func(Op, error) bool) bool {
	err := c.chain.EachOp(func(kind OpKind, key, value []byte) error {
		if !c.lens.shows(key) {
			return nil
		}
		op, err := c.lens.op(kind, key, value)
		if err != nil {
			return err
		}
		if !yield(op, nil) {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		yield(Op{}, fmt.Errorf("commit %d: %w", c.ID, err))
	}
	return err == nil
}

// errEnough ends an iteration that its consumer has broken off.
var errEnough = errors.New("enough")

// Chained reports whether the commit is a chain that is not small: its ops may be more than fit into memory and are read from a file each time
// that they are iterated over. They are sorted by key, in stretches, but for those of hooks and of the last round of a copy, which come last.
func (c *Commit) Chained() bool { return c.chain != nil }

// Len is the number of ops in the commit, those that do not show included.
func (c *Commit) Len() int { return c.count }

// Size is the number of bytes that the ops of the commit take, encoded, those that do not show included.
func (c *Commit) Size() int {
	size := len(c.ops)
	if c.chain != nil {
		size += int(c.chain.Bytes)
	}
	return size
}

// shows reports whether an op on this stored key shows. The system's own keys do only if they are asked for.
func (l *lens) shows(key []byte) bool {
	if len(l.opens) > 0 {
		return wire.HasSortedPrefix(key, l.opens)
	}
	return len(key) > 0 && key[0] == wire.RootPath[0]
}

func (l *lens) op(kind OpKind, key, value []byte) (Op, error) {
	s := l.recent.Load()
	if s == nil || len(key) < len(s.prefix) || string(key[:len(s.prefix)]) != string(s.prefix) {
		path, _, err := wire.SplitKey(key)
		if err != nil {
			return Op{}, err
		}
		if s, err = l.db.spaceOf(path); err != nil {
			return Op{}, err
		}
		l.recent.Store(s)
	}
	op := Op{Kind: kind, Space: s, Key: key[len(s.prefix):]}
	switch kind {
	case OpPut:
		var err error
		if op.Value, op.Blob, err = parseValue(value); err != nil {
			return Op{}, err
		}
	case OpDeleteRange:
		if !wire.InOwnKeys(s.prefix, value) {
			return Op{}, wire.ErrOpKey
		}
		if len(value) >= len(s.prefix) && value[len(s.prefix)-1] == 0 {
			op.High = value[len(s.prefix):]
		}
	}
	return op, nil
}

// read sets c to the commit that r holds.
func (c *Commit) read(r *wire.Record, l *lens) error {
	c.ID, c.Time = r.ID, time.UnixMicro(r.Time)
	c.count, c.ops, c.chain, c.lens = r.Count, r.Ops, r.Chain, l
	if len(r.Meta) == 0 {
		return nil
	}
	m, err := wire.DecodeMeta(r.Meta)
	if err != nil {
		return fmt.Errorf("commit %d: %w", r.ID, err)
	}
	c.Labels, c.Task = m.Labels, (*TaskMove)(m.Task)
	for _, path := range m.Hooks {
		s, err := l.db.spaceOf(path)
		if err != nil {
			return fmt.Errorf("commit %d: %w", r.ID, err)
		}
		c.Hooks = append(c.Hooks, s)
	}
	return nil
}
