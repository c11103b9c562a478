package commit

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

const (
	// BacklogBytes is how much may be durable and not yet applied before writers wait: 8 MiB of ops.
	BacklogBytes = 8 << 20

	// One Apply takes so many commits or bytes: enough that its own cost doesn't show, few enough that a read that
	// waits for the first does not wait long for the last.
	applyCommits = 1024
	applyBytes   = 1 << 20

	// roomPoll is how often a writer that waits for room looks whether it can still come.
	roomPoll = 20 * time.Millisecond
)

// An applier is the backlog between write loop and apply loop.
type applier struct {
	mu struct {
		sync.Mutex
		more     *sync.Cond      // something was pushed, or it is finished
		groups   [][]wire.Record // in order of ids
		finished bool            // nothing will be pushed any more
		stopped  error           // why nothing is applied any more
	}
	trouble atomic.Pointer[error] // why applying is tried again
	backlog atomic.Int64
	less    chan struct{} // has a token when the backlog shrank
}

func (a *applier) init() {
	a.mu.more = sync.NewCond(&a.mu.Mutex)
	a.less = make(chan struct{}, 1)
}

// recordOverhead is what a commit counts in the backlog beside its bytes, so that commits without ops are bounded too.
const recordOverhead = 64

func sizeOf(records []wire.Record) int64 {
	size := int64(0)
	for i := range records {
		size += int64(records[i].Size()) + recordOverhead
	}
	return size
}

func (a *applier) push(group []wire.Record) {
	a.backlog.Add(sizeOf(group))
	a.mu.Lock()
	a.mu.groups = append(a.mu.groups, group)
	a.mu.Unlock()
	a.mu.more.Signal()
}

func (a *applier) finish() {
	a.mu.Lock()
	a.mu.finished = true
	a.mu.Unlock()
	a.mu.more.Signal()
}

// pop waits for groups, yields, and appends what fits into one Apply to dst. It returns nothing when all is done.
func (a *applier) pop(dst []wire.Record, yield func()) []wire.Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.mu.groups) == 0 {
		if a.mu.finished {
			return dst
		}
		a.mu.more.Wait()
	}
	a.mu.Unlock()
	yield()
	a.mu.Lock()
	n, size := 0, int64(0)
	for n < len(a.mu.groups) && (n == 0 || len(dst)+len(a.mu.groups[n]) <= applyCommits && size < applyBytes) {
		dst = append(dst, a.mu.groups[n]...)
		size += sizeOf(a.mu.groups[n])
		a.mu.groups[n] = nil
		n++
	}
	a.mu.groups = a.mu.groups[n:]
	return dst
}

func (a *applier) applied(records []wire.Record) {
	a.backlog.Add(-sizeOf(records))
	select {
	case a.less <- struct{}{}:
	default:
	}
}

// room reports whether the backlog is within its bound; if not it waits a while for that.
func (a *applier) room() bool {
	if a.backlog.Load() < BacklogBytes {
		return true
	}
	select {
	case <-a.less:
	case <-time.After(roomPoll):
	}
	return a.backlog.Load() < BacklogBytes
}

func (a *applier) bytes() int64 { return a.backlog.Load() }

// stop notes why nothing is applied any more.
func (a *applier) stop(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.stopped = err
}

// stopped is why nothing is applied any more, or nil.
func (a *applier) stopped() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.stopped
}

// applyLoop brings the store up to the log.
func (p *Pipeline) applyLoop() {
	// Should the store end this goroutine because it can't go on, held reads must not wait for it.
	over := errors.New("the store stopped applying")
	defer func() {
		if over != nil {
			p.applier.stop(over)
			p.reads.fail(fmt.Errorf("%w until the database is opened again: %w", batchlog.ErrReadOnly, over))
		}
	}()
	var records []wire.Record
	haste := haste{reads: &p.reads}
	for {
		clear(records)
		records = p.applier.pop(records[:0], haste.yield)
		if len(records) == 0 {
			over = nil
			return
		}
		if err := p.apply(records); err != nil {
			over = err
			return
		}
	}
}

const (
	// applyPatience is how long is tried to apply a commit whose Apply has failed without having written anything.
	applyPatience = 30 * time.Second
	// firstRetry is after which time that is tried first; each time it is twice as long, up to lastRetry.
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

// apply has the store apply records. What fails before anything is written, as a read of what a commit overwrites, or a file that can't be opened as too many
// are, is tried again for a while: one failure of the disk need not make the database read-only. Damage does not go away.
func (p *Pipeline) apply(records []wire.Record) error {
	began, wait := time.Time{}, firstRetry
	for {
		err := p.store.Apply(records)
		if err == nil {
			p.reached(records)
			p.applier.trouble.Store(nil)
			return nil
		}
		if !errors.As(err, new(interface{ Unwritten() })) || errors.Is(err, batchlog.ErrCorrupt) || p.store.Failed() != nil {
			return err
		}
		if done := p.store.Applied() + 1 - records[0].ID; done > 0 {
			p.reached(records[:done])
			records = records[done:]
			began, wait = time.Time{}, firstRetry
		}
		if began.IsZero() {
			began = time.Now()
		}
		if time.Since(began)+wait > applyPatience {
			return fmt.Errorf("tried for %s: %w", applyPatience, err)
		}
		p.applier.trouble.Store(&err)
		select {
		case <-time.After(wait):
		case <-p.done:
			return err // the next opening applies them
		}
		wait = min(2*wait, lastRetry)
	}
}

// reached is called when records are applied.
func (p *Pipeline) reached(records []wire.Record) {
	p.tokens.applied(records)
	p.reads.reached(records[len(records)-1].ID)
	p.applier.applied(records)
}

// Stopped is why nothing is applied any more, until the database is opened again, or nil.
func (p *Pipeline) Stopped() error { return p.applier.stopped() }

// Trouble is why applying has failed and is tried again now, or nil.
func (p *Pipeline) Trouble() error {
	if err := p.applier.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// A haste tells whether somebody waits for what is applied. While nobody does, commits come before applying: those who were just answered write on first, so
// that the next group is whole. With few processors the applier would be in their way, and the writers fall into two groups, each of which waits for the sync
// of the other one.
type haste struct {
	reads *gate
	left  int // so often it does not yield yet
}

// hasteGroups is for how many groups after a held read the applier does not yield: who reads what was just written does it again.
const hasteGroups = 64

func (h *haste) yield() {
	if h.reads.waited.Swap(false) {
		h.left = hasteGroups
	}
	if h.left > 0 {
		h.left--
		return
	}
	runtime.Gosched()
}
