package seglog

import (
	"iter"
	"slices"
	"sort"
)

// A list is an immutable list of items in the order of their keys. A change makes another list, which shares with this one all but the
// chunk that was touched and the spine of chunks: some kilobytes at a hundred thousand items. So who holds a list may read it for as
// long as it likes, whatever becomes of the table meanwhile. The zero value is empty.
type list[T keyed] struct {
	chunks [][]T // none is empty
	count  int
}

// keyed is what a list is ordered by. No two items of a list have the same key.
type keyed interface{ key() uint64 }

// chunkItems bounds a chunk. A change copies one chunk and the spine: they are about as long at 60,000 items.
const chunkItems = 256

func (l list[T]) len() int { return l.count }

// first is the item with the lowest key.
func (l list[T]) first() (item T, ok bool) {
	if l.count == 0 {
		return item, false
	}
	return l.chunks[0][0], true
}

// last is the item with the highest key.
func (l list[T]) last() (item T, ok bool) {
	if l.count == 0 {
		return item, false
	}
	chunk := l.chunks[len(l.chunks)-1]
	return chunk[len(chunk)-1], true
}

// place is where the last item is whose key is not above key; ok is false if there is none.
func (l list[T]) place(key uint64) (chunk, at int, ok bool) {
	chunk = sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i][0].key() > key }) - 1
	if chunk < 0 {
		return 0, 0, false
	}
	items := l.chunks[chunk]
	return chunk, sort.Search(len(items), func(i int) bool { return items[i].key() > key }) - 1, true
}

// find is the last item whose key is not above key.
func (l list[T]) find(key uint64) (item T, ok bool) {
	chunk, at, ok := l.place(key)
	if !ok {
		return item, false
	}
	return l.chunks[chunk][at], true
}

// get is the item with that key.
func (l list[T]) get(key uint64) (item T, ok bool) {
	item, ok = l.find(key)
	return item, ok && item.key() == key
}

// from yields the items whose keys are not below key.
func (l list[T]) from(key uint64) iter.Seq[T] {
	return func(yield func(T) bool) {
		chunk, at, ok := l.place(key)
		if ok && l.chunks[chunk][at].key() < key {
			at++
		}
		for ; chunk < len(l.chunks); chunk, at = chunk+1, 0 {
			for _, item := range l.chunks[chunk][at:] {
				if !yield(item) {
					return
				}
			}
		}
	}
}

func (l list[T]) all() iter.Seq[T] { return l.from(0) }

// backward yields the items from the highest key down.
func (l list[T]) backward() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, chunk := range slices.Backward(l.chunks) {
			for _, item := range slices.Backward(chunk) {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// with has the items added behind the last one. Their keys go up and are above its.
func (l list[T]) with(items ...T) list[T] {
	if len(items) == 0 {
		return l
	}
	chunks := slices.Clip(l.chunks)
	if n := len(chunks); n > 0 && len(chunks[n-1]) < chunkItems {
		room := min(len(items), chunkItems-len(chunks[n-1]))
		chunks = slices.Clone(chunks)
		chunks[n-1] = slices.Concat(chunks[n-1], items[:room])
		l.count += room
		items = items[room:]
	}
	for part := range slices.Chunk(items, chunkItems) {
		chunks = append(chunks, slices.Clone(part))
		l.count += len(part)
	}
	return list[T]{chunks, l.count}
}

// set has item in the place of the one with its key, which is there.
func (l list[T]) set(item T) list[T] {
	chunk, at, _ := l.place(item.key())
	items := slices.Clone(l.chunks[chunk])
	items[at] = item
	return l.setChunk(chunk, items)
}

// without lacks the items with keys from low up to high, which is included.
func (l list[T]) without(low, high uint64) list[T] {
	var kept [][]T
	count := 0
	for _, chunk := range l.chunks {
		switch {
		case chunk[len(chunk)-1].key() < low || chunk[0].key() > high:
		case chunk[0].key() >= low && chunk[len(chunk)-1].key() <= high:
			continue
		default:
			chunk = slices.DeleteFunc(slices.Clone(chunk), func(item T) bool { return item.key() >= low && item.key() <= high })
			if len(chunk) == 0 {
				continue
			}
		}
		kept = append(kept, chunk)
		count += len(chunk)
	}
	return list[T]{kept, count}
}

func (l list[T]) setChunk(i int, items []T) list[T] {
	chunks := slices.Clone(l.chunks)
	chunks[i] = items
	return list[T]{chunks, l.count}
}
