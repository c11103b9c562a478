package batchlog

import (
	"bytes"
	"errors"
	"io"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// An overlay is what a transaction has written so far, as its reads see it: the last write of each key, and which ranges were deleted before those. All of
// it is in order, so that a read, a write and a range delete take log n each, and what a scan sees can be kept while more is written.
type overlay struct {
	keys   ordered // writes; those in a deleted range came after it
	ranges ordered // deleted: from the key on and below the value; nothing between two of them is deleted
}

// apply takes over an op on stored keys. They are kept.
func (o *overlay) apply(kind OpKind, key, value []byte) {
	switch kind {
	case OpPut:
		o.put(key, value, false)
	case OpDelete:
		o.put(key, nil, true)
	case OpDeleteRange:
		o.deleteRange(key, value)
	}
}

// applyAll takes over well-formed ops.
func (o *overlay) applyAll(ops []byte) {
	for len(ops) > 0 {
		kind, key, value, rest, err := wire.NextOp(ops)
		if err != nil {
			panic("batchlog: bug: malformed op of a transaction: " + err.Error())
		}
		o.apply(kind, key, value)
		ops = rest
	}
}

func (o *overlay) put(key, value []byte, deleted bool) { o.keys.set(key, value, deleted) }

func (o *overlay) deleteRange(low, high []byte) {
	if bytes.Compare(low, high) >= 0 {
		return
	}
	o.keys.cut(low, high)
	o.cover(low, high)
}

// under takes over an op that comes before all that o has.
func (o *overlay) under(kind OpKind, key, value []byte) {
	if kind == OpDeleteRange {
		if bytes.Compare(key, value) < 0 {
			o.cover(key, value)
		}
		return
	}
	if _, _, ok := o.get(key); !ok {
		o.put(key, value, kind == OpDelete)
	}
}

// cover makes a range deleted, before the writes that are in it.
func (o *overlay) cover(low, high []byte) {
	if n := o.ranges.floor(low, true); n != nil && bytes.Compare(n.value, low) >= 0 {
		low = n.key
		if bytes.Compare(n.value, high) > 0 {
			high = n.value
		}
	}
	if n := o.ranges.floor(high, true); n != nil && bytes.Compare(n.value, high) > 0 {
		high = n.value
	}
	o.ranges.cut(low, append(bytes.Clone(high), 0)) // one that begins at high has its end there by now
	o.ranges.set(low, high, false)
}

func (o *overlay) get(key []byte) (value []byte, deleted, ok bool) {
	if n := o.keys.floor(key, true); n != nil && bytes.Equal(n.key, key) {
		return n.value, n.deleted, true
	}
	return nil, true, o.covered(key)
}

// covered reports whether key was in a range that was deleted.
func (o *overlay) covered(key []byte) bool {
	n := o.ranges.floor(key, true)
	return n != nil && bytes.Compare(key, n.value) < 0
}

// fork is an overlay that is as o is now, and goes its own way.
func (o *overlay) fork() overlay {
	return overlay{keys: o.keys.snapshot(), ranges: o.ranges.snapshot()}
}

// view is o between low and high as it is now, in the order of a scan.
func (o *overlay) view(low, high []byte, reverse bool) ownView {
	v := ownView{overlay: o.fork(), low: low, high: high, reverse: reverse}
	if reverse {
		v.next = v.keys.floor(high, false)
	} else {
		v.next = v.keys.ceiling(low, true)
	}
	v.check()
	return v
}

// An ownView is an overlay on the way of a scan.
type ownView struct {
	overlay
	low, high []byte
	reverse   bool
	next      *orderedNode // the write that comes next; nil: none does
}

// advance goes to the write after next.
func (v *ownView) advance() {
	if v.reverse {
		v.next = v.keys.floor(v.next.key, false)
	} else {
		v.next = v.keys.ceiling(v.next.key, false)
	}
	v.check()
}

// check drops a next that is out of the scan's bounds.
func (v *ownView) check() {
	if n := v.next; n != nil && (bytes.Compare(n.key, v.low) < 0 || bytes.Compare(n.key, v.high) >= 0) {
		v.next = nil
	}
}

// A merge is a cursor with own writes on top of it.
type merge struct {
	cursor waist.Cursor
	own    ownView

	key, value []byte // the cursor's, when held
	held, done bool
}

func (m *merge) next() (key, value []byte, err error) {
	for {
		if !m.held && !m.done {
			m.key, m.value, err = m.cursor.Next()
			switch {
			case errors.Is(err, io.EOF):
				m.done = true
			case err != nil:
				return nil, nil, err
			default:
				m.held = true
			}
		}
		own := m.own.next
		if own == nil && m.done {
			return nil, nil, io.EOF
		}
		order := m.order()
		if order >= 0 { // an own write comes next, in place of the cursor's key if they are equal
			m.own.advance()
			if order == 0 {
				m.held = false
			}
			if !own.deleted {
				return own.key, own.value, nil
			}
			continue
		}
		m.held = false
		if !m.own.covered(m.key) {
			return m.key, m.value, nil
		}
	}
}

// order is negative if the cursor's key comes next, positive if an own write does, 0 if they are the same key.
func (m *merge) order() int {
	switch {
	case !m.held:
		return 1
	case m.own.next == nil:
		return -1
	}
	c := bytes.Compare(m.key, m.own.next.key)
	if m.own.reverse {
		c = -c
	}
	return c
}

// An ordered is writes by key: a treap, a search tree by key that is a heap by random ranks, so that it is about as deep as a balanced one is whatever the
// order of the writes (Seidel and Aragon, 1996). A snapshot of it costs nothing, and the nodes that it shares are copied before they
// are changed.
type ordered struct {
	root  *orderedNode
	ranks uint64 // state of the generator
	age   uint64 // snapshots that were made: nodes that are younger than the last one are changed in place
	steps int    // nodes that were visited
}

type orderedNode struct {
	key, value  []byte
	deleted     bool
	rank        uint32
	age         uint64
	left, right *orderedNode
}

// snapshot is o as it is now. Both may be changed: nodes that both have are older than either.
func (o *ordered) snapshot() ordered {
	if o.root == nil {
		return ordered{}
	}
	o.age++
	return ordered{root: o.root, age: o.age, ranks: o.ranks}
}

// own is n, or a copy of it that may be changed.
func (o *ordered) own(n *orderedNode) *orderedNode {
	o.steps++
	if n.age == o.age {
		return n
	}
	c := *n
	c.age = o.age
	return &c
}

// rank is a random number: xorshift, always the same ones.
func (o *ordered) rank() uint32 {
	if o.ranks == 0 {
		o.ranks = 0x9e3779b97f4a7c15
	}
	o.ranks ^= o.ranks << 13
	o.ranks ^= o.ranks >> 7
	o.ranks ^= o.ranks << 17
	return uint32(o.ranks >> 32)
}

// set sets what is known of key.
func (o *ordered) set(key, value []byte, deleted bool) {
	if o.replace(key, value, deleted) {
		return
	}
	o.root = o.insert(o.root, &orderedNode{key: key, value: value, deleted: deleted, rank: o.rank(), age: o.age})
}

// replace sets what is known of key, if it is there.
func (o *ordered) replace(key, value []byte, deleted bool) bool {
	if n := o.floor(key, true); n == nil || !bytes.Equal(n.key, key) {
		return false
	}
	at := &o.root
	for {
		n := o.own(*at)
		*at = n
		switch c := bytes.Compare(key, n.key); {
		case c < 0:
			at = &n.left
		case c > 0:
			at = &n.right
		default:
			n.value, n.deleted = value, deleted
			return true
		}
	}
}

// insert is tree t with n, whose key is not there.
func (o *ordered) insert(t, n *orderedNode) *orderedNode {
	if t == nil {
		return n
	}
	if n.rank > t.rank {
		n.left, n.right = o.split(t, n.key)
		return n
	}
	t = o.own(t)
	if bytes.Compare(n.key, t.key) < 0 {
		t.left = o.insert(t.left, n)
	} else {
		t.right = o.insert(t.right, n)
	}
	return t
}

// split is what of t is below key, and what is not.
func (o *ordered) split(t *orderedNode, key []byte) (below, rest *orderedNode) {
	if t == nil {
		return nil, nil
	}
	t = o.own(t)
	if bytes.Compare(t.key, key) < 0 {
		t.right, rest = o.split(t.right, key)
		return t, rest
	}
	below, t.left = o.split(t.left, key)
	return below, t
}

// join is two trees as one; all keys of the first are below those of the second.
func (o *ordered) join(a, b *orderedNode) *orderedNode {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.rank > b.rank:
		a = o.own(a)
		a.right = o.join(a.right, b)
		return a
	default:
		b = o.own(b)
		b.left = o.join(a, b.left)
		return b
	}
}

// cut forgets the keys from low on and below high.
func (o *ordered) cut(low, high []byte) {
	if n := o.ceiling(low, true); n == nil || bytes.Compare(n.key, high) >= 0 {
		return // without a copy
	}
	below, rest := o.split(o.root, low)
	_, above := o.split(rest, high)
	o.root = o.join(below, above)
}

// floor is the last key below key, or, where equal is set, key itself. It is nil if there is none.
func (o *ordered) floor(key []byte, equal bool) (found *orderedNode) {
	for n := o.root; n != nil; {
		o.steps++
		c := bytes.Compare(n.key, key)
		if c == 0 && equal {
			return n
		}
		if c < 0 {
			found, n = n, n.right
		} else {
			n = n.left
		}
	}
	return found
}

// ceiling is the first key above key, or, where equal is set, key itself. It is nil if there is none.
func (o *ordered) ceiling(key []byte, equal bool) (found *orderedNode) {
	for n := o.root; n != nil; {
		o.steps++
		c := bytes.Compare(n.key, key)
		if c == 0 && equal {
			return n
		}
		if c > 0 {
			found, n = n, n.left
		} else {
			n = n.right
		}
	}
	return found
}
