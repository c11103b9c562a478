package chainsort

import (
	"bytes"
	"cmp"
	"context"
	"runtime"
	"slices"
)

// A cursor yields items in the order of [item.compare], and nil after the last one. An item is valid until the next call.
type cursor interface {
	next() (*item, error)
	close()
}

// A merger is a cursor over runs: a tree of losers.
type merger struct {
	readers []*runReader
	losers  []int // losers[0] is the winner; the others lost in the match at that node
	depth   int   // keys have that many bytes in common
	started bool
}

// newMerger merges runs of a lane, from the first key on that is not below low.
func (s *Sorter) newMerger(l *lane, runs []*run, low []byte) (*merger, error) {
	m := &merger{depth: len(l.prefix), losers: make([]int, len(runs))}
	for _, r := range runs {
		reader, err := s.openRun(r, low)
		if err != nil {
			m.close()
			return nil, err
		}
		m.readers = append(m.readers, reader)
		for {
			if err := reader.next(m.depth); err != nil {
				m.close()
				return nil, err
			}
			if len(low) == 0 || reader.done || bytes.Compare(reader.item.key, low) >= 0 {
				break
			}
		}
	}
	return m, nil
}

func (m *merger) close() {
	for _, r := range m.readers {
		r.close()
	}
	m.readers = nil
}

// next implements cursor.
func (m *merger) next() (*item, error) {
	if len(m.readers) == 0 {
		return nil, nil
	}
	if !m.started {
		m.started = true
		m.losers[0] = m.build(1)
	} else {
		w := m.losers[0]
		if err := m.readers[w].next(m.depth); err != nil {
			return nil, err
		}
		for node := (w + len(m.readers)) / 2; node > 0; node /= 2 {
			if m.less(m.losers[node], w) {
				m.losers[node], w = w, m.losers[node]
			}
		}
		m.losers[0] = w
	}
	r := m.readers[m.losers[0]]
	if r.done {
		return nil, nil
	}
	return &r.item, nil
}

// build plays the matches below a node and returns the winner. Leaf i is node i+n of n readers.
func (m *merger) build(node int) int {
	n := len(m.readers)
	if node >= n {
		return node - n
	}
	a, b := m.build(2*node), m.build(2*node+1)
	if m.less(b, a) {
		a, b = b, a
	}
	m.losers[node] = b
	return a
}

// less reports whether the item of reader i comes before that of j. No key has the head of a reader that is done.
func (m *merger) less(i, j int) bool {
	a, b := m.readers[i], m.readers[j]
	if a.head != b.head {
		return a.head < b.head
	}
	if a.done || b.done {
		return false
	}
	return a.item.compare(&b.item) < 0
}

// fold writes what a cursor over single keys yields, but of the items on one key with one seq only the highest: it alone can count, and is
// taken back if any of them is. Those of lower seqs stay, as the ones above them may be taken back later.
func fold(ctx context.Context, c cursor, w *runWriter) error {
	var last, held item // the item before, and a retract that waits for what it takes back; their keys are copies
	holding := false
	for i := 0; ; i++ {
		if err := pause(ctx, i); err != nil {
			return err
		}
		it, err := c.next()
		if err != nil {
			return err
		}
		if it != nil && i > 0 && it.seq == last.seq && bytes.Equal(it.key, last.key) {
			if holding && (it.kind.isPoint() || it.kind == retracted) {
				held.kind = retracted
			}
			continue
		}
		if holding {
			if err := w.addEncoded(held.kind, last.key, held.encoded); err != nil {
				return err
			}
		}
		if it == nil {
			return nil
		}
		last.seq, last.key = it.seq, append(last.key[:0], it.key...)
		if holding = it.kind == retract; holding {
			held.kind, held.encoded = retract, append(held.encoded[:0], it.encoded...)
		} else if err := w.add(it); err != nil {
			return err
		}
	}
}

// checkEvery is after how many items a context is looked at.
const checkEvery = 4096

// yieldEvery is after how many items others are let run: some 100 µs. A commit whose sync has returned would wait for a processor until this goroutine
// waits itself, or is told to after 10 ms.
const yieldEvery = 256

// pause is what a loop over many items does at the i-th.
func pause(ctx context.Context, i int) error {
	if i%yieldEvery == 0 {
		runtime.Gosched()
	}
	if i%checkEvery == 0 && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// copyAll writes what a cursor yields.
func copyAll(ctx context.Context, c cursor, w *runWriter) error {
	for i := 0; ; i++ {
		if err := pause(ctx, i); err != nil {
			return err
		}
		it, err := c.next()
		if err != nil || it == nil {
			return err
		}
		if err := w.add(it); err != nil {
			return err
		}
	}
}

// writeRun writes what a cursor over a lane yields to a new run.
func (s *Sorter) writeRun(ctx context.Context, l *lane, c cursor) (*run, error) {
	w, err := s.newRun(l)
	if err != nil {
		return nil, err
	}
	if l == &s.points {
		err = fold(ctx, c, w)
	} else {
		err = copyAll(ctx, c, w)
	}
	if err != nil {
		w.giveUp()
		return nil, err
	}
	return w.finish()
}

// spill moves what is in memory to a run of each lane, and merges runs when there are many. If it fails, memory is as it was.
func (s *Sorter) spill() error {
	_ = s.sweepStale() // Close says whether they could be removed in the end
	var made [2]*run
	lanes := [2]*lane{&s.points, &s.ranges}
	for i, l := range lanes {
		if len(l.refs) == 0 {
			continue
		}
		r, err := s.writeRun(context.Background(), l, s.newMemoryCursor(l, nil))
		if err != nil {
			if i == 1 && made[0] != nil {
				s.drop(made[0])
			}
			return err
		}
		made[i] = r
	}
	for i, l := range lanes {
		if made[i] != nil {
			l.runs = append(l.runs, made[i])
		}
	}
	s.forget()
	for _, l := range lanes {
		if n := s.fanIn(l.runs); len(l.runs) >= 2*n { // fewer would make runs of little more size
			if err := s.mergeSmallest(context.Background(), l, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// minFanIn is how many runs are merged at least, as far as there are, whatever memory that takes: with fewer there would be no progress.
const minFanIn = 3

// fanIn is how many runs of a lane may be merged at once, the smallest first.
func (s *Sorter) fanIn(runs []*run) int {
	slices.SortStableFunc(runs, func(a, b *run) int { return cmp.Compare(a.size, b.size) })
	have := s.opts.MemoryBytes - s.fixedBytes()
	n := 0
	for n < len(runs) && have >= s.readBytes(runs[n]) {
		have -= s.readBytes(runs[n])
		n++
	}
	return max(n, minFanIn)
}

// readBytes is the memory that it takes to read a run.
func (s *Sorter) readBytes(r *run) int { return max(s.pageBytes, r.maxBlock) }

// mergeSmallest makes one run of the n smallest of a lane.
func (s *Sorter) mergeSmallest(ctx context.Context, l *lane, n int) error {
	slices.SortStableFunc(l.runs, func(a, b *run) int { return cmp.Compare(a.size, b.size) })
	n = min(n, len(l.runs))
	m, err := s.newMerger(l, l.runs[:n], nil)
	if err != nil {
		return err
	}
	merged, err := s.writeRun(ctx, l, m)
	m.close()
	if err != nil {
		return err
	}
	for _, r := range l.runs[:n] {
		s.drop(r)
	}
	l.runs = append(l.runs[:0], append([]*run{merged}, l.runs[n:]...)...)
	return nil
}

// settle merges runs until a Net can read all that are left at once. It reads those with ranges twice.
func (s *Sorter) settle(ctx context.Context) error {
	for {
		over := s.fixedBytes() - s.opts.MemoryBytes
		points, ranges := 0, 0
		for _, r := range s.points.runs {
			points += s.readBytes(r)
		}
		for _, r := range s.ranges.runs {
			ranges += 2 * s.readBytes(r)
		}
		over += points + ranges
		l, each := &s.points, s.pageBytes
		if len(l.runs) < 2 || ranges > points && len(s.ranges.runs) > 1 {
			l, each = &s.ranges, 2*s.pageBytes
		}
		if over <= 0 || len(l.runs) < 2 {
			return nil
		}
		if err := s.mergeSmallest(ctx, l, min(s.fanIn(l.runs), over/each+2)); err != nil {
			return err
		}
	}
}
