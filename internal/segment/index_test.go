package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

func randomIndex(r *rand.Rand) *Index {
	x := &Index{
		First: batchlog.ID(r.Uint64() >> 2), FirstTime: r.Int64N(1 << 52), Ops: r.Int64N(1 << 40),
		Spaces: make([]uint32, r.IntN(30)), Blocks: make([]Block, r.IntN(20)),
	}
	x.Last = x.First + batchlog.ID(r.Uint64N(1<<40)) - batchlog.ID(r.IntN(2)) // none: before the first
	x.LastTime = x.FirstTime + r.Int64N(1<<50)
	for i := range x.Hash {
		x.Hash[i], x.Prev[i] = byte(r.Uint32()), byte(r.Uint32())
	}
	for i := range x.Spaces {
		x.Spaces[i] = r.Uint32()
	}
	slices.Sort(x.Spaces)
	last := Block{Offset: HeaderSize, First: x.First, Time: x.FirstTime}
	for i := range x.Blocks {
		last = Block{
			Offset: last.End() + r.Int64N(2)*(GroupHead+r.Int64N(8)), First: last.First + batchlog.ID(last.Count), Time: last.Time + r.Int64N(1<<20),
			Size: r.IntN(1 << 16), Count: 1 + r.IntN(1<<10), Sum: r.Uint32(),
		}
		if i == 0 {
			last.Offset = HeaderSize + GroupHead
		}
		if r.IntN(4) > 0 {
			last.Spaces = make([]uint32, 0, len(x.Spaces))
			for p := range x.Spaces {
				if r.IntN(3) == 0 {
					last.Spaces = append(last.Spaces, uint32(p))
				}
			}
		}
		x.Blocks[i] = last
	}
	x.End = last.End()
	return x
}

func TestIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 100 {
		want := randomIndex(r)
		b := want.Append([]byte("before"))[6:]
		got, err := ParseIndex(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v, want %+v", got, err, want)
		}
		for n := range b {
			if _, err := ParseIndex(b[:n]); err == nil {
				t.Fatalf("accepted with %d of %d bytes", n, len(b))
			}
		}
		if _, err := ParseIndex(append(b, 0)); err == nil {
			t.Fatal("accepted with a byte behind")
		}
	}
}

// What would hide commits, or lead out of the file, is refused.
func TestIndexMalformed(t *testing.T) {
	good := Index{End: 1 << 20, First: 1, Last: 9, Spaces: []uint32{1, 2}, Blocks: []Block{{Offset: HeaderSize + GroupHead, Size: 100, Count: 1, First: 1}}}
	if _, err := ParseIndex(good.Append(nil)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(x *Index, b *Block){
		"hashes out of order":           func(x *Index, _ *Block) { x.Spaces = []uint32{2, 1} },
		"a position that is none":       func(_ *Index, b *Block) { b.Spaces = []uint32{0, 2} },
		"a block in the header":         func(_ *Index, b *Block) { b.Offset-- },
		"a block without records":       func(_ *Index, b *Block) { b.Count = 0 },
		"a block beyond the end":        func(_ *Index, b *Block) { b.Size = 1 << 20 },
		"a block of more than there is": func(_ *Index, b *Block) { b.Offset, b.Size = 1<<62, 1<<62 },
	} {
		x := good
		x.Blocks = slices.Clone(good.Blocks)
		change(&x, &x.Blocks[0])
		if got, err := ParseIndex(x.Append(nil)); !errors.Is(err, errIndex) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestFind(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		x := Index{Blocks: make([]Block, 1+r.IntN(12))}
		id, time := batchlog.ID(5), int64(100)
		for i := range x.Blocks {
			x.Blocks[i] = Block{First: id, Time: time}
			id += 1 + batchlog.ID(r.IntN(3))
			time += r.Int64N(3) // equal times are common: all commits of a group have one
		}
		for id := batchlog.ID(5); id < x.Blocks[len(x.Blocks)-1].First+3; id++ {
			want := 0
			for i, b := range x.Blocks {
				if b.First <= id {
					want = i
				}
			}
			if got := x.Find(id); got != want {
				t.Fatalf("commit %d in block %d of %+v, want %d", id, got, x.Blocks, want)
			}
		}
		// The first commit that is not older may be in the block before the first that begins so late.
		for at := int64(98); at < time+3; at++ {
			want := 0
			for i, b := range x.Blocks {
				if b.Time < at {
					want = i
				}
			}
			if got := x.FindTime(at); got != want {
				t.Fatalf("time %d in block %d of %+v, want %d", at, got, x.Blocks, want)
			}
		}
	}
	if x := (&Index{}); x.Find(1) != 0 || x.FindTime(1) != 0 {
		t.Error("an index without blocks has a first block")
	}
}

// blocky is a segment whose commits fill many blocks.
func blocky(seed uint64) *maker {
	r := rand.New(rand.NewPCG(seed, 0))
	m := newMaker(testHeader)
	for m.end() < 200*BlockBytes {
		records := make([]wire.Record, 1+r.IntN(3))
		for i := range records {
			records[i] = randomRecord(r)
		}
		records[0].Ops = wire.AppendOp(records[0].Ops, batchlog.OpPut, randomPath(r), make([]byte, r.IntN(3*BlockBytes)))
		records[0].Count++
		m.add(records...)
	}
	return m
}

func build(t *testing.T, m *maker, prev [32]byte) *Index {
	t.Helper()
	x, err := Build(bytes.NewReader(m.b), m.h, "x.seg", m.end(), prev)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// The index says what is there: found by going through all of it.
func TestBuild(t *testing.T) {
	m := blocky(8)
	x := build(t, m, [32]byte{9})
	ops := int64(0)
	for i := range m.all {
		ops += int64(m.all[i].Count)
	}
	first, last := m.all[0], m.all[len(m.all)-1]
	if x.End != m.end() || x.First != 1 || x.Last != last.ID || x.FirstTime != first.Time || x.LastTime != last.Time || x.Ops != ops || x.Prev != [32]byte{9} {
		t.Errorf("index %+v", x)
	}
	if len(x.Blocks) < 100 {
		t.Fatalf("%d blocks", len(x.Blocks))
	}
	g, next := 0, batchlog.ID(1) // the group and the commit that the next block begins with
	for i := range x.Blocks {
		b := &x.Blocks[i]
		for g+1 < len(m.groups) && m.groups[g+1].First <= next {
			g++
		}
		records := m.b[b.Offset:b.End()]
		if b.First != next || b.Time != m.all[next-1].Time || b.Offset < m.groups[g].Offset+GroupHead || b.End() > m.groups[g].End() {
			t.Fatalf("block %d is %+v, of group %+v", i, b, m.groups[g])
		}
		if !b.Holds(records, m.h.Salt()) || b.Holds(records, m.h.Salt()+1) || b.Holds(records[1:], m.h.Salt()) {
			t.Fatalf("block %d does not hold its records", i)
		}
		wantBlock(t, b, records, m.all)
		if offset, first := x.Group(i); offset != m.groups[g].Offset || first != m.groups[g].First {
			t.Fatalf("block %d is in the group at %d of commit %d, want %+v", i, offset, first, m.groups[g])
		}
		next += batchlog.ID(b.Count)
		if next > last.ID || i+1 < len(x.Blocks) && x.Blocks[i+1].Offset != b.End() {
			continue // the last of its group
		}
		if b.Size < BlockBytes {
			t.Fatalf("block %d has %d bytes and is not the last of its group", i, b.Size)
		}
	}
	if next != last.ID+1 {
		t.Errorf("the blocks end with commit %d, the segment with %d", next-1, last.ID)
	}
	if other := build(t, m, [32]byte{8}); other.Hash != x.Hash {
		t.Error("the hash depends on the segment before")
	}
}

// wantBlock fails t unless records, those of b, are the commits that b says, and no shorter block would have ended before.
func wantBlock(t *testing.T, b *Block, records []byte, all []wire.Record) {
	t.Helper()
	var r wire.Record
	for i := range b.Count {
		if len(records) == 0 || b.Size-len(records) >= BlockBytes {
			t.Fatalf("block %+v has %d commits", b, i)
		}
		rest, err := ParseRecord(records, &r)
		if want := &all[int(b.First)-1+i]; err != nil || !sameRecord(&r, want) {
			t.Fatalf("commit %d of block %+v is %+v, %v", i, b, r, err)
		}
		records = rest
	}
	if len(records) != 0 {
		t.Fatalf("%d bytes behind the records of block %+v", len(records), b)
	}
}

// A segment without commits has an index, too.
func TestBuildEmpty(t *testing.T) {
	h := testHeader
	h.First = 7
	m := newMaker(h)
	x := build(t, m, [32]byte{})
	if x.End != HeaderSize || x.First != 7 || x.Last != 6 || len(x.Blocks) != 0 {
		t.Errorf("index %+v", x)
	}
	got, err := ParseIndex(x.Append(nil))
	if err != nil || got.Last != 6 {
		t.Errorf("%+v, %v", got, err)
	}
}

// What the sums don't know Build finds: times and ids within a group, ops that are none.
func TestBuildRefuses(t *testing.T) {
	older := newMaker(testHeader)
	older.add(sized(1))
	older.time = 0
	older.add(sized(1))
	malformed := newMaker(testHeader)
	malformed.add(wire.Record{Count: 1, Ops: []byte{7}})
	behind := newMaker(testHeader)
	behind.add(wire.Record{Ops: []byte{7}})
	endless := newMaker(testHeader)
	endless.add(wire.Record{Count: 1, Ops: wire.AppendOp(nil, batchlog.OpDelete, []byte{0xa0, 0x70, 'a'}, nil)})
	for name, m := range map[string]*maker{
		"commit older than the one before": older, "malformed op": malformed, "bytes behind the last op": behind, "path without an end": endless,
	} {
		_, err := Build(bytes.NewReader(m.b), m.h, "x.seg", m.end(), [32]byte{})
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		last := m.groups[len(m.groups)-1]
		if d := damage(t, err); d.Offset != last.Offset || d.ID != last.First || d.File != "x.seg" {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// The disk fails: that says nothing about what it holds.
func TestBuildReadError(t *testing.T) {
	m := random(9, 5)
	for _, from := range []int64{0, m.groups[2].Offset} {
		_, err := Build(&failingReader{bytes.NewReader(m.b), from, errDisk}, m.h, "x.seg", m.end(), [32]byte{})
		if !errors.Is(err, errDisk) || errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("disk fails from byte %d on: %v", from, err)
		}
	}
}

// within is the closed paths of the space of a stored key and of all around it.
func within(t *testing.T, key []byte) [][]byte {
	t.Helper()
	closed, _, err := wire.SplitKey(key)
	if err != nil {
		t.Fatal(err)
	}
	tag := closed[:bytes.IndexByte(closed, bytewise.TagArray)]
	v, err := bytewise.Decode(closed[len(tag):])
	if err != nil {
		t.Fatal(err)
	}
	parts := v.([]any)
	var all [][]byte
	for n := range len(parts) + 1 {
		all = append(all, append(bytes.Clone(tag), path(parts[:n]...)...))
	}
	return all
}

// A filtered reader leaves out no block with an op in its spaces, and does leave out blocks.
func TestSummaries(t *testing.T) {
	for seed := range uint64(5) {
		m := blocky(100 + seed)
		x := build(t, m, [32]byte{})
		left := 0
		for i := range m.all {
			rec := &m.all[i]
			block := &x.Blocks[x.Find(rec.ID)]
			touched := map[string]bool{}
			ops := rec.Ops
			for range rec.Count {
				_, key, _, rest, err := wire.NextOp(ops)
				if err != nil {
					t.Fatal(err)
				}
				ops = rest
				if key[0] == 0 {
					continue
				}
				for _, p := range within(t, key) {
					touched[string(p)] = true
				}
			}
			for p := range touched {
				if !block.MayTouch(x.Positions([]uint32{1, SpaceHash([]byte(p[:len(p)-1])), 1 << 31})) {
					t.Fatalf("seed %d: commit %d has an op within %x, its block says it has none", seed, rec.ID, p)
				}
			}
			if !block.MayTouch(x.Positions([]uint32{SpaceHash(path("nowhere", i))})) {
				left++
			}
		}
		if left < len(m.all)*9/10 {
			t.Errorf("seed %d: only %d of %d commits would be left out for a space without ops", seed, left, len(m.all))
		}
	}
	if (&Block{Spaces: []uint32{1}}).MayTouch(nil) || !(&Block{}).MayTouch(nil) {
		t.Error("no spaces: only a block without a summary may touch them")
	}
	x := Index{Spaces: []uint32{10, 20, 30}}
	if got := x.Positions([]uint32{30, 5, 10, 40}); !slices.Equal(got, []uint32{0, 2}) {
		t.Errorf("positions %v", got)
	}
}

// A block with too many spaces has no summary and is always read; the others keep theirs. The same holds from where the
// blocks of a segment have too many together: a block that has only spaces which are known by then has one all the same.
func TestSummaryTooMany(t *testing.T) {
	next := 0
	add := func(m *maker, spaces int) {
		var rec wire.Record
		for i := range max(spaces, -spaces) {
			if spaces > 0 {
				i = next
				next++
			}
			rec.Ops = wire.AppendOp(rec.Ops, batchlog.OpPut, path(i), nil)
			rec.Count++
		}
		m.add(rec)
	}
	for _, c := range []struct {
		name   string
		blocks []int // spaces of each, without the root: that many new ones, or, below zero, the first ones again
		known  []bool
	}{
		{"block with as many as may be", []int{blockSpacesMax - 1, 1}, []bool{true, true}},
		{"block with one more", []int{blockSpacesMax, 1}, []bool{false, true}},
		{
			"segment", append(slices.Repeat([]int{blockSpacesMax - 1}, indexSpacesMax/blockSpacesMax), 1, 20, 3, 11, 1, -1, -4000, 2, -100),
			append(slices.Repeat([]bool{true}, indexSpacesMax/blockSpacesMax), true, false, true, true, false, true, true, false, true),
		},
	} {
		m := newMaker(testHeader)
		next = 0
		for _, n := range c.blocks {
			add(m, n)
		}
		x := build(t, m, [32]byte{})
		if len(x.Blocks) != len(c.blocks) {
			t.Fatalf("%s: %d blocks", c.name, len(x.Blocks))
		}
		for i := range x.Blocks {
			b := &x.Blocks[i]
			if (b.Spaces != nil) != c.known[i] || !b.MayTouch(x.Positions([]uint32{SpaceHash(path()[:1])})) || b.MayTouch(nil) == c.known[i] {
				t.Errorf("%s: block %d has a summary of %d", c.name, i, len(b.Spaces))
			}
		}
		if len(x.Spaces) > indexSpacesMax {
			t.Errorf("%s: %d spaces", c.name, len(x.Spaces))
		}
		got, err := ParseIndex(x.Append(nil))
		if err != nil || !reflect.DeepEqual(got, x) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What is held of a block with very many spaces is bounded as its summary is.
func TestSummaryMemory(t *testing.T) {
	m := newMaker(testHeader)
	var rec wire.Record
	for i := range 20 * blockSpacesMax {
		rec.Ops = wire.AppendOp(rec.Ops, batchlog.OpPut, path(i), nil)
		rec.Count++
	}
	m.add(rec)
	x := indexer{index: Index{First: 1}, salt: m.h.Salt(), hashes: map[uint32]struct{}{}}
	g := m.groups[0]
	if err := x.group(g, m.b[g.Offset+GroupHead:g.End()]); err != nil {
		t.Fatal(err)
	}
	if len(x.spaces) > blockSpacesMax+1 || x.blocks[0] != nil {
		t.Errorf("%d spaces are held of one block, whose summary would be of %d", len(x.spaces), len(x.blocks[0]))
	}
}

// MayTouch is whether two sets have something in common, however large one or the other is.
func TestMayTouch(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	some := func(n int) []uint32 {
		all := make([]uint32, n)
		for i := range all {
			all[i] = r.Uint32N(3000)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	for range 2000 {
		b := Block{Spaces: some(r.IntN(60))}
		positions := some(r.IntN(60))
		want := slices.ContainsFunc(positions, func(p uint32) bool { return slices.Contains(b.Spaces, p) })
		if got := b.MayTouch(positions); got != want {
			t.Fatalf("%v and %v: %v", b.Spaces, positions, got)
		}
	}
}

// seal is the file that m becomes when it is sealed. If that is smaller than size there are zeros before the footer.
func seal(x *Index, m *maker, size int64) []byte {
	offset, tail := Seal(x, m.h.Salt())
	b := append(bytes.Clone(m.b), make([]byte, max(0, offset-int64(len(m.b))))...)
	index := len(tail) - FooterSize
	b = append(b[:offset:offset], tail[:index]...)
	b = append(b, make([]byte, max(0, size-int64(len(b))-FooterSize))...)
	return append(b, tail[index:]...)
}

// The index comes back, whether the file had room for it or grows.
func TestSeal(t *testing.T) {
	m := random(10, 30)
	x := build(t, m, [32]byte{1, 2, 3})
	index := int64(len(x.Append(nil)))
	exact := Align(m.end()) + index + FooterSize
	for _, c := range []struct{ size, want int64 }{
		{1 << 20, 1 << 20},
		{exact + 1, exact + 1},
		{exact, exact},
		{exact - 1, exact},
		{m.end(), exact},
	} {
		m.b = m.b[:m.end()]
		if pad := Align(m.end()) - m.end(); c.size > m.end() {
			m.b = append(m.b, make([]byte, pad)...)
		} else {
			m.b = append(m.b, make([]byte, pad)...)[:m.end()+pad] // a write behind the end fills the gap with zeros
		}
		b := seal(x, m, c.size)
		if int64(len(b)) != c.want {
			t.Errorf("size %d: sealed file has %d bytes, want %d", c.size, len(b), c.want)
		}
		got, err := ReadIndex(bytes.NewReader(b), int64(len(b)), "x.seg", m.h.Salt())
		if err != nil || !reflect.DeepEqual(got, x) {
			t.Errorf("size %d: %+v, %v", c.size, got, err)
		}
		all, err := readAll(t, m.scanner(b))
		if err != nil {
			t.Fatal(err)
		}
		wantRecords(t, all, m.all)
	}
}

// Every change of one byte in index and footer is found; the zeros between have no meaning.
func TestSealFlips(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(100))
	m.add(sized(200))
	x := build(t, m, [32]byte{})
	b := seal(x, m, Align(m.end())+1000)
	index := Align(m.end())
	gap := index + int64(len(x.Append(nil)))
	footer := int64(len(b)) - FooterSize
	for i := index; i < int64(len(b)); i++ {
		for bit := range 8 {
			b[i] ^= 1 << bit
			got, err := ReadIndex(bytes.NewReader(b), int64(len(b)), "x.seg", m.h.Salt())
			b[i] ^= 1 << bit
			if i >= gap && i < footer {
				if err != nil || !reflect.DeepEqual(got, x) {
					t.Fatalf("byte %d of the gap: %v", i, err)
				}
				continue
			}
			if d := damage(t, err); d.File != "x.seg" || d.Offset < HeaderSize || d.Offset > footer {
				t.Fatalf("byte %d: %+v", i, d)
			}
		}
	}
	if _, err := ReadIndex(bytes.NewReader(b), int64(len(b)), "x.seg", m.h.Salt()+1); !errors.Is(err, errFooterSum) {
		t.Errorf("footer of another file: %v", err)
	}
}

// A file that lost its last byte has no index, also if that byte was zero, as what was not read would be.
func TestSealTruncatedZero(t *testing.T) {
	h := testHeader
	for n := range 1 << 16 {
		le.PutUint32(h.Segment[:], uint32(n))
		m := newMaker(h)
		m.add(sized(100))
		b := seal(build(t, m, [32]byte{}), m, Align(m.end()))
		if b[len(b)-1] != 0 {
			continue
		}
		_, err := ReadIndex(bytes.NewReader(b[:len(b)-1]), int64(len(b)), "x.seg", m.h.Salt())
		if !errors.Is(err, errFooterShort) || !errors.Is(err, batchlog.ErrCorrupt) {
			t.Fatalf("uuid %d: %v", n, err)
		}
		return
	}
	t.Fatal("no sum ends in zero")
}

// A file that lost its end has no index, wherever the end was cut.
func TestSealTruncated(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(100))
	b := seal(build(t, m, [32]byte{}), m, Align(m.end())+500)
	for n := range b {
		_, err := ReadIndex(bytes.NewReader(b[:n]), int64(n), "x.seg", m.h.Salt())
		_ = damage(t, err)
		// The size is from the manifest, the file is shorter.
		_, err = ReadIndex(bytes.NewReader(b[:n]), int64(len(b)), "x.seg", m.h.Salt())
		_ = damage(t, err)
	}
}

// What a footer says is believed only when its sum holds; until then it may point anywhere.
func TestSealFooterPlace(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(100))
	b := seal(build(t, m, [32]byte{}), m, 0)
	at := len(b) - FooterSize
	for _, c := range []struct {
		offset uint64
		size   uint32
	}{
		{0, 10}, {HeaderSize - 1, 10}, {uint64(at), 1}, {HeaderSize, 1 << 31}, {1 << 63, 10}, {1<<63 - 1, 10}, {1<<63 - 1, 1<<32 - 1}, {1<<64 - 1, 1},
	} {
		le.PutUint64(b[at+footerOffset:], c.offset)
		le.PutUint32(b[at+footerSize:], c.size)
		allocs := testing.AllocsPerRun(1, func() {
			if _, err := ReadIndex(bytes.NewReader(b), int64(len(b)), "x.seg", m.h.Salt()); !errors.Is(err, errFooterPlace) {
				t.Errorf("index at %d with %d bytes: %v", c.offset, c.size, err)
			}
		})
		if allocs > 10 {
			t.Errorf("index at %d with %d bytes: %v allocations", c.offset, c.size, allocs)
		}
	}
}

// A newer footer is refused by name.
func TestSealVersion(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(100))
	x := build(t, m, [32]byte{})
	b := seal(x, m, 0)
	footer := b[len(b)-FooterSize:]
	le.PutUint32(footer[footerVersion:], Version+1)
	resumFooter(footer, x.Append(nil), m.h.Salt())
	_, err := ReadIndex(bytes.NewReader(b), int64(len(b)), "x.seg", m.h.Salt())
	var newer *batchlog.VersionError
	if !errors.As(err, &newer) || *newer != (batchlog.VersionError{What: "x.seg", Version: Version + 1, Known: Version}) {
		t.Errorf("error %v", err)
	}
}

// resumFooter sets the sum of a footer anew.
func resumFooter(footer, index []byte, salt uint32) {
	sum := crcUpdate(salt, footer[:footerSum])
	le.PutUint32(footer[footerSum:], crcUpdate(sum, index))
}

// An index whose sum holds and that makes no sense is damage as well: our bug, or somebody's.
func TestSealMalformed(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(100))
	x := build(t, m, [32]byte{})
	b := seal(x, m, 0)
	index := x.Append(nil)
	at := len(b) - FooterSize - len(index)
	clear(b[at : at+len(index)-40])
	resumFooter(b[len(b)-FooterSize:], b[at:at+len(index)], m.h.Salt())
	_, err := ReadIndex(bytes.NewReader(b), int64(len(b)), "x.seg", m.h.Salt())
	if d := damage(t, err); !errors.Is(err, errIndex) || d.Offset != int64(at) {
		t.Errorf("error %v", err)
	}
}

// The disk fails: that is no damage.
func TestSealReadError(t *testing.T) {
	m := newMaker(testHeader)
	m.add(sized(100))
	b := seal(build(t, m, [32]byte{}), m, 0)
	for _, from := range []int64{0, int64(len(b)) - FooterSize} {
		_, err := ReadIndex(&failingReader{bytes.NewReader(b), from, errDisk}, int64(len(b)), "x.seg", m.h.Salt())
		if !errors.Is(err, errDisk) || errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("disk fails from byte %d on: %v", from, err)
		}
	}
}
