package taskstate

import (
	"bytes"
	"iter"
	"slices"
)

// Paths finds which of many spaces have something in common with one. It is built once and read by any number of goroutines.
type Paths[T any] struct {
	sorted  []pathOf[T]
	lengths []int // of the paths, each once, ascending
}

type pathOf[T any] struct {
	open []byte
	of   T
}

// Add adds an open path, before Build.
func (p *Paths[T]) Add(open []byte, of T) { p.sorted = append(p.sorted, pathOf[T]{open, of}) }

// Build ends the adding.
func (p *Paths[T]) Build() {
	slices.SortStableFunc(p.sorted, func(a, b pathOf[T]) int { return bytes.Compare(a.open, b.open) })
	for _, path := range p.sorted {
		p.lengths = append(p.lengths, len(path.open))
	}
	slices.Sort(p.lengths)
	p.lengths = slices.Compact(p.lengths)
}

// Len is the number of paths.
func (p *Paths[T]) Len() int { return len(p.sorted) }

// All yields all that was added, with its path, in the order of paths.
func (p *Paths[T]) All() iter.Seq2[[]byte, T] {
	return func(yield func([]byte, T) bool) {
		for _, path := range p.sorted {
			if !yield(path.open, path.of) {
				return
			}
		}
	}
}

// from is the index of the first path that is not below open.
func (p *Paths[T]) from(open []byte) int {
	at, _ := slices.BinarySearchFunc(p.sorted, open, func(path pathOf[T], open []byte) int { return bytes.Compare(path.open, open) })
	return at
}

// Around yields what was added with the spaces that a stored key, or an open path, is in, the outermost first.
func (p *Paths[T]) Around(key []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, n := range p.lengths {
			if n > len(key) {
				return
			}
			for at := p.from(key[:n]); at < len(p.sorted) && bytes.Equal(p.sorted[at].open, key[:n]); at++ {
				if !yield(p.sorted[at].of) {
					return
				}
			}
		}
	}
}

// Overlapping yields what was added with spaces that have one in common with the open path, see [Overlap].
func (p *Paths[T]) Overlapping(open []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		at := p.from(open)
		for of := range p.Around(open) {
			if !yield(of) {
				return
			}
		}
		for ; at < len(p.sorted) && bytes.HasPrefix(p.sorted[at].open, open); at++ {
			if len(p.sorted[at].open) > len(open) && !yield(p.sorted[at].of) {
				return
			}
		}
	}
}
