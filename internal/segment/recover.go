package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// An Ending is what stands behind the last good group of an active segment.
type Ending struct {
	Next    Next
	Claimed bool // something says that groups were durable beyond here: a later group, or who keeps the table of segments
}

// Next is what the bytes are where the next group would begin.
type Next uint8

// What may stand where the next group would begin.
const (
	NextNothing Next = iota // zeros, or the end of the file
	NextGarbage             // bytes that are no group's header
	NextTorn                // a header that holds, and records that don't
	NextStray               // a whole group that is not the next one: left behind by an earlier run
	nextCount
)

// A Verdict is what to do with the end of an active segment.
type Verdict uint8

// The verdicts.
const (
	VerdictEnd    Verdict = iota // the log ends here, as it was left
	VerdictCut                   // the log ends here; what follows was never acknowledged and is written over
	VerdictDamage                // acknowledged commits are missing: say so, and lose nothing more
)

// endings is what is done about each ending. Every ending has exactly one row.
var endings = []struct {
	next    Next
	claimed bool
	verdict Verdict
	why     string
}{
	{NextNothing, false, VerdictEnd, "all groups are there"},
	{NextGarbage, false, VerdictCut, "the sync of a group was under way: parts of it came to the disk"},
	{NextTorn, false, VerdictCut, "the sync of a group was under way: its header came to the disk, not all of its records"},
	{NextStray, false, VerdictCut, "a group that was cut before and has not been written over yet"},
	{NextNothing, true, VerdictDamage, "groups that were durable are gone"},
	{NextGarbage, true, VerdictDamage, "a group that was durable has a damaged header"},
	{NextTorn, true, VerdictDamage, "a group that was durable has damaged records"},
	{NextStray, true, VerdictDamage, "a group that was durable is gone, an old one stands in its place"},
}

// Judge says what is done about an ending, and why.
func Judge(e Ending) (Verdict, string) {
	for _, row := range endings {
		if row.next == e.Next && row.claimed == e.Claimed {
			return row.verdict, row.why
		}
	}
	panic("batchlog: bug: ending without a row")
}

// A Tail is where an active segment goes on.
type Tail struct {
	End    int64       // offset behind the last group
	Chain  uint32      // sum of the last group
	Next   batchlog.ID // of the next commit
	Time   int64       // of the last commit; 0 when there is none
	Marks  []Mark
	Last   Group // the last group; its Count is 0 when there is none
	Chains []Chained
	Ending Ending
}

// A Chained is a chain whose record is in a segment.
type Chained struct {
	ID  batchlog.ID
	Ref *wire.ChainRef
}

// A Mark is a group of a segment that is not sealed, from which a reader may go on. There is one every [MarkBytes] or so.
type Mark struct {
	Offset int64
	First  batchlog.ID
	Time   int64 // of the first commit
}

// MarkBytes is how far marks are apart, in bytes.
const MarkBytes = 16 << 10

// Recover reads an active segment of that size to its end. durable is an offset up to which its groups are known to
// be durable, 0 if nothing is known. Damage is a *batchlog.CorruptError; a torn tail is not.
func Recover(file io.ReaderAt, h Header, name string, size, durable int64) (Tail, error) {
	s := Scanner{File: file, Name: name, Salt: h.Salt(), Next: HeaderSize, End: size, ID: h.First, Chain: h.Chain(), Chained: true}
	t := Tail{End: HeaderSize, Chain: s.Chain, Next: h.First}
	for {
		g, records, err := s.Group()
		var stop *batchlog.CorruptError
		if errors.Is(err, io.EOF) || errors.As(err, &stop) {
			return t.finish(&s, durable, err)
		}
		if err != nil {
			return Tail{}, err
		}
		var first int64
		t.Time, err = CheckRecords(g, records, t.Time, func(r *wire.Record) error {
			if r.ID == g.First {
				first = r.Time
			}
			if r.Chain != nil {
				t.Chains = append(t.Chains, Chained{r.ID, r.Chain})
			}
			return nil
		})
		if err != nil { // the sums hold, so these bytes were meant: no torn tail
			return Tail{}, &batchlog.CorruptError{File: name, Offset: g.Offset, ID: g.First, Err: err}
		}
		if n := len(t.Marks); n == 0 || g.Offset-t.Marks[n-1].Offset >= MarkBytes {
			t.Marks = append(t.Marks, Mark{Offset: g.Offset, First: g.First, Time: first})
		}
		t.End, t.Chain, t.Next, t.Last = g.End(), g.Sum, g.First+batchlog.ID(g.Count), g
	}
}

// finish judges what stands behind the last good group, where the scanner stopped with err.
func (t *Tail) finish(s *Scanner, durable int64, err error) (Tail, error) {
	at := Align(t.End)
	claim, lookErr := claimBehind(s.File, s.Salt, at, s.End)
	if lookErr != nil {
		return Tail{}, fmt.Errorf("read segment %s behind byte %d: %w", s.Name, at, lookErr)
	}
	nothing, lookErr := zeros(s.File, at, s.End)
	if lookErr != nil {
		return Tail{}, fmt.Errorf("read segment %s at byte %d: %w", s.Name, at, lookErr)
	}
	t.Ending = Ending{Next: next(err, nothing), Claimed: max(durable, claim) > t.End}
	if verdict, why := Judge(t.Ending); verdict == VerdictDamage {
		return Tail{}, &batchlog.CorruptError{File: s.Name, Offset: at, ID: t.Next, Err: errors.New(why)}
	}
	return *t, nil
}

// next is what made the scanner stop.
func next(err error, nothing bool) Next {
	switch {
	case nothing:
		return NextNothing
	case errors.Is(err, errGroupBody) || errors.Is(err, errGroupEnd):
		return NextTorn
	case errors.Is(err, errGroupChain) || errors.Is(err, errGroupID):
		return NextStray
	default:
		return NextGarbage
	}
}

// zeros reports whether a group's header at offset would be all zeros.
func zeros(file io.ReaderAt, offset, size int64) (bool, error) {
	head := make([]byte, max(0, min(GroupHead, size-offset)))
	if n, err := file.ReadAt(head, offset); err != nil && n < len(head) && !errors.Is(err, io.EOF) {
		return false, err
	}
	for _, c := range head {
		if c != 0 {
			return false, nil
		}
	}
	return true, nil
}

// claimBehind is the highest offset that any group's header behind from says was durable when it was written. Only the
// header needs to hold for that.
func claimBehind(file io.ReaderAt, salt uint32, from, size int64) (int64, error) {
	const step = 1 << 20
	buf := make([]byte, min(step+GroupHead, max(0, size-from)))
	highest := int64(0)
	for at := from; at < size; at += step {
		n, err := file.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := 0; i < min(n, step); i += groupAlign {
			if i+4 > n || binary.LittleEndian.Uint32(buf[i:]) != groupMagic {
				continue
			}
			if g, err := parseGroup(buf[i:n], at+int64(i), salt, MaxGroupBytes); err == nil {
				highest = max(highest, g.Durable)
			}
		}
	}
	return highest, nil
}
