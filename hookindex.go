package batchlog

import (
	"bytes"
	"slices"

	"github.com/bytespace/batchlog/internal/wire"
)

// A hookIndex finds the hooks that a key is about: the places that have some are in order, and each knows the place around it. It is not changed once it is made.
type hookIndex struct {
	places []*hookPlace // by open path
}

// A hookPlace is a space with hooks.
type hookPlace struct {
	open   []byte // the path that all keys of its subtree begin with
	hooks  []*boundHook
	around *hookPlace // the innermost one that this one is within; nil: there is none
}

// newHookIndex is nil if there are no hooks.
func newHookIndex(hooks []*boundHook) *hookIndex {
	if len(hooks) == 0 {
		return nil
	}
	byPath := map[string]*hookPlace{}
	x := &hookIndex{}
	for _, b := range hooks {
		path := wire.Open(b.space.prefix)
		p := byPath[string(path)]
		if p == nil {
			p = &hookPlace{open: path}
			byPath[string(path)] = p
			x.places = append(x.places, p)
		}
		p.hooks = append(p.hooks, b)
	}
	slices.SortFunc(x.places, func(a, b *hookPlace) int { return bytes.Compare(a.open, b.open) })
	for i, p := range x.places {
		if i > 0 { // all that p is within is the place before, or around that
			p.around = x.places[i-1].holding(p.open)
		}
	}
	return x
}

// holding is p, or the innermost place around it, that key is in; nil: none is.
func (p *hookPlace) holding(key []byte) *hookPlace {
	for p != nil && !bytes.HasPrefix(key, p.open) {
		p = p.around
	}
	return p
}

// hooks is all hooks there are, in a slice of its own.
func (x *hookIndex) hooks() (all []*boundHook) {
	if x == nil {
		return nil
	}
	for _, p := range x.places {
		all = append(all, p.hooks...)
	}
	slices.SortFunc(all, func(a, b *boundHook) int { return a.order - b.order })
	return all
}

// find is the innermost place that a key is in; nil: there is none. It takes log n, and no more for hooks of other spaces.
func (x *hookIndex) find(key []byte) *hookPlace {
	p, _ := x.search(key)
	return p
}

// search is find, and says how many places it has looked at.
func (x *hookIndex) search(key []byte) (found *hookPlace, looked int) {
	if x == nil {
		return nil, 0 // the last hook was removed while a commit was on its way to it
	}
	low, high := 0, len(x.places)
	for low < high {
		looked++
		if mid := int(uint(low+high) >> 1); bytes.Compare(x.places[mid].open, key) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 {
		return nil, looked
	}
	// Any place whose path the key begins with is the last one that is not above the key, or around it.
	return x.places[low-1].holding(key), looked
}

// whole is a hook of p, or of a place around it, that needs all ops of a commit at once; nil: there is none.
func (p *hookPlace) whole() *boundHook {
	for ; p != nil; p = p.around {
		for _, b := range p.hooks {
			if !b.streamed {
				return b
			}
		}
	}
	return nil
}

// A hookRound is the ops of one round by the hooks that they are for.
type hookRound struct {
	hooks []*boundHook         // outer spaces first, those of one in the order in which they were bound
	ops   map[*boundHook][]int // of each, which ops it is about
}

// round is the hooks that ops from first on and before end are for.
func (x *hookIndex) round(ops []hookOp, first, end int) hookRound {
	r := hookRound{ops: map[*boundHook][]int{}}
	for i := first; i < end; i++ {
		for p := x.find(ops[i].key); p != nil; p = p.around {
			for _, b := range p.hooks {
				if _, known := r.ops[b]; !known {
					r.hooks = append(r.hooks, b)
				}
				r.ops[b] = append(r.ops[b], i)
			}
		}
	}
	slices.SortFunc(r.hooks, func(a, b *boundHook) int {
		if da, db := pathDepth(a.space.prefix), pathDepth(b.space.prefix); da != db {
			return da - db
		}
		return a.order - b.order
	})
	return r
}
