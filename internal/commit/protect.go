package commit

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A transaction that keeps losing has what it read protected: as long as it runs, commits that touch that wait, and no others do. What is protected
// and who waits is decided by the write loop alone, when it takes what has come:
//
//   - A commit that touches a protection is held. When the protection ends, what was held for it goes before any other protection begins.
//   - A commit that has a protection itself is held by those that began before its own, and no others, so that two never wait for one another. One that
//     it is not held by, and touches, is broken: its transaction is validated in full, and runs again if it has lost. A change of a task is held by none,
//     as all others wait for it.
//   - A protection that is asked for begins when it meets no other one, nor one that was asked for before, and nothing is held for a second time. What
//     is added to one that has begun is protected at once.
//
// So all waits are for protections that have begun, and these end within ProtectMax.

// ProtectMax bounds how long what a transaction has read is protected. Then others go first, and it may ask again.
const ProtectMax = 5 * time.Second

const (
	// maxProtected bounds the protections at a time: all that is committed is compared with them.
	maxProtected = 16
	// lookOps is up to how many ops of a proposal are compared with a protection by the write loop; more are by the proposal's caller.
	lookOps = 1024
	// lookRounds is how often that happens before the proposal waits for all protections that there are.
	lookRounds = 4
)

// A protection is what is protected for a transaction. What is added to it makes a new one with the same ticket.
type protection struct {
	ticket  uint64
	version uint64 // no two have the same, later ones higher ones
	reads   *readSet
	timer   *time.Timer // ends it

	// The write loop's, and its transaction's when that was answered: since is the last commit that may have touched reads; but for commits with an
	// older ticket, after which it is broken.
	since  batchlog.ID
	broken bool
}

// protections are those that have begun.
type protections struct {
	mu     sync.Mutex                    // taken to change them
	active atomic.Pointer[[]*protection] // by ticket, which is the order in which they began; nil: there are none
	last   uint64                        // version, or ticket, that was given out
}

func (s *protections) list() []*protection {
	if list := s.active.Load(); list != nil {
		return *list
	}
	return nil
}

// find is the protection with that ticket; nil: it has ended.
func find(list []*protection, ticket uint64) *protection {
	for _, g := range list {
		if g.ticket == ticket {
			return g
		}
	}
	return nil
}

// setLocked makes list the protections there are.
func (s *protections) setLocked(list []*protection) {
	if len(list) == 0 {
		s.active.Store(nil)
		return
	}
	s.active.Store(&list)
}

// end ends the protection with that ticket, if it has not ended.
func (p *Pipeline) end(ticket uint64) {
	s := &p.protected
	s.mu.Lock()
	list := s.list()
	g := find(list, ticket)
	if g != nil {
		s.setLocked(slices.DeleteFunc(slices.Clone(list), func(other *protection) bool { return other == g }))
	}
	s.mu.Unlock()
	if g != nil {
		g.timer.Stop()
		p.wake()
	}
}

// Protect is as batchlog.Queuer says.
func (p *Pipeline) Protect(ctx context.Context, ticket uint64, reads *waist.Reads) (_ uint64, release func(), err error) {
	g := &protection{reads: &readSet{}}
	g.reads.set(reads)
	if old := find(p.protected.list(), ticket); old != nil && ticket != 0 {
		g.ticket, g.reads = ticket, old.reads.with(g.reads)
	}
	r := p.request()
	r.protect = g
	if err := p.enqueue(r); err != nil {
		r.free()
		return 0, nil, err
	}
	_, left, err := r.wait(ctx)
	if left {
		return 0, nil, err
	}
	r.free()
	if err != nil {
		return 0, nil, err
	}
	return g.ticket, func() { p.end(g.ticket) }, nil
}

// look compares the ops of r with the protections there are, in the caller.
func (p *Pipeline) look(r *request) {
	r.seen, r.touched, r.wide = 0, nil, r.round >= lookRounds
	for _, g := range p.protected.list() {
		if g.ticket != r.ticket && writes(r.prop, *g.reads) {
			r.touched = append(r.touched, g)
		}
		r.seen = max(r.seen, g.version)
	}
}

// touches reports whether r writes what g protects, in the write loop. known is false if that is too much to look at.
func (r *request) touches(g *protection) (touched, known bool) {
	switch {
	case g.version <= r.seen:
		return slices.Contains(r.touched, g), true
	case r.wide:
		return true, true
	}
	r.looking.Lock()
	defer r.looking.Unlock()
	if r.left() {
		return false, true
	}
	if r.prop.Count > lookOps {
		return false, false
	}
	return writes(r.prop, *g.reads), true
}

// writes reports whether a proposal writes what was read. Of a chain its spans are taken.
func writes(prop *waist.Proposal, reads readSet) bool {
	if prop.Chain != nil && reads.spanned(prop.Chain) {
		return true
	}
	ops := prop.Ops
	for range prop.Count {
		kind, key, value, rest, err := wire.NextOp(ops)
		if err != nil || reads.changedBy(kind, key, value) {
			return true
		}
		ops = rest
	}
	return false
}

// A verdict is what becomes of a commit that the write loop has before it.
type verdict int

const (
	pass verdict = iota
	wait
	back // to its caller
)

// judge says what becomes of a commit.
func (p *Pipeline) judge(r *request) verdict {
	mine := r.ticket != 0 && find(p.active, r.ticket) != nil
	for _, g := range p.active {
		if mine && g.ticket == r.ticket {
			continue
		}
		touched, known := r.touches(g)
		switch {
		case !known:
			return back
		case touched && (r.breaks || mine && r.ticket < g.ticket): // it is held by none, as those come first in the list
			g.broken = true
		case touched:
			r.by = g.ticket
			return wait
		}
	}
	return pass
}

// choose returns what of queue, and of what was held, is taken now. The rest is held.
func (p *Pipeline) choose(queue []*request) []*request {
	active := p.protected.active.Load()
	asked := slices.ContainsFunc(queue, func(r *request) bool { return r.protect != nil })
	if len(p.held) == 0 && active == nil && !asked {
		p.active = nil
		return queue
	}
	changed := active != p.chosen
	p.chosen, p.active = active, nil
	if active != nil {
		p.active = *active
	}
	var group []*request
	if changed {
		group = p.letGo()
	}
	for _, r := range queue {
		switch {
		case r.protect != nil:
			p.hold(r)
		default:
			group = p.place(r, group)
		}
	}
	if changed || asked {
		group = append(group, p.beginAsked()...)
	}
	return group
}

// place appends a commit to group, or to what is held, or hands it back.
func (p *Pipeline) place(r *request, group []*request) []*request {
	before := r.by
	switch p.judge(r) {
	case wait:
		r.passed = r.passed || before != 0 && before != r.by
		p.hold(r)
	case back:
		if r.begin() {
			r.answer(0, errAgain)
		}
	default:
		group = append(group, r)
	}
	return group
}

// sweepHeld is from how many on what is held is looked through for those who have left.
const sweepHeld = 256

// hold appends r to what is held. Those who have left go each time that there are twice as many as there were.
func (p *Pipeline) hold(r *request) {
	if len(p.held) >= p.sweep {
		p.held = slices.DeleteFunc(p.held, (*request).left)
		p.sweep = max(sweepHeld, 2*len(p.held))
	}
	p.held = append(p.held, r)
}

// letGo returns what was held and need not be any more.
func (p *Pipeline) letGo() (group []*request) {
	held := p.held
	p.held = make([]*request, 0, len(held))
	for _, r := range held {
		switch {
		case r.left():
		case r.protect != nil:
			p.held = append(p.held, r)
		default:
			group = p.place(r, group)
		}
	}
	return group
}

// beginAsked begins the protections that may, and returns who has asked for them.
func (p *Pipeline) beginAsked() (group []*request) {
	s := &p.protected
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active.Load() != p.chosen {
		return nil // one has ended since: the write loop has been woken, and what was held for that one goes first
	}
	list := slices.Clone(s.list())
	again := slices.ContainsFunc(p.held, func(r *request) bool { return r.passed && !r.left() })
	var waiting []*protection
	p.held = slices.DeleteFunc(p.held, func(r *request) bool {
		g := r.protect
		if g == nil {
			return false
		}
		if r.left() {
			return true
		}
		if at := slices.IndexFunc(list, func(other *protection) bool { return other.ticket == g.ticket }); at >= 0 {
			if r.begin() {
				s.last++
				g.version, g.timer = s.last, list[at].timer
				list[at] = g
				group = append(group, r)
			}
			return true
		}
		meets := func(other *protection) bool { return other.reads.meets(g.reads) }
		if again || len(list) >= maxProtected || slices.ContainsFunc(list, meets) || slices.ContainsFunc(waiting, meets) {
			waiting = append(waiting, g)
			return false
		}
		if r.begin() {
			s.last++
			ticket := s.last
			g.ticket, g.version = ticket, ticket
			g.timer = time.AfterFunc(ProtectMax, func() { p.end(ticket) })
			list = append(list, g)
			group = append(group, r)
		}
		return true
	})
	s.setLocked(list)
	p.active, p.chosen = list, s.active.Load()
	return group
}

// begun answers who has asked for a protection: all that was taken before is durable.
func (p *Pipeline) begun(r *request) {
	p.flush()
	r.protect.since = p.next - 1
	r.answer(0, nil)
}
