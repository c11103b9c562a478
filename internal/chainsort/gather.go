package chainsort

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"github.com/bytespace/batchlog"
)

// A slab is the encoded items that are in memory, in pages. An item is within one page; one that is larger than a page has one of its own.
type slab struct {
	pages [][]byte
	size  int // of the pages, in bytes
}

// A ref is where an item in the slab is, and what most comparisons need of it.
type ref struct {
	head  uint64 // of the key at the depth that is being sorted by
	page  uint16
	at    uint16
	shape uint32 // size of the key << 8 | size of what is before it
}

const refBytes = 16

// key is the key of the item at r.
func (b *slab) key(r ref) []byte {
	start := int(r.at) + int(r.shape&0xff)
	return b.pages[r.page][start : start+int(r.shape>>8)]
}

// decode decodes the item at r.
func (b *slab) decode(r ref, it *item) {
	if it.decode(b.pages[r.page][r.at:]) == 0 {
		panic("batchlog: bug: item in memory doesn't decode")
	}
}

// add takes an item into memory. It writes a run first if there is no room.
func (s *Sorter) add(it *item) error {
	if len(it.key) > batchlog.MaxKeyBytes || it.kind == retractRange && len(it.value) > batchlog.MaxKeyBytes {
		return batchlog.LimitKey.Check(max(len(it.key), len(it.value)))
	}
	l := &s.points
	if it.kind.isRange() {
		l = &s.ranges
	}
	size := it.sizeBound()
	if !s.hasRoom(l, size) {
		if err := s.spill(); err != nil {
			return err
		}
	}
	it.age = s.age
	s.age++
	p := len(s.slab.pages) - 1
	if p < 0 || cap(s.slab.pages[p])-len(s.slab.pages[p]) < size {
		s.slab.pages = append(s.slab.pages, s.page(size))
		p++
		s.slab.size += cap(s.slab.pages[p])
	}
	at := len(s.slab.pages[p])
	page, header := it.appendTo(s.slab.pages[p])
	s.slab.pages[p] = page
	if len(l.refs) == cap(l.refs) {
		l.refs = slices.Grow(l.refs, refsMore(l.refs))
	}
	l.refs = append(l.refs, ref{page: uint16(p), at: uint16(at), shape: uint32(len(it.key))<<8 | uint32(header)})
	l.sorted = false
	if l.prefix == nil {
		l.prefix = append([]byte{}, it.key...)
	} else if !bytes.HasPrefix(it.key, l.prefix) {
		l.prefix = l.prefix[:sharedLen(l.prefix, it.key)]
	}
	return nil
}

// refsMore is by how many refs grow when they are full.
func refsMore(refs []ref) int { return max(16, cap(refs)) }

// hasRoom reports whether an item of that size can be added within the bound. The first one always can.
func (s *Sorter) hasRoom(l *lane, size int) bool {
	n := len(s.slab.pages)
	if n == 0 {
		return true
	}
	want := 0
	if last := s.slab.pages[n-1]; cap(last)-len(last) < size {
		want = max(size, s.pageBytes)
	}
	if len(l.refs) == cap(l.refs) { // the old ones are there until they are copied
		want += refBytes * (cap(l.refs) + refsMore(l.refs))
	}
	if want == 0 {
		return true
	}
	return s.slab.size+s.fixedBytes()+want <= s.opts.MemoryBytes && n < 1<<16
}

// fixedBytes is what is needed beside gathered items or buffers of runs: the two pages of a writer, the refs, which are kept to be
// used again, and the marks of the runs.
func (s *Sorter) fixedBytes() int {
	size := 2*s.pageBytes + refBytes*(cap(s.points.refs)+cap(s.ranges.refs))
	for _, r := range s.points.runs {
		size += r.marks.bytes()
	}
	return size
}

// page returns an empty page with room for size bytes.
func (s *Sorter) page(size int) []byte {
	if n := len(s.free); size <= s.pageBytes && n > 0 {
		p := s.free[n-1]
		s.free = s.free[:n-1]
		return p
	}
	if size <= s.pageBytes {
		s.pages++
	}
	return make([]byte, 0, max(size, s.pageBytes))
}

// freePage takes back what page returned. Runs that were made since have marks, so there may be a page too many by now.
func (s *Sorter) freePage(p []byte) {
	switch {
	case cap(p) > s.pageBytes:
	case (s.pages-2)*s.pageBytes+s.fixedBytes() > s.opts.MemoryBytes:
		s.pages--
	default:
		s.free = append(s.free, p[:0])
	}
}

// forget empties the memory, whose items are in runs now.
func (s *Sorter) forget() {
	for _, p := range s.slab.pages {
		s.freePage(p)
	}
	clear(s.slab.pages)
	s.slab = slab{pages: s.slab.pages[:0]}
	for _, l := range []*lane{&s.points, &s.ranges} {
		l.refs, l.sorted = l.refs[:0], false
	}
}

// sort sorts the refs of a lane.
func (b *slab) sort(l *lane) {
	if !l.sorted {
		b.sortAt(l.refs, len(l.prefix))
		l.sorted = true
	}
}

// fewRefs are so few that looking at whole keys is no loss.
const fewRefs = 16

// sortAt sorts refs of items whose keys have the same first depth bytes. It compares heads, which needs no look at the keys, and goes on
// behind them where they are equal: keys of one space may have any number of bytes in common.
func (b *slab) sortAt(refs []ref, depth int) {
	for i := range refs {
		refs[i].head = head(b.key(refs[i]), depth)
	}
	slices.SortFunc(refs, func(a, b ref) int { return cmp.Compare(a.head, b.head) })
	for len(refs) > 0 {
		n := 1
		for n < len(refs) && refs[n].head == refs[0].head {
			n++
		}
		same := refs[:n]
		refs = refs[n:]
		switch more := same[0].head&0xff == headMore; {
		case n == 1:
		case n > fewRefs && more:
			b.sortAt(same, b.sharedAt(same, depth+headBytes))
		default:
			slices.SortFunc(same, b.compare)
		}
	}
}

// sharedAt is how many bytes all keys have in common, of which depth is known.
func (b *slab) sharedAt(refs []ref, depth int) int {
	first := b.key(refs[0])[depth:]
	n := len(first)
	for _, r := range refs[1:] {
		n = min(n, sharedLen(first[:n], b.key(r)[depth:]))
	}
	return depth + n
}

// compare compares whole items.
func (b *slab) compare(x, y ref) int {
	if c := bytes.Compare(b.key(x), b.key(y)); c != 0 {
		return c
	}
	var i, j item
	b.decode(x, &i)
	b.decode(y, &j)
	return i.compare(&j)
}

// A memoryCursor yields the items of sorted refs.
type memoryCursor struct {
	slab    *slab
	refs    []ref
	item    item
	touched int  // how many of the next items are in the processor's cache
	sum     byte // of what was touched, so that it is read
}

// touchAhead is how many items are touched before they are decoded: each is somewhere else in memory, and the waits for many overlap where those for one after
// the other add up.
const touchAhead = 16

// newMemoryCursor yields what of a lane is in memory, from low on.
func (s *Sorter) newMemoryCursor(l *lane, low []byte) *memoryCursor {
	s.slab.sort(l)
	at := 0
	if len(low) > 0 {
		at = sort.Search(len(l.refs), func(i int) bool { return bytes.Compare(s.slab.key(l.refs[i]), low) >= 0 })
	}
	return &memoryCursor{slab: &s.slab, refs: l.refs[at:]}
}

// next implements cursor.
func (c *memoryCursor) next() (*item, error) {
	if len(c.refs) == 0 {
		return nil, nil
	}
	if c.touched == 0 {
		c.touch()
	}
	c.touched--
	c.slab.decode(c.refs[0], &c.item)
	c.refs = c.refs[1:]
	return &c.item, nil
}

func (c *memoryCursor) touch() {
	c.touched = min(touchAhead, len(c.refs))
	for _, r := range c.refs[:c.touched] {
		const line = 64 // of the cache; items are rarely longer than three
		page := c.slab.pages[r.page]
		for at := int(r.at); at < min(int(r.at)+3*line, len(page)); at += line {
			c.sum += page[at]
		}
	}
}

func (c *memoryCursor) close() {}
