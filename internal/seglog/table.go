package seglog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/segment"
)

// A table says which segments a log has, where, and which files it is still to remove. It never changes: an edit makes another one
// (see [table.apply]), so readers hold a table for as long as they like, without a lock, and see no half of an edit.
type table struct {
	segs    list[*seg]  // in order of ids, without holes; the last one is active
	limbo   list[*gone] // files that are the log's no more; they are removed, and then leave the limbo
	number  uint64      // of the next file in limbo
	trimmed int64       // time of the newest commit that was dropped, in microseconds since 1970; 0: none was
	mark    mark

	// Sums over segs, but for what is in the active one.
	bytes     int64 // sizes of files, up to the last group where a file is not sealed
	warm      int
	warmBytes int64
}

// A seg is one segment as an edit left it. It never changes, but for what its live part says.
type seg struct {
	first  batchlog.ID
	last   batchlog.ID // of one that is not active
	tag    segTag
	state  state
	warm   bool       // it is in a warm directory, with what belongs to it
	dir    string     // as configured; "" is the log's own
	moving string     // the warm directory that it is being copied to; "": none
	end    int64      // offset behind the last group, of one that is not active
	size   int64      // of the file, in bytes
	oldest int64      // time of the first commit, in microseconds since 1970, of one that is not active
	newest int64      // time of the last one
	begun  int64      // by Options.Passed: when the first commit came, or the segment did; 0: not known
	ended  int64      // by Options.Passed: when the last commit came, of one that is not active; 0: not known
	hash   [32]byte   // of a sealed one
	chains []segChain // whose records are in it, of one that is not active

	live *live // what this opening knows of one that is not sealed; nil: it has not looked at it
}

// A segTag is the beginning of a segment's uuid, which is in its name. So the file of another segment is never taken for it.
type segTag [4]byte

// A state is how far a segment has come.
type state uint8

const (
	active state = iota // groups are appended
	full                // all groups are there, the index is not
	sealed              // immutable
	stateCount
)

// A gone is a file that is the log's no more: until it is removed it is known as that, also after a crash.
type gone struct {
	n uint64
	place
}

// A place is a file in a directory as configured.
type place struct{ dir, name string }

// A mark is up to where the active segment was durable at some time: that its groups end before it is damage.
type mark struct {
	first batchlog.ID // of the segment
	end   int64       // offset behind the last group that was durable
	begun int64       // as seg.begun
}

func (s *seg) key() uint64  { return uint64(s.first) }
func (g *gone) key() uint64 { return g.n }

func tagOf(u segment.UUID) segTag { return segTag(u[:len(segTag{})]) }

const (
	preparedPrefix = "prepared-"
	segmentSuffix  = ".seg"
)

// name is that of the file of s. Names sort as ids do.
func (s *seg) name() string { return segmentName(s.first, s.tag) }

func segmentName(first batchlog.ID, tag segTag) string {
	return fmt.Sprintf("%020d-%s%s", first, hex.EncodeToString(tag[:]), segmentSuffix)
}

// preparedName is the name of a file that is to become the segment with that tag.
func preparedName(tag segTag) string { return preparedPrefix + hex.EncodeToString(tag[:]) }

// parseSegmentName is what [segmentName] made a name of.
func parseSegmentName(name string) (first batchlog.ID, tag segTag, ok bool) {
	stem, ok := strings.CutSuffix(name, segmentSuffix)
	digits, hexTag, _ := strings.Cut(stem, "-")
	n, err := strconv.ParseUint(digits, 10, 64)
	b, hexErr := hex.DecodeString(hexTag)
	if !ok || err != nil || hexErr != nil || len(b) != len(tag) {
		return 0, tag, false
	}
	return batchlog.ID(n), segTag(b), true
}

// files are those of s: its own, then those of its chains.
func (s *seg) files() []place {
	files := []place{{s.dir, s.name()}}
	for _, c := range s.chains {
		files = append(files, place{s.chainDir(), chainName(c.file)})
	}
	return files
}

// leaves is all files that there may be of s when it is dropped.
func (s *seg) leaves() []place {
	files := s.files()
	if s.warm {
		name := inversesName(s.name())
		files = append(files, place{s.dir, name}, place{s.dir, name + copySuffix}) // a crash may have left the copy that was to take its place
	}
	return append(files, s.copies()...)
}

// copies is all files that a move of s that was not finished may have left.
func (s *seg) copies() []place {
	var copies []place
	if s.moving != "" {
		for _, f := range s.files() {
			copies = append(copies, place{s.moving, f.name}, place{s.moving, f.name + copySuffix})
		}
	}
	return copies
}

// chainDir is where the chains of a segment are: beside it when it is warm, else in the log's own directory.
func (s *seg) chainDir() string {
	if s.warm {
		return s.dir
	}
	return ""
}

// firstTime is the time of the first commit in s; 0: it has none.
func (s *seg) firstTime() int64 {
	if s.state == active && s.live != nil {
		return s.live.oldest.Load()
	}
	return s.oldest
}

// chainBytes is the size of the files of the chains of s.
func (s *seg) chainBytes() int64 { return chainBytes(s.chains) }

func chainBytes(chains []segChain) int64 {
	size := int64(0)
	for _, c := range chains {
		size += c.size
	}
	return size
}

// bytes is what s takes on its disk, but for zeros behind the last group.
func (s *seg) bytes() int64 {
	switch s.state {
	case sealed:
		return s.size + s.chainBytes()
	case full:
		return s.end + s.chainBytes()
	default:
		return 0
	}
}

// active is the segment that grows.
func (t *table) active() *seg {
	s, _ := t.segs.last()
	return s
}

// oldest is the first commit of the log.
func (t *table) oldest() batchlog.ID {
	s, _ := t.segs.first()
	return s.first
}

// find is the segment that holds commit id, nil if it was dropped.
func (t *table) find(id batchlog.ID) *seg {
	s, _ := t.segs.find(uint64(id))
	return s
}

// before is the last segment that may begin before that time, or the first one.
func (t *table) before(micros int64) *seg {
	s, _ := t.segs.first()
	for later := range t.segs.from(s.key() + 1) {
		if oldest := later.firstTime(); oldest == 0 || oldest >= micros {
			break
		}
		s = later
	}
	return s
}

// inLimbo reports whether a file of that place is to be removed.
func (t *table) inLimbo(p place) bool {
	for g := range t.limbo.all() {
		if g.place == p {
			return true
		}
	}
	return false
}

// An edit is what makes one table of another: all of its changes or none.
type edit []change

// A change is one thing that an edit does. Which fields of seg it uses is in [kinds].
type change struct {
	kind      kind
	seg       seg
	low, high uint64 // of numbers in limbo
	name      string // of a file in limbo
}

var errNoSuch = errors.New("no such segment, or not in that state")

// apply is the table after e. An error says that e can't follow t; t is as it was in any case.
func (t *table) apply(e edit) (*table, error) {
	next := *t
	for i := 0; i < len(e); i++ {
		if e[i].kind == kindWhole { // many at a time: to add each alone would copy a chunk for each
			n := 1
			for i+n < len(e) && e[i+n].kind == kindWhole {
				n++
			}
			if err := next.add(e[i : i+n]); err != nil {
				return nil, err
			}
			i += n - 1
			continue
		}
		if err := next.change(&e[i]); err != nil {
			return nil, fmt.Errorf("%s of segment %d: %w", e[i].kind, e[i].seg.first, err)
		}
	}
	return &next, nil
}

// add adds segments as a snapshot names them.
func (t *table) add(changes edit) error {
	segs := make([]*seg, len(changes))
	before := t.active()
	for i := range changes {
		s := changes[i].seg
		if s.first == 0 || s.state >= stateCount || s.state != active && s.last < s.first || before != nil && (before.state == active || s.first != before.last+1) {
			return fmt.Errorf("segment %d does not follow the one before it", s.first)
		}
		segs[i], before = &s, &s
		t.count(&s, 1)
	}
	t.segs = t.segs.with(segs...)
	return nil
}

// change makes one change.
func (t *table) change(c *change) error {
	switch c.kind {
	case kindBase:
		*t = table{number: c.low, trimmed: c.seg.newest}
	case kindGone:
		if last, ok := t.limbo.last(); c.low >= t.number || ok && last.n >= c.low {
			return errors.New("file in limbo out of its order")
		}
		t.limbo = t.limbo.with(&gone{c.low, place{c.seg.dir, c.name}})
	case kindMark:
		t.mark = mark{c.seg.first, c.seg.end, c.seg.begun}
	case kindBegin:
		return t.begin(&c.seg)
	case kindDropped:
		t.drop(c.seg.last)
	case kindRemoved:
		t.limbo = t.limbo.without(c.low, c.high)
	default:
		s, ok := t.segs.get(uint64(c.seg.first))
		if !ok {
			return errNoSuch
		}
		return t.alter(s, c)
	}
	return nil
}

// begin has the log go on in a new segment. One without commits that it takes the place of is let go of.
func (t *table) begin(s *seg) error {
	if s.first == 0 {
		return errNoSuch
	}
	if before := t.active(); before != nil {
		switch {
		case before.state == active && before.first == s.first:
			t.letGo(before.leaves())
			t.segs = t.segs.without(before.key(), before.key())
		case before.state == active || before.last+1 != s.first:
			return errNoSuch
		}
	}
	t.segs = t.segs.with(&seg{first: s.first, tag: s.tag, dir: s.dir, size: s.size, begun: s.begun, live: s.live})
	return nil
}

// alter changes s as c says.
func (t *table) alter(s *seg, c *change) error {
	next := *s
	switch {
	case c.kind == kindFull && s.state == active && c.seg.last >= s.first:
		next.state, next.last, next.end = full, c.seg.last, c.seg.end
		next.oldest, next.newest, next.begun, next.ended, next.chains = c.seg.oldest, c.seg.newest, c.seg.begun, c.seg.ended, c.seg.chains
	case c.kind == kindSealed && s.state == full:
		next.state, next.size, next.hash, next.live = sealed, c.seg.size, c.seg.hash, nil
		next.oldest, next.newest = c.seg.oldest, c.seg.newest
	case c.kind == kindMoving && s.state == sealed && !s.warm && s.moving == "" && c.seg.dir != "":
		next.moving = c.seg.dir
	case c.kind == kindMoved && s.moving != "":
		t.letGo(s.files())
		next.dir, next.warm, next.moving = s.moving, true, ""
	case c.kind == kindUnmoved && s.moving != "":
		t.letGo(s.copies())
		next.moving = ""
	default:
		return errNoSuch
	}
	t.count(s, -1)
	t.count(&next, 1)
	t.segs = t.segs.set(&next)
	return nil
}

// drop lets go of all segments whose commits are all at or before last, but the active one.
func (t *table) drop(last batchlog.ID) {
	for s := range t.segs.all() {
		if s.state == active || s.last > last {
			break
		}
		t.trimmed = max(t.trimmed, s.newest)
		t.count(s, -1)
		t.letGo(s.leaves())
	}
	for s := range t.segs.all() {
		if s.state == active || s.last > last {
			t.segs = t.segs.without(0, s.key()-1)
			return
		}
	}
}

// letGo puts files into limbo.
func (t *table) letGo(files []place) {
	all := make([]*gone, len(files))
	for i, p := range files {
		all[i] = &gone{t.number, p}
		t.number++
	}
	t.limbo = t.limbo.with(all...)
}

// count has s be part of the sums, or no longer.
func (t *table) count(s *seg, sign int64) {
	t.bytes += sign * s.bytes()
	if s.warm {
		t.warm += int(sign)
		t.warmBytes += sign * s.bytes()
	}
}

// snapshotChanges bounds the changes of one record of a snapshot.
const snapshotChanges = 512

// snapshot yields edits that make t of no table, each of a bounded size.
func (t *table) snapshot(yield func(edit) bool) {
	e := edit{{kind: kindBase, low: t.number, seg: seg{newest: t.trimmed}}}
	for s := range t.segs.all() {
		e = append(e, change{kind: kindWhole, seg: *s})
		if len(e) == snapshotChanges {
			if !yield(e) {
				return
			}
			e = e[:0]
		}
	}
	for g := range t.limbo.all() {
		e = append(e, change{kind: kindGone, low: g.n, seg: seg{dir: g.dir}, name: g.name})
		if len(e) == snapshotChanges {
			if !yield(e) {
				return
			}
			e = e[:0]
		}
	}
	e = append(e, t.mark.change())
	yield(e)
}

// change is what says m in an edit.
func (m mark) change() change {
	return change{kind: kindMark, seg: seg{first: m.first, end: m.end, begun: m.begun}}
}

// inversesName is that of the file beside the segment with that name.
func inversesName(segment string) string {
	return strings.TrimSuffix(segment, segmentSuffix) + inversesSuffix
}

// clean reports whether a name may be that of a file in limbo: no path.
func clean(name string) bool {
	return name != "" && name != "." && name != ".." && path.Base(name) == name
}
