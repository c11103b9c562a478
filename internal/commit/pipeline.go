// Package commit is the line that a batch travels, from the call that writes it to the views that show it:
//
//	hooks ─► validate ─► number ─► append ─► sync ─► ACK ─► apply ─► views
//
// Two goroutines do it. The write loop takes all proposals that wait as one group: it validates and numbers each, appends
// them to the log, syncs once, and answers everyone. The apply loop brings the store up behind it, in the order of ids,
// some hundred commits at a time. Between them stands a bounded backlog: when the store falls behind by
// [BacklogBytes], writers wait.
//
// No code of users runs here, and what one proposal can make the write loop do is bounded. A transaction that keeps losing is helped by [Pipeline.Protect].
//
// Log and store are its own small interfaces, so that it can be tested without either.
package commit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A Log is what the pipeline needs of the log.
type Log interface {
	// Add appends r to the group that the next Sync writes, and returns it as the log holds it. added is false if the
	// group has no room for it.
	Add(r wire.Record) (stored wire.Record, added bool, err error)
	// Sync makes the group durable and shows it to followers. If it fails nothing of the group is there.
	Sync() error
	// Head is the newest durable commit.
	Head() batchlog.ID
	// Reader reads commits back.
	Reader(o batchlog.LogOptions) (waist.LogReader, error)
}

// A Store is what the pipeline needs of the store.
type Store interface {
	// Apply makes the changes of records, which follow on what was applied, as one.
	Apply(records []wire.Record) error
	// Applied is the newest commit that was applied.
	Applied() batchlog.ID
	// Token finds the commit with that token among those applied.
	Token(token string) (batchlog.ID, bool, error)
	// Failed is why the store takes no changes any more, or nil.
	Failed() error
	// NoSpace reports whether the store waits for space on the disk.
	NoSpace() bool
}

// Options are the parts of a pipeline.
type Options struct {
	Log      Log
	Store    Store
	Now      func() time.Time
	LastTime int64 // of the newest commit in the log, in microseconds since 1970
}

// A Pipeline commits proposals. It owns two goroutines, writeLoop and applyLoop; New starts them, Close ends them.
type Pipeline struct {
	log     Log
	store   Store
	now     func() time.Time
	applier applier
	reads   gate
	recent  window
	tokens  tokens

	protected protections // what transactions that keep losing have read

	done    chan struct{} // closed by Close
	written chan struct{} // closed when the write loop has ended

	requests sync.Pool // of *request that were answered
	wg       sync.WaitGroup

	// The write loop owns these.
	next     batchlog.ID // id of the next commit
	lastTime int64
	records  []wire.Record // of the group that is being built, as the log holds them
	waiting  []*request    // who asked for them
	again    []*request    // who is handed back when these are durable
	broken   error         // why nothing can be appended any more

	held   []*request     // what waits for protections, and who asks for one, in the order in which they came
	active []*protection  // those that the group was chosen by
	chosen *[]*protection // where active is from, to tell whether it has changed
	sweep  int            // how many are held when those who have left are taken out

	mu struct {
		sync.Mutex
		queue  []*request // bounded by the callers: each waits for its one proposal
		closed bool
	}
	ready chan struct{} // has a token when the queue may have something for the write loop
	spare []*request    // memory of the queue before
}

// New starts a pipeline on a store that is at the head of its log; see [Replay].
func New(o Options) *Pipeline {
	p := &Pipeline{
		log: o.Log, store: o.Store, now: o.Now, lastTime: o.LastTime,
		done:    make(chan struct{}),
		written: make(chan struct{}),
		ready:   make(chan struct{}, 1),
		next:    o.Log.Head() + 1,
	}
	p.applier.init()
	p.reads.applied.Store(uint64(o.Store.Applied()))
	p.reads.storeFailed = o.Store.Failed
	p.recent.next = p.next
	p.tokens.under = map[string]*tokenEntry{}
	p.wg.Go(p.writeLoop)
	p.wg.Go(p.applyLoop)
	return p
}

// Commit is as batchlog.Engine says.
func (p *Pipeline) Commit(ctx context.Context, prop *waist.Proposal) (batchlog.ID, error) {
	n := len(prop.Ops) + len(prop.Meta)
	if prop.Chain != nil {
		n += len(wire.AppendChainRef(nil, prop.Chain))
	}
	if err := batchlog.LimitBatch.Check(n); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	if prop.Token != "" {
		return p.commitOnce(ctx, prop)
	}
	return p.submit(ctx, prop)
}

// submit hands a proposal to the write loop and waits for its answer.
func (p *Pipeline) submit(ctx context.Context, prop *waist.Proposal) (batchlog.ID, error) {
	r := p.request()
	r.prop, r.ticket, r.breaks = prop, prop.Ticket, prop.Task != nil && prop.Task.Admin
	for ; ; r.round++ {
		if err := p.prepare(ctx, r); err != nil {
			r.free()
			return 0, err
		}
		if err := p.enqueue(r); err != nil {
			r.free()
			return 0, err
		}
		id, left, err := r.wait(ctx)
		switch {
		case left:
			return 0, err
		case err != errAgain: //nolint:errorlint // the very one
			r.free()
			return id, err
		case ctx.Err() != nil:
			r.free()
			return 0, context.Cause(ctx)
		}
	}
}

// request is one to be filled in.
func (p *Pipeline) request() *request {
	if r, ok := p.requests.Get().(*request); ok {
		return r
	}
	return &request{done: make(chan answer, 1), pool: &p.requests}
}

func (p *Pipeline) enqueue(r *request) error {
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		return batchlog.ErrClosed
	}
	p.mu.queue = append(p.mu.queue, r)
	p.mu.Unlock()
	p.wake()
	return nil
}

func (p *Pipeline) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// writeLoop commits what comes, a group at a time, until the pipeline is closed.
func (p *Pipeline) writeLoop() {
	defer close(p.written)
	for {
		group := p.take()
		if group == nil {
			p.applier.finish()
			return
		}
		p.commitGroup(group)
		clear(group)
		p.spare = group[:0]
	}
}

// take waits for proposals and takes all that may be taken. It returns nil when the pipeline is closed: what waits is refused.
func (p *Pipeline) take() []*request {
	for {
		p.settle()
		p.mu.Lock()
		queue := p.mu.queue
		if len(queue) > 0 {
			p.mu.queue, p.spare = p.spare[:0], nil
		}
		closed := p.mu.closed
		p.mu.Unlock()
		if closed {
			for _, r := range append(queue, p.held...) {
				if r.begin() {
					r.answer(0, batchlog.ErrClosed)
				}
			}
			return nil
		}
		if group := p.choose(queue); len(group) > 0 {
			return group
		}
		<-p.ready
	}
}

// settle lets other goroutines run for as long as the queue grows by it: who was just answered writes again, and a
// larger group costs no more than a small one. When nobody comes it returns at once.
func (p *Pipeline) settle() {
	const most = 4
	for n := range most {
		p.mu.Lock()
		before := len(p.mu.queue)
		p.mu.Unlock()
		if before == 0 && n > 0 {
			return
		}
		runtime.Gosched()
		p.mu.Lock()
		after := len(p.mu.queue)
		p.mu.Unlock()
		if after <= before {
			return
		}
	}
}

// commitGroup is the line: each proposal of the group is validated, numbered and appended; one sync makes them durable;
// then they are acknowledged and handed to the applier.
func (p *Pipeline) commitGroup(group []*request) {
	if err := p.admit(); err != nil {
		for _, r := range group {
			p.refuse(r, err)
		}
		return
	}
	now := max(p.lastTime, p.now().UnixMicro())
	for _, r := range group {
		if r.protect != nil {
			p.begun(r)
			continue
		}
		if !r.begin() {
			continue // its caller has left
		}
		if p.closing() { // what has its id runs to the end, and no more: Close is not to wait for all who happen to stand in line
			r.answer(0, batchlog.ErrClosed)
			continue
		}
		err := p.validate(r)
		if err == errAgain { //nolint:errorlint // the very one
			p.again = append(p.again, r)
			continue
		}
		if err == nil {
			err = p.append(r, now)
		}
		if err != nil {
			r.answer(0, err)
		}
	}
	p.flush()
	for _, r := range p.again { // now, so that it can look at the commits of this group
		r.answer(0, errAgain)
	}
	clear(p.again)
	p.again = p.again[:0]
}

// closing reports whether Close was called.
func (p *Pipeline) closing() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// refuse answers a request that was taken in a group, and comes to nothing.
func (p *Pipeline) refuse(r *request, err error) {
	switch {
	case r.protect != nil:
		p.end(r.protect.ticket)
		r.answer(0, err)
	case r.begin():
		r.answer(0, err)
	}
}

// admit waits until the applier's backlog has room, or says why nothing can be written now.
func (p *Pipeline) admit() error {
	if p.broken != nil {
		return p.broken
	}
	for {
		if err := errors.Join(p.store.Failed(), p.applier.stopped()); err != nil {
			return fmt.Errorf("%w until the database is opened again: %w", batchlog.ErrReadOnly, err)
		}
		if p.store.NoSpace() {
			return fmt.Errorf("%w for the store", batchlog.ErrNoSpace)
		}
		if p.applier.room() {
			return nil
		}
	}
}

// append numbers a proposal and adds it to the group.
func (p *Pipeline) append(r *request, now int64) error {
	rec := wire.Record{ID: p.next, Time: now, Count: r.prop.Count, Meta: r.prop.Meta, Ops: r.prop.Ops}
	if c := r.prop.Chain; c != nil {
		chain := *c // followers are handed it
		rec.Chain = &chain
		rec.Count += c.Count
	}
	for {
		stored, added, err := p.log.Add(rec)
		if err != nil {
			p.note(err)
			return err
		}
		if added {
			p.records = append(p.records, stored)
			p.waiting = append(p.waiting, r)
			p.next++
			p.lastTime = now
			return nil
		}
		p.flush()
		rec.ID = p.next // the group before may have come to nothing
	}
}

// flush makes the group durable, hands it on, and answers who asked for it.
func (p *Pipeline) flush() {
	if len(p.records) == 0 {
		return
	}
	records, waiting := p.records, p.waiting
	p.records, p.waiting = make([]wire.Record, 0, max(1, len(records))), p.waiting[:0]
	if err := p.log.Sync(); err != nil {
		p.next = records[0].ID
		p.note(err)
		for _, r := range waiting {
			r.answer(0, err)
		}
		return
	}
	p.recent.add(records)
	p.applier.push(records)
	for i, r := range waiting {
		r.answer(records[i].ID, nil)
	}
	clear(waiting)
}

// note remembers a failure of the log after which nothing can be appended: every later write says so, whatever else is
// the matter by then.
func (p *Pipeline) note(err error) {
	if p.broken == nil && errors.Is(err, batchlog.ErrUncertain) {
		p.broken = fmt.Errorf("%w until the database is opened again: %s", batchlog.ErrReadOnly, err) //nolint:errorlint // the ErrUncertain was that write's, not the later ones'
	}
}

// Close answers what has its id, ends what waits with ErrClosed, whole groups of it included, and waits until the store has applied everything that
// is durable, or can't: that is the group that is written, and BacklogBytes at most. A second Close does nothing.
func (p *Pipeline) Close() {
	p.mu.Lock()
	closed := p.mu.closed
	p.mu.closed = true
	p.mu.Unlock()
	if closed {
		return
	}
	close(p.done)
	p.wake()
	p.reads.fail(batchlog.ErrClosed)
	<-p.written // the caller closes the log next; whatever the store does, this ends
	ended := make(chan struct{})
	go func() {
		p.wg.Wait()
		close(ended)
	}()
	for {
		select {
		case <-ended:
			return
		case <-time.After(closePoll):
			if p.store.Failed() != nil || p.store.NoSpace() {
				return // the log has it all; the next open applies it
			}
		}
	}
}

// closePoll is how often Close looks whether what it waits for can still come.
const closePoll = 20 * time.Millisecond

// Backlog is the size of what is durable and not yet applied, in bytes.
func (p *Pipeline) Backlog() int64 { return p.applier.bytes() }

// BacklogLimit is the size of the backlog at which writers wait, in bytes.
func (p *Pipeline) BacklogLimit() int64 { return BacklogBytes }
